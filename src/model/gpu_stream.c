/* gpu_stream.c: a layer's experts on a card of its own memory, when not all of them have a slot
 * there.
 *
 *     host     ids of the router |wait| uploads, launches      -- the only wait of a layer whose
 *     upload   [guess for this layer]   [miss][miss][miss]..[guess for the next]   experts are in
 *     compute  router, next's guess ..  [hits] [guessed] [misses 1-4] .. [last]  combine    memory
 *     download                          [an expert that changes places]
 *
 * Experts in a slot are computed first, then those that came on a guess, the others in groups as
 * they arrive: those in the store's (pinned) memory are uploaded at once, those on disk when their
 * read has ended. Every (row, expert) has its own output, so the groups do not show in the result.
 *
 * The bus is to be busy all the time. So the host tells the card at once what it has for it
 * (gpu_queue_flush), does what needs no ids before they come (prepare) and what nobody waits for
 * (changing places) last.
 *
 * With fm_options.cpu_experts the processor computes some of them meanwhile (gpu_share.c).
 *
 * Waiting for the ids means that everything before this layer is done: pins on the store's slots go
 * then (gpu_tier_settle), so nobody waits for uploads. Only where the pins run out, or the slots of
 * the card within one launch, is there another wait. */
#include <assert.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"

#define PASS_HEAD         16 /* bytes before the gpu_active of a pass */
#define EXPERTS_A_REQUEST 64
#define FEW_ROWS          8 /* up to here a step is tokens of a few streams, not a prompt */
#define GROUP_FEW         4 /* experts a group; the last one, whose work nothing hides, is alone */
#define GROUP_MANY        8

/* gpu_use.group: was in a slot; came there on a guess, or is on its way; 2 and up: uploads. */
#define GROUP_GUESSED 1
#define GROUPS        (UPLOAD_GROUPS + 2)

static int key_of(const gpu_moe_job *j, const gpu_use *u) {
    return j->w->sparse_index * j->o->tier.n_experts + u->id;
}

/* ---- launches ---- */

/* The plan of a group's experts, e->max_active of them. */
static void plan_pass(gpu_moe_job *j, int group, args_experts *e) {
    gpu_ops *o = j->o;
    gpu_tier *t = &o->tier;
    size_t at = o->passes_used;
    int *head = (int *)(void *)(o->passes_host + at), n = 0;
    gpu_active *active = (gpu_active *)(void *)(o->passes_host + at + PASS_HEAD);
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        if (!u->now || u->group != group) continue;
        int slot = t->slot_of[key_of(j, u)];
        active[n++] = (gpu_active){.expert = slot, .first = u->first, .count = u->n};
        t->slots[slot].pending = false;
        t->slots[slot].epoch = t->epoch;
        u->now = false;
        u->done = true;
    }
    *e = (args_experts){0};
    if (!n) return;
    head[0] = n;
    j->n_left -= n;
    o->passes_used = round_up(at + PASS_HEAD + (size_t)n * sizeof(gpu_active), 16);
    assert(o->passes_used <= o->passes_bytes);
    *e = (args_experts){.slots = t->by_slot.addr,
                        .active = o->passes + at + PASS_HEAD,
                        .n_active = o->passes + at,
                        .order = o->passes,
                        .max_active = n};
}

static err follow_guesses(gpu_ops *o) {
    if (!o->guess_open) return err_none();
    o->guess_open = false;
    return gpu_event_follow(o->compute, o->guessed);
}

/* Launches all uses that are marked `now`, group by group. */
static err launch(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    args_experts pass[GROUPS];
    if (j->in_group) TRY(gpu_event_record(o->upload, o->uploaded[j->n_groups++]));
    int n = GROUP_GUESSED + 1 + j->n_groups;
    for (int g = 0; g < n; g++) plan_pass(j, g, &pass[g]);
    TRY(gpu_moe_send(o));
    for (int g = 0; g < n; g++) {
        if (!pass[g].max_active) continue;
        if (g == GROUP_GUESSED) TRY(follow_guesses(o));
        if (g > GROUP_GUESSED)
            TRY(gpu_event_follow(o->compute, o->uploaded[g - GROUP_GUESSED - 1]));
        TRY(gpu_moe_experts(j, &o->tier.layouts[j->w->sparse_index], pass[g]));
    }
    j->n_groups = j->in_group = 0;
    /* For slots that this layer wants again. */
    if (j->n_left) TRY(gpu_event_record(o->compute, o->launched));
    return gpu_queue_flush(o->compute);
}

/* ---- experts that are in no slot ---- */

/* While the ids are on their way: both histories of this layer's experts grow older. */
static void prepare(const gpu_moe_job *j) {
    cache_request(&j->o->tier.cache, j->w->sparse_index);
    exchange_visit(&j->o->tier.exchange);
    expert_store_note(j->o->store, j->w->sparse_index, NULL, 0);
}

/* Marks what is in a slot, for the first launches. */
static void find_hits(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    gpu_tier *t = &o->tier;
    o->stats.requests += (uint64_t)o->n_uses;
    for (int i = 0; i < o->n_uses; i++) {
        gpu_use *u = &o->uses[i];
        int slot = t->slot_of[key_of(j, u)];
        cache_touch(&t->cache, key_of(j, u));
        exchange_touch(&t->exchange, key_of(j, u));
        if (slot < 0) continue;
        cache_remove(&t->cache, key_of(j, u));
        expert_store_note(o->store, j->w->sparse_index, &u->id, 1);
        t->slots[slot].pending = true;
        u->now = true;
        if (o->guess_open && t->slots[slot].state == VRAM_STAGED) u->group = GROUP_GUESSED;
        o->stats.hits++;
    }
}

static err ask(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    int ids[EXPERTS_A_REQUEST], n = 0;
    int room = expert_store_slots(o->store) - j->n_held - gpu_tier_pins(o);
    gpu_use *asked[EXPERTS_A_REQUEST];
    room = int_min(room, EXPERTS_A_REQUEST);
    for (int i = 0; i < o->n_uses && n < room; i++) {
        gpu_use *u = &o->uses[i];
        if (u->done || u->asked || u->now) continue;
        asked[n] = u;
        ids[n++] = u->id;
    }
    if (!n) return err_none();
    TRY(expert_store_request(o->store, j->w->sparse_index, ids, n));
    for (int i = 0; i < n; i++) asked[i]->asked = asked[i]->held = true;
    j->n_held += n;
    return err_none();
}

/* Into a slot; *full when there is none before the next launch. */
static err load(gpu_moe_job *j, gpu_use *u, bool *full) {
    gpu_ops *o = j->o;
    int slot;
    TRY(gpu_tier_claim(o, key_of(j, u), true, &slot));
    *full = slot < 0;
    if (*full) return err_none();
    expert_view view;
    err e = gpu_store_wait(j, u->id, &view);
    u->held = false;
    j->n_held--;
    if (e.code) gpu_tier_unclaim(&o->tier, slot); /* the pin is gone too */
    TRY(e);
    TRY(gpu_tier_upload(o, slot, &view, 0));
    u->now = true;
    u->group = GROUP_GUESSED + 1 + j->n_groups;
    bool few = j->b->rows <= FEW_ROWS;
    bool one_left = few && j->n_held == 1 && j->n_groups + 1 < UPLOAD_GROUPS;
    if (++j->in_group < (few ? GROUP_FEW : GROUP_MANY) && !one_left) return err_none();
    j->in_group = 0;
    return gpu_event_record(o->upload, o->uploaded[j->n_groups++]);
}

/* Starts the uploads of what the store has; with wait, of at least one. */
static err upload_ready(gpu_moe_job *j, bool wait) {
    gpu_ops *o = j->o;
    gpu_use *first = NULL;
    bool full = false, any = false;
    for (int i = 0; i < o->n_uses && !full && j->n_groups < UPLOAD_GROUPS; i++) {
        gpu_use *u = &o->uses[i];
        if (u->done || u->now || u->here || !u->asked) continue;
        if (!first) first = u;
        if (!expert_store_ready(o->store, j->w->sparse_index, u->id)) continue;
        TRY(load(j, u, &full));
        any |= u->now;
    }
    return wait && !any && first && !full ? load(j, first, &full) : err_none();
}

static err run_all(gpu_moe_job *j, int guessed) {
    gpu_ops *o = j->o;
    bool hits = false;
    for (int i = 0; i < o->n_uses; i++) hits |= o->uses[i].now;
    TRY(ask(j));
    gpu_share_choose(j, guessed);
    while (j->n_left) {
        int before = j->n_left;
        TRY(ask(j));
        TRY(upload_ready(j, !hits));
        TRY(launch(j));
        hits = false;
        if (j->n_left == before || gpu_tier_pins(o) + j->n_held >= expert_store_slots(o->store))
            TRY(j->n_left ? gpu_tier_drain(o) : err_none());
    }
    return err_none();
}

/* ---- the layer ---- */

/* Missed experts that are worth a place of their own get one. A prompt's rows want them all. What
 * changed places in the layer before has the time of this one to arrive. */
static err promote(const gpu_moe_job *j) {
    gpu_ops *o = j->o;
    gpu_tier *t = &o->tier;
    if (t->n_leaving) {
        t->returning = true;
        return gpu_event_follow(o->compute, o->returned);
    }
    if (j->b->rows > FEW_ROWS) return err_none();
    for (int i = 0; i < o->n_uses && t->n_leaving < PROMOTIONS_MAX; i++)
        TRY(gpu_tier_promote(o, key_of(j, &o->uses[i])));
    return t->n_leaving ? gpu_event_record(o->download, o->returned) : err_none();
}

/* Slots of experts that this layer is done with may be taken. */
static void give_slots(const gpu_moe_job *j) {
    gpu_tier *t = &j->o->tier;
    for (int i = 0; i < j->o->n_uses; i++) {
        int key = key_of(j, &j->o->uses[i]), slot = t->slot_of[key];
        if (slot >= 0 && t->slots[slot].state == VRAM_OWNED) cache_add(&t->cache, key);
    }
}

err gpu_streamed(gpu_moe_job *j) {
    gpu_ops *o = j->o;
    TRY(gpu_moe_ask(j));
    prepare(j);
    TRY(gpu_moe_ids(j));
    gpu_tier_settle(o);
    gpu_moe_sort(j);
    find_hits(j);
    int guessed = gpu_look_outcome(j);
    err e = run_all(j, guessed);
    if (!e.code) e = gpu_share_run(j);
    for (int i = 0; i < o->n_uses; i++) { /* after a failure */
        if (!o->uses[i].held) continue;
        expert_store_release(o->store, j->w->sparse_index, o->uses[i].id);
    }
    if (!e.code) e = follow_guesses(o);
    if (!e.code) e = gpu_look_ahead(j);
    if (!e.code) e = promote(j);
    give_slots(j);
    return e;
}
