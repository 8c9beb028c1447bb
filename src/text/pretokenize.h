/* pretokenize.h: cuts a text into the pieces that merges never cross, as the "pre_tokenizer" of
 * tokenizer.json says.
 *
 *     "pre_tokenizer"  ->  stages:   Split \p{N}{1,3}  |  Split <expression>  |  (prefix space)
 *     "a 12 b"         ->  pieces:   [a ] [12] [ b]   ->  [a][ ][12][ b]  ->  piece_fn, in order
 *
 * Each stage cuts every piece of the stage before it, looking at nothing outside the piece.
 * Supported: Sequence, Split (Regex or String, every behaviour, invert), Digits, and ByteLevel
 * as the last member, which must be there (it is what makes the tokenizer byte-level). Everything
 * else is refused by name. Fixed after parsing: any thread may use it. */
#ifndef TEXT_PRETOKENIZE_H
#define TEXT_PRETOKENIZE_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

typedef struct pretokenizer pretokenizer;

/* spec: the value of "pre_tokenizer", may be NULL; where: names the file in messages. */
err pretokenizer_parse(const char *where, const json_t *spec, pretokenizer **out) MUST_USE;
void pretokenizer_free(pretokenizer *p);

/* Called for each piece in order; never for an empty one. */
typedef err (*piece_fn)(void *ctx, const char *piece, size_t length);

/* Cuts text[0 .. length), valid UTF-8. Cost: linear for the expressions of all families that we
 * claim (docs: tests/tokenizer/README.md), bounded by a match limit for others (ERR_RANGE).
 * Errors: piece_fn's, ERR_NOMEM, ERR_RANGE. */
err pretokenizer_run(const pretokenizer *p, const char *text, size_t length, piece_fn fn,
                     void *ctx) MUST_USE;

#endif
