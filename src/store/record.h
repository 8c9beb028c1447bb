/* record.h: where the parts of an expert lie in a slot, and which reads bring them there.
 *
 *     file    ....[ part 0 ][part 1]..............[ part 2 ]...
 *     runs        [     run 0      ]              [ run 1  ]        parts that touch, read as one
 *     direct   |..[     run 0      ]..|        |..[ run 1  ]..|     covering ranges of IO_ALIGN
 * blocks slot     |..[     run 0      ]..||..[ run 1  ]..|             each at a multiple of
 * IO_ALIGN
 *
 * Every part starts 4-byte aligned in the slot, the first of a run at a multiple of `align`. A run
 * whose place in the file is not so aligned lands as it is and is then moved down by `shift` bytes;
 * parts that differ in the last two bits of their offset are different runs. A buffered read puts
 * the run at its final place at once: the layout of a slot is the same however it was read.
 *
 * Weights off the cache lines cost a fifth to a quarter of the speed at which memory can be
 * multiplied, on lines but off the pages up to a seventh (docs/MEASURED.md, "Where a decoded
 * token's time goes"). So where an expert is read once and stays, align is a page; where experts
 * come and go, moving every one would cost more than it brings.
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "store/expert_store.h"

typedef struct record_run {
    int64_t offset; /* in the file */
    uint32_t bytes;
    int32_t file;
    uint32_t place;  /* in the slot: of the IO_ALIGN block that holds the first byte */
    uint32_t margin; /* bytes from the begin of that block to the first byte, as in the file */
    uint32_t shift;  /* the run belongs at place + margin - shift; less than `align` */
} record_run;

typedef struct record {
    int n_runs;
    size_t bytes;   /* of the slot that it needs, a multiple of IO_ALIGN */
    size_t payload; /* of all runs */
    record_run runs[EXPERT_PARTS_MAX];
    uint32_t part[EXPERT_PARTS_MAX]; /* place of each part in the slot */
} record;

#define RECORD_ALIGN_LEAST 4
#define RECORD_ALIGN_MOST  IO_ALIGN

/* parts [n_parts], checked by record_check; align is a power of 2, LEAST to MOST. Sizes do not
 * depend on it. */
void record_make(const expert_part *parts, int n_parts, uint32_t align, record *out);

typedef struct record_read {
    int64_t offset;
    uint32_t bytes, need;
    uint32_t place; /* in the slot */
} record_read;

/* The piece of a run that starts at `*at` (0 at first), at most `block` bytes (a multiple of
 * IO_ALIGN) long; advances *at. False when the run is complete. */
bool record_next(const record_run *run, bool direct, uint32_t block, uint32_t *at,
                 record_read *out);

/* After all reads of a direct load: puts shifted runs where they belong. */
void record_settle(const record *r, uint8_t *slot);

#endif
