/* store_impl.h: the inside of the expert store; only the files of this folder include it.
 *
 *     slot_of [n_keys]   key = layer * n_experts + expert -> slot, or -1
 *     slots [n_slots]    FREE -> LOADING -> READY -> FREE
 *                                   \-----> FAILED -/
 *     cache              the READY slots that may be evicted, worst first (cache.h)
 *     demand             LOADING slots that somebody asked for, whose reads are not all started
 *     guesses            LOADING slots that nobody asked for yet (hints, filling), the same
 *
 * store_open.c opens and closes, store_load.c reads, expert_store.c answers requests.
 *
 * Everything but the reading itself happens on the engine thread, inside its calls: finished reads
 * are collected and waiting ones started whenever the store is called (store_pump), and io.h keeps
 * up to `depth` reads going in between. So there is no lock here, and nothing is allocated after
 * open: slots, tables and reads lie in one arena, slots first.
 *
 * Numbered invariants, checked by expert_store_check in tests:
 *   1 a key has at most one slot, and slot_of and slots agree
 *   2 a slot is in the cache's heap exactly when it is READY, has no pin and is not kept
 *     for an open guess
 *   3 a slot is in the free list exactly when it is FREE
 *   4 FAILED slots have pins; the last one to go frees the slot
 *   5 a slot whose reads were called off (ECANCELED) has no pin
 *   6 a lent expert has no slot, or one with a pin, which goes with it */
#ifndef STORE_STORE_IMPL_H
#define STORE_STORE_IMPL_H

#include "store/cache.h"
#include "store/expert_store.h"
#include "store/prefetch.h"
#include "store/record.h"

#define STORE_PART_MAX  (256u << 20) /* bytes: nine of them stay below 4 GiB */
#define STORE_GUESS_MAX 16           /* hinted experts whose fate is open */
#define STORE_FAR_BELOW 6            /* guesses on their way, from which no far one joins them */
#define STORE_REREADS_MAX                                                                          \
    2                       /* of a record with the wrong checksum; the last one from the mirror   \
                             */
#define STORE_BAD_SUM  (-2) /* io_read.error: beside IO_ENDED, no errno value */
#define STORE_FILL_MAX 8    /* reads in flight for filling: what a demand may wait behind */

typedef enum slot_state { SLOT_FREE, SLOT_LOADING, SLOT_READY, SLOT_FAILED } slot_state;

typedef struct slot {
    int32_t key;  /* -1 when FREE */
    int32_t pins; /* requests not yet released */
    int32_t next; /* in the free list or in a queue, -1 at the end */
    slot_state state;
    bool queued;      /* in demand or guesses: not all reads are started */
    bool guess;       /* nobody has asked for it yet */
    bool kept;        /* an open guess: evicted, it would have been read for nothing */
    int32_t reads;    /* in flight */
    int32_t rereads;  /* of the whole record, because its checksum was wrong */
    int32_t run;      /* next piece to start */
    uint32_t run_at;  /* within that run */
    io_read failure;  /* the first read that failed; .error 0 when none did */
    expert_view view; /* when READY */
} slot;

typedef struct open_guess {
    int32_t key;
    bool far; /* of the layer after the next when it was made */
} open_guess;

typedef struct slot_queue {
    int32_t head, tail; /* -1 when empty */
} slot_queue;

struct expert_store {
    /* fixed after open */
    expert_map map; /* its arrays are borrowed */
    arena memory;   /* owned */
    io *io;         /* owned */
    bool direct;
    uint32_t block;
    pool *pool; /* borrowed; may be NULL */
    int n_slots, n_keys;
    size_t slot_bytes;
    uint32_t align; /* of an expert in its slot: see record.h */
    uint8_t *base;  /* of slot 0 */
    /* engine thread only */
    slot *slots;      /* [n_slots] */
    int32_t *slot_of; /* [n_keys] */
    uint8_t *lent;    /* [n_keys] 1: a faster memory has it */
    int n_lent;
    io_read **reads;   /* [depth], those not in use come first */
    int n_reads;       /* not in use */
    int32_t free_head; /* free slots */
    int n_free, n_ready;
    int n_unpinned_loading;          /* will be evictable or free when their reads end */
    int demand_reads;                /* in flight for slots that somebody asked for */
    int64_t on_drive[IO_DRIVES_MAX]; /* bytes in flight */
    slot_queue demand, guesses;
    cache cache;
    prefetch near, far; /* governors of guesses for the next layer and the one after it */
    open_guess open_guesses[STORE_GUESS_MAX];
    int n_open_guesses;
    int32_t arrived[2 * IO_DEPTH_MAX]; /* slots: LOADING, complete, not checked yet */
    int n_arrived;
    int fill_at; /* next key to look at when filling; n_keys when nothing is to be filled */
    expert_store_stats stats;
};

static inline size_t store_key_count(const expert_map *map) {
    return (size_t)map->n_layers * (size_t)map->n_experts;
}

static inline slot *store_slot_at(const expert_store *s, int key) {
    return s->slot_of[key] < 0 ? NULL : &s->slots[s->slot_of[key]];
}

/* Neither in a slot nor in a faster memory. */
static inline bool store_is_missing(const expert_store *s, int key) {
    return s->slot_of[key] < 0 && !s->lent[key];
}

static inline int store_layer_number(const expert_map *map, int layer) {
    return map->layer_numbers ? map->layer_numbers[layer] : layer;
}

/* A slot for key, LOADING, without pins and in no queue; evicts the worst where none is free. One
 * must be free or evictable. */
slot *store_claim(expert_store *s, int key);
/* The slot has all bytes of its expert. */
void store_complete(expert_store *s, slot *x);
/* Back to FREE; no pins, no reads. */
void store_free(expert_store *s, slot *x);
/* Somebody asks for a slot from store_claim, or for one that was a guess: its reads go first. */
void store_demand(expert_store *s, slot *x);
/* Its reads go when the disk has nothing else to do. */
void store_guess(expert_store *s, slot *x);
/* A guess that is not wanted any more: reads not started are not. */
void store_call_off(expert_store *s, slot *x);

/* Whether it belongs into the cache's heap: invariant 2. */
static inline bool store_may_evict(const slot *x) {
    return x->state == SLOT_READY && x->pins == 0 && !x->kept;
}

static inline bool store_is_called_off(const slot *x) {
    return x->state == SLOT_LOADING && x->guess && x->failure.error != 0;
}

/* Collects what has ended, checks it, and starts what waits. With wait, blocks until at least one
 * read ends or a slot is checked; false when there is none. */
bool store_pump(expert_store *s, bool wait);
/* Only collects and starts: where reads are worth more than checksums now. */
void store_collect(expert_store *s);
/* Only starts what waits. */
void store_start(expert_store *s);

#endif
