/* gpu_bench_soak.c: see gpu_bench_soak.h. */
#include "gpu_bench_soak.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "gpu_bench_routing.h"
#include "model/gpu_ops_impl.h"

#define MIB       ((size_t)1 << 20)
#define NEAR_TIE  2e-3f
#define PROMPT    200
#define TOKENS    32
#define CHATS     4  /* of an engine */
#define ASKED_MAX 64 /* tokens that are taken apart; more of them only count */

typedef struct soak {
    const soak_settings *s;
    fm_engine *cpu;
    fm_session *exact;
    routers *routers;
    gpu_ops_need need;
    rng random;
    int made, rounds, ties, router_ties, wrong, asked, cancelled;
    int lose_at, lost; /* the token whose step loses the card, -1: none; cards so far */
} soak;

/* A conversation on a card, and its tokens so far. */
typedef struct chat {
    fm_engine *e;
    fm_session *s;
    int32_t ids[PROMPT + TOKENS];
    int prompt, n, vocab;
} chat;

static int below(soak *k, int n) { return (int)(rng_next(&k->random) % (uint64_t)n); }

static int best_of(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
    return best;
}

/* ---- a token that differs ---- */

/* The card's token after the same tokens from the start. */
static fm_error once_more(const soak *k, chat *c, int *id) {
    fm_session_clear(c->s);
    routers_begin_card(k->routers);
    fm_error e = fm_session_sync(c->s, c->ids, (size_t)c->prompt, NULL, NULL);
    for (int i = c->prompt; i < c->n && !e.code; i++) e = fm_session_step(c->s, c->ids[i]);
    if (!e.code) *id = best_of(fm_session_logits(c->s), c->vocab);
    return e;
}

static void print_other(const char *what, const router_other *o) {
    fprintf(stderr,
            "    %s: position %d, layer %d: expert %d for %d, %.2g less likely for the processor's "
            "router\n",
            what, o->position, o->layer, o->gained, o->lost, o->gap);
}

/* Why the card says got where the processor says want. Leaves the card's session as it was. */
static fm_error take_apart(soak *k, chat *c, int want, int got) {
    int forced = -1, again = -1;
    fm_error e = routers_force(k->routers, c->e);
    if (!e.code) e = once_more(k, c, &forced);
    const router_report r = *routers_report(k->routers);
    if (!e.code) e = routers_free(k->routers, c->e);
    if (!e.code) e = once_more(k, c, &again);
    if (e.code) return e;
    bool near = r.others > 0 && r.widest.gap < ROUTER_TIE;
    if (r.others) print_other("first other choice", &r.first);
    if (r.others > 1) print_other("and the least equal one", &r.widest);
    fprintf(stderr,
            "    %d other choices in %d positions; rounding moves the other differences of logits "
            "by %.2g, at most %.2g (a tie: below %g)\n",
            r.others, c->n, r.off_sum / (double)(r.n_off ? r.n_off : 1), r.off_max, ROUTER_TIE);
    bool tie = near && forced == want && again == got;
    fprintf(stderr, "    asked again: %s token; with the processor's experts: %s: %s\n",
            again == got ? "the same" : "ANOTHER",
            forced == want ? "the processor's token" : "NOT the processor's token",
            tie ? "a tie of routers" : "OTHER");
    if (tie) k->router_ties++;
    if (!tie) k->wrong++;
    return e;
}

/* The card's next token against the processor's, whose timeline follows the card's. */
static fm_error compare(soak *k, chat *c, int32_t *id) {
    const float *ours = fm_session_logits(k->exact);
    int want = best_of(ours, c->vocab), got = best_of(fm_session_logits(c->s), c->vocab);
    float less = ours[want] - ours[got];
    fm_error e = {FM_OK, ""};
    *id = (int32_t)got;
    k->made++;
    if (got != want)
        fprintf(stderr, "  token %d: the card's is %g less likely\n", k->made, (double)less);
    if (got != want && less < NEAR_TIE)
        k->ties++;
    else if (got != want && k->asked++ < ASKED_MAX)
        e = take_apart(k, c, want, got);
    else if (got != want)
        k->wrong++;
    return e.code ? e : fm_session_step(k->exact, *id);
}

/* ---- a card that is lost ---- */

/* What comes next on the card's queue fails. The processor that plays a card is told to. */
static fm_error break_card(const fm_engine *e) {
    args_words bad = {.from = 16, .to = 16, .n = 4};
    err failed = err_none();
    if (!e->gpu) return (fm_error){FM_ERR_UNSUPPORTED, "there is no card to lose"};
    if (!strcmp(e->gpu->info.backend, "cuda"))
        failed = gpu_do(e->gpu, GPU_words, &bad);
    else
        gpu_fail_at(e->gpu->device, GPU_CALL_LAUNCH, 1);
    return fm_error_from(&failed);
}

static void hear(void *ctx, const char *text) {
    (void)ctx;
    fprintf(stderr, "  %s\n", text);
}

/* ---- conversations ---- */

/* A step; now and then one that is cancelled first. */
static fm_error soak_step(soak *k, const chat *c, int32_t id) {
    if (below(k, 8) == 0) {
        fm_cancel(c->e);
        fm_error stopped = fm_session_step(c->s, id);
        fm_cancel_clear(c->e);
        k->cancelled += stopped.code == FM_ERR_CANCELLED;
        if (stopped.code != FM_ERR_CANCELLED) return stopped; /* it was too late */
    }
    return fm_session_step(c->s, id);
}

static fm_error soak_chat(soak *k, fm_engine *e, fm_session *s) {
    chat c = {.e = e, .s = s, .vocab = e->files.config.vocab};
    int32_t id;
    c.n = c.prompt = 1 + below(k, PROMPT);
    for (int i = 0; i < c.n; i++) c.ids[i] = below(k, c.vocab);
    fm_session_clear(s);
    fm_session_clear(k->exact);
    routers_begin_exact(k->routers);
    routers_begin_card(k->routers);
    fm_error error = fm_session_sync(k->exact, c.ids, (size_t)c.n, NULL, NULL);
    if (below(k, 2)) { /* given up, and begun again from what is there */
        fm_cancel(e);
        fm_error stopped = fm_session_sync(s, c.ids, (size_t)c.n, NULL, NULL);
        fm_cancel_clear(e);
        k->cancelled += stopped.code == FM_ERR_CANCELLED;
    }
    if (!error.code) error = fm_session_sync(s, c.ids, (size_t)c.n, NULL, NULL);
    for (int i = 0; i < TOKENS && !error.code; i++) {
        error = compare(k, &c, &id);
        bool lose = k->made == k->lose_at;
        if (!error.code && lose) error = break_card(e);
        if (!error.code) error = lose ? fm_session_step(s, id) : soak_step(k, &c, id);
        k->lost += lose && !e->gpu;
        c.ids[c.n++] = id;
    }
    return error;
}

static fm_error soak_round(soak *k) {
    fm_options o;
    fm_options_init(&o);
    o.model_dir = k->s->model;
    o.gpu = k->s->gpu;
    o.context = 1024;
    o.kv = FM_KV_F32; /* as the exact path's */
    const gpu_ops_need *need = &k->need;
    size_t fixed = need->trunk + need->kv + need->state + need->activations +
                   (size_t)need->keys * (sizeof(gpu_slot));
    size_t slots = (size_t)(2 + below(k, need->keys * 5 / 4));
    o.vram = fixed + slots * (need->slot_bytes + sizeof(gpu_slot));
    fm_plan p;
    fm_error error = fm_plan_get(&o, &p);
    o.memory = p.floor + (size_t)below(k, 100) * p.experts_total / 80 + 2 * MIB;
    o.no_look_ahead = below(k, 4) == 0;
    k->lose_at = -1;
    if (k->s->lose) {
        k->lose_at = k->made + 1 + below(k, CHATS * TOKENS);
        o.memory = p.floor + p.trunk + p.experts_total + 256 * MIB; /* the processor has room */
        o.exact = true;
        o.notice = hear;
    }
    fm_engine *e = NULL;
    fm_session *s = NULL;
    if (!error.code) error = fm_engine_open(&o, &e);
    if (!error.code) error = fm_session_open(e, &s);
    if (!error.code) error = routers_free(k->routers, e);
    for (int i = 0; i < CHATS && !error.code; i++) error = soak_chat(k, e, s);
    if (e) {
        fm_stats t;
        fm_stats_get(e, &t);
        fprintf(stderr, "  %zu of %d slots, memory %zu MiB: %llu uploads, %llu promoted\n", slots,
                need->keys, o.memory / MIB, (unsigned long long)t.gpu_uploads,
                (unsigned long long)t.gpu_promotions);
    }
    fm_engine_close(e);
    k->rounds++;
    return error;
}

fm_error soak_run(const soak_settings *s) {
    soak k = {.s = s};
    fm_options o;
    fm_options_init(&o);
    rng_seed(&k.random, s->seed);
    o.model_dir = s->model;
    o.context = 1024;
    o.gpu = s->gpu;
    o.kv = FM_KV_F32;
    o.vram = 16 * MIB; /* little: short chunks, as under the limits of the rounds */
    memory_plan plan;
    err measured = memory_plan_get(&o, &plan);
    fm_error e = fm_error_from(&measured);
    k.need = plan.need;
    o.gpu = "off";
    o.vram = 0;
    o.exact = true;
    if (!e.code) e = fm_engine_open(&o, &k.cpu);
    if (!e.code) e = fm_session_open(k.cpu, &k.exact);
    if (!e.code) e = routers_open(k.cpu, PROMPT + TOKENS, (double)s->provoke, &k.routers);
    while (!e.code && k.made < s->tokens && !(s->lose && k.rounds)) e = soak_round(&k);
    routers_close(k.routers);
    fm_engine_close(k.cpu);
    printf("%s: %d tokens in %d engines of random limits, %d cancelled: %d other than the "
           "processor's exact path, %d ties, %d ties of routers%s\n",
           s->name, k.made, k.rounds, k.cancelled, k.wrong, k.ties, k.router_ties,
           k.lost ? "; the card was lost" : "");
    if (!e.code && s->lose && !k.lost) e = (fm_error){FM_ERR_CORRUPT, "the card was not lost"};
    if (!e.code && k.wrong) e = (fm_error){FM_ERR_CORRUPT, "tokens differ"};
    return e;
}
