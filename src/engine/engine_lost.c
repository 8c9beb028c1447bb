/* engine_lost.c: a card that fails while it computes, or has no more memory.
 *
 *     a call fails --> card, its share of the store and all states are given up
 *                      the trunk's missing parts are read again, the processor opens
 *     sessions         keep tokens and length; stale: computed anew before their next use
 *     the request      goes on where it was (session.c repeats the step)
 *
 * The ceiling stays: the processor needs the trunk and the attention cache where the card had them,
 * so the expert cache shrinks. Where not even that is enough the engine is dead: every call says
 * why, and nothing is computed. No token comes from a step that failed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

/* ---- the machine when there is none ---- */

typedef struct dead_ops {
    ops face; /* first */
    err why;
} dead_ops;

static err why(const ops *o) { return ((const dead_ops *)(const void *)o)->why; }

static err no_state(ops *o, ops_state **out) {
    *out = NULL;
    return why(o);
}
static void no_close(ops *o, ops_state *s) { (void)o, (void)s; }
static size_t no_recurrent(const ops *o) {
    (void)o;
    return 0;
}
static size_t no_kv(const ops *o, int n) {
    (void)o, (void)n;
    return 0;
}
static err no_get(ops *o, const ops_state *s, void *out) {
    (void)s, (void)out;
    return why(o);
}
static err no_put(ops *o, ops_state *s, const void *in) {
    (void)s, (void)in;
    return why(o);
}
static err no_kv_get(ops *o, const ops_state *s, int n, void *out) {
    (void)s, (void)n, (void)out;
    return why(o);
}
static err no_kv_put(ops *o, ops_state *s, int n, const void *in) {
    (void)s, (void)n, (void)in;
    return why(o);
}
static err no_batch(ops *o, const batch *b) {
    (void)b;
    return why(o);
}
static void no_abandon(ops *o) { (void)o; }

static const ops_table dead_table = {.state_open = no_state,
                                     .state_close = no_close,
                                     .state_reset = no_close,
                                     .recurrent_bytes = no_recurrent,
                                     .recurrent_get = no_get,
                                     .recurrent_put = no_put,
                                     .kv_bytes = no_kv,
                                     .kv_get = no_kv_get,
                                     .kv_put = no_kv_put,
                                     .begin = no_batch, /* and nothing after it */
                                     .abandon = no_abandon};

static err die(fm_engine *e, err failed) {
    dead_ops *d = (dead_ops *)(void *)e->dead;
    d->why =
        err_make(ERR_BUDGET, "%s; the processor cannot take over: %s", e->gpu_note, failed.text);
    e->ops = &d->face;
    return d->why;
}

/* o and its strings are the caller's. */
err engine_lost_prepare(fm_engine *e, const fm_options *o) {
    fm_options *k = &e->again;
    *k = (fm_options){.model_dir = e->dir,
                      .memory = e->plan.face.memory_limit,
                      .experts_per_token = o->experts_per_token,
                      .exact = o->exact,
                      .kv = o->kv,
                      .rope_bf16 = o->rope_bf16,
                      .io_threads = o->io_threads,
                      .keep_prompts = o->keep_prompts,
                      .no_look_ahead = o->no_look_ahead,
                      .gpu = "off"};
    k->io_state = o->io_state ? strdup(o->io_state) : NULL;
    k->mirror_dir = o->mirror_dir ? strdup(o->mirror_dir) : NULL;
    bool whole = !o->io_state == !k->io_state && !o->mirror_dir == !k->mirror_dir;
    dead_ops *d = calloc(1, sizeof *d);
    if (!d || !whole) {
        free(d);
        return err_make(ERR_NOMEM, "no memory for the engine");
    }
    d->face.table = &dead_table;
    e->dead = &d->face;
    return err_none();
}

void engine_lost_close(fm_engine *e) {
    free((void *)e->dead);
    e->dead = NULL;
    free((void *)(uintptr_t)e->again.io_state);
    free((void *)(uintptr_t)e->again.mirror_dir);
    e->again = (fm_options){0};
}

/* ---- moving ---- */

/* What of the sessions is on the card is gone; logits that are there already stay. */
static void forget_states(fm_engine *e) {
    const ops_table *t = e->ops->table;
    for (fm_session *s = e->sessions; s; s = s->next) {
        if (s->has_logits && t->bring && t->bring(e->ops, s->state).code) s->logits_gone = true;
        if (s->state) t->state_close(e->ops, s->state);
        s->state = NULL;
        s->stale = s->length > 0;
        for (int i = 0; i < s->n_snapshots; i++) s->snapshots[i].length = 0;
    }
}

static err open_processor(fm_engine *e) {
    plan_subject on = {.m = &e->files, .w = &e->weights};
    memory_plan p;
    budget_give(&e->budget, BUDGET_OTHER, e->plan.face.other);
    e->plan.face.other = 0;
    TRY(memory_plan_again(&e->again, &on, &e->plan, &p));
    e->plan = p;
    e->plan.face.other = 0;
    TRY(memory_plan_check(&p));
    TRY(budget_take(&e->budget, BUDGET_OTHER, p.face.other));
    e->plan.face.other = p.face.other;
    TRY(engine_read_trunk(e, NULL, NULL));
    TRY(engine_open_store(e, &e->again, p.face.cache));
    TRY(engine_open_cpu(e, &e->again, (layer_share){0}));
    e->ops = cpu_ops_face(e->cpu);
    for (fm_session *s = e->sessions; s; s = s->next)
        TRY(e->ops->table->state_open(e->ops, &s->state));
    cpu_ops_set_routing_hook(e->cpu, e->hook, e->hook_ctx);
    cpu_ops_set_routing_force(e->cpu, e->force, e->force_ctx);
    cpu_ops_set_clocks(e->cpu, e->timing ? e->clocks : NULL);
    TRY(engine_fingerprint(e));
    if (e->prompts) prompt_cache_now(e->prompts, e->fingerprint);
    return err_none();
}

static void close_processor(fm_engine *e) {
    for (fm_session *s = e->sessions; s; s = s->next) {
        if (s->state) e->ops->table->state_close(e->ops, s->state);
        s->state = NULL;
    }
    cpu_ops_close(e->cpu);
    e->cpu = NULL;
    expert_store_close(e->store);
    e->store = NULL;
}

static void tell(const fm_engine *e, const char *what) {
    char text[900];
    if (!e->notice) return;
    snprintf(text, sizeof text, "%s; %s", e->gpu_note, what);
    e->notice(e->notice_ctx, text);
}

err engine_survive(fm_engine *e, err failed) {
    if (!e->gpu) return failed;
    const err *first = gpu_ops_failure(e->gpu);
    if (!first->code && failed.code != ERR_BUDGET) return failed;
    snprintf(e->gpu_note, sizeof e->gpu_note, "the graphics card %s was lost (%.300s)",
             gpu_ops_device(e->gpu), first->code ? first->text : failed.text);
    forget_states(e);
    e->ops = NULL;
    engine_close_device(e);
    err moved = open_processor(e);
    if (!moved.code) {
        tell(e, "the processor goes on, slower: what was said is computed anew");
        return moved;
    }
    close_processor(e);
    tell(e, "the processor cannot take over");
    return die(e, moved);
}
