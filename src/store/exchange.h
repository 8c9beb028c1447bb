/* exchange.h: is it worth it that experts change places between a card and memory? Pure.
 *
 * A policy (cache.h) says which expert is likelier to be asked for. That an exchange pays does not
 * follow: it costs up to a tenth of the time of an upload (its way back slows the uploads beside
 * it; docs/MEASURED.md, "Few copies, and exchanges that pay"), and where a model asks for all its
 * experts alike, what was used last is no likelier than anything else. So every exchange that the
 * policy would make is a trial, made or not: for the next EXCHANGE_STEPS steps its two experts'
 * requests are counted. What the first has more of than the second are uploads that are saved.
 * While the mean of past trials is less than an exchange costs, none is made; trials go on, so a
 * change in what is asked for is seen.
 *
 * The second expert of a trial is the worst of the same layer, which an exchange need not take: the
 * worst of all is the same one for long while none is made, and what becomes of it would decide
 * hundreds of trials at once.
 *
 * Cost: all calls O(1), exchange_visit O(1) a trial. One thread. */
#ifndef STORE_EXCHANGE_H
#define STORE_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXCHANGE_STEPS  16    /* a trial's length */
#define EXCHANGE_TRIALS 256   /* at a time */
#define EXCHANGE_MEMORY 1024  /* trials: how far back the mean looks */
#define EXCHANGE_FIRST  32    /* trials before there is a mean: until then exchanges pay */
#define EXCHANGE_COST   0.075 /* uploads */

typedef struct exchange_trial {
    int32_t in, out;
    uint32_t before; /* requests of `in` less those of `out`, modulo 2^32 */
    uint64_t until;  /* visit */
} exchange_trial;

typedef struct exchange {
    int n_layers;
    uint32_t *requests;                     /* [n_keys], borrowed: so far, modulo 2^32 */
    exchange_trial trials[EXCHANGE_TRIALS]; /* a ring */
    int first, n;
    uint64_t visits; /* of layers */
    double gain;     /* uploads a trial, moving average */
    int seen;        /* trials that have ended */
} exchange;

/* Bytes that exchange_init needs, 4-byte aligned. */
size_t exchange_memory(int n_keys);
void exchange_init(exchange *x, int n_layers, int n_keys, void *memory);
/* A layer's requests are about to come. */
void exchange_visit(exchange *x);
/* key is asked for in this visit. */
void exchange_touch(exchange *x, int key);
/* The policy would keep `in` (just asked for), which the card has not; out is the worst expert of
 * its layer that the card has. Begins a trial, if there is room, and says whether to do it. */
bool exchange_pays(exchange *x, int in, int out);

#endif
