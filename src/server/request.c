/* request.c: what all APIs have in common: JSON in, defaults, the checks across fields (request.h).
 */
#include "server/request.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/fields.h"

/* ---- JSON ---- */

/* Zero characters become U+FFFD: whoever reads a string as text would see its beginning only. */
static json_t *without_zeros(const json_t *s) {
    const char *text = json_string_value(s);
    size_t n = json_string_length(s);
    text_buf out = {0};
    for (size_t at = 0; at <= n;) {
        size_t run = strlen(text + at);
        if (text_buf_add(&out, text + at, run).code) break;
        at += run + 1;
        if (at <= n && text_buf_add_text(&out, "\xef\xbf\xbd").code) break;
    }
    json_t *fresh = json_stringn(out.data ? out.data : "", out.length);
    text_buf_free(&out);
    return fresh;
}

static bool has_zero(const json_t *v) {
    return json_is_string(v) && strlen(json_string_value(v)) != json_string_length(v);
}

/* Depth is bounded by the parser (2048). */
static bool clean_zeros(json_t *v) {
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            json_t *item = json_array_get(v, i);
            if (has_zero(item) ? json_array_set_new(v, i, without_zeros(item)) != 0
                               : !clean_zeros(item))
                return false;
        }
    } else if (json_is_object(v)) {
        const char *key;
        json_t *item;
        json_object_foreach(v, key, item) {
            if (has_zero(item) ? json_object_set_new(v, key, without_zeros(item)) != 0
                               : !clean_zeros(item))
                return false;
        }
    }
    return true;
}

err request_json(const char *bytes, size_t length, json_t **out) {
    *out = NULL;
    json_error_t where;
    json_t *v = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!v)
        return err_make(ERR_ARG, "the body is not valid JSON: line %d column %d: %s", where.line,
                        where.column, where.text);
    if (!json_is_object(v)) {
        json_decref(v);
        return err_make(ERR_ARG, "the body must be a JSON object");
    }
    if (!clean_zeros(v)) {
        json_decref(v);
        return err_make(ERR_NOMEM, "no memory for the body");
    }
    *out = v;
    return err_none();
}

/* ---- messages ---- */

static bool is_system(const json_t *m) {
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && strcmp(role, "system") == 0;
}

/* Leading system messages become one, with an empty line between them: templates know one. */
static bool merge_leading_system(request *r) {
    json_t *first = json_array_get(r->messages, 0);
    while (is_system(first) && is_system(json_array_get(r->messages, 1))) {
        const json_t *a = json_object_get(first, "content");
        const json_t *b = json_object_get(json_array_get(r->messages, 1), "content");
        bool both = json_string_length(a) && json_string_length(b);
        json_t *joined =
            json_sprintf("%s%s%s", json_string_value(a), both ? "\n\n" : "", json_string_value(b));
        if (!joined || json_object_set_new(first, "content", joined) != 0) return false;
        json_array_remove(r->messages, 1);
    }
    return true;
}

bool request_later_system_to_user(request *r) {
    bool any = false;
    for (size_t i = 1; i < json_array_size(r->messages); i++) {
        json_t *m = json_array_get(r->messages, i);
        if (!is_system(m)) continue;
        json_object_set_new(m, "role", json_string("user"));
        any = true;
    }
    return any;
}

/* ---- the whole request ---- */

static void defaults(request *r, request_api api, json_t *body) {
    memset(r, 0, sizeof *r);
    r->api = api;
    r->body = body;
    r->kwargs = json_object();
    r->sampling = (fm_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    r->max_tokens = -1;
    r->n = 1;
    r->thinking = -1;
    r->thinking_budget = -1;
    r->generation_prompt = true;
}

static err cross_check(request *r) {
    if (r->messages) {
        if (json_array_size(r->messages) > REQUEST_MESSAGES_MAX)
            return err_make(ERR_ARG, "messages: at most %d", REQUEST_MESSAGES_MAX);
        if (!r->kwargs || !merge_leading_system(r))
            return err_make(ERR_NOMEM, "no memory for the messages");
    }
    bool forced = r->choice == TOOL_REQUIRED || r->choice == TOOL_NAMED;
    if (forced && json_array_size(r->tools) == 0)
        return err_make(ERR_ARG, "tool_choice: needs tools");
    if (forced && r->format != FORMAT_TEXT)
        return err_make(ERR_ARG, "tool_choice: a forced call and a response format exclude each "
                                 "other");
    if (r->top_logprobs > 0 && !r->logprobs)
        return err_make(ERR_ARG, "top_logprobs: needs logprobs: true");
    if (json_array_size(r->tools) == 0) {
        json_decref(r->tools);
        r->tools = NULL;
    }
    if (r->thinking >= 0 && !json_object_get(r->kwargs, "enable_thinking"))
        json_object_set_new(r->kwargs, "enable_thinking", json_boolean(r->thinking));
    if (r->effort && !json_object_get(r->kwargs, "reasoning_effort"))
        json_object_set_new(r->kwargs, "reasoning_effort", json_string(r->effort));
    return err_none();
}

/* "messages[2].content: must ..." -> "messages[2].content" */
static void param_of(const char *text, char *param) {
    size_t n = 0;
    while (n < 63 && (isalnum((unsigned char)text[n]) || strchr("_.[]-", text[n])) && text[n]) n++;
    if (text[n] != ':') n = 0;
    memcpy(param, text, n);
    param[n] = '\0';
}

err request_parse(request_api api, json_t *body, request *out, char *param) {
    static err (*const parsers[])(request *) = {
        [API_CHAT] = parse_chat,           [API_COMPLETIONS] = parse_completions,
        [API_RESPONSES] = parse_responses, [API_MESSAGES] = parse_messages,
        [API_TEMPLATE] = parse_template,
    };
    param[0] = '\0';
    defaults(out, api, body);
    err e = parsers[api](out);
    if (!e.code) e = cross_check(out);
    if (e.code) {
        param_of(e.text, param);
        request_free(out);
    }
    return e;
}

const char *request_field(request_api api, int i) {
    static const field *const tables[] = {
        [API_CHAT] = chat_fields,          [API_COMPLETIONS] = completion_fields,
        [API_RESPONSES] = response_fields, [API_MESSAGES] = message_fields,
        [API_TEMPLATE] = template_fields,
    };
    const field *f = field_at(tables[api]);
    for (; f && i > 0; i--) f = field_at(f + 1);
    return f ? f->name : NULL;
}

void request_free(request *r) {
    json_decref(r->messages);
    json_decref(r->prompts);
    json_decref(r->tools);
    json_decref(r->kwargs);
    json_decref(r->stop);
    json_decref(r->body);
    free(r->prefill);
    free(r->bias);
    memset(r, 0, sizeof *r);
}
