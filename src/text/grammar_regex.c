/* grammar_regex.c: see grammar_regex.h.
 *
 * A recursive descent over the expression that adds to an nfa as it reads (Thompson). A repetition
 * {m,n} reads its atom again for each copy, so the expression is its own syntax tree; the limits of
 * the nfa bound what nested repetitions can cost. */
#include "text/grammar_regex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX  64
#define RANGES_MAX 128
#define POINT_MAX  0x10ffffu

typedef struct range {
    uint32_t low, high;
} range;

typedef struct char_class {
    range list[RANGES_MAX];
    int n;
    bool negated;
} char_class;

typedef struct reader {
    const char *what, *begin, *at;
    nfa *a;
    nfa_spelling spelling;
    int depth;
    err e; /* the first failure; after it everything returns quickly */
} reader;

static int alternatives(reader *r, int from, bool outermost);

static int fail(reader *r, const char *message, const char *place) {
    if (!r->e.code)
        r->e = err_make(ERR_UNSUPPORTED, "%s: at character %d of \"%s\": %s", r->what,
                        (int)(place - r->begin) + 1, r->begin, message);
    return 0;
}

static bool at_end(const reader *r) { return !*r->at || r->e.code; }

/* One code point of the expression's own text (which is valid UTF-8: JSON was decoded). */
static uint32_t next_point(reader *r) {
    const unsigned char *s = (const unsigned char *)r->at;
    int n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t point = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    for (int i = 1; i < n && s[i]; i++) point = point << 6 | (s[i] & 0x3f);
    for (int i = 0; i < n && *r->at; i++) r->at++;
    return point;
}

/* ---- classes ---- */

static void add(reader *r, char_class *c, uint32_t low, uint32_t high) {
    if (c->n == RANGES_MAX)
        fail(r, "a class with too many ranges", r->at);
    else
        c->list[c->n++] = (range){low, high};
}

static const range digits[] = {{'0', '9'}};
static const range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const range spaces[] = {
    {9, 13},          {32, 32},         {160, 160},       {0x1680, 0x1680}, {0x2000, 0x200a},
    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
static const range lines[] = {{10, 10}, {13, 13}, {0x2028, 0x2029}}; /* what . does not match */

static void add_list(reader *r, char_class *c, const range *list, int n, bool negated) {
    uint32_t from = 0;
    for (int i = 0; i < n; i++) {
        if (!negated)
            add(r, c, list[i].low, list[i].high);
        else if (list[i].low > from)
            add(r, c, from, list[i].low - 1);
        from = list[i].high + 1;
    }
    if (negated) add(r, c, from, POINT_MAX);
}

static bool hex(reader *r, int n, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < n; i++, r->at++) {
        char c = *r->at;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return false;
        *out = *out * 16 + (uint32_t)digit;
    }
    return true;
}

/* \u{H...}, \uHHHH or \xHH; r->at is behind the letter. */
static uint32_t hex_escape(reader *r, char letter) {
    uint32_t point = 0;
    const char *place = r->at;
    bool ok;
    if (letter == 'u' && *r->at == '{') {
        r->at++;
        int n = 0;
        while (n < 6 && r->at[n] && r->at[n] != '}') n++;
        ok = n && hex(r, n, &point) && *r->at == '}';
        if (ok) r->at++;
    } else {
        ok = hex(r, letter == 'u' ? 4 : 2, &point);
    }
    if (!ok || point > POINT_MAX || (point >= 0xd800 && point <= 0xdfff))
        fail(r, "this escape is not supported", place);
    return point;
}

/* After a backslash: one character into *point (true), or a class into c (false). */
static bool escaped(reader *r, char_class *c, uint32_t *point) {
    static const char controls[] = "tnrfv", values[] = "\t\n\r\f\v";
    const char *place = r->at;
    char letter = *r->at ? *r->at++ : 0;
    const char *control = letter ? strchr(controls, letter) : NULL;
    *point = (uint8_t)letter;
    switch (letter) {
    case 'd':
    case 'D': add_list(r, c, digits, 1, letter == 'D'); return false;
    case 'w':
    case 'W': add_list(r, c, words, 4, letter == 'W'); return false;
    case 's':
    case 'S': add_list(r, c, spaces, 10, letter == 'S'); return false;
    case 'x':
    case 'u': *point = hex_escape(r, letter); return true;
    default: break;
    }
    if (control)
        *point = (uint8_t)values[control - controls];
    else if (!letter || !strchr("^$\\.*+?()[]{}|/-", letter))
        fail(r, "this escape is not supported", place);
    return true;
}

/* [...]; r->at is behind the bracket. */
static void read_class(reader *r, char_class *c) {
    const char *place = r->at;
    c->negated = *r->at == '^';
    if (c->negated) r->at++;
    while (*r->at && *r->at != ']' && !r->e.code) {
        uint32_t low, high;
        bool single = true;
        if (*r->at == '\\') {
            r->at++;
            single = escaped(r, c, &low);
        } else {
            low = next_point(r);
        }
        if (!single) continue;
        high = low;
        if (*r->at == '-' && r->at[1] && r->at[1] != ']') {
            r->at++;
            bool escape = *r->at == '\\';
            if (escape) r->at++;
            if (escape && !escaped(r, c, &high)) fail(r, "a range that ends in a class", r->at);
            if (!escape) high = next_point(r);
        }
        if (high < low)
            fail(r, "a range in the wrong order", r->at);
        else
            add(r, c, low, high);
    }
    if (*r->at == ']')
        r->at++;
    else
        fail(r, "a class without its ]", place);
}

static int by_low(const void *a, const void *b) {
    const range *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/* Paths from `from` to a new state for the characters of c. raw text never holds '<' by way of a
 * class that only excludes: it could spell the end of a parameter. */
static int class_state(reader *r, char_class *c, int from) {
    int to = nfa_state(r->a);
    qsort(c->list, (size_t)c->n, sizeof *c->list, by_low);
    uint32_t next = 1; /* first point not handled */
    for (int i = 0; i <= c->n; i++) {
        uint32_t low = i < c->n ? c->list[i].low : POINT_MAX + 1;
        uint32_t high = i < c->n ? c->list[i].high : POINT_MAX + 1;
        if (c->negated && low > next && r->spelling == NFA_RAW && next <= '<' && low > '<') {
            if (next < '<') nfa_points(r->a, from, next, '<' - 1, r->spelling, to);
            if ('<' + 1 < low) nfa_points(r->a, from, '<' + 1, low - 1, r->spelling, to);
        } else if (c->negated && low > next) {
            nfa_points(r->a, from, next, low - 1, r->spelling, to);
        } else if (!c->negated && i < c->n && high >= next) {
            nfa_points(r->a, from, low > next ? low : next, high, r->spelling, to);
        }
        if (high >= next) next = high + 1;
    }
    return to;
}

static int any_state(reader *r, int from) { /* any character at all */
    char_class none = {.negated = true};
    return class_state(r, &none, from);
}

/* ---- structure ---- */

static int atom(reader *r, int from) {
    const char *place = r->at;
    char_class c = {.n = 0};
    uint32_t point;
    switch (*r->at) {
    case '(':
        r->at++;
        if (r->at[0] == '?' && r->at[1] == ':')
            r->at += 2;
        else if (*r->at == '?')
            return fail(r, "only (?: and plain groups are supported", place);
        if (++r->depth > DEPTH_MAX) return fail(r, "nested too deeply", place);
        from = alternatives(r, from, false);
        r->depth--;
        if (*r->at != ')') return fail(r, "a group without its )", place);
        r->at++;
        return from;
    case '[':
        r->at++;
        read_class(r, &c);
        return class_state(r, &c, from);
    case '.':
        r->at++;
        add_list(r, &c, lines, 3, false);
        c.negated = true;
        return class_state(r, &c, from);
    case '\\':
        r->at++;
        if (!escaped(r, &c, &point)) return class_state(r, &c, from);
        break;
    case '^':
    case '$': return fail(r, "an anchor is supported at the ends only", place);
    case '*':
    case '+':
    case '?':
    case '{': return fail(r, "a repetition of nothing", place);
    default: point = next_point(r);
    }
    add(r, &c, point, point);
    return class_state(r, &c, from);
}

/* {m}, {m,} or {m,n}; *most < 0 for no limit. */
static void read_braces(reader *r, int *least, int *most) {
    const char *place = r->at++;
    char *end;
    long low = strtol(r->at, &end, 10), high = low;
    bool ok = end != r->at && low >= 0;
    if (ok && *end == ',') {
        const char *second = end + 1;
        high = *second == '}' ? -1 : strtol(second, &end, 10);
        if (*second == '}') end = (char *)second;
        ok = high == -1 || (end != second && high >= low);
    }
    if (!ok || *end != '}')
        fail(r, "this repetition is not understood", place);
    else if (low > REGEX_REPEAT_MAX || high > REGEX_REPEAT_MAX)
        fail(r, "repeated too often", place);
    else
        r->at = end + 1;
    *least = (int)low;
    *most = (int)high;
}

static void read_repetition(reader *r, int *least, int *most) {
    *least = *most = 1;
    switch (*r->at) {
    case '*': *least = 0, *most = -1, r->at++; break;
    case '+': *most = -1, r->at++; break;
    case '?': *least = 0, r->at++; break;
    case '{': read_braces(r, least, most); break;
    default: return;
    }
    if (*r->at == '?') r->at++;
}

/* An atom with what repeats it: read once to find its end, then once for each copy. */
static int repeated(reader *r, int from) {
    const char *begin = r->at;
    int first = nfa_state(r->a);
    nfa_empty(r->a, from, first);
    int last = atom(r, first), least, most;
    read_repetition(r, &least, &most);
    const char *end = r->at;
    if (least == 1 && most == 1) return last;
    int out = nfa_state(r->a);
    if (least == 0) nfa_empty(r->a, from, out);
    int copies = most < 0 ? (least ? least : 1) : most;
    for (int i = 1; i < copies && !r->e.code && !r->a->too_large; i++) {
        if (i >= least) nfa_empty(r->a, last, out);
        r->at = begin;
        first = nfa_state(r->a);
        nfa_empty(r->a, last, first);
        last = atom(r, first);
    }
    r->at = end;
    if (copies) nfa_empty(r->a, last, out);
    if (most < 0) nfa_empty(r->a, last, first);
    return out;
}

/* One alternative. At the outermost level an anchor may stand at its ends; where it does not, any
 * text may stand there. */
static int sequence(reader *r, int from, bool outermost) {
    if (outermost && *r->at == '^') {
        r->at++;
    } else if (outermost) {
        int loop = any_state(r, from);
        nfa_empty(r->a, loop, from);
    }
    while (!at_end(r) && *r->at != '|' && *r->at != ')') {
        if (outermost && *r->at == '$' && (!r->at[1] || r->at[1] == '|')) {
            r->at++;
            return from;
        }
        from = repeated(r, from);
        if (r->a->too_large) return 0;
    }
    if (outermost && !r->e.code) {
        int free_end = nfa_state(r->a);
        nfa_empty(r->a, from, free_end);
        nfa_empty(r->a, any_state(r, free_end), free_end);
        return free_end;
    }
    return from;
}

static int alternatives(reader *r, int from, bool outermost) {
    int out = nfa_state(r->a);
    for (;;) {
        int begin = nfa_state(r->a);
        nfa_empty(r->a, from, begin);
        nfa_empty(r->a, sequence(r, begin, outermost), out);
        if (r->e.code || *r->at != '|') return out;
        r->at++;
    }
}

err regex_compile(const char *pattern, nfa_spelling spelling, const char *what, dfa *out) {
    *out = (dfa){0};
    if (strlen(pattern) > REGEX_BYTES_MAX)
        return err_make(ERR_RANGE, "%s: longer than %d bytes", what, REGEX_BYTES_MAX);
    nfa a = {0};
    reader r = {.what = what, .begin = pattern, .at = pattern, .a = &a, .spelling = spelling};
    int start = nfa_state(&a);
    int accept = alternatives(&r, start, true);
    if (!r.e.code && *r.at) fail(&r, "a ) without its (", r.at);
    bool report = r.e.code && !a.too_large && !a.no_memory;
    err e = report ? r.e : nfa_compile(&a, start, accept, what, out);
    nfa_free(&a);
    return e;
}

/* ---- integers ---- */

static int digit_range(nfa *a, int from, int low, int high) {
    int to = nfa_state(a);
    nfa_range(a, from, '0' + low, '0' + high, false, to);
    return to;
}

/* The n-digit numbers low[] .. high[], digit by digit; tight says which bounds still hold. */
static void digits_between(nfa *a, int from, const char *low, const char *high, int n, int to) {
    if (n == 0) {
        nfa_empty(a, from, to);
        return;
    }
    int l = low[0] - '0', h = high[0] - '0';
    static const char zeros[] = "0000000000000000", nines[] = "9999999999999999";
    if (l == h) {
        digits_between(a, digit_range(a, from, l, h), low + 1, high + 1, n - 1, to);
        return;
    }
    bool low_free = memcmp(low + 1, zeros, (size_t)n - 1) == 0;
    bool high_free = memcmp(high + 1, nines, (size_t)n - 1) == 0;
    if (!low_free) digits_between(a, digit_range(a, from, l, l), low + 1, nines, n - 1, to);
    if (!high_free) digits_between(a, digit_range(a, from, h, h), zeros, high + 1, n - 1, to);
    int first = low_free ? l : l + 1, last = high_free ? h : h - 1;
    if (first > last) return;
    int state = digit_range(a, from, first, last);
    for (int i = 1; i < n; i++) state = digit_range(a, state, 0, 9);
    nfa_empty(a, state, to);
}

/* 0 <= low <= high */
static void natural_numbers(nfa *a, int from, int64_t low, int64_t high, int to) {
    int64_t begin = 0, end = 9;
    for (int n = 1; n <= 16; n++) {
        int64_t l = low > begin ? low : begin, h = high < end ? high : end;
        if (l <= h) {
            char first[24], last[24];
            snprintf(first, sizeof first, "%lld", (long long)l);
            snprintf(last, sizeof last, "%lld", (long long)h);
            digits_between(a, from, first, last, n, to);
        }
        begin = end + 1;
        end = end * 10 + 9;
    }
}

void nfa_integers(nfa *a, int from, int64_t low, int64_t high, int to) {
    if (low < 0) {
        int minus = nfa_literal(a, from, "-", 1);
        natural_numbers(a, minus, high < 0 ? -high : 1, -low, to);
    }
    if (high >= 0) natural_numbers(a, from, low < 0 ? 0 : low, high, to);
}
