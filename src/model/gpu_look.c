/* gpu_look.c: the next layer's likely experts, on the card: as look_ahead.c guesses them, by the
 * next layer's router on this layer's input.
 *
 * The guess is launched right behind this layer's router and written to pinned memory; the host
 * looks at it once it has launched the layer, and if it was not there yet once more before the next
 * router, when it may wait a moment: the card has enough to do. A layer without a guess is slower,
 * not different. The likeliest of the guessed experts that are in the store's memory are uploaded
 * behind this layer's, while the next layer's attention runs; those on disk are hinted to the
 * store. Both follow the share of guesses that come true (prefetch.h). */
#include "base/bits.h"
#include "base/os.h"
#include "model/gpu_ops_impl.h"

#define LOOK_NS     100000 /* longest wait for a guess */
#define STORE_LEAST 4      /* the store's slots must be so many times k for uploads on a guess */

static const layer_weights *next_of(const gpu_moe_job *j) {
    const gpu_ops *o = j->o;
    int next = j->layer + 1;
    if (!o->o.look_ahead || o->unified || o->tier.resident || next >= o->c->layers) return NULL;
    if (!share_has(o->o.share, next)) return NULL;
    const layer_weights *w = &o->o.weights->layers[next];
    return w->sparse_index < 0 ? NULL : w;
}

err gpu_look_launch(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    const layer_weights *w = next_of(j);
    int k = o->o.experts_per_token;
    o->look_open = false;
    if (!w || j->b->rows != 1) return err_none();
    for (int i = 0; i < k; i++) o->look_host[i] = -1;
    TRY(gpu_norm(o, o->look_x, o->x, w->post_norm, 1));
    args_matvec m = {.m = {gpu_mat_of(o, &w->router)},
                     .y = {o->look_p},
                     .x = o->look_x,
                     .y_stride = {o->c->experts},
                     .n = 1,
                     .x_stride = o->c->hidden,
                     .n_mats = 1};
    TRY(gpu_multiply(o, &m));
    args_router r = {.logits = o->look_p,
                     .ids = gpu_pinned_at(o, o->look_host),
                     .weights = o->look_gates,
                     .n = 1,
                     .n_experts = o->c->experts,
                     .k = k};
    o->look_open = true;
    o->look_layer = w->sparse_index;
    return gpu_do(o, GPU_router, &r);
}

int gpu_look_outcome(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int n = 0;
    for (int i = 0; i < o->n_guesses; i++) {
        bool used = false;
        for (int u = 0; u < o->n_uses && !used; u++)
            used = j->w->sparse_index * o->tier.n_experts + o->uses[u].id == o->guesses[i];
        prefetch_outcome(&o->governor, used);
        o->stats.guesses++;
        o->stats.guesses_used += used;
        n += used;
    }
    o->n_guesses = 0;
    return n;
}

/* Uploads a guessed expert that is in the store's memory; false: it is not, or there is no slot. */
static err upload_guess(gpu_ops *o, int layer, int id, bool *done) {
    int key = layer * o->tier.n_experts + id, slot;
    expert_view view;
    *done = false;
    if (!expert_store_borrow(o->store, layer, id, &view)) return err_none();
    err e = gpu_tier_claim(o, key, false, &slot);
    if (e.code || slot < 0) {
        expert_store_release(o->store, layer, id);
        return e;
    }
    TRY(gpu_tier_upload(o, slot, &view, 1));
    o->guesses[o->n_guesses++] = key;
    *done = true;
    return err_none();
}

/* The processor's share of what will be missed is left in memory. */
static int guesses_allowed(gpu_ops *o, int layer) {
    const volatile int *guessed = o->look_host;
    int missed = 0;
    for (int i = 0; i < o->o.experts_per_token; i++) {
        int id = guessed[i];
        if (id < 0 || id >= o->c->experts) break;
        missed += o->tier.slot_of[layer * o->tier.n_experts + id] < 0;
    }
    bool room = expert_store_slots(o->store) >= STORE_LEAST * o->o.experts_per_token &&
                o->tier.n_slots - o->tier.owned_max >= STORE_LEAST * GUESSES_MAX;
    int most = int_min(GUESSES_MAX, missed - gpu_share_of(o, missed));
    return room ? int_min(most, prefetch_hint(&o->governor)) : 0;
}

static err use_guesses(gpu_ops *o) {
    int k = o->o.experts_per_token, hints[ROUTER_K_MAX], n = 0, allowed = -1;
    int layer = o->look_layer;
    const volatile int *guessed = o->look_host;
    o->look_open = false;
    for (int i = 0; i < k; i++) {
        int id = guessed[i];
        bool done = false;
        if (id < 0 || id >= o->c->experts) break;
        if (o->tier.slot_of[layer * o->tier.n_experts + id] >= 0) continue;
        if (allowed < 0) allowed = guesses_allowed(o, layer);
        if (o->n_guesses < allowed) TRY(upload_guess(o, layer, id, &done));
        if (!done) hints[n++] = id;
    }
    if (n) expert_store_hint(o->store, layer, hints, n);
    if (!o->n_guesses) return err_none();
    o->guess_open = true;
    return gpu_event_record(o->upload, o->guessed);
}

/* All ids of the guess have come by then. */
static bool guess_comes(const gpu_ops *o, uint64_t until) {
    const volatile int *guessed = o->look_host;
    for (int i = 0; i < o->o.experts_per_token;) {
        if (guessed[i] >= 0)
            i++;
        else if (!until || os_now_ns() > until)
            return false;
    }
    return true;
}

err gpu_look_ahead(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    const layer_weights *w = next_of(j);
    if (!w) return err_none();
    if (prefetch_sweeps(j->b->rows * o->o.experts_per_token, o->c->experts))
        expert_store_sweep(o->store, w->sparse_index);
    return o->look_open && guess_comes(o, 0) ? use_guesses(o) : err_none();
}

err gpu_look_again(gpu_ops *o) {
    if (!o->look_open) return err_none();
    TRY(gpu_queue_flush(o->compute));
    return guess_comes(o, os_now_ns() + LOOK_NS) ? use_guesses(o) : err_none();
}
