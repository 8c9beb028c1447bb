/* generate.c: see generate.h. */
#include "generate.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

const char *think_kwargs(const fm_chat *c, bool think) {
    if (!c || !fm_chat_knows(c, "enable_thinking")) return NULL;
    return think ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}";
}

/* ---- the loop ----------------------------------------------------------- */

typedef struct writer {
    generation *g;
    fm_utf8 utf8;
    fm_reply *reply; /* NULL: all is text */
    char *buffer;
    size_t capacity;
    fm_tokens script;
} writer;

static fm_error show(writer *w, const char *text, size_t length) {
    if (!length) return (fm_error){FM_OK, ""};
    if (w->reply) return fm_reply_push(w->reply, text, length);
    w->g->show(w->g->ctx, false, text, length);
    return (fm_error){FM_OK, ""};
}

static fm_error write_token(writer *w, int32_t id) {
    size_t length;
    const char *bytes = fm_token_bytes(w->g->engine, id, &length);
    if (!bytes) return (fm_error){FM_OK, ""};
    if (w->capacity < 3 * length + 9) {
        free(w->buffer);
        w->capacity = 3 * length + 256;
        w->buffer = malloc(w->capacity);
        if (!w->buffer) return (fm_error){FM_ERR_NOMEM, "no memory"};
    }
    return show(w, w->buffer, fm_utf8_push(&w->utf8, bytes, length, w->buffer));
}

#ifdef FM_TEST_BUILD

/* Tests decide what is said; the model computes all the same. */
static fm_error pick(const writer *w, int32_t *id) {
    const generation *g = w->g;
    fm_error e = fm_session_pick(g->session, g->sampler, NULL, id);
    if (e.code || !g->script) return e;
    while (g->hold && g->n == w->script.count / 2 && access(g->hold, F_OK) && !interrupted())
        usleep(10000);
    *id = g->n < w->script.count ? w->script.ids[g->n] : fm_token_find(g->engine, "<|im_end|>");
    return e;
}

static fm_error read_script(writer *w) {
    const char *text = w->g->script;
    return text ? fm_tokenize(w->g->engine, FM_MARKUP, text, strlen(text), &w->script)
                : (fm_error){FM_OK, ""};
}

#else

static fm_error pick(const writer *w, int32_t *id) {
    return fm_session_pick(w->g->session, w->g->sampler, NULL, id);
}

static fm_error read_script(writer *w) {
    (void)w;
    return (fm_error){FM_OK, ""};
}

#endif

static fm_error loop(generation *g, writer *w) {
    fm_model m;
    fm_model_get(g->engine, &m);
    double begin = seconds_now();
    for (g->finish = "length"; !g->limit || g->n < g->limit;) {
        int32_t id;
        fm_error e = pick(w, &id);
        if (e.code) return e;
        if (g->n++ == 0) g->seconds_first = seconds_now() - begin;
        g->pending = id;
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
        g->pending = -1;
    }
    return (fm_error){FM_OK, ""};
}

fm_error generate(generation *g) {
    writer w = {.g = g};
    g->n = 0;
    g->pending = -1;
    g->message = NULL;
    fm_error e = read_script(&w), ends;
    if (!e.code && g->chat)
        e = fm_reply_open(g->chat, g->tools, g->thinking, g->show, g->ctx, &w.reply);
    if (!e.code) e = loop(g, &w);
    if (e.code == FM_ERR_CANCELLED) {
        g->finish = "interrupted";
        e.code = FM_OK;
    }
    char rest[16];
    ends = show(&w, rest, fm_utf8_end(&w.utf8, rest));
    if (!ends.code && w.reply) ends = fm_reply_end(w.reply, &g->message);
    if (!e.code) e = ends;
    fm_reply_close(w.reply);
    free(w.buffer);
    fm_tokens_free(&w.script);
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

void report_line(const answer_report *r, int columns, char *out, size_t size) {
    fm_stats s;
    fm_stats_get(r->engine, &s);
    char parts[5][48];
    double seconds = s.seconds_prefill + s.seconds_decode;
    snprintf(parts[0], 48, "%zu tokens", r->g->n);
    snprintf(parts[1], 48, "%.1f tok/s", rate(s.tokens_decode, s.seconds_decode));
    snprintf(parts[2], 48, "first after %.2f s", r->seconds_to_first);
    snprintf(parts[3], 48, "experts %.0f%%", 100 * share(s.expert_hits, s.expert_requests));
    snprintf(parts[4], 48, "%.1f MB/s", rate(s.expert_read_bytes, seconds) / 1e6);
    out[0] = '\0';
    for (size_t i = 0, n = 0; i < 5; i++) {
        if (n + strlen(parts[i]) + 2 > (size_t)columns || n + 60 > size) break;
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", parts[i]);
    }
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
