/* jinja_methods.c: methods of lists, tuples, dicts and cyclers; those that change nothing. */
#include "text/jinja_impl.h"

static bool list_index(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    if (!jargs_bind(r, "index", args, "value! start stop", a)) return false;
    int64_t n = (int64_t)self.list->count, bound[2] = {0, n};
    for (int i = 0; i < 2; i++) {
        if (a[i + 1].type == J_MISSING) continue;
        if (!jis_integer(a[i + 1])) return JFAIL(r, "index: a bound is no whole number");
        bound[i] = jinteger(a[i + 1]);
        if (bound[i] < 0) bound[i] = bound[i] < -n ? 0 : bound[i] + n;
    }
    for (int64_t i = bound[0]; i < bound[1] && i < n; i++) {
        bool same;
        if (!jequal(r, self.list->items[i], a[0], &same) || !jrun_charge(r, 1)) return false;
        if (!same) continue;
        *out = jint(i);
        return true;
    }
    return JFAIL(r, "index: the value is not in the list");
}

static bool list_count(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    int64_t count = 0;
    if (!jargs_bind(r, "count", args, "value!", a)) return false;
    for (size_t i = 0; i < self.list->count; i++) {
        bool same;
        if (!jequal(r, self.list->items[i], a[0], &same) || !jrun_charge(r, 1)) return false;
        count += same;
    }
    *out = jint(count);
    return true;
}

/* Nothing can be changed, so the same list will do. */
static bool list_copy(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    *out = self;
    if (self.type == J_TUPLE) return JFAIL(r, "'tuple' has no method 'copy'");
    return jargs_bind(r, "copy", args, "", NULL);
}

const jnamed jinja_list_methods[] = {
    {"index", list_index},
    {"count", list_count},
    {"copy", list_copy},
    {NULL, NULL},
};

static bool dict_get(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2], *found;
    if (args->n_kw) return JFAIL(r, "dict.get() takes no keyword arguments");
    if (!jargs_bind(r, "get", args, "key! default", a)) return false;
    if (!jdict_get(r, self.dict, a[0], &found)) return false;
    *out = found ? *found : a[1].type == J_MISSING ? jnone() : a[1];
    return true;
}

static bool make_view(jrun *r, jvalue self, const jargs *args, jview_kind kind, jvalue *out) {
    if (!jargs_bind(r, "a method of dicts", args, "", NULL)) return false;
    jview *view = jrun_alloc(r, 1, sizeof *view);
    if (!view) return false;
    *view = (jview){self.dict, kind};
    *out = (jvalue){.type = J_VIEW, .view = view};
    return true;
}

static bool dict_keys(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return make_view(r, self, args, JVIEW_KEYS, out);
}

static bool dict_values(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return make_view(r, self, args, JVIEW_VALUES, out);
}

static bool dict_items(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return make_view(r, self, args, JVIEW_ITEMS, out);
}

static bool dict_copy(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    *out = self;
    return jargs_bind(r, "copy", args, "", NULL);
}

const jnamed jinja_dict_methods[] = {
    {"get", dict_get},       {"items", dict_items}, {"keys", dict_keys},
    {"values", dict_values}, {"copy", dict_copy},   {NULL, NULL},
};

static bool cycler_next(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jcycler *c = self.cycler;
    if (!jargs_bind(r, "next", args, "", NULL)) return false;
    *out = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->count;
    return true;
}

static bool cycler_reset(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    self.cycler->at = 0;
    *out = jnone();
    return jargs_bind(r, "reset", args, "", NULL);
}

const jnamed jinja_cycler_methods[] = {
    {"next", cycler_next},
    {"reset", cycler_reset},
    {NULL, NULL},
};

jfunction jfind(const jnamed *table, const jtext *name) {
    for (int i = 0; table[i].name; i++) {
        if (jtext_is(name, table[i].name)) return table[i].fn;
    }
    return NULL;
}
