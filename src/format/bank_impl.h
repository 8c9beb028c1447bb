/* bank_impl.h: what bank.c and bank_write.c share; nobody else includes it. */
#ifndef FORMAT_BANK_IMPL_H
#define FORMAT_BANK_IMPL_H

#include <stddef.h>
#include <stdint.h>

#define BANK_MAGIC "FMBANK01"

/* magic, records, record bytes, hashes, its own hash */
static inline size_t bank_trailer_bytes(int records) { return 24 + 8 * (size_t)records + 8; }

void bank_put_u64(uint8_t *out, uint64_t value);
uint64_t bank_get_u64(const uint8_t *bytes);

#endif
