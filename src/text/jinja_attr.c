/* jinja_attr.c: object.name, object[key] and slices, by the rules of Jinja's sandbox.
 *
 * object.name is first an attribute (a method), then an item; object[key] the other way round. What
 * is not there is undefined, which only fails when something is done with it. Methods that change
 * an object are not allowed. */
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "text/jinja_impl.h"
#include "text/unicode.h"

/* "'dict' has no attribute 'x'": the error, if somebody uses the value. */
static bool make_undefined(jrun *r, jvalue object, jvalue key, jvalue *out) {
    char room[200];
    int n;
    if (key.type == J_TEXT) {
        n = snprintf(room, sizeof room, "'%s' has no attribute '%.*s'", jtype_name(object),
                     (int)size_min(key.text->length, 80), key.text->bytes);
    } else if (key.type == J_INT) {
        n = snprintf(room, sizeof room, "'%s' has no item %lld", jtype_name(object),
                     (long long)key.i);
    } else {
        n = snprintf(room, sizeof room, "'%s' has no such item", jtype_name(object));
    }
    char *bytes = jrun_alloc(r, (size_t)n, 1);
    if (!bytes) return false;
    memcpy(bytes, room, (size_t)n);
    jtext *why = jtext_new(r, bytes, utf8_valid_prefix(bytes, (size_t)n), TEMPLATE_MARKUP);
    *out = jundefined(why);
    return why != NULL;
}

/* ---- attributes ---- */

static bool is_one_of(const jtext *name, const char *const *list) {
    for (int i = 0; list[i]; i++) {
        if (jtext_is(name, list[i])) return true;
    }
    return false;
}

/* Python has them and the sandbox forbids them: they are undefined. */
static bool is_forbidden(jvalue object, const jtext *name) {
    static const char *const list[] = {"append", "clear",   "extend", "insert", "pop",
                                       "remove", "reverse", "sort",   NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    if (object.type == J_LIST) return is_one_of(name, list);
    if (object.type == J_DICT) return is_one_of(name, dict);
    return false;
}

/* Python has them and we do not: never guess. */
static bool is_missing_method(jvalue object, const jtext *name) {
    static const char *const text[] = {"encode", "maketrans", "translate", "format_map", NULL};
    static const char *const number[] = {
        "real",       "imag",       "numerator", "denominator",
        "conjugate",  "bit_length", "to_bytes",  "as_integer_ratio",
        "is_integer", "hex",        NULL};
    static const char *const dict[] = {"fromkeys", NULL};
    static const char *const range[] = {"start", "stop", "step", "count", "index", NULL};
    static const char *const view[] = {"mapping", "isdisjoint", NULL};
    static const char *const macro[] = {"arguments", "catch_kwargs",    "catch_varargs",
                                        "caller",    "explicit_caller", NULL};
    switch (object.type) {
    case J_TEXT: return is_one_of(name, text);
    case J_BOOL:
    case J_INT:
    case J_FLOAT: return is_one_of(name, number);
    case J_DICT: return is_one_of(name, dict);
    case J_RANGE: return is_one_of(name, range);
    case J_VIEW: return is_one_of(name, view);
    case J_MACRO: return is_one_of(name, macro);
    default: return false;
    }
}

static const jnamed *methods_of(jvalue object, const jnamed **second) {
    *second = NULL;
    switch (object.type) {
    case J_TEXT: *second = jinja_text_methods_2; return jinja_text_methods;
    case J_LIST:
    case J_TUPLE: return jinja_list_methods;
    case J_DICT: return jinja_dict_methods;
    case J_CYCLER: return jinja_cycler_methods;
    default: return NULL;
    }
}

static bool bind_method(jrun *r, jvalue object, const jtext *name, jvalue *out, bool *found) {
    const jnamed *second, *table = methods_of(object, &second);
    *found = false;
    for (; table; table = second, second = NULL) {
        for (int i = 0; table[i].name; i++) {
            if (!jtext_is(name, table[i].name)) continue;
            jcall *call = jrun_alloc(r, 1, sizeof *call);
            if (!call) return false;
            *call = (jcall){.name = table[i].name, .fn = table[i].fn, .self = object};
            *out = (jvalue){.type = J_FUNCTION, .call = call};
            *found = true;
            return true;
        }
    }
    return true;
}

static bool is_dunder(const jtext *name) {
    return name->length > 4 && memcmp(name->bytes, "__", 2) == 0 &&
           memcmp(name->bytes + name->length - 2, "__", 2) == 0;
}

/* What is an attribute in Python, too; *found says whether there is one. */
static bool real_attribute(jrun *r, jvalue object, jtext *name, jvalue *out, bool *found) {
    *found = true;
    if (object.type == J_LOOP) return jloop_attr(r, object.loop, name, out, found);
    if (object.type == J_TUPLE && object.list->group) {
        if (jtext_is(name, "grouper") || jtext_is(name, "list")) {
            *out = object.list->items[name->bytes[0] == 'l'];
            return true;
        }
    }
    if (object.type == J_MACRO && jtext_is(name, "name")) {
        jtext *own = object.macro->node->name;
        *out = own ? jstring(own) : jnone();
        return true;
    }
    if (object.type == J_CYCLER && jtext_is(name, "current")) {
        *out = object.cycler->items->items[object.cycler->at];
        return true;
    }
    if (is_forbidden(object, name)) {
        *out = jundefined(jtext_literal(r, "a method that changes its object is not allowed here"));
        return out->text != NULL;
    }
    if (is_missing_method(object, name)) {
        return jrun_fail(r, ERR_UNSUPPORTED, "%s.%.*s", jtype_name(object), (int)name->length,
                         name->bytes);
    }
    if (is_dunder(name) && object.type != J_DICT && object.type != J_NAMESPACE) {
        return make_undefined(r, object, jstring(name), out);
    }
    return bind_method(r, object, name, out, found);
}

bool jget_attr(jrun *r, jvalue object, jtext *name, jvalue *out) {
    bool found;
    if (object.type == J_UNDEFINED) return jfail_undefined(r, object);
    jvalue *item = object.type == J_NAMESPACE ? jdict_find(object.dict, name) : NULL;
    if (!item) {
        if (!real_attribute(r, object, name, out, &found)) return false;
        if (found) return true;
        if (object.type == J_DICT) item = jdict_find(object.dict, name);
    }
    if (!item) return make_undefined(r, object, jstring(name), out);
    *out = *item;
    return true;
}

/* ---- items ---- */

static bool index_of(jvalue key, size_t count, size_t *out) {
    int64_t i = jinteger(key);
    if (i < 0) i += (int64_t)count;
    *out = (size_t)i;
    return i >= 0 && i < (int64_t)count;
}

/* object[key] for whole numbers. */
static bool get_index(jrun *r, jvalue object, jvalue key, jvalue *out, bool *found) {
    size_t at;
    *found = false;
    if (jis_sequence(object)) {
        *found = index_of(key, object.list->count, &at);
        if (*found) *out = object.list->items[at];
    } else if (object.type == J_RANGE) {
        *found = index_of(key, object.range->count, &at);
        if (*found) *out = jint(object.range->start + (int64_t)at * object.range->step);
    } else if (object.type == J_TEXT) {
        *found = index_of(key, object.text->chars, &at);
        if (!*found) return true;
        if (object.text->chars != object.text->length && !jrun_charge(r, at / 16)) return false;
        size_t from = jtext_offset(object.text, at), n;
        jtext_char(object.text, from, &n);
        jtext *c = jtext_slice(r, object.text, from, from + n);
        if (!c) return false;
        *out = jstring(c);
    }
    return true;
}

static bool is_hashable(jvalue v) {
    if (v.type == J_LIST || v.type == J_DICT) return false;
    for (size_t i = 0; v.type == J_TUPLE && i < v.list->count; i++) {
        if (!is_hashable(v.list->items[i])) return false;
    }
    return true;
}

bool jget_item(jrun *r, jvalue object, jvalue key, jvalue *out) {
    bool found = false;
    if (object.type == J_UNDEFINED) return jfail_undefined(r, object);
    if (object.type == J_DICT && is_hashable(key)) {
        jvalue *item;
        if (!jdict_get(r, object.dict, key, &item)) return false;
        if (item) {
            *out = *item;
            return true;
        }
    } else if (jis_integer(key)) {
        if (!get_index(r, object, key, out, &found)) return false;
        if (found) return true;
    }
    if (key.type == J_TEXT) {
        jvalue *item = object.type == J_NAMESPACE ? jdict_find(object.dict, key.text) : NULL;
        if (item) *out = *item;
        if (!item && !real_attribute(r, object, key.text, out, &found)) return false;
        if (item || found) return true;
    }
    return make_undefined(r, object, key, out);
}

/* ---- slices ---- */

typedef struct bounds {
    int64_t begin, end, step;
    size_t count;
} bounds;

static int64_t clamp(jvalue part, int64_t count, int64_t low, int64_t high, int64_t otherwise) {
    if (part.type == J_NONE) return otherwise;
    int64_t i = jinteger(part);
    if (i < 0) i = i < -count ? -1 : i + count;
    return i < low ? low : i > high ? high : i;
}

/* What Python's slice.indices gives. */
static bool slice_bounds(jrun *r, size_t size, const jvalue part[3], bounds *out) {
    for (int i = 0; i < 3; i++) {
        if (part[i].type != J_NONE && !jis_integer(part[i])) {
            return part[i].type == J_UNDEFINED
                       ? jfail_undefined(r, part[i])
                       : JFAIL(r, "slice indices are whole numbers, not %s", jtype_name(part[i]));
        }
    }
    int64_t n = (int64_t)size, step = part[2].type == J_NONE ? 1 : jinteger(part[2]);
    if (step == 0) return JFAIL(r, "slice step is zero");
    if (step < -INT64_MAX) step = -INT64_MAX;
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    int64_t begin = clamp(part[0], n, low, high, step < 0 ? high : low);
    int64_t end = clamp(part[1], n, low, high, step < 0 ? low : high);
    int64_t distance = step < 0 ? begin - end : end - begin;
    int64_t stride = step < 0 ? -step : step;
    *out = (bounds){begin, end, step, distance > 0 ? (size_t)((distance - 1) / stride + 1) : 0};
    return true;
}

static bool slice_text(jrun *r, const jtext *t, const bounds *b, jvalue *out) {
    jtext *made;
    if (b->step == 1 || b->count == 0) {
        size_t from = b->count ? jtext_offset(t, (size_t)b->begin) : 0;
        size_t to = b->count ? jtext_offset(t, (size_t)b->begin + b->count) : 0;
        made = jtext_slice(r, t, from, to);
    } else {
        jbuf buf = {0};
        jlist *chars;
        if (!jiterate(r, jstring((jtext *)(uintptr_t)t), &chars)) return false;
        for (size_t i = 0; i < b->count; i++) {
            const jtext *c = chars->items[b->begin + (int64_t)i * b->step].text;
            if (!jbuf_add_text(r, &buf, c)) return false;
        }
        made = jbuf_text(r, &buf);
        if (made) made->safe = t->safe;
    }
    if (made) *out = jstring(made);
    return made != NULL;
}

bool jslice(jrun *r, jvalue object, const jvalue part[3], jvalue *out) {
    bounds b = {0};
    size_t size;
    if (object.type == J_UNDEFINED) return jfail_undefined(r, object);
    bool can = object.type == J_TEXT || jis_sequence(object) || object.type == J_RANGE;
    if (!can) return JFAIL(r, "'%s' object cannot be sliced", jtype_name(object));
    if (!jlength(r, object, &size) || !slice_bounds(r, size, part, &b)) return false;
    if (object.type == J_TEXT) return slice_text(r, object.text, &b, out);
    if (object.type == J_RANGE) {
        jrange *range = jrun_alloc(r, 1, sizeof *range);
        if (!range) return false;
        const jrange *from = object.range;
        *range = (jrange){.start = from->start + b.begin * from->step, .count = b.count};
        range->stop = from->start + b.end * from->step;
        if (__builtin_mul_overflow(from->step, b.step, &range->step)) {
            return jrun_fail(r, ERR_UNSUPPORTED, "a whole number needs more than 64 bits");
        }
        *out = (jvalue){.type = J_RANGE, .range = range};
        return true;
    }
    jlist *made = jlist_new(r, b.count);
    if (!made || !jrun_charge(r, b.count / 8)) return false;
    for (size_t i = 0; i < b.count; i++) {
        made->items[made->count++] = object.list->items[b.begin + (int64_t)i * b.step];
    }
    *out = (jvalue){.type = object.type, .list = made};
    return true;
}

/* ---- paths ---- */

static bool is_number(const jtext *t, size_t from, size_t to, int64_t *out) {
    *out = 0;
    for (size_t i = from; i < to; i++) {
        if (t->bytes[i] < '0' || t->bytes[i] > '9' || i - from > 15) return false;
        *out = *out * 10 + (t->bytes[i] - '0');
    }
    return to > from;
}

static bool replaces(jvalue v, jvalue otherwise) {
    return v.type == J_UNDEFINED && otherwise.type != J_MISSING && otherwise.type != J_NONE;
}

bool jget_path(jrun *r, jvalue object, jvalue path, jvalue otherwise, jvalue *out) {
    *out = object;
    if (path.type == J_NONE || path.type == J_MISSING) return true;
    if (path.type != J_TEXT) {
        if (!jget_item(r, object, path, out)) return false;
        if (replaces(*out, otherwise)) *out = otherwise;
        return true;
    }
    const jtext *t = path.text, dot = {.bytes = ".", .length = 1};
    for (size_t at = 0; at <= t->length;) {
        size_t end = jtext_find(t, &dot, at);
        if (end == SIZE_MAX) end = t->length;
        int64_t number;
        jvalue key;
        if (is_number(t, at, end, &number)) {
            key = jint(number);
        } else {
            jtext *name = jtext_slice(r, t, at, end);
            if (!name) return false;
            key = jstring(name);
        }
        if (!jget_item(r, *out, key, out)) return false;
        if (replaces(*out, otherwise)) *out = otherwise;
        at = end + 1;
    }
    return true;
}
