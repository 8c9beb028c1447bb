/* jinja_strings.c: methods of strings that search, cut and join. Indices count code points. */
#include "base/bits.h"
#include "text/jinja_impl.h"

static bool give(jtext *t, jvalue *out) {
    if (t) *out = jstring(t);
    return t != NULL;
}

static bool want_text(jrun *r, const char *what, jvalue v) {
    if (v.type == J_TEXT) return true;
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    return JFAIL(r, "%s wants a string, not %s", what, jtype_name(v));
}

static bool want_int(jrun *r, const char *what, jvalue v, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (v.type == J_MISSING) return true;
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    if (!jis_integer(v)) return JFAIL(r, "%s wants a whole number, not %s", what, jtype_name(v));
    *out = jinteger(v);
    return true;
}

/* ---- white space and strip ---- */

static bool in_set(const jtext *chars, const jtext *t, size_t at, size_t n) {
    if (!chars) return junicode_is_space(jtext_char(t, at, &n));
    jtext one = {.bytes = t->bytes + at, .length = n};
    return jtext_find(chars, &one, 0) != SIZE_MAX;
}

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };

static bool strip(jrun *r, jvalue self, const jargs *args, int sides, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "strip", args, "chars", a)) return false;
    bool set = a[0].type != J_MISSING && a[0].type != J_NONE;
    if (set && !want_text(r, "strip", a[0])) return false;
    const jtext *t = self.text, *chars = set ? a[0].text : NULL;
    size_t from = 0, to = t->length, n;
    while ((sides & STRIP_LEFT) && from < to) {
        jtext_char(t, from, &n);
        if (!in_set(chars, t, from, n)) break;
        from += n;
    }
    while ((sides & STRIP_RIGHT) && to > from) {
        jtext_char_before(t, to, &n);
        if (!in_set(chars, t, to - n, n)) break;
        to -= n;
    }
    size_t looked = from + (t->length - to);
    return jrun_charge(r, looked / 16 * (1 + (chars ? chars->length / 16 : 0))) &&
           give(jtext_slice(r, t, from, to), out);
}

static bool str_strip(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return strip(r, self, args, STRIP_LEFT | STRIP_RIGHT, out);
}

static bool str_lstrip(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return strip(r, self, args, STRIP_LEFT, out);
}

static bool str_rstrip(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return strip(r, self, args, STRIP_RIGHT, out);
}

/* ---- split ---- */

static bool push_part(jrun *r, jlist *l, const jtext *t, size_t from, size_t to) {
    jtext *part = jtext_slice(r, t, from, to);
    return part && jlist_push(r, l, jstring(part));
}

static bool split_space(jrun *r, const jtext *t, int64_t max, jlist *l) {
    size_t at = 0, n;
    for (;;) {
        while (at < t->length && junicode_is_space(jtext_char(t, at, &n))) at += n;
        if (at == t->length) return true;
        size_t begin = at;
        if (max >= 0 && (int64_t)l->count == max) { /* the rest, without blanks at its end */
            size_t end = t->length;
            while (junicode_is_space(jtext_char_before(t, end, &n))) end -= n;
            return push_part(r, l, t, begin, end);
        }
        while (at < t->length && !junicode_is_space(jtext_char(t, at, &n))) at += n;
        if (!push_part(r, l, t, begin, at)) return false;
    }
}

static bool rsplit_space(jrun *r, const jtext *t, int64_t max, jlist *l) {
    size_t at = t->length, n;
    for (;;) {
        while (at > 0 && junicode_is_space(jtext_char_before(t, at, &n))) at -= n;
        if (at == 0) return true;
        size_t end = at;
        if (max >= 0 && (int64_t)l->count == max) {
            size_t begin = 0;
            while (junicode_is_space(jtext_char(t, begin, &n))) begin += n;
            return push_part(r, l, t, begin, end);
        }
        while (at > 0 && !junicode_is_space(jtext_char_before(t, at, &n))) at -= n;
        if (!push_part(r, l, t, at, end)) return false;
    }
}

static bool split_text(jrun *r, const jtext *t, const jtext *by, int64_t max, jlist *l) {
    size_t at = 0, found;
    while ((max < 0 || (int64_t)l->count < max) && (found = jtext_find(t, by, at)) != SIZE_MAX) {
        if (!push_part(r, l, t, at, found) || !jrun_charge(r, 1)) return false;
        at = found + by->length;
    }
    return push_part(r, l, t, at, t->length);
}

static bool rsplit_text(jrun *r, const jtext *t, const jtext *by, int64_t max, jlist *l) {
    size_t at = t->length, found;
    while ((max < 0 || (int64_t)l->count < max) &&
           (found = jtext_find_last(t, by, at)) != SIZE_MAX) {
        size_t work = (at - found) / 8 + by->length / 8;
        if (!push_part(r, l, t, found + by->length, at) || !jrun_charge(r, 1 + work)) return false;
        at = found;
    }
    return jrun_charge(r, at / 8) && push_part(r, l, t, 0, at);
}

static bool split(jrun *r, jvalue self, const jargs *args, bool right, jvalue *out) {
    jvalue a[2];
    int64_t max;
    if (!jargs_bind(r, "split", args, "sep maxsplit", a)) return false;
    if (!want_int(r, "split", a[1], -1, &max)) return false;
    jlist *l = jlist_new(r, 0);
    if (!l || !jrun_charge(r, self.text->length / 16)) return false;
    bool good;
    if (a[0].type == J_MISSING || a[0].type == J_NONE) {
        good = right ? rsplit_space(r, self.text, max, l) : split_space(r, self.text, max, l);
    } else {
        if (!want_text(r, "split", a[0])) return false;
        if (a[0].text->length == 0) return JFAIL(r, "empty separator");
        good = right ? rsplit_text(r, self.text, a[0].text, max, l)
                     : split_text(r, self.text, a[0].text, max, l);
    }
    for (size_t i = 0; right && i < l->count / 2; i++) {
        jvalue swap = l->items[i];
        l->items[i] = l->items[l->count - 1 - i];
        l->items[l->count - 1 - i] = swap;
    }
    *out = jfrom_list(l);
    return good;
}

static bool str_split(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return split(r, self, args, false, out);
}

static bool str_rsplit(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return split(r, self, args, true, out);
}

static bool str_splitlines(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "splitlines", args, "keepends", a)) return false;
    bool keep = jtruth(a[0]);
    const jtext *t = self.text;
    jlist *l = jlist_new(r, 0);
    if (!l || !jrun_charge(r, t->length / 16)) return false;
    for (size_t at = 0, begin = 0; at < t->length;) {
        size_t n, end = at;
        uint32_t c = jtext_char(t, at, &n);
        at += n;
        if (!junicode_is_line_end(c)) {
            if (at == t->length && !push_part(r, l, t, begin, at)) return false;
            continue;
        }
        if (c == '\r' && at < t->length && t->bytes[at] == '\n') at++;
        if (!push_part(r, l, t, begin, keep ? at : end)) return false;
        begin = at;
    }
    *out = jfrom_list(l);
    return true;
}

static bool partition(jrun *r, jvalue self, const jargs *args, bool right, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "partition", args, "sep!", a) || !want_text(r, "partition", a[0])) {
        return false;
    }
    const jtext *t = self.text, *by = a[0].text;
    if (by->length == 0) return JFAIL(r, "empty separator");
    size_t at = right ? jtext_find_last(t, by, t->length) : jtext_find(t, by, 0);
    size_t from = at, to = at + by->length;
    if (at == SIZE_MAX) from = to = right ? 0 : t->length;
    jlist *l = jlist_new(r, 3);
    if (!l || !jrun_charge(r, t->length / 8) || !push_part(r, l, t, 0, from)) return false;
    if (!(at == SIZE_MAX ? push_part(r, l, t, 0, 0) : jlist_push(r, l, a[0]))) return false;
    *out = jfrom_tuple(l);
    return push_part(r, l, t, to, t->length);
}

static bool str_partition(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return partition(r, self, args, false, out);
}

static bool str_rpartition(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return partition(r, self, args, true, out);
}

/* ---- search ---- */

/* The part self[start:end] as byte offsets. *valid is false when start is behind the end. */
static bool part_of(jrun *r, const jtext *t, const jvalue bound[2], size_t range[2], bool *valid) {
    int64_t at[2] = {0, (int64_t)t->chars}, n = (int64_t)t->chars;
    for (int i = 0; i < 2; i++) {
        if (bound[i].type == J_MISSING || bound[i].type == J_NONE) continue;
        if (!want_int(r, "an index", bound[i], 0, &at[i])) return false;
        if (at[i] < 0) at[i] = at[i] < -n ? 0 : at[i] + n;
    }
    if (at[1] > n) at[1] = n;
    *valid = at[0] <= at[1] && at[0] <= n;
    if (!*valid) return true;
    for (int i = 0; i < 2; i++) range[i] = jtext_offset(t, (size_t)at[i]);
    return jrun_charge(r, t->length / 32);
}

/* Does t[from:to] begin or end with what? */
static bool has_affix(const jtext *t, const size_t range[2], const jtext *what, bool end) {
    size_t n = what->length;
    if (n > range[1] - range[0]) return false;
    return n == 0 || memcmp(t->bytes + (end ? range[1] - n : range[0]), what->bytes, n) == 0;
}

static bool affix(jrun *r, jvalue self, const jargs *args, bool end, jvalue *out) {
    jvalue a[3];
    size_t range[2];
    bool valid, yes = false;
    const char *what = end ? "endswith" : "startswith";
    if (!jargs_bind(r, what, args, "prefix! start end", a)) return false;
    if (!part_of(r, self.text, a + 1, range, &valid)) return false;
    size_t n = a[0].type == J_TUPLE ? a[0].list->count : 1;
    for (size_t i = 0; i < n; i++) {
        jvalue one = a[0].type == J_TUPLE ? a[0].list->items[i] : a[0];
        if (!want_text(r, what, one)) return false;
        yes = yes || (valid && has_affix(self.text, range, one.text, end));
    }
    *out = jbool(yes);
    return jrun_charge(r, n);
}

static bool str_startswith(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return affix(r, self, args, false, out);
}

static bool str_endswith(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return affix(r, self, args, true, out);
}

static bool search(jrun *r, jvalue self, const jargs *args, bool last, int64_t *found) {
    jvalue a[3];
    size_t range[2], at = SIZE_MAX;
    bool valid;
    if (!jargs_bind(r, "find", args, "sub! start end", a) || !want_text(r, "find", a[0])) {
        return false;
    }
    if (!part_of(r, self.text, a + 1, range, &valid)) return false;
    if (valid) {
        jtext part = *self.text;
        part.length = range[1];
        at = last ? jtext_find_last(&part, a[0].text, range[1])
                  : jtext_find(&part, a[0].text, range[0]);
        if (at != SIZE_MAX && at < range[0]) at = SIZE_MAX;
    }
    *found = at == SIZE_MAX ? -1 : (int64_t)jtext_count(self.text->bytes, at);
    return jrun_charge(r, self.text->length / 8);
}

static bool str_find(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    int64_t at;
    if (!search(r, self, args, false, &at)) return false;
    *out = jint(at);
    return true;
}

static bool str_rfind(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    int64_t at;
    if (!search(r, self, args, true, &at)) return false;
    *out = jint(at);
    return true;
}

static bool str_index(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return str_find(r, self, args, out) && (out->i >= 0 || JFAIL(r, "substring not found"));
}

static bool str_rindex(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return str_rfind(r, self, args, out) && (out->i >= 0 || JFAIL(r, "substring not found"));
}

static bool str_count(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    size_t range[2];
    bool valid;
    int64_t count = 0;
    if (!jargs_bind(r, "count", args, "sub! start end", a) || !want_text(r, "count", a[0])) {
        return false;
    }
    if (!part_of(r, self.text, a + 1, range, &valid)) return false;
    jtext part = *self.text;
    if (valid) part.length = range[1];
    if (valid && a[0].text->length == 0) {
        count = (int64_t)jtext_count(part.bytes + range[0], range[1] - range[0]) + 1;
    } else if (valid) {
        for (size_t at = range[0]; (at = jtext_find(&part, a[0].text, at)) != SIZE_MAX; count++) {
            at += a[0].text->length;
        }
    }
    *out = jint(count);
    return jrun_charge(r, self.text->length / 8);
}

/* ---- building ---- */

static bool replace_empty(jrun *r, const jtext *t, const jtext *by, int64_t max, jbuf *b) {
    size_t at = 0, n;
    for (int64_t i = 0; (max < 0 || i < max); i++) {
        if (!jbuf_add_text(r, b, by) || !jrun_charge(r, 1)) return false;
        if (at == t->length) return true;
        jtext_char(t, at, &n);
        if (!jbuf_add_slice(r, b, t, at, at + n)) return false;
        at += n;
    }
    return jbuf_add_slice(r, b, t, at, t->length);
}

static bool str_replace(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    int64_t max;
    if (!jargs_bind(r, "replace", args, "old! new! count", a)) return false;
    if (!want_text(r, "replace", a[0]) || !want_text(r, "replace", a[1])) return false;
    if (!want_int(r, "replace", a[2], -1, &max)) return false;
    const jtext *t = self.text, *old = a[0].text;
    jbuf b = {0};
    if (!jrun_charge(r, t->length / 16)) return false;
    if (old->length == 0) {
        return replace_empty(r, t, a[1].text, max, &b) && give(jbuf_text(r, &b), out);
    }
    size_t at = 0, found;
    for (int64_t i = 0; (max < 0 || i < max) && (found = jtext_find(t, old, at)) != SIZE_MAX; i++) {
        if (!jbuf_add_slice(r, &b, t, at, found) || !jbuf_add_text(r, &b, a[1].text)) return false;
        if (!jrun_charge(r, 1)) return false;
        at = found + old->length;
    }
    return jbuf_add_slice(r, &b, t, at, t->length) && give(jbuf_text(r, &b), out);
}

static bool str_join(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    jlist *items;
    jbuf b = {0};
    if (!jargs_bind(r, "join", args, "iterable!", a) || !jiterate(r, a[0], &items)) return false;
    for (size_t i = 0; i < items->count; i++) {
        if (items->items[i].type != J_TEXT) {
            return JFAIL(r, "join: item %zu is a %s, not a string", i, jtype_name(items->items[i]));
        }
        if (i && !jbuf_add_text(r, &b, self.text)) return false;
        if (!jbuf_add_text(r, &b, items->items[i].text)) return false;
    }
    return give(jbuf_text(r, &b), out);
}

static bool remove_affix(jrun *r, jvalue self, const jargs *args, bool end, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "removeprefix", args, "prefix!", a)) return false;
    if (!want_text(r, "removeprefix", a[0])) return false;
    size_t range[2] = {0, self.text->length}, n = a[0].text->length;
    if (has_affix(self.text, range, a[0].text, end)) range[end ? 1 : 0] = end ? range[1] - n : n;
    return give(jtext_slice(r, self.text, range[0], range[1]), out);
}

static bool str_removeprefix(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return remove_affix(r, self, args, false, out);
}

static bool str_removesuffix(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return remove_affix(r, self, args, true, out);
}

static bool str_expandtabs(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    int64_t size;
    jbuf b = {0};
    size_t column = 0, n;
    if (!jargs_bind(r, "expandtabs", args, "tabsize", a)) return false;
    if (!want_int(r, "expandtabs", a[0], 8, &size)) return false;
    if (size > 1000) return jrun_fail(r, ERR_RANGE, "expandtabs: the size is larger than 1000");
    for (size_t at = 0; at < self.text->length; at += n) {
        uint32_t c = jtext_char(self.text, at, &n);
        if (c != '\t') {
            if (!jbuf_add_slice(r, &b, self.text, at, at + n)) return false;
            column = c == '\n' || c == '\r' ? 0 : column + 1;
        } else if (size > 0) {
            size_t pad = (size_t)size - column % (size_t)size;
            if (!jbuf_fill(r, &b, pad, " ", jtext_mark(self.text, at))) return false;
            column += pad;
        }
    }
    return jrun_charge(r, self.text->length) && give(jbuf_text(r, &b), out);
}

const jnamed jinja_text_methods[] = {
    {"split", str_split},
    {"strip", str_strip},
    {"lstrip", str_lstrip},
    {"rstrip", str_rstrip},
    {"startswith", str_startswith},
    {"endswith", str_endswith},
    {"replace", str_replace},
    {"join", str_join},
    {"format", jformat_method},
    {"rsplit", str_rsplit},
    {"splitlines", str_splitlines},
    {"partition", str_partition},
    {"rpartition", str_rpartition},
    {"find", str_find},
    {"rfind", str_rfind},
    {"index", str_index},
    {"rindex", str_rindex},
    {"count", str_count},
    {"removeprefix", str_removeprefix},
    {"removesuffix", str_removesuffix},
    {"expandtabs", str_expandtabs},
    {NULL, NULL},
};
