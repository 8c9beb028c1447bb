/* tokenizer_impl.h: what tokenizer.c and tokenizer_load.c share; nobody else includes it.
 *
 *     id -> start[id], length[id] -> bytes        the bytes of every token, for decoding
 *     bytes -> slots -> id                        ordinary tokens, for merges and ignore_merges
 *     rules                                       merges
 *     plain, normalized                           added tokens, matched before and after NFC */
#ifndef TEXT_TOKENIZER_IMPL_H
#define TEXT_TOKENIZER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/buffer.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

enum {
    TOKEN_IS_PRESENT = 1,
    TOKEN_IS_ADDED = 2,   /* markup: merges never make it, content never becomes it */
    TOKEN_IS_SPECIAL = 4, /* by the file's own flag */
    TOKEN_IS_IN_VOCAB = 8,
    TOKEN_IS_LITERAL = 16, /* in the vocabulary, but not spelled in the byte alphabet: encoding
                              cannot reach it */
};

typedef struct token_entry {
    uint32_t start, length; /* in tokenizer.bytes */
    uint8_t flags;
} token_entry;

struct tokenizer {
    text_buffer bytes;
    token_entry *entries; /* owned, [size] */
    int size, capacity;   /* size: highest id + 1 */
    int32_t *slots;       /* owned, open addressing: id + 1, 0 is empty */
    uint32_t slot_mask;
    bpe rules;
    added_set plain, normalized;
    bool nfc, ignore_merges;
    pretokenizer *split; /* owned */
};

/* The ordinary token that is exactly these bytes, -1 when there is none. */
int32_t tokenizer_lookup(const tokenizer *t, const char *bytes, size_t length);
/* The slot where it is or would go. */
uint32_t tokenizer_slot(const tokenizer *t, const char *bytes, size_t length);

#endif
