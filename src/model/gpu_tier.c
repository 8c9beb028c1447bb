/* gpu_tier.c: expert slots in device memory.
 *
 *     slot    [gate.w | gate.scales | gate.biases | up ... | down ...]  see gpu_layout.c
 *
 *     FREE     -> STAGED   uploaded for the running layer, or on a guess: the store has it too; the
 *       ^           |      oldest goes when another needs the slot
 *       |           v
 *     LEAVING  <- OWNED    the card's is the only one: the store has lent it (expert_store_lend)
 *
 * Tiers are exclusive: an owned expert needs none of the store's slots. While there are slots for
 * it, every expert that is used becomes owned. Then a staged one takes the place of the worst owned
 * one when the policy of the store (store/cache.h, with the same history) would rather keep it; the
 * other goes back to the store's memory, by a copy beside the uploads.
 *
 *     n_slots  =  owned_max  +  slots for passing through: a quarter, at most STAGED_MOST
 *
 * Launches that read a slot are behind each other on the compute queue; the host knows that those
 * of earlier layers are done (gpu_tier_settle), and an upload over what the running layer reads
 * waits for `launched`. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"

#define EXPERTS_A_GROUP 64 /* uploaded between two waits */
#define STAGED_MOST     48 /* twice the misses of a layer, and the groups of a prompt */
#define STAGED_BYTES    ((size_t)256 << 20)

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

int gpu_ops_slots_in(const gpu_ops_need *need, size_t bytes, int *owned) {
    int n = (int)size_min(bytes / (need->slot_bytes + sizeof(gpu_slot)), (size_t)need->keys);
    size_t staged = size_min(STAGED_BYTES / need->slot_bytes, STAGED_MOST);
    staged = size_min(staged, (size_t)(n + 3) / 4);
    *owned = n == need->keys ? n : n - int_max((int)staged, 1);
    return n;
}

err gpu_tier_open(gpu_ops *o, size_t bytes) {
    gpu_tier *t = &o->tier;
    if (!t->n_layers) return err_none();
    gpu_ops_need need = {.slot_bytes = t->slot_bytes, .keys = t->n_keys};
    t->n_slots = gpu_ops_slots_in(&need, bytes, &t->owned_max);
    size_t n = (size_t)t->n_slots;
    t->slot_of = calloc((size_t)t->n_keys, sizeof *t->slot_of);
    t->slots = calloc(n, sizeof *t->slots);
    t->cache_memory = malloc(cache_memory(t->n_layers, t->n_experts));
    t->exchange_memory = malloc(exchange_memory(t->n_keys));
    if (!t->slot_of || !t->slots || !t->cache_memory || !t->exchange_memory)
        return err_make(ERR_NOMEM, "no memory for the table of experts");
    cache_options policy = {.n_layers = t->n_layers, .n_experts = t->n_experts};
    cache_init(&t->cache, &policy, t->cache_memory);
    exchange_init(&t->exchange, t->n_layers, t->n_keys, t->exchange_memory);
    for (int i = 0; i < t->n_keys; i++) t->slot_of[i] = -1;
    for (int i = 0; i < t->n_slots; i++)
        t->slots[i] =
            (vram_slot){.key = -1, .next = i + 1 < t->n_slots ? i + 1 : -1, .epoch = t->epoch - 1};
    t->staged_head = t->staged_tail = -1;
    TRY(gpu_alloc(o->device, GPU_DEVICE, n * t->slot_bytes, &t->memory));
    TRY(gpu_alloc(o->device, GPU_DEVICE, n * sizeof(gpu_slot), &t->by_slot));
    TRY(gpu_alloc(o->device, GPU_DEVICE, (size_t)t->n_keys * sizeof(gpu_slot), &t->by_key));
    o->bytes += t->memory.bytes + t->by_slot.bytes + t->by_key.bytes;
    return fill_slots(o);
}

void gpu_tier_close(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    if (o->device && o->store && t->pins[0]) {
        err ignored = gpu_tier_drain(o); /* a lost device's bytes are nobody's any more */
        (void)ignored;
    }
    if (o->device) {
        if (o->pinned_store) gpu_unpin(o->device, o->pinned_store);
        o->pinned_store = NULL;
        gpu_free(o->device, &t->memory);
        gpu_free(o->device, &t->by_slot);
        gpu_free(o->device, &t->by_key);
    }
    free(t->layouts);
    free(t->slot_of);
    free(t->slots);
    free(t->cache_memory);
    free(t->exchange_memory);
    for (int i = 0; i < 2; i++) free(t->pins[i]);
    *t = (gpu_tier){0};
}

/* ---- slots ---- */

static void ring_put(gpu_tier *t, int slot) {
    vram_slot *x = &t->slots[slot];
    x->state = VRAM_STAGED;
    x->prev = t->staged_tail;
    x->next = -1;
    *(t->staged_tail < 0 ? &t->staged_head : &t->slots[t->staged_tail].next) = slot;
    t->staged_tail = slot;
}

static void ring_take(gpu_tier *t, int slot) {
    vram_slot *x = &t->slots[slot];
    *(x->prev < 0 ? &t->staged_head : &t->slots[x->prev].next) = x->next;
    *(x->next < 0 ? &t->staged_tail : &t->slots[x->next].prev) = x->prev;
}

/* An expert that has left may be one that the running layer still reads: the epoch stays. */
static void set_free(gpu_tier *t, int slot) {
    vram_slot *x = &t->slots[slot];
    if (x->key >= 0) t->slot_of[x->key] = -1;
    *x = (vram_slot){.key = -1, .next = t->free_head, .epoch = x->epoch};
    t->free_head = slot;
}

err gpu_tier_claim(gpu_ops *o, int key, bool own, int *out) {
    gpu_tier *t = &o->tier;
    bool is_free = t->free_head >= 0;
    int slot = is_free ? t->free_head : t->staged_head;
    *out = -1;
    assert(t->slot_of[key] < 0);
    bool now = slot >= 0 && t->slots[slot].epoch == t->epoch; /* the running layer reads it */
    if (slot < 0 || t->slots[slot].pending || (now && !own)) return err_none();
    if (now) TRY(gpu_event_follow(o->upload, o->launched));
    if (is_free) {
        t->free_head = t->slots[slot].next;
    } else {
        ring_take(t, slot);
        t->slot_of[t->slots[slot].key] = -1;
    }
    t->slots[slot] = (vram_slot){.key = key, .state = VRAM_OWNED, .epoch = t->epoch - 1};
    t->slots[slot].pending = own;
    t->slot_of[key] = slot;
    if (own && t->n_owned < t->owned_max) {
        t->n_owned++;
    } else {
        ring_put(t, slot);
    }
    *out = slot;
    return err_none();
}

void gpu_tier_unclaim(gpu_tier *t, int slot) {
    if (t->slots[slot].state == VRAM_STAGED)
        ring_take(t, slot);
    else
        t->n_owned--;
    set_free(t, slot);
}

static err copy_up(gpu_ops *o, gpu_addr card, uint8_t *host, size_t bytes) {
    return gpu_copy_in(o->upload, card, host, bytes);
}

static err copy_down(gpu_ops *o, gpu_addr card, uint8_t *host, size_t bytes) {
    return gpu_copy_out(o->download, host, card, bytes);
}

static err copy_expert(gpu_ops *o, int slot, uint8_t *const *part, gpu_copy_piece copy) {
    const gpu_tier *t = &o->tier;
    const expert_layout *l = &t->layouts[t->slots[slot].key / t->n_experts];
    return gpu_layout_copy(o, l, t->memory.addr + (gpu_addr)slot * t->slot_bytes, part, copy);
}

err gpu_tier_upload(gpu_ops *o, int slot, const expert_view *view, int list) {
    gpu_tier *t = &o->tier;
    vram_slot *x = &t->slots[slot];
    uint8_t *part[EXPERT_PARTS_MAX];
    memcpy(part, view->part, sizeof part);
    t->pins[list][t->n_pins[list]++] = (vram_pin){x->key, x->state == VRAM_OWNED};
    o->stats.uploads++;
    o->stats.upload_bytes += t->layouts[x->key / t->n_experts].copied;
    return copy_expert(o, slot, part, copy_up);
}

int gpu_tier_pins(const gpu_ops *o) {
    return o->tier.n_pins[0] + o->tier.n_pins[1] + o->tier.n_leaving;
}

/* ---- when work is done ---- */

static void release_pins(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    for (int i = 0; i < t->n_pins[0]; i++) {
        vram_pin p = t->pins[0][i];
        int layer = p.key / t->n_experts, id = p.key % t->n_experts;
        if (p.lend) expert_store_lend(o->store, layer, id);
        expert_store_release(o->store, layer, id);
    }
    t->n_pins[0] = 0;
}

static void arrive(gpu_ops *o, bool complete) {
    gpu_tier *t = &o->tier;
    for (int i = 0; i < t->n_leaving; i++) {
        int key = t->slots[t->leaving[i]].key;
        expert_store_returned(o->store, key / t->n_experts, key % t->n_experts, complete);
        set_free(t, t->leaving[i]);
    }
    t->n_leaving = 0;
    t->returning = false;
}

static void next_pins(gpu_tier *t) {
    vram_pin *guesses = t->pins[1];
    t->pins[1] = t->pins[0];
    t->pins[0] = guesses;
    t->n_pins[0] = t->n_pins[1];
    t->n_pins[1] = 0;
}

/* Guesses of this layer are behind its own uploads: they are done with the next one. */
void gpu_tier_settle(gpu_ops *o) {
    gpu_tier *t = &o->tier;
    t->epoch++;
    release_pins(o);
    if (t->returning) arrive(o, true);
    next_pins(t);
}

err gpu_tier_drain(gpu_ops *o) {
    err e = gpu_queue_wait(o->upload), f = gpu_queue_wait(o->download);
    if (!e.code) e = f;
    release_pins(o);
    arrive(o, !f.code);
    next_pins(&o->tier);
    release_pins(o);
    o->guess_open = false;
    return e;
}

err gpu_tier_forget(gpu_ops *o) {
    err e = gpu_tier_drain(o);
    for (int i = 0; i < o->tier.n_slots; i++) o->tier.slots[i].pending = false;
    o->n_guesses = 0;
    o->look_open = false;
    return e;
}

/* The store lends key when its pin goes; false: the store has it no more. */
static bool lend_with_pin(gpu_ops *o, int key) {
    gpu_tier *t = &o->tier;
    for (int i = 0; i < t->n_pins[0]; i++) {
        if (t->pins[0][i].key != key) continue;
        t->pins[0][i].lend = true;
        return true;
    }
    expert_view view;
    if (!expert_store_borrow(o->store, key / t->n_experts, key % t->n_experts, &view)) return false;
    t->pins[0][t->n_pins[0]++] = (vram_pin){key, true};
    return true;
}

err gpu_tier_promote(gpu_ops *o, int key) {
    gpu_tier *t = &o->tier;
    int slot = t->slot_of[key];
    uint8_t *part[EXPERT_PARTS_MAX];
    if (slot < 0 || t->slots[slot].state != VRAM_STAGED) return err_none();
    int worst = cache_worst(&t->cache);
    if (worst < 0 || !cache_before(&t->cache, worst, key)) return err_none();
    int same_layer = cache_worst_in(&t->cache, key / t->n_experts);
    if (!exchange_pays(&t->exchange, key, same_layer < 0 ? worst : same_layer)) return err_none();
    if (!lend_with_pin(o, key)) return err_none();
    cache_remove(&t->cache, worst);
    ring_take(t, slot);
    t->slots[slot].state = VRAM_OWNED;
    o->stats.promotions++;
    int layer = worst / t->n_experts, from = t->slot_of[worst];
    if (!expert_store_take_back(o->store, layer, worst % t->n_experts, part)) {
        set_free(t, from);
        return err_none();
    }
    t->slots[from].state = VRAM_LEAVING;
    t->leaving[t->n_leaving++] = from;
    o->stats.download_bytes += t->layouts[layer].copied;
    return copy_expert(o, from, part, copy_down);
}

/* ---- before the first token ---- */

static err upload_group(gpu_ops *o, int layer, int first, int n) {
    gpu_tier *t = &o->tier;
    int ids[EXPERTS_A_GROUP];
    for (int i = 0; i < n; i++) ids[i] = first + i;
    TRY(expert_store_request(o->store, layer, ids, n));
    err e = err_none();
    for (int i = 0; i < n; i++) {
        expert_view view;
        int slot = -1;
        err failed = expert_store_wait(o->store, layer, ids[i], &view);
        if (failed.code) {
            if (!e.code) e = failed;
            continue; /* that pin is gone */
        }
        if (!e.code) e = gpu_tier_claim(o, layer * t->n_experts + ids[i], true, &slot);
        if (slot >= 0) {
            t->slots[slot].pending = false;
            e = gpu_tier_upload(o, slot, &view, 0);
        } else {
            expert_store_release(o->store, layer, ids[i]);
        }
    }
    err waited = gpu_tier_drain(o);
    for (int i = 0; i < n && !t->resident; i++) {
        int key = layer * t->n_experts + ids[i];
        if (t->slot_of[key] >= 0) cache_add(&t->cache, key);
    }
    return e.code ? e : waited;
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

/* As many experts of every layer as there are slots for. */
static err upload_first(gpu_ops *o, weights_progress progress, void *ctx) {
    gpu_tier *t = &o->tier;
    int room = int_min(expert_store_slots(o->store), EXPERTS_A_GROUP);
    for (int layer = 0; layer < t->n_layers; layer++) {
        int share = (int)((int64_t)t->owned_max * (layer + 1) / t->n_layers) -
                    (int)((int64_t)t->owned_max * layer / t->n_layers);
        for (int first = 0; first < share; first += room)
            TRY(upload_group(o, layer, first, int_min(share - first, room)));
        if (progress)
            progress(ctx, "experts to the GPU", (uint64_t)(layer + 1), (uint64_t)t->n_layers);
    }
    return err_none();
}

int gpu_ops_store_slots(int keys, int owned) {
    return owned == keys ? int_min(keys, EXPERTS_A_GROUP) : keys - owned + 2 * PROMOTIONS_MAX;
}

err gpu_ops_attach(gpu_ops *o, expert_store *store, weights_progress progress, void *ctx) {
    gpu_tier *t = &o->tier;
    o->store = store;
    if (o->unified) return gpu_unified_attach(o);
    for (int i = 0; i < 2; i++) {
        t->pins[i] = calloc((size_t)expert_store_slots(store), sizeof *t->pins[i]);
        if (!t->pins[i]) return err_make(ERR_NOMEM, "no memory for the table of pins");
    }
    pin_store(o);
    prefetch_init(&o->governor, false);
    TRY(gpu_share_open(o));
    /* Where some stay on disk, use decides what is uploaded. */
    bool all = !o->o.share.place && t->owned_max + expert_store_slots(store) >= t->n_keys;
    if (!t->n_layers || !all) return err_none();
    TRY(upload_first(o, progress, ctx));
    if (t->owned_max == t->n_keys) {
        TRY(tell_addresses(o));
        t->resident = true;
    } else {
        expert_store_fill(store);
    }
    expert_store_stats_reset(store);
    gpu_ops_stats_reset(o);
    return err_none();
}
