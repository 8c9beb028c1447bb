/* store_load.c: from a key without bytes to a slot with all of them: see store_impl.h. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/sum.h"
#include "store/store_impl.h"

static const expert_part *parts_of(const expert_store *s, int key) {
    return s->map.parts + (size_t)key * (size_t)s->map.n_parts;
}

static uint8_t *slot_data(const expert_store *s, const slot *x) {
    return s->base + (size_t)(x - s->slots) * s->slot_bytes;
}

/* Where the expert's bytes lie; of a packed one the whole record, padding and all. */
static void record_of(const expert_store *s, int key, record *out) {
    record_make(parts_of(s, key), s->map.n_parts, s->align, out);
    if (s->map.hashes) out->runs[0].bytes = s->map.record_bytes[key / s->map.n_experts];
}

#define CHECKED_AT_ONCE 64 /* records */

/* ---- slots and queues ---- */

static void queue_put(expert_store *s, slot_queue *q, slot *x) {
    int32_t index = (int32_t)(x - s->slots);
    x->next = -1;
    x->queued = true;
    if (q->tail >= 0)
        s->slots[q->tail].next = index;
    else
        q->head = index;
    q->tail = index;
}

/* Takes x out of q, wherever in it. Guesses are few, and demand is taken from its head. */
static void queue_take(expert_store *s, slot_queue *q, slot *x) {
    int32_t index = (int32_t)(x - s->slots), before = -1;
    for (int32_t i = q->head; i != index; i = s->slots[i].next) before = i;
    if (before < 0)
        q->head = x->next;
    else
        s->slots[before].next = x->next;
    if (q->tail == index) q->tail = before;
    x->next = -1;
    x->queued = false;
}

void store_free(expert_store *s, slot *x) {
    assert(x->pins == 0 && x->reads == 0 && !x->queued);
    if (x->state == SLOT_READY && !s->lent[x->key]) s->n_ready--;
    s->slot_of[x->key] = -1;
    *x = (slot){.key = -1, .next = s->free_head};
    s->free_head = (int32_t)(x - s->slots);
    s->n_free++;
}

slot *store_claim(expert_store *s, int key) {
    if (s->n_free == 0) {
        int worst = cache_worst(&s->cache);
        assert(worst >= 0);
        cache_remove(&s->cache, worst);
        store_free(s, store_slot_at(s, worst));
        s->stats.evictions++;
    }
    slot *x = &s->slots[s->free_head];
    s->free_head = x->next;
    s->n_free--;
    *x = (slot){.key = key, .next = -1, .state = SLOT_LOADING};
    s->n_unpinned_loading++;
    s->slot_of[key] = (int32_t)(x - s->slots);
    return x;
}

void store_demand(expert_store *s, slot *x) {
    bool pending = !x->guess || x->queued;
    if (x->guess) {
        s->demand_reads += x->reads;
        if (x->queued) queue_take(s, &s->guesses, x);
        x->guess = false;
    }
    if (pending) queue_put(s, &s->demand, x);
}

void store_guess(expert_store *s, slot *x) {
    x->guess = true;
    queue_put(s, &s->guesses, x);
}

/* ---- reads ---- */

/* The bytes are not those that were packed. Costs a pass over them: see docs/MEASURED.md,
 * "Checksums". */
static bool is_damaged(const expert_store *s, const slot *x) {
    if (!s->map.hashes || x->failure.error) return false;
    size_t bytes = s->map.record_bytes[x->key / s->map.n_experts];
    return sum_bytes(slot_data(s, x), bytes) != s->map.hashes[x->key];
}

/* Everything of x again; false when that was tried often enough, and x has failed. */
static bool read_again(expert_store *s, slot *x, const record *r) {
    if (x->rereads == STORE_REREADS_MAX) {
        x->failure = (io_read){.error = STORE_BAD_SUM,
                               .error_at = r->runs[0].offset,
                               .file = r->runs[0].file,
                               .tries = x->rereads + 1};
        return false;
    }
    x->rereads++;
    x->run = 0;
    x->run_at = 0;
    queue_put(s, x->guess ? &s->guesses : &s->demand, x);
    return true;
}

void store_complete(expert_store *s, slot *x) {
    record r;
    record_of(s, x->key, &r);
    for (int i = 0; i < s->map.n_parts; i++) x->view.part[i] = slot_data(s, x) + r.part[i];
    x->state = SLOT_READY;
    x->guess = false;
    s->n_ready++;
}

/* All reads of x have ended. */
static void loaded(expert_store *s, slot *x, bool damaged) {
    record r;
    record_of(s, x->key, &r);
    if (damaged && read_again(s, x, &r)) return;
    if (x->pins == 0) s->n_unpinned_loading--;
    if (x->failure.error) {
        x->state = SLOT_FAILED;
        if (x->pins == 0) store_free(s, x);
        return;
    }
    if (s->direct) record_settle(&r, slot_data(s, x));
    store_complete(s, x);
    if (store_may_evict(x)) cache_add(&s->cache, x->key);
}

/* x, where it is one of the arrived, is none any more. */
static void drop_arrived(expert_store *s, const slot *x) {
    int kept = 0;
    for (int i = 0; i < s->n_arrived; i++)
        if (s->arrived[i] != x - s->slots) s->arrived[kept++] = s->arrived[i];
    s->n_arrived = kept;
}

void store_call_off(expert_store *s, slot *x) {
    if (x->state != SLOT_LOADING || !x->guess) return;
    x->failure.error = ECANCELED;
    if (x->queued) queue_take(s, &s->guesses, x);
    if (x->reads > 0) return;
    drop_arrived(s, x);
    loaded(s, x, false);
}

/* With two drives, the one with less to do; a damaged record is taken from one of them alone. */
static int pick_drive(const expert_store *s, const slot *x) {
    if (io_drives(s->io) < 2) return 0;
    if (x->rereads) return (x->rereads - 1) % 2;
    bool other =
        s->on_drive[1] < s->on_drive[0] || (s->on_drive[1] == s->on_drive[0] && s->n_reads % 2);
    return other && io_drive_works(s->io, 1);
}

static void start_piece(expert_store *s, slot *x, const record_run *run, const record_read *piece) {
    io_read *read = s->reads[--s->n_reads];
    *read = (io_read){.dst = slot_data(s, x) + piece->place,
                      .offset = piece->offset,
                      .bytes = piece->bytes,
                      .need = piece->need,
                      .file = run->file,
                      .drive = pick_drive(s, x),
                      .owner = x};
    s->on_drive[read->drive] += read->bytes;
    s->demand_reads += !x->guess;
    x->reads++;
    io_start(s->io, read);
}

/* Starts reads of x while there is room, keeping `spare` reads free; true when all of them are
 * started, or one has failed. */
static bool start_slot(expert_store *s, slot *x, int spare) {
    record r;
    record_of(s, x->key, &r);
    while (x->run < r.n_runs && !x->failure.error) {
        if (s->n_reads <= spare) return false;
        const record_run *run = &r.runs[x->run];
        record_read piece;
        if (record_next(run, s->direct, s->block, &x->run_at, &piece)) {
            start_piece(s, x, run, &piece);
        } else {
            x->run++;
            x->run_at = 0;
        }
    }
    return true;
}

/* True when q is empty in the end. */
static bool start_queue(expert_store *s, slot_queue *q, int spare) {
    while (q->head >= 0) {
        slot *x = &s->slots[q->head];
        if (!start_slot(s, x, spare)) return false;
        queue_take(s, q, x);
        if (x->reads == 0) loaded(s, x, is_damaged(s, x));
    }
    return true;
}

/* Filling: guesses the next expert that has no slot. */
static bool guess_next(expert_store *s) {
    while (s->fill_at < s->n_keys && !store_is_missing(s, s->fill_at)) s->fill_at++;
    if (s->fill_at == s->n_keys || s->n_free == 0) return false;
    store_guess(s, store_claim(s, s->fill_at++));
    return true;
}

void store_start(expert_store *s) {
    if (start_queue(s, &s->demand, 0) && s->demand_reads == 0) {
        bool fills = s->fill_at < s->n_keys;
        int spare = fills ? int_max(0, s->n_reads + io_in_flight(s->io) - STORE_FILL_MAX) : 0;
        while (start_queue(s, &s->guesses, spare) && s->n_reads > spare && guess_next(s)) continue;
    }
    io_flush(s->io);
}

static void finish(expert_store *s, io_read *read) {
    slot *x = read->owner;
    x->reads--;
    s->demand_reads -= !x->guess;
    s->on_drive[read->first_drive] -= read->bytes;
    s->stats.read_bytes += read->error ? 0 : read->need;
    if (read->error && !x->failure.error) x->failure = *read;
    s->reads[s->n_reads++] = read;
    if (x->reads == 0 && !x->queued) s->arrived[s->n_arrived++] = (int32_t)(x - s->slots);
}

/* Takes what has ended off the disk's hands, and gives it its next reads. */
static bool collect(expert_store *s, bool wait) {
    if (s->n_arrived > IO_DEPTH_MAX) return false; /* room for all that may be in flight */
    store_start(s);
    io_read *read = io_next(s->io, wait);
    if (!read) return false;
    for (; read; read = io_next(s->io, false)) finish(s, read);
    store_start(s);
    return true;
}

void store_collect(expert_store *s) { collect(s, false); }

typedef struct checking {
    const expert_store *s;
    bool damaged[CHECKED_AT_ONCE]; /* of the first arrived */
} checking;

static void check_one(void *ctx, int task, int worker) {
    (void)worker;
    checking *k = ctx;
    k->damaged[task] = is_damaged(k->s, &k->s->slots[k->s->arrived[task]]);
}

/* Checksums are taken by all threads, a record for each, and the disk looked after in between: it
 * must not stand still for them. */
static bool take_arrived(expert_store *s) {
    bool any = s->n_arrived > 0;
    int at_once = s->pool ? int_min(pool_threads(s->pool), CHECKED_AT_ONCE) : 1;
    while (s->n_arrived > 0) {
        collect(s, false);
        checking k = {.s = s};
        int n = int_min(s->n_arrived, at_once);
        if (n > 1 && s->map.hashes)
            pool_run(s->pool, check_one, &k, n);
        else
            for (int i = 0; i < n; i++) check_one(&k, i, 0);
        int32_t checked[CHECKED_AT_ONCE];
        memcpy(checked, s->arrived, (size_t)n * sizeof *checked);
        s->n_arrived -= n;
        memmove(s->arrived, s->arrived + n, (size_t)s->n_arrived * sizeof *s->arrived);
        for (int i = 0; i < n; i++) loaded(s, &s->slots[checked[i]], k.damaged[i]);
    }
    return any;
}

bool store_pump(expert_store *s, bool wait) {
    bool any = collect(s, wait && s->n_arrived == 0);
    any = take_arrived(s) || any;
    store_start(s);
    return any;
}
