/* jinja_filters_text.c: filters of strings. Most are the method of the same name on str(value). */
#include <stdlib.h>
#include <utf8proc.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

static bool give(jtext *t, jvalue *out) {
    if (t) *out = jstring(t);
    return t != NULL;
}

/* self.name(args), with self made a string first. */
static bool call_method(jrun *r, jvalue self, const char *name, const jargs *args, jvalue *out) {
    jtext *t = self.type == J_TEXT ? self.text : jstr(r, self), *method = jtext_literal(r, name);
    jvalue bound;
    return t && method && jget_attr(r, jstring(t), method, &bound) &&
           jcall_value(r, bound, args, out);
}

static const jargs no_args;

static bool filter_upper(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "upper", args, "", NULL) && call_method(r, self, "upper", args, out);
}

static bool filter_lower(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "lower", args, "", NULL) && call_method(r, self, "lower", args, out);
}

static bool filter_capitalize(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "capitalize", args, "", NULL) &&
           call_method(r, self, "capitalize", args, out);
}

static bool filter_trim(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "trim", args, "chars", a)) return false;
    const jargs use = {.pos = a, .n = a[0].type != J_MISSING};
    return call_method(r, self, "strip", &use, out);
}

static bool filter_center(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "center", args, "width", a)) return false;
    if (a[0].type == J_MISSING) a[0] = jint(80);
    return call_method(r, self, "center", &(jargs){.pos = a, .n = 1}, out);
}

static bool filter_replace(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    if (!jargs_bind(r, "replace", args, "old! new! count", a)) return false;
    jtext *t = jstr(r, self), *old = jstr(r, a[0]), *by = jstr(r, a[1]);
    if (!t || !old || !by) return false;
    a[0] = jstring(old);
    a[1] = jstring(by);
    bool counted = a[2].type != J_MISSING && a[2].type != J_NONE;
    return call_method(r, jstring(t), "replace", &(jargs){.pos = a, .n = 2 + counted}, out);
}

static bool is_separator(uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || junicode_is_space(c);
}

static bool filter_title(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jtext *t = self.type == J_TEXT ? self.text : jstr(r, self);
    jbuf b = {0};
    if (!jargs_bind(r, "title", args, "", NULL) || !t) return false;
    for (size_t at = 0, n; at < t->length;) {
        size_t end = at, first;
        bool separator = is_separator(jtext_char(t, at, &first));
        while (end < t->length && is_separator(jtext_char(t, end, &n)) == separator) end += n;
        jtext *head = jtext_slice(r, t, at, at + first), *tail = jtext_slice(r, t, at + first, end);
        if (!head || !tail || !(head = jtext_upper(r, head)) || !(tail = jtext_lower(r, tail))) {
            return false;
        }
        if (!jbuf_add_text(r, &b, head) || !jbuf_add_text(r, &b, tail)) return false;
        at = end;
    }
    return give(jbuf_text(r, &b), out);
}

/* ---- lines ---- */

static bool split_lines(jrun *r, jtext *t, jlist **out) {
    jvalue lines;
    if (!call_method(r, jstring(t), "splitlines", &no_args, &lines)) return false;
    *out = lines.list;
    return true;
}

static jtext *indentation(jrun *r, jvalue width) {
    if (width.type == J_TEXT) return width.text;
    jbuf b = {0};
    int64_t n = width.type == J_MISSING ? 4 : jinteger(width);
    if (n > 10000) {
        jrun_fail(r, ERR_RANGE, "indent: the width is larger than 10000");
        return NULL;
    }
    if (n > 0 && !jbuf_fill(r, &b, (size_t)n, " ", TEMPLATE_MARKUP)) return NULL;
    return jbuf_text(r, &b);
}

static bool filter_indent(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    if (!jargs_bind(r, "indent", args, "width first blank", a)) return false;
    if (self.type == J_UNDEFINED) return jfail_undefined(r, self);
    if (self.type != J_TEXT) return JFAIL(r, "indent of a %s", jtype_name(self));
    if (a[0].type != J_MISSING && a[0].type != J_TEXT && !jis_integer(a[0])) {
        return JFAIL(r, "indent: width is a %s", jtype_name(a[0]));
    }
    if (self.text->safe) return jrun_fail(r, ERR_UNSUPPORTED, "indent of a string marked safe");
    bool first = jtruth(a[1]), blank = jtruth(a[2]);
    jtext *space = indentation(r, a[0]);
    jbuf with_end = {0}, b = {0};
    jlist *lines;
    if (!space || !jbuf_add_text(r, &with_end, self.text) ||
        !jbuf_add_literal(r, &with_end, "\n")) {
        return false;
    }
    jtext *whole = jbuf_text(r, &with_end); /* so that a last empty line is one */
    if (!whole || !split_lines(r, whole, &lines)) return false;
    for (size_t i = 0; i < lines->count; i++) {
        const jtext *line = lines->items[i].text;
        bool here = i == 0 ? first : blank || line->length > 0;
        if (i && !jbuf_add_literal(r, &b, "\n")) return false;
        if (here && !jbuf_add_text(r, &b, space)) return false;
        if (!jbuf_add_text(r, &b, line)) return false;
    }
    return give(jbuf_text(r, &b), out);
}

static bool filter_truncate(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[4];
    size_t size;
    if (!jargs_bind(r, "truncate", args, "length killwords end leeway", a)) return false;
    jtext *end = a[2].type == J_TEXT ? a[2].text : jtext_literal(r, "...");
    if (!end || !jlength(r, self, &size)) return false;
    int64_t length = jis_integer(a[0]) ? jinteger(a[0]) : 255;
    int64_t leeway = jis_integer(a[3]) ? jinteger(a[3]) : 5;
    int64_t keep = length - (int64_t)end->chars;
    if (keep < 0) return JFAIL(r, "truncate: the length is smaller than the end's");
    if (leeway < 0) return JFAIL(r, "truncate: leeway is negative");
    *out = self;
    if ((int64_t)size <= length + leeway) return true;
    if (self.type != J_TEXT) return JFAIL(r, "truncate of a %s", jtype_name(self));
    if (self.text->safe) return jrun_fail(r, ERR_UNSUPPORTED, "truncate of a string marked safe");
    size_t to = jtext_offset(self.text, (size_t)keep);
    if (!jtruth(a[1])) {
        const jtext blank = {.bytes = " ", .length = 1};
        size_t cut = jtext_find_last(self.text, &blank, to);
        if (cut != SIZE_MAX) to = cut;
    }
    jbuf b = {0};
    return jbuf_add_slice(r, &b, self.text, 0, to) && jbuf_add_text(r, &b, end) &&
           give(jbuf_text(r, &b), out);
}

static bool filter_wordcount(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jtext *t = jstr(r, self);
    int64_t count = 0;
    bool inside = false;
    if (!jargs_bind(r, "wordcount", args, "", NULL) || !t) return false;
    for (size_t at = 0, n; at < t->length; at += n) {
        uint32_t c = jtext_char(t, at, &n);
        utf8proc_category_t k = utf8proc_category((int32_t)c);
        bool word = c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
                    (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
        count += word && !inside;
        inside = word;
    }
    *out = jint(count);
    return jrun_charge(r, t->length / 8);
}

/* ---- for the web ---- */

static bool add_quoted(jrun *r, jbuf *b, const jtext *t, bool query) {
    for (size_t i = 0; i < t->length; i++) {
        unsigned char c = (unsigned char)t->bytes[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);
        char room[4] = {(char)c, '\0'};
        if (query && c == ' ') {
            room[0] = '+';
        } else if (!plain) {
            static const char hex[] = "0123456789ABCDEF";
            memcpy(room, (char[]){'%', hex[c >> 4], hex[c & 15], '\0'}, 4);
        }
        if (!jbuf_add(r, b, room, strlen(room), jtext_mark(t, i))) return false;
    }
    return jrun_charge(r, t->length / 8);
}

static bool filter_urlencode(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jbuf b = {0};
    if (!jargs_bind(r, "urlencode", args, "", NULL)) return false;
    if (self.type == J_TEXT || !jcan_iterate(self)) {
        jtext *t = jstr(r, self);
        return t && add_quoted(r, &b, t, false) && give(jbuf_text(r, &b), out);
    }
    jview view = {self.dict, JVIEW_ITEMS};
    jvalue pairs = self.type == J_DICT ? (jvalue){.type = J_VIEW, .view = &view} : self;
    jlist *in;
    if (!jiterate(r, pairs, &in)) return false;
    for (size_t i = 0; i < in->count; i++) {
        jlist *pair;
        if (!jiterate(r, in->items[i], &pair)) return false;
        if (pair->count != 2) return JFAIL(r, "urlencode: an item is no pair");
        jtext *key = jstr(r, pair->items[0]), *value = jstr(r, pair->items[1]);
        if (!key || !value || (i && !jbuf_add_literal(r, &b, "&"))) return false;
        if (!add_quoted(r, &b, key, true) || !jbuf_add_literal(r, &b, "=") ||
            !add_quoted(r, &b, value, true)) {
            return false;
        }
    }
    return give(jbuf_text(r, &b), out);
}

/* The text without what lies between open and close. */
static jtext *cut_out(jrun *r, const jtext *t, const char *open, const char *close) {
    const jtext a = {.bytes = open, .length = strlen(open)};
    const jtext z = {.bytes = close, .length = strlen(close)};
    jbuf b = {0};
    size_t at = 0, begin, end;
    while ((begin = jtext_find(t, &a, at)) != SIZE_MAX &&
           (end = jtext_find(t, &z, begin)) != SIZE_MAX) {
        if (!jbuf_add_slice(r, &b, t, at, begin) || !jrun_charge(r, 1)) return NULL;
        at = end + z.length;
    }
    return jbuf_add_slice(r, &b, t, at, t->length) ? jbuf_text(r, &b) : NULL;
}

static bool filter_striptags(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    static const char *const entities[][2] = {{"&lt;", "<"},   {"&gt;", ">"},  {"&quot;", "\""},
                                              {"&#34;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
    jtext *t = jstr(r, self), *blank = jtext_literal(r, " ");
    jvalue words;
    if (!jargs_bind(r, "striptags", args, "", NULL) || !t || !blank) return false;
    if (!(t = cut_out(r, t, "<!--", "-->")) || !(t = cut_out(r, t, "<", ">"))) return false;
    if (!call_method(r, jstring(t), "split", &no_args, &words) ||
        !call_method(r, jstring(blank), "join", &(jargs){.pos = &words, .n = 1}, out)) {
        return false;
    }
    const char *and = out->text->length ? memchr(out->text->bytes, '&', out->text->length) : NULL;
    if (!and) return true;
    for (size_t at = 0; at < out->text->length; at++) {
        bool known = out->text->bytes[at] != '&';
        for (size_t i = 0; i < 6 && !known; i++) {
            size_t n = strlen(entities[i][0]);
            known = n <= out->text->length - at &&
                    memcmp(out->text->bytes + at, entities[i][0], n) == 0;
        }
        if (!known) return jrun_fail(r, ERR_UNSUPPORTED, "striptags: an HTML entity");
    }
    for (size_t i = 0; i < 6; i++) {
        jtext *from = jtext_literal(r, entities[i][0]), *to = jtext_literal(r, entities[i][1]);
        if (!from || !to) return false;
        jvalue pair[2] = {jstring(from), jstring(to)};
        if (!call_method(r, *out, "replace", &(jargs){.pos = pair, .n = 2}, out)) return false;
    }
    return true;
}

const jnamed jinja_filters_text[] = {
    {"trim", filter_trim},
    {"upper", filter_upper},
    {"lower", filter_lower},
    {"capitalize", filter_capitalize},
    {"title", filter_title},
    {"replace", filter_replace},
    {"center", filter_center},
    {"indent", filter_indent},
    {"truncate", filter_truncate},
    {"wordcount", filter_wordcount},
    {"urlencode", filter_urlencode},
    {"striptags", filter_striptags},
    {NULL, NULL},
};
