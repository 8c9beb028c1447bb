/* sched.c: the loop of the engine thread (see sched.h).
 *
 * A job's life: queue -> admitted (a session is his) -> feed tokens[fed ..] in chunks until all are
 * fed -> pick a token, tell the sink, append it -> feed it ... -> ended. Prefill and decoding are
 * the same thing: tokens that are not fed yet. After a failed step the session's own length says
 * how much is fed, and the rest is fed again.
 *
 * Invariants: a slot has at most one job; jobs in slots and their sinks are touched by the engine
 * thread only; the queue, the counters and job->cancelled are under the lock. */
#include "engine/sched.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/os.h"

/* A match this long is worth taking a session for; shorter ones are the template's first words,
 * which all conversations share. */
#define MATCH_MIN 64
/* fm_rows_max: a prompt in pieces gives the bits of the whole when they end at multiples of this.
 */
#define CHUNK_ALIGN 64

struct sched_job {
    uint64_t id;
    sched_job *next; /* in the queue */
    int32_t *tokens; /* prompt and what was made; owned; room for n_prompt + max_tokens */
    size_t n_tokens, n_prompt, fed;
    size_t *marks; /* owned */
    int n_marks;
    int max_tokens;
    sched_bias *bias; /* owned */
    int n_bias;
    bool logprobs;
    int n_top;
    sched_constraint constraint;
    int32_t *forced; /* owned; [next_forced .. n_forced) come next */
    int n_forced, next_forced;
    bool forced_end, cancelled;
    uint64_t deadline_ns;
    void *sampler, *greedy; /* greedy: opened when a constraint first asks for it */
    sched_sink sink;
    fm_sampling sampling;
    int chunk;   /* rows in this turn */
    bool failed; /* its session's step failed in this turn */
    err error;
};

typedef struct slot {
    fm_session *session;
    sched_job *job; /* NULL: free */
    uint64_t used;  /* turn of its last use */
    int answers;    /* of this conversation, so far */
    bool unkept;    /* ended since it was kept */
} slot;

struct sched {
    sched_model m;
    int queue_max, prefill_rows, rest_ms;
    pthread_t thread;
    /* engine thread only */
    slot *slots;
    float *scratch;    /* [vocab] logits with bias */
    uint64_t *allowed; /* [vocab / 64] */
    uint64_t turn;
    int next_prefill; /* who gets the odd rows */
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    sched_job *queue, **queue_end;
    int waiting, running;
    uint64_t next_id;
    bool closing, draining;
    sched_counters counters;
};

/* ---- jobs ---- */

static void constraint_close(const sched_constraint *c) {
    if (c->ctx && c->close) c->close(c->ctx);
}

static void job_free(sched *s, sched_job *j) {
    if (!j) return;
    constraint_close(&j->constraint);
    if (j->sampler) s->m.sampler_close(j->sampler);
    if (j->greedy) s->m.sampler_close(j->greedy);
    free(j->tokens);
    free(j->marks);
    free(j->bias);
    free(j->forced);
    free(j);
}

static bool copy(void **out, const void *from, size_t bytes) {
    *out = NULL;
    if (bytes == 0) return true;
    *out = malloc(bytes);
    if (*out) memcpy(*out, from, bytes);
    return *out != NULL;
}

static err request_check(const sched *s, const sched_request *r) {
    size_t context = (size_t)s->m.context;
    if (r->n_prompt < 1 || r->max_tokens < 1 || r->n_prompt > context ||
        (size_t)r->max_tokens > context - r->n_prompt)
        return err_make(ERR_RANGE,
                        "a prompt of %zu tokens and %d new ones do not fit the context of %d",
                        r->n_prompt, r->max_tokens, s->m.context);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= s->m.vocab)
            return err_make(ERR_RANGE, "token %d at position %zu is outside the vocabulary of %d",
                            r->prompt[i], i, s->m.vocab);
    for (int i = 0; i < r->n_bias; i++)
        if (r->bias[i].id < 0 || r->bias[i].id >= s->m.vocab)
            return err_make(ERR_RANGE, "logit_bias: token %d is outside the vocabulary of %d",
                            r->bias[i].id, s->m.vocab);
    if (r->n_top < 0 || r->n_top > SCHED_TOP_MAX)
        return err_make(ERR_RANGE, "%d alternatives a token, at most %d", r->n_top, SCHED_TOP_MAX);
    return err_none();
}

/* The constraint moves into the job only on success. */
static err job_make(sched *s, const sched_request *r, sched_job **out) {
    TRY(request_check(s, r));
    sched_job *j = calloc(1, sizeof *j);
    if (!j) return err_make(ERR_NOMEM, "no memory for a request");
    j->tokens = malloc((r->n_prompt + (size_t)r->max_tokens) * sizeof *j->tokens);
    bool ok = j->tokens &&
              copy((void **)&j->marks, r->marks, (size_t)r->n_marks * sizeof *r->marks) &&
              copy((void **)&j->bias, r->bias, (size_t)r->n_bias * sizeof *r->bias) &&
              copy((void **)&j->forced, r->forced, (size_t)r->n_forced * sizeof *r->forced);
    if (!ok) {
        job_free(s, j);
        return err_make(ERR_NOMEM, "no memory for a request of %zu tokens", r->n_prompt);
    }
    memcpy(j->tokens, r->prompt, r->n_prompt * sizeof *j->tokens);
    j->n_tokens = j->n_prompt = r->n_prompt;
    j->n_marks = r->n_marks;
    j->n_bias = r->n_bias;
    j->n_forced = r->n_forced;
    j->max_tokens = r->max_tokens;
    j->logprobs = r->logprobs;
    j->n_top = r->n_top;
    j->forced_end = r->forced_end;
    j->deadline_ns = r->deadline_ns;
    j->sampling = r->sampling;
    j->sink = r->sink;
    err e = s->m.sampler_open(s->m.ctx, &r->sampling, &j->sampler);
    if (e.code) {
        job_free(s, j);
        return e;
    }
    j->constraint = r->constraint;
    *out = j;
    return err_none();
}

err sched_force(sched_job *j, const int32_t *ids, int n) {
    int rest = j->n_forced - j->next_forced;
    int32_t *all = malloc(((size_t)rest + (size_t)n) * sizeof *all);
    if (!all) return err_make(ERR_NOMEM, "no memory for forced tokens");
    memcpy(all, ids, (size_t)n * sizeof *all);
    if (rest) memcpy(all + n, j->forced + j->next_forced, (size_t)rest * sizeof *all);
    free(j->forced);
    j->forced = all;
    j->next_forced = 0;
    j->n_forced = rest + n;
    return err_none();
}

err sched_submit(sched *s, const sched_request *requests, int n, uint64_t *ids) {
    sched_job *first = NULL, **end = &first;
    err e = err_none();
    int made = 0;
    for (; made < n && !e.code; made++) {
        e = job_make(s, &requests[made], end);
        if (e.code) break;
        end = &(*end)->next;
    }
    pthread_mutex_lock(&s->lock);
    if (!e.code && (s->draining || s->closing))
        e = err_make(ERR_BUSY, "the server is shutting down");
    else if (!e.code && s->waiting + n > s->queue_max + s->m.n_sessions - s->running)
        e = err_make(ERR_BUSY, "%d requests are running and %d are waiting", s->running,
                     s->waiting);
    if (!e.code) {
        int i = 0;
        for (sched_job *j = first; j; j = j->next) ids[i++] = j->id = ++s->next_id;
        *s->queue_end = first;
        s->queue_end = end;
        s->waiting += n;
        s->counters.jobs += (uint64_t)n;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    if (!e.code) return e;
    for (sched_job *j = first, *next; j; j = next) {
        next = j->next;
        job_free(s, j);
    }
    for (int i = made; i < n; i++) constraint_close(&requests[i].constraint);
    return e;
}

void sched_cancel(sched *s, uint64_t id) {
    pthread_mutex_lock(&s->lock);
    for (sched_job *j = s->queue; j; j = j->next)
        if (j->id == id) j->cancelled = true;
    for (int i = 0; i < s->m.n_sessions; i++)
        if (s->slots[i].job && s->slots[i].job->id == id) s->slots[i].job->cancelled = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

/* ---- ending and admitting ---- */

static void job_end(sched *s, slot *t, sched_job *j, sched_end why, const err *e) {
    pthread_mutex_lock(&s->lock);
    if (t) {
        t->job = NULL;
        t->used = s->turn;
        t->unkept = (why == SCHED_STOP || why == SCHED_LENGTH) && s->m.keep;
        t->answers += t->unkept;
        s->running--;
    }
    if (why == SCHED_FAILED) s->counters.failed++;
    if (why == SCHED_CANCELLED) s->counters.cancelled++;
    pthread_mutex_unlock(&s->lock);
    sched_sink sink = j->sink;
    job_free(s, j);
    sink.ended(sink.ctx, why, e);
    pthread_mutex_lock(&s->lock);
    if (!s->running && !s->queue) pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

/* Takes the next job out of the queue that is to be ended (cancelled, too late); NULL: none. */
static sched_job *queue_take_dead(sched *s, uint64_t now, err *why) {
    sched_job **at = &s->queue;
    for (; *at; at = &(*at)->next) {
        sched_job *j = *at;
        bool late = j->deadline_ns && now >= j->deadline_ns;
        if (!j->cancelled && !late && !s->closing) continue;
        *at = j->next;
        if (s->queue_end == &j->next) s->queue_end = at;
        s->waiting--;
        *why = late ? err_make(ERR_BUSY, "the request waited longer than it may take") : err_none();
        return j;
    }
    return NULL;
}

static void end_dead(sched *s) {
    uint64_t now = os_now_ns();
    for (;;) {
        err why = err_none();
        pthread_mutex_lock(&s->lock);
        sched_job *j = queue_take_dead(s, now, &why);
        pthread_mutex_unlock(&s->lock);
        if (!j) break;
        job_end(s, NULL, j, why.code ? SCHED_FAILED : SCHED_CANCELLED, &why);
    }
    for (int i = 0; i < s->m.n_sessions; i++) {
        sched_job *j = s->slots[i].job;
        if (!j) continue;
        pthread_mutex_lock(&s->lock);
        bool cancelled = j->cancelled || s->closing;
        pthread_mutex_unlock(&s->lock);
        err late = err_make(ERR_BUSY, "the request took longer than it may");
        if (cancelled) {
            job_end(s, &s->slots[i], j, SCHED_CANCELLED, &late);
        } else if (j->deadline_ns && now >= j->deadline_ns) {
            job_end(s, &s->slots[i], j, SCHED_FAILED, &late);
        }
    }
}

static size_t common_prefix(const int32_t *a, size_t na, const int32_t *b, size_t nb) {
    size_t n = size_min(na, nb), i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* The free session for this prompt; NULL when all are taken. */
static slot *slot_pick(sched *s, const sched_job *j) {
    slot *best = NULL, *oldest = NULL;
    size_t best_common = 0;
    for (int i = 0; i < s->m.n_sessions; i++) {
        slot *t = &s->slots[i];
        if (t->job) continue;
        size_t n;
        const int32_t *line = s->m.timeline(s->m.ctx, t->session, &n);
        size_t common = common_prefix(line, n, j->tokens, j->n_prompt);
        bool good = common >= MATCH_MIN || (common > 0 && common >= n / 2);
        if (good && (!best || common > best_common)) {
            best = t;
            best_common = common;
        }
        if (!oldest || t->used < oldest->used) oldest = t;
    }
    return best ? best : oldest;
}

static void keep(sched *s, slot *t, bool last) {
    if (t->unkept) s->m.keep(s->m.ctx, t->session, last);
    t->unkept = false;
}

/* A conversation that makes place for another one is kept if it has come back once: most that do
 * not come back never will. */
static void make_place(sched *s, slot *t, const sched_job *j) {
    size_t n;
    const int32_t *line = s->m.timeline(s->m.ctx, t->session, &n);
    if (common_prefix(line, n, j->tokens, j->n_prompt) < n) {
        if (t->answers > 1) keep(s, t, false);
        t->answers = 0;
    }
    t->unkept = false;
}

static void admit_one(sched *s, slot *t, sched_job *j) {
    size_t kept = 0;
    make_place(s, t, j);
    err e = s->m.match(s->m.ctx, t->session, j->tokens, j->n_prompt, &kept);
    if (e.code) {
        job_end(s, t, j, SCHED_FAILED, &e);
        return;
    }
    j->fed = kept;
    pthread_mutex_lock(&s->lock);
    s->counters.tokens_prompt += j->n_prompt;
    s->counters.tokens_cached += kept;
    pthread_mutex_unlock(&s->lock);
    if (j->sink.started) j->sink.started(j->sink.ctx, kept);
}

static void admit(sched *s) {
    for (;;) {
        pthread_mutex_lock(&s->lock);
        sched_job *j = s->queue;
        slot *t = j ? slot_pick(s, j) : NULL;
        if (t) {
            s->queue = j->next;
            if (!s->queue) s->queue_end = &s->queue;
            j->next = NULL;
            t->job = j;
            s->waiting--;
            s->running++;
        }
        pthread_mutex_unlock(&s->lock);
        if (!t) return;
        admit_one(s, t, j);
    }
}

/* ---- one turn ---- */

static size_t unfed(const sched_job *j) { return j->n_tokens - j->fed; }

/* How many tokens to feed, at most rows: up to the next mark, so that a snapshot can be taken
 * there, the end, or a multiple of CHUNK_ALIGN, so that the bits do not depend on who else is
 * running. 0: not enough rows for that. */
static int chunk_of(const sched_job *j, int rows) {
    size_t end = j->fed + (size_t)rows;
    end = end >= j->n_tokens ? j->n_tokens : end - end % CHUNK_ALIGN;
    for (int i = 0; i < j->n_marks; i++)
        if (j->marks[i] > j->fed && j->marks[i] < end) end = j->marks[i];
    return end > j->fed ? (int)(end - j->fed) : 0;
}

/* Who decodes and who fills its session; chunks are cleared. */
static void survey(sched *s, int *decoding, int *filling) {
    *decoding = *filling = 0;
    for (int i = 0; i < s->m.n_sessions; i++) {
        sched_job *j = s->slots[i].job;
        if (!j) continue;
        j->chunk = 0;
        if (unfed(j) == 1) (*decoding)++;
        if (unfed(j) > 1) (*filling)++;
    }
}

/* Sets the chunk of every job: 1 for those that decode, shares of the rest for the others, who take
 * turns in being first. When a step has no room for both, they alternate. */
static int plan(sched *s) {
    int n = s->m.n_sessions, decoding, filling;
    survey(s, &decoding, &filling);
    int rows = s->m.rows_max - decoding;
    bool only_fill = filling && rows < CHUNK_ALIGN && s->turn % 2;
    if (only_fill) {
        rows = s->m.rows_max;
        decoding = 0;
    }
    if (decoding && rows > s->prefill_rows) rows = s->prefill_rows;
    s->next_prefill = (s->next_prefill + 1) % n;
    for (int k = 0; k < n; k++) {
        sched_job *j = s->slots[(s->next_prefill + k) % n].job;
        if (!j || unfed(j) == 0) continue;
        if (unfed(j) == 1) {
            j->chunk = only_fill ? 0 : 1;
            continue;
        }
        int share = int_max(CHUNK_ALIGN, rows / int_max(1, filling--));
        j->chunk = chunk_of(j, int_min(rows, share));
        rows -= j->chunk;
    }
    return decoding;
}

static void after_feed(sched *s, slot *t) {
    sched_job *j = t->job;
    j->fed += (size_t)j->chunk;
    bool mark = j->fed == j->n_prompt;
    for (int i = 0; i < j->n_marks; i++) mark = mark || j->marks[i] == j->fed;
    if (mark && s->m.mark) s->m.mark(s->m.ctx, t->session);
}

/* The session's own length is the truth after a failure. */
static void refeed(sched *s, slot *t) {
    size_t n;
    const int32_t *line = s->m.timeline(s->m.ctx, t->session, &n);
    size_t same = common_prefix(line, n, t->job->tokens, t->job->n_tokens);
    t->job->chunk = 0;
    if (same == n) {
        t->job->fed = n;
        return;
    }
    err e = s->m.match(s->m.ctx, t->session, t->job->tokens, t->job->n_tokens, &t->job->fed);
    if (e.code) t->job->failed = true;
}

/* A step of all failed: each alone, so that one bad apple spoils only itself. */
static void step_alone(sched *s, slot *t) {
    refeed(s, t);
    sched_job *j = t->job;
    if (j->failed) return;
    j->chunk = chunk_of(j, s->m.rows_max);
    fm_item item = {t->session, j->tokens + j->fed, j->chunk};
    j->error = s->m.step(s->m.ctx, &item, 1);
    j->failed = j->error.code != ERR_NONE;
    if (!j->failed) after_feed(s, t);
}

static void step(sched *s) {
    fm_item items[SCHED_SESSIONS_MAX];
    slot *who[SCHED_SESSIONS_MAX];
    int n = 0;
    for (int i = 0; i < s->m.n_sessions; i++) {
        sched_job *j = s->slots[i].job;
        if (!j || j->chunk == 0) continue;
        who[n] = &s->slots[i];
        items[n++] = (fm_item){s->slots[i].session, j->tokens + j->fed, j->chunk};
    }
    if (n == 0) return;
    err e = s->m.step(s->m.ctx, items, n);
    for (int i = 0; i < n; i++) {
        if (e.code) {
            step_alone(s, who[i]);
        } else {
            after_feed(s, who[i]);
        }
    }
}

/* ---- picking a token ---- */

static void logprobs(const sched *s, const sched_job *j, const float *x, sched_token *t) {
    static const float none = -9999.0f; /* what JSON can say for -infinity */
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < s->m.vocab; i++)
        if (x[i] > max) max = x[i];
    for (int i = 0; i < s->m.vocab; i++) sum += exp((double)x[i] - max);
    double base = max + log(sum);
    sched_top *top = (sched_top *)t->top;
    t->n_top = 0;
    for (int i = 0; j->n_top && i < s->m.vocab; i++) {
        if (t->n_top == j->n_top && !(x[i] > top[t->n_top - 1].logprob)) continue;
        int k = t->n_top < j->n_top ? t->n_top++ : t->n_top - 1;
        for (; k > 0 && top[k - 1].logprob < x[i]; k--) top[k] = top[k - 1];
        top[k] = (sched_top){i, x[i]};
    }
    for (int k = 0; k < t->n_top; k++) {
        float lp = (float)((double)top[k].logprob - base);
        top[k].logprob = lp > none ? lp : none;
    }
    float lp = (float)((double)x[t->id] - base);
    t->logprob = lp > none ? lp : none;
}

/* With a bias the logits are others than the session's. */
static err pick_with(sched *s, slot *t, void *sampler, const uint64_t *allowed, int32_t *id) {
    const sched_job *j = t->job;
    if (!j->n_bias) return s->m.session_pick(t->session, sampler, allowed, id);
    const float *x = s->m.logits(s->m.ctx, t->session);
    if (!x) return err_make(ERR_IO, "the logits cannot be read");
    memcpy(s->scratch, x, (size_t)s->m.vocab * sizeof *x);
    for (int i = 0; i < j->n_bias; i++) s->scratch[j->bias[i].id] += j->bias[i].bias;
    return s->m.sampler_pick(sampler, s->scratch, allowed, id);
}

static err pick(sched *s, slot *t, int32_t *id) {
    sched_job *j = t->job;
    bool all = true, greedy = false;
    if (j->constraint.ctx) TRY(j->constraint.mask(j->constraint.ctx, s->allowed, &all, &greedy));
    if (greedy && !j->greedy) {
        fm_sampling p = {.top_p = 1, .repetition_penalty = 1, .seed = 1};
        TRY(s->m.sampler_open(s->m.ctx, &p, &j->greedy));
    }
    TRY(pick_with(s, t, greedy ? j->greedy : j->sampler, all ? NULL : s->allowed, id));
    if (greedy) s->m.sampler_accept(j->sampler, *id);
    return err_none();
}

/* The next token of a job that is fed; forced ones first. *over: the turn ends here. */
static err next_token(sched *s, slot *t, int32_t *id, bool *over) {
    sched_job *j = t->job;
    *over = false;
    if (j->next_forced < j->n_forced) {
        *id = j->forced[j->next_forced++];
        s->m.sampler_accept(j->sampler, *id);
    } else if (j->forced_end) {
        *over = true;
        return err_none();
    } else {
        TRY(pick(s, t, id));
    }
    *over = s->m.is_stop(s->m.ctx, *id);
    if (!*over && j->constraint.ctx) TRY(j->constraint.accept(j->constraint.ctx, *id));
    return err_none();
}

static void speak(sched *s, slot *t) {
    sched_job *j = t->job;
    int32_t id = -1;
    bool over;
    err e = next_token(s, t, &id, &over);
    if (e.code) {
        job_end(s, t, j, SCHED_FAILED, &e);
        return;
    }
    err none = err_none();
    if (over) {
        job_end(s, t, j, SCHED_STOP, &none);
        return;
    }
    sched_top top[SCHED_TOP_MAX];
    sched_token token = {.id = id, .top = top};
    const float *x = j->logprobs ? s->m.logits(s->m.ctx, t->session) : NULL;
    if (j->logprobs && !x) {
        e = err_make(ERR_IO, "the logits cannot be read");
        job_end(s, t, j, SCHED_FAILED, &e);
        return;
    }
    if (x) logprobs(s, j, x, &token);
    j->tokens[j->n_tokens++] = id;
    pthread_mutex_lock(&s->lock);
    s->counters.tokens_made++;
    pthread_mutex_unlock(&s->lock);
    bool more = j->sink.token(j->sink.ctx, j, &token);
    if (!more) {
        job_end(s, t, j, SCHED_STOP, &none);
    } else if (j->n_tokens - j->n_prompt >= (size_t)j->max_tokens) {
        job_end(s, t, j, SCHED_LENGTH, &none);
    }
}

static void turn(sched *s) {
    s->turn++;
    int decoding = plan(s);
    uint64_t before = os_now_ns();
    step(s);
    double seconds = (double)(os_now_ns() - before) * 1e-9;
    fm_stats engine = {0};
    if (s->m.stats) s->m.stats(s->m.ctx, &engine);
    pthread_mutex_lock(&s->lock);
    sched_counters *c = &s->counters;
    c->turns++;
    c->seconds_step += seconds;
    c->engine = engine;
    c->decode_turns += decoding > 0;
    c->decode_rows_sum += (uint64_t)decoding;
    for (int i = 0; i < s->m.n_sessions; i++)
        if (s->slots[i].job) c->rows += (uint64_t)s->slots[i].job->chunk;
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->m.n_sessions; i++) {
        slot *t = &s->slots[i];
        if (!t->job) continue;
        if (t->job->failed) {
            err e = t->job->error;
            job_end(s, t, t->job, SCHED_FAILED, &e);
        } else if (unfed(t->job) == 0) {
            speak(s, t);
        }
    }
}

/* The free conversation that waits longest for being kept; NULL: none. */
static slot *unkept(sched *s) {
    slot *oldest = NULL;
    for (int i = 0; i < s->m.n_sessions; i++) {
        slot *t = &s->slots[i];
        if (!t->job && t->unkept && (!oldest || t->used < oldest->used)) oldest = t;
    }
    return oldest;
}

static void time_after(struct timespec *until, int ms) {
    clock_gettime(CLOCK_REALTIME, until);
    until->tv_sec += ms / 1000;
    until->tv_nsec += (long)(ms % 1000) * 1000000;
    if (until->tv_nsec >= 1000000000) {
        until->tv_sec++;
        until->tv_nsec -= 1000000000;
    }
}

/* Nothing to do, under the lock: waits for work, or until it is time to keep what has ended. */
static bool rest(sched *s, bool some) {
    struct timespec until;
    if (!some) return pthread_cond_wait(&s->work, &s->lock) != 0;
    time_after(&until, s->rest_ms);
    return pthread_cond_timedwait(&s->work, &s->lock, &until) == ETIMEDOUT;
}

static void *engine_thread(void *ctx) {
    sched *s = ctx;
    for (;;) {
        end_dead(s);
        admit(s);
        slot *t = unkept(s);
        pthread_mutex_lock(&s->lock);
        bool busy = s->running > 0;
        bool over = s->closing && !busy && !s->queue;
        bool rested = !busy && !s->queue && !over && rest(s, t != NULL);
        pthread_mutex_unlock(&s->lock);
        if (rested && t) keep(s, t, false);
        if (busy) turn(s);
        if (!over) continue;
        for (; t; t = unkept(s)) keep(s, t, true);
        return NULL;
    }
}

/* ---- opening and closing ---- */

static void sched_free(sched *s) {
    for (int i = 0; s->slots && i < s->m.n_sessions; i++)
        if (s->slots[i].session) s->m.session_close(s->m.ctx, s->slots[i].session);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->idle);
    free(s->slots);
    free(s->scratch);
    free(s->allowed);
    free(s);
}

err sched_open(const sched_options *o, sched **out) {
    *out = NULL;
    if (o->model.n_sessions < 1 || o->model.n_sessions > SCHED_SESSIONS_MAX)
        return err_make(ERR_ARG, "%d sessions, 1 to %d are possible", o->model.n_sessions,
                        SCHED_SESSIONS_MAX);
    if (o->model.rows_max < o->model.n_sessions || o->model.rows_max < CHUNK_ALIGN)
        return err_make(ERR_ARG, "%d sessions, but a step takes %d rows", o->model.n_sessions,
                        o->model.rows_max);
    sched *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for the scheduler");
    s->m = o->model;
    s->queue_max = o->queue_max ? o->queue_max : 64;
    s->rest_ms = o->rest_ms ? o->rest_ms : 2000;
    s->prefill_rows = int_max(o->prefill_rows ? o->prefill_rows : 128, CHUNK_ALIGN);
    s->queue_end = &s->queue;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->slots = calloc((size_t)s->m.n_sessions, sizeof *s->slots);
    s->scratch = malloc((size_t)s->m.vocab * sizeof *s->scratch);
    s->allowed = calloc((size_t)(s->m.vocab + 63) / 64, sizeof *s->allowed);
    err e = err_none();
    if (!s->slots || !s->scratch || !s->allowed)
        e = err_make(ERR_NOMEM, "no memory for the scheduler");
    for (int i = 0; i < s->m.n_sessions && !e.code; i++)
        e = s->m.session_open(s->m.ctx, &s->slots[i].session);
    if (!e.code && pthread_create(&s->thread, NULL, engine_thread, s) != 0)
        e = err_make(ERR_IO, "the engine's thread could not be started");
    if (e.code) {
        sched_free(s);
        return e;
    }
    *out = s;
    return e;
}

void sched_close(sched *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    sched_free(s);
}

bool sched_drain(sched *s, int timeout_ms) {
    struct timespec until;
    time_after(&until, timeout_ms);
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    int rc = 0;
    while ((s->running || s->queue) && rc == 0)
        rc = pthread_cond_timedwait(&s->idle, &s->lock, &until);
    bool empty = !s->running && !s->queue;
    pthread_mutex_unlock(&s->lock);
    return empty;
}

void sched_counters_get(sched *s, sched_counters *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->counters;
    out->running = s->running;
    out->waiting = s->waiting;
    pthread_mutex_unlock(&s->lock);
}
