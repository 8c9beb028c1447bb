/* jinja_lex.c: a template's text to tokens, with the white space rules that `transformers` sets.
 *
 *     text  {%- if x -%}  text {{ y }} text {# comment #}
 *
 * trim_blocks: the newline after a block tag or comment belongs to it. lstrip_blocks: blanks before
 * one that begins a line do too. A "-" inside a tag takes all white space on its side, a "+" none.
 * One newline at the end of the template is dropped, "\r\n" and "\r" count as "\n". */
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/bits.h"
#include "text/jinja_impl.h"
#include "text/unicode.h"

typedef struct lexer {
    jinja_template *t;
    const char *s;
    size_t n, at;
    int line;
    bool line_starting; /* what was consumed last ended with a newline */
    jtoken *tokens;
    size_t count, capacity;
    err error;
} lexer;

static bool fail(lexer *x, err_code code, const char *what) {
    if (!x->error.code) {
        x->error = err_make(code, "%s: line %d: %s", x->t->name, x->line, what);
    }
    return false;
}

static bool push(lexer *x, jtoken token) {
    if (x->count == x->capacity) {
        size_t capacity = x->capacity ? x->capacity * 2 : 256;
        jtoken *tokens = jpool_alloc(&x->t->pool, capacity * sizeof *tokens);
        if (!tokens) return fail(x, ERR_NOMEM, "the template is too large");
        if (x->count) memcpy(tokens, x->tokens, x->count * sizeof *tokens);
        x->tokens = tokens;
        x->capacity = capacity;
    }
    x->tokens[x->count++] = token;
    return true;
}

static bool text_value(lexer *x, const char *bytes, size_t length, jvalue *out) {
    jtext *t = jpool_alloc(&x->t->pool, sizeof *t);
    if (!t) return fail(x, ERR_NOMEM, "the template is too large");
    t->bytes = bytes;
    t->length = length;
    t->chars = jtext_count(bytes, length);
    t->mark = TEMPLATE_MARKUP;
    t->hash = jtext_hash(t); /* now, because a parsed template never changes */
    *out = jstring(t);
    return true;
}

static size_t space_at(const lexer *x, size_t at) {
    uint32_t c;
    int n = at < x->n ? utf8_decode(x->s + at, x->n - at, &c) : 0;
    return n && junicode_is_space(c) ? (size_t)n : 0;
}

/* Moves over bytes, counting lines. */
static void advance(lexer *x, size_t to) {
    if (to > x->at) x->line_starting = x->s[to - 1] == '\n';
    for (; x->at < to; x->at++) x->line += x->s[x->at] == '\n';
}

static void skip_space(lexer *x) {
    size_t to = x->at, n;
    while ((n = space_at(x, to))) to += n;
    advance(x, to);
}

static bool starts(const lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return n <= x->n - at && memcmp(x->s + at, what, n) == 0;
}

/* ---- text between tags ---- */

/* Where the text [begin, end) ends when a tag with this sign follows. */
static size_t trimmed_end(const lexer *x, size_t begin, size_t end, char sign, bool variable) {
    if (sign == '-') {
        jtext t = {.bytes = x->s, .length = end};
        size_t n;
        while (end > begin && junicode_is_space(jtext_char_before(&t, end, &n))) end -= n;
        return end;
    }
    if (sign == '+' || variable) return end;
    size_t line = end;
    while (line > begin && x->s[line - 1] != '\n') line--;
    if (line == begin && !x->line_starting) return end;
    for (size_t at = line, n; at < end; at += n) {
        if (!(n = space_at(x, at))) return end;
    }
    return line;
}

static bool push_data(lexer *x, size_t begin, size_t end) {
    if (end == begin) return true;
    jtoken token = {.type = TOK_DATA, .line = x->line};
    return text_value(x, x->s + begin, end - begin, &token.value) && push(x, token);
}

/* Behind "-%}", "+%}" or "%}" (or of a comment, "#}") at `at`: what belongs to the tag. 0: none is
 * here. */
static size_t tag_end(const lexer *x, size_t at, const char *close) {
    char sign = x->s[at];
    size_t end = at + (sign == '-' || sign == '+');
    if (!starts(x, end, close)) return 0;
    end += 2;
    if (sign == '-') {
        for (size_t n; (n = space_at(x, end));) end += n;
    } else if (sign != '+' && close[0] != '}' && end < x->n && x->s[end] == '\n') {
        end++;
    }
    return end;
}

static bool lex_comment(lexer *x, size_t begin) {
    for (size_t at = begin; at < x->n; at++) {
        size_t end = tag_end(x, at, "#}");
        if (end) {
            advance(x, end);
            return true;
        }
    }
    return fail(x, ERR_CORRUPT, "a comment {# is never closed");
}

/* {% raw %} at `at`: the end of that tag, or 0. */
static size_t raw_begin(const lexer *x, size_t at) {
    at += 2;
    if (at < x->n && (x->s[at] == '-' || x->s[at] == '+')) at++;
    for (size_t n; (n = space_at(x, at));) at += n;
    if (!starts(x, at, "raw")) return 0;
    at += 3;
    for (size_t n; (n = space_at(x, at));) at += n;
    if (starts(x, at, "%}")) return at + 2;
    return starts(x, at, "-%}") ? tag_end(x, at, "%}") : 0;
}

/* The tag {% endraw %} at `at`: its end, or 0. */
static size_t raw_end(const lexer *x, size_t at, char *sign) {
    if (!starts(x, at, "{%")) return 0;
    at += 2;
    *sign = '\0';
    if (at < x->n && (x->s[at] == '-' || x->s[at] == '+')) *sign = x->s[at++];
    for (size_t n; (n = space_at(x, at));) at += n;
    if (!starts(x, at, "endraw")) return 0;
    at += 6;
    for (size_t n; (n = space_at(x, at));) at += n;
    return at < x->n ? tag_end(x, at, "%}") : 0;
}

static bool lex_raw(lexer *x, size_t begin) {
    advance(x, begin);
    for (size_t at = begin; at < x->n; at++) {
        char sign;
        size_t end = raw_end(x, at, &sign);
        if (!end) continue;
        if (!push_data(x, begin, trimmed_end(x, begin, at, sign, false))) return false;
        advance(x, end);
        return true;
    }
    return fail(x, ERR_CORRUPT, "{% raw %} is never closed");
}

/* ---- inside tags ---- */

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* \xhh, \uhhhh, \Uhhhhhhhh at s (behind the letter). */
static bool hex_escape(lexer *x, const char *s, size_t room, int digits, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < digits; i++) {
        int v = (size_t)i < room ? hex_value(s[i]) : -1;
        if (v < 0) return fail(x, ERR_CORRUPT, "a string has an escape without its hex digits");
        *out = *out * 16 + (uint32_t)v;
    }
    if (*out > 0x10ffff || (*out >= 0xd800 && *out <= 0xdfff)) {
        return fail(x, ERR_UNSUPPORTED, "a string has an escape that is no character");
    }
    return true;
}

/* One escape at s[0 .. room), s[0] behind the backslash. *used bytes of it, written to out (<= 12).
 */
static bool unescape(lexer *x, const char *s, size_t room, size_t *used, char *out, size_t *n) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = s[0] ? strchr(from, s[0]) : NULL;
    uint32_t c = 0;
    *used = 1;
    *n = 1;
    if (s[0] == '\n') {
        *n = 0;
    } else if (simple) {
        out[0] = to[simple - from];
    } else if (s[0] >= '0' && s[0] <= '7') {
        for (*used = 0; *used < 3 && *used < room && s[*used] >= '0' && s[*used] <= '7'; ++*used) {
            c = c * 8 + (uint32_t)(s[*used] - '0');
        }
        *n = (size_t)utf8_encode(c, out);
    } else if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        int digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
        if (!hex_escape(x, s + 1, room - 1, digits, &c)) return false;
        *used = 1 + (size_t)digits;
        *n = (size_t)utf8_encode(c, out);
    } else if (s[0] == 'N') {
        return fail(x, ERR_UNSUPPORTED, "a string has an escape \\N{name}");
    } else if ((unsigned char)s[0] < 0x80) { /* unknown: both characters stay */
        out[0] = '\\';
        out[1] = s[0];
        *n = 2;
    } else { /* Python sees such a character as its own escape */
        *used = (size_t)utf8_decode(s, room, &c);
        *n = (size_t)snprintf(out, 12,
                              c < 0x100     ? "\\x%02x"
                              : c < 0x10000 ? "\\u%04x"
                                            : "\\U%08x",
                              c);
    }
    return true;
}

static bool lex_string(lexer *x) {
    char quote = x->s[x->at];
    size_t begin = x->at + 1, end = begin;
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n) return fail(x, ERR_CORRUPT, "a string is never closed");
    char *out = jpool_alloc(&x->t->pool, 2 * (end - begin) + 12); /* \é becomes four bytes */
    if (!out) return fail(x, ERR_NOMEM, "the template is too large");
    size_t n = 0;
    for (size_t at = begin; at < end;) {
        if (x->s[at] != '\\') {
            out[n++] = x->s[at++];
            continue;
        }
        size_t used, made;
        if (!unescape(x, x->s + at + 1, end - at - 1, &used, out + n, &made)) return false;
        at += 1 + used;
        n += made;
    }
    jtoken token = {.type = TOK_CONST, .line = x->line};
    if (!text_value(x, out, n, &token.value) || !push(x, token)) return false;
    advance(x, end + 1);
    return true;
}

/* The end of digits with single underscores between them, from `at`. */
static size_t digits_end(const lexer *x, size_t at, int base) {
    for (;;) {
        size_t next = at + (at < x->n && x->s[at] == '_');
        int v = next < x->n ? hex_value(x->s[next]) : -1;
        if (v < 0 || v >= base) return at;
        at = next + 1;
    }
}

static bool is_digit_at(const lexer *x, size_t at) {
    return at < x->n && x->s[at] >= '0' && x->s[at] <= '9';
}

/* The end of the float that begins here, or 0. */
static size_t float_end(const lexer *x) {
    if (x->at > 0 && x->s[x->at - 1] == '.') return 0;
    size_t end = digits_end(x, x->at, 10);
    bool is_float = false;
    if (end + 1 < x->n && x->s[end] == '.' && is_digit_at(x, end + 1)) {
        end = digits_end(x, end + 1, 10);
        is_float = true;
    }
    if (end < x->n && (x->s[end] == 'e' || x->s[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < x->n && (x->s[exponent] == '+' || x->s[exponent] == '-')) exponent++;
        if (is_digit_at(x, exponent)) return digits_end(x, exponent, 10);
    }
    return is_float ? end : 0;
}

static bool lex_float(lexer *x, size_t end) {
    char room[512];
    size_t n = 0;
    for (size_t at = x->at; at < end; at++) {
        if (x->s[at] == '_') continue;
        if (n == sizeof room - 1) return fail(x, ERR_UNSUPPORTED, "a number has too many digits");
        room[n++] = x->s[at];
    }
    room[n] = '\0';
    jtoken token = {.type = TOK_CONST, .line = x->line, .value = jfloat(strtod(room, NULL))};
    advance(x, end);
    return push(x, token);
}

static bool lex_integer(lexer *x) {
    int base = 10;
    size_t begin = x->at, end;
    char c = x->s[begin];
    char next = begin + 1 < x->n ? x->s[begin + 1] : '\0';
    if (c == '0') {
        int other = next == 'b' || next == 'B'   ? 2
                    : next == 'o' || next == 'O' ? 8
                    : next == 'x' || next == 'X' ? 16
                                                 : 0;
        size_t first = begin + 2 + (begin + 2 < x->n && x->s[begin + 2] == '_');
        int v = other && first < x->n ? hex_value(x->s[first]) : -1;
        if (v >= 0 && v < other) {
            base = other;
            begin += 2;
        }
    }
    end = c == '0' && base == 10 ? digits_end(x, begin, 1) : digits_end(x, begin, base);
    int64_t value = 0;
    for (size_t at = begin; at < end; at++) {
        if (x->s[at] == '_') continue;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, hex_value(x->s[at]), &value)) {
            return fail(x, ERR_UNSUPPORTED, "a whole number needs more than 64 bits");
        }
    }
    jtoken token = {.type = TOK_CONST, .line = x->line, .value = jint(value)};
    advance(x, end);
    return push(x, token);
}

static bool is_word(uint32_t c) {
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_';
    }
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO;
}

static const char *const op_texts[] = {
    [OP_ADD] = "+",       [OP_SUB] = "-",       [OP_MUL] = "*",    [OP_DIV] = "/",
    [OP_FLOORDIV] = "//", [OP_MOD] = "%",       [OP_POW] = "**",   [OP_TILDE] = "~",
    [OP_LBRACKET] = "[",  [OP_RBRACKET] = "]",  [OP_LPAREN] = "(", [OP_RPAREN] = ")",
    [OP_LBRACE] = "{",    [OP_RBRACE] = "}",    [OP_EQ] = "==",    [OP_NE] = "!=",
    [OP_GT] = ">",        [OP_GE] = ">=",       [OP_LT] = "<",     [OP_LE] = "<=",
    [OP_ASSIGN] = "=",    [OP_DOT] = ".",       [OP_COLON] = ":",  [OP_PIPE] = "|",
    [OP_COMMA] = ",",     [OP_SEMICOLON] = ";", [OP_IN] = "in",    [OP_NOT_IN] = "not in",
};

const char *jop_text(jop op) { return op == OP_NONE ? "" : op_texts[op]; }

static jop operator_at(const lexer *x, size_t *length) {
    jop best = OP_NONE;
    *length = 0;
    for (int op = OP_ADD; op <= OP_SEMICOLON; op++) {
        size_t n = strlen(op_texts[op]);
        if (n > *length && starts(x, x->at, op_texts[op])) {
            best = (jop)op;
            *length = n;
        }
    }
    return best;
}

static bool lex_word(lexer *x) {
    size_t end = x->at;
    uint32_t c;
    int n;
    while (end < x->n && (n = utf8_decode(x->s + end, x->n - end, &c)) && is_word(c)) {
        end += (size_t)n;
    }
    if (end == x->at) {
        char room[64];
        size_t bad = size_min(utf8_valid_prefix(x->s + x->at, size_min(4, x->n - x->at)), 4);
        snprintf(room, sizeof room, "unexpected character '%.*s'", (int)bad, x->s + x->at);
        return fail(x, ERR_CORRUPT, room);
    }
    jtoken token = {.type = TOK_NAME, .line = x->line};
    if (!text_value(x, x->s + x->at, end - x->at, &token.value) || !push(x, token)) return false;
    advance(x, end);
    return true;
}

/* Brackets that are open: a "}" inside of them does not end the tag. */
typedef struct brackets {
    char open[JINJA_PARSE_DEPTH];
    int count;
} brackets;

static bool track_brackets(lexer *x, brackets *b, jop op) {
    char close = op == OP_LPAREN ? ')' : op == OP_LBRACKET ? ']' : op == OP_LBRACE ? '}' : '\0';
    if (close) {
        if (b->count == JINJA_PARSE_DEPTH) {
            return fail(x, ERR_RANGE, "brackets are nested too deeply");
        }
        b->open[b->count++] = close;
    } else if (op == OP_RPAREN || op == OP_RBRACKET || op == OP_RBRACE) {
        if (!b->count || b->open[b->count - 1] != op_texts[op][0]) {
            return fail(x, ERR_CORRUPT, "a closing bracket does not match");
        }
        b->count--;
    }
    return true;
}

static bool lex_token(lexer *x, brackets *b) {
    char c = x->s[x->at];
    size_t n;
    if (c == '"' || c == '\'') return lex_string(x);
    if (c >= '0' && c <= '9') {
        size_t end = float_end(x);
        return end ? lex_float(x, end) : lex_integer(x);
    }
    jop op = operator_at(x, &n);
    if (op == OP_NONE) return lex_word(x);
    if (!track_brackets(x, b, op)) return false;
    jtoken token = {.type = TOK_OP, .op = op, .line = x->line};
    advance(x, x->at + n);
    return push(x, token);
}

/* The inside of {{ }} or {% %}, with its end. */
static bool lex_tag(lexer *x, bool variable) {
    brackets b = {.count = 0};
    const char *close = variable ? "}}" : "%}";
    for (;;) {
        skip_space(x);
        if (x->at >= x->n) {
            return fail(x, ERR_CORRUPT, variable ? "{{ is never closed" : "{% is never closed");
        }
        size_t end = b.count ? 0 : tag_end(x, x->at, close);
        if (end && variable && x->s[x->at] == '+') end = 0; /* "+" is an operator there */
        if (end) {
            jtoken token = {.type = variable ? TOK_VARIABLE_END : TOK_BLOCK_END, .line = x->line};
            advance(x, end);
            return push(x, token);
        }
        if (!lex_token(x, &b)) return false;
    }
}

/* Text up to the next tag, and that tag. */
static bool lex_next(lexer *x) {
    size_t begin = x->at, at = begin;
    while (at + 1 < x->n && !(x->s[at] == '{' && strchr("{%#", x->s[at + 1]))) at++;
    if (at + 1 >= x->n) {
        bool good = push_data(x, begin, x->n);
        advance(x, x->n);
        return good;
    }
    char kind = x->s[at + 1], sign = at + 2 < x->n ? x->s[at + 2] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    size_t end = trimmed_end(x, begin, at, sign, kind == '{');
    if (!push_data(x, begin, end)) return false;
    advance(x, at);
    size_t raw = kind == '%' ? raw_begin(x, at) : 0;
    if (raw) return lex_raw(x, raw);
    size_t inside = at + 2 + (sign != '\0');
    if (kind == '#') return lex_comment(x, inside);
    jtoken token = {.type = kind == '{' ? TOK_VARIABLE_BEGIN : TOK_BLOCK_BEGIN, .line = x->line};
    advance(x, inside);
    return push(x, token) && lex_tag(x, kind == '{');
}

/* The source with one kind of newline, without the last one. */
static bool normalize(lexer *x, const char *source, size_t length) {
    char *out = jpool_alloc(&x->t->pool, length + 1);
    if (!out) return fail(x, ERR_NOMEM, "the template is too large");
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r' && i + 1 < length && source[i + 1] == '\n') continue;
        out[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n && out[n - 1] == '\n') n--;
    x->s = out;
    x->n = n;
    return true;
}

err jinja_lex(jinja_template *t, const char *source, size_t length, jtoken **tokens) {
    *tokens = NULL;
    lexer x = {.t = t, .line = 1, .line_starting = true};
    bool good = true;
    if (utf8_valid_prefix(source, length) != length) {
        good = fail(&x, ERR_CORRUPT, "the template is not valid UTF-8");
    }
    good = good && normalize(&x, source, length);
    while (good && x.at < x.n) good = lex_next(&x);
    if (good) push(&x, (jtoken){.type = TOK_END, .line = x.line});
    if (!x.error.code) *tokens = x.tokens;
    return x.error;
}
