/* anthropic.c: reading the requests of POST /v1/messages (and count_tokens).
 *
 * A user message may hold results of calls: each becomes a tool message, in the order of the
 * blocks. An answer's thinking, text and calls become one assistant message. A last message of the
 * assistant is the beginning of the answer (prefill).
 *
 * Some clients put a line about billing first into their system prompt that differs each time;
 * lines beginning with "x-anthropic-billing-header:" in the first system block are left out, or no
 * prompt would ever share a prefix with the one before. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/fields.h"

#define SAMPLING(f) offsetof(fm_sampling, f)
#define REQUEST(f)  offsetof(request, f)
#define BILLING     "x-anthropic-billing-header:"

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* ---- system ---- */

static err without_billing(const char *text, text_buf *out) {
    while (*text) {
        const char *end = strchr(text, '\n');
        size_t n = end ? (size_t)(end - text) + 1 : strlen(text);
        if (strncmp(text, BILLING, sizeof BILLING - 1) != 0) TRY(text_buf_add(out, text, n));
        text += n;
    }
    return err_none();
}

/* Blocks are joined with an empty line. */
static err system_text(const char *name, const json_t *value, text_buf *out) {
    if (json_is_string(value)) return without_billing(json_string_value(value), out);
    if (!json_is_array(value)) return field_wrong(name, "a string or a list of text blocks", value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *block = json_array_get(value, i);
        const char *type = text_of(block, "type"), *text = text_of(block, "text");
        if (!type || strcmp(type, "text") != 0 || !text)
            return err_make(ERR_ARG, "%s[%zu]: must be a text block", name, i);
        if (out->length && *text) TRY(text_buf_add_text(out, "\n\n"));
        TRY(i == 0 ? without_billing(text, out) : text_buf_add_text(out, text));
    }
    return err_none();
}

static err add_system(const char *name, const json_t *value, request *r) {
    text_buf text = {0};
    err e = system_text(name, value, &text);
    if (!e.code && text.length && !message_add(r, "system", json_stringn(text.data, text.length)))
        e = err_make(ERR_NOMEM, "no memory for the system prompt");
    text_buf_free(&text);
    return e;
}

static err read_system(const char *name, json_t *value, request *r) {
    return add_system(name, value, r);
}

/* ---- messages ---- */

typedef struct blocks {
    request *r;
    json_t *message; /* of the assistant; borrowed */
    text_buf text;   /* of the user, not yet added */
} blocks;

static err flush_user(blocks *b) {
    if (!b->text.length) return err_none();
    json_t *m = message_add(b->r, "user", json_stringn(b->text.data, b->text.length));
    b->text.length = 0;
    return m ? err_none() : err_make(ERR_NOMEM, "no memory for the messages");
}

static err user_block(const char *where, const json_t *block, blocks *b) {
    const char *type = text_of(block, "type");
    if (type && strcmp(type, "text") == 0) {
        const char *text = text_of(block, "text");
        if (!text) return err_make(ERR_ARG, "%s.text: must be a string", where);
        if (b->text.length) TRY(text_buf_add_text(&b->text, "\n"));
        return text_buf_add_text(&b->text, text);
    }
    if (!type || strcmp(type, "tool_result") != 0)
        return err_make(ERR_ARG, "%s.type: %.60s is not possible here; this model reads text",
                        where, type ? type : "this");
    const char *id = text_of(block, "tool_use_id");
    if (!id) return err_make(ERR_ARG, "%s.tool_use_id: must be a string", where);
    TRY(flush_user(b));
    char name[160];
    json_t *text;
    snprintf(name, sizeof name, "%.100s.content", where);
    TRY(field_text(name, json_object_get(block, "content"), "text", &text));
    if (json_is_true(json_object_get(block, "is_error"))) {
        json_t *marked = json_sprintf("Error: %s", json_string_value(text));
        json_decref(text);
        text = marked;
    }
    json_t *m = message_add(b->r, "tool", text);
    if (!m || json_object_set_new(m, "tool_call_id", json_string(id)) != 0)
        return err_make(ERR_NOMEM, "no memory for the messages");
    return err_none();
}

static err append(json_t *message, const char *key, const char *more) {
    const char *old = text_of(message, key);
    json_t *joined = json_sprintf("%s%s", old ? old : "", more);
    return joined && json_object_set_new(message, key, joined) == 0
               ? err_none()
               : err_make(ERR_NOMEM, "no memory for the messages");
}

static err answer_block(const char *where, const json_t *block, blocks *b) {
    const char *type = text_of(block, "type");
    if (!type) return err_make(ERR_ARG, "%s.type: must be a string", where);
    if (strcmp(type, "redacted_thinking") == 0) return err_none(); /* not readable by anybody */
    bool thinking = strcmp(type, "thinking") == 0;
    if (thinking || strcmp(type, "text") == 0) {
        const char *text = text_of(block, type);
        if (!text) return err_make(ERR_ARG, "%s.%s: must be a string", where, type);
        return append(b->message, thinking ? "reasoning_content" : "content", text);
    }
    if (strcmp(type, "tool_use") != 0)
        return err_make(ERR_ARG, "%s.type: %.60s is not possible here", where, type);
    const char *id = text_of(block, "id"), *name = text_of(block, "name");
    const json_t *input = json_object_get(block, "input");
    if (!id || !name || !json_is_object(input))
        return err_make(ERR_ARG, "%s: id and name must be strings, input an object", where);
    char *arguments = json_dumps(input, JSON_COMPACT);
    err e = arguments ? message_call(b->message, id, name, arguments)
                      : err_make(ERR_NOMEM, "no memory for the messages");
    free(arguments);
    return e;
}

static err read_blocks(const char *where, const json_t *content, blocks *b) {
    for (size_t i = 0; i < json_array_size(content); i++) {
        char name[160];
        snprintf(name, sizeof name, "%.100s.content[%zu]", where, i);
        const json_t *block = json_array_get(content, i);
        if (!json_is_object(block)) return field_wrong(name, "an object", block);
        TRY(b->message ? answer_block(name, block, b) : user_block(name, block, b));
    }
    return flush_user(b);
}

static err read_message(size_t i, const json_t *m, request *r) {
    char where[64], name[160];
    snprintf(where, sizeof where, "messages[%zu]", i);
    snprintf(name, sizeof name, "%.100s.content", where);
    const char *role = text_of(m, "role");
    const json_t *content = json_object_get(m, "content");
    if (role && strcmp(role, "system") == 0) return add_system(name, content, r);
    bool answer = role && strcmp(role, "assistant") == 0;
    if (!answer && !(role && strcmp(role, "user") == 0))
        return err_make(ERR_ARG, "%s.role: must be \"user\" or \"assistant\"", where);
    if (json_is_string(content)) {
        json_t *text = json_incref((json_t *)(uintptr_t)content);
        return message_add(r, role, text) ? err_none() : err_make(ERR_NOMEM, "no memory");
    }
    if (!json_is_array(content))
        return err_make(ERR_ARG, "%s: must be a string or a list of blocks", name);
    blocks b = {.r = r, .message = answer ? message_add(r, role, json_string("")) : NULL};
    if (answer && !b.message) return err_make(ERR_NOMEM, "no memory for the messages");
    err e = read_blocks(where, content, &b);
    text_buf_free(&b.text);
    return e;
}

/* The last message, when it is the assistant's and text only: the answer begins with it. */
static err take_prefill(request *r) {
    size_t n = json_array_size(r->messages);
    json_t *last = json_array_get(r->messages, n - 1);
    if (strcmp(message_last_role(r), "assistant") != 0 || json_object_get(last, "tool_calls"))
        return err_none();
    const char *text = text_of(last, "content");
    r->prefill = strdup(text ? text : "");
    json_array_remove(r->messages, n - 1);
    return r->prefill ? err_none() : err_make(ERR_NOMEM, "no memory for the messages");
}

static err read_messages(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    if (json_array_size(value) == 0) return err_make(ERR_ARG, "%s: is empty", name);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(read_message(i, json_array_get(value, i), r));
    if (!json_array_size(r->messages)) return err_make(ERR_ARG, "%s: has no text", name);
    return take_prefill(r);
}

/* ---- the other fields ---- */

static err read_tools(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *t = json_array_get(value, i);
        const char *type = text_of(t, "type");
        if (type && strcmp(type, "custom") != 0)
            return err_make(ERR_ARG, "%s[%zu].type: %.60s is a tool of another server", name, i,
                            type);
        TRY(tools_add(r, text_of(t, "name"), json_object_get(t, "description"),
                      json_object_get(t, "input_schema"),
                      json_is_true(json_object_get(t, "strict"))));
    }
    return err_none();
}

static err read_choice(const char *name, json_t *value, request *r) {
    const char *type = text_of(value, "type");
    r->one_call = json_is_true(json_object_get(value, "disable_parallel_tool_use"));
    if (type && strcmp(type, "auto") == 0) return err_none();
    if (type && (!strcmp(type, "none") || !strcmp(type, "any"))) {
        r->choice = type[0] == 'n' ? TOOL_NONE : TOOL_REQUIRED;
        return err_none();
    }
    if (type && strcmp(type, "tool") == 0 && text_of(value, "name"))
        return tools_choose(r, name, text_of(value, "name"));
    return err_make(ERR_ARG,
                    "%s.type: must be \"auto\", \"any\", \"none\", or \"tool\" with a name", name);
}

static err read_thinking(const char *name, json_t *value, request *r) {
    const char *type = text_of(value, "type");
    const json_t *budget = json_object_get(value, "budget_tokens");
    if (type && strcmp(type, "disabled") == 0) {
        r->thinking = 0;
    } else if (type && (!strcmp(type, "enabled") || !strcmp(type, "adaptive"))) {
        r->thinking = 1;
        if (budget)
            return field_int("thinking.budget_tokens", budget, 1, INT32_MAX, &r->thinking_budget);
    } else {
        return err_make(ERR_ARG, "%s.type: must be \"enabled\", \"disabled\" or \"adaptive\"",
                        name);
    }
    return err_none();
}

/* effort bounds thinking where there is any; it does not switch it on. */
static err read_output(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        int thinking = r->thinking;
        int64_t budget = r->thinking_budget;
        if (json_is_null(v)) continue;
        if (strcmp(key, "format") == 0) {
            TRY(read_format("output_config.format", v, r));
        } else if (strcmp(key, "effort") == 0) {
            TRY(read_effort("output_config.effort", v, r));
            r->thinking = thinking;
            if (thinking == 0 || budget >= 0) r->thinking_budget = budget;
        } else {
            return err_make(ERR_ARG, "%s.%.60s: unknown field", name, key);
        }
    }
    return err_none();
}

/* Thinking of earlier turns is the template's business, which drops it. Clearing tool results is
 * not done here. */
static err read_context(const char *name, json_t *value, request *r) {
    (void)r;
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        if (strcmp(key, "edits") != 0 || (!json_is_array(v) && !json_is_null(v)))
            return err_make(ERR_ARG, "%s.%.60s: only a list of edits is possible", name, key);
    }
    const json_t *edits = json_object_get(value, "edits");
    for (size_t i = 0; i < json_array_size(edits); i++) {
        const char *type = text_of(json_array_get(edits, i), "type");
        if (!type || strncmp(type, "clear_thinking_", 15) != 0)
            return err_make(ERR_ARG, "%s.edits[%zu].type: %.60s is not possible here", name, i,
                            type ? type : "this");
    }
    return err_none();
}

const field message_fields[] = {
    {.name = "model", FIELD_STRING, REQUEST(model)},
    {.name = "system", .read = read_system},
    {.name = "messages", .read = read_messages},
    {.name = "max_tokens", FIELD_INT, REQUEST(max_tokens), 1, INT32_MAX},
    {.name = "temperature", FIELD_NUMBER, SAMPLING(temperature), 0, 1, SET_TEMPERATURE},
    {.name = "top_p", FIELD_NUMBER, SAMPLING(top_p), 0, 1, SET_TOP_P},
    {.name = "top_k", .read = read_top_k, .set = SET_TOP_K},
    {.name = "stop_sequences", .read = read_stop},
    {.name = "stream", FIELD_BOOL, REQUEST(stream)},
    {.name = "tools", .read = read_tools},
    {.name = "tool_choice", .read = read_choice},
    {.name = "thinking", .read = read_thinking},
    {.name = "output_config", .read = read_output},
    {.name = "output_format", .read = read_format},
    {.name = "context_management", .read = read_context},
    {.name = "metadata", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "cache_control", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "service_tier", FIELD_ONLY, .why = "[\"auto\", \"standard_only\"]"},
    {.name = "container", FIELD_REFUSED, .why = "this server runs no containers"},
    {.name = "mcp_servers", FIELD_REFUSED, .why = "this server calls no other servers"},
    {0}};

err parse_messages(request *r) {
    r->thinking = 0; /* as documented by Anthropic: off unless asked for */
    TRY(fields_read(message_fields, r->body, "", r));
    if (!json_object_get(r->body, "messages")) return err_make(ERR_ARG, "messages: is missing");
    return json_array_size(r->messages) ? err_none()
                                        : err_make(ERR_ARG, "messages: has nothing to answer");
}
