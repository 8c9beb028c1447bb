/* openai_chat.c: reading the requests of POST /v1/chat/completions (and /apply-template). */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/fields.h"

#define REQUEST(f) offsetof(request, f)

/* ---- messages ---- */

static err read_calls(const char *where, const json_t *list, json_t *message) {
    if (!json_is_array(list)) return field_wrong(where, "a list", list);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i), *f = json_object_get(c, "function");
        const char *type = json_string_value(json_object_get(c, "type"));
        const char *id = json_string_value(json_object_get(c, "id"));
        const char *name = json_string_value(json_object_get(f, "name"));
        const json_t *arguments = json_object_get(f, "arguments");
        if (type && strcmp(type, "function") != 0)
            return err_make(ERR_ARG, "%s[%zu].type: only \"function\" is possible", where, i);
        if (!name) return err_make(ERR_ARG, "%s[%zu].function.name: must be a string", where, i);
        if (arguments && !json_is_string(arguments))
            return err_make(ERR_ARG, "%s[%zu].function.arguments: must be a string of JSON", where,
                            i);
        TRY(message_call(message, id ? id : "", name,
                         arguments ? json_string_value(arguments) : ""));
    }
    return err_none();
}

/* Fields of a message that change nothing here: labels, what answers of ours carry anyway. */
static const char *const message_known[] = {
    "role",  "content",       "name", "tool_calls", "tool_call_id",      "refusal",
    "audio", "annotations",   "id",   "reasoning",  "reasoning_content", "reasoning_details",
    "type",  "cache_control", NULL};

static err check_message(const char *where, const json_t *m) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)m, key, value) {
        bool known = json_is_null(value);
        for (int i = 0; message_known[i] && !known; i++) known = !strcmp(message_known[i], key);
        if (!known && strcmp(key, "function_call") == 0)
            return err_make(ERR_ARG, "%s.function_call: is no longer used; send tool_calls", where);
        if (!known) return err_make(ERR_ARG, "%s.%.60s: unknown field", where, key);
    }
    const json_t *audio = json_object_get(m, "audio");
    if (audio && !json_is_null(audio))
        return err_make(ERR_ARG, "%s.audio: this model reads text", where);
    return err_none();
}

static err assistant_extras(const char *where, const json_t *m, json_t *message) {
    char name[160];
    const json_t *thought = json_object_get(m, "reasoning_content");
    if (!thought || json_is_null(thought)) thought = json_object_get(m, "reasoning");
    if (json_is_string(thought))
        json_object_set(message, "reasoning_content", (json_t *)(uintptr_t)thought);
    const json_t *calls = json_object_get(m, "tool_calls");
    snprintf(name, sizeof name, "%.100s.tool_calls", where);
    return calls && !json_is_null(calls) ? read_calls(name, calls, message) : err_none();
}

static err read_message(size_t i, const json_t *m, request *r) {
    char where[64], name[160];
    snprintf(where, sizeof where, "messages[%zu]", i);
    if (!json_is_object(m)) return field_wrong(where, "an object", m);
    TRY(check_message(where, m));
    const char *role = json_string_value(json_object_get(m, "role"));
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    size_t k = 0;
    while (k < 5 && !(role && strcmp(role, roles[k]) == 0)) k++;
    if (k == 5)
        return err_make(ERR_ARG,
                        "%s.role: must be \"system\", \"developer\", \"user\", \"assistant\" or "
                        "\"tool\"",
                        where);
    const json_t *content = json_object_get(m, "content");
    if (k != 3 && (!content || json_is_null(content)))
        return err_make(ERR_ARG, "%s.content: is missing", where);
    json_t *text;
    snprintf(name, sizeof name, "%.100s.content", where);
    TRY(field_text(name, content, k == 3 ? "text refusal" : "text", &text));
    json_t *message = message_add(r, k == 1 ? "system" : role, text);
    if (!message) return err_make(ERR_NOMEM, "no memory for the messages");
    if (json_is_string(json_object_get(m, "name")))
        json_object_set(message, "name", json_object_get(m, "name"));
    if (k == 3) return assistant_extras(where, m, message);
    if (k != 4) return err_none();
    const json_t *id = json_object_get(m, "tool_call_id");
    if (!json_is_string(id)) return err_make(ERR_ARG, "%s.tool_call_id: must be a string", where);
    json_object_set(message, "tool_call_id", (json_t *)(uintptr_t)id);
    return err_none();
}

static err read_messages(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    if (json_array_size(value) == 0) return err_make(ERR_ARG, "%s: is empty", name);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(read_message(i, json_array_get(value, i), r));
    return err_none();
}

/* ---- the other fields ---- */

static err read_choice(const char *name, json_t *value, request *r) {
    const char *word = json_string_value(value);
    if (word && strcmp(word, "auto") == 0) return err_none();
    if (word && (!strcmp(word, "none") || !strcmp(word, "required"))) {
        r->choice = word[0] == 'n' ? TOOL_NONE : TOOL_REQUIRED;
        return err_none();
    }
    const char *type = json_string_value(json_object_get(value, "type"));
    if (type && strcmp(type, "function") == 0) {
        const json_t *f = json_object_get(value, "function");
        const char *tool = json_string_value(json_object_get(f ? f : value, "name"));
        if (tool) return tools_choose(r, name, tool);
    }
    if (type && strcmp(type, "allowed_tools") == 0) {
        const json_t *a = json_object_get(value, "allowed_tools");
        if (!a) a = value;
        const char *mode = json_string_value(json_object_get(a, "mode"));
        if (mode && strcmp(mode, "required") == 0) r->choice = TOOL_REQUIRED;
        return tools_allow(r, name, json_object_get(a, "tools"));
    }
    return err_make(ERR_ARG, "%s: must be \"auto\", \"none\", \"required\" or a function by name",
                    name);
}

static err read_budget(const char *name, json_t *value, request *r) {
    return field_int(name, value, -1, INT32_MAX, &r->thinking_budget);
}

const field chat_fields[] = {
    {.name = "messages", .read = read_messages},
    {.name = "tools", .read = read_chat_tools},
    {.name = "tool_choice", .read = read_choice},
    {.name = "parallel_tool_calls", .read = read_parallel},
    {.name = "max_tokens", FIELD_INT, REQUEST(max_tokens), 1, INT32_MAX},
    {.name = "max_completion_tokens", FIELD_INT, REQUEST(max_tokens), 1, INT32_MAX},
    {.name = "logprobs", FIELD_BOOL, REQUEST(logprobs)},
    {.name = "top_logprobs", FIELD_INT, REQUEST(top_logprobs), 0, SCHED_TOP_MAX},
    {.name = "reasoning_effort", .read = read_effort},
    {.name = "thinking_budget", .read = read_budget},
    {.name = "chat_template_kwargs", .read = read_kwargs},
    {.name = "safety_identifier", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "prompt_cache_key", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "prompt_cache_retention", FIELD_NO_EFFECT, .why = "a string"},
    {.name = "metadata", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "prediction", FIELD_NO_EFFECT, .why = "an object"},
    {.name = "store", FIELD_ONLY, .why = "[false]"},
    {.name = "service_tier", FIELD_ONLY, .why = "[\"auto\", \"default\"]"},
    {.name = "modalities", FIELD_ONLY, .why = "[[\"text\"]]"},
    {.name = "verbosity", FIELD_ONLY, .why = "[\"medium\"]"},
    {.name = "audio", FIELD_REFUSED, .why = "this model writes text"},
    {.name = "web_search_options", FIELD_REFUSED, .why = "this server does not search the web"},
    {.name = "functions", FIELD_REFUSED, .why = "is no longer used; send tools"},
    {.name = "function_call", FIELD_REFUSED, .why = "is no longer used; send tool_choice"},
    {.more = openai_fields}};

err parse_chat(request *r) {
    TRY(fields_read(chat_fields, r->body, "", r));
    if (!r->messages) return err_make(ERR_ARG, "messages: is missing");
    return err_none();
}

const field template_fields[] = {
    {.name = "model", FIELD_STRING, REQUEST(model)},
    {.name = "messages", .read = read_messages},
    {.name = "tools", .read = read_chat_tools},
    {.name = "add_generation_prompt", FIELD_BOOL, REQUEST(generation_prompt)},
    {.name = "reasoning_effort", .read = read_effort},
    {.name = "chat_template_kwargs", .read = read_kwargs},
    {0}};

err parse_template(request *r) {
    TRY(fields_read(template_fields, r->body, "", r));
    if (!r->messages) return err_make(ERR_ARG, "messages: is missing");
    return err_none();
}
