/* err.c: see err.h. Only formatting; the one subtlety is that a sentence that does not fit is cut
 * in the middle, because both ends carry meaning (the file's name is at the front, the reason at
 * the back). */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CUT_MARK " ... "

/* A byte that continues a UTF-8 character: not a place to cut. */
static bool is_inside(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* Copies `text` into out, cutting the middle out when it is longer than an err can hold. */
static void copy_cut(char out[ERR_TEXT_MAX], const char *text) {
    size_t length = strlen(text);
    if (length < ERR_TEXT_MAX) {
        memcpy(out, text, length + 1);
        return;
    }
    size_t room = ERR_TEXT_MAX - 1 - (sizeof CUT_MARK - 1);
    size_t head = room / 2;
    size_t tail = room - head;
    while (head > 0 && is_inside(text[head])) head--;
    while (tail > 0 && is_inside(text[length - tail])) tail--;
    memcpy(out, text, head);
    memcpy(out + head, CUT_MARK, sizeof CUT_MARK - 1);
    memcpy(out + head + sizeof CUT_MARK - 1, text + length - tail, tail + 1);
}

/* Bytes of the well-formed UTF-8 character at text, or 0: overlong forms, surrogates, stray bytes.
 */
static int utf8_length(const unsigned char *text) {
    unsigned char c = text[0];
    int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    for (int i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0; /* also stops at the terminating zero */
    }
    bool beyond = (c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] >= 0xa0) ||
                  (c == 0xf0 && text[1] < 0x90) || (c == 0xf4 && text[1] >= 0x90);
    return beyond ? 0 : n;
}

/* Sentences quote names out of files, and a name may hold line breaks, terminal escapes or bytes
 * that are no text. Control characters (C0, DEL, C1) and what is not UTF-8 become '?'. */
static void make_printable(char *text) {
    unsigned char *at = (unsigned char *)text;
    while (*at) {
        int n = utf8_length(at);
        bool control = at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
        if (n == 0 || control) memset(at, '?', n ? (size_t)n : 1);
        at += n ? n : 1;
    }
}

static err make_v(err_code code, const char *suffix, const char *format, va_list args)
    PRINTF_LIKE(3, 0);

static err make_v(err_code code, const char *suffix, const char *format, va_list args) {
    char buffer[8192];
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof buffer ? (size_t)n : sizeof buffer - 1;
    buffer[used] = '\0';
    snprintf(buffer + used, sizeof buffer - used, "%s", suffix);
    make_printable(buffer);
    err e;
    e.code = code;
    copy_cut(e.text, buffer);
    return e;
}

err err_make(err_code code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err e = make_v(code, "", format, args);
    va_end(args);
    return e;
}

err err_within(err inner, const char *format, ...) {
    char suffix[ERR_TEXT_MAX + 2];
    snprintf(suffix, sizeof suffix, ": %s", inner.text);
    va_list args;
    va_start(args, format);
    err e = make_v(inner.code, suffix, format, args);
    va_end(args);
    return e;
}

err err_system(int errno_value, const char *format, ...) {
    char suffix[160];
    snprintf(suffix, sizeof suffix, ": %s", strerror(errno_value));
    err_code code = errno_value == ENOENT   ? ERR_NOT_FOUND
                    : errno_value == ENOMEM ? ERR_NOMEM
                                            : ERR_IO;
    va_list args;
    va_start(args, format);
    err e = make_v(code, suffix, format, args);
    va_end(args);
    return e;
}

const char *err_code_name(err_code code) {
    static const char *const names[] = {
        [ERR_NONE] = "none",   [ERR_ARG] = "argument",        [ERR_NOT_FOUND] = "not_found",
        [ERR_IO] = "io",       [ERR_CORRUPT] = "corrupt",     [ERR_UNSUPPORTED] = "unsupported",
        [ERR_RANGE] = "range", [ERR_BUDGET] = "budget",       [ERR_NOMEM] = "no_memory",
        [ERR_BUSY] = "busy",   [ERR_CANCELLED] = "cancelled",
    };
    return names[code];
}
