/* expert_store.h: which experts are in memory, and how the others get there.
 *
 *     model --request(layer, ids)--> [ slots: arena of whole records ] <--reads-- io (files of the
 * checkpoint)
 *           --wait(layer, id)------> pinned view of one record
 *
 * An expert's record is a list of parts (extents in the checkpoint's files); in a slot every part
 * starts 4-byte aligned at view.part[i]. The store knows nothing of what the bytes mean; where it
 * is given checksums, it compares every record that it has read with its own.
 *
 * Invariants: an expert is in at most one slot; a pinned or loading slot is never evicted; a failed
 * read (or one with the wrong checksum) is retried, then fails the wait that needs it, with file
 * and offset, and the slot is free again: an expert is never dropped or half read. What is evicted
 * never changes results, only speed. All calls come from the engine thread; readers are internal.
 */
#ifndef STORE_EXPERT_STORE_H
#define STORE_EXPERT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budget.h"
#include "base/err.h"
#include "base/pool.h"
#include "io/io.h"

#define EXPERT_PARTS_MAX 9

typedef struct expert_part {
    int64_t offset; /* in the file */
    uint32_t bytes;
    int32_t file; /* index into paths */
} expert_part;

/* Where every expert is. Borrowed by the store until close. */
typedef struct expert_map {
    int n_layers, n_experts, n_parts; /* n_layers counts the layers that have experts */
    int n_files;
    const char *const *paths;
    const expert_part *parts; /* [n_layers][n_experts][n_parts] */
    const int *layer_numbers; /* [n_layers], for messages; NULL: 0, 1, 2, ... */
    /* Packed models: a record is [record_bytes] from its first part on, a multiple of IO_ALIGN as
     * its place in the file is, and this is its XXH3. Both NULL: nothing is compared. */
    const uint32_t *record_bytes; /* [n_layers] */
    const uint64_t *hashes;       /* [n_layers][n_experts] */
} expert_map;

typedef struct expert_view {
    const uint8_t *part[EXPERT_PARTS_MAX]; /* fixed until release */
} expert_view;

typedef struct expert_store_options {
    size_t cache_bytes; /* arena for slots, at least expert_store_floor(); taken from the budget's
                           cache part */
    budget *budget;     /* borrowed */
    pool *pool;         /* takes checksums beside the engine thread, whose pool it is; NULL: the
                           engine thread alone. Borrowed */
    int io_threads;     /* 0: a good default */
    io_backend backend; /* IO_AUTO: buffered when all experts fit and the page cache has them, else
                           the faster direct */
    int io_depth;       /* reads in flight at most; 0: a good default */
    const char *io_state; /* JSON file that remembers which engine is faster (io_bench.h); NULL:
                             nothing is measured or remembered */
    uint32_t io_block;    /* longer extents are read in pieces of this size; 0: a good default */
    const char *const
        *mirrors;           /* NULL, or map.paths again on a second drive: reads are split over
                               both; a mirror that fails while reading is done without. Borrowed */
    struct io_fault *fault; /* tests only, borrowed until close */
} expert_store_options;

typedef struct expert_store_stats {             /* since open or the last reset */
    uint64_t requests, hits, misses, evictions; /* hits: in memory or on the way */
    uint64_t read_bytes;                        /* payload */
    uint64_t wait_ns;                           /* the engine thread stood still for a read */
    uint64_t prefetch_issued; /* hinted experts that were read, or began to be, and whose layer has
                                 been asked since: used (they are among the hits too) or wasted */
    uint64_t prefetch_used, prefetch_wasted;
} expert_store_stats;

typedef struct expert_store expert_store;

/* Bytes of one slot (with the padding that aligned reads need), and the least cache_bytes that
 * works for requests of n experts at once. */
size_t expert_store_slot_bytes(const expert_map *map);
size_t expert_store_floor(const expert_map *map, int n);

err expert_store_open(const expert_map *map, const expert_store_options *options,
                      expert_store **out) MUST_USE;
void expert_store_close(expert_store *s);
int expert_store_slots(const expert_store *s);
/* Where the slots lie: all of them, one after the other, from the begin of a page. For devices that
 * read them in place; the bytes are the store's. */
void expert_store_memory(const expert_store *s, uint8_t **base, size_t *bytes, size_t *slot_bytes);
/* How the files are read. */
io_backend expert_store_backend(const expert_store *s);

/* Pins each of ids (distinct, n <= slots not otherwise pinned) and starts reading those that are
 * not resident, in this order. n more than what can be pinned is ERR_BUDGET with nothing changed.
 * Does not block on reads. */
err expert_store_request(expert_store *s, int layer, const int *ids, int n) MUST_USE;
/* True when wait would not block (resident, or its read has failed). */
bool expert_store_ready(expert_store *s, int layer, int id);
/* Blocks until a requested expert is in memory. ERR_IO / ERR_CORRUPT naming layer, expert, file,
 * offset; the pin is then already gone. */
err expert_store_wait(expert_store *s, int layer, int id, expert_view *out) MUST_USE;
/* Ends the pin of a request (whether or not it was waited for). */
void expert_store_release(expert_store *s, int layer, int id);
/* A new token begins: the clock of the eviction policy. */
void expert_store_tick(expert_store *s);

/* Look-ahead: these experts (the likeliest first) may be asked for in the next request of this
 * layer. The first few that are not in memory are read while the disk has nothing else to do, into
 * free slots or those of experts that were not used lately, as long as most such guesses come true
 * (prefetch.h). Never fails, never blocks, and changes no result; what it costs is counted apart.
 */
void expert_store_hint(expert_store *s, int layer, const int *ids, int n);

/* The same for the layer after the next, as long as nearly all guesses come true, and only while
 * the disk has less than a few guesses before it: so it has the next reads at hand when a layer
 * misses little. far_wanted: whether that is so, and naming experts is worth the time. */
bool expert_store_far_wanted(const expert_store *s);
void expert_store_hint_far(expert_store *s, int layer, const int *ids, int n);

/* The same for a long prompt, whose rows together ask for most experts of a layer: those of the
 * next one are read in order while the disk has nothing else to do. At most STORE_SWEEP_MAX of them
 * and an eighth of the slots; neither counted as guesses nor governed. */
#define STORE_SWEEP_MAX 48
void expert_store_sweep(expert_store *s, int layer);

/* Between two pieces of arithmetic: if reads wait for their turn, starts them once those before
 * them have ended. Takes no checksums; costs next to nothing where there is nothing to do. */
void expert_store_tend(expert_store *s);

/* Reads all experts, in order, while the disk has nothing else to do: where every one has a slot,
 * else no effect. Goes on inside every call of the store. */
void expert_store_fill(expert_store *s);
/* Every expert is in memory: nothing will be read any more. */
bool expert_store_resident(const expert_store *s);
/* For when the engine has nothing to do: lets hints and filling go on for so long; true when
 * nothing is left to read. */
bool expert_store_idle(expert_store *s, int milliseconds);

/* ---- below a faster memory (a card's) that holds experts instead of this one ---- */

/* These experts of the layer (n may be 0) are used there now: the eviction policy's history,
 * nothing else. */
void expert_store_note(expert_store *s, int layer, const int *ids, int n);
/* If the expert is in memory and complete: pins it, as a request does, but counts as none. */
bool expert_store_borrow(expert_store *s, int layer, int id, expert_view *out);
/* The faster memory has this pinned expert now: with its last release the slot is free, and until
 * take_back the expert is neither read ahead nor asked for. */
void expert_store_lend(expert_store *s, int layer, int id);
/* A lent expert comes back. True: it has a slot, and part [n_parts] is where the caller writes its
 * bytes (of any thread or device) before expert_store_returned, and before anybody asks for it.
 * False: no slot for it, because those that have one are worth more; it is read when it is asked
 * for. part may be NULL: the bytes are gone, no slot. */
bool expert_store_take_back(expert_store *s, int layer, int id, uint8_t **part);
/* The bytes are complete, or (false) never will be. */
void expert_store_returned(expert_store *s, int layer, int id, bool complete);

void expert_store_stats_get(expert_store *s, expert_store_stats *out);
void expert_store_stats_reset(expert_store *s);

/* For tests: the sentence of the first invariant of expert_store.c that does not hold, or NULL.
 * Cost O(everything). */
const char *expert_store_check(const expert_store *s);

#endif
