/* gpu_moe.c: a mixture of experts on the card.
 *
 *     h = norm(x) -> router | shared gate, up | shared expert's gate -> the k experts of every row
 *     resident   plan on the card, all experts in one launch
 *     streamed   ids to the host; pass 1: experts in a slot; further passes: those that have come
 *     -> weighted sum in the router's order, the shared expert, x +=
 *
 * Passes. The host's plan lies in `passes`: the order of all pairs, then for each pass its number
 * of experts and their gpu_active with a slot's number for the expert's. Waiting for the ids means
 * that everything before this layer is done: a slot that this layer does not use may be
 * overwritten. */
#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/gpu_ops_impl.h"

#define PASS_HEAD         16 /* bytes before the gpu_active of a pass */
#define EXPERTS_A_REQUEST 64

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
    TRY(gpu_norm(o, o->h, o->x, j->w->post_norm, j->b->rows));
    TRY(project(j));
    args_router a = {.logits = o->router,
                     .ids = o->ids,
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

err gpu_moe_ids(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    size_t pairs = (size_t)j->b->rows * (size_t)o->o.experts_per_token;
    TRY(gpu_copy_out(o->compute, o->ids_host, o->ids, pairs * sizeof(int)));
    if (o->hook) TRY(gpu_copy_out(o->compute, o->gates_host, o->gates, pairs * sizeof(float)));
    TRY(gpu_event_record(o->compute, o->ids_ready));
    TRY(run_shared(j)); /* while the host looks at the ids */
    TRY(gpu_event_wait(o->ids_ready));
    for (size_t i = 0; i < pairs; i++) {
        if (o->ids_host[i] >= 0 && o->ids_host[i] < o->c->experts) continue;
        return err_make(ERR_CORRUPT,
                        "layer %d, router: the result is not a finite number: weights of this "
                        "layer are damaged",
                        j->layer);
    }
    for (int r = 0; o->hook && r < j->b->rows; r++) {
        size_t at = (size_t)r * (size_t)o->o.experts_per_token;
        o->hook(o->hook_ctx, j->layer, r, o->ids_host + at, o->gates_host + at,
                o->o.experts_per_token);
    }
    return err_none();
}

err gpu_moe_sort(gpu_moe_job *j) {
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
    j->n_left = o->n_uses;
    return gpu_copy_in(o->compute, o->passes, order, (size_t)pairs * sizeof(int));
}

static int key_of(const gpu_moe_job *j, const gpu_use *u) {
    return j->w->sparse_index * j->o->tier.n_experts + u->id;
}

/* Launches the uses that are marked `now`; their experts are in slots, or will be when the compute
 * queue gets there. */
static err run_pass(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    uint8_t *at = o->passes_host + o->passes_used;
    gpu_addr to = o->passes + o->passes_used;
    int *head = (int *)(void *)at, n = 0;
    gpu_active *active = (gpu_active *)(void *)(at + PASS_HEAD);
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        if (!u->now) continue;
        active[n++] =
            (gpu_active){.expert = o->tier.slot_of[key_of(j, u)], .first = u->first, .count = u->n};
        u->now = false;
        u->done = true;
    }
    if (!n) return err_none();
    head[0] = n;
    j->n_left -= n;
    size_t bytes = PASS_HEAD + (size_t)n * sizeof(gpu_active);
    o->passes_used += bytes;
    assert(o->passes_used <= o->passes_bytes);
    TRY(gpu_copy_in(o->compute, to, at, bytes));
    args_experts e = {.slots = o->tier.by_slot.addr,
                      .active = to + PASS_HEAD,
                      .n_active = to,
                      .order = o->passes,
                      .max_active = n};
    return gpu_moe_experts(j, &o->tier.layouts[j->w->sparse_index], e);
}

/* ---- streamed: experts that are not in a slot ---- */

static err run_hits(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    gpu_tier *t = &o->tier;
    cache_request(&t->cache, j->w->sparse_index);
    o->stats.requests += (uint64_t)o->n_uses;
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        cache_touch(&t->cache, key_of(j, u));
        if (t->slot_of[key_of(j, u)] < 0) continue;
        cache_remove(&t->cache, key_of(j, u));
        u->now = true;
        o->stats.hits++;
    }
    return run_pass(j);
}

static err ask(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int ids[EXPERTS_A_REQUEST], n = 0;
    int room = int_min(expert_store_slots(o->store) - j->n_held, EXPERTS_A_REQUEST);
    gpu_use *asked[EXPERTS_A_REQUEST];
    for (int i = 0; i < o->n_uses && n < room; i++) {
        gpu_use *u = &o->uses[i];
        if (u->done || u->asked) continue;
        asked[n] = u;
        ids[n++] = u->id;
    }
    if (!n) return err_none();
    TRY(expert_store_request(o->store, j->w->sparse_index, ids, n));
    for (int i = 0; i < n; i++) asked[i]->asked = asked[i]->held = true;
    j->n_held += n;
    return err_none();
}

err gpu_store_wait(const gpu_moe_job *j, int id, expert_view *view) {
    uint64_t since = os_now_ns();
    err e = expert_store_wait(j->o->store, j->w->sparse_index, id, view);
    if (j->o->clocks) j->o->clocks[j->layer].wait_ns += os_now_ns() - since;
    return e;
}

/* Into a slot; *full when there is none for it now. */
static err load(gpu_moe_job *j, gpu_use *u, bool *full) {
    gpu_ops *o = j->o;
    gpu_tier *t = &o->tier;
    if (t->n_used == t->n_slots && cache_worst(&t->cache) < 0) {
        *full = true;
        return err_none();
    }
    expert_view view;
    err e = gpu_store_wait(j, u->id, &view);
    if (e.code) { /* the pin is gone */
        u->held = false;
        j->n_held--;
        return e;
    }
    int key = key_of(j, u);
    u->now = true;
    return gpu_tier_upload(o, key, gpu_tier_claim(t, key), &view);
}

/* Uploads what the store has, at least one expert, and launches it. */
static err run_arrived(gpu_moe_job *j, bool *full) {
    gpu_ops *o = j->o;
    gpu_use *first = NULL;
    int n = 0;
    for (int i = 0; i < o->n_uses && !*full; i++) {
        gpu_use *u = &o->uses[i];
        if (u->done || !u->asked) continue;
        if (!first) first = u;
        if (!expert_store_ready(o->store, j->w->sparse_index, u->id)) continue;
        TRY(load(j, u, full));
        n += u->now;
    }
    if (!n && !*full) TRY(load(j, first, full));
    TRY(gpu_event_record(o->upload, o->uploaded));
    TRY(gpu_event_follow(o->compute, o->uploaded));
    return run_pass(j);
}

/* The store's pins of what has been uploaded. */
static err let_go(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    err e = gpu_event_wait(o->uploaded);
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        if (!u->held || !u->done) continue;
        expert_store_release(o->store, j->w->sparse_index, u->id);
        u->held = false;
        j->n_held--;
    }
    return e;
}

/* Slots of experts that this layer is done with may be taken. */
static void give_slots(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    for (int i = 0; i < o->n_uses; i++) {
        int key = key_of(j, &o->uses[i]);
        if (o->uses[i].done && o->tier.slot_of[key] >= 0) cache_add(&o->tier.cache, key);
    }
}

static err run_misses(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    while (j->n_left) {
        bool full = false;
        TRY(ask(j));
        TRY(run_arrived(j, &full));
        if (full) {
            TRY(gpu_queue_wait(o->compute));
            give_slots(j);
        }
        if (j->n_left && j->n_held == expert_store_slots(o->store)) TRY(let_go(j));
    }
    return j->n_held ? let_go(j) : err_none();
}

static err streamed(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    TRY(gpu_moe_ids(j));
    TRY(gpu_moe_sort(j));
    err e = run_hits(j);
    if (!e.code) e = run_misses(j);
    for (int i = 0; i < o->n_uses; i++) { /* after a failure */
        if (!o->uses[i].held) continue;
        expert_store_release(o->store, j->w->sparse_index, o->uses[i].id);
    }
    give_slots(j);
    return e;
}

err gpu_moe(ops *face, const batch *b, int layer) {
    gpu_ops *o = gpu_of(face);
    gpu_moe_job j = {.o = o, .b = b, .w = &o->o.weights->layers[layer], .layer = layer};
    if (o->mode == STEP_REPLAY) return err_none();
    uint64_t since = os_now_ns();
    TRY(route(&j));
    TRY(GPU_CLOCK(o, &since, layer, router_ns));
    layer_clock *clock = o->clocks ? &o->clocks[layer] : NULL;
    expert_store_stats before = {0}, after = {0};
    if (clock && o->store) expert_store_stats_get(o->store, &before);
    uint64_t waited = clock ? clock->wait_ns : 0;
    TRY(o->tier.resident && !o->hook ? resident(&j)
        : o->unified                 ? gpu_unified_moe(&j)
                                     : streamed(&j));
    TRY(combine(&j));
    if (!clock) return err_none();
    if (o->store) expert_store_stats_get(o->store, &after);
    clock->read_bytes += after.read_bytes - before.read_bytes;
    since += clock->wait_ns - waited; /* waiting has a clock of its own */
    return gpu_clock(o, &since, &clock->experts_ns);
}
