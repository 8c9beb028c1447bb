/* session.c: a session is a timeline of tokens and the state after them.
 *
 *     tokens    t0 t1 t2 ... | length
 *     KV cache  valid for every shorter timeline too: attention can go back anywhere
 *     DeltaNet  knows only the present place; snapshots hold earlier ones
 *     snapshots [guard] [a] [b] ...   places <= length, the oldest is overwritten
 *
 * The guard is taken before every chunk of a prefill, so that a failed or cancelled chunk costs
 * that chunk only. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "engine/engine_impl.h"
#include "engine/sample.h"

/* Batches with more rows than this can be cancelled between layers; smaller ones before they begin:
 * they are short, and a step that is not half done leaves the timeline as it is. */
#define ROWS_UNCANCELLED 8

/* ---- life ---- */

static err session_open(fm_engine *e, fm_session *s) {
    s->engine = e;
    const memory_plan *p = &e->plan;
    TRY(e->ops->table->state_open(e->ops, &s->state));
    TRY(arena_open(&s->memory, &e->budget, BUDGET_STATE, p->session_bytes, false));
    s->tokens = arena_alloc(&s->memory, (size_t)p->face.context * sizeof *s->tokens, 64);
    s->logits = arena_alloc(&s->memory, (size_t)e->files.config.vocab * sizeof *s->logits, 64);
    s->snapshots = calloc((size_t)p->snapshots + 1, sizeof *s->snapshots);
    if (!s->snapshots) return err_make(ERR_NOMEM, "no memory for a session");
    s->n_snapshots = p->snapshots;
    size_t bytes = e->ops->table->recurrent_bytes(e->ops);
    for (int i = 0; i < s->n_snapshots; i++)
        s->snapshots[i].data = arena_alloc(&s->memory, bytes, 64);
    arena_freeze(&s->memory);
    return err_none();
}

fm_error fm_session_open(fm_engine *e, fm_session **out) {
    *out = NULL;
    if (e->n_sessions == e->plan.sessions)
        return FM_WRAP(err_make(ERR_BUSY,
                                "%d sessions are open already: that is all that were "
                                "planned for",
                                e->n_sessions));
    fm_session *s = calloc(1, sizeof *s);
    if (!s) return FM_WRAP(err_make(ERR_NOMEM, "no memory for a session"));
    s->next = e->sessions;
    e->sessions = s;
    e->n_sessions++;
    err failed = session_open(e, s);
    if (failed.code) {
        fm_session_close(s);
        return fm_error_from(&failed);
    }
    *out = s;
    return FM_WRAP(err_none());
}

void fm_session_close(fm_session *s) {
    if (!s) return;
    fm_engine *e = s->engine;
    if (!e) return;
    fm_session **link = &e->sessions;
    while (*link != s) link = &(*link)->next;
    *link = s->next;
    e->n_sessions--;
    if (s->state) e->ops->table->state_close(e->ops, s->state);
    arena_close(&s->memory);
    free(s->snapshots);
    free(s);
}

/* ---- going back ---- */

static void forget_after(fm_session *s, int length) {
    for (int i = 0; i < s->n_snapshots; i++) {
        if (s->snapshots[i].length > length) s->snapshots[i].length = 0;
    }
}

static snapshot *best_snapshot(const fm_session *s, int n) {
    snapshot *best = NULL;
    for (int i = 0; i < s->n_snapshots; i++) {
        snapshot *p = &s->snapshots[i];
        if (p->length && p->length <= n && (!best || p->length > best->length)) best = p;
    }
    return best;
}

int session_reachable(const fm_session *s, int n) {
    if (n >= s->length) return s->length;
    if (s->stale) return n; /* it is computed anew in any case */
    if (!s->n_snapshots) return n;
    const snapshot *p = best_snapshot(s, n);
    return p ? p->length : 0;
}

err session_rewind(fm_session *s, int length) {
    fm_engine *e = s->engine;
    if (length == s->length) return err_none();
    s->has_logits = s->logits_gone = false;
    s->length = length;
    forget_after(s, length);
    if (length == 0) {
        s->stale = false;
        if (s->state) e->ops->table->state_reset(e->ops, s->state);
        return err_none();
    }
    if (!s->n_snapshots || s->stale) return err_none();
    snapshot *p = best_snapshot(s, length);
    p->used = ++s->clock;
    err failed = e->ops->table->recurrent_put(e->ops, s->state, p->data);
    return failed.code ? engine_survive(e, failed) : failed;
}

/* The state was half changed by a failed batch: back to what is known to be whole. */
static err recover(fm_session *s, int length) {
    if (s->stale) return err_none();
    int back = s->n_snapshots ? 0 : length;
    const snapshot *p = s->n_snapshots ? best_snapshot(s, length) : NULL;
    if (p) back = p->length;
    s->length = -1; /* so that rewinding does not take the present state for good */
    return session_rewind(s, back);
}

err session_remember(fm_session *s, bool guard) {
    fm_engine *e = s->engine;
    if (!s->n_snapshots || s->length == 0 || s->stale) return err_none();
    snapshot *p = &s->snapshots[guard ? 0 : 1];
    for (int i = 1; !guard && i < s->n_snapshots; i++) {
        if (s->snapshots[i].length == s->length) {
            s->snapshots[i].used = ++s->clock;
            return err_none();
        }
        if (!s->snapshots[i].length) {
            if (p->length) p = &s->snapshots[i];
        } else if (p->length && s->snapshots[i].used < p->used) {
            p = &s->snapshots[i];
        }
    }
    p->length = 0;
    err failed = e->ops->table->recurrent_get(e->ops, s->state, p->data);
    if (failed.code) return engine_survive(e, failed); /* after it the session is stale */
    p->length = s->length;
    p->used = ++s->clock;
    return err_none();
}

/* ---- running ---- */

static err check_items(const fm_engine *e, const fm_item *items, int n, int *rows) {
    *rows = 0;
    if (n < 1 || n > BATCH_ITEMS_MAX)
        return err_make(ERR_ARG, "a step of %d sessions: from 1 to %d are possible", n,
                        BATCH_ITEMS_MAX);
    for (int i = 0; i < n; i++) {
        const fm_session *s = items[i].session;
        for (int k = 0; k < i; k++) {
            if (items[k].session == s) return err_make(ERR_ARG, "a session stands twice in a step");
        }
        if (items[i].count < 1) return err_make(ERR_ARG, "a step without tokens");
        if (items[i].count > e->plan.face.context - s->length)
            return err_make(ERR_RANGE,
                            "%d tokens do not fit the context window of %d tokens (%d are in use)",
                            items[i].count, e->plan.face.context, s->length);
        for (int t = 0; t < items[i].count; t++) {
            int32_t id = items[i].tokens[t];
            if (id < 0 || id >= e->files.config.vocab)
                return err_make(ERR_RANGE, "token id %d is outside the vocabulary of %d", id,
                                e->files.config.vocab);
        }
        *rows += items[i].count;
    }
    if (*rows > e->plan.rows_max)
        return err_make(ERR_ARG, "a step of %d tokens: at most %d are possible", *rows,
                        e->plan.rows_max);
    return err_none();
}

static void fail_items(const fm_item *items, int n) {
    for (int i = 0; i < n; i++) {
        err ignored = recover(items[i].session, items[i].session->length);
        if (ignored.code) items[i].session->length = 0;
    }
}

static void count_time(fm_engine *e, const fm_item *items, int n, uint64_t ns) {
    bool prefill = false;
    for (int i = 0; i < n; i++) prefill = prefill || items[i].count > 1;
    for (int i = 0; i < n; i++) {
        if (prefill && items[i].count > 1)
            e->tokens_prefill += (uint64_t)items[i].count;
        else
            e->tokens_decode += 1;
    }
    if (prefill)
        e->prefill_ns += ns;
    else
        e->decode_ns += ns;
}

/* From the first token on, in the chunks in which they were computed. */
static err compute_anew(fm_session *s, int length) {
    fm_engine *e = s->engine;
    bool gone = s->logits_gone;
    e->ops->table->state_reset(e->ops, s->state);
    for (int at = 0, end; at < length; at = end) {
        end = at + e->plan.rows_max;
        end = end >= length ? length : end - end % CPU_DELTA_CHUNK;
        bool last = end == length && gone;
        batch_item item = {.state = s->state,
                           .ids = s->tokens + at,
                           .start = at,
                           .count = end - at,
                           .logits = last ? s->logits : NULL,
                           .top = last ? &s->top : NULL};
        batch b = {.items = &item, .n_items = 1, .rows = end - at};
        if (e->store) expert_store_tick(e->store);
        if (last) s->top.n = 0;
        TRY(forward(e->ops, &e->files.config, &b, &e->cancel));
    }
    return err_none();
}

err session_revive(fm_session *s) {
    if (!s->stale) return err_none();
    if (!s->state) TRY(s->engine->ops->table->state_open(s->engine->ops, &s->state)); /* dead */
    TRY(compute_anew(s, s->length));
    s->stale = s->logits_gone = false;
    err ignored = session_remember(s, false); /* worth having, no more */
    (void)ignored;
    return err_none();
}

static err run_batch(fm_engine *e, const fm_item *items, int n, int rows) {
    batch_item list[BATCH_ITEMS_MAX];
    for (int i = 0; i < n; i++) {
        fm_session *s = items[i].session;
        list[i] = (batch_item){.state = s->state,
                               .ids = items[i].tokens,
                               .start = s->length,
                               .count = items[i].count,
                               .logits = s->logits,
                               .top = &s->top};
        s->has_logits = s->logits_gone = false;
        s->top.n = 0;
    }
    batch b = {.items = list, .n_items = n, .rows = rows};
    if (e->store) expert_store_tick(e->store);
    if (e->gpu) gpu_ops_tick(e->gpu);
    return forward(e->ops, &e->files.config, &b, rows > ROWS_UNCANCELLED ? &e->cancel : NULL);
}

static err revive_all(const fm_item *items, int n) {
    for (int i = 0; i < n; i++) TRY(session_revive(items[i].session));
    return err_none();
}

err engine_step(fm_engine *e, const fm_item *items, int n) {
    int rows;
    TRY(check_items(e, items, n, &rows));
    if (atomic_load_explicit(&e->cancel, memory_order_relaxed))
        return err_make(ERR_CANCELLED, "cancelled");
    TRY(revive_all(items, n));
    uint64_t begin = os_now_ns();
    err failed = run_batch(e, items, n, rows);
    if (failed.code && e->gpu) {
        failed = engine_survive(e, failed);
        if (!failed.code) failed = revive_all(items, n);
        if (!failed.code) failed = run_batch(e, items, n, rows);
    }
    if (failed.code) {
        fail_items(items, n);
        return failed;
    }
    count_time(e, items, n, os_now_ns() - begin);
    for (int i = 0; i < n; i++) {
        fm_session *s = items[i].session;
        memmove(s->tokens + s->length, items[i].tokens, (size_t)items[i].count * sizeof *s->tokens);
        s->length += items[i].count;
        s->has_logits = true;
    }
    return err_none();
}

fm_error fm_step(fm_engine *e, const fm_item *items, int n) {
    return FM_WRAP(engine_step(e, items, n));
}

fm_error fm_session_step(fm_session *s, int32_t token) {
    fm_item item = {.session = s, .tokens = &token, .count = 1};
    return FM_WRAP(engine_step(s->engine, &item, 1));
}

/* ---- sync ---- */

static int common_prefix(const fm_session *s, const int32_t *tokens, size_t count) {
    int n = 0;
    while (n < s->length && (size_t)n < count && s->tokens[n] == tokens[n]) n++;
    return n;
}

/* Goes back to the longest prefix of tokens from which the rest can be computed. */
static err match(fm_session *s, const int32_t *tokens, size_t count, size_t *kept) {
    int common = common_prefix(s, tokens, count);
    bool whole = common == s->length && (size_t)common == count && s->has_logits;
    int target = whole ? common : session_reachable(s, common);
    if (!whole && (size_t)target == count) target = session_reachable(s, (int)count - 1);
    if (!whole && target == s->length && (size_t)target == count) target = 0;
    *kept = (size_t)target;
    return session_rewind(s, target);
}

/* The same, with what lies on disk. */
static err match_all(fm_session *s, const int32_t *tokens, size_t count, size_t *kept) {
    int known = session_reachable(s, common_prefix(s, tokens, count));
    if ((size_t)known + 1 < count) (void)session_fetch(s, tokens, count, (size_t)known);
    return match(s, tokens, count, kept);
}

static err check_prompt(const fm_session *s, size_t count) {
    int context = s->engine->plan.face.context;
    if (count < 1) return err_make(ERR_ARG, "no tokens");
    if (count > (size_t)context)
        return err_make(
            ERR_RANGE,
            "the text has %zu tokens, but the context window is %d tokens: shorten it or "
            "raise --context",
            count, context);
    return err_none();
}

/* The end of the next chunk that begins at `from`: a mark, the end, or as far as the buffers go,
 * and then a multiple of the DeltaNet chunk: so the results do not depend on how large buffers are.
 */
static int chunk_end(const fm_session *s, int from, int count, const fm_sync *o) {
    int end = from + s->engine->plan.rows_max;
    end = end >= count ? count : end - end % CPU_DELTA_CHUNK;
    for (int i = 0; o && i < o->n_marks; i++) {
        if (o->marks[i] > (size_t)from && o->marks[i] < (size_t)end) return (int)o->marks[i];
    }
    return end;
}

static bool is_mark(const fm_sync *o, int at) {
    for (int i = 0; o && i < o->n_marks; i++) {
        if (o->marks[i] == (size_t)at) return true;
    }
    return false;
}

static err session_sync(fm_session *s, const int32_t *tokens, size_t count, const fm_sync *o,
                        size_t *reused) {
    TRY(check_prompt(s, count));
    TRY(match_all(s, tokens, count, reused));
    size_t first = *reused;
    while ((size_t)s->length < count) {
        int end = chunk_end(s, s->length, (int)count, o);
        if (o && o->progress)
            o->progress(o->progress_ctx, "prefill", (size_t)s->length - first, count - first);
        if (end - s->length > ROWS_UNCANCELLED) TRY(session_remember(s, true));
        fm_item item = {.session = s, .tokens = tokens + s->length, .count = end - s->length};
        TRY(engine_step(s->engine, &item, 1));
        if (!is_mark(o, end) && end != (int)count) continue;
        TRY(session_remember(s, false));
        session_offer(s);
    }
    if (o && o->progress) o->progress(o->progress_ctx, "prefill", count - first, count - first);
    return err_none();
}

fm_error fm_session_sync(fm_session *s, const int32_t *tokens, size_t count, const fm_sync *options,
                         size_t *reused) {
    size_t kept = 0;
    err failed = session_sync(s, tokens, count, options, &kept);
    if (reused) *reused = failed.code ? 0 : kept;
    return fm_error_from(&failed);
}

fm_error fm_session_match(fm_session *s, const int32_t *tokens, size_t count, size_t *kept) {
    *kept = 0;
    err failed = check_prompt(s, count);
    if (!failed.code) failed = match_all(s, tokens, count, kept);
    return fm_error_from(&failed);
}

fm_error fm_session_mark(fm_session *s) {
    session_offer(s);
    return FM_WRAP(session_remember(s, false));
}

/* ---- reading ---- */

const float *fm_session_logits(const fm_session *s) {
    ops *o = s->engine->ops;
    if (!s->has_logits) return NULL;
    if (!s->stale && o->table->bring) {
        err failed = o->table->bring(o, s->state);
        if (failed.code && engine_survive(s->engine, failed).code) return NULL;
    }
    if (s->logits_gone && session_revive((fm_session *)(uintptr_t)s).code) return NULL;
    return s->logits;
}

static err session_pick(fm_session *s, fm_sampler *sampler, const uint64_t *allowed, int32_t *id) {
    *id = 0;
    if (s->has_logits && s->top.n && sampler_pick_top(sampler, &s->top, allowed, id))
        return err_none();
    const float *logits = fm_session_logits(s);
    if (s->has_logits && !logits) return err_make(ERR_IO, "the logits cannot be read from the GPU");
    return sampler_pick(sampler, logits, allowed, id);
}

fm_error fm_session_pick(fm_session *s, fm_sampler *sampler, const uint64_t *allowed, int32_t *id) {
    return FM_WRAP(session_pick(s, sampler, allowed, id));
}

size_t fm_session_length(const fm_session *s) { return (size_t)s->length; }
const int32_t *fm_session_tokens(const fm_session *s) { return s->tokens; }

void fm_session_clear(fm_session *s) {
    s->length = -1;
    err ignored = session_rewind(s, 0);
    (void)ignored; /* going back to nothing reads nothing */
}
