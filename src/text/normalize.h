/* normalize.h: Unicode normalisation form C, in linear time. */
#ifndef TEXT_NORMALIZE_H
#define TEXT_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "text/buffer.h"

/* NFC of text[0 .. length), which is valid UTF-8, is appended to out.
 * *changed false: the text is in that form already, and nothing was appended.
 * Cost: linear, whatever the order of the combining marks. Errors: ERR_NOMEM. */
err text_nfc(const char *text, size_t length, text_buffer *out, bool *changed) MUST_USE;

#endif
