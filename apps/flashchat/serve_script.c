/* serve_script.c: see serve_script.h. */
#include "serve_script.h"

#include <stdio.h>
#include <string.h>

#ifdef FM_TEST_BUILD

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* One of the messages since the last answer has the rule's text. Clients put reminders of their own
 * behind what the person said. */
static bool said(const request *r, const json_t *rule) {
    const char *match = text_of(rule, "match"), *only = text_of(rule, "role");
    for (size_t i = json_array_size(r->messages); i-- > 0;) {
        const json_t *m = json_array_get(r->messages, i);
        const char *role = text_of(m, "role");
        if (strcmp(role, "assistant") == 0) return false;
        if (*only && strcmp(only, role) != 0) continue;
        if (strstr(text_of(m, "content"), match)) return true;
    }
    return false;
}

static bool answer(void *ctx, const request *r, server_script *out) {
    size_t i;
    json_t *rule;
    json_array_foreach((json_t *)ctx, i, rule) {
        const json_t *tools = json_object_get(rule, "tools");
        if (tools && json_is_true(tools) != (r->tools != NULL)) continue;
        if (!said(r, rule)) continue;
        out->text = strdup(text_of(rule, "reply"));
        out->more = (int)json_integer_value(json_object_get(rule, "more"));
        return out->text != NULL;
    }
    return false;
}

bool script_open(const char *program, const char *file, server_options *o) {
    if (!file) return true;
    json_error_t where;
    o->script_ctx = json_load_file(file, 0, &where);
    if (json_is_array((json_t *)o->script_ctx)) {
        o->script = answer;
        return true;
    }
    fprintf(stderr, "%s: %s: line %d: %s\n", program, file, where.line, where.text);
    json_decref(o->script_ctx);
    return false;
}

void script_close(server_options *o) { json_decref(o->script_ctx); }

#else

bool script_open(const char *program, const char *file, server_options *o) {
    (void)program, (void)file, (void)o;
    return true;
}

void script_close(server_options *o) { (void)o; }

#endif
