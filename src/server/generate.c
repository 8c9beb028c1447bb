/* generate.c: one generation, from the body to the last byte.
 *
 * A worker reads the body, renders the prompt, checks the limits and submits one job for each
 * choice; from then on the engine's thread calls back with tokens, which go through the reply (what
 * is said) and the emitter (how the API says it) to the client. When the client leaves, the jobs
 * are cancelled.
 *
 * A generation has two owners: the worker until it has submitted, the engine until the last job has
 * ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "server/server_impl.h"

typedef struct choice {
    struct generation *g;
    int index;
} choice;

typedef struct generation {
    server *s;
    web_exchange *x;
    request r;
    emit m;
    reply *replies;       /* [n] */
    choice *choices;      /* [n] */
    port_prompt *prompts; /* [n_prompts] */
    sched_request *jobs;  /* [n], until they are submitted */
    uint64_t *ids;        /* [n] */
    char **echo;          /* [n]; texts of prompts, borrowed from r */
    fm_tokens forced;     /* test builds: what the answer begins with */
    int *scripted;        /* [n]; test builds: tokens until it ends; 0: no limit */
    int n, n_prompts;
    uint64_t begun_ns, started_ns, first_ns;
    atomic_int refs;
    /* engine thread */
    int left;
    bool begun;
    err failure;
} generation;

static void release(generation *g) {
    if (atomic_fetch_sub(&g->refs, 1) != 1) return;
    for (int i = 0; g->replies && i < g->n; i++) reply_close(&g->replies[i]);
    for (int i = 0; g->prompts && i < g->n_prompts; i++) port_prompt_free(&g->prompts[i]);
    emit_close(&g->m);
    request_free(&g->r);
    fm_tokens_free(&g->forced);
    free(g->replies);
    free(g->choices);
    free(g->prompts);
    free(g->jobs);
    free(g->ids);
    free(g->echo);
    free(g->scripted);
    free(g);
}

/* ---- the engine's thread ---- */

/* What the emitter has written goes to the client; false: nobody reads it. */
static bool flush(generation *g) {
    bool ok = true;
    if (g->r.stream && g->m.out.length) ok = web_stream_write(g->x, g->m.out.data, g->m.out.length);
    if (g->r.stream) g->m.out.length = 0;
    return ok;
}

static void started(void *ctx, size_t cached) {
    generation *g = ((choice *)ctx)->g;
    if (g->begun) return;
    g->begun = true;
    g->started_ns = os_now_ns();
    g->m.cached_tokens = cached;
    err e = g->m.ops->begin(&g->m);
    if (e.code) g->failure = e;
    if (g->r.stream) web_stream_ping(g->x, g->m.ops->ping);
    flush(g);
}

static err said(void *ctx, reply *y, const piece *p) {
    (void)y;
    choice *c = ctx;
    return c->g->m.ops->piece(&c->g->m, c->index, p);
}

static bool token(void *ctx, sched_job *job, const sched_token *t) {
    choice *c = ctx;
    generation *g = c->g;
    if (!g->first_ns) {
        g->first_ns = os_now_ns();
        metrics_first_token(g->s, (double)(g->first_ns - g->begun_ns) * 1e-9);
    }
    bool more = true;
    reply *y = &g->replies[c->index];
    err e = reply_token(y, t, &more);
    if (!e.code && more && g->s->close_thought.count && reply_thought_enough(y))
        e = sched_force(job, g->s->close_thought.ids, (int)g->s->close_thought.count);
    if (g->scripted && g->scripted[c->index] && --g->scripted[c->index] == 0) more = false;
    if (e.code) g->failure = e;
    return flush(g) && more && !e.code;
}

static void count(generation *g) {
    metrics *m = &g->s->m;
    uint64_t now = os_now_ns();
    pthread_mutex_lock(&m->lock);
    m->prompt_tokens += g->m.prompt_tokens - g->m.cached_tokens;
    m->predicted_tokens += (uint64_t)emit_made(&g->m);
    if (g->first_ns && g->started_ns) {
        m->prompt_seconds += (double)(g->first_ns - g->started_ns) * 1e-9;
        m->predicted_seconds += (double)(now - g->first_ns) * 1e-9;
    }
    pthread_mutex_unlock(&m->lock);
}

static void debug_reply(generation *g) {
    if (!slog_debugs(g->s->log)) return;
    for (int i = 0; i < g->n; i++) {
        reply *y = &g->replies[i];
        json_t *message = reply_message(y);
        char *text = json_dumps(message, JSON_INDENT(1));
        slog_debug(g->s->log, web_serial(g->x), "reply.txt", y->raw.data ? y->raw.data : "",
                   y->raw.length);
        if (text) slog_debug(g->s->log, web_serial(g->x), "reply.json", text, strlen(text));
        free(text);
        json_decref(message);
    }
}

/* The answer as it will come back: a client puts the beginning that it asked for in front. */
static json_t *message_with_prefill(const generation *g, const reply *y) {
    json_t *m = reply_message(y);
    const char *text = json_string_value(json_object_get(m, "content"));
    if (g->r.prefill)
        json_object_set_new(m, "content", json_sprintf("%s%s", g->r.prefill, text ? text : ""));
    return m;
}

static bool join_ids(const fm_tokens *a, const fm_tokens *b, fm_tokens *out) {
    size_t n = a->count + b->count;
    *out = (fm_tokens){.ids = malloc((n + 1) * sizeof *out->ids), .count = n, .capacity = n + 1};
    if (!out->ids) return false;
    memcpy(out->ids, a->ids, a->count * sizeof *a->ids);
    if (b->count) memcpy(out->ids + a->count, b->ids, b->count * sizeof *b->ids);
    return true;
}

/* One choice is enough: the others would be found under other messages, but no session has them
 * for long. */
static void remember(generation *g) {
    const reply *y = &g->replies[0];
    if (!g->s->port->remember || !g->r.messages) return;
    bool cut = y->finish == FINISH_LENGTH && y->content.length && !y->n_calls;
    if (y->finish != FINISH_STOP && y->finish != FINISH_CALLS && !cut) return;
    json_t *message = message_with_prefill(g, y);
    fm_tokens ids;
    if (message && join_ids(&g->prompts[0].tokens, &y->ids, &ids)) {
        g->s->port->remember(g->s->port->ctx, &g->r, &g->prompts[0], message, &ids);
        fm_tokens_free(&ids);
    }
    json_decref(message);
}

static int status_of(err_code code) {
    switch (code) {
    case ERR_ARG:
    case ERR_RANGE: return 400;
    case ERR_BUDGET: /* a card was lost, and the processor has not the memory */
    case ERR_BUSY: return 503;
    default: return 500;
    }
}

/* The last bytes. */
static void finish_answer(generation *g) {
    err e = g->failure;
    if (!e.code) e = g->m.ops->end(&g->m);
    if (e.code)
        slog_line(g->s->log, "request %llu failed: %s", (unsigned long long)web_serial(g->x),
                  e.text);
    if (!g->r.stream) {
        if (e.code) {
            server_fail_api(g->x, g->r.api, status_of(e.code), NULL, e.text);
        } else {
            web_answer(g->x, 200, NULL, g->m.out.data, g->m.out.length);
        }
        return;
    }
    const char *type = emit_error_type(g->r.api, e.code ? status_of(e.code) : 500);
    if (e.code && g->m.ops->fail(&g->m, type, e.text).code)
        g->m.out.length = 0; /* no memory even for that: the stream just ends */
    flush(g);
    web_stream_end(g->x);
}

static void ended(void *ctx, sched_end why, const err *e) {
    choice *c = ctx;
    generation *g = c->g;
    err settled = reply_end(&g->replies[c->index], why);
    if (why == SCHED_FAILED && !g->failure.code) g->failure = *e;
    if (why == SCHED_CANCELLED && !g->failure.code)
        g->failure = err_make(ERR_BUSY, "the request was cancelled");
    if (settled.code && !g->failure.code) g->failure = settled;
    if (!g->failure.code) {
        settled = g->m.ops->choice_end(&g->m, c->index);
        if (settled.code) g->failure = settled;
    }
    flush(g);
    if (--g->left > 0) return;
    count(g);
    debug_reply(g);
    remember(g);
    finish_answer(g);
    release(g);
}

/* From the watcher or front thread, while the exchange is locked. */
static void client_gone(void *ctx) {
    generation *g = ctx;
    for (int i = 0; i < g->n; i++) sched_cancel(g->s->sched, g->ids[i]);
    pthread_mutex_lock(&g->s->m.lock);
    g->s->m.gone++;
    pthread_mutex_unlock(&g->s->m.lock);
}

/* ---- the worker: reading ---- */

static bool model_known(const server *s, const char *name) {
    if (strcasecmp(name, s->port->id) == 0) return true;
    for (const char *const *a = s->o.aliases; a && *a; a++)
        if (strcmp(*a, "*") == 0 || strcasecmp(name, *a) == 0) return true;
    return false;
}

bool server_read(server *s, web_exchange *x, request_api api, request *r) {
    size_t length;
    const char *bytes = web_body(x, &length);
    json_t *body;
    char param[64] = "";
    slog_debug(s->log, web_serial(x), "request.json", bytes, length);
    err e = request_json(bytes, length, &body);
    web_body_drop(x);
    if (!e.code) e = request_parse(api, body, r, param);
    if (e.code) {
        server_fail_api(x, api, status_of(e.code), param, e.text);
        return false;
    }
    if (r->model && !model_known(s, r->model)) {
        char text[512];
        snprintf(text, sizeof text,
                 "model: %.200s is not served here; this server has %.200s (GET /v1/models)",
                 r->model, s->port->id);
        request_free(r);
        server_fail_api(x, api, 404, "model", text);
        return false;
    }
    return true;
}

/* Templates differ in what they accept: the conversation is tried as it is first. */
err server_prompt(server *s, request *r, port_prompt *out) {
    const port *p = s->port;
    err e = p->render(p->ctx, r, out);
    if (e.code == ERR_ARG && request_later_system_to_user(r)) {
        port_prompt_free(out);
        e = p->render(p->ctx, r, out);
    }
    if (!e.code && r->prefill)
        e = p->tokenize(p->ctx, FM_CONTENT, r->prefill, strlen(r->prefill), &out->tokens);
    if (e.code) port_prompt_free(out);
    return e;
}

static err ids_prompt(server *s, const json_t *list, port_prompt *out) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || id >= s->port->engine.vocab)
            return err_make(ERR_ARG, "prompt: token %lld is outside the vocabulary of %d",
                            (long long)id, s->port->engine.vocab);
        fm_error e = fm_tokens_push(&out->tokens, (int32_t)id);
        if (e.code) return err_make(ERR_NOMEM, "no memory for the prompt");
    }
    return err_none();
}

static err make_prompts(generation *g) {
    server *s = g->s;
    if (g->r.messages) return server_prompt(s, &g->r, &g->prompts[0]);
    for (int i = 0; i < g->n_prompts; i++) {
        const json_t *p = json_array_get(g->r.prompts, (size_t)i);
        port_prompt *out = &g->prompts[i];
        if (json_is_string(p)) {
            TRY(s->port->tokenize(s->port->ctx, FM_MARKUP, json_string_value(p),
                                  json_string_length(p), &out->tokens));
        } else {
            TRY(ids_prompt(s, p, out));
        }
        if (out->tokens.count == 0) return err_make(ERR_ARG, "prompt: is empty");
    }
    return err_none();
}

/* ---- the worker: limits and jobs ---- */

static void sampling_defaults(const port *p, request *r) {
    const fm_sampling *d = &p->sampling;
    fm_sampling *x = &r->sampling;
    if (!(r->set & SET_TEMPERATURE)) x->temperature = d->temperature;
    if (!(r->set & SET_TOP_P)) x->top_p = d->top_p;
    if (!(r->set & SET_TOP_K)) x->top_k = d->top_k;
    if (!(r->set & SET_MIN_P)) x->min_p = d->min_p;
    if (!(r->set & SET_REPETITION)) x->repetition_penalty = d->repetition_penalty;
    if (!(r->set & SET_PRESENCE)) x->presence_penalty = d->presence_penalty;
    if (!(r->set & SET_FREQUENCY)) x->frequency_penalty = d->frequency_penalty;
    if (x->top_p <= 0) x->top_p = 1e-6f; /* the most likely token only */
    if (!(r->set & SET_SEED)) x->seed = os_now_ns();
}

static err check_room(const generation *g, const port_prompt *p) {
    size_t context = (size_t)g->s->port->engine.context;
    if (p->tokens.count < context) return err_none();
    return err_make(ERR_ARG,
                    "%s: the prompt has %zu tokens and leaves no room for an answer: the context "
                    "window of this server has %zu tokens",
                    g->r.messages ? "messages" : "prompt", p->tokens.count, context);
}

static err make_job(generation *g, int i) {
    const port_prompt *p = &g->prompts[i / (g->n / g->n_prompts)];
    TRY(check_room(g, p));
    int64_t room = (int64_t)g->s->port->engine.context - (int64_t)p->tokens.count;
    int64_t want = g->r.max_tokens < 0 || g->r.max_tokens > room ? room : g->r.max_tokens;
    sched_request *j = &g->jobs[i];
    g->choices[i] = (choice){g, i};
    *j = (sched_request){.prompt = p->tokens.ids,
                         .n_prompt = p->tokens.count,
                         .marks = p->marks,
                         .n_marks = p->n_marks,
                         .max_tokens = (int)want,
                         .sampling = g->r.sampling,
                         .bias = g->r.bias,
                         .n_bias = g->r.n_bias,
                         .logprobs = g->r.logprobs,
                         .n_top = (int)g->r.top_logprobs,
                         .sink = {&g->choices[i], started, token, ended}};
    j->sampling.seed += (uint64_t)i;
    int seconds = g->s->o.request_seconds;
    j->deadline_ns = os_now_ns() + (uint64_t)(seconds ? seconds : 3600) * 1000000000u;
    TRY(reply_open(g->s->port, &g->r, !g->r.messages, p->reasoning, &g->replies[i]));
    g->replies[i].sink = said;
    g->replies[i].ctx = &g->choices[i];
    if (!g->s->port->constrain) return err_none();
    return g->s->port->constrain(g->s->port->ctx, &g->r, p, &j->constraint);
}

/* Test builds: what the answer begins with is given. What the model adds shall call nothing. */
static err script_more(generation *g, int more) {
    const port *p = g->s->port;
    fm_tokens call = {0};
    err e = p->tokenize(p->ctx, FM_MARKUP, "<tool_call>", 11, &call);
    sched_bias *bias = realloc(g->r.bias, (size_t)(g->r.n_bias + 1) * sizeof *bias);
    g->scripted = calloc((size_t)g->n, sizeof *g->scripted);
    if (bias) g->r.bias = bias;
    if (!e.code && (!bias || !g->scripted)) e = err_make(ERR_NOMEM, "no memory for a script");
    if (!e.code && call.count == 1) bias[g->r.n_bias++] = (sched_bias){call.ids[0], -100};
    for (int i = 0; i < g->n && !e.code; i++) {
        g->scripted[i] = (int)g->forced.count + more;
        g->jobs[i].bias = g->r.bias;
        g->jobs[i].n_bias = g->r.n_bias;
    }
    fm_tokens_free(&call);
    return e;
}

static err script(generation *g) {
    server_script given = {0};
    if (!g->s->o.script || !g->s->o.script(g->s->o.script_ctx, &g->r, &given)) return err_none();
    const port *p = g->s->port;
    err e = p->tokenize(p->ctx, FM_MARKUP, given.text, strlen(given.text), &g->forced);
    for (int i = 0; i < g->n && !e.code; i++) {
        g->jobs[i].forced = g->forced.ids;
        g->jobs[i].n_forced = (int)g->forced.count;
        g->jobs[i].forced_end = given.more == 0;
    }
    if (!e.code && given.more > 0) e = script_more(g, given.more);
    free(given.text);
    return e;
}

static err prepare(generation *g) {
    g->n_prompts = g->r.messages ? 1 : (int)json_array_size(g->r.prompts);
    g->n = g->n_prompts * (int)g->r.n;
    size_t n = (size_t)g->n;
    g->prompts = calloc((size_t)g->n_prompts, sizeof *g->prompts);
    g->replies = calloc(n, sizeof *g->replies);
    g->choices = calloc(n, sizeof *g->choices);
    g->jobs = calloc(n, sizeof *g->jobs);
    g->ids = calloc(n, sizeof *g->ids);
    g->echo = calloc(n, sizeof *g->echo);
    if (!g->prompts || !g->replies || !g->choices || !g->jobs || !g->ids || !g->echo)
        return err_make(ERR_NOMEM, "no memory for a request");
    TRY(make_prompts(g));
    sampling_defaults(g->s->port, &g->r);
    for (int i = 0; i < g->n; i++) {
        const json_t *p = json_array_get(g->r.prompts, (size_t)(i / (int)g->r.n));
        g->echo[i] = json_is_string(p) ? (char *)(uintptr_t)json_string_value(p) : "";
        TRY(make_job(g, i));
    }
    TRY(emit_open(&g->r, g->s->port->id, g->replies, g->n, &g->m));
    g->m.echo = g->echo;
    for (int i = 0; i < g->n_prompts; i++) g->m.prompt_tokens += g->prompts[i].tokens.count;
    return script(g);
}

static err submit(generation *g) {
    g->left = g->n;
    web_exchange_take(g->x);
    atomic_fetch_add(&g->refs, 1); /* the engine's */
    err e = sched_submit(g->s->sched, g->jobs, g->n, g->ids);
    if (e.code) {
        atomic_fetch_sub(&g->refs, 1);
        web_exchange_release(g->x);
        return e.code == ERR_RANGE ? err_make(ERR_ARG, "%s", e.text) : e;
    }
    if (g->r.stream) web_stream_begin(g->x, "text/event-stream", ": keep-alive\n\n");
    web_on_gone(g->x, client_gone, g);
    web_exchange_release(g->x);
    return e;
}

void server_generate(server *s, web_exchange *x, request_api api) {
    generation *g = calloc(1, sizeof *g);
    if (!g) {
        server_fail_api(x, api, 503, NULL, "no memory for a request");
        return;
    }
    g->s = s;
    g->x = x;
    g->refs = 1;
    g->begun_ns = os_now_ns();
    if (!server_read(s, x, api, &g->r)) {
        release(g);
        return;
    }
    err e = prepare(g);
    if (!e.code && g->prompts[0].text)
        slog_debug(s->log, web_serial(x), "prompt.txt", g->prompts[0].text,
                   strlen(g->prompts[0].text));
    bool submitted = false;
    if (!e.code) {
        e = submit(g);
        submitted = true; /* the constraints are the scheduler's, also on failure */
    }
    if (e.code) {
        for (int i = 0; g->jobs && !submitted && i < g->n; i++)
            if (g->jobs[i].constraint.ctx) g->jobs[i].constraint.close(g->jobs[i].constraint.ctx);
        char param[64];
        size_t n = strcspn(e.text, ":");
        snprintf(param, sizeof param, "%.*s", n < 32 && e.text[n] ? (int)n : 0, e.text);
        if (e.code == ERR_BUSY) web_set_header(x, "Retry-After", "2");
        server_fail_api(x, api, e.code == ERR_BUSY ? 429 : status_of(e.code), param, e.text);
    } else {
        pthread_mutex_lock(&s->m.lock);
        s->m.generations[api]++;
        pthread_mutex_unlock(&s->m.lock);
    }
    release(g);
}

/* ---- prompts without generation ---- */

void server_count_tokens(server *s, web_exchange *x) {
    request r;
    if (!server_read(s, x, API_MESSAGES, &r)) return;
    port_prompt p = {0};
    err e = server_prompt(s, &r, &p);
    if (e.code) {
        server_fail_api(x, API_MESSAGES, status_of(e.code), NULL, e.text);
    } else {
        server_json(x, json_pack("{s:I}", "input_tokens", (json_int_t)p.tokens.count));
    }
    port_prompt_free(&p);
    request_free(&r);
}

void server_apply_template(server *s, web_exchange *x) {
    request r;
    if (!server_read(s, x, API_TEMPLATE, &r)) return;
    port_prompt p = {0};
    err e = server_prompt(s, &r, &p);
    if (e.code) {
        server_fail_api(x, API_TEMPLATE, status_of(e.code), NULL, e.text);
    } else {
        json_t *ids = json_array();
        for (size_t i = 0; i < p.tokens.count; i++)
            json_array_append_new(ids, json_integer(p.tokens.ids[i]));
        server_json(x, json_pack("{s:s, s:o}", "prompt", p.text ? p.text : "", "tokens", ids));
    }
    port_prompt_free(&p);
    request_free(&r);
}
