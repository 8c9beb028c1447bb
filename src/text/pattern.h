/* pattern.h: split expressions of tokenizer.json, from their dialect to PCRE2's. */
#ifndef TEXT_PATTERN_H
#define TEXT_PATTERN_H

#include <stddef.h>

#include "base/err.h"
#include "text/buffer.h"

#define PATTERN_BYTES_MAX 16384

/* Appends to out the PCRE2 expression that matches what the Oniguruma expression pattern[0 ..
 * length) matches. Only constructs that we know to mean the same (or how to say the same) pass:
 * literals, classes without nesting, \s \S \d \D \r \n \t \f \v \uHHHH, \p{category}, groups (?:
 * (?i:
 * (?= (?!, alternation and quantifiers. Anything else is ERR_UNSUPPORTED naming the construct and
 * its place; `where` names the expression in the message. */
err pattern_translate(const char *where, const char *pattern, size_t length,
                      text_buffer *out) MUST_USE;

#endif
