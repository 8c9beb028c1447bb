/* jinja_repr.c: how values print: Python's str() and repr(), and JSON as json.dumps writes it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "text/jinja_impl.h"

/* ---- numbers ---- */

/* The shortest digits that read back as f, laid out as Python does. */
size_t jfloat_repr(double f, char out[40]) {
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, f < 0 ? "-inf" : "inf");
    char digits[40];
    int precision = 0;
    do {
        snprintf(digits, sizeof digits, "%.*e", precision, f);
    } while (precision++ < 17 && strtod(digits, NULL) != f);
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        char *e = strchr(digits, 'e');
        *e = '\0';
        return (size_t)snprintf(out, 40, "%se%c%02d", digits, exponent < 0 ? '-' : '+',
                                abs(exponent));
    }
    int after = precision - 1 - exponent; /* digits behind the point */
    if (after < 1) after = 1;
    return (size_t)snprintf(out, 40, "%.*f", after, f);
}

static bool add_number(jrun *r, jbuf *b, jvalue v) {
    char room[40];
    if (v.type == J_FLOAT) {
        jfloat_repr(v.f, room);
    } else {
        snprintf(room, sizeof room, "%lld", (long long)jinteger(v));
    }
    return jbuf_add_literal(r, b, room);
}

/* ---- repr ---- */

static bool is_printable(uint32_t c) {
    if (c < 0x7f) return c >= 0x20;
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

static bool add_escaped(jrun *r, jbuf *b, uint32_t c, uint8_t mark) {
    char room[12];
    int n = snprintf(room, sizeof room,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
    return jbuf_add(r, b, room, (size_t)n, mark);
}

bool jrepr_text(jrun *r, jbuf *b, const jtext *t, bool ascii) {
    bool single = t->length && memchr(t->bytes, '\'', t->length);
    bool both = single && memchr(t->bytes, '"', t->length);
    const char *quote = single && !both ? "\"" : "'";
    if (!jbuf_add_literal(r, b, quote)) return false;
    for (size_t at = 0, n; at < t->length; at += n) {
        uint32_t c = jtext_char(t, at, &n);
        uint8_t mark = jtext_mark(t, at);
        const char *to = c == '\n'   ? "\\n"
                         : c == '\r' ? "\\r"
                         : c == '\t' ? "\\t"
                         : c == '\\' ? "\\\\"
                                     : NULL;
        if (c == (unsigned char)quote[0]) to = quote[0] == '\'' ? "\\'" : "\\\"";
        bool good = to ? jbuf_add(r, b, to, strlen(to), mark)
                    : !is_printable(c) || (ascii && c > 0x7e)
                        ? add_escaped(r, b, c, mark)
                        : jbuf_add(r, b, t->bytes + at, n, mark);
        if (!good) return false;
    }
    return jbuf_add_literal(r, b, quote);
}

static bool repr_list(jrun *r, jbuf *b, const jlist *l, const char *open, const char *close) {
    if (!jbuf_add_literal(r, b, open)) return false;
    for (size_t i = 0; i < l->count; i++) {
        if (i && !jbuf_add_literal(r, b, ", ")) return false;
        if (!jrepr(r, b, l->items[i])) return false;
    }
    return jbuf_add_literal(r, b, close);
}

static bool repr_dict(jrun *r, jbuf *b, const jdict *d) {
    if (!jbuf_add_literal(r, b, "{")) return false;
    for (uint32_t i = 0; i < d->count; i++) {
        if (i && !jbuf_add_literal(r, b, ", ")) return false;
        if (!jrepr(r, b, d->entries[i].key) || !jbuf_add_literal(r, b, ": ")) return false;
        if (!jrepr(r, b, d->entries[i].value)) return false;
    }
    return jbuf_add_literal(r, b, "}");
}

static bool repr_view(jrun *r, jbuf *b, jvalue v) {
    jlist *items;
    return jiterate(r, v, &items) && jbuf_add_literal(r, b, jtype_name(v)) &&
           repr_list(r, b, items, "([", "])");
}

static bool repr_range(jrun *r, jbuf *b, const jrange *range) {
    char room[80];
    int n = snprintf(room, sizeof room, "range(%lld, %lld", (long long)range->start,
                     (long long)range->stop);
    if (range->step != 1) {
        n += snprintf(room + n, sizeof room - (size_t)n, ", %lld", (long long)range->step);
    }
    return jbuf_add(r, b, room, (size_t)n, TEMPLATE_MARKUP) && jbuf_add_literal(r, b, ")");
}

static bool repr_container(jrun *r, jbuf *b, jvalue v) {
    switch (v.type) {
    case J_LIST: return repr_list(r, b, v.list, "[", "]");
    case J_TUPLE: return repr_list(r, b, v.list, "(", v.list->count == 1 ? ",)" : ")");
    case J_DICT: return repr_dict(r, b, v.dict);
    case J_VIEW: return repr_view(r, b, v);
    case J_RANGE: return repr_range(r, b, v.range);
    case J_NAMESPACE:
        return jbuf_add_literal(r, b, "<Namespace ") && repr_dict(r, b, v.dict) &&
               jbuf_add_literal(r, b, ">");
    case J_MACRO:
        if (!v.macro->node->name) return jbuf_add_literal(r, b, "<Macro anonymous>");
        return jbuf_add_literal(r, b, "<Macro ") && jrepr_text(r, b, v.macro->node->name, false) &&
               jbuf_add_literal(r, b, ">");
    default:
        return jrun_fail(r, ERR_UNSUPPORTED, "a %s is printed, which has no text", jtype_name(v));
    }
}

bool jrepr(jrun *r, jbuf *b, jvalue v) {
    switch (v.type) {
    case J_UNDEFINED: return jbuf_add_literal(r, b, "Undefined");
    case J_NONE: return jbuf_add_literal(r, b, "None");
    case J_BOOL: return jbuf_add_literal(r, b, v.b ? "True" : "False");
    case J_INT:
    case J_FLOAT: return add_number(r, b, v);
    case J_TEXT:
        if (!v.text->safe) return jrepr_text(r, b, v.text, false);
        return jbuf_add_literal(r, b, "Markup(") && jrepr_text(r, b, v.text, false) &&
               jbuf_add_literal(r, b, ")");
    default: break;
    }
    if (!jrun_enter(r)) return false;
    bool good = repr_container(r, b, v);
    jrun_leave(r);
    return good;
}

jtext *jstr(jrun *r, jvalue v) {
    if (v.type == J_TEXT) {
        if (!v.text->safe) return v.text;
        jtext *plain = jtext_slice(r, v.text, 0, v.text->length);
        if (plain) plain->safe = false;
        return plain;
    }
    if (v.type == J_UNDEFINED) return jtext_literal(r, "");
    jbuf b = {0};
    return jrepr(r, &b, v) ? jbuf_text(r, &b) : NULL;
}

/* ---- JSON ---- */

typedef struct dump {
    jrun *r;
    jbuf b;
    bool ascii, sorted;
    jtext *indent; /* NULL: all in one line */
    jtext *comma, *colon;
    int level;
} dump;

static bool dump_value(dump *d, jvalue v);

static bool dump_char(dump *d, const jtext *t, size_t at, size_t n, uint32_t c) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    uint8_t mark = jtext_mark(t, at);
    const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;
    char room[16];
    int made;
    if (simple) {
        made = snprintf(room, sizeof room, "\\%c", to[simple - from]);
    } else if (c < 0x20 || (d->ascii && c > 0x7e && c < 0x10000)) {
        made = snprintf(room, sizeof room, "\\u%04x", (unsigned)c);
    } else if (d->ascii && c >= 0x10000) {
        made = snprintf(room, sizeof room, "\\u%04x\\u%04x", (unsigned)(0xd7c0 + (c >> 10)),
                        (unsigned)(0xdc00 + (c & 0x3ff)));
    } else {
        return jbuf_add(d->r, &d->b, t->bytes + at, n, mark);
    }
    return jbuf_add(d->r, &d->b, room, (size_t)made, mark);
}

/* A byte that is copied as it is. */
static bool is_plain(const dump *d, char c) {
    unsigned char u = (unsigned char)c;
    return u >= 0x20 && u != '"' && u != '\\' && (!d->ascii || u < 0x7f);
}

static bool dump_text(dump *d, const jtext *t) {
    if (!jbuf_add_literal(d->r, &d->b, "\"")) return false;
    for (size_t at = 0, n; at < t->length; at += n) {
        for (n = 0; at + n < t->length && is_plain(d, t->bytes[at + n]);) n++;
        if (n) {
            if (!jbuf_add_slice(d->r, &d->b, t, at, at + n)) return false;
            continue;
        }
        uint32_t c = jtext_char(t, at, &n);
        if (!dump_char(d, t, at, n, c)) return false;
    }
    return jbuf_add_literal(d->r, &d->b, "\"");
}

static bool dump_newline(dump *d) {
    if (!d->indent) return true;
    if (!jbuf_add_literal(d->r, &d->b, "\n")) return false;
    for (int i = 0; i < d->level; i++) {
        if (!jbuf_add_text(d->r, &d->b, d->indent)) return false;
    }
    return true;
}

static bool dump_border(dump *d, const char *bracket, int change) {
    if (change > 0 && !jbuf_add_literal(d->r, &d->b, bracket)) return false;
    d->level += change;
    if (!dump_newline(d)) return false;
    return change > 0 || jbuf_add_literal(d->r, &d->b, bracket);
}

static bool dump_list(dump *d, const jlist *l) {
    if (l->count == 0) return jbuf_add_literal(d->r, &d->b, "[]");
    if (!dump_border(d, "[", 1)) return false;
    for (size_t i = 0; i < l->count; i++) {
        if (i && !(jbuf_add_text(d->r, &d->b, d->comma) && dump_newline(d))) return false;
        if (!dump_value(d, l->items[i])) return false;
    }
    return dump_border(d, "]", -1);
}

static bool dump_key(dump *d, jvalue key) {
    if (key.type == J_TEXT) return dump_text(d, key.text);
    if (key.type != J_NONE && !jis_number(key)) {
        return JFAIL(d->r, "a key of type %s cannot be written as JSON", jtype_name(key));
    }
    return jbuf_add_literal(d->r, &d->b, "\"") && dump_value(d, key) &&
           jbuf_add_literal(d->r, &d->b, "\"");
}

/* Insertion sort by key would be quadratic: merge sort, bottom up. */
static bool sort_entries(jrun *r, jentry *a, jentry *room, size_t n) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t mid = low + width < n ? low + width : n;
            size_t high = low + 2 * width < n ? low + 2 * width : n;
            size_t i = low, k = mid;
            for (size_t to = low; to < high; to++) {
                int c = -1;
                if (i < mid && k < high && !jcompare(r, a[k].key, a[i].key, "<", &c)) return false;
                bool right = i >= mid || (k < high && c < 0);
                room[to] = right ? a[k++] : a[i++];
            }
        }
        memcpy(a, room, n * sizeof *a);
    }
    return jrun_charge(r, n);
}

static bool dump_dict(dump *d, const jdict *dict) {
    if (dict->count == 0) return jbuf_add_literal(d->r, &d->b, "{}");
    jentry *entries = dict->entries;
    if (d->sorted) {
        entries = jrun_alloc(d->r, dict->count, 2 * sizeof *entries);
        if (!entries) return false;
        memcpy(entries, dict->entries, dict->count * sizeof *entries);
        if (!sort_entries(d->r, entries, entries + dict->count, dict->count)) return false;
    }
    if (!dump_border(d, "{", 1)) return false;
    for (uint32_t i = 0; i < dict->count; i++) {
        if (i && !(jbuf_add_text(d->r, &d->b, d->comma) && dump_newline(d))) return false;
        if (!dump_key(d, entries[i].key) || !jbuf_add_text(d->r, &d->b, d->colon)) return false;
        if (!dump_value(d, entries[i].value)) return false;
    }
    return dump_border(d, "}", -1);
}

static bool dump_float(dump *d, double f) {
    if (isnan(f)) return jbuf_add_literal(d->r, &d->b, "NaN");
    if (isinf(f)) return jbuf_add_literal(d->r, &d->b, f < 0 ? "-Infinity" : "Infinity");
    return add_number(d->r, &d->b, jfloat(f));
}

static bool dump_value(dump *d, jvalue v) {
    bool good;
    switch (v.type) {
    case J_NONE: return jbuf_add_literal(d->r, &d->b, "null");
    case J_BOOL: return jbuf_add_literal(d->r, &d->b, v.b ? "true" : "false");
    case J_INT: return add_number(d->r, &d->b, v);
    case J_FLOAT: return dump_float(d, v.f);
    case J_TEXT: return dump_text(d, v.text);
    case J_LIST:
    case J_TUPLE:
    case J_DICT: break;
    default:
        return JFAIL(d->r, "a value of type %s cannot be written as JSON%s", jtype_name(v),
                     v.type == J_UNDEFINED ? " (it is undefined)" : "");
    }
    if (!jrun_enter(d->r)) return false;
    good = v.type == J_DICT ? dump_dict(d, v.dict) : dump_list(d, v.list);
    jrun_leave(d->r);
    return good;
}

static bool set_indent(dump *d, jvalue indent) {
    if (indent.type == J_TEXT) {
        d->indent = indent.text;
    } else if (jis_integer(indent)) {
        int64_t n = jinteger(indent);
        jbuf b = {0};
        if (n > 1000) return jrun_fail(d->r, ERR_RANGE, "tojson: indent is larger than 1000");
        if (n > 0 && !jbuf_fill(d->r, &b, (size_t)n, " ", TEMPLATE_MARKUP)) return false;
        if (!(d->indent = jbuf_text(d->r, &b))) return false;
    } else if (indent.type != J_NONE && indent.type != J_MISSING) {
        return JFAIL(d->r, "tojson: indent is a %s", jtype_name(indent));
    }
    return true;
}

static bool set_separators(dump *d, jvalue separators) {
    if (separators.type == J_MISSING || separators.type == J_NONE) {
        d->comma = jtext_literal(d->r, d->indent ? "," : ", ");
        d->colon = jtext_literal(d->r, ": ");
        return d->comma && d->colon;
    }
    jlist *pair;
    if (!jiterate(d->r, separators, &pair)) return false;
    if (pair->count != 2 || pair->items[0].type != J_TEXT || pair->items[1].type != J_TEXT) {
        return JFAIL(d->r, "tojson: separators are not two strings");
    }
    d->comma = pair->items[0].text;
    d->colon = pair->items[1].text;
    return true;
}

/* json.dumps with transformers' defaults. */
bool jtojson(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[4];
    if (!jargs_bind(r, "tojson", args, "ensure_ascii indent separators sort_keys", a)) return false;
    dump d = {.r = r, .ascii = jtruth(a[0]), .sorted = jtruth(a[3])};
    if (!set_indent(&d, a[1]) || !set_separators(&d, a[2]) || !dump_value(&d, self)) return false;
    jtext *t = jbuf_text(r, &d.b);
    if (t) *out = jstring(t);
    return t != NULL;
}
