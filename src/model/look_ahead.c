/* look_ahead.c: which experts the next layer will probably want.
 *
 * The next layer's router, applied to what this layer's MLP is about to read: the layers' additions
 * to the residual stream are small, so most of the true choice is among its first guesses (70-80 %
 * on the bundled model). The store decides whether and how many of them it reads; what is computed
 * never depends on it. Before the first layer the embedding stands for its state. Where nearly all
 * guesses come true, the layer after the next is guessed as well when the disk has little to do.
 *
 * The rows of a long prompt together want most experts of every layer: there is nothing to guess.
 */
#include "model/cpu_ops_impl.h"
#include "store/prefetch.h"

/* The k largest of p[n], best first. */
static void best_of(const float *p, int n, int k, int *ids) {
    int held = 0;
    for (int i = 0; i < n; i++) {
        int at = held < k ? held++ : k;
        while (at > 0 && p[i] > p[ids[at - 1]]) {
            if (at < k) ids[at] = ids[at - 1];
            at--;
        }
        if (at < k) ids[at] = i;
    }
}

/* The experts of a layer that the residual stream, as it is, would choose. */
static void look_to(cpu_ops *o, const layer_weights *w, bool far) {
    int n = o->c->experts, k = o->o.experts_per_token, ids[LOOK_MAX];
    k = k < LOOK_MAX ? k : LOOK_MAX;
    o->o.kernels->rmsnorm(o->look_x, o->x, w->post_norm, o->c->hidden, (float)o->c->norm_eps);
    linear l = {.w = &w->router,
                .x = o->look_x,
                .y = o->look_p,
                .x_stride = (size_t)o->c->hidden,
                .y_stride = (size_t)n,
                .n = 1,
                .precise = true};
    linear_run(o, &l, 1);
    best_of(o->look_p, n, k, ids);
    if (far)
        expert_store_hint_far(o->o.store, w->sparse_index, ids, k);
    else
        expert_store_hint(o->o.store, w->sparse_index, ids, k);
}

/* NULL: it is not computed here, or has no experts. */
static const layer_weights *sparse_layer(const cpu_ops *o, int layer) {
    if (layer >= o->c->layers || !share_has(o->o.share, layer)) return NULL;
    const layer_weights *w = &o->o.weights->layers[layer];
    return w->sparse_index < 0 ? NULL : w;
}

void look_ahead(cpu_ops *o, const batch *b, int layer) {
    if (!o->o.look_ahead || !o->o.store || expert_store_resident(o->o.store)) return;
    const layer_weights *next = sparse_layer(o, layer + 1), *far = sparse_layer(o, layer + 2);
    if (next && prefetch_sweeps(b->rows * o->o.experts_per_token, o->c->experts))
        expert_store_sweep(o->o.store, next->sparse_index);
    if (b->rows != 1) return;
    if (next) look_to(o, next, false);
    if (far && expert_store_far_wanted(o->o.store)) look_to(o, far, true);
}
