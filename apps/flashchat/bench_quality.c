/* bench_quality.c: what an option costs: the same tokens through the exact path and through the
 * path of the options given (by default the fast one), compared at every position.
 *
 * Both engines are open at once with half of the memory each, so that not a single distribution
 * over the vocabulary has to be kept. Without --text the tokens are what the exact path writes
 * itself at temperature 1. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"

#define TEXT_BYTES_MAX ((size_t)16 << 20)
#define OWN_TOKENS     256
#define TOKENS_MAX     4096 /* compared */

typedef struct pair {
    fm_engine *exact, *fast;
    fm_session *exact_session, *fast_session;
    int vocab, n;
    fm_tokens tokens;
    double nll_exact, nll_fast;
    double *kl; /* [n] */
    int agree;
} pair;

static fm_error open_pair(const bench *b, pair *p) {
    fm_options o;
    char dir[MODEL_PATH_MAX];
    if (!model_options(b->program, &b->a->m, dir, &o)) return (fm_error){FM_ERR_ARG, "no model"};
    fm_plan plan;
    fm_error e = fm_plan_get(&o, &plan);
    o.memory = plan.memory_limit / 2;
    if (!o.context || o.context > TOKENS_MAX) o.context = plan.context;
    if (!e.code) e = fm_engine_open(&o, &p->fast);
    o.exact = true;
    o.kv = FM_KV_DEFAULT;
    o.experts_per_token = 0;
    if (!e.code) e = fm_engine_open(&o, &p->exact);
    if (!e.code) e = fm_session_open(p->fast, &p->fast_session);
    if (!e.code) e = fm_session_open(p->exact, &p->exact_session);
    fm_model m;
    if (e.code) return e;
    fm_model_get(p->exact, &m);
    p->vocab = m.vocab;
    p->n = m.context - 1 < TOKENS_MAX ? m.context - 1 : TOKENS_MAX;
    return e;
}

static fm_error read_text(const char *path, pair *p) {
    fm_error e = {FM_OK, ""};
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(TEXT_BYTES_MAX) : NULL;
    if (!text) {
        e.code = FM_ERR_NOT_FOUND;
        snprintf(e.text, sizeof e.text, "%s: %s", path, strerror(errno));
    } else {
        e = fm_tokenize(p->exact, FM_CONTENT, text, fread(text, 1, TEXT_BYTES_MAX, f), &p->tokens);
    }
    free(text);
    if (f) fclose(f);
    return e;
}

static fm_error write_text(pair *p) {
    fm_sampling s;
    fm_sampling_init(&s);
    s.temperature = 1;
    fm_sampler *sampler;
    fm_error e = fm_sampler_open(p->exact, &s, &sampler);
    if (e.code) return e;
    int32_t id = 1;
    e = fm_tokens_push(&p->tokens, id);
    for (int i = 0; i < OWN_TOKENS && i < p->n && !e.code; i++) {
        e = fm_session_step(p->exact_session, id);
        if (!e.code) e = fm_sampler_pick(sampler, fm_session_logits(p->exact_session), NULL, &id);
        if (!e.code) e = fm_tokens_push(&p->tokens, id);
    }
    fm_sampler_close(sampler);
    fm_session_clear(p->exact_session);
    return e;
}

static double log_sum(const float *x, int n, int *best) {
    double sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[*best]) *best = i;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[*best]);
    return (double)x[*best] + log(sum);
}

/* Position i: both have seen tokens[0 .. i]. */
static void compare(pair *p, int i) {
    const float *a = fm_session_logits(p->exact_session), *b = fm_session_logits(p->fast_session);
    int best_a, best_b;
    double za = log_sum(a, p->vocab, &best_a), zb = log_sum(b, p->vocab, &best_b), kl = 0;
    for (int c = 0; c < p->vocab; c++) {
        double la = (double)a[c] - za;
        if (la > -60) kl += exp(la) * (la - ((double)b[c] - zb));
    }
    p->kl[i] = kl;
    p->agree += best_a == best_b;
    p->nll_exact -= (double)a[p->tokens.ids[i + 1]] - za;
    p->nll_fast -= (double)b[p->tokens.ids[i + 1]] - zb;
}

static fm_error run_pair(const bench *b, pair *p) {
    fm_error e = b->a->text ? read_text(b->a->text, p) : write_text(p);
    if (e.code) return e;
    if (p->tokens.count < 3) return (fm_error){FM_ERR_ARG, "the text has fewer than three tokens"};
    if ((size_t)p->n > p->tokens.count - 1) p->n = (int)p->tokens.count - 1;
    p->kl = calloc((size_t)p->n, sizeof *p->kl);
    if (!p->kl) return (fm_error){FM_ERR_NOMEM, "no memory"};
    for (int i = 0; i < p->n && !e.code; i++) {
        e = fm_session_step(p->exact_session, p->tokens.ids[i]);
        if (!e.code) e = fm_session_step(p->fast_session, p->tokens.ids[i]);
        if (!e.code) compare(p, i);
    }
    return e;
}

static void add(bench *b, const char *what, double value, const char *unit) {
    bench_row row = {.value = value, .unit = unit};
    snprintf(row.what, sizeof row.what, "%s", what);
    bench_add(b, &row);
}

static void report(bench *b, pair *p) {
    char what[80];
    double total = 0;
    for (int i = 0; i < p->n; i++) total += p->kl[i];
    bench_median(p->kl, p->n); /* sorts */
    fm_model m;
    fm_model_get(p->fast, &m);
    snprintf(what, sizeof what, "perplexity, exact, over %d tokens", p->n);
    add(b, what, exp(p->nll_exact / p->n), "");
    snprintf(what, sizeof what, "perplexity, %s, k=%d%s%s%s", m.cpu, m.experts_per_token,
             b->a->m.exact ? ", exact" : "", b->a->m.kv ? ", kv " : "",
             b->a->m.kv ? b->a->m.kv : "");
    add(b, what, exp(p->nll_fast / p->n), "");
    add(b, "mean KL divergence", total / p->n, "nats");
    add(b, "99th percentile of it", p->kl[(int)(0.99 * (p->n - 1))], "nats");
    add(b, "the same likeliest token", 100.0 * p->agree / p->n, "%");
}

int bench_quality(bench *b) {
    pair p = {0};
    fm_error e = open_pair(b, &p);
    if (!e.code) e = run_pair(b, &p);
    if (!e.code) report(b, &p);
    free(p.kl);
    fm_tokens_free(&p.tokens);
    fm_engine_close(p.exact);
    fm_engine_close(p.fast);
    return e.code ? fail(b->program, &e) : 0;
}
