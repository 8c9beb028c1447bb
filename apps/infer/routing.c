/* routing.c: see routing.h. */
#include "routing.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/args.h"

#define TOP_SHOWN 8

struct routing {
    const char *program;
    const char *path;
    fm_engine *engine;
    FILE *file; /* NULL: counting only */
    int layers, experts, k, sparse, rows;
    uint64_t *count; /* [layers, experts] */
    int *chunk;      /* [rows, sparse, k]: ids of the chunk being reported */
    int in_chunk;    /* rows of it so far */
    int last_layer;  /* of the report before this one */
    int slot;        /* which sparse layer that was */
    uint64_t token;
};

/* Rows come as 0 .. n - 1 for one layer after the other. */
static void write_chunk(routing *r) {
    size_t width = (size_t)r->sparse * (size_t)r->k;
    for (int row = 0; row < r->in_chunk; row++) {
        fprintf(r->file, "{\"tok\":%llu,\"layers\":[", (unsigned long long)r->token++);
        for (int l = 0; l < r->sparse; l++) {
            const int *ids = r->chunk + (size_t)row * width + (size_t)l * (size_t)r->k;
            fputs(l ? ",[" : "[", r->file);
            for (int i = 0; i < r->k; i++) fprintf(r->file, i ? ",%d" : "%d", ids[i]);
            fputc(']', r->file);
        }
        fputs("]}\n", r->file);
    }
    r->in_chunk = 0;
}

static void on_routing(void *ctx, int layer, int row, const int *ids, const float *weights, int k) {
    routing *r = ctx;
    (void)weights;
    for (int i = 0; i < k; i++) r->count[(size_t)layer * (size_t)r->experts + (size_t)ids[i]]++;
    if (!r->file || row >= r->rows || k != r->k) return;
    if (layer < r->last_layer) { /* a new chunk has begun */
        write_chunk(r);
        r->slot = 0;
    } else if (layer > r->last_layer) {
        r->slot += r->last_layer >= 0;
    } else if (row == 0 && r->slot + 1 == r->sparse && r->in_chunk) {
        write_chunk(r); /* a model with a single sparse layer */
        r->slot = 0;
    }
    r->last_layer = layer;
    if (row >= r->in_chunk) r->in_chunk = row + 1;
    size_t width = (size_t)r->sparse * (size_t)r->k;
    memcpy(r->chunk + (size_t)row * width + (size_t)r->slot * (size_t)k, ids,
           sizeof(int) * (size_t)k);
}

static bool allocate(routing *r) {
    r->count = calloc((size_t)r->layers * (size_t)r->experts, sizeof *r->count);
    size_t chunk = (size_t)r->rows * (size_t)r->sparse * (size_t)r->k;
    if (r->file) r->chunk = calloc(chunk, sizeof *r->chunk);
    return r->count && (!r->file || r->chunk);
}

routing *routing_open(const char *program, fm_engine *e, const char *path) {
    fm_model m;
    fm_plan p;
    fm_model_get(e, &m);
    fm_engine_plan(e, &p);
    if (p.sparse_layers == 0) {
        fprintf(stderr, "%s: this model has no experts: nothing is routed\n", program);
        return NULL;
    }
    routing *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (routing){.program = program,
                   .path = path,
                   .engine = e,
                   .layers = m.layers,
                   .experts = m.experts,
                   .k = m.experts_per_token,
                   .sparse = p.sparse_layers,
                   .rows = fm_rows_max(e),
                   .last_layer = -1};
    if (path) {
        r->file = fopen(path, "w");
        if (!r->file) {
            fprintf(stderr, "%s: %s: %s\n", program, path, strerror(errno));
            free(r);
            return NULL;
        }
    }
    if (!allocate(r)) {
        fprintf(stderr, "%s: no memory to record the routing\n", program);
        routing_close(r);
        return NULL;
    }
    fm_routing_hook_set(e, on_routing, r);
    return r;
}

/* ---- counts ------------------------------------------------------------- */

/* exp of the entropy: how many experts would be in use if all used ones were used equally. */
static double effective(const uint64_t *count, int n, uint64_t total) {
    double entropy = 0;
    for (int i = 0; i < n; i++) {
        double p = (double)count[i] / (double)total;
        if (p > 0) entropy -= p * log(p);
    }
    return exp(entropy);
}

static int busiest(const uint64_t *count, int n, const int *taken, int n_taken) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        bool skip = false;
        for (int t = 0; t < n_taken; t++) skip |= taken[t] == i;
        if (!skip && (best < 0 || count[i] > count[best])) best = i;
    }
    return best;
}

void routing_print(const routing *r) {
    fprintf(stderr, "\nlayer   picks  unused  effective  busiest experts (share of picks)\n");
    for (int l = 0; l < r->layers; l++) {
        const uint64_t *c = r->count + (size_t)l * (size_t)r->experts;
        uint64_t total = 0;
        int unused = 0, top[TOP_SHOWN];
        for (int i = 0; i < r->experts; i++) {
            total += c[i];
            unused += c[i] == 0;
        }
        if (!total) continue;
        fprintf(stderr, "%5d %7llu %7d %10.1f ", l, (unsigned long long)total, unused,
                effective(c, r->experts, total));
        for (int t = 0; t < TOP_SHOWN && t < r->experts; t++) {
            top[t] = busiest(c, r->experts, top, t);
            fprintf(stderr, " %d:%.1f%%", top[t], 100 * (double)c[top[t]] / (double)total);
        }
        fputc('\n', stderr);
    }
}

int routing_close(routing *r) {
    if (!r) return 0;
    fm_routing_hook_set(r->engine, NULL, NULL);
    int code = 0;
    if (r->file) {
        if (r->chunk) write_chunk(r);
        bool broken = ferror(r->file);
        if (fclose(r->file) != 0 || broken) {
            fprintf(stderr, "%s: %s could not be written completely: %s\n", r->program, r->path,
                    strerror(errno));
            code = EXIT_FAILED;
        }
    }
    free(r->count);
    free(r->chunk);
    free(r);
    return code;
}
