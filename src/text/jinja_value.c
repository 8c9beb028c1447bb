/* jinja_value.c: memory, lists and dicts of the template engine; what all values can do: truth,
 * equality, order, hash, length, iteration. */
#include <math.h>
#include <stdlib.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

/* ---- memory ---- */

#define CHUNK_MIN ((size_t)64 << 10)
#define CHUNK_MAX ((size_t)8 << 20)

void *jpool_alloc(jpool *p, size_t bytes) {
    if (bytes > p->limit) return NULL;
    bytes = round_up(bytes ? bytes : 1, 16);
    if ((size_t)(p->end - p->at) < bytes) {
        size_t size = p->total < CHUNK_MIN ? CHUNK_MIN : size_min(p->total, CHUNK_MAX);
        if (size < bytes + sizeof(jchunk) + 16) size = bytes + sizeof(jchunk) + 16;
        if (p->total + size > p->limit) return NULL;
        jchunk *c = calloc(1, size);
        if (!c) return NULL;
        c->next = p->chunks;
        c->size = size;
        p->chunks = c;
        p->total += size;
        p->at = (char *)c + round_up(sizeof *c, 16);
        p->end = (char *)c + size;
    }
    void *out = p->at;
    p->at += bytes;
    return out;
}

void jpool_free(jpool *p) {
    for (jchunk *c = p->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *p = (jpool){.limit = p->limit};
}

void *jrun_alloc(jrun *r, size_t count, size_t size) {
    size_t bytes;
    void *out = size_mul(count, size, &bytes) ? jpool_alloc(&r->pool, bytes) : NULL;
    if (!out) jrun_fail(r, ERR_RANGE, "rendering needs more than %zu MiB", r->pool.limit >> 20);
    return out;
}

/* ---- names ---- */

const char *jtype_name(jvalue v) {
    static const char *const names[] = {
        [J_MISSING] = "nothing",   [J_UNDEFINED] = "Undefined",
        [J_NONE] = "NoneType",     [J_BOOL] = "bool",
        [J_INT] = "int",           [J_FLOAT] = "float",
        [J_TEXT] = "str",          [J_LIST] = "list",
        [J_TUPLE] = "tuple",       [J_DICT] = "dict",
        [J_VIEW] = "dict view",    [J_RANGE] = "range",
        [J_ITER] = "generator",    [J_NAMESPACE] = "Namespace",
        [J_LOOP] = "LoopContext",  [J_MACRO] = "Macro",
        [J_FUNCTION] = "function", [J_CYCLER] = "Cycler",
        [J_JOINER] = "Joiner",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.type == J_VIEW) return views[v.view->kind];
    if (v.type == J_ITER) return v.iter->kind;
    if (v.type == J_TEXT && v.text->safe) return "Markup";
    return names[v.type];
}

jvalue jundefined(jtext *why) { return (jvalue){.type = J_UNDEFINED, .text = why}; }

bool jfail_undefined(jrun *r, jvalue v) {
    if (!v.text) return JFAIL(r, "an undefined value is used");
    return JFAIL(r, "%.*s", (int)size_min(v.text->length, 300), v.text->bytes);
}

/* ---- lists ---- */

jlist *jlist_new(jrun *r, size_t capacity) {
    jlist *l = jrun_alloc(r, 1, sizeof *l);
    if (!l) return NULL;
    l->capacity = capacity;
    if (capacity && !(l->items = jrun_alloc(r, capacity, sizeof *l->items))) return NULL;
    return l;
}

bool jlist_push(jrun *r, jlist *l, jvalue v) {
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 4;
        jvalue *items = jrun_alloc(r, capacity, sizeof *items);
        if (!items) return false;
        if (l->count) memcpy(items, l->items, l->count * sizeof *items);
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->count++] = v;
    return true;
}

/* ---- hashes and equality ---- */

static uint32_t mix(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    return (uint32_t)x;
}

static uint32_t hash_float(double f) {
    if (f >= -9.2e18 && f <= 9.2e18 && f == floor(f)) return mix((uint64_t)(int64_t)f);
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return mix(bits ^ 0x5bd1e995u);
}

static bool hash_items(jrun *r, const jlist *l, uint32_t *out) {
    if (!jrun_enter(r)) return false;
    uint32_t h = 77;
    bool good = true;
    for (size_t i = 0; i < l->count && good; i++) {
        uint32_t one;
        good = jhash(r, l->items[i], &one);
        h = mix(((uint64_t)h << 32) + one);
    }
    *out = h;
    jrun_leave(r);
    return good;
}

bool jhash(jrun *r, jvalue v, uint32_t *out) {
    *out = 1;
    switch (v.type) {
    case J_TEXT:
        if (!v.text->hash) v.text->hash = jtext_hash(v.text);
        *out = v.text->hash;
        return true;
    case J_BOOL:
    case J_INT: *out = mix((uint64_t)jinteger(v)); return true;
    case J_FLOAT: *out = hash_float(v.f); return true;
    case J_TUPLE: return hash_items(r, v.list, out);
    case J_LIST:
    case J_DICT: return JFAIL(r, "unhashable type: '%s'", jtype_name(v));
    default: return true;
    }
}

static bool equal_items(jrun *r, const jlist *a, const jlist *b, bool *out) {
    *out = a->count == b->count;
    if (!*out) return true;
    if (!jrun_charge(r, a->count) || !jrun_enter(r)) return false;
    bool good = true;
    for (size_t i = 0; i < a->count && *out && good; i++) {
        good = jequal(r, a->items[i], b->items[i], out);
    }
    jrun_leave(r);
    return good;
}

static bool equal_dicts(jrun *r, const jdict *a, const jdict *b, bool *out) {
    *out = a->count == b->count;
    if (!*out) return true;
    if (!jrun_charge(r, a->count) || !jrun_enter(r)) return false;
    bool good = true;
    for (uint32_t i = 0; i < a->count && *out && good; i++) {
        jvalue *other;
        good = jdict_get(r, b, a->entries[i].key, &other);
        if (good && !other) *out = false;
        if (good && other) good = jequal(r, a->entries[i].value, *other, out);
    }
    jrun_leave(r);
    return good;
}

static bool equal_numbers(jvalue a, jvalue b) {
    if (jis_integer(a) && jis_integer(b)) return jinteger(a) == jinteger(b);
    if (a.type == J_FLOAT && b.type == J_FLOAT) return a.f == b.f;
    double f = a.type == J_FLOAT ? a.f : b.f;
    int64_t i = jinteger(a.type == J_FLOAT ? b : a);
    return f >= -0x1p63 && f < 0x1p63 && f == floor(f) && (int64_t)f == i;
}

static bool equal_ranges(const jrange *a, const jrange *b) {
    if (a->count != b->count) return false;
    return a->count == 0 || (a->start == b->start && (a->count == 1 || a->step == b->step));
}

bool jequal(jrun *r, jvalue a, jvalue b, bool *out) {
    *out = false;
    if (jis_number(a) && jis_number(b)) {
        *out = equal_numbers(a, b);
        return true;
    }
    if (a.type != b.type) return true;
    switch (a.type) {
    case J_UNDEFINED:
    case J_NONE: *out = true; return true;
    case J_TEXT:
        *out = jtext_same(a.text, b.text);
        return !*out || jrun_charge(r, a.text->length / 64);
    case J_LIST:
    case J_TUPLE: return equal_items(r, a.list, b.list, out);
    case J_DICT: return equal_dicts(r, a.dict, b.dict, out);
    case J_RANGE: *out = equal_ranges(a.range, b.range); return true;
    default: *out = a.list == b.list; return true; /* the same object */
    }
}

/* ---- order ---- */

static bool compare_items(jrun *r, const jlist *a, const jlist *b, const char *op, int *out) {
    size_t both = size_min(a->count, b->count);
    *out = a->count < b->count ? -1 : a->count > b->count;
    if (!jrun_charge(r, both) || !jrun_enter(r)) return false;
    bool good = true, same = true;
    for (size_t i = 0; i < both && good && same; i++) {
        good = jequal(r, a->items[i], b->items[i], &same);
        if (good && !same) good = jcompare(r, a->items[i], b->items[i], op, out);
    }
    jrun_leave(r);
    return good;
}

bool jcompare(jrun *r, jvalue a, jvalue b, const char *op, int *out) {
    *out = 0;
    if (jis_integer(a) && jis_integer(b)) {
        *out = jinteger(a) < jinteger(b) ? -1 : jinteger(a) > jinteger(b);
        return true;
    }
    if (jis_number(a) && jis_number(b)) {
        double x = jnumber(a), y = jnumber(b);
        *out = x < y ? -1 : x > y;
        if (x == y && !equal_numbers(a, b)) *out = jis_integer(a) ? 1 : -1;
        return true;
    }
    if (a.type == J_TEXT && b.type == J_TEXT) {
        *out = jtext_order(a.text, b.text);
        return true;
    }
    if (a.type == b.type && jis_sequence(a)) return compare_items(r, a.list, b.list, op, out);
    if (a.type == J_UNDEFINED) return jfail_undefined(r, a);
    if (b.type == J_UNDEFINED) return jfail_undefined(r, b);
    return JFAIL(r, "'%s' not supported between instances of '%s' and '%s'", op, jtype_name(a),
                 jtype_name(b));
}

/* ---- dicts ---- */

jdict *jdict_new(jrun *r) { return jrun_alloc(r, 1, sizeof(jdict)); }

static bool grow_slots(jrun *r, jdict *d) {
    uint32_t mask = d->capacity * 2 - 1; /* the capacity is a power of two */
    uint32_t *slots = jrun_alloc(r, (size_t)mask + 1, sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; i < d->count; i++) {
        uint32_t at = d->entries[i].hash & mask;
        while (slots[at]) at = (at + 1) & mask;
        slots[at] = i + 1;
    }
    d->slots = slots;
    d->mask = mask;
    return true;
}

static bool grow_dict(jrun *r, jdict *d) {
    uint32_t capacity = d->capacity ? d->capacity * 2 : 8;
    if (capacity > 1u << 28) return jrun_fail(r, ERR_RANGE, "a dict is too large");
    jentry *entries = jrun_alloc(r, capacity, sizeof *entries);
    if (!entries) return false;
    if (d->count) memcpy(entries, d->entries, d->count * sizeof *entries);
    d->entries = entries;
    d->capacity = capacity;
    return capacity == 8 || grow_slots(r, d);
}

static bool find_entry(jrun *r, const jdict *d, jvalue key, uint32_t hash, jentry **out) {
    *out = NULL;
    uint32_t at = d->slots ? hash & d->mask : 0;
    for (uint32_t i = 0;; i++) {
        uint32_t index = d->slots ? d->slots[at] : i < d->count ? i + 1 : 0;
        if (!index) return true;
        jentry *e = &d->entries[index - 1];
        bool same = false;
        if (e->hash == hash && !jequal(r, e->key, key, &same)) return false;
        if (same) {
            *out = e;
            return true;
        }
        at = (at + 1) & d->mask;
    }
}

bool jdict_get(jrun *r, const jdict *d, jvalue key, jvalue **found) {
    *found = NULL;
    uint32_t hash;
    jentry *e;
    if (!jhash(r, key, &hash) || !find_entry(r, d, key, hash, &e)) return false;
    if (e) *found = &e->value;
    return true;
}

jvalue *jdict_find(const jdict *d, const jtext *key) {
    uint32_t hash = key->hash ? key->hash : jtext_hash(key);
    uint32_t at = d->slots ? hash & d->mask : 0;
    for (uint32_t i = 0;; i++) {
        uint32_t index = d->slots ? d->slots[at] : i < d->count ? i + 1 : 0;
        if (!index) return NULL;
        jentry *e = &d->entries[index - 1];
        if (e->hash == hash && e->key.type == J_TEXT && jtext_same(e->key.text, key)) {
            return &e->value;
        }
        at = (at + 1) & d->mask;
    }
}

bool jdict_set(jrun *r, jdict *d, jvalue key, jvalue value) {
    uint32_t hash;
    jentry *e;
    if (!jhash(r, key, &hash) || !find_entry(r, d, key, hash, &e)) return false;
    if (e) {
        e->value = value;
        return true;
    }
    if (d->count == d->capacity && !grow_dict(r, d)) return false;
    d->entries[d->count++] = (jentry){.key = key, .value = value, .hash = hash};
    if (!d->slots) return true;
    uint32_t at = hash & d->mask;
    while (d->slots[at]) at = (at + 1) & d->mask;
    d->slots[at] = d->count;
    return true;
}

/* ---- truth, length, iteration ---- */

bool jtruth(jvalue v) {
    switch (v.type) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE: return false;
    case J_BOOL: return v.b;
    case J_INT: return v.i != 0;
    case J_FLOAT: return v.f != 0;
    case J_TEXT: return v.text->length > 0;
    case J_LIST:
    case J_TUPLE: return v.list->count > 0;
    case J_DICT: return v.dict->count > 0;
    case J_VIEW: return v.view->dict->count > 0;
    case J_RANGE: return v.range->count > 0;
    default: return true;
    }
}

bool jlength(jrun *r, jvalue v, size_t *out) {
    *out = 0;
    switch (v.type) {
    case J_UNDEFINED: return true;
    case J_TEXT: *out = v.text->chars; return true;
    case J_LIST:
    case J_TUPLE: *out = v.list->count; return true;
    case J_DICT: *out = v.dict->count; return true;
    case J_VIEW: *out = v.view->dict->count; return true;
    case J_RANGE: *out = v.range->count; return true;
    case J_LOOP: {
        jvalue n;
        bool found;
        jtext name = {.bytes = "length", .length = 6, .chars = 6};
        if (!jloop_attr(r, v.loop, &name, &n, &found)) return false;
        *out = (size_t)n.i;
        return true;
    }
    default: return JFAIL(r, "object of type '%s' has no len()", jtype_name(v));
    }
}

bool jcan_iterate(jvalue v) {
    return v.type == J_UNDEFINED || v.type == J_TEXT || jis_sequence(v) || v.type == J_DICT ||
           v.type == J_VIEW || v.type == J_RANGE || v.type == J_ITER || v.type == J_LOOP;
}

static bool iterate_text(jrun *r, const jtext *t, jlist *out) {
    for (size_t at = 0, n; at < t->length; at += n) {
        jtext_char(t, at, &n);
        jtext *c = jtext_slice(r, t, at, at + n);
        if (c) c->safe = false;
        if (!c || !jlist_push(r, out, jstring(c))) return false;
    }
    return true;
}

static bool iterate_dict(jrun *r, const jdict *d, jview_kind kind, jlist *out) {
    for (uint32_t i = 0; i < d->count; i++) {
        jvalue v = kind == JVIEW_VALUES ? d->entries[i].value : d->entries[i].key;
        if (kind == JVIEW_ITEMS) {
            jlist *pair = jlist_new(r, 2);
            if (!pair) return false;
            pair->count = 2;
            pair->items[0] = d->entries[i].key;
            pair->items[1] = d->entries[i].value;
            v = jfrom_tuple(pair);
        }
        if (!jlist_push(r, out, v)) return false;
    }
    return true;
}

/* At the end of an iterator: the error that making its next item met. */
static bool end_of(jrun *r, const jiter *it) {
    if (!it->failure) return true;
    if (!r->error.code) r->error = *it->failure;
    return false;
}

/* What is left of an iterator; nothing is afterwards. */
static bool iterate_rest(jrun *r, jiter *it, jlist *out) {
    for (; it->at < it->list->count; it->at++) {
        if (!jlist_push(r, out, it->list->items[it->at])) return false;
    }
    return end_of(r, it);
}

bool jiterate(jrun *r, jvalue v, jlist **out) {
    *out = NULL;
    if (!jcan_iterate(v) || v.type == J_LOOP) {
        return JFAIL(r, "'%s' object is not iterable", jtype_name(v));
    }
    if (jis_sequence(v)) {
        *out = v.list;
        return jrun_charge(r, v.list->count / 8);
    }
    size_t length = 0;
    if (v.type != J_ITER && !jlength(r, v, &length)) return false;
    jlist *l = jlist_new(r, length);
    if (!l || !jrun_charge(r, length)) return false;
    *out = l;
    switch (v.type) {
    case J_TEXT: return iterate_text(r, v.text, l);
    case J_DICT: return iterate_dict(r, v.dict, JVIEW_KEYS, l);
    case J_VIEW: return iterate_dict(r, v.view->dict, v.view->kind, l);
    case J_ITER: return iterate_rest(r, v.iter, l);
    case J_RANGE:
        for (size_t i = 0; i < v.range->count; i++) {
            if (!jlist_push(r, l, jint(v.range->start + (int64_t)i * v.range->step))) return false;
        }
        return true;
    default: return true; /* undefined: nothing */
    }
}

bool jiter_new(jrun *r, jlist *list, const char *kind, jvalue *out) {
    jiter *it = jrun_alloc(r, 1, sizeof *it);
    if (!it) return false;
    it->list = list;
    it->kind = kind;
    *out = (jvalue){.type = J_ITER, .iter = it};
    return true;
}

/* Walks up to the item; what is behind it is still there. */
static bool iterator_contains(jrun *r, jiter *it, jvalue item, bool *out) {
    while (it->at < it->list->count && !*out) {
        if (!jrun_charge(r, 1) || !jequal(r, it->list->items[it->at++], item, out)) return false;
    }
    return *out || end_of(r, it);
}

bool jcontains(jrun *r, jvalue container, jvalue item, bool *out) {
    *out = false;
    if (container.type == J_TEXT) {
        if (item.type != J_TEXT) {
            return JFAIL(r, "'in <string>' requires string as left operand, not %s",
                         jtype_name(item));
        }
        *out = jtext_find(container.text, item.text, 0) != SIZE_MAX;
        return jrun_charge(r, container.text->length / 32);
    }
    bool keys = container.type == J_DICT ||
                (container.type == J_VIEW && container.view->kind == JVIEW_KEYS);
    if (keys) {
        jvalue *found;
        jdict *d = container.type == J_DICT ? container.dict : container.view->dict;
        if (!jdict_get(r, d, item, &found)) return false;
        *out = found != NULL;
        return true;
    }
    if (!jcan_iterate(container)) {
        return JFAIL(r, "argument of type '%s' is not iterable", jtype_name(container));
    }
    if (container.type == J_ITER) return iterator_contains(r, container.iter, item, out);
    jlist *items;
    if (!jiterate(r, container, &items) || !jrun_charge(r, items->count)) return false;
    for (size_t i = 0; i < items->count && !*out; i++) {
        if (!jequal(r, items->items[i], item, out)) return false;
    }
    return true;
}

/* ---- JSON ---- */

static bool from_object(jrun *r, const json_t *json, uint8_t mark, jvalue *out) {
    jdict *d = jdict_new(r);
    if (!d) return false;
    *out = jfrom_dict(d);
    const char *key;
    size_t length;
    json_t *value;
    json_object_keylen_foreach((json_t *)json, key, length, value) {
        jtext *name = jtext_new(r, key, length, mark);
        jvalue v;
        if (!name || !jfrom_json(r, value, mark, &v)) return false;
        if (!jdict_set(r, d, jstring(name), v)) return false;
    }
    return true;
}

static bool from_array(jrun *r, const json_t *json, uint8_t mark, jvalue *out) {
    jlist *l = jlist_new(r, json_array_size(json));
    if (!l) return false;
    *out = jfrom_list(l);
    size_t i;
    json_t *value;
    json_array_foreach(json, i, value) {
        jvalue v;
        if (!jfrom_json(r, value, mark, &v) || !jlist_push(r, l, v)) return false;
    }
    return true;
}

bool jfrom_json(jrun *r, const json_t *json, uint8_t mark, jvalue *out) {
    *out = jnone();
    if (!json) return true;
    switch (json_typeof(json)) {
    case JSON_NULL: return true;
    case JSON_TRUE:
    case JSON_FALSE: *out = jbool(json_is_true(json)); return true;
    case JSON_INTEGER: *out = jint(json_integer_value(json)); return true;
    case JSON_REAL: *out = jfloat(json_real_value(json)); return true;
    case JSON_STRING: {
        jtext *t = jtext_new(r, json_string_value(json), json_string_length(json), mark);
        if (t) *out = jstring(t);
        return t != NULL;
    }
    default: break;
    }
    if (!jrun_enter(r)) return false;
    bool good =
        json_is_object(json) ? from_object(r, json, mark, out) : from_array(r, json, mark, out);
    jrun_leave(r);
    return good;
}
