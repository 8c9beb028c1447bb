/* gpu_tier.c: expert slots in device memory.
 *
 *     slot    [gate.w | gate.scales | gate.biases | up ... | down ...]  every part 64-byte aligned
 *     cache   the policy of the RAM slots (store/cache.h), once more: keys with a slot that the
 *             running layer does not use may be evicted, the worst first
 *
 * An expert may be in a slot here and in one of the store's. The store is only asked for experts
 * that are missing here, so those that live here go from there first. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"

#define PART_ALIGN      64
#define EXPERTS_A_GROUP 64 /* uploaded between two waits */

/* ---- layouts ---- */

static void place(expert_layout *l, int part, size_t bytes) {
    l->at[part] = l->total;
    l->bytes[part] = bytes;
    l->total = round_up(l->total + bytes, PART_ALIGN);
}

static gpu_part place_matrix(expert_layout *l, int first, const qmat *m) {
    size_t rows = (size_t)m->rows, scales = qformat_scale_row_bytes(m->format, m->cols) * rows;
    place(l, first, qformat_row_bytes(m->format, m->cols) * rows);
    place(l, first + 1, scales);
    place(l, first + 2, scales);
    return (gpu_part){.w = (unsigned)l->at[first],
                      .scales = (unsigned)l->at[first + 1],
                      .biases = (unsigned)l->at[first + 2],
                      .rows = m->rows,
                      .cols = m->cols,
                      .kind = (int)m->format.kind,
                      .bits = m->format.bits,
                      .group = m->format.group,
                      .scales_f16 = m->format.scales_f16};
}

static void lay_out(const layer_weights *w, expert_layout *l) {
    *l = (expert_layout){0};
    l->gate = place_matrix(l, 0, &w->expert.gate);
    l->up = place_matrix(l, 3, &w->expert.up);
    l->down = place_matrix(l, 6, &w->expert.down);
}

err gpu_tier_measure(const weights *w, gpu_tier *t) {
    *t = (gpu_tier){.n_layers = w->experts.n_layers, .n_experts = w->experts.n_experts};
    if (!t->n_layers) return err_none();
    t->n_keys = t->n_layers * t->n_experts;
    t->layouts = calloc((size_t)t->n_layers, sizeof *t->layouts);
    if (!t->layouts) return err_make(ERR_NOMEM, "no memory for the layout of experts");
    for (int i = 0; i < w->config->layers; i++) {
        int sparse = w->layers[i].sparse_index;
        if (sparse < 0) continue;
        lay_out(&w->layers[i], &t->layouts[sparse]);
        if (t->layouts[sparse].total > UINT32_MAX)
            return err_make(ERR_UNSUPPORTED, "layer %d: experts of more than 4 GiB", i);
        if (t->layouts[sparse].total > t->slot_bytes) t->slot_bytes = t->layouts[sparse].total;
    }
    return err_none();
}

/* ---- open, close ---- */

static err fill_slots(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    gpu_slot *bases = calloc((size_t)t->n_slots, sizeof *bases);
    if (!bases) return err_make(ERR_NOMEM, "no memory for the table of expert slots");
    for (int i = 0; i < t->n_slots; i++)
        bases[i].base = t->memory.addr + (gpu_addr)i * t->slot_bytes;
    err e = gpu_copy_in(o->upload, t->by_slot.addr, bases, (size_t)t->n_slots * sizeof(gpu_slot));
    if (!e.code) e = gpu_fill(o->upload, t->by_key.addr, 0, (size_t)t->n_keys * sizeof(gpu_slot));
    if (!e.code) e = gpu_queue_wait(o->upload);
    free(bases);
    return e;
}

err gpu_tier_open(gpu_ops *o, size_t bytes) {
    gpu_tier *t = &o->tier;
    if (!t->n_layers) return err_none();
    size_t n = size_min(bytes / (t->slot_bytes + sizeof(gpu_slot)), (size_t)t->n_keys);
    t->n_slots = (int)n;
    t->slot_of = calloc((size_t)t->n_keys, sizeof *t->slot_of);
    t->key_of = calloc(n, sizeof *t->key_of);
    t->cache_memory = malloc(cache_memory(t->n_layers, t->n_experts));
    if (!t->slot_of || !t->key_of || !t->cache_memory)
        return err_make(ERR_NOMEM, "no memory for the table of experts");
    cache_options policy = {.n_layers = t->n_layers, .n_experts = t->n_experts};
    cache_init(&t->cache, &policy, t->cache_memory);
    for (int i = 0; i < t->n_keys; i++) t->slot_of[i] = -1;
    for (int i = 0; i < t->n_slots; i++) t->key_of[i] = -1;
    TRY(gpu_alloc(o->device, GPU_DEVICE, n * t->slot_bytes, &t->memory));
    TRY(gpu_alloc(o->device, GPU_DEVICE, n * sizeof(gpu_slot), &t->by_slot));
    TRY(gpu_alloc(o->device, GPU_DEVICE, (size_t)t->n_keys * sizeof(gpu_slot), &t->by_key));
    o->bytes += t->memory.bytes + t->by_slot.bytes + t->by_key.bytes;
    return fill_slots(o);
}

void gpu_tier_close(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    if (o->device) {
        if (o->pinned_store) gpu_unpin(o->device, o->pinned_store);
        o->pinned_store = NULL;
        gpu_free(o->device, &t->memory);
        gpu_free(o->device, &t->by_slot);
        gpu_free(o->device, &t->by_key);
    }
    free(t->layouts);
    free(t->slot_of);
    free(t->key_of);
    free(t->cache_memory);
    *t = (gpu_tier){0};
}

/* ---- slots ---- */

int gpu_tier_claim(gpu_tier *t, int key) {
    int slot = t->n_used;
    if (t->n_used < t->n_slots) {
        t->n_used++;
    } else {
        int worst = cache_worst(&t->cache);
        if (worst < 0) return -1;
        cache_remove(&t->cache, worst);
        slot = t->slot_of[worst];
        t->slot_of[worst] = -1;
    }
    assert(t->slot_of[key] < 0);
    t->slot_of[key] = slot;
    t->key_of[slot] = key;
    return slot;
}

/* Parts that lie as far from each other in the store as in the slot are one copy: a record is read
 * into the store in the order of its parts, so mostly all nine. */
err gpu_tier_upload(gpu_ops *o, int key, int slot, const expert_view *view) {
    gpu_tier *t = &o->tier;
    const expert_layout *l = &t->layouts[key / t->n_experts];
    gpu_addr base = t->memory.addr + (gpu_addr)slot * t->slot_bytes;
    for (int i = 0, end; i < EXPERT_PARTS_MAX; i = end) {
        size_t last = l->at[i] + l->bytes[i];
        for (end = i + 1; end < EXPERT_PARTS_MAX; end++) {
            size_t apart = l->at[end] - l->at[i];
            if (view->part[end] < view->part[i] ||
                (size_t)(view->part[end] - view->part[i]) != apart)
                break;
            last = l->at[end] + l->bytes[end];
        }
        TRY(gpu_copy_in(o->upload, base + l->at[i], view->part[i], last - l->at[i]));
    }
    o->stats.uploads++;
    o->stats.upload_bytes += l->total;
    return err_none();
}

/* ---- all of them ---- */

static err upload_group(gpu_ops *o, int layer, int first, int n) {
    gpu_tier *t = &o->tier;
    int ids[EXPERTS_A_GROUP];
    for (int i = 0; i < n; i++) ids[i] = first + i;
    TRY(expert_store_request(o->store, layer, ids, n));
    err e = err_none();
    for (int i = 0; i < n; i++) {
        expert_view view;
        int key = layer * t->n_experts + first + i;
        err failed = expert_store_wait(o->store, layer, first + i, &view);
        if (failed.code) ids[i] = -1; /* that pin is gone */
        if (!failed.code && !e.code)
            failed = gpu_tier_upload(o, key, gpu_tier_claim(t, key), &view);
        if (!e.code) e = failed;
    }
    if (!e.code) e = gpu_queue_wait(o->upload);
    for (int i = 0; i < n; i++) {
        if (ids[i] >= 0) expert_store_release(o->store, layer, ids[i]);
    }
    return e;
}

static err tell_addresses(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    gpu_slot *bases = calloc((size_t)t->n_keys, sizeof *bases);
    if (!bases) return err_make(ERR_NOMEM, "no memory for the table of experts");
    for (int i = 0; i < t->n_keys; i++)
        bases[i].base = t->memory.addr + (gpu_addr)t->slot_of[i] * t->slot_bytes;
    err e = gpu_copy_in(o->upload, t->by_key.addr, bases, (size_t)t->n_keys * sizeof *bases);
    if (!e.code) e = gpu_queue_wait(o->upload);
    free(bases);
    return e;
}

/* The store's slots as the source of fast copies; without it copies are slow, nothing else. */
static void pin_store(gpu_ops *o) {
    size_t bytes, slot_bytes;
    uint8_t *memory;
    expert_store_memory(o->store, &memory, &bytes, &slot_bytes);
    err e = gpu_pin(o->device, memory, bytes);
    if (!e.code) o->pinned_store = memory;
}

err gpu_ops_attach(gpu_ops *o, expert_store *store, weights_progress progress, void *ctx) {
    gpu_tier *t = &o->tier;
    o->store = store;
    if (o->unified) return gpu_unified_attach(o);
    pin_store(o);
    if (!t->n_layers || t->n_slots < t->n_keys) return err_none();
    int room = expert_store_slots(store);
    room = room < EXPERTS_A_GROUP ? room : EXPERTS_A_GROUP;
    for (int layer = 0; layer < t->n_layers; layer++) {
        for (int first = 0; first < t->n_experts; first += room) {
            int n = t->n_experts - first < room ? t->n_experts - first : room;
            TRY(upload_group(o, layer, first, n));
        }
        if (progress)
            progress(ctx, "experts to the GPU", (uint64_t)(layer + 1), (uint64_t)t->n_layers);
    }
    TRY(tell_addresses(o));
    t->resident = true;
    expert_store_stats_reset(store);
    gpu_ops_stats_reset(o);
    return err_none();
}
