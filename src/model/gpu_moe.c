/* gpu_moe.c: a mixture of experts on the card.
 *
 *     h = norm(x) -> router | shared gate, up | shared expert's gate -> the k experts of every row
 *     resident   plan on the card, all experts in one launch
 *     streamed   ids to the host; passes: gpu_stream.c, or gpu_unified.c
 *     -> weighted sum in the router's order, the shared expert, x +=
 *
 * The host's plan lies in `passes`: the order of all pairs, then for each pass its number of
 * experts and their gpu_active with a slot's number for the expert's. */
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "cpu/cpu.h"
#include "model/gpu_ops_impl.h"

#define DIRECT_ROWS 8       /* more ids travel faster together */
#define WATCH_NS    5000000 /* for ids that come without an event */

/* ---- launches ---- */

static err project(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    const mlp_weights *s = &j->w->shared;
    args_matvec a = {.m = {gpu_mat_of(o, &j->w->router)},
                     .y = {o->router},
                     .x = o->h,
                     .y_stride = {o->c->experts},
                     .n = j->b->rows,
                     .x_stride = o->c->hidden,
                     .n_mats = 1};
    if (s->gate.rows) {
        const qmat *m[3] = {&s->gate, &s->up, &j->w->shared_gate};
        gpu_addr y[3] = {o->gate_mid, o->up_mid, o->shared_gate};
        for (int i = 0; i < 3; i++) {
            a.m[1 + i] = gpu_mat_of(o, m[i]);
            a.y[1 + i] = y[i];
            a.y_stride[1 + i] = m[i]->rows;
        }
        a.n_mats = 4;
    }
    return gpu_multiply(o, &a);
}

static err route(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int pairs = j->b->rows * o->o.experts_per_token;
    for (int i = 0; j->direct && i < pairs; i++) o->ids_host[i] = -1;
    TRY(gpu_norm(o, o->h, o->x, j->w->post_norm, j->b->rows));
    TRY(project(j));
    args_router a = {.logits = o->router,
                     .ids = j->direct ? gpu_pinned_at(o, o->ids_host) : o->ids,
                     .weights = o->gates,
                     .n = j->b->rows,
                     .n_experts = o->c->experts,
                     .k = o->o.experts_per_token,
                     .norm = o->c->norm_topk};
    return gpu_do(o, GPU_router, &a);
}

/* tmp = the shared expert. */
static err run_shared(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    const mlp_weights *s = &j->w->shared;
    if (!s->gate.rows) return err_none();
    args_swiglu act = {
        .gate = o->gate_mid, .up = o->up_mid, .y = o->gate_mid, .n = j->b->rows * s->gate.rows};
    TRY(gpu_do(o, GPU_swiglu, &act));
    args_matvec down = {.m = {gpu_mat_of(o, &s->down)},
                        .y = {o->tmp},
                        .x = o->gate_mid,
                        .y_stride = {o->c->hidden},
                        .n = j->b->rows,
                        .x_stride = s->down.cols,
                        .n_mats = 1};
    return gpu_multiply(o, &down);
}

err gpu_moe_experts(const gpu_moe_job *j, const expert_layout *l, args_experts plan) {
    gpu_ops *o = j->o;
    plan.n_pairs = j->b->rows * o->o.experts_per_token;
    plan.n_rows = j->b->rows;
    args_experts in = plan, out = plan;
    in.x = o->h;
    in.y = o->mid;
    in.gate = l->gate;
    in.up = l->up;
    in.x_stride = o->c->hidden;
    in.y_stride = l->gate.rows;
    in.row_of_pair = o->o.experts_per_token;
    TRY(gpu_do(o, GPU_experts, &in));
    out.x = o->mid;
    out.y = o->outs;
    out.gate = l->down;
    out.x_stride = l->gate.rows;
    out.y_stride = o->c->hidden;
    out.row_of_pair = 1;
    return gpu_do(o, GPU_experts, &out);
}

static err combine(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    bool shared = j->w->shared.gate.rows != 0;
    args_combine a = {.h = o->x,
                      .y = o->outs,
                      .weights = o->gates,
                      .shared = shared ? o->tmp : 0,
                      .gate = shared ? o->shared_gate : 0,
                      .n = j->b->rows,
                      .k = o->o.experts_per_token,
                      .cols = o->c->hidden};
    return gpu_do(o, GPU_combine, &a);
}

/* ---- resident ---- */

static err resident(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int pairs = j->b->rows * o->o.experts_per_token;
    args_plan plan = {.ids = o->ids,
                      .active = o->active,
                      .order = o->order,
                      .n_active = o->n_active,
                      .n_pairs = pairs,
                      .n_experts = o->c->experts};
    TRY(gpu_do(o, GPU_plan, &plan));
    TRY(run_shared(j));
    size_t table = (size_t)j->w->sparse_index * (size_t)o->c->experts * sizeof(gpu_slot);
    args_experts e = {.slots = o->tier.by_key.addr + table,
                      .active = o->active,
                      .n_active = o->n_active,
                      .order = o->order,
                      .max_active = int_min(o->c->experts, pairs)};
    return gpu_moe_experts(j, &o->tier.layouts[j->w->sparse_index], e);
}

/* ---- streamed: the plan ---- */

gpu_addr gpu_pinned_at(const gpu_ops *o, const void *host) {
    return o->pinned.addr + (gpu_addr)((const uint8_t *)host - (const uint8_t *)o->pinned.host);
}

err gpu_words_out(gpu_ops *o, void *host, gpu_addr from, size_t bytes) {
    if (o->unified) return err_none();
    args_words a = {.from = from, .to = gpu_pinned_at(o, host), .n = (int)(bytes / sizeof(int))};
    return gpu_do(o, GPU_words, &a);
}

err gpu_words_in(gpu_ops *o, gpu_addr to, const void *host, size_t bytes) {
    if (o->unified) return err_none();
    args_words a = {.from = gpu_pinned_at(o, host), .to = to, .n = (int)(bytes / sizeof(int))};
    return gpu_do(o, GPU_words, &a);
}

/* Another choice in the router's place, with the weights that the router gives it. */
static err force_ids(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int n = o->c->experts, k = o->o.experts_per_token;
    float *logits = o->force_logits.host;
    size_t pairs = (size_t)j->b->rows * (size_t)k;
    TRY(gpu_copy_out(o->compute, logits, o->router,
                     (size_t)j->b->rows * (size_t)n * sizeof(float)));
    TRY(gpu_queue_wait(o->compute));
    for (int r = 0; r < j->b->rows; r++) {
        float *p = logits + (size_t)r * (size_t)n, *gates = o->gates_host + (size_t)r * (size_t)k;
        int *ids = o->ids_host + (size_t)r * (size_t)k;
        float sum = 0;
        cpu_at(0)->softmax(p, n);
        o->force(o->force_ctx, j->layer, r, ids, k);
        for (int i = 0; i < k; i++) sum += gates[i] = p[ids[i]];
        for (int i = 0; o->c->norm_topk && i < k; i++) gates[i] /= sum;
    }
    return gpu_words_in(o, o->gates, o->gates_host, pairs * sizeof(float));
}

static err send_ids(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    size_t pairs = (size_t)j->b->rows * (size_t)o->o.experts_per_token;
    TRY(gpu_words_out(o, o->ids_host, o->ids, pairs * sizeof(int)));
    TRY(gpu_share_input(j));
    if (o->hook) TRY(gpu_words_out(o, o->gates_host, o->gates, pairs * sizeof(float)));
    return gpu_event_record(o->compute, o->ids_ready);
}

/* The guess first: its uploads are what the bus waits for. */
err gpu_moe_ask(const gpu_moe_job *j) {
    if (!j->direct) TRY(send_ids(j));
    TRY(gpu_look_launch(j));
    TRY(run_shared(j));
    return gpu_queue_flush(j->o->compute);
}

/* An event is seen some microseconds after what it stands for. */
static err watch_ids(const gpu_ops *o, int pairs) {
    const volatile int *ids = o->ids_host;
    uint64_t until = os_now_ns() + WATCH_NS;
    for (int i = 0; i < pairs;) {
        if (ids[i] >= 0)
            i++;
        else if (os_now_ns() > until) /* slow, lost, or no finite numbers */
            return gpu_queue_wait(o->compute);
    }
    return err_none();
}

err gpu_moe_ids(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    size_t pairs = (size_t)j->b->rows * (size_t)o->o.experts_per_token;
    TRY(j->direct ? watch_ids(o, (int)pairs) : gpu_event_wait(o->ids_ready));
    for (size_t i = 0; i < pairs; i++) {
        if (o->ids_host[i] >= 0 && o->ids_host[i] < o->c->experts) continue;
        return err_make(ERR_CORRUPT,
                        "layer %d, router: the result is not a finite number: weights of this "
                        "layer are damaged",
                        j->layer);
    }
    if (o->force) TRY(force_ids(j));
    for (int r = 0; o->hook && r < j->b->rows; r++) {
        size_t at = (size_t)r * (size_t)o->o.experts_per_token;
        o->hook(o->hook_ctx, j->layer, r, o->ids_host + at, o->gates_host + at,
                o->o.experts_per_token);
    }
    return err_none();
}

void gpu_moe_sort(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int pairs = j->b->rows * o->o.experts_per_token, *order = (int *)(void *)o->passes_host;
    memset(o->first, 0, ((size_t)o->c->experts + 1) * sizeof(int));
    for (int i = 0; i < pairs; i++) o->first[o->ids_host[i] + 1]++;
    o->n_uses = 0;
    for (int e = 0; e < o->c->experts; e++) {
        int n = o->first[e + 1];
        o->first[e + 1] += o->first[e];
        if (n) o->uses[o->n_uses++] = (gpu_use){.id = e, .first = o->first[e], .n = n};
    }
    for (int i = 0; i < pairs; i++) order[o->first[o->ids_host[i]]++] = i;
    o->passes_used = round_up((size_t)pairs * sizeof(int), 16);
    o->passes_sent = 0;
    j->n_left = o->n_uses;
}

err gpu_moe_send(gpu_ops *o) {
    size_t from = o->passes_sent;
    o->passes_sent = o->passes_used;
    return gpu_words_in(o, o->passes + from, o->passes_host + from, o->passes_used - from);
}

err gpu_store_wait(const gpu_moe_job *j, int id, expert_view *view) {
    uint64_t since = os_now_ns();
    err e = expert_store_wait(j->o->store, j->w->sparse_index, id, view);
    if (j->o->clocks) j->o->clocks[j->layer].wait_ns += os_now_ns() - since;
    return e;
}

err gpu_moe(ops *face, const batch *b, int layer) {
    gpu_ops *o = gpu_of(face);
    gpu_moe_job j = {.o = o, .b = b, .w = &o->o.weights->layers[layer], .layer = layer};
    if (o->mode == STEP_REPLAY) return err_none();
    bool watched = o->hook || o->force, on_card = o->tier.resident && !watched;
    j.direct = !on_card && !watched && !o->unified && !o->share.on && b->rows <= DIRECT_ROWS;
    TRY(gpu_look_again(o));
    uint64_t since = os_now_ns();
    TRY(route(&j));
    TRY(GPU_CLOCK(o, &since, layer, router_ns));
    layer_clock *clock = o->clocks ? &o->clocks[layer] : NULL;
    expert_store_stats before = {0}, after = {0};
    if (clock && o->store) expert_store_stats_get(o->store, &before);
    uint64_t waited = clock ? clock->wait_ns : 0;
    TRY(on_card ? resident(&j) : o->unified ? gpu_unified_moe(&j) : gpu_streamed(&j));
    TRY(combine(&j));
    if (!clock) return err_none();
    if (o->store) expert_store_stats_get(o->store, &after);
    clock->read_bytes += after.read_bytes - before.read_bytes;
    since += clock->wait_ns - waited; /* waiting has a clock of its own */
    return gpu_clock(o, &since, &clock->experts_ns);
}
