/* pattern.c: see pattern.h.
 *
 * tokenizer.json is written for Oniguruma. The two dialects agree on most of what occurs, and
 * differ silently elsewhere: \s (PCRE2 adds U+180E), \h, \w, $, {n,m}+ and nested classes all
 * compile in both and mean something else. A wrong split shows as slightly worse answers and as
 * nothing else, so whatever is not known to agree is refused. */
#include "text/pattern.h"

#include <stdbool.h>
#include <string.h>

#include "text/unicode.h"

typedef struct translator {
    const char *where;   /* borrowed */
    const char *pattern; /* borrowed, valid UTF-8 */
    size_t length, at;
    text_buffer *out;
} translator;

static err refuse(const translator *t, const char *what) {
    return err_make(ERR_UNSUPPORTED, "%s: byte %zu of the split expression: %s is not supported",
                    t->where, t->at + 1, what);
}

static err emit(translator *t, const char *text) {
    return text_buffer_add(t->out, text, strlen(text));
}

/* The byte `ahead` of the present one, or 0 at the end (a zero byte in a pattern is refused). */
static char peek(const translator *t, size_t ahead) {
    return t->length - t->at > ahead ? t->pattern[t->at + ahead] : '\0';
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_alphanumeric(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Copies one character as a literal of both dialects. */
static err copy_character(translator *t) {
    uint32_t c;
    size_t n = (size_t)utf8_decode(t->pattern + t->at, t->length - t->at, &c);
    TRY(text_buffer_add(t->out, t->pattern + t->at, n));
    t->at += n;
    return err_none();
}

/* \p{Xx}, \P{Xx}: general categories only. Script names mean script extensions in newer PCRE2. */
static err copy_property(translator *t) {
    static const char *const KNOWN[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                        "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                        "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                        "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};
    size_t close = 0;
    if (peek(t, 2) != '{') return refuse(t, "a property without braces");
    while (close < 6 && peek(t, close) != '}') close++;
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        size_t n = strlen(KNOWN[i]);
        if (close == n + 3 && memcmp(t->pattern + t->at + 3, KNOWN[i], n) == 0) {
            TRY(text_buffer_add(t->out, t->pattern + t->at, close + 1));
            t->at += close + 1;
            return err_none();
        }
    }
    return refuse(t, "a property other than a general category");
}

/* \uHHHH, no surrogates. */
static err copy_code_unit(translator *t) {
    for (size_t i = 2; i < 6; i++) {
        char c = peek(t, i);
        bool hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (!hex) return refuse(t, "\\u without four hexadecimal digits");
    }
    TRY(emit(t, "\\x{"));
    TRY(text_buffer_add(t->out, t->pattern + t->at + 2, 4));
    TRY(emit(t, "}"));
    t->at += 6;
    return err_none();
}

static err translate_escape(translator *t, bool in_class) {
    char c = peek(t, 1);
    char what[4] = {'\\', c, '\0', '\0'};
    switch (c) {
    case 's':
        TRY(emit(t, in_class ? "\\x09-\\x0d\\x{85}\\p{Z}" : "[\\x09-\\x0d\\x{85}\\p{Z}]"));
        break;
    case 'S': TRY(emit(t, in_class ? "\\S\\x{180e}" : "[^\\x09-\\x0d\\x{85}\\p{Z}]")); break;
    case 'd': TRY(emit(t, "\\p{Nd}")); break;
    case 'D': TRY(emit(t, "\\P{Nd}")); break;
    case 'r':
    case 'n':
    case 't':
    case 'f': TRY(emit(t, what)); break;
    case 'v': TRY(emit(t, "\\x0b")); break;
    case 'p':
    case 'P': return copy_property(t);
    case 'u': return copy_code_unit(t);
    case '\0': return refuse(t, "a final backslash");
    default:
        if (is_alphanumeric(c) || (unsigned char)c >= 0x80) return refuse(t, what);
        TRY(emit(t, what));
    }
    t->at += 2;
    return err_none();
}

/* [...]: at stands on the opening bracket. */
static err translate_class(translator *t) {
    TRY(emit(t, "["));
    t->at++;
    if (peek(t, 0) == '^') {
        TRY(emit(t, "^"));
        t->at++;
    }
    if (peek(t, 0) == ']') return refuse(t, "a class that is empty or begins with ]");
    while (peek(t, 0) != ']') {
        char c = peek(t, 0);
        if (c == '\0') return refuse(t, "a class without an end");
        if (c == '[') return refuse(t, "a class within a class");
        if (c == '&' && peek(t, 1) == '&') return refuse(t, "an intersection of classes");
        if (c == '\\') {
            TRY(translate_escape(t, true));
        } else {
            TRY(copy_character(t));
        }
    }
    t->at++;
    return emit(t, "]");
}

/* (: plain, (?:, (?i:, (?=, (?! */
static err translate_group(translator *t) {
    static const char *const KNOWN[] = {"(?:", "(?i:", "(?=", "(?!"};
    if (peek(t, 1) != '?') {
        t->at++;
        return emit(t, "(");
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        size_t n = strlen(KNOWN[i]);
        if (t->length - t->at >= n && memcmp(t->pattern + t->at, KNOWN[i], n) == 0) {
            t->at += n;
            return emit(t, KNOWN[i]);
        }
    }
    return refuse(t, "a group other than (?: (?i: (?= (?!");
}

/* {n}, {n,}, {n,m}; what follows must not change its meaning, which the dialects disagree on. */
static err translate_count(translator *t) {
    size_t n = 1;
    while (is_digit(peek(t, n))) n++;
    bool ok = n > 1;
    if (peek(t, n) == ',') {
        n++;
        while (is_digit(peek(t, n))) n++;
    }
    if (!ok || peek(t, n) != '}') return refuse(t, "a { that is not {n}, {n,} or {n,m}");
    n++;
    char next = peek(t, n);
    if (next == '+' || next == '?' || next == '*' || next == '{') {
        return refuse(t, "a quantifier after {n,m}");
    }
    TRY(text_buffer_add(t->out, t->pattern + t->at, n));
    t->at += n;
    return err_none();
}

static err translate_one(translator *t) {
    char c = peek(t, 0);
    char next = peek(t, 1);
    switch (c) {
    case '\0': return refuse(t, "a zero byte");
    case '\\': return translate_escape(t, false);
    case '[': return translate_class(t);
    case '(': return translate_group(t);
    case '{': return translate_count(t);
    case '^':
    case '$': return refuse(t, "an anchor");
    case '*':
    case '+':
    case '?':
        TRY(copy_character(t));
        if (next == '+' || next == '?')
            TRY(copy_character(t)); /* possessive, lazy: the same in both */
        next = peek(t, 0);
        if (next == '+' || next == '?' || next == '*' || next == '{') {
            return refuse(t, "a quantifier after a quantifier");
        }
        return err_none();
    default: return copy_character(t);
    }
}

err pattern_translate(const char *where, const char *pattern, size_t length, text_buffer *out) {
    translator t = {.where = where, .pattern = pattern, .length = length, .out = out};
    if (length > PATTERN_BYTES_MAX) {
        return err_make(ERR_RANGE, "%s: an expression of %zu bytes, more than %d", where, length,
                        PATTERN_BYTES_MAX);
    }
    if (utf8_valid_prefix(pattern, length) != length) {
        return err_make(ERR_CORRUPT, "%s: the expression is not valid UTF-8", where);
    }
    while (t.at < t.length) TRY(translate_one(&t));
    return err_none();
}
