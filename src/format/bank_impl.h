/* bank_impl.h: what the bank*.c files share; nobody else includes it. */
#ifndef FORMAT_BANK_IMPL_H
#define FORMAT_BANK_IMPL_H

#include "format/bank.h"

#define BANK_MAGIC "FMBANK01"

/* What manifest.json says, checked. */
typedef struct bank_layer {
    int number, records;
    int64_t record_bytes;
} bank_layer;

typedef struct bank {
    char manifest[BANK_PATH_MAX]; /* for messages */
    json_t *root;                 /* owned */
    bank_layer *layers;           /* owned */
    int n_layers;
    char **paths; /* owned: [0] the trunk, then the layers */
} bank;

/* bank.c; bank_close in any case. */
err bank_read_manifest(bank *b, const char *dir) MUST_USE;
err bank_build_set(const bank *b, st_set **out) MUST_USE;
void bank_close(bank *b);

/* magic, records, record bytes, hashes, its own hash */
static inline size_t bank_trailer_bytes(int records) { return 24 + 8 * (size_t)records + 8; }

void bank_put_u64(uint8_t *out, uint64_t value);
uint64_t bank_get_u64(const uint8_t *bytes);

#endif
