/* io_fault.c: see io_fault.h. */
#include "io/io_fault.h"

#include <string.h>

/* Counts down an atomic that must not pass below zero; false when it is there already. */
static bool take_one(atomic_int *count) {
    int seen = atomic_load(count);
    while (seen != 0) {
        if (seen < 0) return true;
        if (atomic_compare_exchange_weak(count, &seen, seen - 1)) return true;
    }
    return false;
}

static bool matches(const io_fault_rule *rule, const io_fault_call *call, int64_t result) {
    if (rule->file >= 0 && rule->file != call->file) return false;
    if (rule->drive >= 0 && rule->drive != call->drive) return false;
    if (rule->last < 0) return true;
    int64_t end = call->offset + (result > 0 ? result : 1);
    return call->offset <= rule->last && end > rule->first;
}

int64_t io_fault_apply(io_fault *f, const io_fault_call *call, int64_t result) {
    for (int i = 0; i < f->n_rules; i++) {
        io_fault_rule *rule = &f->rules[i];
        if (!matches(rule, call, result)) continue;
        if (rule->skip && take_one(&rule->skip)) continue;
        if (!take_one(&rule->times)) continue;
        atomic_fetch_add(&f->struck, 1);
        if (rule->kind == IO_FAULT_ERROR) return -rule->value;
        if (result > rule->value) {
            memset(call->dst + rule->value, 0xee, (size_t)(result - rule->value));
            return rule->value;
        }
        return result;
    }
    return result;
}
