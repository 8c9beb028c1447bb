/* template.c: the face of the template engine, see template.h and jinja_impl.h. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "text/jinja_impl.h"

enum { STEPS_DEFAULT = 50000000 };
#define MEMORY_DEFAULT ((size_t)512 << 20)
#define OUTPUT_DEFAULT ((size_t)64 << 20)
#define PARSE_MEMORY   ((size_t)1 << 30) /* a token is 16 times its byte, a node more */

err template_parse(const char *name, const char *source, size_t length, jinja_template **out) {
    *out = NULL;
    if (length > TEMPLATE_SOURCE_MAX) {
        return err_make(ERR_RANGE, "%s: %zu bytes, more than the %u that a template may have", name,
                        length, TEMPLATE_SOURCE_MAX);
    }
    jinja_template *t = calloc(1, sizeof *t);
    if (!t) return err_make(ERR_NOMEM, "%s: no memory", name);
    t->pool.limit = PARSE_MEMORY;
    t->name = strdup(name);
    t->source = malloc(length + 1);
    err e = err_none();
    jtoken *tokens = NULL;
    if (!t->name || !t->source) {
        e = err_make(ERR_NOMEM, "%s: no memory", name);
        goto fail;
    }
    if (length) memcpy(t->source, source, length);
    t->source[length] = '\0';
    e = jinja_lex(t, t->source, length, &tokens);
    if (!e.code) e = jinja_parse(t, tokens);
    if (e.code) goto fail;
    *out = t;
    return e;
fail:
    template_free(t);
    return e;
}

void template_free(jinja_template *t) {
    if (!t) return;
    jpool_free(&t->pool);
    free(t->name);
    free(t->source);
    free(t);
}

const char *template_source(const jinja_template *t) { return t->source; }

/* A list whose elements have marks of their own. */
static bool marked_list(jrun *r, const template_variable *v, jvalue *out) {
    jlist *l = jlist_new(r, json_array_size(v->value));
    if (!l) return false;
    for (size_t i = 0; i < json_array_size(v->value); i++) {
        jvalue one;
        if (!jfrom_json(r, json_array_get(v->value, i), v->element_marks[i], &one)) return false;
        if (!jlist_push(r, l, one)) return false;
    }
    *out = jfrom_list(l);
    return true;
}

static bool set_variables(jrun *r, const template_options *options) {
    r->context = jdict_new(r);
    for (int i = 0; r->context && i < options->n_variables; i++) {
        const template_variable *v = &options->variables[i];
        jtext *name = jtext_literal(r, v->name);
        jvalue value;
        bool marked = v->element_marks && json_is_array(v->value);
        bool good = marked ? marked_list(r, v, &value) : jfrom_json(r, v->value, v->mark, &value);
        if (!name || !good || !jdict_set(r, r->context, jstring(name), value)) return false;
    }
    return r->context != NULL;
}

static err hand_out(const jbuf *b, template_sink sink, void *ctx) {
    for (size_t at = 0, end; at < b->count; at = end) {
        uint8_t mark = b->marks ? b->marks[at] : b->mark;
        end = b->marks ? at + 1 : b->count;
        while (end < b->count && b->marks[end] == mark) end++;
        TRY(sink(ctx, mark, b->bytes + at, end - at));
    }
    return err_none();
}

err template_render(const jinja_template *t, const template_options *options, template_sink sink,
                    void *ctx) {
    jbuf out = {0};
    jrun r = {
        .t = t,
        .pool.limit = options->max_memory ? options->max_memory : MEMORY_DEFAULT,
        .error = err_none(),
        .steps = options->max_steps ? options->max_steps : STEPS_DEFAULT,
        .max_output = options->max_output ? options->max_output : OUTPUT_DEFAULT,
        .out = &out,
        .now = options->now,
    };
    err e;
    if (set_variables(&r, options) && jrun_template(&r)) {
        e = hand_out(&out, sink, ctx);
    } else {
        e = r.error;
    }
    jpool_free(&r.pool);
    return e;
}
