/* bank_sums.h: whole files against the checksums of what lies in them: read once, past the page
 * cache where that works, several pieces at once, and summed by all threads meanwhile. */
#ifndef FORMAT_BANK_SUMS_H
#define FORMAT_BANK_SUMS_H

#include "format/bank.h"

/* Bytes of a file with a checksum: a record (name NULL, number `record`) or a tensor. */
typedef struct bank_sum {
    int64_t offset, bytes;
    uint64_t hash;
    const char *name; /* borrowed */
    int record;
    /* bank_sums.c's */
    int state;
    bool bad;
} bank_sum;

typedef struct bank_sums {
    const char *const *paths; /* in the order in which they are read */
    int n_files;
    /* What lies in a file: *list [*n] allocated with malloc, in any order, nothing twice and
     * without overlap (else ERR_CORRUPT). Called when the file's turn to be read comes. */
    err (*list)(void *ctx, int file, bank_sum **list, int *n);
    /* So many bytes more of a file are right; may be NULL. */
    void (*tell)(void *ctx, int file, uint64_t more);
    void *ctx;
} bank_sums;

/* ERR_CORRUPT names the first file, and of it the first record or tensor, that does not fit its
 * checksum or ends too early; what list says otherwise.
 * Cost: one read of everything; 50 MiB of memory; one thread per processor. */
err bank_sums_check(const bank_sums *s) MUST_USE;

#endif
