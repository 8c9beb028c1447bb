/* gpu_bench_soak.h: greedy tokens of a card under random limits against the processor's exact path.
 *
 * Where a token differs by more than a near tie, both are asked again: see gpu_bench_routing.h. A
 * difference passes as a tie of routers only if each of the card's other choices is one between
 * experts that the processor's router finds equally good to float32's last bits, and the card has
 * the processor's token once these choices are the processor's. Everything else fails. Where the
 * card is lost, the processor's exact path goes on: then, too, every token must be right. */
#ifndef FM_GPU_BENCH_SOAK_H
#define FM_GPU_BENCH_SOAK_H

#include <stdbool.h>
#include <stdint.h>

#include "flashmoe.h"

typedef struct soak_settings {
    const char *name, *model, *gpu;
    int tokens;
    uint64_t seed;
    float provoke; /* 0, or a test of this test: see routers_open */
    bool lose;     /* one engine only, whose card is lost at a random token: a kernel is given a bad
                      address, after which the driver refuses everything */
} soak_settings;

/* Prints its line; FM_ERR_CORRUPT when a token differs. */
fm_error soak_run(const soak_settings *s);

#endif
