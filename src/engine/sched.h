/* sched.h: several requests at once on one engine.
 *
 * One thread owns the engine. Each turn of its loop makes one fm_step of all running requests
 * together, so that one read of an expert serves all of them:
 *
 *     queue (first come, first served)      sessions (model->n_sessions)        one turn
 *     [job][job][job] ... queue_max   --->  [A: decoding] [B: prefilling] [-]   A 1 row, B a chunk
 *
 * A job is a prompt and what to do with each token. It is admitted to the free session whose
 * timeline shares the longest prefix with its prompt (what is shared is not computed again);
 * without a good match to the session unused for longest, so that a short side request does not
 * throw out a long conversation. While somebody decodes, all prefills together get prefill_rows
 * rows a turn, in shares that end at multiples of 64 tokens: a long prompt cannot starve others,
 * others cannot starve it, and the bits are those of a session alone.
 *
 * Tokens do not depend on who else is running: fm_step gives the bits of a session alone, and each
 * job has its own sampler. A step that fails is repeated for each job alone; only those that fail
 * again end with the error.
 *
 * Threads: submit, cancel, counters from any; sinks are called on the engine thread, one at a time,
 * without a lock held (they may call sched_cancel and sched_force, not sched_close). */
#ifndef ENGINE_SCHED_H
#define ENGINE_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "flashmoe.h"

#define SCHED_TOP_MAX      20 /* alternatives with their log-probabilities, per token */
#define SCHED_SESSIONS_MAX 256

/* What the scheduler needs of an engine: the fm_* functions (sched_model_engine), or a script in
 * tests. Called on the engine thread only. */
typedef struct sched_model {
    void *ctx;
    int vocab, context, rows_max, n_sessions;
    err (*session_open)(void *ctx, fm_session **out);
    void (*session_close)(void *ctx, fm_session *s);
    /* Truncates the timeline to the longest prefix of tokens[0 .. count) that there is state for;
     * *kept is count only when the logits stand too. */
    err (*match)(void *ctx, fm_session *s, const int32_t *tokens, size_t count, size_t *kept);
    /* A snapshot of the timeline as it is now is worth keeping (a message border). May be NULL. */
    void (*mark)(void *ctx, fm_session *s);
    /* The conversation is worth keeping beyond this process. It is called when nothing runs for a
     * while, when the session is about to be given to another conversation, and at the end (`last`:
     * take the time that it takes). May be NULL. */
    void (*keep)(void *ctx, fm_session *s, bool last);
    err (*step)(void *ctx, const fm_item *items, int n);
    const float *(*logits)(void *ctx, const fm_session *s); /* [vocab] */
    const int32_t *(*timeline)(void *ctx, const fm_session *s, size_t *length);
    bool (*is_stop)(void *ctx, int32_t id);
    err (*sampler_open)(void *ctx, const fm_sampling *p, void **out);
    void (*sampler_close)(void *sampler);
    err (*sampler_pick)(void *sampler, const float *logits, const uint64_t *allowed, int32_t *out);
    /* The same from the session's logits, which need not be read from a card for it. */
    err (*session_pick)(fm_session *s, void *sampler, const uint64_t *allowed, int32_t *out);
    void (*sampler_accept)(void *sampler, int32_t id);
    void (*stats)(void *ctx, fm_stats *out);
} sched_model;

/* The functions of a real engine. The engine must outlive the scheduler. */
void sched_model_engine(fm_engine *engine, int n_sessions, sched_model *out);

typedef struct sched_top {
    int32_t id;
    float logprob;
} sched_top;

typedef struct sched_token {
    int32_t id;
    float logprob;        /* of the model, before sampling options; 0 unless asked for */
    const sched_top *top; /* most likely first; borrowed during the callback */
    int n_top;
} sched_token;

typedef enum sched_end {
    SCHED_STOP,      /* the model ended its turn, or the sink had enough */
    SCHED_LENGTH,    /* max_tokens */
    SCHED_CANCELLED, /* sched_cancel, or the scheduler closes */
    SCHED_FAILED,    /* with the error */
} sched_end;

typedef struct sched_job sched_job;

typedef struct sched_sink {
    void *ctx;
    /* Computing begins; `cached` tokens of the prompt are reused. May be NULL. */
    void (*started)(void *ctx, size_t cached);
    /* One token (never one that ends the turn). false: enough, ends with SCHED_STOP. */
    bool (*token)(void *ctx, sched_job *job, const sched_token *t);
    /* The last call for a job that was submitted: exactly once, whatever happens. */
    void (*ended)(void *ctx, sched_end why, const err *e);
} sched_sink;

typedef struct sched_bias {
    int32_t id;
    float bias; /* added to the logit */
} sched_bias;

/* Constrained decoding. Owned by the job: closed on the engine thread, or by a failed submit. */
typedef struct sched_constraint {
    void *ctx; /* NULL: none */
    /* The tokens allowed next, 64 a word; *all: every token (mask not written). *greedy: pick the
     * most likely one whatever the sampling says (the syntax of a call). */
    err (*mask)(void *ctx, uint64_t *allowed, bool *all, bool *greedy);
    err (*accept)(void *ctx, int32_t id);
    void (*close)(void *ctx);
} sched_constraint;

typedef struct sched_request {
    const int32_t *prompt; /* copied; 1 .. context-1 tokens */
    size_t n_prompt;
    const size_t *marks; /* copied; ascending positions where a snapshot is worth keeping */
    int n_marks;
    int max_tokens; /* >= 1, n_prompt + max_tokens <= context */
    fm_sampling sampling;
    const sched_bias *bias; /* copied */
    int n_bias;
    bool logprobs;
    int n_top; /* 0 .. SCHED_TOP_MAX; only with logprobs */
    sched_constraint constraint;
    const int32_t *forced; /* copied; these tokens come first, whatever the model says */
    int n_forced;
    bool forced_end;      /* after them the turn is over */
    uint64_t deadline_ns; /* os_now_ns at which it fails; 0: never */
    sched_sink sink;
} sched_request;

typedef struct sched_options {
    sched_model model;
    int queue_max;    /* jobs waiting, beyond those that run; 0: 64 */
    int rest_ms;      /* after so long without work a conversation is kept; 0: 2000 */
    int prefill_rows; /* rows of prefill a turn while somebody decodes; 0: 128 */
} sched_options;

typedef struct sched sched;

/* Opens the sessions and starts the thread. */
err sched_open(const sched_options *options, sched **out) MUST_USE;
/* Cancels everything, joins the thread, closes the sessions. NULL is allowed. */
void sched_close(sched *s);

/* All n jobs or none: ERR_BUSY when the queue has no room for them (or it drains), ERR_RANGE and
 * ERR_ARG for a request outside the bounds above, ERR_NOMEM. ids [n] for sched_cancel. On failure
 * no sink is called, and the constraints are closed. */
err sched_submit(sched *s, const sched_request *requests, int n, uint64_t *ids) MUST_USE;
/* Ends the job soon with SCHED_CANCELLED; unknown or ended ids are ignored. */
void sched_cancel(sched *s, uint64_t id);
/* Within a sink's token(): these tokens come next, before anything is sampled. */
err sched_force(sched_job *job, const int32_t *ids, int n) MUST_USE;

/* No new jobs; waits until those that are there have ended, or timeout_ms; true when none is left.
 */
bool sched_drain(sched *s, int timeout_ms);

typedef struct sched_counters {
    int running, waiting;
    uint64_t jobs, turns, rows, tokens_prompt, tokens_cached, tokens_made, failed, cancelled;
    uint64_t decode_rows_sum; /* decoding jobs, summed over turns with any */
    uint64_t decode_turns;
    double seconds_step; /* spent in fm_step */
    fm_stats engine;     /* as of the last turn */
} sched_counters;

void sched_counters_get(sched *s, sched_counters *out);

#endif
