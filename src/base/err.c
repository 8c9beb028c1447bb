/* err.c: see err.h. Only formatting; the one subtlety is that a sentence that does not fit is cut
 * in the middle, because both ends carry meaning (the file's name is at the front, the reason at
 * the back). */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CUT_MARK " ... "

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
    memcpy(out, text, head);
    memcpy(out + head, CUT_MARK, sizeof CUT_MARK - 1);
    memcpy(out + head + sizeof CUT_MARK - 1, text + length - tail, tail + 1);
}

static err make_v(err_code code, const char *suffix, const char *format, va_list args)
    PRINTF_LIKE(3, 0);

static err make_v(err_code code, const char *suffix, const char *format, va_list args) {
    char buffer[8192];
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof buffer ? (size_t)n : sizeof buffer - 1;
    buffer[used] = '\0';
    snprintf(buffer + used, sizeof buffer - used, "%s", suffix);
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
