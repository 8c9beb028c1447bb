/* json_repair.h: whatever a model wrote where JSON should be, as valid JSON, while it streams.
 *
 *     in   {'city': 'Oslo', "days": [1, 2,], ok: True      (end of text)
 *     out  {"city": "Oslo", "days": [1, 2], "ok": true}
 *
 * A lenient reader coupled to a strict writer: the writer only ever emits what keeps the output a
 * prefix of valid JSON, so a caller may pass bytes on at once. Valid input comes out with the same
 * values, numbers digit by digit, and the separators ", " and ": ". Every deviation is counted in
 * `repairs`: zero at the end means that the input was valid JSON (duplicate keys included).
 *
 * Repaired: missing closers, quotes, commas and colons; extra commas and closers; single quotes;
 * bare words and keys; Python's True, False, None; control characters in strings; bad escapes and
 * lone surrogates; text that is no JSON at all (one string). A quote that should have been escaped
 * inside a string cannot be told from its end: the result is valid, but not what was meant.
 *
 * Bytes >= 0x80 pass unchanged. Containers deeper than JSON_REPAIR_DEPTH_MAX are opened into their
 * parent (and counted). Owner thread only. */
#ifndef TEXT_JSON_REPAIR_H
#define TEXT_JSON_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "text/text_buf.h"

#define JSON_REPAIR_DEPTH_MAX 256

/* Zero-initialise; json_repair_free releases. */
typedef struct json_repair {
    int state, depth;
    uint8_t kind[JSON_REPAIR_DEPTH_MAX + 1]; /* '{' or '[' of each open container */
    bool filled[JSON_REPAIR_DEPTH_MAX + 1];  /* it has an element already */
    bool comma, is_key, started;             /* a comma was read; the string is a key */
    char quote;                              /* that closes the string */
    int n_hex;                               /* digits of \u seen so far */
    char hex[4];                             /* those digits */
    unsigned high;                           /* first half of a surrogate pair, 0 without */
    unsigned repairs;                        /* deviations so far */
    text_buf word;                           /* the number, literal or bare word being read */
} json_repair;

void json_repair_free(json_repair *r);
void json_repair_reset(json_repair *r);

/* Reads up to length bytes and appends what is certain to out. Stops behind the last byte of the
 * first whole value; *used is how many bytes were read. ERR_NOMEM, ERR_RANGE. */
err json_repair_push(json_repair *r, const char *bytes, size_t length, text_buf *out,
                     size_t *used) MUST_USE;
/* The input is over: completes the value. Without any value in the input nothing is added. */
err json_repair_end(json_repair *r, text_buf *out) MUST_USE;

/* One value is complete (after it json_repair_push reads nothing). */
bool json_repair_done(const json_repair *r);
/* The next byte would belong to a string. */
bool json_repair_in_string(const json_repair *r);

#endif
