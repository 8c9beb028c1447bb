/* bpe.h: byte-pair merging of one piece of text.
 *
 * A piece starts as one symbol per byte; again and again the neighbouring pair with the lowest rank
 * (of equal ones the leftmost) becomes one symbol, until no pair has a rule:
 *
 *     l o w e r  ->  l ow e r  ->  low e r  ->  low er  ->  lower
 *
 * The symbols are a linked list over arrays, the candidates a heap ordered by (rank, place):
 * n log n for any piece, of any length. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer.h"

typedef struct bpe_rule {
    int32_t left, right, result; /* ids */
} bpe_rule;

/* Zero-initialise; bpe_free releases. Fixed after bpe_build. */
typedef struct bpe {
    bpe_rule *rules; /* owned, by rank */
    uint32_t n_rules, rules_capacity;
    uint64_t *slots; /* owned, open addressing: hash << 32 | rank + 1; 0 is empty */
    uint32_t slot_mask;
    int32_t byte_ids[256]; /* the token of each byte */
} bpe;

/* The next rule in order of rank. */
err bpe_add_rule(bpe *b, bpe_rule rule) MUST_USE;
/* After the last rule: makes the table. Of two rules for one pair the later counts. */
err bpe_build(bpe *b) MUST_USE;
void bpe_free(bpe *b);
size_t bpe_memory(const bpe *b);

/* Working arrays of one caller. Zero-initialise; bpe_scratch_free releases. */
typedef struct bpe_scratch {
    void *memory;    /* owned */
    size_t capacity; /* symbols */
} bpe_scratch;

void bpe_scratch_free(bpe_scratch *s);

/* Appends the ids of piece[0 .. length) to out. Errors: ERR_NOMEM, ERR_RANGE for a single piece of
 * 4 GB and more. */
err bpe_encode(const bpe *b, const char *piece, size_t length, bpe_scratch *s,
               token_list *out) MUST_USE;

#endif
