/* serve_script.c: see serve_script.h. */
#include "serve_script.h"

#include <stdio.h>
#include <string.h>

#ifdef FM_TEST_BUILD

static char *answer(void *ctx, const request *r) {
    size_t i, n = json_array_size(r->messages);
    const json_t *last = n ? json_array_get(r->messages, n - 1) : NULL;
    const char *text = json_string_value(json_object_get(last, "content"));
    const char *role = json_string_value(json_object_get(last, "role"));
    json_t *rule;
    json_array_foreach((json_t *)ctx, i, rule) {
        const char *match = json_string_value(json_object_get(rule, "match"));
        const char *reply = json_string_value(json_object_get(rule, "reply"));
        const char *only = json_string_value(json_object_get(rule, "role"));
        if (!text || !role || !match || !reply || !strstr(text, match)) continue;
        if (json_is_true(json_object_get(rule, "tools")) && !r->tools) continue;
        if (only && strcmp(only, role) != 0) continue;
        return strdup(reply);
    }
    return NULL;
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
