/* buffer.c: see buffer.h. */
#include "text/buffer.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

err text_buffer_reserve(text_buffer *b, size_t more) {
    size_t needed, doubled;
    if (!size_add(b->count, more, &needed)) return err_make(ERR_NOMEM, "text is too long");
    if (needed <= b->capacity) return err_none();
    if (!size_mul(b->capacity, 2, &doubled) || doubled < needed) doubled = needed;
    if (doubled < 64) doubled = 64;
    char *data = realloc(b->data, doubled);
    if (!data) return err_make(ERR_NOMEM, "no memory for %zu bytes of text", doubled);
    b->data = data;
    b->capacity = doubled;
    return err_none();
}

err text_buffer_add(text_buffer *b, const char *bytes, size_t length) {
    if (length == 0) return err_none();
    TRY(text_buffer_reserve(b, length));
    memcpy(b->data + b->count, bytes, length);
    b->count += length;
    return err_none();
}

void text_buffer_free(text_buffer *b) {
    free(b->data);
    *b = (text_buffer){0};
}
