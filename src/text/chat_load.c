/* chat_load.c: finds a checkpoint's chat templates and special tokens, and tries out on small
 * conversations what the templates can do, because nothing declares it:
 *
 *     arguments of calls   as an object (most), or as JSON text that is pasted in
 *     content              as a list of parts, or only as a string
 *     content null         beside calls, or does it print "None" or fail? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/chat_impl.h"
#include "text/text_buf.h"

#define CONFIG_MAX ((size_t)64 << 20) /* some list every added token */

static err parse_file(const char *dir, const char *name, jinja_template **out) {
    char path[4096];
    char *text;
    size_t length;
    *out = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        return err_make(ERR_RANGE, "%s: the path is too long", dir);
    }
    TRY(json_read_text(path, TEMPLATE_SOURCE_MAX, &text, &length));
    err e = template_parse(path, text, length, out);
    free(text);
    return e;
}

/* The same, but nothing when there is no such file. */
static err parse_optional(const char *dir, const char *name, jinja_template **out) {
    err e = parse_file(dir, name, out);
    return e.code == ERR_NOT_FOUND ? err_none() : e;
}

/* tokenizer_config.json: chat_template is a string or [{"name", "template"}]. */
static err parse_config(chat *c, const json_t *value) {
    char name[4200];
    snprintf(name, sizeof name, "%s: chat_template", c->path);
    if (json_is_string(value)) {
        return template_parse(name, json_string_value(value), json_string_length(value),
                              &c->plain.parsed);
    }
    size_t i;
    json_t *one;
    json_array_foreach(value, i, one) {
        const char *kind = json_string_value(json_object_get(one, "name"));
        const json_t *text = json_object_get(one, "template");
        if (!kind || !json_is_string(text)) {
            return err_make(ERR_CORRUPT, "%s: item %zu: expected a name and a template", name, i);
        }
        bool tools = strcmp(kind, "tool_use") == 0;
        if (!tools && strcmp(kind, "default") != 0) continue;
        jinja_template **out = tools ? &c->tools.parsed : &c->plain.parsed;
        if (*out) return err_make(ERR_CORRUPT, "%s: two templates named %s", name, kind);
        TRY(template_parse(name, json_string_value(text), json_string_length(text), out));
    }
    return err_none();
}

/* A token is written as a string or as {"content": string}. */
static err read_specials(chat *c, const json_t *config) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        size_t n = strlen(key);
        if (n < 7 || strcmp(key + n - 6, "_token") != 0) continue;
        if (json_is_object(value)) value = json_object_get(value, "content");
        if (json_is_string(value) && json_object_set(c->specials, key, value) != 0) {
            return err_make(ERR_NOMEM, "%s: no memory", c->path);
        }
    }
    return err_none();
}

err chat_load_templates(chat *c, const char *dir) {
    char path[4096];
    json_t *config = NULL;
    if (snprintf(path, sizeof path, "%s/tokenizer_config.json", dir) >= (int)sizeof path) {
        return err_make(ERR_RANGE, "%s: the path is too long", dir);
    }
    c->path = strdup(path);
    c->specials = json_object();
    if (!c->path || !c->specials) return err_make(ERR_NOMEM, "%s: no memory", dir);
    err e = parse_optional(dir, "chat_template.jinja", &c->plain.parsed);
    if (!e.code) {
        e = parse_optional(dir, "additional_chat_templates/tool_use.jinja", &c->tools.parsed);
    }
    if (!e.code) {
        e = json_read_file(path, CONFIG_MAX, &config);
        if (e.code == ERR_NOT_FOUND) e = err_none();
    }
    if (!e.code && json_is_object(config)) {
        e = read_specials(c, config);
        const json_t *value = json_object_get(config, "chat_template");
        if (!e.code && !c->plain.parsed && value) e = parse_config(c, value);
    }
    json_decref(config);
    if (!e.code && !c->plain.parsed && c->tools.parsed) {
        c->plain = c->tools;
        c->tools.parsed = NULL;
    }
    if (!e.code && !c->plain.parsed) {
        e = err_make(ERR_NOT_FOUND,
                     "%s: no chat template (chat_template.jinja, or chat_template in "
                     "tokenizer_config.json); this model can only continue text",
                     dir);
    }
    return e;
}

/* ---- trying out ---- */

static err keep(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    (void)mark;
    return text_buf_add(ctx, bytes, length);
}

/* Does the template render this conversation, with all of `wanted` in it and nothing of `unwanted`?
 */
static bool renders(const chat *c, const chat_template *t, const char *conversation,
                    const char *wanted, const char *unwanted) {
    json_t *messages = json_loads(conversation, 0, NULL);
    text_buf text = {0};
    const template_variable variables[] = {
        {.name = "messages", .value = messages, .mark = MARK_CONTENT},
        {.name = "tools", .value = json_null()},
        {.name = "documents", .value = json_null()},
        {.name = "add_generation_prompt", .value = json_false()},
        {.name = "bos_token", .value = json_object_get(c->specials, "bos_token")},
        {.name = "eos_token", .value = json_object_get(c->specials, "eos_token")},
    };
    const template_options options = {.variables = variables, .n_variables = 6, .now = 1};
    bool good = messages && !template_render(t->parsed, &options, keep, &text).code && text.data;
    good = good && strstr(text.data, wanted) && (!unwanted || !strstr(text.data, unwanted));
    text_buf_free(&text);
    json_decref(messages);
    return good;
}

/* A question, an assistant message with this content and these arguments of a call, and its result.
 */
static bool renders_call(const chat *c, const chat_template *t, const char *content,
                         const char *arguments, const char *unwanted) {
    char conversation[800];
    snprintf(
        conversation, sizeof conversation,
        "[{\"role\": \"user\", \"content\": \"question\"}, {\"role\": \"assistant\", "
        "\"content\": %s, \"tool_calls\": [{\"id\": \"call00001\", \"type\": \"function\", "
        "\"function\": {\"name\": \"f\", \"arguments\": %s}}]}, {\"role\": \"tool\", \"name\": "
        "\"f\", \"tool_call_id\": \"call00001\", \"content\": \"result\"}]",
        content, arguments);
    return renders(c, t, conversation, "needle", unwanted);
}

void chat_try_out(chat *c, chat_template *t) {
    if (!t->parsed) return;
    const char *object = "{\"needle\": \"eye\"}", *text = "\"{\\\"needle\\\": \\\"eye\\\"}\"";
    const char *parts = "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
                        "\"needle\"}]}]";
    t->wants_text = !renders_call(c, t, "\"\"", object, "'needle'") &&
                    renders_call(c, t, "\"\"", text, "\\\"needle");
    const char *arguments = t->wants_text ? text : object;
    t->no_null = !renders_call(c, t, "null", arguments, "None") &&
                 renders_call(c, t, "\"\"", arguments, "None");
    t->flat_content =
        !renders(c, t, parts, "needle", "'type'") || !renders(c, t, parts, "needle", "\"type\"");
    t->developer = strstr(template_source(t->parsed), "developer") != NULL;
}
