/* gpu_bench_routing.h: the processor's routers beside a card's, token by token.
 *
 *     exact path --hook--> p [position, layer, expert]
 *                                 |
 *     card's own choice --force---+--> other experts? how far apart are they for the processor?
 *                                 '--> the processor's choice in its place
 *
 * With the processor's choices in force, the states of both stay equal up to rounding, so that
 * each other choice stands for itself: none is another one's consequence. */
#ifndef FM_GPU_BENCH_ROUTING_H
#define FM_GPU_BENCH_ROUTING_H

#include "engine/engine_impl.h"

/* Logits of a router nearer than this are a tie. Rounding moves differences of ember's logits by
 * 3.4e-7 on average, at most 2.7e-6, on an H100 by 1.3e-6 and 1.2e-5 (docs/MEASURED.md, "Soak with
 * other seeds"). */
#define ROUTER_TIE 1e-5

typedef struct router_other {
    int position, layer, lost, gained; /* experts: the processor's, the card's */
    double gap;                        /* between their logits, on the processor */
} router_other;

typedef struct router_report {
    int others; /* choices of another set of experts */
    router_other first, widest;
    double off_max, off_sum; /* differences of logits that are off by rounding, of n_off */
    int64_t n_off;
} router_report;

typedef struct routers routers;

/* Listens to the exact engine for at most so many positions. provoke > 0: the card takes the
 * (k+1)-th expert for the k-th where their logits are nearer than that. */
fm_error routers_open(fm_engine *exact, int positions, double provoke, routers **out);
void routers_close(routers *r); /* before the engine's close */

/* The next token of the exact engine, or of the card, is a conversation's first. */
void routers_begin_exact(routers *r);
void routers_begin_card(routers *r);

/* From now on the card has its own choices; or the processor's, while its own are counted. The
 * exact engine must be ahead of a card that is looked at. */
fm_error routers_free(routers *r, fm_engine *card);
fm_error routers_force(routers *r, fm_engine *card);
const router_report *routers_report(const routers *r); /* since routers_force */

#endif
