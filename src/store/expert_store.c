/* expert_store.c: requests, hints and what they count: see expert_store.h and store_impl.h. */
#include "store/expert_store.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "store/store_impl.h"

/* ---- names for messages ---- */

static err within_expert(const expert_store *s, err e, int key) {
    return err_within(e, "layer %d expert %d", store_layer_number(&s->map, key / s->map.n_experts),
                      key % s->map.n_experts);
}

/* ---- requests ---- */

static int key_of(const expert_store *s, int layer, int id) {
    assert(layer >= 0 && layer < s->map.n_layers && id >= 0 && id < s->map.n_experts);
    return layer * s->map.n_experts + id;
}

static void pin(expert_store *s, slot *x) {
    if (x->pins++ > 0) return;
    if (x->state == SLOT_READY) cache_remove(&s->cache, x->key);
    if (x->state == SLOT_LOADING) s->n_unpinned_loading--;
    if (x->guess) store_demand(s, x);
}

static void unpin(expert_store *s, slot *x) {
    assert(x->pins > 0);
    if (--x->pins > 0) return;
    if (x->state == SLOT_LOADING) s->n_unpinned_loading++;
    if (x->state == SLOT_FAILED || s->lent[x->key]) {
        store_free(s, x);
    } else if (store_may_evict(x)) {
        cache_add(&s->cache, x->key);
    }
}

/* Whether every expert of ids that is not there can get a slot now. */
static bool have_room(const expert_store *s, int layer, const int *ids, int n) {
    int missing = 0, kept = 0;
    for (int i = 0; i < n; i++) {
        const slot *x = store_slot_at(s, key_of(s, layer, ids[i]));
        if (!x)
            missing++;
        else if (cache_evictable(&s->cache, x->key))
            kept++;
    }
    return missing <= s->n_free + s->cache.n_heap - kept;
}

/* The slot of an open guess, which may be evicted from now on. */
static void unkeep(expert_store *s, slot *x) {
    if (!x || !x->kept) return;
    x->kept = false;
    if (store_may_evict(x)) cache_add(&s->cache, x->key);
}

static void unkeep_all(expert_store *s) {
    for (int i = 0; i < s->n_open_guesses; i++) unkeep(s, store_slot_at(s, s->open_guesses[i].key));
}

/* Waits until no read that was called off stands where one of ids belongs, and until all of ids can
 * get a slot: reads that nobody waits for any more hold theirs until they end, which is soon. */
static err make_room(expert_store *s, int layer, const int *ids, int n) {
    for (int i = 0; i < n; i++) {
        int key = key_of(s, layer, ids[i]);
        for (slot *x; (x = store_slot_at(s, key)) && store_is_called_off(x);) store_pump(s, true);
    }
    if (!have_room(s, layer, ids, n)) unkeep_all(s);
    while (!have_room(s, layer, ids, n)) {
        bool called_off = s->guesses.head >= 0;
        while (s->guesses.head >= 0) store_call_off(s, &s->slots[s->guesses.head]);
        if (called_off || (s->n_unpinned_loading > 0 && store_pump(s, true))) continue;
        return err_make(ERR_BUDGET,
                        "%d experts at once do not fit into a cache of %d (%d are in use)", n,
                        s->n_slots, s->n_slots - s->n_free - s->cache.n_heap);
    }
    return err_none();
}

/* What became of the guesses for this layer: its experts are pinned now, or were not meant. */
static void settle_guesses(expert_store *s, int layer) {
    int kept = 0;
    for (int i = 0; i < s->n_open_guesses; i++) {
        open_guess guess = s->open_guesses[i];
        slot *x = store_slot_at(s, guess.key);
        if (guess.key / s->map.n_experts != layer) {
            s->open_guesses[kept++] = guess;
            continue;
        }
        unkeep(s, x);
        bool came_true = x && x->pins > 0;
        bool was_read = x && (x->state != SLOT_LOADING || x->run > 0 || x->run_at > 0);
        if (was_read) {
            s->stats.prefetch_issued++;
            s->stats.prefetch_used += came_true;
            s->stats.prefetch_wasted += !came_true;
            prefetch_outcome(guess.far ? &s->far : &s->near, came_true);
        }
        if (x && !came_true) store_call_off(s, x);
    }
    s->n_open_guesses = kept;
}

err expert_store_request(expert_store *s, int layer, const int *ids, int n) {
    store_collect(s);
    TRY(make_room(s, layer, ids, n));
    s->stats.requests += (uint64_t)n;
    cache_request(&s->cache, layer);
    for (int i = 0; i < n; i++) { /* hits first: no miss may evict them */
        int key = key_of(s, layer, ids[i]);
        cache_touch(&s->cache, key);
        slot *x = store_slot_at(s, key);
        if (!x) continue;
        pin(s, x);
        s->stats.hits++;
    }
    settle_guesses(s, layer);
    for (int i = 0; i < n; i++) {
        int key = key_of(s, layer, ids[i]);
        slot *x = store_slot_at(s, key);
        if (x) continue;
        x = store_claim(s, key);
        pin(s, x);
        store_demand(s, x);
        s->stats.misses++;
    }
    /* No checksums yet: the look-ahead comes now, and the disk would wait for its reads meanwhile.
     */
    store_start(s);
    return err_none();
}

/* Reading key on a guess must not cost anything that was asked for lately. */
static bool guess_is_cheap(expert_store *s) {
    if (s->n_free > 0) return true;
    int worst = cache_worst(&s->cache);
    return worst >= 0 && !cache_is_hot(&s->cache, worst);
}

/* Reads the first `most` of ids that are not in memory. */
static void guess_first(expert_store *s, int layer, const int *ids, int n, int most, bool far) {
    for (int i = 0; i < n && most > 0 && s->n_open_guesses < STORE_GUESS_MAX; i++) {
        int key = key_of(s, layer, ids[i]);
        if (!store_is_missing(s, key)) continue;
        if (!guess_is_cheap(s)) break;
        slot *x = store_claim(s, key);
        x->kept = true;
        store_guess(s, x);
        s->open_guesses[s->n_open_guesses++] = (open_guess){.key = key, .far = far};
        most--;
    }
    store_pump(s, false);
}

static bool any_missing(const expert_store *s, int layer, const int *ids, int n) {
    for (int i = 0; i < n; i++)
        if (store_is_missing(s, key_of(s, layer, ids[i]))) return true;
    return false;
}

void expert_store_hint(expert_store *s, int layer, const int *ids, int n) {
    int most = any_missing(s, layer, ids, n) ? prefetch_hint(&s->near) : 0;
    guess_first(s, layer, ids, n, most, false);
}

/* How many more far guesses the disk could do with. */
static int far_room(const expert_store *s) {
    int room = STORE_FAR_BELOW;
    for (int i = 0; i < s->n_open_guesses; i++) {
        const slot *x = store_slot_at(s, s->open_guesses[i].key);
        room -= x && x->guess && (x->queued || x->reads);
    }
    return room;
}

bool expert_store_far_wanted(const expert_store *s) {
    return s->near.share >= PREFETCH_SURE && far_room(s) > 0;
}

void expert_store_hint_far(expert_store *s, int layer, const int *ids, int n) {
    if (!expert_store_far_wanted(s) || !any_missing(s, layer, ids, n)) return;
    guess_first(s, layer, ids, n, int_min(prefetch_hint(&s->far), far_room(s)), true);
}

void expert_store_tend(expert_store *s) {
    if (s->demand.head >= 0 || s->guesses.head >= 0) store_collect(s);
}

/* There is a slot for an expert of this layer that is not taken from the same layer. */
static bool sweep_has_slot(expert_store *s, int layer) {
    if (s->n_free > 0) return true;
    int worst = cache_worst(&s->cache);
    return worst >= 0 && worst / s->map.n_experts != layer;
}

void expert_store_sweep(expert_store *s, int layer) {
    int left = int_min(STORE_SWEEP_MAX, s->n_slots / 8);
    for (int id = 0; id < s->map.n_experts && left > 0 && sweep_has_slot(s, layer); id++) {
        int key = key_of(s, layer, id);
        if (!store_is_missing(s, key)) continue;
        store_guess(s, store_claim(s, key));
        left--;
    }
    store_pump(s, false);
}

void expert_store_fill(expert_store *s) {
    if (s->n_slots < s->n_keys - s->n_lent) return;
    s->fill_at = 0;
    store_pump(s, false);
}

bool expert_store_resident(const expert_store *s) { return s->n_ready + s->n_lent == s->n_keys; }

bool expert_store_idle(expert_store *s, int milliseconds) {
    uint64_t until = os_now_ns() + (uint64_t)milliseconds * 1000000u;
    while (store_pump(s, true))
        if (os_now_ns() >= until) return false;
    return true;
}

bool expert_store_ready(expert_store *s, int layer, int id) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    assert(x && x->pins > 0);
    if (x->state == SLOT_LOADING) store_pump(s, false);
    return x->state != SLOT_LOADING;
}

static err failure_of(const expert_store *s, const io_read *read) {
    if (read->error != STORE_BAD_SUM) return io_read_error(s->io, read);
    return err_make(ERR_CORRUPT,
                    "%s at offset %lld: the bytes do not fit their checksum, read %d times",
                    io_file_path(s->io, read->file, 0), (long long)read->error_at, read->tries);
}

err expert_store_wait(expert_store *s, int layer, int id, expert_view *out) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    assert(x && x->pins > 0);
    memset(out, 0, sizeof *out);
    if (x->state == SLOT_LOADING) {
        uint64_t begin = os_now_ns();
        while (x->state == SLOT_LOADING && store_pump(s, true)) continue;
        s->stats.wait_ns += os_now_ns() - begin;
    }
    assert(x->state != SLOT_LOADING);
    if (x->state == SLOT_FAILED) {
        err e = within_expert(s, failure_of(s, &x->failure), x->key);
        unpin(s, x);
        return e;
    }
    *out = x->view;
    return err_none();
}

void expert_store_release(expert_store *s, int layer, int id) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    assert(x);
    unpin(s, x);
    if (s->guesses.head >= 0 || s->fill_at < s->n_keys) store_pump(s, false);
}

void expert_store_tick(expert_store *s) {
    cache_tick(&s->cache);
    store_pump(s, false);
}

void expert_store_stats_get(expert_store *s, expert_store_stats *out) { *out = s->stats; }

void expert_store_stats_reset(expert_store *s) { s->stats = (expert_store_stats){0}; }

/* ---- below a faster memory ---- */

void expert_store_note(expert_store *s, int layer, const int *ids, int n) {
    cache_request(&s->cache, layer);
    for (int i = 0; i < n; i++) cache_touch(&s->cache, key_of(s, layer, ids[i]));
}

bool expert_store_borrow(expert_store *s, int layer, int id, expert_view *out) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    memset(out, 0, sizeof *out);
    if (!x || x->state != SLOT_READY || s->lent[x->key]) return false;
    pin(s, x);
    *out = x->view;
    return true;
}

void expert_store_lend(expert_store *s, int layer, int id) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    assert(x && x->pins > 0 && x->state == SLOT_READY && !s->lent[x->key]);
    s->lent[x->key] = 1;
    s->n_lent++;
    s->n_ready--;
}

bool expert_store_take_back(expert_store *s, int layer, int id, uint8_t **part) {
    int key = key_of(s, layer, id);
    assert(s->lent[key] && !store_slot_at(s, key));
    s->lent[key] = 0;
    s->n_lent--;
    int worst = s->n_free ? -1 : cache_worst(&s->cache);
    bool room = s->n_free > 0 || (worst >= 0 && cache_before(&s->cache, worst, key));
    if (!room || !part) return false;
    slot *x = store_claim(s, key);
    pin(s, x);
    store_complete(s, x); /* where the parts lie; its state is what it was */
    for (int i = 0; i < s->map.n_parts; i++) {
        size_t at = (size_t)(x->view.part[i] - s->base);
        part[i] = s->base + at;
    }
    x->state = SLOT_LOADING;
    s->n_ready--;
    return true;
}

void expert_store_returned(expert_store *s, int layer, int id, bool complete) {
    slot *x = store_slot_at(s, key_of(s, layer, id));
    assert(x && x->pins == 1 && x->state == SLOT_LOADING && !x->reads);
    if (complete)
        store_complete(s, x);
    else
        x->state = SLOT_FAILED;
    unpin(s, x);
}

/* ---- invariants ---- */

static bool is_open_guess(const expert_store *s, int32_t key) {
    for (int i = 0; i < s->n_open_guesses; i++)
        if (s->open_guesses[i].key == key) return true;
    return false;
}

static const char *check_slot(const expert_store *s, int32_t index) {
    const slot *x = &s->slots[index];
    if (x->state == SLOT_FREE) return x->key < 0 ? NULL : "a free slot has a key";
    if (x->key < 0 || x->key >= s->n_keys) return "a used slot has no key";
    if (s->slot_of[x->key] != index) return "1: slot_of does not lead back to the slot";
    bool evictable = cache_evictable(&s->cache, x->key);
    if (evictable != store_may_evict(x)) return "2: evictable or not";
    if (x->kept && !is_open_guess(s, x->key)) return "2: kept, but no open guess";
    if (x->state == SLOT_FAILED && x->pins == 0) return "4: a failed slot that nobody waits for";
    if (store_is_called_off(x) && x->pins) return "5: called off, but somebody waits for it";
    if (x->state != SLOT_LOADING && (x->reads || x->queued)) return "reads of a slot that is done";
    if (x->state != SLOT_LOADING && x->guess) return "a guess that is done";
    return NULL;
}

const char *expert_store_check(const expert_store *s) {
    int used = 0, n_free = 0, known = 0, n_heap = 0, loading = 0, ready = 0, demand = 0;
    for (int32_t i = 0; i < s->n_slots; i++) {
        const char *wrong = check_slot(s, i);
        if (wrong) return wrong;
        used += s->slots[i].state != SLOT_FREE;
        loading += s->slots[i].state == SLOT_LOADING && s->slots[i].pins == 0;
        ready += s->slots[i].state == SLOT_READY && !s->lent[s->slots[i].key];
        demand += s->slots[i].guess ? 0 : s->slots[i].reads;
        n_heap += store_may_evict(&s->slots[i]);
    }
    int lent = 0;
    for (int i = 0; i < s->n_keys; i++) {
        const slot *x = store_slot_at(s, i);
        known += x != NULL;
        lent += s->lent[i];
        if (s->lent[i] && x && x->pins == 0) return "6: a lent expert keeps its slot";
    }
    if (lent != s->n_lent) return "6: lent experts are miscounted";
    if (known != used) return "1: slot_of knows more or fewer slots than are used";
    if (n_heap != s->cache.n_heap) return "2: the heap is longer or shorter";
    for (int32_t i = s->free_head; i >= 0 && n_free <= s->n_slots; i = s->slots[i].next) n_free++;
    if (n_free != s->n_free || n_free + used != s->n_slots) return "3: the free list";
    if (loading != s->n_unpinned_loading) return "loading slots without a pin are miscounted";
    if (ready != s->n_ready) return "READY slots are miscounted";
    if (demand != s->demand_reads) return "reads on demand are miscounted";
    if (s->n_reads != io_room(s->io)) return "a read is lost";
    return NULL;
}
