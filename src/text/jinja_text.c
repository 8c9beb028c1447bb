/* jinja_text.c: strings of the template engine. A string is a view of bytes that never change, with
 * the mark of each byte; a builder (jbuf) makes new ones.
 *
 *     bytes  < | i m _ s t a r t | > u s e r \n H i !
 *     marks  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0  1 1 1      NULL while all are the same */
#include <stdlib.h>
#include <utf8proc.h>

#include "base/bits.h"
#include "text/jinja_impl.h"
#include "text/unicode.h"

size_t jtext_count(const char *bytes, size_t length) {
    size_t n = 0;
    for (size_t i = 0; i < length; i++) n += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return n;
}

jtext *jtext_new(jrun *r, const char *bytes, size_t length, uint8_t mark) {
    jtext *t = jrun_alloc(r, 1, sizeof *t);
    if (!t || !jrun_charge(r, length / 64)) return NULL;
    t->bytes = bytes;
    t->length = length;
    t->chars = jtext_count(bytes, length);
    t->mark = mark;
    return t;
}

jtext *jtext_literal(jrun *r, const char *zero_terminated) {
    return jtext_new(r, zero_terminated, strlen(zero_terminated), TEMPLATE_MARKUP);
}

jtext *jtext_slice(jrun *r, const jtext *t, size_t from, size_t to) {
    jtext *s = jtext_new(r, t->bytes + from, to - from, t->mark);
    if (s && t->marks) s->marks = t->marks + from;
    if (s) s->safe = t->safe;
    return s;
}

bool jtext_is(const jtext *t, const char *zero_terminated) {
    return strlen(zero_terminated) == t->length &&
           memcmp(t->bytes, zero_terminated, t->length) == 0;
}

bool jtext_same(const jtext *a, const jtext *b) {
    return a->length == b->length && (a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
}

int jtext_order(const jtext *a, const jtext *b) { /* UTF-8 sorts as its code points do */
    size_t both = size_min(a->length, b->length);
    int c = both ? memcmp(a->bytes, b->bytes, both) : 0;
    if (c) return c < 0 ? -1 : 1;
    return a->length < b->length ? -1 : a->length > b->length;
}

uint32_t jtext_hash(const jtext *t) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < t->length; i++) h = (h ^ (unsigned char)t->bytes[i]) * 0x100000001b3u;
    h ^= h >> 32;
    return (uint32_t)h ? (uint32_t)h : 1;
}

size_t jtext_offset(const jtext *t, size_t chars) {
    if (t->chars == t->length || chars == 0) return chars;
    if (chars >= t->chars) return t->length;
    size_t at = 0;
    for (size_t n = 0; at < t->length; at++) {
        n += ((unsigned char)t->bytes[at] & 0xc0) != 0x80;
        if (n > chars) break;
    }
    return at;
}

size_t jtext_find(const jtext *t, const jtext *what, size_t from) {
    if (from > t->length || what->length > t->length - from) return SIZE_MAX;
    if (what->length == 0) return from;
    const char *found = memmem(t->bytes + from, t->length - from, what->bytes, what->length);
    return found ? (size_t)(found - t->bytes) : SIZE_MAX;
}

/* Rabin and Karp from the right: linear, whatever the texts are. */
size_t jtext_find_last(const jtext *t, const jtext *what, size_t to) {
    size_t n = what->length;
    if (n > to) return SIZE_MAX;
    uint64_t base = 0x100000001b3u, top = 1, want = 0, have = 0;
    for (size_t i = 0; i < n; i++) {
        want = want * base + (unsigned char)what->bytes[n - 1 - i];
        have = have * base + (unsigned char)t->bytes[to - 1 - i];
        if (i) top *= base;
    }
    for (size_t at = to - n;; at--) {
        if (want == have && (n == 0 || memcmp(t->bytes + at, what->bytes, n) == 0)) return at;
        if (at == 0) return SIZE_MAX;
        have -= (unsigned char)t->bytes[at + n - 1] * top;
        have = have * base + (unsigned char)t->bytes[at - 1];
    }
}

uint32_t jtext_char(const jtext *t, size_t at, size_t *length) {
    uint32_t c;
    int n = utf8_decode(t->bytes + at, t->length - at, &c);
    *length = n ? (size_t)n : 1; /* text is valid UTF-8; never stand still all the same */
    return n ? c : 0xfffd;
}

uint32_t jtext_char_before(const jtext *t, size_t at, size_t *length) {
    size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && ((unsigned char)t->bytes[begin] & 0xc0) == 0x80) begin--;
    uint32_t c = jtext_char(t, begin, length);
    if (begin + *length != at) *length = 1;
    return c;
}

/* What Python's str.isspace says. */
bool junicode_is_space(uint32_t c) {
    if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Where str.splitlines cuts. */
bool junicode_is_line_end(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

/* ---- building ---- */

static bool reserve(jrun *r, jbuf *b, size_t more) {
    size_t need;
    if (!size_add(b->count, more, &need) || need > r->max_output) {
        return jrun_fail(r, ERR_RANGE, "a text is longer than %zu MiB", r->max_output >> 20);
    }
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity * 2 : 64;
    while (capacity < need) capacity *= 2;
    char *bytes = jrun_alloc(r, capacity, 1);
    uint8_t *marks = b->marks && bytes ? jrun_alloc(r, capacity, 1) : NULL;
    if (!bytes || (b->marks && !marks)) return false;
    if (b->count) memcpy(bytes, b->bytes, b->count);
    if (b->count && marks) memcpy(marks, b->marks, b->count);
    b->bytes = bytes;
    b->marks = marks;
    b->capacity = capacity;
    return jrun_charge(r, b->count / 64);
}

/* From now on each byte has a mark of its own. */
static bool split_marks(jrun *r, jbuf *b) {
    if (b->marks) return true;
    b->marks = jrun_alloc(r, b->capacity, 1);
    if (!b->marks) return false;
    memset(b->marks, b->mark, b->count);
    return true;
}

bool jbuf_add(jrun *r, jbuf *b, const char *bytes, size_t length, uint8_t mark) {
    if (length == 0) return true;
    if (!reserve(r, b, length)) return false;
    if (b->count == 0 && !b->marks) b->mark = mark;
    if (mark != b->mark && !split_marks(r, b)) return false;
    memcpy(b->bytes + b->count, bytes, length);
    if (b->marks) memset(b->marks + b->count, mark, length);
    b->count += length;
    return true;
}

bool jbuf_add_slice(jrun *r, jbuf *b, const jtext *t, size_t from, size_t to) {
    if (from >= to) return true;
    if (!t->marks) return jbuf_add(r, b, t->bytes + from, to - from, t->mark);
    if (!reserve(r, b, to - from) || !split_marks(r, b)) return false;
    memcpy(b->bytes + b->count, t->bytes + from, to - from);
    memcpy(b->marks + b->count, t->marks + from, to - from);
    b->count += to - from;
    return jrun_charge(r, (to - from) / 64);
}

bool jbuf_add_text(jrun *r, jbuf *b, const jtext *t) {
    return jbuf_add_slice(r, b, t, 0, t->length);
}

bool jbuf_add_literal(jrun *r, jbuf *b, const char *zero_terminated) {
    return jbuf_add(r, b, zero_terminated, strlen(zero_terminated), TEMPLATE_MARKUP);
}

bool jbuf_add_char(jrun *r, jbuf *b, uint32_t code_point, uint8_t mark) {
    char room[4];
    int n = utf8_encode(code_point, room);
    return jbuf_add(r, b, room, (size_t)n, mark);
}

bool jbuf_fill(jrun *r, jbuf *b, size_t count, const char *bytes, uint8_t mark) {
    size_t n = strlen(bytes);
    for (size_t i = 0; i < count; i++) {
        if (!jbuf_add(r, b, bytes, n, mark) || (i % 64 == 63 && !jrun_charge(r, 64))) return false;
    }
    return true;
}

jtext *jbuf_text(jrun *r, const jbuf *b) {
    jtext *t = jtext_new(r, b->bytes ? b->bytes : "", b->count, b->mark);
    if (t) t->marks = b->marks;
    return t;
}

jtext *jtext_escape(jrun *r, const jtext *t) {
    jbuf b = {0};
    for (size_t i = 0; i < t->length; i++) {
        char c = t->bytes[i];
        const char *to = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '"'  ? "&#34;"
                         : c == '\'' ? "&#39;"
                                     : NULL;
        bool good = to ? jbuf_add(r, &b, to, strlen(to), jtext_mark(t, i))
                       : jbuf_add(r, &b, &c, 1, jtext_mark(t, i));
        if (!good) return NULL;
    }
    jtext *out = jbuf_text(r, &b);
    if (out) out->safe = true;
    return out;
}
