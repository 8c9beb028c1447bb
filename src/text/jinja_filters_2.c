/* jinja_filters_2.c: filters of single values: defaults, numbers, escaping. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

static bool give(jtext *t, jvalue *out) {
    if (t) *out = jstring(t);
    return t != NULL;
}

static bool filter_default(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    if (!jargs_bind(r, "default", args, "default_value boolean", a)) return false;
    *out = self;
    if (self.type == J_UNDEFINED || (jtruth(a[1]) && !jtruth(self))) {
        if (a[0].type == J_MISSING) return give(jtext_literal(r, ""), out);
        *out = a[0];
    }
    return true;
}

static bool filter_length(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    size_t n;
    if (!jargs_bind(r, "length", args, "", NULL) || !jlength(r, self, &n)) return false;
    *out = jint((int64_t)n);
    return true;
}

/* ---- numbers ---- */

static bool filter_abs(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "abs", args, "", NULL)) return false;
    if (self.type == J_UNDEFINED) return jfail_undefined(r, self);
    if (!jis_number(self)) return JFAIL(r, "abs of a %s", jtype_name(self));
    if (self.type == J_FLOAT) {
        *out = jfloat(fabs(self.f));
        return true;
    }
    *out = jint(jinteger(self));
    return jinteger(self) >= 0 || jbinary(r, OP_SUB, jint(0), *out, out);
}

/* Copies what may be a number: without white space around, underscores only between digits. */
static bool clean_number(const jtext *t, char *out, size_t size) {
    size_t from = 0, to = t->length, n, count = 0;
    while (from < to && junicode_is_space(jtext_char(t, from, &n))) from += n;
    while (to > from && junicode_is_space(jtext_char_before(t, to, &n))) to -= n;
    for (size_t i = from; i < to; i++) {
        char c = t->bytes[i];
        if (c == '_') {
            bool between = i > from && i + 1 < to && t->bytes[i - 1] != '_' &&
                           strchr("0123456789abcdefABCDEFxXoO", t->bytes[i - 1]) &&
                           strchr("0123456789abcdefABCDEF", t->bytes[i + 1]);
            if (!between) return false;
            continue;
        }
        if (count + 1 == size || c == '\0') return false;
        out[count++] = c;
    }
    out[count] = '\0';
    return count > 0;
}

/* *good: it is one. False only when it is one that we cannot hold. */
static bool parse_int(jrun *r, const jtext *t, int64_t base, int64_t *out, bool *good) {
    char room[100], *end, *at = room;
    *good = false;
    if (base != 0 && (base < 2 || base > 36)) return true; /* ValueError: the default */
    if (!clean_number(t, room, sizeof room)) return true;
    bool sign = *at == '+' || *at == '-';
    at += sign;
    int use = (int)base;
    if (at[0] == '0' && at[1] && strchr("xXoObB", at[1])) {
        int own = at[1] == 'x' || at[1] == 'X' ? 16 : at[1] == 'o' || at[1] == 'O' ? 8 : 2;
        bool fits = base == 0 || base == own;
        if (!fits && !(base == 16 && own == 2) && base < 12) return true;
        if (fits) {
            at += 2;
            use = own;
        }
    } else if (base == 0) {
        if (at[0] == '0' && at[strspn(at, "0")]) return true; /* 0777 is no number in Python */
        use = 10;
    }
    if (*at == '+' || *at == '-' || *at == ' ' || !*at) return true;
    errno = 0;
    long long v = strtoll(at, &end, use);
    if (*end) return true;
    if (errno == ERANGE) {
        return jrun_fail(r, ERR_UNSUPPORTED, "a whole number needs more than 64 bits");
    }
    *out = sign && room[0] == '-' ? -v : v;
    *good = true;
    return true;
}

static bool parse_float(const jtext *t, double *out) {
    char room[400], *end;
    if (!clean_number(t, room, sizeof room)) return false;
    const char *at = room + (room[0] == '+' || room[0] == '-');
    bool number = (at[0] >= '0' && at[0] <= '9') || (at[0] == '.' && at[1] >= '0' && at[1] <= '9');
    bool word =
        strcasecmp(at, "inf") == 0 || strcasecmp(at, "infinity") == 0 || strcasecmp(at, "nan") == 0;
    if (!number && !word) return false;
    if (number && strpbrk(at, "xXpP")) return false;
    *out = strtod(room, &end);
    return *end == '\0';
}

static bool float_to_int(jrun *r, double f, jvalue *out) {
    if (isinf(f)) return JFAIL(r, "cannot convert float infinity to integer");
    if (fabs(f) >= 9.2233720368547e18) {
        return jrun_fail(r, ERR_UNSUPPORTED, "a whole number needs more than 64 bits");
    }
    *out = jint((int64_t)f);
    return true;
}

static bool filter_int(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    bool good = false;
    int64_t v;
    double f;
    if (!jargs_bind(r, "int", args, "default base", a)) return false;
    if (self.type == J_UNDEFINED) return jfail_undefined(r, self);
    *out = a[0].type == J_MISSING ? jint(0) : a[0];
    if (self.type == J_TEXT) {
        int64_t base = jis_integer(a[1]) ? jinteger(a[1]) : 10;
        if (!parse_int(r, self.text, base, &v, &good)) return false;
        if (good) *out = jint(v);
        if (!good && parse_float(self.text, &f) && !isnan(f)) return float_to_int(r, f, out);
        return true;
    }
    if (jis_integer(self)) *out = jint(jinteger(self));
    if (self.type == J_FLOAT && !isnan(self.f)) return float_to_int(r, self.f, out);
    return true;
}

static bool filter_float(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    double f;
    if (!jargs_bind(r, "float", args, "default", a)) return false;
    if (self.type == J_UNDEFINED) return jfail_undefined(r, self);
    *out = a[0].type == J_MISSING ? jfloat(0) : a[0];
    if (jis_number(self)) *out = jfloat(jnumber(self));
    if (self.type == J_TEXT && parse_float(self.text, &f)) *out = jfloat(f);
    return true;
}

/* Half to even at the given decimal, from the exact value: what Python's round does. */
static double round_float(double f, int precision) {
    if (!isfinite(f) || precision > 300) return f;
    if (precision < -308) return 0.0 * f;
    if (precision >= 0) {
        char room[800];
        snprintf(room, sizeof room, "%.*f", precision, f);
        return strtod(room, NULL);
    }
    double unit = pow(10, -precision);
    return rint(f / unit) * unit;
}

static bool round_int(jrun *r, int64_t v, int precision, jvalue *out) {
    *out = jint(v);
    if (precision >= 0) return true;
    if (precision < -18) {
        *out = jint(0);
        return true;
    }
    int64_t unit = 1;
    for (int i = 0; i < -precision; i++) unit *= 10;
    int64_t rest = v % unit, base = v - rest;
    if (rest < 0) {
        rest += unit;
        base -= unit;
    }
    bool up = rest > unit / 2 || (rest == unit / 2 && (base / unit) % 2 != 0);
    return jbinary(r, OP_ADD, jint(base), jint(up ? unit : 0), out);
}

static bool filter_round(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    if (!jargs_bind(r, "round", args, "precision method", a)) return false;
    if (self.type == J_UNDEFINED) return jfail_undefined(r, self);
    if (!jis_number(self)) return JFAIL(r, "round of a %s", jtype_name(self));
    if (a[0].type != J_MISSING && !jis_integer(a[0]))
        return JFAIL(r, "round: precision is no number");
    int64_t digits = a[0].type == J_MISSING ? 0 : jinteger(a[0]);
    int precision = digits > 400 ? 400 : digits < -400 ? -400 : (int)digits;
    bool ceiling = a[1].type == J_TEXT && jtext_is(a[1].text, "ceil");
    bool floored = a[1].type == J_TEXT && jtext_is(a[1].text, "floor");
    if (ceiling || floored) {
        double unit = pow(10, precision), v = jnumber(self) * unit;
        if (!isfinite(v)) return JFAIL(r, "round of a number that is not finite");
        *out = jfloat((ceiling ? ceil(v) : floor(v)) / unit);
        return true;
    }
    if (a[1].type != J_MISSING && !(a[1].type == J_TEXT && jtext_is(a[1].text, "common"))) {
        return JFAIL(r, "round: method must be common, ceil or floor");
    }
    if (jis_integer(self)) return round_int(r, jinteger(self), precision, out);
    *out = jfloat(round_float(self.f, precision));
    return true;
}

static bool filter_filesizeformat(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    static const char letters[] = "kMGTPEZY";
    jvalue a[1];
    double bytes;
    if (!jargs_bind(r, "filesizeformat", args, "binary", a)) return false;
    if (jis_number(self)) {
        bytes = jnumber(self);
    } else if (self.type != J_TEXT || !parse_float(self.text, &bytes)) {
        return self.type == J_UNDEFINED ? jfail_undefined(r, self)
                                        : JFAIL(r, "filesizeformat of a %s", jtype_name(self));
    }
    bool binary = jtruth(a[0]);
    double base = binary ? 1024 : 1000, unit = base;
    char room[64];
    if (bytes == 1) return give(jtext_literal(r, "1 Byte"), out);
    if (bytes < base) {
        snprintf(room, sizeof room, "%.0f Bytes", trunc(bytes) + 0.0); /* no "-0" */
    } else {
        int i = -1;
        do {
            unit *= base;
            i++;
        } while (bytes >= unit && i < 7);
        char letter = binary && i == 0 ? 'K' : letters[i];
        snprintf(room, sizeof room, "%.1f %c%sB", base * bytes / unit, letter, binary ? "i" : "");
    }
    jbuf b = {0};
    return jbuf_add_literal(r, &b, room) && give(jbuf_text(r, &b), out);
}

/* ---- strings ---- */

static bool filter_string(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "string", args, "", NULL)) return false;
    return give(self.type == J_TEXT ? self.text : jstr(r, self), out);
}

static bool filter_safe(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "safe", args, "", NULL)) return false;
    jtext *t = jstr(r, self);
    if (!t || !(t = jtext_slice(r, t, 0, t->length))) return false;
    t->safe = true;
    return give(t, out);
}

static bool filter_escape(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "escape", args, "", NULL)) return false;
    if (self.type == J_TEXT && self.text->safe) return give(self.text, out);
    jtext *t = jstr(r, self);
    return t && give(jtext_escape(r, t), out);
}

static bool filter_forceescape(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "forceescape", args, "", NULL)) return false;
    jtext *t = jstr(r, self);
    return t && give(jtext_escape(r, t), out);
}

static bool filter_format(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jtext *format = self.type == J_TEXT ? self.text : jstr(r, self);
    if (!format) return false;
    if (args->n && args->n_kw) {
        return JFAIL(r, "format takes positional or keyword arguments, not both");
    }
    jvalue values;
    if (args->n_kw) {
        jdict *d = jdict_new(r);
        for (int i = 0; d && i < args->n_kw; i++) {
            if (!jdict_set(r, d, jstring(args->kw[i].name), args->kw[i].value)) return false;
        }
        values = jfrom_dict(d);
        if (!d) return false;
    } else {
        jlist *l = jlist_new(r, (size_t)args->n);
        if (!l) return false;
        for (int i = 0; i < args->n; i++) l->items[l->count++] = args->pos[i];
        values = jfrom_tuple(l);
    }
    return jformat_percent(r, format, values, out);
}

static bool filter_attr(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "attr", args, "name!", a)) return false;
    if (a[0].type != J_TEXT) return JFAIL(r, "attr wants a string, not %s", jtype_name(a[0]));
    if (self.type == J_DICT && !jfind(jinja_dict_methods, a[0].text)) {
        *out = jundefined(jtext_literal(r, "a dict has no such attribute"));
        return out->text != NULL;
    }
    return jget_attr(r, self, a[0].text, out);
}

static bool filter_xmlattr(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    jbuf b = {0};
    if (!jargs_bind(r, "xmlattr", args, "autospace", a)) return false;
    if (self.type != J_DICT) return JFAIL(r, "xmlattr of a %s", jtype_name(self));
    bool space = a[0].type == J_MISSING || jtruth(a[0]);
    for (uint32_t i = 0; i < self.dict->count; i++) {
        jentry *e = &self.dict->entries[i];
        if (e->value.type == J_NONE || e->value.type == J_UNDEFINED) continue;
        if (e->key.type != J_TEXT) return JFAIL(r, "xmlattr: a key is a %s", jtype_name(e->key));
        for (size_t k = 0; k < e->key.text->length; k++) {
            char c = e->key.text->bytes[k];
            if (c == ' ' || (c >= 9 && c <= 13) || c == '/' || c == '>' || c == '=') {
                return JFAIL(r, "xmlattr: invalid character in attribute name");
            }
        }
        jtext *value = jstr(r, e->value), *key = jtext_escape(r, e->key.text);
        bool safe = e->value.type == J_TEXT && e->value.text->safe;
        if (!value || !key || (!safe && !(value = jtext_escape(r, value)))) return false;
        if ((space || b.count) && !jbuf_add_literal(r, &b, " ")) return false;
        if (!jbuf_add_text(r, &b, key) || !jbuf_add_literal(r, &b, "=\"") ||
            !jbuf_add_text(r, &b, value) || !jbuf_add_literal(r, &b, "\"")) {
            return false;
        }
    }
    return give(jbuf_text(r, &b), out);
}

/* What Jinja has and no chat template can sensibly use. */
static bool filter_refused(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    (void)self;
    (void)args;
    (void)out;
    return jrun_fail(r, ERR_UNSUPPORTED, "the filters pprint, random, urlize and wordwrap");
}

const jnamed jinja_filters_2[] = {
    {"default", filter_default},
    {"d", filter_default},
    {"length", filter_length},
    {"count", filter_length},
    {"tojson", jtojson},
    {"string", filter_string},
    {"safe", filter_safe},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"forceescape", filter_forceescape},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"format", filter_format},
    {"attr", filter_attr},
    {"filesizeformat", filter_filesizeformat},
    {"xmlattr", filter_xmlattr},
    {"pprint", filter_refused},
    {"random", filter_refused},
    {"urlize", filter_refused},
    {"wordwrap", filter_refused},
    {NULL, NULL},
};

jfunction jfind_filter(const jtext *name) {
    jfunction fn = jfind(jinja_filters_2, name);
    if (!fn) fn = jfind(jinja_filters, name);
    return fn ? fn : jfind(jinja_filters_text, name);
}
