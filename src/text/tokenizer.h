/* tokenizer.h: text to token ids and back, from a checkpoint's tokenizer.json.
 *
 * Byte-level BPE: normalise (NFC where the file says so), cut out added tokens, split by the file's
 * own expression (PCRE2), map bytes, merge by rank. Linear in the length of the text on any input,
 * no length limit. Unsupported normalisers, pre-tokenizers or models are refused by name. Fixed
 * after open: any thread may use it. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct tokenizer tokenizer;

/* A growing list of token ids. Zero-initialise; token_list_free releases. */
typedef struct token_list {
    int32_t *ids; /* owned */
    size_t count, capacity;
} token_list;

void token_list_free(token_list *l);
err token_list_push(token_list *l, int32_t id) MUST_USE;

typedef enum token_mode {
    TOKEN_CONTENT, /* text of people and tools: nothing in it becomes a special token, whatever it
                      spells */
    TOKEN_MARKUP,  /* our own or a template's text: added tokens are recognised, longest first */
} token_mode;

/* From DIR/tokenizer.json, or from its text (name stands for the path in messages; json need not
 * stay). Errors name the file and the part of it: ERR_NOT_FOUND, ERR_CORRUPT, ERR_UNSUPPORTED (a
 * model, normalizer, pre-tokenizer or construct of an expression that we do not implement),
 * ERR_RANGE, ERR_NOMEM. The post_processor is not used: what surrounds a text is the chat
 * template's business. Cost: 0.1 s and 12 MB for a vocabulary of 150,000
 * (tests/tokenizer/README.md). */
err tokenizer_open(const char *dir, tokenizer **out) MUST_USE;
err tokenizer_parse(const char *name, const char *json, size_t length, tokenizer **out) MUST_USE;
void tokenizer_close(tokenizer *t);

/* Bytes of memory that it holds. */
size_t tokenizer_memory(const tokenizer *t);

/* Highest id + 1. */
int tokenizer_size(const tokenizer *t);
/* The id of exactly this added or ordinary token (after byte mapping), -1 when there is none. */
int tokenizer_find(const tokenizer *t, const char *bytes, size_t length);
/* Special by the file's own flag. */
bool tokenizer_is_special(const tokenizer *t, int id);
/* An added token, special or not: markup that no content becomes. */
bool tokenizer_is_added(const tokenizer *t, int id);

/* Appends the ids of text[0 .. length) to out. Invalid UTF-8 is encoded byte by byte, never
 * refused. On error out is as before. */
err tokenizer_encode(const tokenizer *t, token_mode mode, const char *text, size_t length,
                     token_list *out) MUST_USE;

/* A text of both kinds: marks[i] is 0 for a byte of markup. Added tokens are recognised where all
 * their bytes are markup; all other text is encoded in one go, so where markup and content meet the
 * ids are those of the text as a whole (a newline of markup before one of content is one token, if
 * the vocabulary has it). */
err tokenizer_encode_marked(const tokenizer *t, const char *text, const uint8_t *marks,
                            size_t length, token_list *out) MUST_USE;

/* The bytes of one token (not necessarily whole characters), owned by the tokenizer; NULL for an id
 * that no token has (outside, or a gap). */
const char *tokenizer_bytes(const tokenizer *t, int id, size_t *length);

/* Incremental detokeniser: bytes in, whole UTF-8 characters out. Zero-initialise. */
typedef struct utf8_stream {
    unsigned char held[4];
    int n_held;
} utf8_stream;

/* Appends what can be shown to out (room for length + 3 bytes, not zero-terminated) and returns how
 * many bytes that is; an incomplete character is held back, bytes that can never become one turn
 * into U+FFFD (room: 3 bytes each, so 3 * length + 9 is always enough). utf8_stream_end flushes
 * what is held as U+FFFD. */
size_t utf8_stream_push(utf8_stream *s, const char *bytes, size_t length, char *out);
size_t utf8_stream_end(utf8_stream *s, char *out);

#endif
