/* gpu_ops.c: the GPU implementation's object: device memory, sessions, the step from rows to
 * logits. The blocks of a layer are in gpu_layers.c and gpu_moe.c, the end of a step in gpu_head.c,
 * expert slots in gpu_tier.c.
 *
 * A step of one token a session, all experts resident, is recorded as a graph at the first time and
 * replayed from then on. All that differs between two steps of the same shape lies in the step's
 * upload (positions, slots, ids); the number of splits of attention is rounded up to a power of two
 * so that a growing timeline does not need a new graph for every 256 tokens. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/gpu_ops_impl.h"
#include "model/rope.h"

#define CUT_ALIGN    256
#define PART_BYTES   ((size_t)64 << 20)  /* partial results of attention, at most */
#define DEVICE_SPARE ((size_t)512 << 20) /* context, graphs */

err gpu_do(gpu_ops *o, gpu_kernel k, const void *args) {
    o->stats.launches++;
    return gpu_run(o->compute, k, args);
}

err gpu_multiply(gpu_ops *o, args_matvec *a) {
    gpu_matvec_lay_out(a);
    return gpu_do(o, GPU_matvec, a);
}

gpu_addr gpu_cut(gpu_cutter *c, size_t bytes) {
    size_t at = round_up(c->used, CUT_ALIGN);
    c->used = at + bytes;
    return c->base + at;
}

/* ---- the step ---- */

static void fill_step(gpu_ops *o, const batch *b) {
    int row = 0;
    for (int i = 0; i < b->n_items; i++) {
        const batch_item *item = &b->items[i];
        int slot = ((const gpu_state *)(const void *)item->state)->slot;
        o->step.segments[i] =
            (gpu_segment){.first = row, .count = item->count, .slot = slot, .start = item->start};
        for (int t = 0; t < item->count; t++, row++) {
            o->step.rows[row] = (gpu_row){.position = item->start + t, .slot = slot};
            o->step.ids[row] = item->ids[t];
        }
    }
}

/* 0 when one group can visit all positions as well, or the partial results do not fit. */
static int splits_for(const gpu_ops *o, const batch *b) {
    int last = 0, splits = 1;
    if (b->rows > b->n_items) return 0;
    for (int i = 0; i < b->n_items; i++) last = int_max(last, b->items[i].start);
    while (splits * ATTN_SPLIT <= last) splits *= 2;
    if (splits == 1) return 0;
    size_t part = gpu_attn_part_bytes(b->rows, o->c->heads, o->c->head_dim, splits);
    return part <= o->part_bytes ? splits : 0;
}

/* Whether the step can be one graph. */
static bool recordable(const gpu_ops *o, const batch *b) {
    if (o->hook || o->force || o->clocks || b->rows != b->n_items) return false;
    if (o->o.share.place || (o->tier.n_layers && !o->tier.resident)) return false;
    for (int i = 0; i < b->n_items; i++) {
        if (!b->items[i].logits) return false;
    }
    return true;
}

/* The graph of this shape, or the place for it. */
static graph_entry *entry_of(gpu_ops *o, const batch *b) {
    graph_entry *oldest = &o->graphs[0];
    for (int i = 0; i < GRAPHS_MAX; i++) {
        graph_entry *e = &o->graphs[i];
        if (e->graph && e->n == b->rows && e->splits == o->splits) return e;
        if (!e->graph ? oldest->graph != NULL : oldest->graph && e->used < oldest->used) oldest = e;
    }
    gpu_graph_close(oldest->graph);
    *oldest = (graph_entry){.n = b->rows, .splits = o->splits};
    return oldest;
}

static err enter(ops *face, const batch *b) {
    gpu_ops *o = gpu_of(face);
    assert(b->rows >= 1 && b->rows <= o->o.rows_max && b->n_items <= o->o.sessions);
    TRY(gpu_head_begin(o, b));
    fill_step(o, b);
    o->splits = splits_for(o, b);
    o->mode = STEP_DIRECT;
    o->stats.steps++;
    o->step_began = os_now_ns();
    o->step_misses = o->stats.requests - o->stats.hits;
    if (o->unified && b->rows == 1) gpu_trial_begin(&o->trial, &o->ahead);
    /* Kernels count on it that this waits for the step before: few_delta reads a state that it
     * wrote, and few_in's flags are down (kernels/cuda_few.inc, cuda_moe.inc). */
    return gpu_copy_in(o->compute, o->step_addr, o->step_host, o->step_bytes);
}

static size_t rows_bytes(const gpu_ops *o, const batch *b) {
    return (size_t)b->rows * (size_t)o->c->hidden * sizeof(float);
}

/* Nothing of the store's stays pinned: the next machine may want every slot. */
static err leave(gpu_ops *o) {
    TRY(gpu_queue_wait(o->compute));
    if (!o->tier.n_layers) return err_none();
    if (!o->unified) return gpu_tier_drain(o);
    gpu_unified_let_go(o);
    return err_none();
}

static err rows_get(ops *face, const batch *b, float *out) {
    gpu_ops *o = gpu_of(face);
    TRY(gpu_copy_out(o->compute, out, o->x, rows_bytes(o, b)));
    return leave(o);
}

static err rows_put(ops *face, const batch *b, const float *in) {
    gpu_ops *o = gpu_of(face);
    return gpu_copy_in(o->compute, o->x, in, rows_bytes(o, b));
}

static err begin(ops *face, const batch *b) {
    gpu_ops *o = gpu_of(face);
    TRY(enter(face, b));
    if (recordable(o, b)) {
        o->entry = entry_of(o, b);
        o->entry->used = ++o->clock;
        o->mode = o->entry->graph ? STEP_REPLAY : STEP_RECORD;
    }
    if (o->mode == STEP_REPLAY) return err_none();
    if (o->mode == STEP_RECORD) {
        err e = gpu_graph_begin(o->compute);
        if (e.code) o->mode = STEP_DIRECT;
        TRY(e);
    }
    args_embed a = {.m = gpu_mat_of(o, &o->o.weights->embed),
                    .ids = o->step_addr + o->ids_at,
                    .out = o->x,
                    .n = b->rows};
    return gpu_do(o, GPU_embed, &a);
}

static err end_record(gpu_ops *o, err so_far) {
    gpu_graph *graph;
    o->mode = STEP_DIRECT;
    err e = gpu_graph_end(o->compute, &graph);
    if (so_far.code || e.code) {
        gpu_graph_close(graph);
        return so_far.code ? so_far : e;
    }
    o->entry->graph = graph;
    return gpu_graph_run(o->compute, graph);
}

static err head(ops *face, const batch *b) {
    gpu_ops *o = gpu_of(face);
    if (o->mode == STEP_REPLAY) {
        o->mode = STEP_DIRECT;
        o->stats.graph_steps++;
        TRY(gpu_graph_run(o->compute, o->entry->graph));
        return gpu_head_finish(o, b);
    }
    err e = gpu_head_launch(o, b);
    if (o->mode == STEP_RECORD) e = end_record(o, e);
    if (!e.code) e = gpu_head_finish(o, b);
    if (!e.code && o->o.share.place) e = leave(o);
    bool missed = o->stats.requests - o->stats.hits != o->step_misses;
    if (o->unified && !e.code && b->rows == 1 && missed)
        gpu_trial_end(&o->trial, &o->ahead, os_now_ns() - o->step_began);
    return e;
}

static void abandon(ops *face) {
    gpu_ops *o = gpu_of(face);
    err ignored = err_none(); /* the step failed already; a lost device says so again */
    if (o->mode == STEP_RECORD) ignored = end_record(o, err_make(ERR_CANCELLED, "given up"));
    o->mode = STEP_DIRECT;
    ignored = gpu_queue_wait(o->compute);
    (void)ignored;
    if (!o->unified && o->tier.n_layers) ignored = gpu_tier_forget(o);
    (void)ignored;
}

/* ---- sequences ---- */

static gpu_addr recurrent_of(const gpu_ops *o, const ops_state *s) {
    int slot = ((const gpu_state *)(const void *)s)->slot;
    return o->recurrent + (gpu_addr)slot * o->recurrent_slot;
}

static void state_close(ops *face, ops_state *s) {
    gpu_state *state = (gpu_state *)(void *)s;
    if (!state) return;
    gpu_head_forget(gpu_of(face), state);
    gpu_of(face)->slot_used[state->slot] = false;
    free(state);
}

static void state_reset(ops *face, ops_state *s) {
    gpu_ops *o = gpu_of(face);
    gpu_head_forget(o, (gpu_state *)(void *)s);
    err ignored = gpu_fill(o->compute, recurrent_of(o, s), 0, o->recurrent_slot);
    (void)ignored; /* the next step on a lost device fails too */
}

static err state_open(ops *face, ops_state **out) {
    gpu_ops *o = gpu_of(face);
    *out = NULL;
    int slot = 0;
    while (slot < o->o.sessions && o->slot_used[slot]) slot++;
    if (slot == o->o.sessions) return err_make(ERR_BUSY, "all sessions are open");
    gpu_state *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for a session");
    s->slot = slot;
    o->slot_used[slot] = true;
    *out = (ops_state *)(void *)s;
    state_reset(face, *out);
    return err_none();
}

static size_t recurrent_bytes(const ops *face) {
    return ((const gpu_ops *)(const void *)face)->recurrent_slot;
}

static err recurrent_get(ops *face, const ops_state *s, void *out) {
    gpu_ops *o = gpu_of(face);
    TRY(gpu_copy_out(o->compute, out, recurrent_of(o, s), o->recurrent_slot));
    return gpu_queue_wait(o->compute);
}

static err recurrent_put(ops *face, ops_state *s, const void *in) {
    gpu_ops *o = gpu_of(face);
    TRY(gpu_copy_in(o->compute, recurrent_of(o, s), in, o->recurrent_slot));
    return gpu_queue_wait(o->compute);
}

static size_t kv_bytes(const ops *face, int n) {
    const gpu_ops *o = (const gpu_ops *)(const void *)face;
    return (size_t)o->shape.n_full * 2 * (size_t)n * o->kv_row;
}

/* Every layer's K, then its V: positions [0, n) lie together. */
static err kv_get(ops *face, const ops_state *s, int n, void *out) {
    gpu_ops *o = gpu_of(face);
    gpu_addr base = o->kv + (gpu_addr)((const gpu_state *)(const void *)s)->slot * o->kv_slot;
    size_t bytes = (size_t)n * o->kv_row;
    for (int i = 0; i < 2 * o->shape.n_full; i++)
        TRY(gpu_copy_out(o->compute, (uint8_t *)out + (size_t)i * bytes,
                         base + (gpu_addr)i * o->kv_layer, bytes));
    return gpu_queue_wait(o->compute);
}

static err kv_put(ops *face, ops_state *s, int n, const void *in) {
    gpu_ops *o = gpu_of(face);
    gpu_addr base = o->kv + (gpu_addr)((const gpu_state *)(const void *)s)->slot * o->kv_slot;
    size_t bytes = (size_t)n * o->kv_row;
    for (int i = 0; i < 2 * o->shape.n_full; i++)
        TRY(gpu_copy_in(o->compute, base + (gpu_addr)i * o->kv_layer,
                        (const uint8_t *)in + (size_t)i * bytes, bytes));
    return gpu_queue_wait(o->compute);
}

/* ---- timing ---- */

err gpu_clock(gpu_ops *o, uint64_t *since, uint64_t *clock) {
    TRY(gpu_queue_wait(o->compute));
    uint64_t now = os_now_ns();
    *clock += now - *since;
    *since = now;
    return err_none();
}

static err attention(ops *face, const batch *b, int layer) {
    uint64_t since = os_now_ns();
    TRY(gpu_attention(face, b, layer));
    return GPU_CLOCK(gpu_of(face), &since, layer, attention_ns);
}

static err delta(ops *face, const batch *b, int layer) {
    uint64_t since = os_now_ns();
    TRY(gpu_delta_net(face, b, layer));
    return GPU_CLOCK(gpu_of(face), &since, layer, delta_ns);
}

static err mlp(ops *face, const batch *b, int layer) {
    uint64_t since = os_now_ns();
    TRY(gpu_mlp(face, b, layer));
    return GPU_CLOCK(gpu_of(face), &since, layer, experts_ns);
}

static const ops_table table = {
    .state_open = state_open,
    .state_close = state_close,
    .state_reset = state_reset,
    .recurrent_bytes = recurrent_bytes,
    .recurrent_get = recurrent_get,
    .recurrent_put = recurrent_put,
    .kv_bytes = kv_bytes,
    .kv_get = kv_get,
    .kv_put = kv_put,
    .begin = begin,
    .enter = enter,
    .rows_get = rows_get,
    .rows_put = rows_put,
    .attention = attention,
    .delta = delta,
    .moe = gpu_moe,
    .mlp = mlp,
    .head = head,
    .bring = gpu_head_bring,
    .abandon = abandon,
};

/* ---- memory ---- */

static void measure_states(gpu_ops *o) {
    const model_config *c = o->c;
    o->kv_row = (size_t)c->kv_heads * gpu_kv_head_bytes(gpu_kv_type(o), c->head_dim);
    o->kv_layer = round_up((size_t)o->o.context * o->kv_row, CUT_ALIGN);
    o->kv_slot = o->kv_layer * 2 * (size_t)o->shape.n_full;
    o->recurrent_slot = state_recurrent_bytes(&o->shape);
}

static void cut_experts(gpu_ops *o, gpu_cutter *s, size_t F) {
    const model_config *c = o->c;
    size_t N = (size_t)o->o.rows_max, pairs = N * (size_t)o->o.experts_per_token;
    size_t experts = (size_t)c->experts;
    size_t inner = N * (size_t)int_max(c->shared_intermediate, c->intermediate);
    o->router = gpu_cut(s, N * experts * F);
    o->shared_gate = gpu_cut(s, N * F);
    o->ids = gpu_cut(s, pairs * sizeof(int));
    o->gates = gpu_cut(s, pairs * F);
    o->order = gpu_cut(s, pairs * sizeof(int));
    o->active = gpu_cut(s, experts * sizeof(gpu_active));
    o->n_active = gpu_cut(s, sizeof(int));
    /* of a pass: its head, slots on unified memory, gpu_active, all at multiples of 16 */
    size_t pass = 16 + 16 + round_up(sizeof(gpu_active), 16);
    o->passes_bytes = round_up(pairs * sizeof(int), 16) + experts * pass;
    o->passes = gpu_cut(s, o->passes_bytes);
    o->mid = gpu_cut(s, pairs * (size_t)c->expert_intermediate * F);
    o->outs = gpu_cut(s, experts ? pairs * (size_t)c->hidden * F : 0);
    o->look_x = gpu_cut(s, (size_t)c->hidden * F);
    o->look_p = gpu_cut(s, experts * F);
    o->look_gates = gpu_cut(s, (size_t)o->o.experts_per_token * F);
    o->gate_mid = gpu_cut(s, inner * F);
    o->up_mid = gpu_cut(s, inner * F);
}

/* All but the trunk and the expert slots; base 0 only counts. */
static void cut_all(gpu_ops *o, gpu_cutter *s) {
    const model_config *c = o->c;
    size_t N = (size_t)o->o.rows_max, F = sizeof(float), sessions = (size_t)o->o.sessions;
    size_t q = N * (size_t)(c->heads * c->head_dim), kv = N * (size_t)(c->kv_heads * c->head_dim);
    size_t values = N * (size_t)(c->linear_v_heads * c->linear_v_dim);
    size_t gates = N * (size_t)c->linear_v_heads, half = (size_t)c->rope.dims / 2;
    o->kv = gpu_cut(s, o->kv_slot * sessions);
    o->recurrent = gpu_cut(s, o->recurrent_slot * sessions);
    o->x = gpu_cut(s, N * (size_t)c->hidden * F);
    o->h = gpu_cut(s, N * (size_t)c->hidden * F);
    o->tmp = gpu_cut(s, N * (size_t)c->hidden * F);
    o->q = gpu_cut(s, q * F * (c->attention_gate ? 2 : 1));
    o->k = gpu_cut(s, kv * F);
    o->v = gpu_cut(s, kv * F);
    o->q_out = gpu_cut(s, q * F);
    o->heads = gpu_cut(s, (q > values ? q : values) * F);
    size_t most = gpu_attn_part_bytes(o->o.sessions, c->heads, c->head_dim,
                                      2 * (o->o.context / ATTN_SPLIT + 1));
    o->part_bytes = size_min(PART_BYTES, most);
    o->part = gpu_cut(s, o->part_bytes);
    o->qkv = gpu_cut(s, N * (size_t)o->shape.channels * F);
    o->conv = gpu_cut(s, N * (size_t)o->shape.channels * F);
    o->z = gpu_cut(s, values * F);
    o->a = gpu_cut(s, gates * F);
    o->b = gpu_cut(s, gates * F);
    o->decay = gpu_cut(s, gates * F);
    o->beta = gpu_cut(s, gates * F);
    cut_experts(o, s, F);
    gpu_head_cut(o, s);
    o->cosines = gpu_cut(s, (size_t)o->o.context * half * F);
    o->sines = gpu_cut(s, (size_t)o->o.context * half * F);
    o->segments_at = 0;
    o->rows_at = round_up(sessions * sizeof(gpu_segment), 16);
    o->ids_at = o->rows_at + N * sizeof(gpu_row);
    o->step_bytes = o->ids_at + N * sizeof(int);
    o->step_addr = gpu_cut(s, o->step_bytes);
}

/* On unified memory the processor reads and writes the kernels' own arrays: the copies to and from
 * pinned memory are then of a place onto itself, which is nothing to do. */
static void view_in_place(gpu_ops *o) {
    uint8_t *base = (uint8_t *)o->memory.host - o->memory.addr;
    o->step_host = base + o->step_addr;
    o->step.segments = (gpu_segment *)(void *)(o->step_host + o->segments_at);
    o->step.rows = (gpu_row *)(void *)(o->step_host + o->rows_at);
    o->step.ids = (int *)(void *)(o->step_host + o->ids_at);
    o->ids_host = (int *)(void *)(base + o->ids);
    o->gates_host = (float *)(void *)(base + o->gates);
    o->passes_host = base + o->passes;
    o->logits_host = (float *)(void *)(base + o->logits);
    o->top_host = (uint64_t *)(void *)(base + gpu_head_top(o));
    memset(o->step_host, 0, o->step_bytes);
}

/* Base NULL only counts. */
static size_t cut_pinned(gpu_ops *o, uint8_t *base) {
    size_t pairs = (size_t)o->o.rows_max * (size_t)o->o.experts_per_token;
    gpu_cutter s = {0};
    size_t step = gpu_cut(&s, o->step_bytes), ids = gpu_cut(&s, pairs * sizeof(int));
    size_t gates = gpu_cut(&s, pairs * sizeof(float)), passes = gpu_cut(&s, o->passes_bytes);
    size_t logits = gpu_cut(&s, (size_t)o->o.sessions * (size_t)o->c->vocab * sizeof(float));
    size_t top = gpu_cut(&s, (size_t)o->o.sessions * TOP_KEEP * sizeof(uint64_t));
    size_t look = gpu_cut(&s, ((size_t)o->o.experts_per_token + 1) * sizeof(int));
    gpu_share_cut(o, &s, base);
    if (!base) return s.used;
    memset(base, 0, s.used);
    o->step_host = base + step;
    o->step.segments = (gpu_segment *)(void *)(o->step_host + o->segments_at);
    o->step.rows = (gpu_row *)(void *)(o->step_host + o->rows_at);
    o->step.ids = (int *)(void *)(o->step_host + o->ids_at);
    o->ids_host = (int *)(void *)(base + ids);
    o->gates_host = (float *)(void *)(base + gates);
    o->passes_host = base + passes;
    o->logits_host = (float *)(void *)(base + logits);
    o->top_host = (uint64_t *)(void *)(base + top);
    o->look_host = (int *)(void *)(base + look);
    return s.used;
}

static err open_pinned(gpu_ops *o) {
    TRY(gpu_alloc(o->device, GPU_PINNED, cut_pinned(o, NULL), &o->pinned));
    cut_pinned(o, o->pinned.host);
    if (o->unified) view_in_place(o);
    o->uses = calloc((size_t)o->c->experts + 1, sizeof *o->uses);
    o->first = calloc((size_t)o->c->experts + 1, sizeof *o->first);
    if (!o->uses || !o->first) return err_make(ERR_NOMEM, "no memory for the GPU's engine");
    return err_none();
}

size_t gpu_ops_limit(const gpu_info *info, size_t wish) {
    bool host = strcmp(info->backend, "host") == 0;
    size_t spare = host ? info->free / 2 : DEVICE_SPARE + info->free / 32;
    if (wish) return size_min(wish, info->free);
    return info->free > spare ? info->free - spare : 0;
}

size_t gpu_ops_queue_bytes(const gpu_info *info, size_t limit) {
    return info->queue_bytes <= limit / 16 ? info->queue_bytes : 0;
}

/* What the limit leaves for expert slots. */
static err take_memory(gpu_ops *o) {
    gpu_cutter s = {0};
    cut_all(o, &s);
    size_t limit = gpu_ops_limit(&o->info, o->o.memory);
    size_t trunk = gpu_trunk_bytes(o), slots = 0;
    size_t queue = gpu_ops_queue_bytes(&o->info, limit), held = trunk + s.used + queue;
    if (!queue) gpu_queue_lean(o->compute);
    if (o->tier.n_layers) slots = o->tier.slot_bytes + (size_t)o->tier.n_keys * sizeof(gpu_slot);
    o->unified = o->info.unified;
    o->ahead = o->o.overlap != GPU_OVERLAP_OFF;
    o->trial.decided = o->o.overlap != GPU_OVERLAP_AUTO;
    if (held + slots + sizeof(gpu_slot) > limit) {
        double mib = 1048576.0;
        return err_make(
            ERR_BUDGET,
            "GPU memory of %.0f MiB is too small: trunk %.0f, KV cache and state %.0f, "
            "activations %.0f and an expert slot of %.1f MiB are needed; lower "
            "--context, raise --vram, or use --gpu off",
            (double)limit / mib, (double)trunk / mib,
            (double)((o->kv_slot + o->recurrent_slot) * (size_t)o->o.sessions) / mib,
            (double)(held - trunk - (o->kv_slot + o->recurrent_slot) * (size_t)o->o.sessions) / mib,
            (double)o->tier.slot_bytes / mib);
    }
    TRY(gpu_trunk_open(o));
    TRY(gpu_alloc(o->device, GPU_DEVICE, s.used, &o->memory));
    s = (gpu_cutter){.base = o->memory.addr};
    cut_all(o, &s);
    o->bytes = trunk + o->memory.bytes + queue;
    size_t table_bytes = (size_t)o->tier.n_keys * sizeof(gpu_slot);
    o->store_room = limit - held - table_bytes;
    return o->unified ? err_none() : gpu_tier_open(o, o->store_room);
}

/* cos and sin of every position, rounded as attention.c rounds them. */
static err fill_rope(gpu_ops *o) {
    const model_config *c = o->c;
    int half = c->rope.dims / 2, n = o->o.context;
    float *inv = calloc((size_t)half + 1, sizeof *inv), factor = 1;
    float *cos_ = calloc((size_t)n * (size_t)half + 1, sizeof *cos_);
    float *sin_ = calloc((size_t)n * (size_t)half + 1, sizeof *sin_);
    err e = inv && cos_ && sin_ ? err_none() : err_make(ERR_NOMEM, "no memory for the angles");
    if (!e.code && half) e = rope_frequencies(&c->rope, c->rope.dims, n, inv, &factor);
    for (int i = 0; !e.code && o->o.rope_bf16 && i < half; i++)
        inv[i] = bf16_to_f32(f32_to_bf16(inv[i]));
    for (int i = 0; !e.code && i < n * half; i++) {
        double angle = (double)((float)(i / half) * inv[i % half]);
        cos_[i] = (float)cos(angle) * factor;
        sin_[i] = (float)sin(angle) * factor;
    }
    size_t bytes = (size_t)n * (size_t)half * sizeof(float);
    if (!e.code) e = gpu_copy_in(o->upload, o->cosines, cos_, bytes);
    if (!e.code) e = gpu_copy_in(o->upload, o->sines, sin_, bytes);
    if (!e.code) e = gpu_queue_wait(o->upload);
    free(inv);
    free(cos_);
    free(sin_);
    return e;
}

/* ---- life ---- */

static err check_shape(const gpu_ops *o) {
    const model_config *c = o->c;
    if (c->head_dim > ATTN_DIM_MAX || c->linear_k_dim > DELTA_DK_MAX ||
        c->experts > ROUTER_EXPERTS_MAX || o->o.experts_per_token > ROUTER_K_MAX)
        return err_make(ERR_UNSUPPORTED,
                        "the GPU kernels go up to heads of %d, linear keys of %d, %d experts and "
                        "%d experts a token",
                        ATTN_DIM_MAX, DELTA_DK_MAX, ROUTER_EXPERTS_MAX, ROUTER_K_MAX);
    return err_none();
}

static err set_up(gpu_ops *o) {
    o->device = o->o.device;
    TRY(check_shape(o));
    TRY(gpu_tier_measure(o->o.weights, &o->tier));
    if (!o->device) TRY(gpu_open(o->o.backend, o->o.index, &o->device));
    TRY(gpu_info_get(o->device, &o->info));
    TRY(gpu_queue_open(o->device, &o->compute));
    TRY(gpu_queue_open(o->device, &o->upload));
    TRY(gpu_queue_open(o->device, &o->download));
    gpu_event **events[] = {&o->ids_ready, &o->launched, &o->guessed, &o->returned};
    for (int i = 0; i < 4; i++) TRY(gpu_event_open(o->device, events[i]));
    for (int i = 0; i < UPLOAD_GROUPS; i++) TRY(gpu_event_open(o->device, &o->uploaded[i]));
    measure_states(o);
    TRY(take_memory(o));
    TRY(open_pinned(o));
    TRY(gpu_fill(o->upload, o->ids, 0,
                 (size_t)o->o.rows_max * (size_t)o->o.experts_per_token * sizeof(int)));
    return fill_rope(o);
}

static void describe(gpu_ops *o, const gpu_ops_options *options) {
    o->face.table = &table;
    o->o = *options;
    o->c = options->weights->config;
    state_shape_of(o->c, options->context, options->kv, options->share, &o->shape);
}

err gpu_ops_measure(const gpu_ops_options *options, gpu_ops_need *out) {
    *out = (gpu_ops_need){0};
    gpu_ops *o = calloc(1, sizeof *o);
    if (!o) return err_make(ERR_NOMEM, "no memory for the GPU's plan");
    gpu_cutter s = {0};
    describe(o, options);
    err e = gpu_tier_measure(options->weights, &o->tier);
    if (!e.code) {
        measure_states(o);
        cut_all(o, &s);
        size_t sessions = (size_t)options->sessions;
        *out = (gpu_ops_need){.trunk = gpu_trunk_bytes(o),
                              .kv = o->kv_slot * sessions,
                              .state = o->recurrent_slot * sessions,
                              .pinned = cut_pinned(o, NULL),
                              .queue = options->queue_bytes,
                              .slot_bytes = o->tier.slot_bytes,
                              .keys = o->tier.n_keys};
        out->activations = s.used - out->kv - out->state + options->queue_bytes;
    }
    free(o->tier.layouts);
    free(o);
    return e;
}

err gpu_ops_open(const gpu_ops_options *options, gpu_ops **out) {
    *out = NULL;
    gpu_ops *o = calloc(1, sizeof *o);
    if (!o) {
        gpu_close(options->device);
        return err_make(ERR_NOMEM, "no memory for the GPU's engine");
    }
    describe(o, options);
    err e = set_up(o);
    if (e.code) {
        gpu_ops_close(o);
        return e;
    }
    *out = o;
    return err_none();
}

void gpu_ops_close(gpu_ops *o) {
    if (!o) return;
    if (o->device) {
        err ignored = gpu_finish(o->device);
        (void)ignored;
    }
    for (int i = 0; i < GRAPHS_MAX; i++) gpu_graph_close(o->graphs[i].graph);
    gpu_unified_close(o);
    gpu_trunk_close(o);
    gpu_tier_close(o);
    gpu_share_close(&o->share);
    if (o->device) {
        gpu_free(o->device, &o->memory);
        gpu_free(o->device, &o->pinned);
        gpu_free(o->device, &o->force_logits);
    }
    gpu_event *events[] = {o->ids_ready, o->launched, o->guessed, o->returned};
    for (int i = 0; i < 4; i++) gpu_event_close(events[i]);
    for (int i = 0; i < UPLOAD_GROUPS; i++) gpu_event_close(o->uploaded[i]);
    gpu_queue_close(o->download);
    gpu_queue_close(o->compute);
    gpu_queue_close(o->upload);
    gpu_close(o->device);
    free(o->uses);
    free(o->first);
    free(o);
}

/* ---- what it is ---- */

ops *gpu_ops_face(gpu_ops *o) { return &o->face; }
void gpu_ops_tick(gpu_ops *o) {
    if (o->tier.cache_memory) cache_tick(&o->tier.cache);
}
bool gpu_ops_resident(const gpu_ops *o) {
    return o->unified ? o->tier.resident : o->tier.n_slots == o->tier.n_keys;
}
int gpu_ops_slots(const gpu_ops *o) { return o->tier.n_slots; }
const err *gpu_ops_failure(const gpu_ops *o) { return gpu_failure(o->device); }
void gpu_ops_fail_at(gpu_ops *o, gpu_call kind, int n) { gpu_fail_at(o->device, kind, n); }
int gpu_ops_calls(const gpu_ops *o, gpu_call kind) { return gpu_calls(o->device, kind); }
const char *gpu_ops_device(const gpu_ops *o) { return o->info.name; }
size_t gpu_ops_bytes(const gpu_ops *o) { return o->bytes; }
void gpu_ops_stats_get(const gpu_ops *o, gpu_ops_stats *out) { *out = o->stats; }
void gpu_ops_stats_reset(gpu_ops *o) { o->stats = (gpu_ops_stats){0}; }

void gpu_ops_set_routing_hook(gpu_ops *o, routing_hook hook, void *ctx) {
    o->hook = hook;
    o->hook_ctx = ctx;
}

err gpu_ops_set_routing_force(gpu_ops *o, routing_force force, void *ctx) {
    size_t floats = (size_t)o->o.rows_max * (size_t)o->c->experts;
    if (force && !o->force_logits.host)
        TRY(gpu_alloc(o->device, GPU_PINNED, floats * sizeof(float), &o->force_logits));
    o->force = force;
    o->force_ctx = ctx;
    return err_none();
}

void gpu_ops_set_clocks(gpu_ops *o, layer_clock *clocks) { o->clocks = clocks; }
