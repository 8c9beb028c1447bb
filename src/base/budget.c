/* budget.c: see budget.h. */
#include "base/budget.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"

#define HUGE_PAGE ((size_t)2 << 20)

const char *budget_part_name(budget_part part) {
    static const char *const names[BUDGET_PARTS] = {"trunk",   "KV cache", "recurrent state",
                                                    "scratch", "other",    "expert cache"};
    return names[part];
}

size_t budget_used(const budget *b) {
    size_t sum = 0;
    for (int i = 0; i < BUDGET_PARTS; i++) sum += b->used[i];
    return sum;
}

size_t budget_left(const budget *b) {
    size_t used = budget_used(b);
    return used < b->limit ? b->limit - used : 0;
}

err budget_take(budget *b, budget_part part, size_t bytes) {
    if (bytes <= budget_left(b)) {
        b->used[part] += bytes;
        return err_none();
    }
    char held[256];
    int n = 0;
    for (int i = 0; i < BUDGET_PARTS; i++) {
        n += snprintf(held + n, sizeof held - (size_t)n, "%s%s %.1f MiB", i ? ", " : "",
                      budget_part_name((budget_part)i), (double)b->used[i] / 1048576.0);
    }
    return err_make(ERR_BUDGET,
                    "memory limit %.1f MiB is too small: the %s needs %.1f MiB more, %.1f MiB is "
                    "left (held: %s)",
                    (double)b->limit / 1048576.0, budget_part_name(part), (double)bytes / 1048576.0,
                    (double)budget_left(b) / 1048576.0, held);
}

void budget_give(budget *b, budget_part part, size_t bytes) {
    assert(b->used[part] >= bytes);
    b->used[part] -= bytes;
}

err arena_reserve(arena *a, budget *b, budget_part part, size_t size, bool huge) {
    memset(a, 0, sizeof *a);
    size_t bytes = 0;
    if (!size_add(size, huge ? HUGE_PAGE : 4096, &bytes))
        return err_make(ERR_BUDGET, "a %s of %zu bytes", budget_part_name(part), size);
    bytes = round_up(size ? size : 1, huge ? HUGE_PAGE : 4096);
    void *base = NULL;
    TRY(os_map(bytes, huge, &base));
    *a = (arena){.base = base, .size = bytes, .budget = b, .part = part};
    return err_none();
}

err arena_charge(arena *a, size_t bytes) {
    TRY(budget_take(a->budget, a->part, bytes));
    a->charged += bytes;
    return err_none();
}

void arena_uncharge(arena *a, size_t bytes) {
    assert(a->charged >= bytes);
    budget_give(a->budget, a->part, bytes);
    a->charged -= bytes;
}

err arena_open(arena *a, budget *b, budget_part part, size_t size, bool huge) {
    TRY(arena_reserve(a, b, part, size, huge));
    err e = arena_charge(a, a->size);
    if (e.code) arena_close(a);
    return e;
}

void *arena_alloc(arena *a, size_t bytes, size_t align) {
    assert(!a->frozen);
    size_t start = round_up(a->used, align);
    if (start > a->size || bytes > a->size - start) return NULL;
    a->used = start + bytes;
    return a->base + start;
}

void arena_freeze(arena *a) { a->frozen = true; }

void arena_close(arena *a) {
    if (!a->base) return;
    os_unmap(a->base, a->size);
    budget_give(a->budget, a->part, a->charged);
    memset(a, 0, sizeof *a);
}
