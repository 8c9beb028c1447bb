/* exchange.c: see exchange.h. */
#include "store/exchange.h"

#include <string.h>

size_t exchange_memory(int n_keys) { return (size_t)n_keys * sizeof(uint32_t); }

void exchange_init(exchange *x, int n_layers, int n_keys, void *memory) {
    *x = (exchange){.n_layers = n_layers, .requests = memory};
    memset(memory, 0, exchange_memory(n_keys));
}

static uint32_t more(const exchange *x, int in, int out) {
    return x->requests[in] - x->requests[out];
}

static void end_first(exchange *x) {
    const exchange_trial *t = &x->trials[x->first];
    int saved = (int)(more(x, t->in, t->out) - t->before);
    x->seen += x->seen < EXCHANGE_MEMORY;
    x->gain += (saved - x->gain) / x->seen;
    x->first = (x->first + 1) % EXCHANGE_TRIALS;
    x->n--;
}

void exchange_visit(exchange *x) {
    x->visits++;
    while (x->n && x->trials[x->first].until < x->visits) end_first(x);
}

void exchange_touch(exchange *x, int key) { x->requests[key]++; }

bool exchange_pays(exchange *x, int in, int out) {
    uint64_t length = (uint64_t)x->n_layers * EXCHANGE_STEPS;
    if (x->n < EXCHANGE_TRIALS)
        x->trials[(x->first + x->n++) % EXCHANGE_TRIALS] = (exchange_trial){
            .in = in, .out = out, .before = more(x, in, out), .until = x->visits + length};
    return x->seen < EXCHANGE_FIRST || x->gain > EXCHANGE_COST;
}
