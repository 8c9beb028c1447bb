/* step_bytes.c: n tokens that choose k of E experts each want E (1 - (1 - k / E)^n) different ones
 * of a layer on average; everything else is counted by the plan. */
#include "step_bytes.h"

#include <math.h>

step_bytes step_bytes_of(const fm_plan *p, step_shape s) {
    double all = p->experts ? p->experts : 1;
    double distinct = all * (1 - pow(1 - p->experts_per_token / all, s.streams));
    double position = (double)(p->kv + p->vram_kv) / p->context / s.sessions;
    return (step_bytes){.trunk = (double)p->trunk_bytes_token,
                        .experts = distinct * p->sparse_layers * (double)p->expert_bytes,
                        .states =
                            s.streams * ((double)p->state_bytes_token + position * s.positions)};
}
