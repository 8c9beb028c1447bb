/* check_sample.c: penalties and sampling against a twin that sorts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void penalty_case(lab *l, int vocab) {
    size_t F = sizeof(float);
    float *x = lab_floats(l, (size_t)vocab, -5, 5);
    int *counts = lab_host(l, (size_t)vocab * 4);
    for (int i = 0; i < vocab; i += 3) counts[i] = lab_int(l, 0, 4);
    args_penalty a = {.vocab = vocab, .repetition = 1.3f, .presence = 0.25f, .frequency = 0.5f};
    a.logits = lab_in(l, x, (size_t)vocab * F), a.counts = lab_in(l, counts, (size_t)vocab * 4);
    lab_run(l, GPU_penalty, &a);
    for (int i = 0; i < vocab; i++) {
        if (!counts[i]) continue;
        x[i] = x[i] > 0 ? x[i] / 1.3f : x[i] * 1.3f;
        x[i] = x[i] - 0.25f;
        x[i] = x[i] - 0.5f * (float)counts[i];
    }
    lab_same(l, lab_read(l, a.logits, (size_t)vocab * F), x, (size_t)vocab * F, "penalties");
    lab_end(l);
}

typedef struct candidate {
    float logit, weight;
    int id;
} candidate;

static int down(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id - y->id;
}

static int up(const void *a, const void *b) {
    return ((const candidate *)a)->id - ((const candidate *)b)->id;
}

/* The id, or -1 when the draw is too near a border for float32 to decide. */
static int twin(const float *logits, const args_sample *a, double unit) {
    candidate *c = malloc((size_t)a->vocab * sizeof *c);
    if (!c) must(err_make(ERR_NOMEM, "no memory"));
    for (int i = 0; i < a->vocab; i++) c[i] = (candidate){logits[i], 0, i};
    qsort(c, (size_t)a->vocab, sizeof *c, down);
    int n = a->top_k < a->vocab ? a->top_k : a->vocab, id = c[0].id;
    double total = 0, run = 0;
    bool near = false;
    if (a->temperature > 0) {
        for (int i = 0; i < n; i++) {
            c[i].weight = (float)exp((double)(c[i].logit - c[0].logit) / (double)a->temperature);
            total += (double)c[i].weight;
        }
        int kept = a->top_p < 1 ? 0 : n;
        for (; kept < n && (kept == 0 || run < (double)a->top_p * total); kept++) {
            run += (double)c[kept].weight;
            near |= fabs(run - (double)a->top_p * total) < 1e-5 * total;
        }
        for (; kept > 1 && c[kept - 1].weight < a->min_p; kept--) {
            near |= fabsf(c[kept - 1].weight - a->min_p) < 1e-5f;
        }
        qsort(c, (size_t)kept, sizeof *c, up);
        total = run = 0;
        for (int i = 0; i < kept; i++) total += (double)c[i].weight;
        id = -2;
        for (int i = 0; i < kept; i++) {
            run += (double)c[i].weight;
            near |= fabs(run - unit * total) < 1e-5 * total;
            if (id == -2 && unit * total < run) id = c[i].id;
        }
    }
    free(c);
    return near ? -1 : id;
}

static void sample_case(lab *l, int vocab, const args_sample *form, bool ties) {
    enum { N = 3 };
    size_t F = sizeof(float);
    float *x = lab_floats(l, (size_t)(N * vocab), -6, 6), *unit = lab_floats(l, N, 0, 1);
    for (int i = 0; ties && i < N * vocab; i++) x[i] = (float)(int)(x[i] / 2);
    args_sample a = *form;
    a.n = N, a.vocab = vocab;
    a.logits = lab_in(l, x, (size_t)(N * vocab) * F), a.unit = lab_in(l, unit, N * F);
    a.ids = lab_out(l, N * 4);
    lab_run(l, GPU_sample, &a);
    const int *got = (const int *)(void *)lab_read(l, a.ids, N * 4);
    for (int t = 0; t < N; t++) {
        int want = twin(x + t * vocab, &a, (double)unit[t]);
        char text[128];
        snprintf(text, sizeof text, "vocab %d top_k %d top_p %g min_p %g t %g%s: %d, not %d", vocab,
                 a.top_k, (double)a.top_p, (double)a.min_p, (double)a.temperature,
                 ties ? " ties" : "", got[t], want);
        if (want != -1) lab_true(l, got[t] == want, text);
    }
    lab_end(l);
}

static void nan_case(lab *l) {
    enum { V = 500 };
    float *x = lab_floats(l, 2 * V, -6, 6);
    x[V + 77] = NAN;
    x[3] = -INFINITY;
    args_sample a = {.n = 2, .vocab = V, .top_k = 1, .top_p = 1};
    a.logits = lab_in(l, x, 2 * V * sizeof(float));
    a.ids = lab_out(l, 8);
    lab_run(l, GPU_sample, &a);
    const int *got = (const int *)(void *)lab_read(l, a.ids, 8);
    lab_true(l, got[0] == twin(x, &a, 0), "a row with -infinity");
    lab_true(l, got[1] == -1, "a row with NaN gives -1");
    lab_end(l);
}

void check_sample(lab *l) {
    lab_begin(l);
    static const int sizes[] = {1, 255, 256, 257, 6144};
    for (int i = 0; i < 5; i++) penalty_case(l, sizes[i]);
    lab_end_group(l, "penalty");
    lab_begin(l);
    static const args_sample forms[] = {{.top_k = 1, .top_p = 1},
                                        {.top_k = 1, .top_p = 1, .temperature = 1},
                                        {.top_k = 20, .top_p = 0.95f, .temperature = 0.7f},
                                        {.top_k = 50, .top_p = 1, .min_p = 0.1f, .temperature = 1},
                                        {.top_k = 256, .top_p = 0.8f, .temperature = 3}};
    for (int i = 0; i < 5; i++) {
        for (int v = 0; v < 5; v++) {
            sample_case(l, sizes[v], &forms[i], false);
            sample_case(l, sizes[v], &forms[i], true);
        }
    }
    nan_case(l);
    lab_end_group(l, "sample: greedy, top-k, top-p, min-p, ties, NaN");
}
