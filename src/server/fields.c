/* fields.c: reading tables of fields, and what the APIs share (see fields.h). */
#include "server/fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/json_repair.h"

err field_wrong(const char *name, const char *wanted, const json_t *value) {
    return err_make(ERR_ARG, "%s: must be %s, not %s", name, wanted, json_kind(value));
}

err field_int(const char *name, const json_t *value, int64_t low, int64_t high, int64_t *out) {
    bool whole = json_is_integer(value) ||
                 (json_is_real(value) && json_real_value(value) == floor(json_real_value(value)) &&
                  fabs(json_real_value(value)) < 9e15);
    if (!whole) return field_wrong(name, "a whole number", value);
    int64_t v =
        json_is_integer(value) ? json_integer_value(value) : (int64_t)json_real_value(value);
    if (v < low || v > high)
        return err_make(ERR_ARG, "%s: %lld is not within %lld and %lld", name, (long long)v,
                        (long long)low, (long long)high);
    *out = v;
    return err_none();
}

static err read_number(const field *f, const char *name, const json_t *value, request *r) {
    if (!json_is_number(value)) return field_wrong(name, "a number", value);
    double v = json_number_value(value);
    if (!(v >= f->low && v <= f->high))
        return err_make(ERR_ARG, "%s: %g is not within %g and %g", name, v, f->low, f->high);
    *(float *)((char *)&r->sampling + f->offset) = (float)v;
    return err_none();
}

static err read_only(const char *name, const json_t *value, const char *values) {
    json_t *list = json_loads(values, 0, NULL);
    bool found = false;
    for (size_t i = 0; i < json_array_size(list); i++)
        found = found || json_equal(json_array_get(list, i), value);
    json_decref(list);
    if (found) return err_none();
    return err_make(ERR_ARG, "%s: only %.*s is possible with this server", name,
                    (int)strlen(values) - 2, values + 1);
}

static bool of_kind(const json_t *value, const char *kinds) {
    const char *kind = json_kind(value);
    const char *space = strchr(kind, ' ');
    return strstr(kinds, space ? space + 1 : kind) != NULL;
}

static err read_field(const field *f, const char *name, json_t *value, request *r) {
    switch (f->kind) {
    case FIELD_CALL: return f->read(name, value, r);
    case FIELD_NUMBER: return read_number(f, name, value, r);
    case FIELD_INT:
        return field_int(name, value, (int64_t)f->low, (int64_t)f->high,
                         (int64_t *)((char *)r + f->offset));
    case FIELD_BOOL:
        if (!json_is_boolean(value)) return field_wrong(name, "true or false", value);
        *(bool *)((char *)r + f->offset) = json_is_true(value);
        return err_none();
    case FIELD_STRING:
        if (!json_is_string(value)) return field_wrong(name, "a string", value);
        *(const char **)((char *)r + f->offset) = json_string_value(value);
        return err_none();
    case FIELD_NO_EFFECT:
        return of_kind(value, f->why) ? err_none() : field_wrong(name, f->why, value);
    case FIELD_ONLY: return read_only(name, value, f->why);
    case FIELD_REFUSED: break;
    }
    return err_make(ERR_ARG, "%s: %s", name, f->why);
}

const field *field_at(const field *f) {
    if (f->more) f = f->more;
    return f->name ? f : NULL;
}

static const field *find(const field *f, const char *name) {
    for (; (f = field_at(f)); f++)
        if (strcmp(f->name, name) == 0) return f;
    return NULL;
}

#define SAMPLING(f) offsetof(fm_sampling, f)
#define REQUEST(f)  offsetof(request, f)

const field openai_fields[] = {
    {.name = "model", FIELD_STRING, REQUEST(model)},
    {.name = "temperature", FIELD_NUMBER, SAMPLING(temperature), 0, 2, SET_TEMPERATURE},
    {.name = "top_p", FIELD_NUMBER, SAMPLING(top_p), 0, 1, SET_TOP_P},
    {.name = "min_p", FIELD_NUMBER, SAMPLING(min_p), 0, 1, SET_MIN_P},
    {.name = "repetition_penalty",
     FIELD_NUMBER,
     SAMPLING(repetition_penalty),
     0.01,
     100,
     SET_REPETITION},
    {.name = "presence_penalty", FIELD_NUMBER, SAMPLING(presence_penalty), -2, 2, SET_PRESENCE},
    {.name = "frequency_penalty", FIELD_NUMBER, SAMPLING(frequency_penalty), -2, 2, SET_FREQUENCY},
    {.name = "top_k", .read = read_top_k, .set = SET_TOP_K},
    {.name = "seed", .read = read_seed, .set = SET_SEED},
    {.name = "stop", .read = read_stop},
    {.name = "n", FIELD_INT, REQUEST(n), 1, REQUEST_CHOICES_MAX},
    {.name = "logit_bias", .read = read_bias},
    {.name = "response_format", .read = read_format},
    {.name = "stream", FIELD_BOOL, REQUEST(stream)},
    {.name = "stream_options", .read = read_stream_options},
    {.name = "user", FIELD_NO_EFFECT, .why = "a string"},
    {0}};

err fields_read(const field *table, const json_t *object, const char *where, request *r) {
    const char *key;
    json_t *value;
    char name[256];
    json_object_foreach((json_t *)object, key, value) {
        if (find(table, key)) continue;
        return err_make(ERR_ARG, "%s%.100s: unknown field", where, key);
    }
    for (const field *f = table; (f = field_at(f)); f++) {
        value = json_object_get(object, f->name);
        if (!value || json_is_null(value)) continue;
        snprintf(name, sizeof name, "%s%s", where, f->name);
        TRY(read_field(f, name, value, r));
        r->set |= f->set;
    }
    return err_none();
}

/* ---- text in parts ---- */

static bool word_in(const char *word, const char *words) {
    size_t n = strlen(word);
    for (const char *p = words; n && (p = strstr(p, word)); p += n)
        if ((p == words || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0')) return true;
    return false;
}

static err part_text(const char *name, size_t i, const json_t *part, const char *types,
                     text_buf *out) {
    if (json_is_string(part))
        return text_buf_add(out, json_string_value(part), json_string_length(part));
    if (!json_is_object(part))
        return err_make(ERR_ARG, "%s[%zu]: must be an object with type and text", name, i);
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, type && !strcmp(type, "refusal") ? type : "text");
    if (type && !word_in(type, types))
        return err_make(ERR_ARG, "%s[%zu].type: %.60s is not possible here; this model reads text",
                        name, i, type);
    if (!json_is_string(text))
        return err_make(ERR_ARG, "%s[%zu].text: must be a string, not %s", name, i,
                        text ? json_kind(text) : "missing");
    return text_buf_add(out, json_string_value(text), json_string_length(text));
}

err field_text(const char *name, const json_t *value, const char *types, json_t **out) {
    *out = NULL;
    if (!value || json_is_null(value)) {
        *out = json_string("");
    } else if (json_is_string(value)) {
        *out = json_copy((json_t *)(uintptr_t)value);
    } else if (json_is_array(value)) {
        text_buf all = {0};
        err e = err_none();
        for (size_t i = 0; i < json_array_size(value) && !e.code; i++)
            e = part_text(name, i, json_array_get(value, i), types, &all);
        if (!e.code) *out = json_stringn(all.data ? all.data : "", all.length);
        text_buf_free(&all);
        if (e.code) return e;
    } else {
        return field_wrong(name, "a string or a list of text parts", value);
    }
    return *out ? err_none() : err_make(ERR_NOMEM, "no memory for %s", name);
}

/* ---- messages ---- */

json_t *message_add(request *r, const char *role, json_t *content) {
    json_t *m = json_object();
    if (!r->messages) r->messages = json_array();
    bool ok = m && r->messages && json_object_set_new(m, "role", json_string(role)) == 0;
    if (ok && content) {
        ok = json_object_set_new(m, "content", content) == 0;
    } else {
        json_decref(content);
    }
    if (!ok || json_array_append(r->messages, m) != 0) {
        json_decref(m);
        return NULL;
    }
    json_decref(m); /* the list has it */
    return m;
}

const char *message_last_role(const request *r) {
    size_t n = json_array_size(r->messages);
    const json_t *last = n ? json_array_get(r->messages, n - 1) : NULL;
    const char *role = json_string_value(json_object_get(last, "role"));
    return role ? role : "";
}

/* The arguments as an object, as templates want them; repaired where a model (or a client that cut
 * them) left them broken; text that is no object stays a string. */
static json_t *arguments_value(const char *text) {
    json_t *v = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (json_is_object(v)) return v;
    json_decref(v);
    if (!*text) return json_object();
    json_repair repair = {0};
    text_buf out = {0};
    size_t used;
    err e = json_repair_push(&repair, text, strlen(text), &out, &used);
    if (!e.code) e = json_repair_end(&repair, &out);
    v = e.code || !out.data ? NULL : json_loadb(out.data, out.length, JSON_DECODE_ANY, NULL);
    json_repair_free(&repair);
    text_buf_free(&out);
    if (json_is_object(v)) return v;
    json_decref(v);
    return json_string(text);
}

err message_call(json_t *m, const char *id, const char *name, const char *arguments) {
    json_t *calls = json_object_get(m, "tool_calls");
    if (!calls) {
        calls = json_array();
        if (json_object_set_new(m, "tool_calls", calls) != 0)
            return err_make(ERR_NOMEM, "no memory for a tool call");
    }
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", id, "type", "function", "function",
                             "name", name, "arguments", arguments_value(arguments));
    if (!call || json_array_append_new(calls, call) != 0)
        return err_make(ERR_NOMEM, "no memory for a tool call");
    return err_none();
}

/* ---- tools ---- */

err tools_add(request *r, const char *name, const json_t *description, const json_t *parameters,
              bool strict) {
    size_t n = name ? strlen(name) : 0;
    if (n < 1 || n > 256) return err_make(ERR_ARG, "tools: a name must have 1 to 256 characters");
    if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
        return err_make(ERR_ARG, "tools: the parameters of %.100s must be a JSON Schema object",
                        name);
    if (description && !json_is_string(description) && !json_is_null(description))
        return err_make(ERR_ARG, "tools: the description of %.100s must be a string", name);
    if (!r->tools) r->tools = json_array();
    if (json_array_size(r->tools) >= REQUEST_TOOLS_MAX)
        return err_make(ERR_ARG, "tools: at most %d", REQUEST_TOOLS_MAX);
    json_t *f = json_pack("{s:s}", "name", name);
    if (json_is_string(description)) json_object_set(f, "description", (json_t *)description);
    json_object_set(f, "parameters", json_is_object(parameters) ? (json_t *)parameters : NULL);
    if (!json_object_get(f, "parameters"))
        json_object_set_new(f, "parameters",
                            json_pack("{s:s, s:{}}", "type", "object", "properties"));
    if (strict) json_object_set_new(f, "strict", json_true());
    json_t *tool = json_pack("{s:s, s:o}", "type", "function", "function", f);
    if (!tool || json_array_append_new(r->tools, tool) != 0)
        return err_make(ERR_NOMEM, "no memory for the tools");
    return err_none();
}

static const char *tool_name(const json_t *tool) {
    return json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
}

err tools_choose(request *r, const char *field_name, const char *name) {
    for (size_t i = 0; i < json_array_size(r->tools); i++) {
        if (strcmp(tool_name(json_array_get(r->tools, i)), name) != 0) continue;
        r->choice = TOOL_NAMED;
        r->choice_name = name;
        return err_none();
    }
    return err_make(ERR_ARG, "%s: there is no tool %.100s in tools", field_name, name);
}

err tools_allow(request *r, const char *field_name, const json_t *list) {
    if (!json_is_array(list)) return err_make(ERR_ARG, "%s: tools must be a list", field_name);
    for (size_t k = json_array_size(r->tools); k-- > 0;) {
        bool allowed = false;
        for (size_t i = 0; i < json_array_size(list) && !allowed; i++) {
            const json_t *t = json_array_get(list, i);
            const char *name = json_string_value(json_object_get(t, "name"));
            if (!name) name = tool_name(t);
            allowed = name && strcmp(name, tool_name(json_array_get(r->tools, k))) == 0;
        }
        if (!allowed) json_array_remove(r->tools, k);
    }
    return err_none();
}

err read_chat_tools(const char *name, json_t *value, request *r) {
    if (!json_is_array(value)) return field_wrong(name, "a list", value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *t = json_array_get(value, i);
        const char *type = json_string_value(json_object_get(t, "type"));
        const json_t *f = json_object_get(t, "function");
        if (!type || strcmp(type, "function") != 0)
            return err_make(ERR_ARG, "%s[%zu].type: only \"function\" is possible", name, i);
        if (!json_is_object(f))
            return err_make(ERR_ARG, "%s[%zu].function: must be an object", name, i);
        TRY(tools_add(r, json_string_value(json_object_get(f, "name")),
                      json_object_get(f, "description"), json_object_get(f, "parameters"),
                      json_is_true(json_object_get(f, "strict"))));
    }
    return err_none();
}

/* ---- readers that several APIs share ---- */

err read_stop(const char *name, json_t *value, request *r) {
    if (!json_is_string(value) && !json_is_array(value))
        return field_wrong(name, "a string or a list of strings", value);
    json_t *list = json_is_array(value) ? json_incref(value) : json_pack("[O]", value);
    json_decref(r->stop);
    r->stop = list;
    if (json_array_size(list) > REQUEST_STOPS_MAX)
        return err_make(ERR_ARG, "%s: at most %d strings", name, REQUEST_STOPS_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        if (!json_is_string(s)) return err_make(ERR_ARG, "%s[%zu]: must be a string", name, i);
        if (json_string_length(s) < 1 || json_string_length(s) > 1024)
            return err_make(ERR_ARG, "%s[%zu]: must have 1 to 1024 bytes", name, i);
    }
    return err_none();
}

/* What the words mean for models that only know thinking on or off: a budget. */
err read_effort(const char *name, json_t *value, request *r) {
    static const struct {
        const char *word;
        int thinking, budget;
    } words[] = {{"none", 0, -1}, {"minimal", 0, -1}, {"low", 1, 1024}, {"medium", 1, 8192},
                 {"high", 1, -1}, {"xhigh", 1, -1},   {"max", 1, -1}};
    const char *word = json_string_value(value);
    for (size_t i = 0; word && i < sizeof words / sizeof *words; i++) {
        if (strcmp(word, words[i].word) != 0) continue;
        r->effort = word;
        r->thinking = words[i].thinking;
        r->thinking_budget = words[i].budget;
        return err_none();
    }
    return err_make(ERR_ARG,
                    "%s: must be \"none\", \"minimal\", \"low\", \"medium\", \"high\", "
                    "\"xhigh\" or \"max\"",
                    name);
}

err read_schema(const char *name, json_t *holder, request *r) {
    json_t *schema = json_object_get(holder, "schema");
    if (!json_is_object(schema))
        return err_make(ERR_ARG, "%s.schema: must be a JSON Schema object", name);
    r->format = FORMAT_SCHEMA;
    r->schema = schema;
    r->schema_name = json_string_value(json_object_get(holder, "name"));
    return err_none();
}

/* Chat: {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}; Responses: the same
 * without the inner object. */
err read_format(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *type = json_string_value(json_object_get(value, "type"));
    if (type && strcmp(type, "text") == 0) return err_none();
    if (type && strcmp(type, "json_object") == 0) {
        r->format = FORMAT_JSON;
        return err_none();
    }
    if (type && strcmp(type, "json_schema") == 0) {
        char where[128];
        json_t *inner = json_object_get(value, "json_schema");
        snprintf(where, sizeof where, "%s%s", name, inner ? ".json_schema" : "");
        return read_schema(where, inner ? inner : value, r);
    }
    return err_make(ERR_ARG, "%s.type: must be \"text\", \"json_object\" or \"json_schema\"", name);
}

err read_bias(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object of token ids", value);
    if (json_object_size(value) > REQUEST_BIAS_MAX)
        return err_make(ERR_ARG, "%s: at most %d tokens", name, REQUEST_BIAS_MAX);
    free(r->bias);
    r->n_bias = 0;
    r->bias = calloc(json_object_size(value) + 1, sizeof *r->bias);
    if (!r->bias) return err_make(ERR_NOMEM, "no memory for %s", name);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        char *end;
        long id = strtol(key, &end, 10);
        if (!*key || *end || id < 0 || id > INT32_MAX)
            return err_make(ERR_ARG, "%s: \"%.40s\" is not a token id", name, key);
        double bias = json_is_number(v) ? json_number_value(v) : NAN;
        if (!(bias >= -100 && bias <= 100))
            return err_make(ERR_ARG, "%s: the bias of token %ld must be within -100 and 100", name,
                            id);
        r->bias[r->n_bias++] = (sched_bias){(int32_t)id, (float)bias};
    }
    return err_none();
}

err read_kwargs(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    static const char *const taken[] = {"messages", "tools", "add_generation_prompt", "bos_token",
                                        "eos_token"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (json_object_get(value, taken[i]))
            return err_make(ERR_ARG, "%s.%s: is set by the server", name, taken[i]);
    if (json_object_update(r->kwargs, value) != 0)
        return err_make(ERR_NOMEM, "no memory for %s", name);
    const json_t *thinking = json_object_get(value, "enable_thinking");
    if (thinking && !json_is_boolean(thinking))
        return err_make(ERR_ARG, "%s.enable_thinking: must be true or false", name);
    if (thinking) r->thinking = json_is_true(thinking);
    return err_none();
}

/* include_obfuscation pads events against listeners; nothing is padded here. */
err read_stream_options(const char *name, json_t *value, request *r) {
    if (!json_is_object(value)) return field_wrong(name, "an object", value);
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v) {
        if (strcmp(key, "include_usage") != 0 && strcmp(key, "include_obfuscation") != 0)
            return err_make(ERR_ARG, "%s.%.60s: unknown field", name, key);
        if (!json_is_boolean(v) && !json_is_null(v))
            return err_make(ERR_ARG, "%s.%s: must be true or false", name, key);
    }
    r->include_usage = json_is_true(json_object_get(value, "include_usage"));
    return err_none();
}

err read_parallel(const char *name, json_t *value, request *r) {
    if (!json_is_boolean(value)) return field_wrong(name, "true or false", value);
    r->one_call = json_is_false(value);
    return err_none();
}

err read_seed(const char *name, json_t *value, request *r) {
    int64_t seed = 0;
    TRY(field_int(name, value, INT64_MIN, INT64_MAX, &seed));
    r->sampling.seed = (uint64_t)seed;
    return err_none();
}

err read_top_k(const char *name, json_t *value, request *r) {
    int64_t k = 0;
    TRY(field_int(name, value, -1, INT32_MAX, &k));
    r->sampling.top_k = k < 0 ? 0 : (int)k;
    return err_none();
}
