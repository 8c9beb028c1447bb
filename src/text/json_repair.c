/* json_repair.c: see json_repair.h.
 *
 *   VALUE -> STRING | WORD | push '{' -> KEY | push '[' -> VALUE
 *   KEY   -> STRING | WORD -> COLON -> VALUE
 *   AFTER (a value is complete): ',' -> KEY or VALUE, closer -> pop -> AFTER, depth 0 -> DONE
 *
 * The separator before an element is written when the element begins, so that a comma in front of a
 * closer costs nothing to take back. */
#include "text/json_repair.h"

#include <string.h>

enum { S_VALUE, S_KEY, S_COLON, S_AFTER, S_STRING, S_ESCAPE, S_HEX, S_WORD, S_DONE };

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static bool in_object(const json_repair *r) { return r->depth && r->kind[r->depth] == '{'; }

void json_repair_free(json_repair *r) {
    text_buf_free(&r->word);
    *r = (json_repair){0};
}

void json_repair_reset(json_repair *r) {
    text_buf word = r->word;
    word.length = 0;
    *r = (json_repair){.word = word};
}

bool json_repair_done(const json_repair *r) { return r->state == S_DONE; }

bool json_repair_in_string(const json_repair *r) {
    return r->state == S_STRING || r->state == S_ESCAPE || r->state == S_HEX;
}

/* An element of the open container begins (in an object: its key). */
static err begin_element(json_repair *r, text_buf *out) {
    r->started = true;
    r->comma = false;
    if (!r->depth || (in_object(r) && r->state != S_KEY)) return err_none();
    if (r->filled[r->depth]) TRY(text_buf_add_text(out, ", "));
    r->filled[r->depth] = true;
    return err_none();
}

static void value_ends(json_repair *r) { r->state = r->depth ? S_AFTER : S_DONE; }

static err key_ends(json_repair *r, text_buf *out) {
    r->state = S_COLON;
    return text_buf_add_text(out, ": ");
}

static err close_one(json_repair *r, text_buf *out) {
    char closer = in_object(r) ? '}' : ']';
    r->depth--;
    value_ends(r);
    return text_buf_add_byte(out, closer);
}

/* A key without a value, at the end of its object. */
static err fill_value(json_repair *r, text_buf *out) {
    r->repairs++;
    value_ends(r);
    return text_buf_add_text(out, "null");
}

/* '}' or ']' where an element or a separator could stand. */
static err take_closer(json_repair *r, char c, text_buf *out) {
    uint8_t opener = c == '}' ? '{' : '[';
    int level = r->depth;
    while (level && r->kind[level] != opener) level--;
    if (!level) {
        r->repairs++;
        return err_none();
    }
    if (r->comma || level != r->depth) r->repairs++;
    r->comma = false;
    if (r->state == S_COLON || (r->state == S_VALUE && in_object(r))) TRY(fill_value(r, out));
    while (r->depth >= level) TRY(close_one(r, out));
    return err_none();
}

static err take_opener(json_repair *r, char c, text_buf *out) {
    if (r->depth >= JSON_REPAIR_DEPTH_MAX) {
        r->repairs++;
        return err_none();
    }
    TRY(begin_element(r, out));
    r->depth++;
    r->kind[r->depth] = (uint8_t)c;
    r->filled[r->depth] = false;
    r->state = c == '{' ? S_KEY : S_VALUE;
    return text_buf_add_byte(out, c);
}

static err open_string(json_repair *r, char quote, text_buf *out) {
    r->is_key = r->state == S_KEY;
    TRY(begin_element(r, out));
    if (quote == '\'') r->repairs++;
    r->quote = quote;
    r->state = S_STRING;
    return text_buf_add_byte(out, '"');
}

/* The first half of a surrogate pair that stayed alone. */
static err drop_high(json_repair *r, text_buf *out) {
    if (!r->high) return err_none();
    r->high = 0;
    r->repairs++;
    return text_buf_add_text(out, "\\ufffd");
}

static err take_in_string(json_repair *r, char c, text_buf *out) {
    if (c == '\\') {
        r->state = S_ESCAPE;
        return err_none();
    }
    TRY(drop_high(r, out));
    if (c == r->quote) {
        TRY(text_buf_add_byte(out, '"'));
        if (r->is_key) return key_ends(r, out);
        value_ends(r);
        return err_none();
    }
    if ((unsigned char)c < 0x20) r->repairs++;
    return text_buf_add_escaped(out, &c, 1);
}

static err take_escape(json_repair *r, char c, text_buf *out) {
    r->state = S_STRING;
    if (c == 'u') {
        r->state = S_HEX;
        r->n_hex = 0;
        return err_none();
    }
    TRY(drop_high(r, out));
    if (c && strchr("\"\\/bfnrt", c)) {
        char pair[2] = {'\\', c};
        return text_buf_add(out, pair, 2);
    }
    r->repairs++;
    if (c == '\'') return text_buf_add_byte(out, c);
    TRY(text_buf_add_text(out, "\\\\"));
    return take_in_string(r, c, out);
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static err add_unit(text_buf *out, unsigned unit) {
    static const char digit[] = "0123456789abcdef";
    char escape[6] = {'\\',
                      'u',
                      digit[unit >> 12 & 15],
                      digit[unit >> 8 & 15],
                      digit[unit >> 4 & 15],
                      digit[unit & 15]};
    return text_buf_add(out, escape, 6);
}

/* \u followed by fewer than four digits: the backslash stands for itself. */
static err broken_hex(json_repair *r, text_buf *out) {
    TRY(drop_high(r, out));
    r->repairs++;
    r->state = S_STRING;
    TRY(text_buf_add_text(out, "\\\\u"));
    return text_buf_add(out, r->hex, (size_t)r->n_hex);
}

static err take_hex(json_repair *r, char c, text_buf *out) {
    if (hex_value(c) < 0) {
        TRY(broken_hex(r, out));
        return take_in_string(r, c, out);
    }
    r->hex[r->n_hex++] = c;
    if (r->n_hex < 4) return err_none();
    unsigned unit = 0;
    for (int i = 0; i < 4; i++) unit = unit << 4 | (unsigned)hex_value(r->hex[i]);
    r->state = S_STRING;
    bool low = unit >= 0xDC00 && unit <= 0xDFFF;
    if (r->high && low) {
        TRY(add_unit(out, r->high));
        r->high = 0;
        return add_unit(out, unit);
    }
    TRY(drop_high(r, out));
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        r->high = unit;
        return err_none();
    }
    if (low) r->repairs++;
    return add_unit(out, low ? 0xFFFD : unit);
}

static bool is_number(const char *s) {
    if (*s == '-') s++;
    if (*s == '0') {
        s++;
    } else {
        if (*s < '1' || *s > '9') return false;
        while (*s >= '0' && *s <= '9') s++;
    }
    if (*s == '.') {
        if (*++s < '0' || *s > '9') return false;
        while (*s >= '0' && *s <= '9') s++;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-') s++;
        if (*s < '0' || *s > '9') return false;
        while (*s >= '0' && *s <= '9') s++;
    }
    return !*s;
}

static err word_ends(json_repair *r, text_buf *out) {
    static const char *const python[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    const char *word = r->word.data;
    bool whole = strlen(word) == r->word.length; /* no zero byte inside */
    bool literal = whole && (!strcmp(word, "true") || !strcmp(word, "false") ||
                             !strcmp(word, "null") || is_number(word));
    if (!r->is_key) {
        value_ends(r);
        if (literal) return text_buf_add(out, word, r->word.length);
        r->repairs++;
        for (int i = 0; whole && i < 3; i++) {
            if (!strcmp(word, python[i][0])) return text_buf_add_text(out, python[i][1]);
        }
    } else {
        r->repairs++;
    }
    TRY(text_buf_add_byte(out, '"'));
    TRY(text_buf_add_escaped(out, word, r->word.length));
    TRY(text_buf_add_byte(out, '"'));
    return r->is_key ? key_ends(r, out) : err_none();
}

static bool ends_word(const json_repair *r, char c) {
    if (is_space(c) || c == ',' || c == '}' || c == ']') return true;
    return (r->is_key && c == ':') || c == '"';
}

/* The first byte of a value or key. */
static err take_start(json_repair *r, char c, text_buf *out) {
    if (r->state == S_VALUE && (c == '{' || c == '[')) return take_opener(r, c, out);
    if (c == '"' || c == '\'') return open_string(r, c, out);
    if (c == '}' || c == ']') return take_closer(r, c, out);
    if (c == ',' || c == ':' || (r->state == S_KEY && (c == '{' || c == '['))) {
        if (c == ',' && r->state == S_VALUE && in_object(r)) {
            TRY(fill_value(r, out));
            r->state = S_KEY;
        } else {
            r->repairs++;
        }
        r->comma = r->comma || c == ',';
        return err_none();
    }
    r->is_key = r->state == S_KEY;
    TRY(begin_element(r, out));
    r->state = S_WORD;
    r->word.length = 0;
    return text_buf_add_byte(&r->word, c);
}

static err take_after(json_repair *r, char c, text_buf *out) {
    if (c == '}' || c == ']') return take_closer(r, c, out);
    r->state = in_object(r) ? S_KEY : S_VALUE;
    if (c == ',') {
        r->comma = true;
        return err_none();
    }
    r->repairs++;
    return take_start(r, c, out);
}

static err take_colon(json_repair *r, char c, text_buf *out) {
    r->state = S_VALUE;
    if (c == ':') return err_none();
    if (c != '}' && c != ']' && c != ',') r->repairs++;
    return take_start(r, c, out);
}

static err take(json_repair *r, char c, text_buf *out) {
    switch (r->state) {
    case S_STRING: return take_in_string(r, c, out);
    case S_ESCAPE: return take_escape(r, c, out);
    case S_HEX: return take_hex(r, c, out);
    default: break;
    }
    if (is_space(c)) return err_none();
    switch (r->state) {
    case S_COLON: return take_colon(r, c, out);
    case S_AFTER: return take_after(r, c, out);
    default: return take_start(r, c, out);
    }
}

err json_repair_push(json_repair *r, const char *bytes, size_t length, text_buf *out,
                     size_t *used) {
    *used = 0;
    for (size_t i = 0; i < length && r->state != S_DONE; i++) {
        if (r->state == S_WORD) {
            if (!ends_word(r, bytes[i])) {
                TRY(text_buf_add_byte(&r->word, bytes[i]));
                *used = i + 1;
                continue;
            }
            TRY(word_ends(r, out));
            if (r->state == S_DONE) break;
        }
        TRY(take(r, bytes[i], out));
        *used = i + 1;
    }
    return err_none();
}

err json_repair_end(json_repair *r, text_buf *out) {
    if (r->state == S_DONE || !r->started) return err_none();
    if (r->depth || r->state != S_WORD) r->repairs++;
    if (r->state == S_ESCAPE) {
        r->state = S_STRING;
        TRY(drop_high(r, out));
        TRY(text_buf_add_text(out, "\\\\"));
    }
    if (r->state == S_HEX) TRY(broken_hex(r, out));
    if (r->state == S_STRING) TRY(take_in_string(r, r->quote, out));
    if (r->state == S_WORD) TRY(word_ends(r, out));
    if (r->state == S_COLON || (r->state == S_VALUE && in_object(r))) TRY(fill_value(r, out));
    while (r->depth) TRY(close_one(r, out));
    r->state = S_DONE;
    return err_none();
}
