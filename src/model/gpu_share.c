/* gpu_share.c: experts that the processor computes where they lie, in the store's memory, while the
 * bus brings others to the card (fm_options.cpu_experts).
 *
 *     host     ids |wait| launches | the processor's experts           | their outputs
 *     upload              [miss][miss][miss]                           v
 *     compute             [hits]      [misses]                         [words] combine ...
 *
 * How many: as many as make the longer of the two ways shortest, from the time of an upload
 * (measured at open) and of an expert on the processor (measured all the time). None where that
 * loses; then one is tried again from time to time.
 *
 * Both compute in float32, but add in different orders: the last bits of a token's logits depend on
 * who computed which expert, and so on memory and time. That is why it is off unless asked for. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/gpu_ops_impl.h"

#define TASK_BYTES  (32 * 1024)
#define WARM_LAYERS 16  /* one expert each, so that the processor's time is known */
#define RETRY_EVERY 512 /* layers, while it loses */
#define UPLOADS_MAX 16  /* that are timed at open */

/* y[t] = w x[t], cut into blocks of rows. */
typedef struct share_product {
    const qmat *w;
    const float *x;
    float *y;
    size_t x_stride, y_stride;
    int n, block, first_task;
} share_product;

typedef struct share_list {
    const gpu_share *s;
    share_product p[2 * SHARE_USES_MAX];
    int n, tasks;
} share_list;

/* ---- how many ---- */

static bool takes(const gpu_ops *o, int rows) { return o->share.on && rows <= SHARE_ROWS_MAX; }

static int best_of(const gpu_share *s, int n) {
    int best = 0;
    double least = n * s->upload_ns;
    for (int c = 1; c <= n; c++) {
        double up = (n - c) * s->upload_ns, here = c * s->expert_ns;
        double longer = up > here ? up : here;
        if (longer < least) best = c, least = longer;
    }
    return best;
}

int gpu_share_of(const gpu_ops *o, int n) {
    const gpu_share *s = &o->share;
    if (!s->on || n < 1) return 0;
    if (s->layers < WARM_LAYERS) return 1;
    int best = best_of(s, n);
    return best || s->layers % RETRY_EVERY ? best : 1;
}

/* Which of those that are in memory: others every time, so that each is uploaded now and then and
 * may get a place on the card. */
void gpu_share_choose(gpu_moe_job *j, int guessed) {
    gpu_ops *o = j->o;
    gpu_share *s = &o->share;
    int there[SHARE_USES_MAX], n = 0;
    s->n = 0;
    if (!takes(o, j->b->rows)) return;
    for (int i = 0; i < o->n_uses && n < SHARE_USES_MAX; i++) {
        const gpu_use *u = &o->uses[i];
        if (u->done || u->now) continue;
        if (!u->asked) return; /* the store has no room for all: pins must not stay long */
        if (expert_store_ready(o->store, j->w->sparse_index, u->id)) there[n++] = i;
    }
    if (!n) return;
    int wanted = int_min(gpu_share_of(o, n + guessed), n);
    s->layers++;
    for (int i = 0; i < wanted; i++) {
        int at = there[(s->layers + (unsigned)i) % (unsigned)n];
        o->uses[at].here = true;
        s->uses[s->n++].use = at;
    }
    j->n_left -= wanted;
}

/* ---- computing ---- */

static void add(share_list *l, const qmat *w, const share_product *p) {
    size_t rows = TASK_BYTES / (qformat_row_total(w->format, w->cols) + 1);
    share_product *to = &l->p[l->n++];
    *to = *p;
    to->w = w;
    to->block = int_max((int)(rows / CPU_MATMUL_ROWS) * CPU_MATMUL_ROWS, CPU_MATMUL_ROWS);
    to->first_task = l->tasks;
    l->tasks += (w->rows + to->block - 1) / to->block;
}

static void task(void *ctx, int at, int worker) {
    const share_list *l = ctx;
    int i = 0;
    while (i + 1 < l->n && l->p[i + 1].first_task <= at) i++;
    const share_product *p = &l->p[i];
    int begin = (at - p->first_task) * p->block, end = int_min(begin + p->block, p->w->rows);
    cpu_matmul m = {.w = p->w,
                    .x = p->x,
                    .y = p->y,
                    .x_stride = p->x_stride,
                    .y_stride = p->y_stride,
                    .n = p->n,
                    .scratch = l->s->scratch + (size_t)worker * l->s->scratch_floats};
    l->s->kernels->matmul(&m, begin, end);
}

/* The rows of the uses, one use after the other: x, [gate | up], outs. */
static void compute(const gpu_ops *o) {
    const gpu_share *s = &o->share;
    size_t hidden = (size_t)o->c->hidden, inner = (size_t)o->c->expert_intermediate;
    share_list l = {.s = s};
    for (int i = 0; i < s->n; i++) {
        const share_use *u = &s->uses[i];
        float *mid = s->mid + (size_t)u->at * 2 * inner;
        share_product p = {.x = s->x + (size_t)u->at * hidden,
                           .y = mid,
                           .x_stride = hidden,
                           .y_stride = 2 * inner,
                           .n = u->n};
        add(&l, &u->w.gate, &p);
        p.y = mid + inner;
        add(&l, &u->w.up, &p);
    }
    pool_run(s->pool, task, &l, l.tasks);
    l.n = l.tasks = 0;
    for (int i = 0; i < s->n; i++) {
        const share_use *u = &s->uses[i];
        float *mid = s->mid + (size_t)u->at * 2 * inner;
        for (int t = 0; t < u->n; t++) {
            float *gate = mid + (size_t)t * 2 * inner;
            s->kernels->silu_mul(gate, gate, gate + inner, (int)inner);
        }
        share_product p = {.x = mid,
                           .y = s->outs + (size_t)u->at * hidden,
                           .x_stride = 2 * inner,
                           .y_stride = hidden,
                           .n = u->n};
        add(&l, &u->w.down, &p);
    }
    pool_run(s->pool, task, &l, l.tasks);
}

/* Matrices and input rows; all experts are in memory, so nothing waits. */
static err gather(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    gpu_share *s = &o->share;
    const int *order = (const int *)(const void *)o->passes_host;
    size_t hidden = (size_t)o->c->hidden;
    int at = 0;
    for (int i = 0; i < s->n; i++) {
        share_use *to = &s->uses[i];
        gpu_use *u = &o->uses[to->use];
        expert_view view;
        err e = gpu_store_wait(j, u->id, &view);
        if (e.code) u->held = false; /* that pin is gone */
        TRY(e);
        weights_expert(j->w, &view, &to->w);
        to->at = at;
        to->n = u->n;
        for (int t = 0; t < u->n; t++, at++) {
            int row = order[u->first + t] / o->o.experts_per_token;
            memcpy(s->x + (size_t)at * hidden, s->h + (size_t)row * hidden, hidden * sizeof(float));
        }
    }
    return err_none();
}

err gpu_share_run(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    gpu_share *s = &o->share;
    const int *order = (const int *)(const void *)o->passes_host;
    size_t row = (size_t)o->c->hidden * sizeof(float);
    if (!s->n) return err_none();
    uint64_t begin = os_now_ns();
    TRY(gather(j));
    compute(o);
    double ns = (double)(os_now_ns() - begin) / s->n;
    s->expert_ns = s->expert_ns > 0 ? s->expert_ns + (ns - s->expert_ns) / 16 : ns;
    for (int i = 0; i < s->n; i++) {
        const share_use *from = &s->uses[i];
        gpu_use *u = &o->uses[from->use];
        for (int t = 0; t < from->n; t++)
            TRY(gpu_words_in(o, o->outs + (gpu_addr)order[u->first + t] * row,
                             s->outs + (size_t)(from->at + t) * (size_t)o->c->hidden, row));
        expert_store_release(o->store, j->w->sparse_index, u->id);
        u->held = false;
        u->done = true;
        o->stats.on_cpu++;
    }
    return err_none();
}

err gpu_share_input(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    size_t bytes = (size_t)j->b->rows * (size_t)o->c->hidden * sizeof(float);
    return takes(o, j->b->rows) ? gpu_words_out(o, o->share.h, o->h, bytes) : err_none();
}

/* ---- open, close ---- */

static size_t pairs_of(const gpu_ops *o) {
    return (size_t)int_min(SHARE_ROWS_MAX, o->o.rows_max) * (size_t)o->o.experts_per_token;
}

void gpu_share_cut(gpu_ops *o, gpu_cutter *c, uint8_t *base) {
    if (!o->o.cpu_experts || !o->c->experts) return;
    size_t row = (size_t)o->c->hidden * sizeof(float);
    size_t h = gpu_cut(c, SHARE_ROWS_MAX * row), outs = gpu_cut(c, pairs_of(o) * row);
    if (!base) return;
    o->share.h = (float *)(void *)(base + h);
    o->share.outs = (float *)(void *)(base + outs);
}

/* ns of an upload of one expert, from a few behind each other. */
static err time_upload(gpu_ops *o, double *ns) {
    size_t bytes, slot_bytes;
    uint8_t *memory;
    const gpu_tier *t = &o->tier;
    expert_store_memory(o->store, &memory, &bytes, &slot_bytes);
    size_t span = size_min(t->slot_bytes, slot_bytes);
    int n = int_min(int_min(expert_store_slots(o->store), t->n_slots), UPLOADS_MAX);
    *ns = 1e18;
    for (int turn = 0; turn < 3; turn++) {
        uint64_t begin = os_now_ns();
        for (int i = 0; i < n; i++)
            TRY(gpu_copy_in(o->upload, t->memory.addr + (gpu_addr)i * t->slot_bytes,
                            memory + (size_t)i * slot_bytes, span));
        TRY(gpu_queue_wait(o->upload));
        double each = (double)(os_now_ns() - begin) / n;
        *ns = each < *ns ? each : *ns;
    }
    return err_none();
}

err gpu_share_open(gpu_ops *o) {
    gpu_share *s = &o->share;
    const model_config *c = o->c;
    if (!o->o.cpu_experts || !o->tier.n_layers || o->unified) return err_none();
    if (pairs_of(o) > SHARE_USES_MAX)
        return err_make(ERR_UNSUPPORTED, "cpu_experts: %d experts a token are too many",
                        o->o.experts_per_token);
    s->kernels = o->o.kernels;
    s->pool = o->o.pool;
    s->scratch_floats = cpu_matmul_scratch(int_max(c->hidden, c->expert_intermediate));
    s->x = calloc(pairs_of(o) * (size_t)c->hidden, sizeof(float));
    s->mid = calloc(pairs_of(o) * 2 * (size_t)c->expert_intermediate, sizeof(float));
    s->scratch = calloc((size_t)pool_threads(s->pool) * s->scratch_floats, sizeof(float));
    if (!s->x || !s->mid || !s->scratch)
        return err_make(ERR_NOMEM, "no memory for experts on the processor");
    TRY(time_upload(o, &s->upload_ns));
    s->on = true;
    return err_none();
}

void gpu_share_close(gpu_share *s) {
    free(s->x);
    free(s->mid);
    free(s->scratch);
    *s = (gpu_share){0};
}
