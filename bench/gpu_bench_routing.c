/* gpu_bench_routing.c: see gpu_bench_routing.h. */
#include "gpu_bench_routing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define K_MAX 64

typedef struct place {
    int base, rows; /* position of the batch's first row; its rows so far */
} place;

struct routers {
    fm_engine *exact;
    int positions, layers, experts, k;
    double provoke;
    float *p; /* owned; [positions, layers, experts], the processor's probabilities */
    place ours, card;
    bool forced;
    router_report report;
};

static bool has(const int *ids, int k, int id) {
    while (k > 0 && ids[k - 1] != id) k--;
    return k > 0;
}

/* The k largest of p[n], lowest index first among equals: the router's rule. */
static void best(const float *p, int n, int k, int *ids) {
    for (int i = 0; i < k; i++) {
        int top = -1;
        for (int e = 0; e < n; e++)
            if (!has(ids, i, e) && (top < 0 || p[e] > p[top])) top = e;
        ids[i] = top;
    }
}

static double apart(const float *p, int a, int b) { return log((double)p[a]) - log((double)p[b]); }

/* The processor's probabilities of a row; NULL: a position that nobody asked for. */
static float *row_of(const routers *r, place *at, int layer, int row) {
    int sparse = r->exact->weights.layers[layer].sparse_index;
    if (sparse == 0 && row == 0) {
        at->base += at->rows;
        at->rows = 0;
    }
    if (sparse == 0) at->rows++;
    size_t position = (size_t)(at->base + row);
    if (position >= (size_t)r->positions) return NULL;
    return r->p + (position * (size_t)r->layers + (size_t)sparse) * (size_t)r->experts;
}

static void on_exact(void *ctx, int layer, int row, const int *ids, const float *w, int k) {
    (void)ids, (void)w, (void)k;
    routers *r = ctx;
    float *p = row_of(r, &r->ours, layer, row);
    if (p) memcpy(p, cpu_ops_router(r->exact->cpu, row), (size_t)r->experts * sizeof *p);
}

static void swap_last(const routers *r, const float *p, const int *own, int *ids) {
    int last = own[r->k - 1], next = own[r->k];
    if (apart(p, last, next) >= r->provoke || has(ids, r->k, next)) return;
    for (int i = 0; i < r->k; i++)
        if (ids[i] == last) ids[i] = next;
}

/* The best of the experts that the card left out, the worst of those that it took instead. */
static void count_other(routers *r, const float *p, const int *own, const int *ids,
                        router_other at) {
    at.lost = at.gained = -1;
    for (int i = 0; i < r->k; i++) {
        if (!has(ids, r->k, own[i]) && (at.lost < 0 || p[own[i]] > p[at.lost])) at.lost = own[i];
        if (!has(own, r->k, ids[i]) && (at.gained < 0 || p[ids[i]] < p[at.gained]))
            at.gained = ids[i];
    }
    if (at.lost < 0) return;
    at.gap = apart(p, at.lost, at.gained);
    router_report *to = &r->report;
    if (to->others++ == 0) to->first = to->widest = at;
    if (at.position < to->first.position) to->first = at;
    if (!(at.gap <= to->widest.gap)) to->widest = at;
}

static bool on_card(void *ctx, int layer, int row, int *ids, int k) {
    routers *r = ctx;
    const float *p = row_of(r, &r->card, layer, row);
    int own[K_MAX];
    if (!p) return false;
    best(p, r->experts, k + 1, own);
    if (r->provoke > 0) swap_last(r, p, own, ids);
    if (!r->forced) return true;
    count_other(r, p, own, ids, (router_other){.position = r->card.base + row, .layer = layer});
    memcpy(ids, own, (size_t)k * sizeof *ids);
    return true;
}

/* What the card's router thinks of the experts that it was given. */
static void on_weights(void *ctx, int layer, int row, const int *ids, const float *w, int k) {
    routers *r = ctx;
    place here = {.base = r->card.base};
    const float *p = row_of(r, &here, layer, row);
    for (int i = 1; p && i < k; i++) {
        double off = fabs(apart(w, i, 0) - apart(p, ids[i], ids[0]));
        r->report.off_max = fmax(r->report.off_max, off);
        r->report.off_sum += off;
        r->report.n_off++;
    }
}

fm_error routers_open(fm_engine *exact, int positions, double provoke, routers **out) {
    routers *r = calloc(1, sizeof *r);
    *out = r;
    if (!r) return (fm_error){FM_ERR_NOMEM, "no memory"};
    const expert_map *map = &exact->weights.experts;
    *r = (routers){.exact = exact,
                   .positions = positions,
                   .layers = map->n_layers,
                   .experts = map->n_experts,
                   .k = exact->experts_per_token,
                   .provoke = provoke};
    if (r->layers < 1 || r->k >= r->experts || r->k >= K_MAX)
        return (fm_error){FM_ERR_ARG, "a soak needs routers that have a choice"};
    r->p = calloc((size_t)positions * (size_t)r->layers * (size_t)r->experts, sizeof *r->p);
    if (!r->p) return (fm_error){FM_ERR_NOMEM, "no memory"};
    fm_routing_hook_set(exact, on_exact, r);
    return (fm_error){FM_OK, ""};
}

void routers_close(routers *r) {
    if (!r) return;
    fm_routing_hook_set(r->exact, NULL, NULL);
    free(r->p);
    free(r);
}

void routers_begin_exact(routers *r) { r->ours = (place){0}; }
void routers_begin_card(routers *r) { r->card = (place){0}; }

fm_error routers_free(routers *r, fm_engine *card) {
    r->forced = false;
    fm_routing_hook_set(card, NULL, NULL);
    return fm_routing_force_set(card, r->provoke > 0 ? on_card : NULL, r);
}

fm_error routers_force(routers *r, fm_engine *card) {
    r->forced = true;
    r->report = (router_report){0};
    fm_routing_hook_set(card, on_weights, r);
    return fm_routing_force_set(card, on_card, r);
}

const router_report *routers_report(const routers *r) { return &r->report; }
