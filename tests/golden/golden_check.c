/* golden_check.c: does the engine compute what the reference implementation computes?
 *
 *     golden-check DIR [--golden FILE] [--memory SIZE] [--threads N] [--cpu NAME | --gpu NAME]
 *     golden-check DIR --heldout FILE --expect P      perplexity instead of logits
 *     golden-check DIR --heldout FILE --agree P --kv q8
 *                        likeliest tokens and KL divergence against the exact path
 *
 * Opens the checkpoint in DIR on the exact path (float32 activations, F32 attention cache) and runs
 * every prompt p0, p1 ... of the golden file (default DIR/golden.safetensors;
 * tests/golden/README.md describes both of its forms) three times:
 *
 *   stepped  token by token from an empty session, logits compared at each position recorded
 *   chunked  by fm_session_sync in two pieces, logits compared after each
 *   greedy   on from there; each step's choice is compared with the recorded one, and the recorded
 *            one is fed, so one tie does not spoil the steps after it
 *
 * A checkpoint in BF16 may have been cast to BF16 as a whole before the reference ran, which rounds
 * its rotary frequencies too (published models are trained without). When the results do not fit
 * otherwise, the same is done here, and said.
 *
 * Fails (exit code 1) when a logit is off by more than 2e-3, or a greedy choice differs although
 * the reference preferred its own by more than 4e-3. The last line is a hash of every logit that
 * was computed, in order: two runs with the same hash had the same bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../../apps/common/args.h"
#include "flashmoe.h"
#include "format/safetensors.h"

#define PROGRAM       "golden-check"
#define LOGIT_ERROR   2e-3
#define TIE_MARGIN    4e-3
#define HELDOUT_ERROR 0.005 /* relative */
#define HELDOUT_ROWS  32

typedef struct options {
    const char *golden, *cpu, *gpu, *overlap, *heldout, *kv;
    size_t memory, vram;
    int threads, io_threads, experts, rows, prompts;
    bool fast, assistant;
    float expect, agree;
} options;

static const arg_def defs[] = {
    {"--golden", "FILE", "recorded results (default: DIR/golden.safetensors)", ARG_TEXT,
     offsetof(options, golden), 0, 0},
    {"--memory", "SIZE", "memory ceiling", ARG_SIZE, offsetof(options, memory), 1, 0},
    {"--threads", "N", "threads", ARG_INT, offsetof(options, threads), 1, 256},
    {"--io-threads", "N", "reading threads", ARG_INT, offsetof(options, io_threads), 1, 64},
    {"--cpu", "NAME", "scalar, avx2, avx512, neon", ARG_TEXT, offsetof(options, cpu), 0, 0},
    {"--gpu", "NAME", "cuda, metal, host (default: off)", ARG_TEXT, offsetof(options, gpu), 0, 0},
    {"--overlap", "WAY", "Apple GPU: auto, on, off", ARG_TEXT, offsetof(options, overlap), 0, 0},
    {"--vram", "SIZE", "memory ceiling of the GPU", ARG_SIZE, offsetof(options, vram), 1, 0},
    {"--fast", NULL, "the fast path instead of the exact one (with --heldout)", ARG_FLAG,
     offsetof(options, fast), 0, 0},
    {"--heldout", "FILE", "measure the perplexity of this file", ARG_TEXT,
     offsetof(options, heldout), 0, 0},
    {"--kv", "TYPE", "f16 or q8 for the attention cache (with --heldout)", ARG_TEXT,
     offsetof(options, kv), 0, 0},
    {"--expect", "P", "the perplexity that it must have, within 0.5 %", ARG_FLOAT,
     offsetof(options, expect), 1, 1e9},
    {"--assistant", NULL, "count only what the assistant says", ARG_FLAG,
     offsetof(options, assistant), 0, 0},
    {"--agree", "P", "least percent of same likeliest tokens as the exact path", ARG_FLOAT,
     offsetof(options, agree), 0, 100},
    {"--prompts", "N", "only the first N recorded prompts", ARG_INT, offsetof(options, prompts), 1,
     1000},
    {"--rows", "N", "only the first N rows of the held-out file", ARG_INT, offsetof(options, rows),
     1, HELDOUT_ROWS},
};

typedef struct check {
    fm_engine *engine;
    int prompts; /* 0: all */
    fm_session *session;
    st_set *golden;
    XXH3_state_t *hash;
    int vocab;
    bool failed;
} check;

/* ---- reading the recorded results --------------------------------------- */

static _Noreturn void stop(const char *text) {
    fprintf(stderr, "%s: %s\n", PROGRAM, text);
    exit(EXIT_FAILED);
}

static void must(fm_error e) {
    if (e.code) stop(e.text);
}

/* The whole tensor p{i}.NAME, which the caller frees; NULL when there is none. */
static void *read_tensor(const st_set *set, const char *name, st_dtype dtype,
                         const st_tensor **out) {
    const st_tensor *t = st_find(set, name);
    *out = t;
    if (!t) return NULL;
    if (t->dtype != dtype) stop("the golden file has a tensor of an unexpected type");
    void *data = malloc((size_t)t->bytes + 1);
    if (!data) stop("no memory");
    err e = st_read(set, t, data);
    if (e.code) stop(e.text);
    return data;
}

static void *read_prompt(const check *c, int i, const char *name, st_dtype dtype,
                         const st_tensor **t) {
    char full[64];
    snprintf(full, sizeof full, "p%d.%s", i, name);
    return read_tensor(c->golden, full, dtype, t);
}

/* ---- comparing ---------------------------------------------------------- */

static int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

typedef struct tally {
    double error; /* largest |difference| */
    int rows, agree;
} tally;

static void compare(check *c, const float *want, tally *t) {
    const float *have = fm_session_logits(c->session);
    XXH3_128bits_update(c->hash, have, sizeof(float) * (size_t)c->vocab);
    if (!want) return;
    for (int i = 0; i < c->vocab; i++) {
        double d = fabs((double)have[i] - (double)want[i]);
        if (isnan(d)) d = INFINITY;
        if (d > t->error) t->error = d;
    }
    t->rows++;
    t->agree += argmax(have, c->vocab) == argmax(want, c->vocab);
}

typedef struct prompt {
    int32_t *ids, *greedy;
    float *logits, *margins;
    int length, n_greedy;
    bool every_row; /* logits [length, vocab], else [vocab] after the last token */
} prompt;

static bool prompt_read(const check *c, int i, prompt *p) {
    const st_tensor *t;
    *p = (prompt){0};
    p->ids = read_prompt(c, i, "input_ids", ST_I32, &t);
    if (!p->ids) return false;
    p->length = (int)(t->bytes / 4);
    p->logits = read_prompt(c, i, "logits", ST_F32, &t);
    if (!p->logits) stop("a prompt without logits");
    int64_t rows = t->bytes / 4 / c->vocab;
    p->every_row = rows == p->length;
    if (rows * c->vocab * 4 != t->bytes || (rows != 1 && rows != p->length))
        stop("the recorded logits do not fit this model's vocabulary");
    p->greedy = read_prompt(c, i, "greedy_ids", ST_I32, &t);
    p->n_greedy = p->greedy ? (int)(t->bytes / 4) : 0;
    p->margins = read_prompt(c, i, "greedy_margin", ST_F32, &t);
    if (!p->margins) p->margins = read_prompt(c, i, "margins", ST_F32, &t);
    if (p->n_greedy && (!p->margins || t->bytes / 4 != p->n_greedy))
        stop("greedy tokens without their margins");
    return true;
}

static void prompt_free(prompt *p) {
    free(p->ids);
    free(p->greedy);
    free(p->logits);
    free(p->margins);
}

static const float *row_of(const check *c, const prompt *p, int row) {
    if (p->every_row) return p->logits + (size_t)row * (size_t)c->vocab;
    return row == p->length - 1 ? p->logits : NULL;
}

/* Prints a line; whether the prompt passed. */
static bool check_prompt(check *c, int i, const prompt *p, FILE *out) {
    tally stepped = {0}, chunked = {0};
    fm_session_clear(c->session);
    for (int row = 0; row < p->length; row++) {
        must(fm_session_step(c->session, p->ids[row]));
        compare(c, row_of(c, p, row), &stepped);
    }
    fm_session_clear(c->session);
    const int cuts[] = {p->length * 3 / 5, p->length};
    for (int k = 0; k < 2; k++) {
        if (cuts[k] == 0) continue;
        must(fm_session_sync(c->session, p->ids, (size_t)cuts[k], NULL, NULL));
        compare(c, row_of(c, p, cuts[k] - 1), &chunked);
    }
    int equal = 0, ties = 0;
    for (int k = 0; k < p->n_greedy; k++) {
        bool same = argmax(fm_session_logits(c->session), c->vocab) == p->greedy[k];
        equal += same;
        ties += !same && (double)p->margins[k] <= TIE_MARGIN;
        must(fm_session_step(c->session, p->greedy[k]));
        compare(c, NULL, &chunked);
    }
    bool good =
        stepped.error <= LOGIT_ERROR && chunked.error <= LOGIT_ERROR && equal + ties == p->n_greedy;
    fprintf(out,
            "%s p%d: %d tokens, max |logit error| %.2e stepped, %.2e chunked, argmax %d/%d, "
            "greedy %d/%d%s\n",
            good ? "ok  " : "BAD ", i, p->length, stepped.error, chunked.error,
            stepped.agree + chunked.agree, stepped.rows + chunked.rows, equal, p->n_greedy,
            ties ? " (the others are ties)" : "");
    return good;
}

/* All prompts; what is to be printed goes to `out`. Returns how many are out of bounds. */
static int check_prompts(check *c, FILE *out) {
    must(fm_session_open(c->engine, &c->session));
    XXH3_128bits_reset(c->hash);
    int n = 0, bad = 0;
    for (prompt p; (!c->prompts || n < c->prompts) && prompt_read(c, n, &p); n++) {
        bad += !check_prompt(c, n, &p, out);
        prompt_free(&p);
    }
    fm_session_close(c->session);
    if (n == 0) stop("the golden file has no prompts");
    XXH128_hash_t h = XXH3_128bits_digest(c->hash);
    fprintf(out, "%d of %d prompts within the bounds\n", n - bad, n);
    fprintf(out, "bits %016llx%016llx\n", (unsigned long long)h.high64,
            (unsigned long long)h.low64);
    return bad;
}

/* The same with rotary frequencies in BF16: *bad and *text are replaced when that fits. */
static void try_bf16(check *c, const fm_options *o, int *bad, char **text) {
    fm_options cast = *o;
    cast.rope_bf16 = true;
    fm_engine_close(c->engine);
    must(fm_engine_open(&cast, &c->engine));
    char *other = NULL;
    size_t length;
    FILE *out = open_memstream(&other, &length);
    if (!out) stop("no memory");
    fprintf(out, "rotary frequencies in BF16, as in the reference's run\n");
    int still_bad = check_prompts(c, out);
    fclose(out);
    if (still_bad) {
        free(other);
        return;
    }
    free(*text);
    *text = other;
    *bad = 0;
}

static int check_golden(check *c, const fm_options *o, const char *path) {
    err e = st_open_file(path, &c->golden);
    if (e.code) stop(e.text);
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out) stop("no memory");
    int bad = check_prompts(c, out);
    fclose(out);
    if (bad) try_bf16(c, o, &bad, &text);
    fputs(text, stdout);
    free(text);
    st_close(c->golden);
    return bad ? EXIT_FAILED : 0;
}

/* ---- perplexity --------------------------------------------------------- */

static double log_sum(const float *logits, int n) {
    double top = (double)logits[argmax(logits, n)], sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return top + log(sum);
}

static double log_probability(const float *logits, int n, int32_t id) {
    return (double)logits[id] - log_sum(logits, n);
}

typedef struct heldout {
    int32_t *ids;       /* [rows, length] */
    uint8_t *assistant; /* [rows, length - 1] */
    int rows, length;
} heldout;

static heldout heldout_read(const options *o) {
    st_set *set;
    err e = st_open_file(o->heldout, &set);
    if (e.code) stop(e.text);
    const st_tensor *t, *u;
    heldout h = {0};
    h.ids = read_tensor(set, "input_ids", ST_I32, &t);
    h.assistant = read_tensor(set, "assistant", ST_U8, &u);
    if (!h.ids || !h.assistant || t->n_dims != 2 || u->n_dims != 2 || t->shape[0] > HELDOUT_ROWS ||
        u->shape[0] != t->shape[0] || u->shape[1] != t->shape[1] - 1)
        stop("the held-out file is not as tests/golden/README.md says");
    h.rows = (int)t->shape[0];
    h.length = (int)t->shape[1];
    if (o->rows && o->rows < h.rows) h.rows = o->rows;
    st_close(set);
    return h;
}

/* A session for every row. */
typedef struct reader {
    fm_engine *engine;
    fm_item items[HELDOUT_ROWS];
    int rows, batch;
} reader;

static void reader_open(reader *d, fm_engine *engine, const heldout *h) {
    d->engine = engine;
    d->rows = h->rows;
    d->batch = fm_rows_max(engine) < h->rows ? fm_rows_max(engine) : h->rows;
    for (int r = 0; r < h->rows; r++) must(fm_session_open(engine, &d->items[r].session));
}

/* All rows advance together, one token a step: one read of an expert serves all of them. */
static void reader_step(reader *d, const heldout *h, int at) {
    for (int r = 0; r < d->rows; r++) {
        d->items[r].tokens = h->ids + (size_t)r * (size_t)h->length + (size_t)at;
        d->items[r].count = 1;
    }
    for (int r = 0; r < d->rows; r += d->batch)
        must(fm_step(d->engine, d->items + r, d->rows - r < d->batch ? d->rows - r : d->batch));
}

/* KL divergence of q from p, both as logits of n tokens. */
static double divergence(const float *p, const float *q, int n) {
    double sum = 0, of_p = log_sum(p, n), of_q = log_sum(q, n);
    for (int i = 0; i < n; i++) {
        double log_p = (double)p[i] - of_p, log_q = (double)q[i] - of_q;
        sum += exp(log_p) * (log_p - log_q);
    }
    return sum;
}

/* The fast path beside the exact one, token by token; the divergence of every 64th token. */
static int check_agreement(check *c, const options *o, const fm_options *exact) {
    heldout h = heldout_read(o);
    fm_engine *engine;
    static reader fast, full;
    must(fm_engine_open(exact, &engine));
    reader_open(&fast, c->engine, &h);
    reader_open(&full, engine, &h);
    long same = 0, counted = 0, measured = 0;
    double kl = 0;
    for (int at = 0; at + 1 < h.length; at++) {
        reader_step(&fast, &h, at);
        reader_step(&full, &h, at);
        for (int r = 0; r < h.rows; r++) {
            const float *a = fm_session_logits(fast.items[r].session);
            const float *b = fm_session_logits(full.items[r].session);
            same += argmax(a, c->vocab) == argmax(b, c->vocab);
            counted++;
            if (at % 64) continue;
            kl += divergence(b, a, c->vocab);
            measured++;
        }
    }
    double percent = 100.0 * (double)same / (double)counted;
    bool good = percent >= (double)o->agree && kl / (double)measured < 0.01;
    printf("%s the same likeliest token %.2f %% of %ld times, mean KL %.6f over %ld tokens\n",
           good ? "ok  " : "BAD ", percent, counted, kl / (double)measured, measured);
    fm_engine_close(engine);
    free(h.ids);
    free(h.assistant);
    return good ? 0 : EXIT_FAILED;
}

static int check_heldout(check *c, const options *o) {
    heldout h = heldout_read(o);
    static reader d;
    reader_open(&d, c->engine, &h);
    const fm_item *items = d.items;
    double sum = 0;
    long counted = 0;
    for (int at = 0; at + 1 < h.length; at++) {
        reader_step(&d, &h, at);
        for (int r = 0; r < h.rows; r++) {
            if (o->assistant && !h.assistant[(size_t)r * (size_t)(h.length - 1) + (size_t)at])
                continue;
            sum -=
                log_probability(fm_session_logits(items[r].session), c->vocab, items[r].tokens[1]);
            counted++;
        }
    }
    double perplexity = exp(sum / (double)counted), off = 0;
    if (o->expect > 0) off = fabs(perplexity / (double)o->expect - 1);
    bool good = off <= HELDOUT_ERROR; /* false for NaN */
    printf("%s perplexity %.4f over %ld tokens", good ? "ok  " : "BAD ", perplexity, counted);
    if (o->expect > 0) printf(", recorded %.4f, difference %.3f %%", (double)o->expect, 100 * off);
    printf("\n");
    free(h.ids);
    free(h.assistant);
    return good ? 0 : EXIT_FAILED;
}

/* ---- main --------------------------------------------------------------- */

int main(int argc, char **argv) {
    options o = {0};
    arg_list rest;
    arg_table table = {PROGRAM, defs, sizeof defs / sizeof defs[0]};
    arg_result r = args_parse(&table, argc - 1, argv + 1, &o, &rest);
    if (r == ARGS_HELP) {
        printf("usage: golden-check DIR [options]\n\n");
        args_help(&table);
        return 0;
    }
    if (r == ARGS_WRONG) return EXIT_USAGE;
    if (rest.n != 1) return args_wrong(PROGRAM, "which model directory?");
    if ((o.fast || o.kv) && !o.heldout)
        return args_wrong(PROGRAM, "--fast and --kv go with --heldout");

    fm_options e;
    fm_options_init(&e);
    e.model_dir = rest.item[0];
    e.exact = !o.fast;
    e.kv = o.kv ? strcmp(o.kv, "q8") ? FM_KV_F16 : FM_KV_Q8 : FM_KV_DEFAULT;
    e.memory = o.memory;
    e.threads = o.threads;
    e.io_threads = o.io_threads;
    e.cpu = o.cpu;
    e.gpu = o.gpu ? o.gpu : "off";
    e.vram = o.vram;
    e.overlap = o.overlap;
    e.sessions = o.heldout ? HELDOUT_ROWS : 1;
    check c = {.hash = XXH3_createState(), .prompts = o.prompts};
    if (!c.hash) stop("no memory");
    must(fm_engine_open(&e, &c.engine));
    fm_model m;
    fm_model_get(c.engine, &m);
    c.vocab = m.vocab;
    printf("%s: %s, %d layers, %d experts, %d a token, %s, %d threads\n", rest.item[0],
           m.architecture, m.layers, m.experts, m.experts_per_token, m.gpu ? m.gpu : m.cpu,
           m.threads);
    char path[4096];
    snprintf(path, sizeof path, "%s/golden.safetensors", rest.item[0]);
    int code;
    if (o.heldout && o.agree > 0) {
        e.exact = true;
        e.kv = FM_KV_F32;
        code = check_agreement(&c, &o, &e);
    } else if (o.heldout) {
        code = check_heldout(&c, &o);
    } else {
        code = check_golden(&c, &e, o.golden ? o.golden : path);
    }
    bool on_card = m.gpu != NULL;
    fm_model_get(c.engine, &m);
    if (on_card && !m.gpu) { /* the rest was the processor's, which is not what was to be checked */
        printf("BAD  %s\n", m.gpu_note);
        code = EXIT_FAILED;
    }
    fm_engine_close(c.engine);
    XXH3_freeState(c.hash);
    return code;
}
