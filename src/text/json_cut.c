/* json_cut.c: see json_cut.h. */
#include "text/json_cut.h"

#include <string.h>

#include "base/json.h"
#include "text/unicode.h"

static err bad_json(const json_reader *r, const char *what) {
    return err_make(ERR_CORRUPT, "%s: not valid JSON: byte %zu: %s", r->name,
                    (size_t)(r->at - r->begin) + 1, what);
}

char json_reader_peek(json_reader *r) {
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
        r->at++;
    }
    return r->at < r->end ? *r->at : '\0';
}

err json_reader_expect(json_reader *r, char c) {
    char text[] = "expected ' '";
    text[10] = c;
    if (json_reader_peek(r) != c) return bad_json(r, text);
    r->at++;
    return err_none();
}

err json_reader_more(json_reader *r, char close, bool first, bool *more) {
    *more = false;
    char c = json_reader_peek(r);
    if (c == close) {
        r->at++;
        return err_none();
    }
    if (!first) {
        TRY(json_reader_expect(r, ','));
        if (json_reader_peek(r) == close) return bad_json(r, "a comma before the end");
    }
    *more = true;
    return err_none();
}

err json_reader_id(json_reader *r, int32_t *out) {
    *out = 0;
    char c = json_reader_peek(r);
    int64_t value = 0;
    if (c < '0' || c > '9') return bad_json(r, "expected a token id");
    bool zero = c == '0';
    const char *first = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && value <= INT32_MAX) {
        value = value * 10 + (*r->at++ - '0');
    }
    c = r->at < r->end ? *r->at : '\0';
    if (value > INT32_MAX || (zero && r->at - first > 1) || c == '.' || c == 'e' || c == 'E') {
        r->at = first;
        return bad_json(r, "expected a token id");
    }
    *out = (int32_t)value;
    return err_none();
}

static err read_unit(json_reader *r, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = r->at < r->end ? *r->at : '\0';
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return bad_json(r, "expected four hexadecimal digits");
        *out = *out << 4 | digit;
    }
    return err_none();
}

/* After \u: one character, from one unit or a surrogate pair. */
static err read_escaped_unit(json_reader *r, uint32_t *out) {
    uint32_t low;
    TRY(read_unit(r, out));
    if (*out == 0) return bad_json(r, "a zero byte in a string");
    if (*out < 0xd800 || *out >= 0xe000) return err_none();
    if (*out >= 0xdc00 || r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') {
        return bad_json(r, "half a surrogate pair");
    }
    r->at += 2;
    TRY(read_unit(r, &low));
    if (low < 0xdc00 || low >= 0xe000) return bad_json(r, "half a surrogate pair");
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return err_none();
}

/* at stands on the backslash. */
static err read_escape(json_reader *r, text_buffer *out) {
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    char c = r->end - r->at > 1 ? r->at[1] : '\0';
    TRY(text_buffer_reserve(out, 4));
    if (c == 'u') {
        uint32_t code_point;
        r->at += 2;
        TRY(read_escaped_unit(r, &code_point));
        out->count += (size_t)utf8_encode(code_point, out->data + out->count);
        return err_none();
    }
    const char *known = c ? strchr(FROM, c) : NULL;
    if (!known) return bad_json(r, "an unknown escape");
    out->data[out->count++] = TO[known - FROM];
    r->at += 2;
    return err_none();
}

err json_reader_string(json_reader *r, text_buffer *out) {
    out->count = 0;
    TRY(json_reader_expect(r, '"'));
    for (;;) {
        const char *run = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 0x20) {
            r->at++;
        }
        size_t n = (size_t)(r->at - run);
        if (utf8_valid_prefix(run, n) != n) return bad_json(r, "a string that is not valid UTF-8");
        TRY(text_buffer_add(out, run, n));
        if (r->at == r->end) return bad_json(r, "a string without an end");
        if (*r->at == '"') break;
        if (*r->at != '\\') return bad_json(r, "a control character in a string");
        TRY(read_escape(r, out));
    }
    r->at++;
    return err_none();
}

/* Moves behind a string without looking at its escapes. */
static err skip_string(json_reader *r) {
    TRY(json_reader_expect(r, '"'));
    while (r->at < r->end && *r->at != '"') r->at += *r->at == '\\' && r->end - r->at > 1 ? 2 : 1;
    if (r->at >= r->end) return bad_json(r, "a string without an end");
    r->at++;
    return err_none();
}

/* Moves behind any value. Only brackets and strings are looked at: whoever reads the value checks
 * it.
 */
static err skip_value(json_reader *r) {
    size_t depth = 0;
    do {
        char c = json_reader_peek(r);
        if (c == '\0') return bad_json(r, "a value without an end");
        if (c == '"') {
            TRY(skip_string(r));
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') {
            if (depth == 0) return bad_json(r, "a value is missing");
            depth--;
        }
        r->at++;
        if (depth > 0 || c == '}' || c == ']') continue;
        while (r->at < r->end && !strchr(" \n\r\t,}]", *r->at)) r->at++; /* a number or a word */
    } while (depth > 0);
    return err_none();
}

/* Moves to the value of the next member; *key is i when its name is names[i], else -1. *more false
 * at the object's end. */
static err next_member(json_reader *r, bool first, const char *const names[2], int *key,
                       bool *more) {
    *key = -1;
    TRY(json_reader_more(r, '}', first, more));
    if (!*more) return err_none();
    (void)json_reader_peek(r);
    const char *begin = r->at;
    TRY(skip_string(r));
    size_t n = (size_t)(r->at - begin) - 2;
    for (int i = 0; i < 2; i++) {
        if (names[i] && strlen(names[i]) == n && memcmp(begin + 1, names[i], n) == 0) *key = i;
    }
    TRY(json_reader_expect(r, ':'));
    (void)json_reader_peek(r);
    return err_none();
}

/* Finds the two values within the object "model" that r stands on. */
static err scan_model(json_reader *r, json_cut *out) {
    static const char *const NAMES[2] = {"vocab", "merges"};
    TRY(json_reader_expect(r, '{'));
    for (bool first = true;; first = false) {
        int key;
        bool more;
        TRY(next_member(r, first, NAMES, &key, &more));
        if (!more) return err_none();
        json_reader value = *r;
        TRY(skip_value(r));
        value.end = r->at;
        char opens = key == 0 ? '{' : '[';
        json_reader *target = key == 0 ? &out->vocab : &out->merges;
        if (key >= 0 && value.at < value.end && *value.at == opens && !target->at) *target = value;
    }
}

static err scan_file(json_reader *r, json_cut *out) {
    static const char *const NAMES[2] = {"model", NULL};
    TRY(json_reader_expect(r, '{'));
    for (bool first = true;; first = false) {
        int key;
        bool more;
        TRY(next_member(r, first, NAMES, &key, &more));
        if (!more) return err_none();
        if (key == 0 && json_reader_peek(r) == '{' && !out->vocab.at && !out->merges.at) {
            TRY(scan_model(r, out));
        } else {
            TRY(skip_value(r));
        }
    }
}

err json_cut_open(const char *name, const char *bytes, size_t length, json_cut *out) {
    *out = (json_cut){0};
    json_reader r = {.name = name, .begin = bytes, .at = bytes, .end = bytes + length};
    text_buffer rest = {0};
    err e = err_none();
    if (json_reader_peek(&r) == '{') e = scan_file(&r, out);
    if (e.code) {
        *out = (json_cut){0};
        return e;
    }
    bool swap = out->merges.at && (!out->vocab.at || out->merges.at < out->vocab.at);
    const json_reader *order[2] = {swap ? &out->merges : &out->vocab,
                                   swap ? &out->vocab : &out->merges};
    const char *done = bytes;
    for (int i = 0; i < 2; i++) {
        if (!order[i]->at) continue;
        if (!e.code) e = text_buffer_add(&rest, done, (size_t)(order[i]->at - done));
        if (!e.code) e = text_buffer_add(&rest, order[i] == &out->vocab ? "{}" : "[]", 2);
        done = order[i]->end;
    }
    if (!e.code) e = text_buffer_add(&rest, done, (size_t)(bytes + length - done));
    if (!e.code) e = json_read_bytes(name, rest.data ? rest.data : "", rest.count, &out->rest);
    text_buffer_free(&rest);
    if (e.code) *out = (json_cut){0};
    return e;
}
