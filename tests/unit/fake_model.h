/* fake_model.h: a model without weights for tests of the scheduler and the server: tokens are bytes
 * (and a few special ones), and what it says follows from the last message of the user:
 *
 *     say:TEXT      TEXT, markup included         long:N      N times "x"
 *     fail:N        its step fails after N tokens  otherwise   "You said: " and the message
 *
 * After a result of a tool it says "Result: " and that. Each next token depends on the whole
 * timeline that was fed, so a scheduler that mixes up sessions or loses a token is noticed. */
#ifndef TESTS_FAKE_MODEL_H
#define TESTS_FAKE_MODEL_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stdatomic.h>

#include "server/port.h"
#include "text/text_buf.h"

enum { FAKE_START = 256, FAKE_END, FAKE_THINK, FAKE_THOUGHT, FAKE_CALL, FAKE_CALLED, FAKE_VOCAB };

static const char *const fake_special[] = {"<|im_start|>", "<|im_end|>",  "<think>",
                                           "</think>",     "<tool_call>", "</tool_call>"};

typedef struct fake_model {
    atomic_int kept, kept_last;               /* calls of keep */
    int context, rows_max, sessions, step_us; /* step_us: how long one step takes */
    bool no_late_system; /* the template refuses system messages after the first */
    /* counted on the engine thread */
    int steps, rows, max_items, max_prefill;
    sched_model model;
    port port;
} fake_model;

typedef struct fake_session {
    int32_t *tokens;
    size_t n, capacity;
    float logits[FAKE_VOCAB];
} fake_session;

/* ---- text ---- */

static err fake_tokenize(void *ctx, fm_text_mode mode, const char *text, size_t length,
                         fm_tokens *out) {
    (void)ctx;
    for (size_t i = 0; i < length;) {
        int32_t id = (unsigned char)text[i];
        size_t n = 1;
        for (int k = 0; mode == FM_MARKUP && k < 6; k++) {
            size_t m = strlen(fake_special[k]);
            if (length - i >= m && memcmp(text + i, fake_special[k], m) == 0) id = 256 + k, n = m;
        }
        if (out->count == out->capacity) {
            size_t more = out->capacity ? 2 * out->capacity : 256;
            int32_t *ids = realloc(out->ids, more * sizeof *ids);
            if (!ids) return err_make(ERR_NOMEM, "no memory");
            out->ids = ids;
            out->capacity = more;
        }
        out->ids[out->count++] = id;
        i += n;
    }
    return err_none();
}

/* Every byte, in order: requests of several threads read it at once. */
#define FAKE_4(n)  (char)(n), (char)((n) + 1), (char)((n) + 2), (char)((n) + 3)
#define FAKE_16(n) FAKE_4(n), FAKE_4((n) + 4), FAKE_4((n) + 8), FAKE_4((n) + 12)
#define FAKE_64(n) FAKE_16(n), FAKE_16((n) + 16), FAKE_16((n) + 32), FAKE_16((n) + 48)
static const char fake_byte[256] = {FAKE_64(0), FAKE_64(64), FAKE_64(128), FAKE_64(192)};

static const char *fake_bytes(void *ctx, int32_t id, size_t *length) {
    (void)ctx;
    if (id < 0 || id >= FAKE_VOCAB) return NULL;
    if (id >= 256) {
        *length = strlen(fake_special[id - 256]);
        return fake_special[id - 256];
    }
    *length = 1;
    return &fake_byte[id];
}

/* Plain ChatML; calls of the assistant in the tagged form. */
static err fake_render(void *ctx, const request *r, port_prompt *out) {
    fake_model *f = ctx;
    text_buf t = {0};
    size_t i;
    json_t *m;
    if (r->tools) {
        char *tools = json_dumps(r->tools, JSON_COMPACT);
        TRY(text_buf_add_text(&t, "[tools]"));
        TRY(text_buf_add_text(&t, tools ? tools : ""));
        free(tools);
    }
    json_array_foreach(r->messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *content = json_string_value(json_object_get(m, "content"));
        if (f->no_late_system && i > 0 && strcmp(role, "system") == 0) {
            text_buf_free(&t);
            return err_make(ERR_ARG, "messages: a system message can only come first");
        }
        TRY(text_buf_add_text(&t, "<|im_start|>"));
        TRY(text_buf_add_text(&t, role));
        TRY(text_buf_add_text(&t, "\n"));
        TRY(text_buf_add_text(&t, content ? content : ""));
        char *calls = json_dumps(json_object_get(m, "tool_calls"), JSON_COMPACT);
        TRY(text_buf_add_text(&t, calls ? calls : ""));
        free(calls);
        TRY(text_buf_add_text(&t, "<|im_end|>\n"));
    }
    if (r->generation_prompt) TRY(text_buf_add_text(&t, "<|im_start|>assistant\n"));
    if (r->thinking == 1) TRY(text_buf_add_text(&t, "<think>\n"));
    out->reasoning = r->thinking == 1 ? TOOLCALL_THINK_INSIDE : TOOLCALL_THINK_OUTSIDE;
    out->text = t.data;
    return fake_tokenize(f, FM_MARKUP, t.data, t.length, &out->tokens);
}

/* ---- the model ---- */

static err fake_open(void *ctx, fm_session **out) {
    (void)ctx;
    *out = (fm_session *)calloc(1, sizeof(fake_session));
    return *out ? err_none() : err_make(ERR_NOMEM, "no memory");
}

static void fake_close(void *ctx, fm_session *s) {
    (void)ctx;
    free(((fake_session *)s)->tokens);
    free(s);
}

static err fake_match(void *ctx, fm_session *session, const int32_t *tokens, size_t count,
                      size_t *kept) {
    (void)ctx;
    fake_session *s = (fake_session *)session;
    size_t n = 0;
    while (n < s->n && n + 1 < count && s->tokens[n] == tokens[n]) n++;
    s->n = *kept = n;
    return err_none();
}

/* timeline[from .. to) as text. */
static char *fake_text(const fake_session *s, size_t from, size_t to) {
    text_buf t = {0};
    for (size_t i = from; i < to; i++) {
        char byte = (char)s->tokens[i];
        const char *special = s->tokens[i] < 256 ? NULL : fake_special[s->tokens[i] - 256];
        if ((special ? text_buf_add_text(&t, special) : text_buf_add(&t, &byte, 1)).code) abort();
    }
    return t.data ? t.data : strdup("");
}

/* Where the message that begins at or before `at` has its start token; n without. */
static size_t fake_start(const fake_session *s, size_t at) {
    for (size_t i = at; i-- > 0;)
        if (s->tokens[i] == FAKE_START) return i;
    return s->n;
}

/* What the whole answer is to be; new. */
static char *fake_answer(const fake_session *s, size_t start) {
    size_t before = fake_start(s, start);
    char *line = before < start ? fake_text(s, before + 1, start) : strdup("");
    char *newline = strchr(line, '\n');
    char *end = strstr(line, "<|im_end|>");
    if (end) *end = '\0';
    const char *said = newline ? newline + 1 : line;
    size_t many = strncmp(said, "long:", 5) ? 0 : strtoul(said + 5, NULL, 10);
    if (many > 1000000) many = 1000000;
    char *out = malloc(strlen(said) + many + 64);
    if (strncmp(line, "tool", 4) == 0) {
        sprintf(out, "Result: %s", said);
    } else if (strncmp(said, "say:", 4) == 0) {
        strcpy(out, said + 4);
    } else if (strncmp(said, "long:", 5) == 0) {
        memset(out, 'x', many);
        out[many] = '\0';
    } else {
        sprintf(out, "You said: %s", said);
    }
    free(line);
    return out;
}

static void fake_think(fake_session *s) {
    size_t start = fake_start(s, s->n), body = start + 1;
    while (body < s->n && s->tokens[body] != '\n') body++;
    body++;
    if (body < s->n && s->tokens[body] == FAKE_THINK) body += 2;
    fm_tokens answer = {0};
    char *text = fake_answer(s, start);
    (void)!fake_tokenize(NULL, FM_MARKUP, text, strlen(text), &answer).code;
    /* What was made so far may have been forced: the rest follows by position. */
    size_t at = s->n >= body ? s->n - body : 0;
    int32_t next = at < answer.count ? answer.ids[at] : FAKE_END;
    for (int i = 0; i < FAKE_VOCAB; i++) s->logits[i] = (float)((i * 7919) % 97) / 97.0f;
    s->logits[next] = 20;
    free(text);
    fm_tokens_free(&answer);
}

static err fake_step(void *ctx, const fm_item *items, int n) {
    fake_model *f = ctx;
    f->steps++;
    if (n > f->max_items) f->max_items = n;
    int rows = 0;
    for (int i = 0; i < n; i++) rows += items[i].count;
    if (rows > f->rows_max) return err_make(ERR_RANGE, "%d rows", rows);
    f->rows += rows;
    if (f->step_us) usleep((unsigned)f->step_us);
    for (int i = 0; i < n; i++) {
        fake_session *s = (fake_session *)items[i].session;
        if (items[i].count > f->max_prefill) f->max_prefill = items[i].count;
        if (s->n + (size_t)items[i].count > s->capacity) {
            s->capacity = 2 * (s->n + (size_t)items[i].count);
            s->tokens = realloc(s->tokens, s->capacity * sizeof *s->tokens);
        }
        memcpy(s->tokens + s->n, items[i].tokens, (size_t)items[i].count * sizeof *s->tokens);
        s->n += (size_t)items[i].count;
        char *all = fake_text(s, 0, s->n), *fail = strstr(all, "fail:");
        size_t start = fake_start(s, s->n);
        bool now = fail && s->n > start + 12 + strtoul(fail + 5, NULL, 10);
        free(all);
        if (now) {
            s->n -= (size_t)items[i].count;
            for (int k = 0; k < i; k++)
                ((fake_session *)items[k].session)->n -= (size_t)items[k].count;
            return err_make(ERR_IO, "layer 3 expert 7: short read");
        }
    }
    for (int i = 0; i < n; i++) fake_think((fake_session *)items[i].session);
    return err_none();
}

static const float *fake_logits(void *ctx, const fm_session *s) {
    (void)ctx;
    return ((const fake_session *)s)->logits;
}

static const int32_t *fake_timeline(void *ctx, const fm_session *s, size_t *length) {
    (void)ctx;
    *length = ((const fake_session *)s)->n;
    return ((const fake_session *)s)->tokens;
}

static bool fake_is_stop(void *ctx, int32_t id) {
    (void)ctx;
    return id == FAKE_END;
}

static err fake_sampler_open(void *ctx, const fm_sampling *p, void **out) {
    (void)ctx, (void)p;
    *out = calloc(1, 1);
    return err_none();
}

static void fake_sampler_close(void *s) { free(s); }

static err fake_pick(void *s, const float *logits, const uint64_t *allowed, int32_t *out) {
    (void)s;
    *out = -1;
    for (int i = 0; i < FAKE_VOCAB; i++)
        if ((!allowed || (allowed[i / 64] >> (i % 64) & 1)) &&
            (*out < 0 || logits[i] > logits[*out]))
            *out = i;
    return *out < 0 ? err_make(ERR_ARG, "nothing is allowed") : err_none();
}

static err fake_session_pick(fm_session *s, void *sampler, const uint64_t *allowed, int32_t *out) {
    return fake_pick(sampler, fake_logits(NULL, s), allowed, out);
}

static void fake_accept(void *s, int32_t id) { (void)s, (void)id; }

static void fake_keep(void *ctx, fm_session *s, bool last) {
    fake_model *f = ctx;
    (void)s;
    atomic_fetch_add(last ? &f->kept_last : &f->kept, 1);
}

static void fake_init(fake_model *f, int sessions, int context) {
    memset(f, 0, sizeof *f);
    f->context = context;
    f->sessions = sessions;
    f->rows_max = 128;
    f->model = (sched_model){f,
                             FAKE_VOCAB,
                             context,
                             f->rows_max,
                             sessions,
                             fake_open,
                             fake_close,
                             fake_match,
                             NULL,
                             fake_keep,
                             fake_step,
                             fake_logits,
                             fake_timeline,
                             fake_is_stop,
                             fake_sampler_open,
                             fake_sampler_close,
                             fake_pick,
                             fake_session_pick,
                             fake_accept,
                             NULL};
    f->port = (port){.ctx = f,
                     .id = "fake",
                     .engine = f->model,
                     .format = toolcall_format_find("qwen3-coder"),
                     .sampling = {.top_p = 1, .repetition_penalty = 1},
                     .trained_context = context,
                     .render = fake_render,
                     .tokenize = fake_tokenize,
                     .token_bytes = fake_bytes};
}

#endif
