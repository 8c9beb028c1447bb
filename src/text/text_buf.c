/* text_buf.c: see text_buf.h. */
#include "text/text_buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/bits.h"

void text_buf_free(text_buf *b) {
    free(b->data);
    *b = (text_buf){0};
}

err text_buf_reserve(text_buf *b, size_t more) {
    size_t need;
    if (!size_add(b->length, more, &need) || !size_add(need, 1, &need)) {
        return err_make(ERR_RANGE, "text of more than %zu bytes", b->length);
    }
    if (need <= b->capacity) return err_none();
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < need) {
        if (!size_mul(capacity, 2, &capacity)) return err_make(ERR_RANGE, "text is too long");
    }
    char *data = realloc(b->data, capacity);
    if (!data) return err_make(ERR_NOMEM, "no memory for %zu bytes of text", capacity);
    b->data = data;
    b->capacity = capacity;
    return err_none();
}

err text_buf_add(text_buf *b, const char *bytes, size_t length) {
    TRY(text_buf_reserve(b, length));
    if (length) memcpy(b->data + b->length, bytes, length);
    b->length += length;
    b->data[b->length] = '\0';
    return err_none();
}

err text_buf_add_text(text_buf *b, const char *zero_terminated) {
    return text_buf_add(b, zero_terminated, strlen(zero_terminated));
}

err text_buf_add_byte(text_buf *b, char c) { return text_buf_add(b, &c, 1); }

void text_buf_drop(text_buf *b, size_t n) {
    if (!n) return;
    memmove(b->data, b->data + n, b->length - n);
    b->length -= n;
    b->data[b->length] = '\0';
}

/* The escape of one byte in a JSON string: its length, 0 when it stands for itself. */
static size_t escape_of(unsigned char c, char out[6]) {
    static const char hex[] = "0123456789abcdef";
    static const char named[] = "\b\f\n\r\t\"\\";
    static const char letter[] = "bfnrt\"\\";
    if (c >= 0x20 && c != '"' && c != '\\') return 0;
    out[0] = '\\';
    const char *at = c ? strchr(named, c) : NULL;
    if (at) {
        out[1] = letter[at - named];
        return 2;
    }
    out[1] = 'u';
    out[2] = out[3] = '0';
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

err text_buf_add_escaped(text_buf *b, const char *bytes, size_t length) {
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < length; i++) {
        char escape[6];
        size_t n = escape_of((unsigned char)bytes[i], escape);
        if (!n) continue;
        TRY(text_buf_add(b, bytes + plain, i - plain));
        TRY(text_buf_add(b, escape, n));
        plain = i + 1;
    }
    return text_buf_add(b, bytes + plain, length - plain);
}

err text_buf_add_utf8(text_buf *b, const char *bytes, size_t length) {
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t left = (utf8proc_ssize_t)(length - i);
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)bytes + i, left, &point);
        if (n > 0) {
            TRY(text_buf_add(b, bytes + i, (size_t)n));
            i += (size_t)n;
        } else {
            TRY(text_buf_add(b, "\xEF\xBF\xBD", 3));
            i++;
        }
    }
    return err_none();
}
