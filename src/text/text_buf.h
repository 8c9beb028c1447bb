/* text_buf.h: a growing run of bytes, for text whose length nobody knows beforehand.
 *
 * Zero-initialise; text_buf_free releases. The bytes are always followed by one zero byte that does
 * not count, once anything was added. Owner thread only. */
#ifndef TEXT_TEXT_BUF_H
#define TEXT_TEXT_BUF_H

#include <stddef.h>

#include "base/err.h"

typedef struct text_buf {
    char *data; /* owned; NULL while nothing was added */
    size_t length, capacity;
} text_buf;

void text_buf_free(text_buf *b);
/* Room for `more` further bytes and the zero. ERR_NOMEM, ERR_RANGE; b is then as before. */
err text_buf_reserve(text_buf *b, size_t more) MUST_USE;
/* Appends bytes[0 .. length). bytes may be NULL when length is 0, and must not lie inside b. */
err text_buf_add(text_buf *b, const char *bytes, size_t length) MUST_USE;
err text_buf_add_text(text_buf *b, const char *zero_terminated) MUST_USE;
err text_buf_add_byte(text_buf *b, char c) MUST_USE;
/* Drops the first n bytes (n <= length). Cost: moves the rest. */
void text_buf_drop(text_buf *b, size_t n);

/* Appends bytes as the inside of a JSON string: quote, backslash and control characters escaped,
 * everything else as it is (so valid UTF-8 stays valid, and so does its opposite). */
err text_buf_add_escaped(text_buf *b, const char *bytes, size_t length) MUST_USE;
/* Appends bytes with every byte that is no part of valid UTF-8 replaced by U+FFFD. */
err text_buf_add_utf8(text_buf *b, const char *bytes, size_t length) MUST_USE;

#endif
