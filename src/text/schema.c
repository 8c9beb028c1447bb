/* schema.c: see schema.h.
 *
 *     resolve(set of schemas that must all hold) -> node, remembered by the set
 *       flatten:  the set with everything that $ref and allOf lead to        (a "flat")
 *       expand:   for every anyOf and oneOf in it, one flat for each choice
 *       forms:    of each flat, for each type that is left (schema_forms.c)
 *
 * Sets hold pointers into the document, of which there are finitely many, so recursion ends at a
 * set that was seen. A schema that leads to itself without a property or item between has no
 * meaning and is refused: every item of a flat knows which item brought it there. */
#include "text/schema.h"

#include <stdlib.h>
#include <string.h>

#include "text/json_pointer.h"
#include "text/schema_impl.h"

/* ---- keywords ---- */

static bool listed(const char *word, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(word, list[i]) == 0) return true;
    return false;
}
#define LISTED(word, list) listed(word, list, sizeof(list) / sizeof *(list))

static err check_keywords(const schema_reader *r, const json_t *s) {
    static const char *const known[] = {"type",
                                        "enum",
                                        "const",
                                        "properties",
                                        "required",
                                        "additionalProperties",
                                        "items",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        "minLength",
                                        "maxLength",
                                        "minimum",
                                        "maximum",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum",
                                        "pattern",
                                        "anyOf",
                                        "oneOf",
                                        "allOf",
                                        "$ref",
                                        "$defs",
                                        "definitions"};
    static const char *const ignored[] = {
        "title",    "description", "default",          "examples",        "deprecated",
        "readOnly", "writeOnly",   "$comment",         "$schema",         "$id",
        "format",   "$anchor",     "contentMediaType", "contentEncoding", "contentSchema"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)s, key, value) {
        if (LISTED(key, known) || LISTED(key, ignored)) continue;
        if (strcmp(key, "uniqueItems") == 0 && json_is_false(value)) continue;
        return schema_error(r, ERR_UNSUPPORTED, key, "this keyword is not supported");
    }
    return err_none();
}

err schema_error(const schema_reader *r, err_code code, const char *key, const char *message) {
    const char *colon = key ? ": " : "";
    return err_make(code, "%s: %s%s%s: %s", r->name, r->path, colon, key ? key : "", message);
}

/* ---- flats ---- */

static bool is_ancestor(const schema_flat *f, int item, const json_t *s) {
    for (; item >= 0; item = f->items[item].parent)
        if (f->items[item].schema == s) return true;
    return false;
}

static err flatten(schema_reader *r, const json_t *s, int parent, schema_flat *f);

static err flatten_list(schema_reader *r, const json_t *list, const char *key, int parent,
                        schema_flat *f) {
    if (!list) return err_none();
    if (!json_is_array(list) || !json_array_size(list))
        return schema_error(r, ERR_CORRUPT, key, "expected a list of schemas");
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(flatten(r, json_array_get(list, i), parent, f));
    return err_none();
}

static err flatten_reference(schema_reader *r, const json_t *reference, int parent,
                             schema_flat *f) {
    if (!reference) return err_none();
    const char *text = json_string_value(reference);
    if (!text) return schema_error(r, ERR_CORRUPT, "$ref", "expected a string");
    const json_t *target = json_pointer_get(r->document, text);
    if (target) return flatten(r, target, parent, f);
    return err_make(text[0] == '#' ? ERR_NOT_FOUND : ERR_UNSUPPORTED,
                    "%s: %s: $ref: \"%.200s\": %s", r->name, r->path, text,
                    text[0] == '#' ? "there is nothing at this place of the schema"
                                   : "only references within the schema (\"#/...\") are supported");
}

static err flatten(schema_reader *r, const json_t *s, int parent, schema_flat *f) {
    if (json_is_true(s)) return err_none();
    if (json_is_false(s)) {
        f->never = true;
        return err_none();
    }
    if (!json_is_object(s))
        return schema_error(r, ERR_CORRUPT, NULL, "expected a schema (an object or a boolean)");
    if (is_ancestor(f, parent, s))
        return schema_error(r, ERR_UNSUPPORTED, "$ref",
                            "the schema refers to itself without a property or item between");
    for (int i = 0; i < f->n; i++)
        if (f->items[i].schema == s) return err_none();
    if (f->n == SCHEMA_FLAT_MAX)
        return schema_error(r, ERR_RANGE, NULL, "more than " SCHEMA_FLAT_TEXT " schemas at once");
    TRY(check_keywords(r, s));
    int item = f->n++;
    f->items[item] = (schema_item){.schema = s, .parent = parent};
    TRY(flatten_reference(r, json_object_get(s, "$ref"), item, f));
    return flatten_list(r, json_object_get(s, "allOf"), "allOf", item, f);
}

/* ---- choices ---- */

static err expand(schema_reader *r, const schema_flat *f, schema_forms *out);

/* Every option of one anyOf or oneOf. */
static err expand_choice(schema_reader *r, const schema_flat *f, int item, const char *key,
                         schema_forms *out) {
    const json_t *options = json_object_get(f->items[item].schema, key);
    size_t n = json_array_size(options);
    if (!n) return schema_error(r, ERR_CORRUPT, key, "expected a list of schemas");
    if (n > SCHEMA_ALTERNATIVES_MAX)
        return schema_error(r, ERR_RANGE, key, "too many alternatives");
    if (++r->choices > SCHEMA_CHOICES_MAX)
        return schema_error(r, ERR_RANGE, key, "too many combinations of alternatives");
    schema_flat *next = malloc(sizeof *next);
    int *ends = calloc(n + 1, sizeof *ends);
    err e = next && ends ? err_none() : err_make(ERR_NOMEM, "%s: no memory", r->name);
    if (!e.code) ends[0] = out->n;
    for (size_t i = 0; i < n && !e.code; i++) {
        *next = *f;
        e = flatten(r, json_array_get(options, i), item, next);
        if (!e.code) e = expand(r, next, out);
        ends[i + 1] = out->n;
    }
    bool exclusive = strcmp(key, "oneOf") == 0;
    if (!e.code && exclusive && !schema_forms_disjoint(r, out, ends, (int)n))
        e = schema_error(r, ERR_UNSUPPORTED, key,
                         "a value could fit two alternatives; give them different types, or a "
                         "required property with different constants, or use anyOf");
    free(ends);
    free(next);
    return e;
}

static err expand(schema_reader *r, const schema_flat *f, schema_forms *out) {
    for (int i = 0; i < f->n; i++) {
        static const char *const keys[2] = {"anyOf", "oneOf"};
        for (int k = 0; k < 2; k++) {
            if (f->items[i].expanded[k] || !json_object_get(f->items[i].schema, keys[k])) continue;
            if (r->depth > SCHEMA_DEPTH_MAX)
                return schema_error(r, ERR_RANGE, NULL, "nested too deeply");
            schema_flat *marked = malloc(sizeof *marked);
            if (!marked) return err_make(ERR_NOMEM, "%s: no memory", r->name);
            *marked = *f;
            marked->items[i].expanded[k] = true;
            r->depth++;
            err e = expand_choice(r, marked, i, keys[k], out);
            r->depth--;
            free(marked);
            return e;
        }
    }
    return schema_flat_forms(r, f, out);
}

/* ---- nodes ---- */

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (const json_t *const *)a,
              y = (uintptr_t) * (const json_t *const *)b;
    return (x > y) - (x < y);
}

/* Sorted, without duplicates and without `true`. */
static void tidy(schema_set *set) {
    int n = 0;
    qsort(set->items, (size_t)set->n, sizeof *set->items, by_address);
    for (int i = 0; i < set->n; i++)
        if (!json_is_true(set->items[i]) && (n == 0 || set->items[n - 1] != set->items[i]))
            set->items[n++] = set->items[i];
    set->n = n;
}

static err new_node(schema_reader *r, const schema_set *set, int *out) {
    schema *s = r->out;
    if (s->n_nodes == SCHEMA_NODES_MAX)
        return schema_error(r, ERR_RANGE, NULL, "the schema has too many parts");
    r->sets[s->n_nodes] = *set;
    s->nodes[s->n_nodes] = (schema_node){0};
    *out = s->n_nodes++;
    return err_none();
}

err schema_resolve(schema_reader *r, schema_set *set, const char *segment, int *out) {
    tidy(set);
    *out = SCHEMA_ANY;
    if (set->n == 0) return err_none();
    for (int i = 0; i < r->out->n_nodes; i++) {
        *out = i;
        if (r->sets[i].n == set->n &&
            memcmp(r->sets[i].items, set->items, (size_t)set->n * sizeof *set->items) == 0)
            return err_none();
    }
    TRY(new_node(r, set, out));
    if (r->depth > SCHEMA_DEPTH_MAX) return schema_error(r, ERR_RANGE, NULL, "nested too deeply");
    size_t length = strlen(r->path), room = sizeof r->path - length - 2;
    if (segment && strlen(segment) < room) {
        r->path[length] = '/';
        memcpy(r->path + length + 1, segment, strlen(segment) + 1);
    }
    schema_flat *f = calloc(1, sizeof *f);
    schema_forms forms = {0};
    err e = f ? err_none() : err_make(ERR_NOMEM, "%s: no memory", r->name);
    r->depth++;
    for (int i = 0; i < set->n && !e.code; i++) e = flatten(r, set->items[i], -1, f);
    if (!e.code) e = expand(r, f, &forms);
    r->depth--;
    r->path[length] = '\0';
    free(f);
    schema_node *node = &r->out->nodes[*out];
    node->forms = forms.list;
    node->n_forms = forms.n;
    return e;
}

err schema_open(const json_t *document, const char *name, schema *out) {
    *out = (schema){.document = json_incref((json_t *)document)};
    out->nodes = calloc(SCHEMA_NODES_MAX, sizeof *out->nodes);
    schema_reader *r = calloc(1, sizeof *r);
    if (r) r->sets = calloc(SCHEMA_NODES_MAX, sizeof *r->sets);
    err e = r && r->sets && out->nodes ? err_none() : err_make(ERR_NOMEM, "%s: no memory", name);
    if (!e.code) {
        *r = (schema_reader){
            .name = name, .document = document, .out = out, .path = "#", .sets = r->sets};
        schema_set nothing = {0}, root = {.n = 1, .items = {document}};
        int any;
        e = new_node(r, &nothing, &any); /* SCHEMA_ANY */
        if (!e.code) e = schema_resolve(r, &root, NULL, &out->root);
    }
    if (r) free(r->sets);
    free(r);
    if (e.code) schema_close(out);
    return e;
}

void schema_close(schema *s) {
    for (int i = 0; i < s->n_nodes; i++) {
        for (int k = 0; k < s->nodes[i].n_forms; k++) schema_form_free(&s->nodes[i].forms[k]);
        free(s->nodes[i].forms);
    }
    free(s->nodes);
    json_decref(s->document);
    *s = (schema){0};
}
