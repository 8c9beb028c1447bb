/* budget.h: the one memory ceiling of an engine, and the arenas cut from it.
 *
 *     limit  |-- trunk --|-- KV --|-- state --|-- scratch --|-- other --|------- expert cache
 * -------|
 *
 * Everything large that the engine holds is an arena charged to a part of the budget before it is
 * mapped, so the sum cannot pass the ceiling whatever happens later. Parts exist to be reported
 * (`flashchat plan`, the error of a too small
 * --memory). Arenas are zeroed anonymous mappings: pages cost memory when first touched, the charge
 * is their full size. Owner thread only. */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum budget_part {
    BUDGET_TRUNK,   /* resident weights */
    BUDGET_KV,      /* attention cache */
    BUDGET_STATE,   /* recurrent state and conv rows */
    BUDGET_SCRATCH, /* activations of one step */
    BUDGET_OTHER,   /* tokenizer, tables, I/O buffers */
    BUDGET_CACHE,   /* expert slots: what is left */
    BUDGET_PARTS
} budget_part;

typedef struct budget {
    size_t limit; /* bytes; fixed after open */
    size_t used[BUDGET_PARTS];
} budget;

const char *budget_part_name(budget_part part);
size_t budget_used(const budget *b);
size_t budget_left(const budget *b);

/* Charge bytes, or ERR_BUDGET naming the part, what is asked, what is left and what each part
 * holds. */
err budget_take(budget *b, budget_part part, size_t bytes) MUST_USE;
void budget_give(budget *b, budget_part part, size_t bytes);

/* A region charged to one part, handed out front to back, freed as a whole. */
typedef struct arena {
    uint8_t *base; /* owned; NULL when closed */
    size_t size, used;
    budget *budget; /* borrowed until close */
    budget_part part;
    size_t charged; /* size, or what arena_charge added up to */
    bool frozen;    /* arena_alloc after arena_freeze is a bug of ours: it asserts */
} arena;

/* Maps at least size bytes, zeroed and page aligned. huge asks for 2 MiB pages (a wish: falls back
 * silently). On error *a is zero and the budget is as before. */
err arena_open(arena *a, budget *b, budget_part part, size_t size, bool huge) MUST_USE;
/* The same, but charges nothing yet: for a region of which parts are in memory and others not
 * (os_discard). arena_charge takes bytes of the budget for it, arena_uncharge gives some back. */
err arena_reserve(arena *a, budget *b, budget_part part, size_t size, bool huge) MUST_USE;
err arena_charge(arena *a, size_t bytes) MUST_USE;
void arena_uncharge(arena *a, size_t bytes);
/* align is a power of two up to 4096. Returns NULL when the arena is full: callers size arenas
 * exactly, so treat that as a bug (assert) unless the size came from outside. */
void *arena_alloc(arena *a, size_t bytes, size_t align);
void arena_freeze(arena *a);
void arena_close(arena *a);

#endif
