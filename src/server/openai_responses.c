/* openai_responses.c: reading the requests of POST /v1/responses.
 *
 * A conversation is a list of items: messages, calls, their outputs and reasoning. Templates want
 * messages, so neighbours that belong to one answer are folded together:
 *
 *     reasoning, message(assistant), function_call, function_call   ->  one assistant message
 *     function_call_output                                          ->  a tool message
 *
 * Tools that this server does not have (web_search, namespaces ...) are left out, as clients expect
 * that offer them to every server; everything else that cannot be done is refused. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/fields.h"

#define SAMPLING(f) offsetof(fm_sampling, f)
#define REQUEST(f)  offsetof(request, f)

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* The assistant message that the next piece of an answer belongs to. */
static json_t *answer_message(request *r) {
    size_t n = json_array_size(r->messages);
    if (n && strcmp(message_last_role(r), "assistant") == 0)
        return json_array_get(r->messages, n - 1);
    return message_add(r, "assistant", json_string(""));
}

static err append_text(json_t *message, const char *key, const json_t *more) {
    const char *old = text_of(message, key);
    json_t *joined = json_sprintf("%s%s", old ? old : "", json_string_value(more));
    if (!joined || json_object_set_new(message, key, joined) != 0)
        return err_make(ERR_NOMEM, "no memory for the input");
    return err_none();
}

static err item_message(const char *where, const json_t *item, request *r) {
    const char *role = text_of(item, "role");
    static const char *const roles[] = {"system", "developer", "user", "assistant"};
    size_t k = 0;
    while (k < 4 && !(role && strcmp(role, roles[k]) == 0)) k++;
    if (k == 4)
        return err_make(ERR_ARG,
                        "%s.role: must be \"system\", \"developer\", \"user\" or \"assistant\"",
                        where);
    char name[160];
    json_t *text;
    snprintf(name, sizeof name, "%.100s.content", where);
    TRY(field_text(name, json_object_get(item, "content"), "input_text output_text text refusal",
                   &text));
    /* A second text after calls is the next answer. */
    json_t *m = k == 3 ? answer_message(r) : NULL;
    if (m && !json_object_get(m, "tool_calls")) {
        err e = append_text(m, "content", text);
        json_decref(text);
        return e;
    }
    return message_add(r, k == 1 ? "system" : role, text)
               ? err_none()
               : err_make(ERR_NOMEM, "no memory for the input");
}

static err item_call(const char *where, const json_t *item, request *r) {
    const char *id = text_of(item, "call_id"), *name = text_of(item, "name");
    const char *arguments = text_of(item, "arguments");
    if (!id || !name || !arguments)
        return err_make(ERR_ARG, "%s: call_id, name and arguments must be strings", where);
    json_t *m = answer_message(r);
    if (!m) return err_make(ERR_NOMEM, "no memory for the input");
    return message_call(m, id, name, arguments);
}

static err item_output(const char *where, const json_t *item, request *r) {
    const char *id = text_of(item, "call_id");
    if (!id) return err_make(ERR_ARG, "%s.call_id: must be a string", where);
    char name[160];
    json_t *text;
    snprintf(name, sizeof name, "%.100s.output", where);
    TRY(field_text(name, json_object_get(item, "output"), "input_text output_text text", &text));
    json_t *m = message_add(r, "tool", text);
    if (!m || json_object_set_new(m, "tool_call_id", json_string(id)) != 0)
        return err_make(ERR_NOMEM, "no memory for the input");
    return err_none();
}

/* content: reasoning_text parts; a summary without content counts too. What is encrypted is not
 * ours and is left out. */
static err item_reasoning(const char *where, const json_t *item, request *r) {
    char name[160];
    const json_t *parts = json_object_get(item, "content");
    if (!json_array_size(parts)) parts = json_object_get(item, "summary");
    if (!json_array_size(parts)) return err_none();
    json_t *text;
    snprintf(name, sizeof name, "%.100s.content", where);
    TRY(field_text(name, parts, "reasoning_text summary_text text", &text));
    json_t *m = message_add(r, "assistant", json_string(""));
    err e = m ? append_text(m, "reasoning_content", text)
              : err_make(ERR_NOMEM, "no memory for the input");
    json_decref(text);
    return e;
}

static err read_item(size_t i, const json_t *item, request *r) {
    char where[64];
    snprintf(where, sizeof where, "input[%zu]", i);
    if (!json_is_object(item)) return field_wrong(where, "an object", item);
    const char *type = text_of(item, "type");
    if (!type || strcmp(type, "message") == 0) return item_message(where, item, r);
    if (strcmp(type, "function_call") == 0) return item_call(where, item, r);
    if (strcmp(type, "function_call_output") == 0) return item_output(where, item, r);
    if (strcmp(type, "reasoning") == 0) return item_reasoning(where, item, r);
    if (strcmp(type, "item_reference") == 0)
        return err_make(ERR_ARG, "%s.type: item_reference: nothing is stored here; send the item",
                        where);
    return err_make(ERR_ARG, "%s.type: %.60s is not possible here", where, type);
}

static err read_input(const char *name, json_t *value, request *r) {
    if (json_is_string(value))
        return message_add(r, "user", json_incref(value)) ? err_none()
                                                          : err_make(ERR_NOMEM, "no memory");
    if (!json_is_array(value)) return field_wrong(name, "a string or a list of items", value);
    if (json_array_size(value) == 0) return err_make(ERR_ARG, "%s: is empty", name);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(read_item(i, json_array_get(value, i), r));
    return err_none();
}

static err read_instructions(const char *name, json_t *value, request *r) {
    json_t *text;
    TRY(field_text(name, value, "input_text text", &text));
    return message_add(r, "system", text) ? err_none() : err_make(ERR_NOMEM, "no memory");
}

static err read_tools(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *t = json_array_get(value, i);
        const char *type = text_of(t, "type");
        if (!type) return err_make(ERR_ARG, "%s[%zu].type: must be a string", name, i);
        if (strcmp(type, "function") != 0) continue; /* see the top of this file */
        TRY(tools_add(r, text_of(t, "name"), json_object_get(t, "description"),
                      json_object_get(t, "parameters"),
                      json_is_true(json_object_get(t, "strict"))));
    }
    return err_none();
}

static err read_choice(const char *name, json_t *value, request *r) {
    const char *word = json_string_value(value), *type = text_of(value, "type");
    if (word && strcmp(word, "auto") == 0) return err_none();
    if (word && (!strcmp(word, "none") || !strcmp(word, "required"))) {
        r->choice = word[0] == 'n' ? TOOL_NONE : TOOL_REQUIRED;
        return err_none();
    }
    if (type && strcmp(type, "function") == 0 && text_of(value, "name"))
        return tools_choose(r, name, text_of(value, "name"));
    if (type && strcmp(type, "allowed_tools") == 0) {
        const char *mode = text_of(value, "mode");
        if (mode && strcmp(mode, "required") == 0) r->choice = TOOL_REQUIRED;
        return tools_allow(r, name, json_object_get(value, "tools"));
    }
    return err_make(ERR_ARG, "%s: must be \"auto\", \"none\", \"required\" or a function by name",
                    name);
}

static err read_reasoning(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        if (strcmp(key, "effort") != 0 && strcmp(key, "summary") != 0 &&
            strcmp(key, "generate_summary") != 0)
            return err_make(ERR_ARG, "%s.%.60s: unknown field", name, key);
        if (!json_is_null(v) && !json_is_string(v))
            return err_make(ERR_ARG, "%s.%s: must be a string", name, key);
    }
    json_t *effort = json_object_get(value, "effort");
    return json_is_string(effort) ? read_effort("reasoning.effort", effort, r) : err_none();
}

static err read_text(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        if (json_is_null(v)) continue;
        if (strcmp(key, "format") == 0) {
            TRY(read_format("text.format", v, r));
        } else if (strcmp(key, "verbosity") != 0) {
            return err_make(ERR_ARG, "%s.%.60s: unknown field", name, key);
        } else if (!json_is_string(v) || strcmp(json_string_value(v), "medium") != 0) {
            return err_make(ERR_ARG, "text.verbosity: only \"medium\" is possible");
        }
    }
    return err_none();
}

static err read_include(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *word = json_string_value(json_array_get(value, i));
        if (word && strcmp(word, "message.output_text.logprobs") == 0) {
            r->logprobs = true;
        } else if (!word || strcmp(word, "reasoning.encrypted_content") != 0) {
            return err_make(ERR_ARG, "%s[%zu]: %.80s is not available", name, i,
                            word ? word : "this");
        }
    }
    return err_none();
}

static err read_top(const char *name, json_t *value, request *r) {
    TRY(field_int(name, value, 0, SCHED_TOP_MAX, &r->top_logprobs));
    if (r->top_logprobs > 0) r->logprobs = true;
    return err_none();
}

const field response_fields[] = {
    {.name = "model", FIELD_STRING, REQUEST(model)},
    {.name = "instructions", .read = read_instructions},
    {.name = "input", .read = read_input},
    {.name = "tools", .read = read_tools},
    {.name = "tool_choice", .read = read_choice},
    {.name = "parallel_tool_calls", .read = read_parallel},
    {.name = "max_output_tokens", FIELD_INT, REQUEST(max_tokens), 1, INT32_MAX},
    {.name = "temperature", FIELD_NUMBER, SAMPLING(temperature), 0, 2, SET_TEMPERATURE},
    {.name = "top_p", FIELD_NUMBER, SAMPLING(top_p), 0, 1, SET_TOP_P},
    {.name = "top_logprobs", .read = read_top},
    {.name = "reasoning", .read = read_reasoning},
    {.name = "text", .read = read_text},
    {.name = "include", .read = read_include},
    {.name = "stream", FIELD_BOOL, REQUEST(stream)},
    {.name = "stream_options", .read = read_stream_options},
    {.name = "user", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "safety_identifier", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "prompt_cache_key", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "prompt_cache_retention", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "metadata", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "client_metadata", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "max_tool_calls", FIELD_NO_EFFECT, .why = "a number"},
    {.name = "chat_template_kwargs", .read = read_kwargs},
    {.name = "store", FIELD_ONLY, .why = "[false]"},
    {.name = "background", FIELD_ONLY, .why = "[false]"},
    {.name = "truncation", FIELD_ONLY, .why = "[\"disabled\"]"},
    {.name = "service_tier", FIELD_ONLY, .why = "[\"auto\", \"default\"]"},
    {.name = "previous_response_id",
     FIELD_REFUSED,
     .why = "nothing is stored here; send the whole conversation in input"},
    {.name = "conversation",
     FIELD_REFUSED,
     .why = "nothing is stored here; send the whole conversation in input"},
    {.name = "prompt", FIELD_REFUSED, .why = "there are no stored prompts; send instructions"},
    {0}};

err parse_responses(request *r) {
    TRY(fields_read(response_fields, r->body, "", r));
    if (!json_object_get(r->body, "input")) return err_make(ERR_ARG, "input: is missing");
    return json_array_size(r->messages) ? err_none() : err_make(ERR_ARG, "input: has no message");
}
