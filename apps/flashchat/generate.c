/* generate.c: see generate.h. */
#include "generate.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/model.h"

fm_error sampling_open(const fm_engine *e, const sampling_args *a, fm_sampler **out) {
    fm_sampling p;
    fm_sampling_init(&p);
    p.temperature = a->temperature;
    p.top_k = a->top_k;
    p.top_p = a->top_p;
    p.min_p = a->min_p;
    p.repetition_penalty = a->repetition;
    p.presence_penalty = a->presence;
    p.frequency_penalty = a->frequency;
    p.seed = a->seed;
    return fm_sampler_open(e, &p, out);
}

/* ---- the loop ----------------------------------------------------------- */

typedef struct writer {
    generation *g;
    fm_utf8 utf8;
    int32_t think_begin, think_end;
    bool blank; /* nothing but white space since the thought ended, or since the beginning */
    char *buffer;
    size_t capacity;
} writer;

static void show(writer *w, const char *text, size_t length) {
    while (w->blank && length && isspace((unsigned char)text[0])) text++, length--;
    if (!length) return;
    w->blank = false;
    w->g->show(w->g->ctx, w->g->thinking, text, length);
}

static fm_error write_token(writer *w, int32_t id) {
    if (id == w->think_end || id == w->think_begin) {
        char rest[16];
        show(w, rest, fm_utf8_end(&w->utf8, rest));
        w->g->thinking = id == w->think_begin;
        w->blank = true;
        return (fm_error){FM_OK, ""};
    }
    size_t length;
    const char *bytes = fm_token_bytes(w->g->engine, id, &length);
    if (!bytes) return (fm_error){FM_OK, ""};
    if (w->capacity < 3 * length + 9) {
        free(w->buffer);
        w->capacity = 3 * length + 256;
        w->buffer = malloc(w->capacity);
        if (!w->buffer) return (fm_error){FM_ERR_NOMEM, "no memory"};
    }
    show(w, w->buffer, fm_utf8_push(&w->utf8, bytes, length, w->buffer));
    return (fm_error){FM_OK, ""};
}

static fm_error loop(generation *g, writer *w) {
    fm_model m;
    fm_model_get(g->engine, &m);
    double begin = seconds_now();
    for (g->finish = "length"; !g->limit || g->n < g->limit;) {
        int32_t id;
        fm_error e = fm_sampler_pick(g->sampler, fm_session_logits(g->session), NULL, &id);
        if (e.code) return e;
        if (g->n++ == 0) g->seconds_first = seconds_now() - begin;
        if (fm_is_stop(g->engine, id)) {
            g->finish = "stop";
            break;
        }
        e = write_token(w, id);
        if (e.code) return e;
        if (fm_session_length(g->session) >= (size_t)m.context) {
            g->finish = "context";
            break;
        }
        if (g->limit && g->n == g->limit) break;
        e = interrupted() ? (fm_error){FM_ERR_CANCELLED, ""} : fm_session_step(g->session, id);
        if (e.code) return e;
    }
    return (fm_error){FM_OK, ""};
}

fm_error generate(generation *g) {
    writer w = {.g = g,
                .blank = true,
                .think_begin = fm_token_find(g->engine, "<think>"),
                .think_end = fm_token_find(g->engine, "</think>")};
    if (w.think_begin < 0) w.think_begin = -2; /* no token has this id */
    if (w.think_end < 0) w.think_end = -2;
    g->n = 0;
    fm_error e = loop(g, &w);
    char rest[16];
    show(&w, rest, fm_utf8_end(&w.utf8, rest));
    free(w.buffer);
    if (e.code == FM_ERR_CANCELLED) {
        g->finish = "interrupted";
        e.code = FM_OK;
    }
    return e;
}

/* ---- what is said about it ---------------------------------------------- */

static double rate(uint64_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

static double share(uint64_t part, uint64_t whole) {
    return whole ? (double)part / (double)whole : 1;
}

void report_print(const answer_report *r) {
    fm_stats s;
    fm_stats_get(r->engine, &s);
    char read[16], peak[16];
    fprintf(stderr, "[%zu prompt tokens", r->prompt_tokens);
    if (r->reused) fprintf(stderr, " (%zu known already)", r->reused);
    fprintf(stderr, ", first token after %.2f s; %zu tokens", r->seconds_to_first, r->g->n);
    if (strcmp(r->g->finish, "stop")) {
        const char *why = !strcmp(r->g->finish, "length")    ? "the limit of --tokens"
                          : !strcmp(r->g->finish, "context") ? "the context window is full"
                                                             : "interrupted";
        fprintf(stderr, ", %s", why);
    }
    fprintf(stderr, "; prefill %.1f tok/s, decode %.1f tok/s]\n",
            rate(s.tokens_prefill, s.seconds_prefill), rate(s.tokens_decode, s.seconds_decode));
    fprintf(stderr, "[experts: %.1f %% found in memory, %s read from disk; peak memory %s]\n",
            100 * share(s.expert_hits, s.expert_requests),
            size_text((double)s.expert_read_bytes, read), size_text((double)s.memory_peak, peak));
}

void report_timing(const fm_engine *e) {
    fm_model m;
    fm_model_get(e, &m);
    fm_layer_timing *t = calloc((size_t)m.layers, sizeof *t), sum = {0};
    int n = t ? fm_timing_get(e, t, m.layers) : 0;
    for (int i = 0; i < n; i++) {
        sum.attention += t[i].attention;
        sum.delta += t[i].delta;
        sum.router += t[i].router;
        sum.read_wait += t[i].read_wait;
        sum.experts += t[i].experts;
        sum.other += t[i].other;
    }
    free(t);
    fprintf(stderr,
            "[seconds: attention %.3f, DeltaNet %.3f, router %.3f, waiting for reads %.3f, experts "
            "%.3f, other %.3f]\n",
            sum.attention, sum.delta, sum.router, sum.read_wait, sum.experts, sum.other);
}

static void set_integer(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void set_real(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, json_real(value));
}

void report_json(const answer_report *r, json_t *o) {
    fm_stats s;
    fm_stats_get(r->engine, &s);
    json_object_set_new(o, "finish", json_string(r->g->finish));
    set_integer(o, "prompt_tokens", r->prompt_tokens);
    set_integer(o, "reused_tokens", r->reused);
    set_integer(o, "tokens", r->g->n);
    set_real(o, "seconds_to_first_token", r->seconds_to_first);
    set_real(o, "prefill_tokens_per_second", rate(s.tokens_prefill, s.seconds_prefill));
    set_real(o, "decode_tokens_per_second", rate(s.tokens_decode, s.seconds_decode));
    set_integer(o, "expert_requests", s.expert_requests);
    set_integer(o, "expert_hits", s.expert_hits);
    set_real(o, "expert_hit_rate", share(s.expert_hits, s.expert_requests));
    set_integer(o, "expert_read_bytes", s.expert_read_bytes);
    set_real(o, "seconds_read_wait", s.seconds_read_wait);
    set_integer(o, "peak_memory_bytes", s.memory_peak);
}
