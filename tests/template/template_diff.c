/* template_diff.c: renders what the differential tests ask for, one JSON object a line.
 *
 *     build/template-diff < cases > results
 *     {"template": TEXT, "context": {...}, "now": SECONDS}   ->   {"output": TEXT} or {"error":
 * TEXT}
 *
 * Without "template" the one before is used again. "marks": true adds "segments": [[mark, text]
 * ...]; bos_token and eos_token of the context are markup, everything else is content. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"
#include "text/text_buf.h"

typedef struct result {
    text_buf text;
    json_t *segments;
} result;

static err collect(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    result *r = ctx;
    json_array_append_new(r->segments, json_pack("[is%]", (int)mark, bytes, length));
    return text_buf_add(&r->text, bytes, length);
}

static err render(jinja_template *t, const json_t *one, result *out) {
    template_variable variables[64];
    int n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(one, "context"), key, value) {
        if (n == 64) return err_make(ERR_RANGE, "too many variables");
        bool special = strcmp(key, "bos_token") == 0 || strcmp(key, "eos_token") == 0;
        variables[n++] = (template_variable){
            .name = key, .value = value, .mark = special ? TEMPLATE_MARKUP : TEMPLATE_CONTENT};
    }
    const template_options options = {
        .variables = variables,
        .n_variables = n,
        .now = json_integer_value(json_object_get(one, "now")),
    };
    return template_render(t, &options, collect, out);
}

static json_t *answer(jinja_template **t, const json_t *one) {
    const json_t *source = json_object_get(one, "template");
    err e = err_none();
    if (source) {
        template_free(*t);
        e = template_parse("template", json_string_value(source), json_string_length(source), t);
    }
    if (!*t && !e.code) e = err_make(ERR_ARG, "no template");
    result r = {.segments = json_array()};
    if (!e.code) e = render(*t, one, &r);
    json_t *out = json_object();
    if (e.code) {
        json_object_set_new(out, "error", json_string(e.text));
        json_object_set_new(out, "code", json_string(err_code_name(e.code)));
    } else {
        const char *text = r.text.data ? r.text.data : "";
        json_object_set_new(out, "output", json_stringn(text, r.text.length));
        if (json_is_true(json_object_get(one, "marks"))) {
            json_object_set(out, "segments", r.segments);
        }
    }
    json_decref(r.segments);
    text_buf_free(&r.text);
    return out;
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    jinja_template *t = NULL;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        json_error_t why;
        json_t *one = json_loadb(line, (size_t)length, JSON_ALLOW_NUL, &why);
        if (!one) {
            fprintf(stderr, "template-diff: %s\n", why.text);
            return 1;
        }
        json_t *out = answer(&t, one);
        json_dumpf(out, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
        json_decref(out);
        json_decref(one);
    }
    template_free(t);
    free(line);
    return 0;
}
