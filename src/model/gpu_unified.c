/* gpu_unified.c: experts on a GPU that shares the processor's memory (Apple's).
 *
 *     SSD --read--> slot of the expert store  <--the same bytes-- kernels
 *
 * The store's slots are GPU buffers (gpu_windows.h), the trunk too: nothing is copied, there is no
 * second tier. A pinned expert is an address; the pin stays until the kernels that read it are
 * done:
 *
 *     layer l     ask (pins) | those that are there: launch | wait for one, launch ...
 *     layer l+1   its router's ids are waited for: all work of layer l is done, its pins go
 *
 * so nobody waits for experts, and the sum, the residual and the next norm are queued behind them.
 * Where all experts have a slot they are read and pinned once, and routing stays on the GPU.
 *
 * Where the parts of an expert lie in its slot depends on where they lie in their file
 * (store/record.h): experts of one layer mostly agree, and those that do go into one launch.
 *
 * Reading and computing at once may cost more than it gains where both use the same memory: `ahead`
 * says whether a layer's experts are launched as they come or all together, and `trial` finds out
 * which is faster. Results do not depend on it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/gpu_ops_impl.h"

#define EXPERTS_A_REQUEST 64

/* ---- which order is faster ---- */

/* Tokens go in pairs, one of each kind, the order of a pair changing; the first pair is thrown
 * away. After TRIAL_PAIRS the smaller sum decides. Only steps of one row that read something
 * count. */
void gpu_trial_begin(gpu_trial *t, bool *ahead) {
    if (t->decided) return;
    int pair = t->n / 2, second = t->n % 2;
    *ahead = (pair + second) % 2 == 0;
}

void gpu_trial_end(gpu_trial *t, bool *ahead, uint64_t ns) {
    if (t->decided) return;
    if (t->n >= 2) t->sum[*ahead] += ns;
    if (++t->n < 2 * GPU_TRIAL_PAIRS) return;
    t->decided = true;
    *ahead = t->sum[1] <= t->sum[0];
}

/* ---- memory ---- */

/* Bytes of the largest matrix of the trunk. */
static size_t largest(const weights *w) {
    size_t most = 1 << 20;
    for (int i = -1; i < w->config->layers; i++) {
        const layer_weights *l = &w->layers[i < 0 ? 0 : i];
        const qmat *all[] = {&l->attn.q,    &l->attn.k,     &l->attn.v,    &l->attn.o,
                             &l->delta.qkv, &l->delta.z,    &l->delta.out, &l->dense.gate,
                             &l->dense.up,  &l->dense.down, &l->router,    &l->shared.gate,
                             &l->shared.up, &l->shared.down};
        const qmat *outer[] = {&w->embed, &w->head};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            const qmat *m = i < 0 ? outer[k % 2] : all[k];
            if (!m->rows) continue;
            size_t bytes = qformat_row_bytes(m->format, m->cols) * (size_t)m->rows;
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

err gpu_unified_trunk(gpu_ops *o) {
    const weights *w = o->o.weights;
    return gpu_windows_open(o->device, w->trunk.base, w->trunk_bytes, largest(w), &o->trunk);
}

size_t gpu_ops_store_room(const gpu_ops *o) { return o->unified ? o->store_room : SIZE_MAX; }

/* ---- layouts ---- */

/* Offsets of the parts from the first; false when a part lies before it, or where the kernels could
 * not load it. */
static bool lay_out(const expert_layout *like, const expert_view *v, expert_layout *out) {
    const uint8_t *first = v->part[0];
    *out = *like;
    for (int i = 0; i < EXPERT_PARTS_MAX; i++)
        if (like->bytes[i] && v->part[i] < first) first = v->part[i];
    for (int i = 0; i < 9; i++) {
        size_t at = like->bytes[i] ? (size_t)(v->part[i] - first) : 0;
        if (at > UINT32_MAX) return false;
        gpu_layout_put(out, i, at);
    }
    return true;
}

static const uint8_t *first_part(const expert_layout *like, const expert_view *v) {
    const uint8_t *first = v->part[0];
    for (int i = 0; i < EXPERT_PARTS_MAX; i++)
        if (like->bytes[i] && v->part[i] < first) first = v->part[i];
    return first;
}

static bool same_layout(const expert_layout *a, const expert_layout *b) {
    return memcmp(a->at, b->at, sizeof a->at) == 0;
}

/* ---- all experts in memory ---- */

static err pin_all(gpu_ops *o, gpu_slot *bases, bool *alike) {
    gpu_tier *t = &o->tier;
    for (int key = 0; key < t->n_keys; key++) {
        int layer = key / t->n_experts, id = key % t->n_experts;
        expert_layout *own = &t->layouts[layer], found;
        expert_view v;
        TRY(expert_store_request(o->store, layer, &id, 1));
        TRY(expert_store_wait(o->store, layer, id, &v));
        if (!lay_out(own, &v, &found) || (id > 0 && !same_layout(own, &found))) *alike = false;
        if (id == 0) *own = found;
        bases[key].base = gpu_windows_at(&o->slots, first_part(own, &v));
        t->n_used = key + 1;
        if (!*alike) return err_none();
    }
    return err_none();
}

static void unpin_all(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    for (int key = 0; key < t->n_used; key++)
        expert_store_release(o->store, key / t->n_experts, key % t->n_experts);
    t->n_used = 0;
}

static err take_all(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    size_t bytes = (size_t)t->n_keys * sizeof(gpu_slot);
    gpu_slot *bases = calloc((size_t)t->n_keys, sizeof *bases);
    if (!bases) return err_make(ERR_NOMEM, "no memory for the table of experts");
    bool alike = true;
    err e = pin_all(o, bases, &alike);
    if (!e.code && alike) e = gpu_alloc(o->device, GPU_DEVICE, bytes, &t->by_key);
    if (!e.code && alike) e = gpu_copy_in(o->upload, t->by_key.addr, bases, bytes);
    if (!e.code && alike) e = gpu_queue_wait(o->upload);
    t->resident = !e.code && alike;
    if (!t->resident) unpin_all(o);
    free(bases);
    return e;
}

err gpu_unified_attach(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    uint8_t *base;
    size_t bytes, slot;
    if (!t->n_layers) return err_none();
    expert_store_memory(o->store, &base, &bytes, &slot);
    TRY(gpu_windows_open(o->device, base, bytes, slot, &o->slots));
    o->kept = calloc((size_t)expert_store_slots(o->store), sizeof *o->kept);
    if (!o->kept) return err_make(ERR_NOMEM, "no memory for the table of pins");
    if (expert_store_slots(o->store) >= t->n_keys) TRY(take_all(o));
    t->n_slots = int_min(expert_store_slots(o->store), t->n_keys);
    expert_store_stats_reset(o->store);
    gpu_ops_stats_reset(o);
    return err_none();
}

void gpu_unified_close(gpu_ops *o) {
    if (!o->device) return;
    gpu_unified_let_go(o);
    if (o->store && o->unified) unpin_all(o);
    gpu_windows_close(o->device, &o->slots);
    gpu_windows_close(o->device, &o->trunk);
    free(o->kept);
    o->kept = NULL;
}

/* ---- streamed ---- */

void gpu_unified_let_go(gpu_ops *o) {
    for (int i = 0; i < o->n_kept; i++)
        expert_store_release(o->store, o->kept[i] / o->tier.n_experts,
                             o->kept[i] % o->tier.n_experts);
    o->n_kept = 0;
}

static int key_of(const gpu_moe_job *j, const gpu_use *u) {
    return j->w->sparse_index * j->o->tier.n_experts + u->id;
}

static err ask(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int ids[EXPERTS_A_REQUEST], n = 0;
    int room = int_min(expert_store_slots(o->store) - o->n_kept, EXPERTS_A_REQUEST);
    for (int i = 0; i < o->n_uses && n < room; i++)
        if (!o->uses[i].asked) ids[n++] = o->uses[i].id;
    if (!n) return err_none();
    TRY(expert_store_request(o->store, j->w->sparse_index, ids, n));
    for (int i = 0, k = 0; k < n; i++) {
        gpu_use *u = &o->uses[i];
        if (u->asked) continue;
        u->asked = true;
        o->kept[o->n_kept++] = key_of(j, u);
        o->stats.hits += expert_store_ready(o->store, j->w->sparse_index, u->id);
        k++;
    }
    return err_none();
}

/* The pin of a failed read is gone already. */
static void forget(gpu_ops *o, int key) {
    for (int i = 0; i < o->n_kept; i++)
        if (o->kept[i] == key) o->kept[i--] = o->kept[--o->n_kept];
}

/* Waits for the expert and notes where it is. */
static err take(gpu_moe_job *j, gpu_use *u) {
    gpu_ops *o = j->o;
    const expert_layout *like = &o->tier.layouts[j->w->sparse_index];
    expert_view v;
    err e = gpu_store_wait(j, u->id, &v);
    if (e.code) forget(o, key_of(j, u));
    TRY(e);
    if (!lay_out(like, &v, &u->layout))
        return err_make(ERR_UNSUPPORTED, "layer %d expert %d: its parts lie too far apart",
                        j->layer, u->id);
    u->base = gpu_windows_at(&o->slots, first_part(like, &v));
    u->now = true;
    return err_none();
}

/* Launches the uses that are marked `now` and lie like the first of them. */
static err launch_alike(gpu_moe_job *j, const gpu_use *first) {
    gpu_ops *o = j->o;
    size_t at = o->passes_used;
    int *head = (int *)(void *)(o->passes_host + at), n = 0;
    int from = (int)(first - o->uses), alike = 0;
    expert_layout layout = first->layout;
    for (int i = from; i < o->n_uses; i++)
        alike += o->uses[i].now && same_layout(&layout, &o->uses[i].layout);
    size_t bases_at = at + 16;
    size_t active_at = round_up(bases_at + (size_t)alike * sizeof(gpu_slot), 16);
    gpu_slot *bases = (gpu_slot *)(void *)(o->passes_host + bases_at);
    gpu_active *active = (gpu_active *)(void *)(o->passes_host + active_at);
    for (int i = from; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        if (!u->now || !same_layout(&layout, &u->layout)) continue;
        bases[n].base = u->base;
        active[n] = (gpu_active){.expert = n, .first = u->first, .count = u->n};
        n++;
        u->now = false;
        u->done = true;
    }
    head[0] = n;
    j->n_left -= n;
    o->passes_used = round_up(active_at + (size_t)n * sizeof(gpu_active), 16);
    assert(o->passes_used <= o->passes_bytes);
    args_experts e = {.slots = o->passes + bases_at,
                      .active = o->passes + active_at,
                      .n_active = o->passes + at,
                      .order = o->passes,
                      .max_active = n};
    return gpu_moe_experts(j, &layout, e);
}

static err launch(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    for (int i = 0; i < o->n_uses; i++)
        if (o->uses[i].now) TRY(launch_alike(j, &o->uses[i]));
    return err_none();
}

/* Launches what has come; at least one expert, or with `all` every one that was asked for. */
static err run_arrived(gpu_moe_job *j, bool all) {
    gpu_ops *o = j->o;
    gpu_use *first = NULL;
    int n = 0;
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        if (u->done || !u->asked) continue;
        if (!first) first = u;
        if (!all && !expert_store_ready(o->store, j->w->sparse_index, u->id)) continue;
        TRY(take(j, u));
        n++;
    }
    if (!n && first) TRY(take(j, first));
    return launch(j);
}

err gpu_unified_moe(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    TRY(gpu_moe_ask(j));
    TRY(gpu_moe_ids(j));
    gpu_unified_let_go(o); /* the ids have come: nothing before this layer is still running */
    gpu_moe_sort(j);
    o->stats.requests += (uint64_t)o->n_uses;
    while (j->n_left) {
        TRY(ask(j));
        TRY(run_arrived(j, !o->ahead));
        if (!j->n_left || o->n_kept < expert_store_slots(o->store)) continue;
        bool open = false; /* asked for and not launched: those pins must stay */
        for (int i = 0; i < o->n_uses; i++) open |= o->uses[i].asked && !o->uses[i].done;
        if (open) continue;
        TRY(gpu_queue_wait(o->compute));
        gpu_unified_let_go(o);
    }
    return err_none();
}
