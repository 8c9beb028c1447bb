/* chat.c: see chat.h. Renders a conversation and encodes it. */
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "text/chat_impl.h"
#include "text/text_buf.h"

#define MEMORY_DEFAULT ((size_t)64 << 20)

err chat_open(const chat_options *options, chat **out) {
    *out = NULL;
    chat *c = calloc(1, sizeof *c);
    if (!c) return err_make(ERR_NOMEM, "no memory for a chat");
    if (pthread_mutex_init(&c->lock, NULL) != 0) {
        free(c);
        return err_make(ERR_NOMEM, "no lock for a chat");
    }
    c->tokens = options->tokens;
    c->memory_bytes = options->memory_bytes ? options->memory_bytes : MEMORY_DEFAULT;
    for (int i = 0; i < options->n_stop_ids && c->n_stops < CHAT_STOPS_MAX; i++) {
        c->stops[c->n_stops++] = options->stop_ids[i];
    }
    err e = chat_load_templates(c, options->dir);
    if (e.code) {
        chat_close(c);
        return e;
    }
    chat_try_out(c, &c->plain);
    chat_try_out(c, &c->tools);
    *out = c;
    return e;
}

void chat_close(chat *c) {
    if (!c) return;
    template_free(c->plain.parsed);
    template_free(c->tools.parsed);
    json_decref(c->specials);
    free(c->path);
    for (int i = 0; i < c->n_entries; i++) free(c->entries[i].ids);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void chat_prompt_free(chat_prompt *p) {
    token_list_free(&p->tokens);
    free(p->text);
    free(p->marks);
    free(p->borders);
    *p = (chat_prompt){0};
}

const chat_template *chat_template_for(const chat *c, const chat_request *r) {
    bool tools = c->tools.parsed && json_array_size(r->tools) > 0;
    return tools ? &c->tools : &c->plain;
}

const char *chat_source(const chat *c) { return template_source(c->plain.parsed); }

const toolcall_format *chat_format(const chat *c) {
    const chat_template *t = c->tools.parsed ? &c->tools : &c->plain;
    return toolcall_format_detect(template_source(t->parsed));
}

bool chat_knows(const chat *c, const char *variable) {
    return strstr(template_source(c->plain.parsed), variable) ||
           (c->tools.parsed && strstr(template_source(c->tools.parsed), variable));
}

bool chat_is_stop(const chat *c, int32_t id) {
    for (int i = 0; i < c->n_stops; i++) {
        if (c->stops[i] == id) return true;
    }
    return false;
}

/* ---- messages as the template wants them ---- */

/* The texts of a list of text parts, one a line; NULL when there are other parts. */
static json_t *flatten(const json_t *parts) {
    text_buf text = {0};
    size_t i;
    json_t *part;
    bool good = true;
    json_array_foreach(parts, i, part) {
        const json_t *one = json_is_string(part) ? part : json_object_get(part, "text");
        good = good && json_is_string(one) && (i == 0 || !text_buf_add_byte(&text, '\n').code);
        if (!good) break;
        good = !text_buf_add(&text, json_string_value(one), json_string_length(one)).code;
    }
    json_t *out = good ? json_stringn(text.data ? text.data : "", text.length) : NULL;
    text_buf_free(&text);
    return out;
}

static err set(json_t *object, const char *key, json_t *value) {
    if (value && json_object_set_new(object, key, value) == 0) return err_none();
    return err_make(ERR_NOMEM, "no memory for a conversation");
}

/* Arguments as an object, or as JSON text. Text that is no JSON object stays text. */
static err convert_arguments(const chat_template *t, json_t *function) {
    const json_t *arguments = json_object_get(function, "arguments");
    if (json_is_string(arguments) && !t->wants_text) {
        json_t *parsed = json_loadb(json_string_value(arguments), json_string_length(arguments),
                                    JSON_ALLOW_NUL, NULL);
        if (json_is_object(parsed)) return set(function, "arguments", parsed);
        json_decref(parsed);
    } else if (json_is_object(arguments) && t->wants_text) {
        char *text = json_dumps(arguments, 0);
        json_t *value = text ? json_string(text) : NULL;
        free(text);
        return set(function, "arguments", value);
    }
    return err_none();
}

static err convert_calls(const chat_template *t, size_t index, json_t *message) {
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!calls || json_is_null(calls)) return err_none();
    if (!json_is_array(calls)) {
        return err_make(ERR_ARG, "messages[%zu].tool_calls: expected a list", index);
    }
    json_t *copy = json_deep_copy(calls);
    TRY(set(message, "tool_calls", copy));
    size_t i;
    json_t *call;
    json_array_foreach(copy, i, call) {
        json_t *function = json_object_get(call, "function");
        if (!json_is_object(function)) function = call;
        if (!json_is_object(function)) {
            return err_make(ERR_ARG, "messages[%zu].tool_calls[%zu]: expected an object", index, i);
        }
        TRY(convert_arguments(t, function));
    }
    return err_none();
}

static err convert_message(const chat_template *t, size_t index, json_t *message) {
    const json_t *role = json_object_get(message, "role");
    const json_t *content = json_object_get(message, "content");
    if (!json_is_string(role)) {
        return err_make(ERR_ARG, "messages[%zu].role: expected a string", index);
    }
    if (!t->developer && strcmp(json_string_value(role), "developer") == 0) {
        TRY(set(message, "role", json_string("system")));
    }
    if (json_is_array(content) && t->flat_content) {
        json_t *text = flatten(content);
        if (text) TRY(set(message, "content", text));
    } else if (t->no_null && (!content || json_is_null(content))) {
        TRY(set(message, "content", json_string("")));
    }
    return convert_calls(t, index, message);
}

err chat_messages(const chat_template *t, const json_t *messages, json_t **out) {
    *out = NULL;
    if (!json_is_array(messages)) return err_make(ERR_ARG, "messages: expected a list");
    json_t *list = json_array();
    err e = list ? err_none() : err_make(ERR_NOMEM, "no memory for a conversation");
    for (size_t i = 0; !e.code && i < json_array_size(messages); i++) {
        const json_t *one = json_array_get(messages, i);
        if (!json_is_object(one)) {
            e = err_make(ERR_ARG, "messages[%zu]: expected an object", i);
            break;
        }
        json_t *copy = json_copy((json_t *)(uintptr_t)one); /* shares what it does not change */
        if (!copy || json_array_append_new(list, copy) != 0) {
            e = err_make(ERR_NOMEM, "no memory for a conversation");
        } else {
            e = convert_message(t, i, copy);
        }
    }
    if (e.code) {
        json_decref(list);
        return e;
    }
    *out = list;
    return e;
}

/* ---- rendering ---- */

typedef struct collected {
    text_buf text, marks;
} collected;

static err collect(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    collected *c = ctx;
    TRY(text_buf_add(&c->text, bytes, length));
    TRY(text_buf_reserve(&c->marks, length));
    memset(c->marks.data + c->marks.length, mark, length);
    c->marks.length += length;
    return err_none();
}

static bool is_assistant(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

enum { VARIABLES_MAX = 128 };

typedef struct variables {
    template_variable list[VARIABLES_MAX];
    int n;
} variables;

static err add_variables(variables *v, const json_t *object, uint8_t mark) {
    const char *key;
    json_t *value;
    static const char *const ours[] = {"messages", "tools", "add_generation_prompt", NULL};
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        for (int i = 0; ours[i]; i++) {
            if (strcmp(key, ours[i]) == 0) {
                return err_make(ERR_ARG, "chat_template_kwargs: %s has a field of its own", key);
            }
        }
        if (v->n == VARIABLES_MAX) return err_make(ERR_RANGE, "chat_template_kwargs: too many");
        v->list[v->n++] = (template_variable){.name = key, .value = value, .mark = mark};
    }
    return err_none();
}

static err render(const chat *c, const chat_request *r, const json_t *messages,
                  const uint8_t *element_marks, collected *out) {
    variables v = {.n = 0};
    const json_t *tools = json_array_size(r->tools) ? r->tools : json_null();
    v.list[v.n++] = (template_variable){.name = "messages",
                                        .value = messages,
                                        .mark = MARK_CONTENT,
                                        .element_marks = element_marks};
    v.list[v.n++] = (template_variable){.name = "tools", .value = tools, .mark = MARK_CONTENT};
    v.list[v.n++] = (template_variable){.name = "documents", .value = json_null()};
    v.list[v.n++] = (template_variable){.name = "add_generation_prompt",
                                        .value = json_boolean(r->add_generation_prompt)};
    TRY(add_variables(&v, c->specials, MARK_MARKUP));
    if (r->kwargs && !json_is_object(r->kwargs) && !json_is_null(r->kwargs)) {
        return err_make(ERR_ARG, "chat_template_kwargs: expected an object");
    }
    if (json_is_object(r->kwargs)) TRY(add_variables(&v, r->kwargs, MARK_CONTENT));
    const template_options options = {.variables = v.list, .n_variables = v.n, .now = r->now};
    return template_render(chat_template_for(c, r)->parsed, &options, collect, out);
}

err chat_render_text(const chat *c, const chat_request *r, int tagged, chat_prompt *out) {
    json_t *messages;
    TRY(chat_messages(chat_template_for(c, r), r->messages, &messages));
    size_t n = json_array_size(messages);
    uint8_t *marks = malloc(n + 1);
    collected got = {.text = {0}};
    err e = marks ? err_none() : err_make(ERR_NOMEM, "no memory for a conversation");
    for (size_t i = 0; marks && i < n; i++) {
        bool assistant = is_assistant(json_array_get(messages, i));
        marks[i] = (int)i == tagged ? MARK_TAGGED : assistant ? MARK_ASSISTANT : MARK_CONTENT;
    }
    if (!e.code) e = render(c, r, messages, marks, &got);
    if (!e.code) e = text_buf_reserve(&got.text, 0); /* so that an empty text has its zero */
    free(marks);
    json_decref(messages);
    free(out->text);
    free(out->marks);
    out->text = NULL;
    out->marks = NULL;
    out->length = 0;
    if (e.code) {
        text_buf_free(&got.text);
        text_buf_free(&got.marks);
        return e;
    }
    out->text = got.text.data;
    out->text[got.text.length] = '\0';
    out->length = got.text.length;
    out->marks = (uint8_t *)got.marks.data;
    return e;
}

/* ---- what the text says about the reply ---- */

static bool ends_with(const char *text, size_t length, const char *what) {
    size_t n = strlen(what);
    return n <= length && memcmp(text + length - n, what, n) == 0;
}

static toolcall_reasoning reasoning_of(const chat *c, const chat_request *r, const chat_prompt *p) {
    size_t end = p->length;
    const char *source = template_source(chat_template_for(c, r)->parsed);
    if (!strstr(source, "<think>") && !strstr(source, "</think>")) return TOOLCALL_THINK_NONE;
    while (end > 0 && strchr(" \t\r\n", p->text[end - 1])) end--;
    bool open = end > 0 && p->marks[end - 1] == MARK_MARKUP && ends_with(p->text, end, "<think>");
    return open ? TOOLCALL_THINK_INSIDE : TOOLCALL_THINK_OUTSIDE;
}

/* Where turns end: behind every end token. */
static err find_borders(const chat *c, chat_prompt *p) {
    size_t count = 1;
    for (size_t i = 0; i < p->tokens.count; i++) count += chat_is_stop(c, p->tokens.ids[i]);
    p->borders = calloc(count, sizeof *p->borders);
    if (!p->borders) return err_make(ERR_NOMEM, "no memory for a conversation");
    for (size_t i = 0; i < p->tokens.count; i++) {
        if (chat_is_stop(c, p->tokens.ids[i])) p->borders[p->n_borders++] = i + 1;
    }
    bool last = p->n_borders && p->borders[p->n_borders - 1] == p->tokens.count;
    if (!last) p->borders[p->n_borders++] = p->tokens.count;
    return err_none();
}

err chat_render(chat *c, const chat_request *r, chat_prompt *out) {
    size_t from = 0;
    chat_prompt_free(out);
    err e = chat_replay(c, r, out, &from);
    if (!e.code && !out->text) e = chat_render_text(c, r, -1, out);
    if (!e.code && c->tokens && out->length > from) {
        e = tokenizer_encode_marked(c->tokens, out->text + from, out->marks + from,
                                    out->length - from, &out->tokens);
    }
    if (!e.code) e = find_borders(c, out);
    if (e.code) {
        chat_prompt_free(out);
        return e;
    }
    out->reasoning = reasoning_of(c, r, out);
    return e;
}
