/* unicode.h: UTF-8, and the corrections that make a text split and normalise the same everywhere.
 *
 * The ids of a text must not depend on the Unicode version of the system's libraries, and they
 * should be those of the reference tokenizer (Unicode 16.0 for splitting, 9.0 for NFC). PCRE2 and
 * utf8proc carry whatever version the distribution ships. Two small tables close the gap:
 *
 *   categories   before splitting, a code point whose category is not the same in all versions
 *                (assigned lately, or not yet) is replaced, in a copy that only the expression
 *                sees, by a stand-in of the right category and of the same UTF-8 length.
 *   barriers     code points that are newer than the reference's normaliser and would be reordered,
 *                decomposed or composed by a newer one: they pass through unchanged. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct unicode_run {
    uint32_t first, last; /* inclusive */
    uint32_t standin;
} unicode_run;

typedef struct unicode_span {
    uint32_t first, last; /* inclusive */
} unicode_span;

/* unicode_tables.c: ascending, without overlap. */
extern const unicode_run unicode_category_runs[];
extern const int unicode_category_count;
extern const unicode_span unicode_normal_barriers[];
extern const int unicode_barrier_count;

/* The first character of bytes[0 .. length): its length in bytes 1 to 4 and the code point; or 0
 * (and code point 0) when the bytes do not begin with well-formed UTF-8. */
int utf8_decode(const char *bytes, size_t length, uint32_t *code_point);

/* Writes code_point (not a surrogate, <= 0x10ffff) and returns its length. */
int utf8_encode(uint32_t code_point, char out[4]);

/* Bytes of the longest well-formed UTF-8 text that bytes[0 .. length) begins with. */
size_t utf8_valid_prefix(const char *bytes, size_t length);

/* What the split expression should see in the place of code_point (mostly itself). */
uint32_t unicode_standin(uint32_t code_point);

/* True for a code point that NFC must treat as a plain letter. */
bool unicode_is_barrier(uint32_t code_point);

#endif
