/* jinja_globals.c: functions that a template can call by name. */
#include <stdio.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

static bool global_raise(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    (void)out;
    jvalue a[1];
    if (!jargs_bind(r, "raise_exception", args, "message!", a)) return false;
    jtext *t = jstr(r, a[0]);
    return t && jrun_fail(r, ERR_ARG, "%.*s", (int)size_min(t->length, 1000), t->bytes);
}

static bool global_strftime(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    jvalue a[1];
    char format[256], room[1024];
    if (!jargs_bind(r, "strftime_now", args, "format!", a)) return false;
    if (a[0].type != J_TEXT) return JFAIL(r, "strftime_now wants a string");
    if (a[0].text->length >= sizeof format || memchr(a[0].text->bytes, '\0', a[0].text->length)) {
        return JFAIL(r, "strftime_now: the format is too long");
    }
    size_t n = 0;
    for (size_t i = 0; i < a[0].text->length; i++) format[n++] = a[0].text->bytes[i];
    format[n] = '\0';
    if (strstr(format, "%f")) return jrun_fail(r, ERR_UNSUPPORTED, "strftime_now with %%f");
    time_t now = r->now ? (time_t)r->now : time(NULL);
    struct tm local;
    if (!localtime_r(&now, &local)) return JFAIL(r, "strftime_now: no such time");
    size_t made = n ? strftime(room, sizeof room, format, &local) : 0;
    jbuf b = {0};
    if (!jbuf_add(r, &b, room, made, TEMPLATE_MARKUP)) return false;
    jtext *t = jbuf_text(r, &b);
    if (t) *out = jstring(t);
    return t != NULL;
}

static bool global_range(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    if (args->n_kw) return JFAIL(r, "range() takes no keyword arguments");
    if (args->n < 1 || args->n > 3) return JFAIL(r, "range() takes one to three arguments");
    for (int i = 0; i < args->n; i++) {
        if (args->pos[i].type == J_UNDEFINED) return jfail_undefined(r, args->pos[i]);
        if (!jis_integer(args->pos[i])) {
            return JFAIL(r, "range() wants whole numbers, not %s", jtype_name(args->pos[i]));
        }
        v[args->n == 1 ? 1 : i] = jinteger(args->pos[i]);
    }
    if (v[2] == 0) return JFAIL(r, "range(): the step is zero");
    jrange *range = jrun_alloc(r, 1, sizeof *range);
    if (!range) return false;
    bool up = v[2] > 0;
    uint64_t distance = 0, step = up ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    if (up ? v[0] < v[1] : v[0] > v[1]) {
        distance = up ? (uint64_t)v[1] - (uint64_t)v[0] : (uint64_t)v[0] - (uint64_t)v[1];
    }
    uint64_t count = distance ? (distance - 1) / step + 1 : 0;
    if (count > JINJA_RANGE_MAX) {
        return jrun_fail(r, ERR_RANGE, "a range has more than %d items", JINJA_RANGE_MAX);
    }
    *range = (jrange){.start = v[0], .stop = v[1], .step = v[2], .count = (size_t)count};
    *out = (jvalue){.type = J_RANGE, .range = range};
    return true;
}

/* Items of a mapping, or pairs, and keyword arguments. */
static bool fill_dict(jrun *r, const char *what, const jargs *args, jdict *d) {
    if (args->n > 1) return JFAIL(r, "%s takes at most one argument", what);
    if (args->n && args->pos[0].type == J_UNDEFINED) return jfail_undefined(r, args->pos[0]);
    if (args->n && args->pos[0].type == J_DICT) {
        const jdict *from = args->pos[0].dict;
        for (uint32_t i = 0; i < from->count; i++) {
            if (!jdict_set(r, d, from->entries[i].key, from->entries[i].value)) return false;
        }
    } else if (args->n) {
        jlist *in, *pair;
        if (!jiterate(r, args->pos[0], &in)) return false;
        for (size_t i = 0; i < in->count; i++) {
            if (!jiterate(r, in->items[i], &pair)) return false;
            if (pair->count != 2) return JFAIL(r, "%s: item %zu is no pair", what, i);
            if (!jdict_set(r, d, pair->items[0], pair->items[1])) return false;
        }
    }
    for (int i = 0; i < args->n_kw; i++) {
        if (!jdict_set(r, d, jstring(args->kw[i].name), args->kw[i].value)) return false;
    }
    return true;
}

static bool global_dict(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    jdict *d = jdict_new(r);
    if (!d || !fill_dict(r, "dict()", args, d)) return false;
    *out = jfrom_dict(d);
    return true;
}

static bool global_namespace(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    jdict *d = jdict_new(r);
    if (!d || !fill_dict(r, "namespace()", args, d)) return false;
    *out = (jvalue){.type = J_NAMESPACE, .dict = d};
    return true;
}

static bool global_cycler(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    if (!args->n || args->n_kw) return JFAIL(r, "cycler() wants at least one value");
    jcycler *c = jrun_alloc(r, 1, sizeof *c);
    if (!c || !(c->items = jlist_new(r, (size_t)args->n))) return false;
    for (int i = 0; i < args->n; i++) c->items->items[c->items->count++] = args->pos[i];
    *out = (jvalue){.type = J_CYCLER, .cycler = c};
    return true;
}

static bool global_joiner(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    jvalue a[1];
    jcycler *c = jrun_alloc(r, 1, sizeof *c);
    if (!c || !jargs_bind(r, "joiner", args, "sep", a)) return false;
    c->separator = a[0].type == J_MISSING ? jtext_literal(r, ", ") : jstr(r, a[0]);
    *out = (jvalue){.type = J_JOINER, .cycler = c};
    return c->separator != NULL;
}

static bool global_lipsum(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    (void)args;
    (void)out;
    return jrun_fail(r, ERR_UNSUPPORTED, "lipsum()");
}

const jnamed jinja_globals[] = {
    {"raise_exception", global_raise},
    {"strftime_now", global_strftime},
    {"namespace", global_namespace},
    {"range", global_range},
    {"dict", global_dict},
    {"cycler", global_cycler},
    {"joiner", global_joiner},
    {"lipsum", global_lipsum},
    {NULL, NULL},
};
