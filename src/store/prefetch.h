/* prefetch.h: how many experts may be read on a guess. Pure.
 *
 * A guess (the next layer's router on this layer's state) names experts that may be asked for.
 * Reading the first few of them on an idle disk wins a read's time when the guess is right; when it
 * is wrong the read was for nothing, and may delay one that is needed. So the governor follows the
 * share of guesses that came true: `allowance` grows to PREFETCH_USUAL while most do and beyond it
 * while nearly all do, falls to 0 when too few do, and is then tried again with one read from time
 * to time. A far guess is for the layer after the next: it must be nearly sure always. */
#ifndef STORE_PREFETCH_H
#define STORE_PREFETCH_H

#include <stdbool.h>

#define PREFETCH_MAX    8 /* of one hint */
#define PREFETCH_USUAL  4 /* more is a loss by published measurements, but for sure guesses */
#define PREFETCH_START  2
#define PREFETCH_MEMORY 16.0 /* guesses: how far back the share looks */
#define PREFETCH_GROW   0.7  /* share of true guesses from which one more is allowed */
#define PREFETCH_SHRINK 0.45 /* and below which one less is */
#define PREFETCH_SURE   0.9  /* in GROW's place beyond USUAL and for far guesses */
#define PREFETCH_UNSURE 0.8  /* in SHRINK's */
#define PREFETCH_RETRY  64   /* hints without a read before one is tried again */
#define PREFETCH_SWEEP  4 /* choices for each expert: 98 % of them are wanted when all are alike */

typedef struct prefetch {
    double share;  /* of guesses that came true, moving average */
    int allowance; /* reads that one hint may start, 0 to PREFETCH_MAX */
    int seen;      /* guesses since the allowance last changed */
    int idle;      /* hints since a read was last allowed */
    bool far;      /* fixed after init */
} prefetch;

void prefetch_init(prefetch *p, bool far);
/* A hint has come: how many reads it may start. */
int prefetch_hint(prefetch *p);
/* A guess that was read came true, or did not. */
void prefetch_outcome(prefetch *p, bool came_true);
/* So many choices want nearly all of the layer's experts: nothing to guess. */
static inline bool prefetch_sweeps(int choices, int experts) {
    return choices >= PREFETCH_SWEEP * experts;
}

#endif
