/* linear.c: several matrix products as one job of the pool.
 *
 * Each product is cut into blocks of matrix rows of about TASK_BYTES of weights: small enough that
 * a thread which the system takes away delays one block only, large enough that handing out costs
 * nothing. A block is computed by one thread for all its vectors, so that its weights are read
 * once.
 *
 * Unless the engine is exact, activations of quantised matrices are turned into 8-bit integers
 * first, those of BF16 matrices into BF16: once for every distinct input of the list, and for o->h
 * once until it changes. */
#include <assert.h>

#include "base/bits.h"
#include "model/cpu_ops_impl.h"

#define TASK_BYTES    (32 * 1024)
#define QUANT_IN_LINE 16384 /* floats: fewer are not worth handing out */

typedef struct linear_job {
    cpu_ops *o;
    linear *list;
    int n;
} linear_job;

bool linear_takes_pick(const cpu_ops *o, const qmat *w) {
    return !o->o.exact && (w->format.kind == QK_AFFINE || w->format.kind == QK_BF16);
}

void linear_forget(cpu_ops *o) {
    o->n_kept = 0;
    o->act_kept = 0;
}

/* ---- activations ---- */

static const act_entry *act_find(const cpu_ops *o, const linear *l) {
    for (int i = 0; i < o->n_acts; i++) {
        const act_entry *a = &o->acts[i];
        if (a->x == l->x && a->x_stride == l->x_stride &&
            a->bf16 == (l->w->format.kind == QK_BF16) && a->q.group == l->w->format.group &&
            a->cols == l->w->cols && a->n >= (l->pick ? l->x_rows : l->n))
            return a;
    }
    return NULL;
}

static const act_entry *act_add(cpu_ops *o, const linear *l) {
    const act_entry *known = act_find(o, l);
    if (known) return known;
    int n = l->pick ? l->x_rows : l->n, cols = l->w->cols, group = l->w->format.group;
    act_entry *a = &o->acts[o->n_acts++];
    void *memory = o->act_memory + o->act_used;
    *a = (act_entry){.x = l->x, .x_stride = l->x_stride, .n = n, .cols = cols};
    a->bf16 = l->w->format.kind == QK_BF16;
    if (a->bf16)
        a->b = cpu_actb_place(memory, n, cols);
    else
        a->q = cpu_actq_place(memory, n, cols, group);
    size_t bytes = a->bf16 ? cpu_actb_bytes(n, cols) : cpu_actq_bytes(n, cols, group);
    o->act_used += round_up(bytes, 64);
    assert(o->act_used <= o->act_bytes);
    if (l->x == o->h && o->n_kept == o->n_acts - 1) {
        o->n_kept = o->n_acts;
        o->act_kept = o->act_used;
    }
    return a;
}

/* task = row of all entries that are not filled yet, one after the other */
static void quantize_task(void *ctx, int task, int worker) {
    (void)worker;
    const cpu_ops *o = ctx;
    int i = 0;
    for (;; i++) {
        if (o->acts[i].fresh) continue;
        if (task < o->acts[i].n) break;
        task -= o->acts[i].n;
    }
    const act_entry *a = &o->acts[i];
    const float *x = a->x + (size_t)task * a->x_stride;
    if (a->bf16)
        o->o.kernels->round_bf16(&a->b, task, x);
    else
        o->o.kernels->quantize(&a->q, task, x);
}

static void quantize_all(cpu_ops *o) {
    int rows = 0;
    size_t floats = 0;
    for (int i = 0; i < o->n_acts; i++) {
        if (o->acts[i].fresh) continue;
        rows += o->acts[i].n;
        floats += (size_t)o->acts[i].n * (size_t)o->acts[i].cols;
    }
    if (floats > QUANT_IN_LINE) {
        pool_run(o->o.pool, quantize_task, o, rows);
    } else {
        for (int i = 0; i < rows; i++) quantize_task(o, i, 0);
    }
    for (int i = 0; i < o->n_acts; i++) o->acts[i].fresh = true;
}

static void find_acts(cpu_ops *o, linear *list, int n) {
    o->n_acts = o->n_kept;
    o->act_used = o->act_kept;
    for (int i = 0; i < n; i++) {
        linear *l = &list[i];
        bool turned = linear_takes_pick(o, l->w) && !l->precise;
        assert(turned || !l->pick);
        l->act = turned ? act_add(o, l) : NULL;
    }
    quantize_all(o);
}

/* ---- products ---- */

static int block_rows(const linear *l) {
    size_t row = qformat_row_total(l->w->format, l->w->cols);
    size_t work = row * (size_t)(l->n > 4 ? (l->n + 3) / 4 : 1);
    size_t rows = TASK_BYTES / (work ? work : 1);
    size_t unit = l->act && !l->act->bf16 && l->n > 1 ? CPU_INT_ROWS : CPU_MATMUL_ROWS;
    rows = rows / unit * unit;
    return rows < unit ? (int)unit : int_min((int)rows, l->w->rows);
}

static void products(const linear_job *j, const linear *l, int begin, int end, int worker) {
    const cpu_kernels *k = j->o->o.kernels;
    void *scratch = j->o->worker[worker];
    if (!l->act) {
        cpu_matmul m = {l->w, l->x, l->y, l->x_stride, l->y_stride, l->n, scratch};
        k->matmul(&m, begin, end);
    } else if (l->act->bf16) {
        cpu_matmul_bf16 m = {l->w, &l->act->b, l->pick, l->y, l->y_stride, l->n, scratch};
        k->matmul_bf16(&m, begin, end);
    } else {
        cpu_matmul_int m = {l->w, &l->act->q, l->pick, l->y, l->y_stride, l->n, scratch};
        k->matmul_int(&m, begin, end);
    }
}

static void linear_task(void *ctx, int task, int worker) {
    const linear_job *j = ctx;
    int i = 0;
    while (i + 1 < j->n && j->list[i + 1].first_task <= task) i++;
    const linear *l = &j->list[i];
    int begin = (task - l->first_task) * l->block, end = int_min(begin + l->block, l->w->rows);
    /* The engine thread, which the store belongs to: the disk must not stand still meanwhile. */
    if (worker == 0 && j->o->o.store) expert_store_tend(j->o->o.store);
    products(j, l, begin, end, worker);
    for (int t = 0; l->bias && t < l->n; t++) {
        for (int r = begin; r < end; r++) l->y[(size_t)t * l->y_stride + (size_t)r] += l->bias[r];
    }
}

void linear_run(cpu_ops *o, linear *list, int n) {
    int tasks = 0;
    find_acts(o, list, n);
    for (int i = 0; i < n; i++) {
        list[i].block = block_rows(&list[i]);
        list[i].first_task = tasks;
        tasks += (list[i].w->rows + list[i].block - 1) / list[i].block;
    }
    linear_job j = {.o = o, .list = list, .n = n};
    pool_run(o->o.pool, linear_task, &j, tasks);
}
