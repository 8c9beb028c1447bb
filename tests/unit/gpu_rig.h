/* gpu_rig.h: what the tests of an engine on a card (played by the processor) share: options, a
 * question with the processor's answer to it. Include after cmocka.h. */
#ifndef TESTS_GPU_RIG_H
#define TESTS_GPU_RIG_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine_rig.h"

#define CONTEXT 256
#ifndef PROMPT
#define PROMPT 70
#define STEPS  6
#endif
#define NEAR 1e-3f

static char heard[640]; /* the last notice */
static int n_heard;

static inline void hear(void *ctx, const char *text) {
    (void)ctx;
    n_heard++;
    snprintf(heard, sizeof heard, "%s", text);
}

static inline fm_options options_for(const char *model, const char *gpu) {
    static char path[SCRATCH_PATH];
    golden_path(path, model, NULL);
    fm_options o;
    fm_options_init(&o);
    o.model_dir = path;
    o.context = CONTEXT;
    o.threads = 2;
    o.memory = 200 * MIB;
    o.exact = true;
    o.gpu = gpu;
    o.notice = hear;
    return o;
}

static inline bool have_goldens(void) {
    if (golden_root() && !THREADS_WATCHED) return true;
    skip();
    return false;
}

static inline int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* A prompt and greedy tokens after it: the tokens, and the logits of all steps. */
typedef struct answer {
    int32_t ids[STEPS + 1];
    float *logits; /* [STEPS + 1, vocab], owned */
    int vocab;
} answer;

static inline void ask(fm_engine *e, fm_session *s, answer *a) {
    int32_t tokens[PROMPT];
    make_tokens(tokens, PROMPT, 11);
    fm_model m;
    fm_model_get(e, &m);
    a->vocab = m.vocab;
    a->logits = malloc((STEPS + 1) * (size_t)m.vocab * sizeof *a->logits);
    assert_non_null(a->logits);
    ok(fm_session_sync(s, tokens, PROMPT, NULL, NULL));
    for (int i = 0;; i++) {
        const float *x = fm_session_logits(s);
        memcpy(a->logits + (size_t)i * (size_t)m.vocab, x, (size_t)m.vocab * sizeof *x);
        a->ids[i] = argmax(x, m.vocab);
        if (i == STEPS) return;
        ok(fm_session_step(s, a->ids[i]));
    }
}

static inline void same_answer(const answer *a, const answer *b, const char *what, int n) {
    for (int i = 0; i <= STEPS; i++)
        if (a->ids[i] != b->ids[i]) fail_msg("%s %d: token %d differs", what, n, i);
    for (size_t i = 0; i < (STEPS + 1) * (size_t)a->vocab; i++)
        if (!(fabsf(a->logits[i] - b->logits[i]) <= NEAR))
            fail_msg("%s %d: logit %zu: %g, expected %g", what, n, i, (double)a->logits[i],
                     (double)b->logits[i]);
}

/* What the processor alone says. */
static inline answer reference(const char *model) {
    fm_options o = options_for(model, "off");
    fm_engine *e;
    fm_session *s;
    answer a;
    ok(fm_engine_open(&o, &e));
    ok(fm_session_open(e, &s));
    ask(e, s, &a);
    fm_engine_close(e);
    return a;
}

/* The least memory of the card with which n layers are there. */
static inline size_t vram_for(fm_options o, int n) {
    size_t low = 1, high = 64 * MIB;
    while (low < high) {
        fm_plan p;
        o.vram = (low + high) / 2;
        ok(fm_plan_get(&o, &p));
        if (p.card && p.card_layers >= n)
            high = o.vram;
        else
            low = o.vram + 1;
    }
    return low;
}

#endif
