/* jinja_format.c: "..." % values and "...".format(values), with Python's format specifications. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

enum { WIDTH_MAX = 100000, PRECISION_MAX = 300 };

/* [[fill]align][sign][#][0][width][grouping][.precision][type]; `%` fills in what it has. */
typedef struct spec {
    uint32_t fill;
    char align, sign, type, group;
    bool alternate;
    int width, precision; /* precision -1: none */
} spec;

/* ---- padding ---- */

/* Text with `head` bytes of sign and prefix in front, padded to the width. */
static bool add_padded(jrun *r, jbuf *b, const jtext *t, size_t head, const spec *s) {
    size_t width = (size_t)s->width, pad = width > t->chars ? width - t->chars : 0;
    size_t left = s->align == '>' ? pad : s->align == '^' ? pad / 2 : 0;
    size_t inside = s->align == '=' ? pad : 0, right = pad - left - inside;
    for (size_t i = 0; i < left; i++) {
        if (!jbuf_add_char(r, b, s->fill, TEMPLATE_MARKUP)) return false;
    }
    if (!jbuf_add_slice(r, b, t, 0, head)) return false;
    for (size_t i = 0; i < inside; i++) {
        if (!jbuf_add_char(r, b, s->fill, TEMPLATE_MARKUP)) return false;
    }
    if (!jbuf_add_slice(r, b, t, head, t->length)) return false;
    for (size_t i = 0; i < right; i++) {
        if (!jbuf_add_char(r, b, s->fill, TEMPLATE_MARKUP)) return false;
    }
    return jrun_charge(r, pad / 16);
}

static bool add_text(jrun *r, jbuf *b, const jtext *t, const spec *s) {
    spec use = *s;
    if (!use.align) use.align = '<';
    if (s->precision >= 0 && (size_t)s->precision < t->chars) {
        t = jtext_slice(r, t, 0, jtext_offset(t, (size_t)s->precision));
        if (!t) return false;
    }
    return add_padded(r, b, t, 0, &use);
}

/* ---- numbers ---- */

/* digits with separators: every 3 (or 4 for b, o, x) from the right up to `end`. */
static size_t group_digits(const char *digits, size_t count, char mark, int every, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (i && (count - i) % (size_t)every == 0) out[n++] = mark;
        out[n++] = digits[i];
    }
    return n;
}

/* sign, prefix and digits (of which the first `whole` may be grouped) to the builder. */
typedef struct number {
    bool negative;
    const char *prefix;
    char digits[700];
    size_t count, whole;
} number;

static bool add_number(jrun *r, jbuf *b, const number *n, const spec *s) {
    char room[1200];
    size_t length = 0;
    if (n->negative || s->sign == '+' || s->sign == ' ') {
        room[length++] = n->negative ? '-' : s->sign;
    }
    for (const char *p = n->prefix; *p; p++) room[length++] = *p;
    size_t head = length;
    if (s->group) {
        int every = s->type && strchr("boxX", s->type) ? 4 : 3;
        char whole[700];
        size_t count = n->whole;
        memcpy(whole, n->digits, count);
        if (s->fill == '0' && s->align == '=') { /* zeros are grouped, too */
            size_t rest = n->count - n->whole, want = (size_t)s->width;
            while (count < 300 && head + rest + count + (count - 1) / (size_t)every < want) {
                memmove(whole + 1, whole, count++);
                whole[0] = '0';
            }
        }
        length += group_digits(whole, count, s->group, every, room + length);
    } else {
        memcpy(room + length, n->digits, n->whole);
        length += n->whole;
    }
    memcpy(room + length, n->digits + n->whole, n->count - n->whole);
    length += n->count - n->whole;
    spec use = *s;
    if (!use.align) use.align = '>';
    jtext t = {.bytes = room, .length = length, .chars = length};
    return add_padded(r, b, &t, head, &use);
}

static bool add_integer(jrun *r, jbuf *b, int64_t v, const spec *s) {
    number n = {.negative = v < 0, .prefix = ""};
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char type = s->type ? s->type : 'd';
    unsigned base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    const char *letters = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    char back[80];
    size_t count = 0;
    do {
        back[count++] = letters[u % base];
        u /= base;
    } while (u);
    while (s->precision > (int)count + (int)n.count && n.count < 400) n.digits[n.count++] = '0';
    while (count) n.digits[n.count++] = back[--count];
    n.whole = n.count;
    if (s->alternate) {
        n.prefix = type == 'b'   ? "0b"
                   : type == 'o' ? "0o"
                   : type == 'x' ? "0x"
                   : type == 'X' ? "0X"
                                 : "";
    }
    return add_number(r, b, &n, s);
}

/* No type: like repr, or like g with at least one digit behind the point. */
static void plain_float(double v, int precision, char *out, size_t size) {
    char room[400];
    if (precision < 0) {
        jfloat_repr(v, room);
        snprintf(out, size, "%s", room);
        return;
    }
    if (precision == 0) precision = 1;
    snprintf(room, sizeof room, "%.*e", precision - 1, v);
    char *e = strchr(room, 'e');
    int exponent = e ? (int)strtol(e + 1, NULL, 10) : 0;
    if (exponent >= -4 && exponent < precision - 1) {
        snprintf(out, size, "%.*g", precision, v);
        if (!strpbrk(out, ".e")) strncat(out, ".0", size - strlen(out) - 1);
        return;
    }
    if (exponent < -4 || exponent >= precision) {
        snprintf(out, size, "%.*g", precision, v);
        return;
    }
    if (e) *e = '\0'; /* as many digits as asked for: g would not take an exponent yet */
    size_t n = strlen(room);
    while (strchr(room, '.') && (room[n - 1] == '0' || room[n - 1] == '.')) {
        bool point = room[n - 1] == '.';
        room[--n] = '\0';
        if (point) break;
    }
    snprintf(out, size, "%se%c%02d", room, exponent < 0 ? '-' : '+', abs(exponent));
}

static bool add_float(jrun *r, jbuf *b, double v, const spec *s) {
    number n = {.negative = signbit(v) && !isnan(v), .prefix = ""};
    double use = fabs(v);
    int precision = s->precision > PRECISION_MAX ? PRECISION_MAX : s->precision;
    char type = s->type == '%' ? 'f' : s->type;
    if (s->type == '%') use *= 100;
    if (!isfinite(use)) {
        bool upper = type == 'F' || type == 'E' || type == 'G';
        snprintf(n.digits, sizeof n.digits, "%s",
                 isnan(use) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"));
    } else if (!type) {
        plain_float(use, precision, n.digits, sizeof n.digits);
    } else {
        char format[8] = {'%', '.', '*', type, '\0'};
        if (s->alternate) memcpy(format, (char[]){'%', '#', '.', '*', type, '\0'}, 6);
        snprintf(n.digits, sizeof n.digits, format, precision < 0 ? 6 : precision, use);
    }
    n.count = strlen(n.digits);
    if (s->type == '%' && n.count + 1 < sizeof n.digits) n.digits[n.count++] = '%';
    while (n.whole < n.count && n.digits[n.whole] >= '0' && n.digits[n.whole] <= '9') n.whole++;
    return add_number(r, b, &n, s);
}

static bool add_character(jrun *r, jbuf *b, int64_t c, const spec *s) {
    if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        return JFAIL(r, "%%c: %lld is no character", (long long)c);
    }
    jbuf one = {0};
    if (!jbuf_add_char(r, &one, (uint32_t)c, TEMPLATE_MARKUP)) return false;
    jtext *t = jbuf_text(r, &one);
    return t && add_text(r, b, t, s);
}

/* ---- "%" ---- */

typedef struct percent {
    jrun *r;
    const jtext *format;
    size_t at;
    jvalue args;
    size_t used; /* of a tuple, or 0 and 1 of a single value */
} percent;

static bool next_value(percent *p, jvalue *out) {
    size_t count = p->args.type == J_TUPLE ? p->args.list->count : 1;
    if (p->used >= count) return JFAIL(p->r, "not enough arguments for format string");
    *out = p->args.type == J_TUPLE ? p->args.list->items[p->used] : p->args;
    p->used++;
    return true;
}

static char peek(const percent *p) {
    return p->at < p->format->length ? p->format->bytes[p->at] : '\0';
}

/* A number or "*"; absent: *out stays. */
static bool percent_number(percent *p, int *out) {
    if (peek(p) == '*') {
        jvalue v;
        p->at++;
        if (!next_value(p, &v)) return false;
        if (!jis_integer(v)) return JFAIL(p->r, "* wants a whole number");
        if (jinteger(v) > WIDTH_MAX || jinteger(v) < -WIDTH_MAX) {
            return JFAIL(p->r, "a width in a format is too large");
        }
        *out = (int)jinteger(v);
        return true;
    }
    if (peek(p) < '0' || peek(p) > '9') return true;
    for (*out = 0; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        *out = *out * 10 + (peek(p) - '0');
        if (*out > WIDTH_MAX) return JFAIL(p->r, "a width in a format is too large");
    }
    return true;
}

/* (name): the value is an item of the mapping. */
static bool percent_key(percent *p, jvalue *value, bool *keyed) {
    *keyed = peek(p) == '(';
    if (!*keyed) return true;
    size_t begin = ++p->at;
    for (int depth = 1; depth; p->at++) {
        if (p->at >= p->format->length) return JFAIL(p->r, "incomplete format key");
        depth += (peek(p) == '(') - (peek(p) == ')');
    }
    jtext *name = jtext_slice(p->r, p->format, begin, p->at - 1);
    if (!name) return false;
    if (p->args.type != J_DICT) return JFAIL(p->r, "format requires a mapping");
    jvalue *found = jdict_find(p->args.dict, name);
    if (!found) {
        return JFAIL(p->r, "the format's key '%.*s' is not there", (int)size_min(name->length, 60),
                     name->bytes);
    }
    *value = *found;
    p->used = 1; /* the mapping itself is no value any more */
    return true;
}

static bool percent_spec(percent *p, spec *s) {
    bool left = false, zero = false;
    for (;; p->at++) {
        char c = peek(p);
        if (c == '-')
            left = true;
        else if (c == '0')
            zero = true;
        else if (c == '+' || (c == ' ' && s->sign != '+'))
            s->sign = c;
        else if (c == '#')
            s->alternate = true;
        else if (c != ' ')
            break;
    }
    if (!percent_number(p, &s->width)) return false;
    if (s->width < 0) {
        left = true;
        s->width = -s->width;
    }
    if (peek(p) == '.') {
        p->at++;
        s->precision = 0;
        if (!percent_number(p, &s->precision)) return false;
        if (s->precision < 0) s->precision = 0;
    }
    while (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L') p->at++;
    s->align = left ? '<' : zero ? '=' : '>';
    s->fill = zero && !left ? '0' : ' ';
    if (p->at >= p->format->length) return JFAIL(p->r, "incomplete format");
    s->type = p->format->bytes[p->at++];
    return true;
}

static bool percent_text(percent *p, jbuf *b, jvalue v, spec *s) {
    jbuf made = {0};
    jtext *t;
    if (s->type == 's') {
        t = jstr(p->r, v);
    } else {
        bool good = s->type == 'a' && v.type == J_TEXT ? jrepr_text(p->r, &made, v.text, true)
                                                       : jrepr(p->r, &made, v);
        t = good ? jbuf_text(p->r, &made) : NULL;
    }
    s->fill = ' ';
    if (s->align == '=') s->align = '>';
    return t && add_text(p->r, b, t, s);
}

static bool percent_one(percent *p, jbuf *b, jvalue v, spec *s) {
    jrun *r = p->r;
    if (strchr("sra", s->type)) return percent_text(p, b, v, s);
    if (s->type == 'c') {
        s->fill = ' ';
        if (s->align == '=') s->align = '>';
        s->precision = -1;
        if (v.type == J_TEXT && v.text->chars == 1) return add_text(r, b, v.text, s);
        if (jis_integer(v)) return add_character(r, b, jinteger(v), s);
        return JFAIL(r, "%%c requires a whole number or one character");
    }
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    if (!jis_number(v)) {
        return JFAIL(r, "%%%c format: a number is required, not %s", s->type, jtype_name(v));
    }
    if (strchr("eEfFgG", s->type)) return add_float(r, b, jnumber(v), s);
    if (v.type == J_FLOAT && (strchr("xXo", s->type) || !isfinite(v.f) || fabs(v.f) >= 9e18)) {
        return JFAIL(r, "%%%c format: a whole number is required", s->type);
    }
    if (s->type == 'i' || s->type == 'u') s->type = 'd';
    return add_integer(r, b, v.type == J_FLOAT ? (int64_t)v.f : jinteger(v), s);
}

static bool percent_field(percent *p, jbuf *b) {
    spec s = {.fill = ' ', .precision = -1};
    jvalue v = {.type = J_MISSING};
    bool keyed;
    if (peek(p) == '%') {
        p->at++;
        return jbuf_add_slice(p->r, b, p->format, p->at - 1, p->at);
    }
    if (!percent_key(p, &v, &keyed) || !percent_spec(p, &s)) return false;
    if (!strchr("diouxXeEfFgGcrsa", s.type)) {
        return JFAIL(p->r, "unsupported format character '%c'", s.type);
    }
    if (!keyed && !next_value(p, &v)) return false;
    return percent_one(p, b, v, &s);
}

bool jformat_percent(jrun *r, const jtext *format, jvalue args, jvalue *out) {
    percent p = {.r = r, .format = format, .args = args};
    jbuf b = {0};
    if (format->safe) return jrun_fail(r, ERR_UNSUPPORTED, "%% of a string marked safe");
    while (p.at < format->length) {
        const char *next = memchr(format->bytes + p.at, '%', format->length - p.at);
        size_t end = next ? (size_t)(next - format->bytes) : format->length;
        if (!jbuf_add_slice(r, &b, format, p.at, end)) return false;
        p.at = end + 1;
        if (next && !(jrun_charge(r, 1) && percent_field(&p, &b))) return false;
    }
    bool mapping = args.type == J_DICT || args.type == J_LIST || args.type == J_RANGE ||
                   args.type == J_UNDEFINED; /* whatever has items */
    if (!mapping && p.used < (args.type == J_TUPLE ? args.list->count : 1)) {
        return JFAIL(r, "not all arguments converted during string formatting");
    }
    jtext *t = jbuf_text(r, &b);
    if (t) *out = jstring(t);
    return t != NULL;
}

/* ---- str.format ---- */

typedef struct formatter {
    jrun *r;
    const jtext *format;
    const jargs *args;
    int next; /* automatic number, -1: numbers are written out */
} formatter;

static bool parse_spec(jrun *r, const jtext *t, spec *s) {
    size_t at = 0, n = 0;
    *s = (spec){.fill = ' ', .precision = -1};
    if (t->length) jtext_char(t, 0, &n);
    if (n < t->length && strchr("<>=^", t->bytes[n])) {
        s->fill = jtext_char(t, 0, &n);
        s->align = t->bytes[n];
        at = n + 1;
    } else if (t->length && strchr("<>=^", t->bytes[0])) {
        s->align = t->bytes[0];
        at = 1;
    }
    if (at < t->length && strchr("+- ", t->bytes[at])) s->sign = t->bytes[at++];
    if (at < t->length && t->bytes[at] == '#') s->alternate = ++at;
    if (at < t->length && t->bytes[at] == '0') {
        at++;
        if (!s->align) {
            s->align = '=';
            s->fill = '0';
        }
    }
    int *count = &s->width;
    for (; at < t->length; at++) {
        char c = t->bytes[at];
        if (c >= '0' && c <= '9') {
            *count = (*count < 0 ? 0 : *count) * 10 + (c - '0');
            if (*count > WIDTH_MAX) return JFAIL(r, "a width in a format is too large");
        } else if ((c == ',' || c == '_') && count == &s->width && !s->group) {
            s->group = c;
        } else if (c == '.' && count == &s->width && at + 1 < t->length) {
            count = &s->precision;
        } else {
            break;
        }
    }
    if (at < t->length) s->type = t->bytes[at++];
    return at == t->length ? true : JFAIL(r, "invalid format specifier");
}

static bool format_value(jrun *r, jbuf *b, jvalue v, const jtext *spec_text) {
    spec s;
    if (spec_text->length == 0) {
        jtext *t = jstr(r, v);
        return t && jbuf_add_text(r, b, t);
    }
    if (!parse_spec(r, spec_text, &s)) return false;
    if (v.type == J_TEXT) {
        if ((s.type && s.type != 's') || s.sign || s.alternate || s.group) {
            return JFAIL(r, "format '%c' of a string", s.type ? s.type : '=');
        }
        if (s.align == '=' && s.fill == '0') s.align = '<';
        if (s.align == '=') return JFAIL(r, "'=' alignment of a string");
        return add_text(r, b, v.text, &s);
    }
    if (v.type == J_UNDEFINED || !jis_number(v)) {
        return JFAIL(r, "a format specification for a %s", jtype_name(v));
    }
    if (s.type == 'n') return jrun_fail(r, ERR_UNSUPPORTED, "format 'n'");
    if (jis_integer(v) && (!s.type || strchr("bdoxX", s.type))) {
        if (s.precision >= 0) return JFAIL(r, "a precision for a whole number");
        return add_integer(r, b, jinteger(v), &s);
    }
    if (jis_integer(v) && s.type == 'c') {
        if (!s.align) s.align = '<';
        return add_character(r, b, jinteger(v), &s);
    }
    if (!s.type || strchr("eEfFgG%", s.type)) return add_float(r, b, jnumber(v), &s);
    return JFAIL(r, "unknown format code '%c' for a %s", s.type, jtype_name(v));
}

static bool all_digits(const jtext *t, size_t from, size_t to, int *out) {
    *out = 0;
    for (size_t i = from; i < to; i++) {
        if (t->bytes[i] < '0' || t->bytes[i] > '9' || i - from > 6) return false;
        *out = *out * 10 + (t->bytes[i] - '0');
    }
    return to > from;
}

static bool first_value(formatter *f, const jtext *name, size_t end, jvalue *out) {
    int index;
    if (end == 0) {
        if (f->next < 0) return JFAIL(f->r, "cannot switch from numbered fields to automatic ones");
        index = f->next++;
    } else if (all_digits(name, 0, end, &index)) {
        if (f->next > 0) return JFAIL(f->r, "cannot switch from automatic fields to numbered ones");
        f->next = -1;
    } else {
        for (int i = 0; i < f->args->n_kw; i++) {
            const jtext *kw = f->args->kw[i].name;
            if (kw->length != end || memcmp(kw->bytes, name->bytes, end) != 0) continue;
            *out = f->args->kw[i].value;
            return true;
        }
        return JFAIL(f->r, "format: no argument '%.*s'", (int)size_min(end, 60), name->bytes);
    }
    if (index >= f->args->n) return JFAIL(f->r, "format: no argument %d", index);
    *out = f->args->pos[index];
    return true;
}

/* name.attribute[item] ... */
static bool field_value(formatter *f, const jtext *name, jvalue *out) {
    size_t at = 0;
    while (at < name->length && name->bytes[at] != '.' && name->bytes[at] != '[') at++;
    if (!first_value(f, name, at, out)) return false;
    while (at < name->length) {
        bool item = name->bytes[at] == '[';
        size_t begin = ++at;
        while (at < name->length &&
               (item ? name->bytes[at] != ']' : name->bytes[at] != '.' && name->bytes[at] != '[')) {
            at++;
        }
        int index;
        jtext *key = jtext_slice(f->r, name, begin, at);
        if (!key) return false;
        if (item && at == name->length) return JFAIL(f->r, "format: missing ']'");
        bool good =
            !item
                ? jget_attr(f->r, *out, key, out)
                : jget_item(f->r, *out,
                            all_digits(name, begin, at, &index) ? jint(index) : jstring(key), out);
        if (!good) return false;
        at += item;
    }
    return true;
}

static bool run_format(formatter *f, const jtext *t, jbuf *b, int depth);

/* The inside of {name!conversion:spec}. */
static bool format_field(formatter *f, const jtext *field, jbuf *b, int depth) {
    size_t name_end = 0;
    for (int open = 0; name_end < field->length; name_end++) {
        char c = field->bytes[name_end];
        open += (c == '[') - (c == ']');
        if (!open && (c == '!' || c == ':')) break;
    }
    size_t spec_at = name_end;
    char conversion = '\0';
    if (spec_at < field->length && field->bytes[spec_at] == '!') {
        conversion = spec_at + 1 < field->length ? field->bytes[spec_at + 1] : '?';
        spec_at += 2;
    }
    if (spec_at < field->length && field->bytes[spec_at] != ':') {
        return JFAIL(f->r, "format: expected ':' after the conversion");
    }
    jtext *name = jtext_slice(f->r, field, 0, name_end);
    jvalue v;
    if (!name || !field_value(f, name, &v)) return false;
    if (conversion) {
        percent p = {.r = f->r};
        spec s = {.fill = ' ', .precision = -1, .type = conversion, .align = '<'};
        jbuf made = {0};
        if (!strchr("sra", conversion)) return JFAIL(f->r, "format: unknown conversion");
        if (!percent_text(&p, &made, v, &s)) return false;
        jtext *text = jbuf_text(f->r, &made);
        if (!text) return false;
        v = jstring(text);
    }
    jbuf made = {0};
    size_t begin = size_min(spec_at + 1, field->length);
    jtext *raw = jtext_slice(f->r, field, begin, field->length);
    if (!raw || !run_format(f, raw, &made, depth + 1)) return false;
    jtext *spec_text = jbuf_text(f->r, &made);
    return spec_text && format_value(f->r, b, v, spec_text);
}

static bool run_format(formatter *f, const jtext *t, jbuf *b, int depth) {
    if (depth > 2) return JFAIL(f->r, "format: nested too deeply");
    for (size_t at = 0; at < t->length;) {
        size_t end = at;
        while (end < t->length && t->bytes[end] != '{' && t->bytes[end] != '}') end++;
        if (!jbuf_add_slice(f->r, b, t, at, end)) return false;
        if (end == t->length) break;
        if (end + 1 < t->length && t->bytes[end + 1] == t->bytes[end]) {
            if (!jbuf_add_slice(f->r, b, t, end, end + 1)) return false;
            at = end + 2;
            continue;
        }
        if (t->bytes[end] == '}') return JFAIL(f->r, "format: a single '}'");
        size_t close = end + 1;
        for (int open = 1; open; close++) {
            if (close >= t->length) return JFAIL(f->r, "format: '{' is never closed");
            open += (t->bytes[close] == '{') - (t->bytes[close] == '}');
        }
        jtext *field = jtext_slice(f->r, t, end + 1, close - 1);
        if (!field || !jrun_charge(f->r, 1) || !format_field(f, field, b, depth)) return false;
        at = close;
    }
    return true;
}

bool jformat_method(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    formatter f = {.r = r, .format = self.text, .args = args};
    jbuf b = {0};
    if (!run_format(&f, self.text, &b, 0)) return false;
    jtext *t = jbuf_text(r, &b);
    if (t) *out = jstring(t);
    return t != NULL;
}
