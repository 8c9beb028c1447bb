/* added.h: the added tokens of a tokenizer, and where they stand in a text.
 *
 * A trie over bytes; of the tokens that match at a place the longest counts, and the leftmost place
 * comes first. Search is linear: at most ADDED_BYTES_MAX steps for each byte of text. */
#ifndef TEXT_ADDED_H
#define TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ADDED_BYTES_MAX 1024

typedef struct added_token {
    int32_t id;
    bool left_strip, right_strip; /* takes the white space on that side with it */
    bool single_word;             /* not where a word character touches it */
} added_token;

typedef struct added_node {
    uint32_t child, sibling; /* node indices, 0: none */
    int32_t token;           /* index, -1: none ends here */
    uint8_t byte;
} added_node;

/* Zero-initialise; added_free releases. Fixed after the last added_add. */
typedef struct added_set {
    added_node *nodes; /* owned; [0] is the root */
    uint32_t n_nodes, nodes_capacity;
    added_token *tokens; /* owned */
    uint32_t n_tokens, tokens_capacity;
    bool begins[256]; /* some token begins with this byte */
} added_set;

/* Text that is there already is replaced by the later token. bytes: 1 .. ADDED_BYTES_MAX of them.
 */
err added_add(added_set *s, const char *bytes, size_t length, added_token token) MUST_USE;
void added_free(added_set *s);
size_t added_memory(const added_set *s);

/* The token that is exactly bytes[0 .. length), or NULL. */
const added_token *added_find(const added_set *s, const char *bytes, size_t length);

typedef struct added_match {
    size_t begin, end; /* with the white space that the token takes */
    int32_t id;
} added_match;

typedef struct added_text {
    const char *bytes; /* may hold invalid UTF-8 */
    size_t length;
    const uint8_t *marks; /* [length]: a token is one only where all its bytes have mark 0; NULL:
                             everywhere */
} added_text;

/* The first token that begins at or after *from; *from moves behind its own bytes. `taken` is where
 * the match before ended: white space before it is not taken again. */
bool added_next(const added_set *s, const added_text *in, size_t taken, size_t *from,
                added_match *out);

#endif
