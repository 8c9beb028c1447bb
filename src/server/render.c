/* render.c: see render.h.
 *
 * The template's output comes in pieces with a mark: the template's own text (markup) or the
 * conversation's (content). Added tokens are looked for in the whole text and count only where all
 * of their bytes are markup; the text between them is tokenised as ordinary text across the
 * borders of the pieces, as a tokenizer that sees the whole would.
 *
 * What is remembered of answers: the thought that led to a call, by the call's id. Clients of
 * OpenAI's API send calls back without it; the templates of thinking models show it while the calls
 * of one turn go on. */
#include "server/render.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "engine/engine_impl.h"
#include "text/template.h"
#include "text/tokenizer_impl.h"

#define MEMORY_SLOTS 1024
#define MEMORY_BYTES ((size_t)16 << 20)
#define BORDERS_KEPT 4

typedef struct thought {
    char *id, *text; /* owned */
    size_t bytes;
} thought;

struct render {
    fm_engine *engine; /* borrowed */
    jinja_template *plain,
        *tools;        /* tools: the template for requests with tools; may be the same */
    json_t *bos, *eos; /* owned strings */
    int32_t turn;      /* the token that opens a turn (marks); -1: none */
    pthread_mutex_t lock;
    thought memory[MEMORY_SLOTS]; /* under lock; a ring */
    int next;
    size_t memory_bytes;
};

/* ---- finding the template ---- */

static json_t *token_text(const json_t *config, const char *key) {
    json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? json_incref(v) : json_string("");
}

static err parse(const char *name, const json_t *text, jinja_template **out) {
    if (!json_is_string(text)) return err_make(ERR_CORRUPT, "%s: a template is no string", name);
    return template_parse(name, json_string_value(text), json_string_length(text), out);
}

/* "chat_template" of a config: one template, or a list of named ones. */
static err from_config(render *r, const char *name, const json_t *value) {
    if (!json_is_array(value)) return parse(name, value, &r->plain);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i), *text = json_object_get(item, "template");
        const char *which = json_string_value(json_object_get(item, "name"));
        if (which && !strcmp(which, "default") && !r->plain) TRY(parse(name, text, &r->plain));
        if (which && !strcmp(which, "tool_use") && !r->tools) TRY(parse(name, text, &r->tools));
    }
    return r->plain ? err_none() : err_make(ERR_NOT_FOUND, "%s: no default template", name);
}

static err find_template(render *r, const char *dir, const json_t *config) {
    char path[4096];
    char *source = NULL;
    size_t length;
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    err e = json_read_text(path, TEMPLATE_SOURCE_MAX, &source, &length);
    if (!e.code) e = template_parse("chat_template.jinja", source, length, &r->plain);
    free(source);
    if (e.code != ERR_NOT_FOUND) return e;
    const json_t *value = json_object_get(config, "chat_template");
    if (value) return from_config(r, "tokenizer_config.json: chat_template", value);
    json_t *other = NULL;
    snprintf(path, sizeof path, "%s/chat_template.json", dir);
    e = json_read_file(path, TEMPLATE_SOURCE_MAX, &other);
    if (!e.code) e = from_config(r, "chat_template.json", json_object_get(other, "chat_template"));
    json_decref(other);
    if (e.code == ERR_NOT_FOUND)
        return err_make(ERR_NOT_FOUND,
                        "%s: the model has no chat template, so it can only "
                        "complete text (/v1/completions)",
                        dir);
    return e;
}

err render_open(const char *dir, fm_engine *engine, render **out) {
    *out = NULL;
    render *r = calloc(1, sizeof *r);
    if (!r) return err_make(ERR_NOMEM, "no memory for the chat template");
    pthread_mutex_init(&r->lock, NULL);
    r->engine = engine;
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    json_t *config = NULL;
    err e = json_read_file(path, (size_t)64 << 20, &config);
    if (e.code == ERR_NOT_FOUND) e = err_none();
    if (!e.code) e = find_template(r, dir, config);
    r->bos = token_text(config, "bos_token");
    r->eos = token_text(config, "eos_token");
    r->turn = fm_token_find(engine, "<|im_start|>");
    json_decref(config);
    if (e.code) {
        render_close(r);
        return e;
    }
    *out = r;
    return e;
}

static void thought_free(thought *t) {
    free(t->id);
    free(t->text);
    *t = (thought){0};
}

void render_close(render *r) {
    if (!r) return;
    for (int i = 0; i < MEMORY_SLOTS; i++) thought_free(&r->memory[i]);
    template_free(r->plain);
    template_free(r->tools);
    json_decref(r->bos);
    json_decref(r->eos);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

const char *render_source(const render *r) { return template_source(r->plain); }

/* ---- thoughts ---- */

static const char *call_id(const json_t *message) {
    const json_t *calls = json_object_get(message, "tool_calls");
    return json_string_value(json_object_get(json_array_get(calls, 0), "id"));
}

void render_remember(render *r, const json_t *message, const char *raw, size_t length) {
    (void)raw, (void)length;
    const char *id = call_id(message);
    const json_t *text = json_object_get(message, "reasoning_content");
    if (!id || !*id || !json_is_string(text)) return;
    size_t bytes = strlen(id) + json_string_length(text);
    if (bytes > MEMORY_BYTES / 4) return;
    thought t = {strdup(id), strdup(json_string_value(text)), bytes};
    if (!t.id || !t.text) {
        thought_free(&t);
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->memory_bytes += bytes;
    for (int i = 0; i < MEMORY_SLOTS; i++) { /* the oldest go, until it fits */
        thought *old = &r->memory[(r->next + i) % MEMORY_SLOTS];
        if (i > 0 && r->memory_bytes <= MEMORY_BYTES) break;
        r->memory_bytes -= old->bytes;
        thought_free(old);
    }
    r->memory[r->next] = t;
    r->next = (r->next + 1) % MEMORY_SLOTS;
    pthread_mutex_unlock(&r->lock);
}

static json_t *recall(render *r, const char *id) {
    json_t *found = NULL;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < MEMORY_SLOTS && !found; i++)
        if (r->memory[i].id && strcmp(r->memory[i].id, id) == 0)
            found = json_string(r->memory[i].text);
    pthread_mutex_unlock(&r->lock);
    return found;
}

static void restore_thoughts(render *r, json_t *messages) {
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        const char *id = call_id(m);
        if (!id || json_object_get(m, "reasoning_content")) continue;
        json_t *text = recall(r, id);
        if (text) json_object_set_new(m, "reasoning_content", text);
    }
}

/* ---- rendering ---- */

typedef struct output {
    text_buf text, marks; /* one mark for each byte */
} output;

static err collect(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    output *o = ctx;
    TRY(text_buf_add(&o->text, bytes, length));
    TRY(text_buf_reserve(&o->marks, length));
    memset(o->marks.data + o->marks.length, mark, length);
    o->marks.length += length;
    return err_none();
}

#define VARIABLES_MAX 64

static err run_template(render *r, const request *q, output *o) {
    template_variable v[VARIABLES_MAX];
    int n = 0;
    const char *key;
    json_t *value;
    v[n++] = (template_variable){"bos_token", r->bos, TEMPLATE_MARKUP, NULL};
    v[n++] = (template_variable){"eos_token", r->eos, TEMPLATE_MARKUP, NULL};
    v[n++] = (template_variable){"add_generation_prompt", json_boolean(q->generation_prompt),
                                 TEMPLATE_CONTENT, NULL};
    v[n++] = (template_variable){"messages", q->messages, TEMPLATE_CONTENT, NULL};
    bool tools = q->tools && q->choice != TOOL_NONE;
    if (tools) v[n++] = (template_variable){"tools", q->tools, TEMPLATE_CONTENT, NULL};
    json_object_foreach(q->kwargs, key, value) {
        if (n == VARIABLES_MAX)
            return err_make(ERR_ARG, "chat_template_kwargs: at most %d variables",
                            VARIABLES_MAX - 5);
        v[n++] = (template_variable){key, value, TEMPLATE_CONTENT, NULL};
    }
    template_options options = {.variables = v, .n_variables = n};
    const jinja_template *t = tools && r->tools ? r->tools : r->plain;
    err e = template_render(t, &options, collect, o);
    if (e.code == ERR_ARG || e.code == ERR_CORRUPT || e.code == ERR_RANGE)
        return err_make(ERR_ARG, "messages: the model's chat template: %s", e.text);
    return e;
}

/* ---- tokens ---- */

static err to_tokens(const render *r, const output *o, fm_tokens *out) {
    token_list list = {0};
    err e = tokenizer_encode_marked(r->engine->files.tokens, o->text.data,
                                    (const uint8_t *)o->marks.data, o->text.length, &list);
    if (e.code) {
        token_list_free(&list);
        return e;
    }
    *out = (fm_tokens){list.ids, list.count, list.capacity};
    return e;
}

/* Where turns begin: the end of the first one (the system prompt), and the last few. */
static err find_marks(const render *r, port_prompt *out) {
    size_t borders = 0, seen = 0;
    for (size_t i = 0; i < out->tokens.count; i++) borders += out->tokens.ids[i] == r->turn;
    out->marks = calloc(BORDERS_KEPT + 1, sizeof *out->marks);
    if (!out->marks) return err_make(ERR_NOMEM, "no memory for the prompt");
    for (size_t i = 0; i < out->tokens.count; i++) {
        if (out->tokens.ids[i] != r->turn) continue;
        seen++;
        bool kept = seen == 2 || seen + BORDERS_KEPT > borders;
        if (kept && i > 0) out->marks[out->n_marks++] = i;
    }
    return err_none();
}

/* Whether the answer begins inside a thought. */
static toolcall_reasoning reasoning(const render *r, const output *o) {
    size_t n = o->text.length;
    while (n && (o->text.data[n - 1] == '\n' || o->text.data[n - 1] == ' ')) n--;
    if (n >= 7 && memcmp(o->text.data + n - 7, "<think>", 7) == 0) return TOOLCALL_THINK_INSIDE;
    return strstr(template_source(r->plain), "<think>") ? TOOLCALL_THINK_OUTSIDE
                                                        : TOOLCALL_THINK_NONE;
}

err render_chat(render *r, const request *q, port_prompt *out) {
    output o = {0};
    restore_thoughts(r, q->messages);
    err e = run_template(r, q, &o);
    if (!e.code && !o.text.length) e = err_make(ERR_ARG, "messages: the prompt is empty");
    if (!e.code) e = to_tokens(r, &o, &out->tokens);
    if (!e.code) e = find_marks(r, out);
    if (!e.code) out->reasoning = reasoning(r, &o);
    out->text = o.text.data;
    text_buf_free(&o.marks);
    return e;
}
