/* sum.h: the checksum of packed models: XXH3, 64 bits, of bytes in memory.
 *
 * The same values as the library's XXH3_64bits, compiled into this program: from memory 25 GB/s and
 * more where the call into the library gives 13 to 15 (docs/MEASURED.md, "Checksums"). */
#ifndef BASE_SUM_H
#define BASE_SUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t sum_bytes(const void *bytes, size_t n);

#endif
