/* prefetch.c: see prefetch.h. */
#include "store/prefetch.h"

void prefetch_init(prefetch *p, bool far) {
    *p = (prefetch){.share = 0.6, .allowance = PREFETCH_START, .far = far};
}

int prefetch_hint(prefetch *p) {
    if (p->allowance > 0) {
        p->idle = 0;
        return p->allowance;
    }
    if (++p->idle < PREFETCH_RETRY) return 0;
    p->idle = 0;
    return 1;
}

void prefetch_outcome(prefetch *p, bool came_true) {
    p->share += ((came_true ? 1 : 0) - p->share) / PREFETCH_MEMORY;
    if (++p->seen < (int)PREFETCH_MEMORY / 2) return; /* let a change show before the next one */
    double grow = p->far || p->allowance >= PREFETCH_USUAL ? PREFETCH_SURE : PREFETCH_GROW;
    double shrink = p->far || p->allowance > PREFETCH_USUAL ? PREFETCH_UNSURE : PREFETCH_SHRINK;
    if (p->share >= grow && p->allowance < PREFETCH_MAX) {
        p->allowance++;
        p->seen = 0;
    } else if (p->share < shrink && p->allowance > 0) {
        p->allowance--;
        p->seen = 0;
    }
}
