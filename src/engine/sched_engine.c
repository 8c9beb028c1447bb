/* sched_engine.c: the scheduler's view of a real engine: one line for each function. */
#include "engine/sched.h"

static err from_fm(fm_error e) {
    return e.code ? err_make((err_code)e.code, "%s", e.text) : err_none();
}

_Static_assert((int)FM_ERR_ARG == (int)ERR_ARG && (int)FM_ERR_CANCELLED == (int)ERR_CANCELLED,
               "the public codes are ours");

static err session_open(void *ctx, fm_session **out) { return from_fm(fm_session_open(ctx, out)); }

static void session_close(void *ctx, fm_session *s) {
    (void)ctx;
    fm_session_close(s);
}

static err match(void *ctx, fm_session *s, const int32_t *tokens, size_t count, size_t *kept) {
    (void)ctx;
    return from_fm(fm_session_match(s, tokens, count, kept));
}

/* A place that cannot be remembered costs time later, nothing else. */
static void mark(void *ctx, fm_session *s) {
    (void)ctx;
    (void)fm_session_mark(s);
}

static void keep(void *ctx, fm_session *s, bool last) {
    if (last) fm_prompt_cache_flush(ctx); /* so that there is room */
    fm_session_keep(s);
}

static err step(void *ctx, const fm_item *items, int n) { return from_fm(fm_step(ctx, items, n)); }

static const float *logits(void *ctx, const fm_session *s) {
    (void)ctx;
    return fm_session_logits(s);
}

static const int32_t *timeline(void *ctx, const fm_session *s, size_t *length) {
    (void)ctx;
    *length = fm_session_length(s);
    return fm_session_tokens(s);
}

static bool is_stop(void *ctx, int32_t id) { return fm_is_stop(ctx, id); }

static err sampler_open(void *ctx, const fm_sampling *p, void **out) {
    return from_fm(fm_sampler_open(ctx, p, (fm_sampler **)out));
}

static void sampler_close(void *sampler) { fm_sampler_close(sampler); }

static err sampler_pick(void *sampler, const float *l, const uint64_t *allowed, int32_t *out) {
    return from_fm(fm_sampler_pick(sampler, l, allowed, out));
}

static err session_pick(fm_session *s, void *sampler, const uint64_t *allowed, int32_t *out) {
    return from_fm(fm_session_pick(s, sampler, allowed, out));
}

static void sampler_accept(void *sampler, int32_t id) { fm_sampler_accept(sampler, id); }

static void stats(void *ctx, fm_stats *out) { fm_stats_get(ctx, out); }

void sched_model_engine(fm_engine *engine, int n_sessions, sched_model *out) {
    fm_model m;
    fm_model_get(engine, &m);
    *out = (sched_model){
        .ctx = engine,
        .vocab = m.vocab,
        .context = m.context,
        .rows_max = fm_rows_max(engine),
        .n_sessions = n_sessions,
        .session_open = session_open,
        .session_close = session_close,
        .match = match,
        .mark = mark,
        .keep = keep,
        .step = step,
        .logits = logits,
        .timeline = timeline,
        .is_stop = is_stop,
        .sampler_open = sampler_open,
        .sampler_close = sampler_close,
        .sampler_pick = sampler_pick,
        .session_pick = session_pick,
        .sampler_accept = sampler_accept,
        .stats = stats,
    };
}
