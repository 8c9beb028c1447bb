/* schema_forms.c: the keywords of some schemas that must all hold, merged into one form per type.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/schema_impl.h"

enum {
    T_NULL = 1,
    T_BOOLEAN = 2,
    T_INTEGER = 4,
    T_NUMBER = 8, /* implies T_INTEGER */
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_ALL = 127
};

void schema_form_free(schema_form *f) {
    json_decref(f->values);
    free(f->properties);
    free(f->prefix);
    *f = (schema_form){0};
}

/* Takes the form over, also on failure. */
static err push_form(schema_reader *r, schema_forms *out, schema_form *form) {
    err e = err_none();
    if (out->n == SCHEMA_ALTERNATIVES_MAX || r->forms == SCHEMA_FORMS_MAX) {
        e = schema_error(r, ERR_RANGE, NULL, "too many alternatives");
    } else if (out->n == out->capacity) {
        int more = out->capacity ? out->capacity * 2 : 4;
        schema_form *moved = realloc(out->list, (size_t)more * sizeof *moved);
        if (!moved)
            e = err_make(ERR_NOMEM, "%s: no memory", r->name);
        else
            out->list = moved, out->capacity = more;
    }
    if (e.code) {
        schema_form_free(form);
        return e;
    }
    r->forms++;
    out->list[out->n++] = *form;
    return e;
}

/* ---- types ---- */

static unsigned type_named(const char *name) {
    static const struct {
        const char *name;
        unsigned type;
    } table[] = {{"null", T_NULL},       {"boolean", T_BOOLEAN},
                 {"integer", T_INTEGER}, {"number", T_NUMBER | T_INTEGER},
                 {"string", T_STRING},   {"array", T_ARRAY},
                 {"object", T_OBJECT}};
    for (size_t i = 0; name && i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0) return table[i].type;
    return 0;
}

static err read_type(const schema_reader *r, const json_t *type, unsigned *out) {
    *out = type_named(json_string_value(type));
    bool ok = *out != 0 || (json_is_array(type) && json_array_size(type));
    for (size_t i = 0; ok && i < json_array_size(type); i++) {
        unsigned one = type_named(json_string_value(json_array_get(type, i)));
        ok = one != 0;
        *out |= one;
    }
    return ok ? err_none()
              : schema_error(r, ERR_CORRUPT, "type",
                             "expected null, boolean, integer, number, string, array, object, or "
                             "a list of them");
}

static unsigned types_of_keyword(const char *key) {
    static const struct {
        const char *key;
        unsigned type;
    } table[] = {{"properties", T_OBJECT},
                 {"required", T_OBJECT},
                 {"additionalProperties", T_OBJECT},
                 {"items", T_ARRAY},
                 {"prefixItems", T_ARRAY},
                 {"minItems", T_ARRAY},
                 {"maxItems", T_ARRAY},
                 {"minLength", T_STRING},
                 {"maxLength", T_STRING},
                 {"pattern", T_STRING},
                 {"minimum", T_NUMBER | T_INTEGER},
                 {"maximum", T_NUMBER | T_INTEGER},
                 {"exclusiveMinimum", T_NUMBER | T_INTEGER},
                 {"exclusiveMaximum", T_NUMBER | T_INTEGER}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].key, key) == 0) return table[i].type;
    return 0;
}

/* The types that are left. Without a type anywhere they are those that keywords speak of, and
 * *narrowed says so. */
static err merge_types(const schema_reader *r, const schema_flat *f, unsigned *out,
                       bool *narrowed) {
    bool named = false;
    unsigned implied = 0;
    *out = T_ALL;
    for (int i = 0; i < f->n; i++) {
        const json_t *type = json_object_get(f->items[i].schema, "type");
        unsigned one = T_ALL;
        if (type) TRY(read_type(r, type, &one));
        named = named || type;
        *out &= one;
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)f->items[i].schema, key, value) {
            implied |= types_of_keyword(key);
        }
    }
    *narrowed = !named && implied;
    if (*narrowed) *out = implied;
    return err_none();
}

static unsigned type_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT: return T_OBJECT;
    case JSON_ARRAY: return T_ARRAY;
    case JSON_STRING: return T_STRING;
    case JSON_INTEGER: return T_INTEGER;
    case JSON_REAL: return fmod(json_real_value(value), 1) == 0 ? T_INTEGER : T_NUMBER;
    case JSON_NULL: return T_NULL;
    default: return T_BOOLEAN;
    }
}

/* ---- numbers and strings ---- */

static err read_bound(const schema_reader *r, const json_t *s, const char *key, double *out) {
    const json_t *value = json_object_get(s, key);
    *out = NAN;
    if (!value) return err_none();
    if (!json_is_number(value)) return schema_error(r, ERR_CORRUPT, key, "expected a number");
    *out = json_number_value(value);
    return err_none();
}

static err merge_numbers(const schema_reader *r, const schema_flat *f, schema_form *form) {
    form->low = -INFINITY;
    form->high = INFINITY;
    for (int i = 0; i < f->n; i++) {
        const json_t *s = f->items[i].schema;
        double low, high, above, below;
        TRY(read_bound(r, s, "minimum", &low));
        TRY(read_bound(r, s, "maximum", &high));
        TRY(read_bound(r, s, "exclusiveMinimum", &above));
        TRY(read_bound(r, s, "exclusiveMaximum", &below));
        if (low > form->low) form->low = low, form->low_exclusive = false;
        if (high < form->high) form->high = high, form->high_exclusive = false;
        if (above >= form->low) form->low = above, form->low_exclusive = true;
        if (below <= form->high) form->high = below, form->high_exclusive = true;
    }
    return err_none();
}

static bool number_fits(const schema_form *form, double x) {
    return (form->low_exclusive ? x > form->low : x >= form->low) &&
           (form->high_exclusive ? x < form->high : x <= form->high);
}

static err read_count(const schema_reader *r, const json_t *s, const char *key, int *out) {
    const json_t *value = json_object_get(s, key);
    if (!value) return err_none();
    double n = json_number_value(value);
    if (!json_is_number(value) || n < 0 || fmod(n, 1) != 0)
        return schema_error(r, ERR_CORRUPT, key, "expected a whole number");
    *out = n > 1e9 ? 1000000000 : (int)n;
    return err_none();
}

static err merge_counts(const schema_reader *r, const schema_flat *f, const char *const keys[2],
                        schema_form *form) {
    form->most = -1;
    for (int i = 0; i < f->n; i++) {
        int least = 0, most = -1;
        TRY(read_count(r, f->items[i].schema, keys[0], &least));
        TRY(read_count(r, f->items[i].schema, keys[1], &most));
        if (least > form->least) form->least = least;
        if (most >= 0 && (form->most < 0 || most < form->most)) form->most = most;
    }
    return err_none();
}

static err merge_strings(const schema_reader *r, const schema_flat *f, schema_form *form) {
    static const char *const keys[2] = {"minLength", "maxLength"};
    TRY(merge_counts(r, f, keys, form));
    for (int i = 0; i < f->n; i++) {
        const json_t *pattern = json_object_get(f->items[i].schema, "pattern");
        if (!pattern) continue;
        const char *text = json_string_value(pattern);
        if (!text) return schema_error(r, ERR_CORRUPT, "pattern", "expected a string");
        if (form->pattern && strcmp(form->pattern, text) != 0)
            return schema_error(r, ERR_UNSUPPORTED, "pattern",
                                "two different patterns for one string are not supported");
        form->pattern = text;
    }
    return err_none();
}

/* ---- enum and const ---- */

/* Code points of valid UTF-8. */
static int characters(const char *text) {
    int n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static bool contains(const json_t *list, const json_t *value) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *other = json_array_get(list, i);
        if (json_equal(other, value)) return true;
        if (json_is_number(other) && json_is_number(value) &&
            json_number_value(other) == json_number_value(value))
            return true;
    }
    return false;
}

/* A value of a listed enum against the other keywords. Those that would need a validator are
 * refused. */
static err value_fits(const schema_reader *r, const schema_flat *f, const json_t *value,
                      bool *fits) {
    schema_form number = {0}, string = {0};
    TRY(merge_numbers(r, f, &number));
    TRY(merge_strings(r, f, &string));
    unsigned type = type_of(value);
    *fits = true;
    if (json_is_number(value)) *fits = number_fits(&number, json_number_value(value));
    if (type == T_STRING) {
        int n = characters(json_string_value(value));
        *fits = n >= string.least && (string.most < 0 || n <= string.most);
        if (string.pattern)
            return schema_error(r, ERR_UNSUPPORTED, "pattern", "not supported beside enum");
    }
    for (int i = 0; i < f->n && (type & (T_ARRAY | T_OBJECT)); i++) {
        const char *key;
        json_t *unused;
        json_object_foreach((json_t *)f->items[i].schema, key, unused) {
            if (types_of_keyword(key) == type)
                return schema_error(r, ERR_UNSUPPORTED, key, "not supported beside enum");
        }
    }
    return err_none();
}

/* The list of one schema: enum, const, both, or NULL for neither. Owned by the caller. */
static err values_of(const schema_reader *r, const json_t *s, json_t **out) {
    const json_t *list = json_object_get(s, "enum"), *one = json_object_get(s, "const");
    *out = NULL;
    if (list && !json_is_array(list))
        return schema_error(r, ERR_CORRUPT, "enum", "expected a list");
    if (!list && !one) return err_none();
    *out = list ? json_copy((json_t *)list) : json_pack("[O]", one);
    if (*out && list && one) {
        for (size_t i = json_array_size(*out); i-- > 0;)
            if (!json_equal(json_array_get(*out, i), one)) json_array_remove(*out, i);
    }
    return *out ? err_none() : err_make(ERR_NOMEM, "%s: no memory", r->name);
}

static err merge_values(const schema_reader *r, const schema_flat *f, json_t **out) {
    *out = NULL;
    for (int i = 0; i < f->n; i++) {
        json_t *values;
        err e = values_of(r, f->items[i].schema, &values);
        if (e.code) {
            json_decref(*out);
            *out = NULL;
            return e;
        }
        if (!*out || !values) {
            if (values) *out = values;
            continue;
        }
        for (size_t k = json_array_size(*out); k-- > 0;)
            if (!contains(values, json_array_get(*out, k))) json_array_remove(*out, k);
        json_decref(values);
    }
    return err_none();
}

/* Takes values over. */
static err push_values(schema_reader *r, const schema_flat *f, unsigned types, json_t *values,
                       schema_forms *out) {
    for (size_t i = json_array_size(values); i-- > 0;) {
        const json_t *value = json_array_get(values, i);
        bool fits = false;
        err e = err_none();
        if (type_of(value) & types) e = value_fits(r, f, value, &fits);
        if (e.code) {
            json_decref(values);
            return e;
        }
        if (!fits) json_array_remove(values, i);
    }
    schema_form form = {.kind = SCHEMA_VALUES, .values = values};
    if (json_array_size(values)) return push_form(r, out, &form);
    json_decref(values);
    return err_none();
}

/* ---- objects ---- */

/* Adds to the set what one schema says of the property: NULL when it says nothing. */
static err add_said(const schema_reader *r, const json_t *s, const char *name, schema_set *set) {
    const json_t *said = json_object_get(json_object_get(s, "properties"), name);
    if (!said) said = json_object_get(s, "additionalProperties");
    if (!said) return err_none();
    if (set->n == SCHEMA_SET_MAX)
        return schema_error(r, ERR_RANGE, NULL, "too many schemas for one property");
    set->items[set->n++] = said;
    return err_none();
}

static schema_property *find_property(const schema_form *form, const char *name) {
    for (int i = 0; i < form->n_properties; i++)
        if (strcmp(form->properties[i].name, name) == 0) return &form->properties[i];
    return NULL;
}

/* The property, resolved, when it is new. */
static err add_property(schema_reader *r, const schema_flat *f, const char *name,
                        schema_form *form) {
    if (find_property(form, name)) return err_none();
    int n = form->n_properties;
    if ((n & (n - 1)) == 0) { /* a power of two: double */
        schema_property *moved =
            realloc(form->properties, (n ? (size_t)n * 2 : 1) * sizeof *form->properties);
        if (!moved) return err_make(ERR_NOMEM, "%s: no memory", r->name);
        form->properties = moved;
    }
    schema_set set = {0};
    for (int i = 0; i < f->n; i++) TRY(add_said(r, f->items[i].schema, name, &set));
    schema_property p = {.name = name};
    TRY(schema_resolve(r, &set, name, &p.node));
    form->properties[form->n_properties++] = p;
    return err_none();
}

static err add_required(schema_reader *r, const schema_flat *f, const json_t *list,
                        schema_form *form) {
    if (!list) return err_none();
    if (!json_is_array(list))
        return schema_error(r, ERR_CORRUPT, "required", "expected a list of names");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) return schema_error(r, ERR_CORRUPT, "required", "expected a list of names");
        TRY(add_property(r, f, name, form));
        find_property(form, name)->required = true;
    }
    return err_none();
}

static err merge_additional(schema_reader *r, const schema_flat *f, schema_form *form) {
    schema_set set = {0};
    bool said = false;
    for (int i = 0; i < f->n; i++) {
        const json_t *value = json_object_get(f->items[i].schema, "additionalProperties");
        if (!value) continue;
        said = true;
        if (json_is_false(value)) form->closed = true;
        if (set.n == SCHEMA_SET_MAX)
            return schema_error(r, ERR_RANGE, NULL, "too many schemas for one property");
        set.items[set.n++] = value;
    }
    form->additional = SCHEMA_NEVER;
    if (form->closed || (!said && form->n_properties)) return err_none();
    return schema_resolve(r, &set, "additionalProperties", &form->additional);
}

static err merge_object(schema_reader *r, const schema_flat *f, schema_form *form) {
    for (int i = 0; i < f->n; i++) {
        const json_t *properties = json_object_get(f->items[i].schema, "properties");
        if (properties && !json_is_object(properties))
            return schema_error(r, ERR_CORRUPT, "properties", "expected an object");
        const char *name;
        json_t *unused;
        json_object_foreach((json_t *)properties, name, unused) TRY(add_property(r, f, name, form));
    }
    for (int i = 0; i < f->n; i++)
        TRY(add_required(r, f, json_object_get(f->items[i].schema, "required"), form));
    return merge_additional(r, f, form);
}

/* ---- arrays ---- */

static err add_item(const schema_reader *r, const json_t *s, size_t i, schema_set *set) {
    const json_t *prefix = json_object_get(s, "prefixItems"), *items = json_object_get(s, "items");
    if (json_is_array(items))
        return schema_error(r, ERR_UNSUPPORTED, "items",
                            "a list of schemas is prefixItems since draft 2020-12");
    const json_t *said = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
    if (!said) return err_none();
    if (set->n == SCHEMA_SET_MAX)
        return schema_error(r, ERR_RANGE, NULL, "too many schemas for one item");
    set->items[set->n++] = said;
    return err_none();
}

static err merge_array(schema_reader *r, const schema_flat *f, schema_form *form) {
    static const char *const keys[2] = {"minItems", "maxItems"};
    TRY(merge_counts(r, f, keys, form));
    size_t prefix = 0;
    for (int i = 0; i < f->n; i++) {
        size_t n = json_array_size(json_object_get(f->items[i].schema, "prefixItems"));
        if (n > prefix) prefix = n;
    }
    if (prefix > SCHEMA_ALTERNATIVES_MAX)
        return schema_error(r, ERR_RANGE, "prefixItems", "too many");
    form->prefix = calloc(prefix + 1, sizeof *form->prefix);
    if (!form->prefix) return err_make(ERR_NOMEM, "%s: no memory", r->name);
    for (size_t k = 0; k <= prefix; k++) { /* the last: everything after the prefix */
        schema_set set = {0};
        for (int i = 0; i < f->n; i++) TRY(add_item(r, f->items[i].schema, k, &set));
        int node;
        TRY(schema_resolve(r, &set, k < prefix ? "prefixItems" : "items", &node));
        if (k < prefix)
            form->prefix[form->n_prefix++] = node;
        else
            form->items = node;
    }
    return err_none();
}

/* ---- all of it ---- */

/* A form that its own bounds leave empty is not one. */
static bool possible(const schema_form *f) {
    if (f->kind == SCHEMA_STRING || f->kind == SCHEMA_ARRAY)
        return f->most < 0 || f->least <= f->most;
    if (f->kind == SCHEMA_INTEGER || f->kind == SCHEMA_NUMBER)
        return f->low < f->high || (f->low == f->high && !f->low_exclusive && !f->high_exclusive);
    return true;
}

static err push_type(schema_reader *r, const schema_flat *f, schema_kind kind, unsigned types,
                     schema_forms *out) {
    schema_form form = {.kind = kind, .other_types = T_ALL & ~types};
    err e = err_none();
    switch (kind) {
    case SCHEMA_INTEGER:
    case SCHEMA_NUMBER: e = merge_numbers(r, f, &form); break;
    case SCHEMA_STRING: e = merge_strings(r, f, &form); break;
    case SCHEMA_ARRAY: e = merge_array(r, f, &form); break;
    case SCHEMA_OBJECT: e = merge_object(r, f, &form); break;
    default: break;
    }
    if (!e.code && possible(&form)) return push_form(r, out, &form);
    schema_form_free(&form);
    return e;
}

err schema_flat_forms(schema_reader *r, const schema_flat *f, schema_forms *out) {
    static const struct {
        unsigned type;
        schema_kind kind;
    } kinds[] = {{T_OBJECT, SCHEMA_OBJECT},   {T_ARRAY, SCHEMA_ARRAY},
                 {T_STRING, SCHEMA_STRING},   {T_NUMBER, SCHEMA_NUMBER},
                 {T_INTEGER, SCHEMA_INTEGER}, {T_BOOLEAN, SCHEMA_BOOLEAN},
                 {T_NULL, SCHEMA_NULL}};
    if (f->never) return err_none();
    unsigned types;
    bool narrowed;
    json_t *values;
    TRY(merge_types(r, f, &types, &narrowed));
    TRY(merge_values(r, f, &values));
    if (values) return push_values(r, f, narrowed ? T_ALL : types, values, out);
    if (types & T_NUMBER) types &= ~(unsigned)T_INTEGER;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (types & kinds[i].type)
            TRY(push_type(r, f, kinds[i].kind, narrowed ? types : T_ALL, out));
    return err_none();
}

/* ---- can one value fit both? ---- */

static unsigned kind_types(const schema_form *f) {
    static const unsigned types[] = {0,        T_NULL,  T_BOOLEAN, T_INTEGER, T_NUMBER | T_INTEGER,
                                     T_STRING, T_ARRAY, T_OBJECT};
    unsigned all = types[f->kind];
    for (size_t i = 0; i < json_array_size(f->values); i++)
        all |= type_of(json_array_get(f->values, i));
    return all;
}

static bool forms_apart(const schema_reader *r, const schema_form *a, const schema_form *b);

/* No value fits both, as far as one can see without looking into objects. */
static bool nodes_apart(const schema_reader *r, int a, int b) {
    const schema_node *x = &r->out->nodes[a], *y = &r->out->nodes[b];
    for (int i = 0; i < x->n_forms; i++)
        for (int k = 0; k < y->n_forms; k++) {
            bool objects = x->forms[i].kind == SCHEMA_OBJECT && y->forms[k].kind == SCHEMA_OBJECT;
            if (objects || !forms_apart(r, &x->forms[i], &y->forms[k])) return false;
        }
    return x->n_forms > 0 && y->n_forms > 0; /* none: any value, or not known yet */
}

/* A property that every object of a has and that no object of b can have with such a value. */
static bool told_apart(const schema_reader *r, const schema_form *a, const schema_form *b) {
    for (int i = 0; i < a->n_properties; i++) {
        const schema_property *p = &a->properties[i], *q = find_property(b, p->name);
        if (!p->required) continue;
        if (!q && b->closed) return true;
        if (q && nodes_apart(r, p->node, q->node)) return true;
    }
    return false;
}

static bool ranges_apart(const schema_form *a, const schema_form *b) {
    return a->high < b->low || (a->high == b->low && (a->high_exclusive || b->low_exclusive));
}

static bool forms_apart(const schema_reader *r, const schema_form *a, const schema_form *b) {
    if ((kind_types(a) & b->other_types) || (kind_types(b) & a->other_types)) return false;
    if (!(kind_types(a) & kind_types(b))) return true;
    if (a->kind == SCHEMA_VALUES && b->kind == SCHEMA_VALUES) {
        for (size_t i = 0; i < json_array_size(a->values); i++)
            if (contains(b->values, json_array_get(a->values, i))) return false;
        return true;
    }
    if (a->kind == SCHEMA_VALUES || b->kind == SCHEMA_VALUES) return false;
    if (a->kind == SCHEMA_OBJECT) return told_apart(r, a, b) || told_apart(r, b, a);
    if (a->kind == SCHEMA_STRING || a->kind == SCHEMA_ARRAY)
        return (a->most >= 0 && a->most < b->least) || (b->most >= 0 && b->most < a->least);
    if (a->kind == SCHEMA_NULL || a->kind == SCHEMA_BOOLEAN) return false;
    return ranges_apart(a, b) || ranges_apart(b, a);
}

bool schema_forms_disjoint(const schema_reader *r, const schema_forms *forms, const int *ends,
                           int n) {
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n; k++)
            for (int a = ends[i]; a < ends[i + 1]; a++)
                for (int b = ends[k]; b < ends[k + 1]; b++)
                    if (!forms_apart(r, &forms->list[a], &forms->list[b])) return false;
    return true;
}
