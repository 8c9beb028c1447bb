/* buffer.h: a growing byte buffer, for the parts of text/ that build text. */
#ifndef TEXT_BUFFER_H
#define TEXT_BUFFER_H

#include <stddef.h>

#include "base/err.h"

/* Zero-initialise; text_buffer_free releases. */
typedef struct text_buffer {
    char *data; /* owned, not zero-terminated */
    size_t count, capacity;
} text_buffer;

/* Room for `more` further bytes after count. ERR_NOMEM leaves the buffer as it was. */
err text_buffer_reserve(text_buffer *b, size_t more) MUST_USE;
err text_buffer_add(text_buffer *b, const char *bytes, size_t length) MUST_USE;
void text_buffer_free(text_buffer *b);

#endif
