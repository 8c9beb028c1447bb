/* The sampler: against a twin that sorts everything, on random logits with ties, infinities and
 * masks; the share of each token over many draws; fixed tokens for fixed seeds (the same on every
 * platform); refusals. The engine calls that sample.c's public face needs are not made here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/os.h"
#include "engine/sample.h"
#include "scratch.h"

#include <math.h>

#define VOCAB_MAX 4096

/* ---- the twin ----------------------------------------------------------- */

typedef struct twin {
    fm_sampling p;
    rng random;
    int vocab;
    int count[VOCAB_MAX];
} twin;

static float twin_work[VOCAB_MAX];

static int by_order(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    if (twin_work[x] != twin_work[y]) return twin_work[x] > twin_work[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

static int by_id(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static double twin_weight(const twin *t, int id, float highest) {
    double x = ((double)twin_work[id] - (double)highest) / (double)t->p.temperature;
    return x >= -80 ? (double)(float)exp(x) : 0;
}

static double twin_sum(const twin *t, const int *ids, int n, float highest) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += twin_weight(t, ids[i], highest);
    return sum;
}

static void twin_penalize(twin *t) {
    for (int i = 0; i < t->vocab; i++) {
        if (!t->count[i]) continue;
        float *l = &twin_work[i];
        *l = *l > 0 ? *l / t->p.repetition_penalty : *l * t->p.repetition_penalty;
        *l -= t->p.presence_penalty;
        *l -= t->p.frequency_penalty * (float)t->count[i];
    }
}

static int twin_draw(twin *t, int *ids, int n) {
    float highest = twin_work[ids[0]];
    int sorted[VOCAB_MAX];
    if (t->p.top_k > 0 && t->p.top_k < n) n = t->p.top_k;
    if (t->p.top_p < 1) {
        memcpy(sorted, ids, sizeof(int) * (size_t)n);
        qsort(sorted, (size_t)n, sizeof(int), by_id);
        double want = (double)t->p.top_p * twin_sum(t, sorted, n, highest), sum = 0;
        for (int i = 0; i < n; i++) {
            sum += twin_weight(t, ids[i], highest);
            if (sum >= want) n = i + 1;
        }
    }
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (twin_weight(t, ids[i], highest) >= (double)t->p.min_p) ids[kept++] = ids[i];
    qsort(ids, (size_t)kept, sizeof(int), by_id);
    double at = rng_unit(&t->random) * twin_sum(t, ids, kept, highest), sum = 0;
    for (int i = 0; i < kept; i++) {
        sum += twin_weight(t, ids[i], highest);
        if (at < sum) return ids[i];
    }
    return -1;
}

static int twin_pick(twin *t, const float *logits, const uint64_t *allowed) {
    int ids[VOCAB_MAX], n = t->vocab;
    memcpy(twin_work, logits, sizeof(float) * (size_t)t->vocab);
    twin_penalize(t);
    for (int i = 0; i < n; i++) {
        ids[i] = i;
        if (allowed && !(allowed[i / 64] >> (i % 64) & 1)) twin_work[i] = -INFINITY;
    }
    qsort(ids, (size_t)n, sizeof(int), by_order);
    int id = t->p.temperature > 0 ? twin_draw(t, ids, n) : ids[0];
    t->count[id]++;
    return id;
}

/* ---- random cases ------------------------------------------------------- */

static float one_of(rng *r, const float *values, int n) {
    return values[rng_next(r) % (unsigned)n];
}
#define ONE_OF(r, ...)                                                                             \
    one_of(r, (const float[]){__VA_ARGS__}, sizeof((float[]){__VA_ARGS__}) / sizeof(float))

static fm_sampling random_sampling(rng *r) {
    fm_sampling p;
    fm_sampling_init(&p);
    p.temperature = ONE_OF(r, 0, 0.01f, 0.3f, 0.7f, 1, 2, 50);
    p.top_k = (int)ONE_OF(r, 0, 0, 1, 2, 20, 63, 5000);
    p.top_p = ONE_OF(r, 1, 1, 0, 0.1f, 0.5f, 0.8f, 0.95f, 0.999999f);
    p.min_p = ONE_OF(r, 0, 0, 0, 0.05f, 0.5f, 1);
    p.repetition_penalty = ONE_OF(r, 1, 1, 1.3f, 0.8f);
    p.presence_penalty = ONE_OF(r, 0, 0, 1.5f, -1);
    p.frequency_penalty = ONE_OF(r, 0, 0, 0.5f, -0.2f);
    p.seed = rng_next(r);
    return p;
}

static void random_logits(rng *r, float *logits, int n) {
    float spread = ONE_OF(r, 0, 0.1f, 3, 30), step = ONE_OF(r, 0, 0.5f);
    bool holes = rng_next(r) % 8 == 0;
    for (int i = 0; i < n; i++) {
        float x = spread * (float)(rng_unit(r) + rng_unit(r) + rng_unit(r) - 1.5);
        logits[i] = step > 0 ? step * roundf(x / step) : x; /* many ties */
        if (holes && rng_next(r) % 3 == 0) logits[i] = -INFINITY;
    }
}

/* At least one bit below n, whose logit is finite. */
static const uint64_t *random_mask(rng *r, uint64_t *mask, float *logits, int n) {
    int kind = (int)(rng_next(r) % 4);
    if (kind == 0) return NULL;
    for (int w = 0; w * 64 < n; w++) {
        mask[w] = rng_next(r);
        if (kind == 1) mask[w] = 0;
        if (kind == 2) mask[w] |= rng_next(r) | rng_next(r) % 2 * UINT64_MAX;
    }
    int sure = (int)(rng_next(r) % (unsigned)n);
    mask[sure / 64] |= 1ull << (sure % 64);
    if (logits[sure] == -INFINITY) logits[sure] = 0.25f;
    return mask;
}

static void against_twin(void **unused) {
    (void)unused;
    static const int sizes[] = {1, 2, 7, 8, 9, 63, 64, 65, 320, 1000, VOCAB_MAX};
    rng r;
    rng_seed(&r, 20251125);
    static float logits[VOCAB_MAX], before[VOCAB_MAX];
    static uint64_t mask[VOCAB_MAX / 64 + 1];
    static twin t;
    int rounds = getenv("FM_TEST_FAST") ? 400 : 3000;
    for (int round = 0; round < rounds; round++) {
        t = (twin){.p = random_sampling(&r), .vocab = sizes[rng_next(&r) % 11]};
        rng_seed(&t.random, t.p.seed);
        fm_sampler *s;
        assert_ok(sampler_open(t.vocab, &t.p, &s));
        for (int k = 0; k < 6; k++) {
            random_logits(&r, logits, t.vocab);
            if (logits[0] == -INFINITY) logits[0] = 0;
            const uint64_t *allowed = random_mask(&r, mask, logits, t.vocab);
            memcpy(before, logits, sizeof before);
            int32_t id;
            assert_ok(sampler_pick(s, logits, allowed, &id));
            int want = twin_pick(&t, logits, allowed);
            if (id != want) fail_msg("round %d pick %d: %d, twin %d", round, k, id, want);
            assert_memory_equal(before, logits, sizeof before);
        }
        fm_sampler_close(s);
    }
}

/* What a card gives. */
static void top_of(const float *logits, int n, top_logits *out) {
    static int ids[VOCAB_MAX];
    memcpy(twin_work, logits, sizeof(float) * (size_t)n);
    for (int i = 0; i < n; i++) ids[i] = i;
    qsort(ids, (size_t)n, sizeof(int), by_order);
    out->n = n < TOP_LOGITS ? n : TOP_LOGITS;
    for (int i = 0; i < out->n; i++) {
        out->id[i] = ids[i];
        out->value[i] = logits[ids[i]] + 0.0f;
    }
}

/* The highest logits alone give the token that all of them give, or say that they do not; and the
 * next tokens are the same too: counts and random numbers moved on alike. */
static void from_the_highest(void **unused) {
    (void)unused;
    static const int sizes[] = {1, 2, 64, 127, 128, 129, 130, 320, 1000, VOCAB_MAX};
    rng r;
    rng_seed(&r, 20261126);
    static float logits[VOCAB_MAX];
    static uint64_t mask[VOCAB_MAX / 64 + 1];
    int rounds = getenv("FM_TEST_FAST") ? 1000 : 6000;
    int decided[2] = {0}; /* without a mask, with one */
    for (int round = 0; round < rounds; round++) {
        fm_sampling p = random_sampling(&r);
        int vocab = sizes[rng_next(&r) % 10];
        fm_sampler *a, *b;
        assert_ok(sampler_open(vocab, &p, &a));
        assert_ok(sampler_open(vocab, &p, &b));
        for (int k = 0; k < 6; k++) {
            random_logits(&r, logits, vocab);
            if (logits[0] == -INFINITY) logits[0] = 0;
            const uint64_t *allowed = random_mask(&r, mask, logits, vocab);
            top_logits top;
            top_of(logits, vocab, &top);
            int32_t want, id;
            assert_ok(sampler_pick(a, logits, allowed, &want));
            if (sampler_pick_top(b, &top, allowed, &id)) {
                decided[allowed != NULL]++;
            } else {
                assert_ok(sampler_pick(b, logits, allowed, &id));
            }
            if (id != want) fail_msg("round %d pick %d: %d, all logits %d", round, k, id, want);
        }
        fm_sampler_close(a);
        fm_sampler_close(b);
    }
    assert_true(decided[0] > rounds / 2 && decided[1] > rounds / 2);
}

/* What must be decided: greedy and top-k up to the number there is, with penalties; and what must
 * not: no top-k, penalties that raise. */
static void what_the_highest_decide(void **unused) {
    (void)unused;
    static float logits[1000];
    for (int i = 0; i < 1000; i++) logits[i] = (float)(i * 7919 % 1000) / 100;
    top_logits top;
    top_of(logits, 1000, &top);
    static const struct {
        float temperature, presence, repetition;
        int top_k;
        bool decided;
    } cases[] = {{0, 0, 1, 0, true},     {0, 1.5f, 1.1f, 0, true},    {0, -1, 1, 0, false},
                 {1, 0, 1, 128, true},   {1, 0, 1, 129, false},       {1, 0, 1, 0, false},
                 {1, 0.5f, 1, 20, true}, {0.7f, 1.5f, 1, 120, false}, {1, 0, 0.5f, 20, false}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        fm_sampling p;
        fm_sampling_init(&p);
        p.temperature = cases[c].temperature;
        p.presence_penalty = cases[c].presence;
        p.repetition_penalty = cases[c].repetition;
        p.top_k = cases[c].top_k;
        p.penalize_prompt = true;
        fm_sampler *s;
        assert_ok(sampler_open(1000, &p, &s));
        for (int i = 0; i < 20; i++) fm_sampler_accept(s, top.id[i]);
        int32_t id;
        if (sampler_pick_top(s, &top, NULL, &id) != cases[c].decided) fail_msg("case %zu", c);
        fm_sampler_close(s);
    }
}

/* ---- what the numbers mean ---------------------------------------------- */

/* 200,000 draws from four tokens: shares within 5 standard deviations. */
static void shares(void **unused) {
    (void)unused;
    const float logits[5] = {0, 1, -INFINITY, 2, 3};
    fm_sampling p;
    fm_sampling_init(&p);
    p.temperature = 2;
    p.seed = 42;
    fm_sampler *s;
    assert_ok(sampler_open(5, &p, &s));
    const int n = 200000;
    int count[5] = {0};
    for (int i = 0; i < n; i++) {
        int32_t id;
        assert_ok(sampler_pick(s, logits, NULL, &id));
        count[id]++;
    }
    double total = 0;
    for (int i = 0; i < 5; i++) total += exp((double)logits[i] / 2);
    for (int i = 0; i < 5; i++) {
        double q = exp((double)logits[i] / 2) / total;
        double deviation = fabs(count[i] - n * q) / sqrt(n * q * (1 - q) + 1e-9);
        if (deviation > 5) fail_msg("token %d: %d draws, expected %.0f", i, count[i], n * q);
    }
    fm_sampler_close(s);
}

/* Recorded once on x86-64; what any platform must give. */
static void fixed_seeds(void **unused) {
    (void)unused;
    static float logits[1000];
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 1000; i++) logits[i] = 6 * (float)rng_unit(&r);
    static const struct {
        float temperature, top_p, min_p;
        int top_k;
        int32_t want[8];
    } cases[] = {
        {1, 1, 0, 0, {702, 269, 849, 981, 987, 881, 54, 83}},
        {0.7f, 0.8f, 0, 20, {881, 681, 641, 960, 304, 104, 452, 509}},
        {1.5f, 0.95f, 0.05f, 0, {2, 244, 117, 740, 931, 747, 687, 503}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        fm_sampling p;
        fm_sampling_init(&p);
        p.temperature = cases[c].temperature;
        p.top_p = cases[c].top_p;
        p.min_p = cases[c].min_p;
        p.top_k = cases[c].top_k;
        p.presence_penalty = 0.5f;
        p.seed = 7 + c;
        fm_sampler *s;
        assert_ok(sampler_open(1000, &p, &s));
        for (int k = 0; k < 8; k++) {
            int32_t id;
            assert_ok(sampler_pick(s, logits, NULL, &id));
            if (id != cases[c].want[k]) fail_msg("case %zu pick %d: %d", c, k, id);
        }
        fm_sampler_close(s);
    }
}

static void greedy_and_penalties(void **unused) {
    (void)unused;
    const float logits[4] = {1, 3, 3, 2.5f};
    fm_sampling p;
    fm_sampling_init(&p);
    p.presence_penalty = 1;
    fm_sampler *s;
    assert_ok(sampler_open(4, &p, &s));
    fm_sampler_accept(s, 1); /* part of the prompt: not counted */
    int32_t id;
    const int want[] = {1, 2, 3, 1};
    for (int k = 0; k < 4; k++) {
        assert_ok(sampler_pick(s, logits, NULL, &id));
        assert_int_equal(id, want[k]);
    }
    fm_sampler_close(s);

    p.penalize_prompt = true;
    assert_ok(sampler_open(4, &p, &s));
    fm_sampler_accept(s, 1);
    fm_sampler_accept(s, -1);
    fm_sampler_accept(s, 4);
    assert_ok(sampler_pick(s, logits, NULL, &id));
    assert_int_equal(id, 2);
    fm_sampler_accept(s, 3); /* told after the first pick: always counted */
    assert_ok(sampler_pick(s, logits, NULL, &id));
    assert_int_equal(id, 1);
    fm_sampler_close(s);
}

/* ---- refusals ----------------------------------------------------------- */

static void bad_logits(void **unused) {
    (void)unused;
    fm_sampling p;
    fm_sampling_init(&p);
    for (int t = 0; t < 2; t++) {
        p.temperature = (float)t;
        fm_sampler *s;
        assert_ok(sampler_open(100, &p, &s));
        float logits[100] = {0};
        int32_t id;
        logits[77] = NAN;
        assert_err(sampler_pick(s, logits, NULL, &id), ERR_CORRUPT, "token 77 is not a number");
        logits[77] = INFINITY;
        assert_err(sampler_pick(s, logits, NULL, &id), ERR_CORRUPT, "token 77 is infinite");
        logits[77] = -INFINITY;
        assert_ok(sampler_pick(s, logits, NULL, &id));
        uint64_t none[2] = {0, 1ull << 50}; /* a bit beyond the vocabulary is no permission */
        assert_err(sampler_pick(s, logits, none, &id), ERR_ARG, "no token is allowed");
        uint64_t dead[2] = {0, 1ull << 13 | 1ull << 20};
        logits[84] = -INFINITY;
        assert_ok(sampler_pick(s, logits, dead, &id));
        assert_int_equal(id, 77);
        assert_err(sampler_pick(s, NULL, NULL, &id), ERR_ARG, "no logits");
        fm_sampler_close(s);
    }
}

static void bad_fields(void **unused) {
    (void)unused;
    fm_sampling base;
    fm_sampling_init(&base);
    fm_sampler *s;
#define REFUSED(field, value, needle)                                                              \
    do {                                                                                           \
        fm_sampling p = base;                                                                      \
        p.field = value;                                                                           \
        assert_err(sampler_open(10, &p, &s), ERR_ARG, needle);                                     \
        assert_null(s);                                                                            \
    } while (0)
    REFUSED(temperature, -0.1f, "temperature");
    REFUSED(temperature, NAN, "temperature");
    REFUSED(temperature, INFINITY, "temperature");
    REFUSED(top_p, 1.01f, "top_p");
    REFUSED(top_p, -1, "top_p");
    REFUSED(min_p, 2, "min_p");
    REFUSED(top_k, -1, "top_k");
    REFUSED(repetition_penalty, 0, "repetition_penalty");
    REFUSED(presence_penalty, NAN, "presence_penalty");
    REFUSED(frequency_penalty, 1000, "frequency_penalty");
#undef REFUSED
}

/* Not a test of speed (machines differ): prints what docs/MEASURED.md records. */
static void cost(void **unused) {
    (void)unused;
    enum { VOCAB = 248320, PICKS = 50 };
    float *logits = malloc(VOCAB * sizeof *logits);
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = 0;
        for (int k = 0; k < 4; k++) logits[i] += 6 * (float)rng_unit(&r);
    }
    static const struct {
        const char *name;
        float temperature, top_p, min_p;
        int top_k;
    } cases[] = {{"greedy", 0, 1, 0, 0},
                 {"top_k 20, top_p 0.8", 0.7f, 0.8f, 0, 20},
                 {"top_p 0.95", 0.7f, 0.95f, 0, 0},
                 {"min_p 0.05", 1, 1, 0.05f, 0},
                 {"temperature only", 1, 1, 0, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        fm_sampling p;
        fm_sampling_init(&p);
        p.temperature = cases[c].temperature;
        p.top_p = cases[c].top_p;
        p.min_p = cases[c].min_p;
        p.top_k = cases[c].top_k;
        fm_sampler *s;
        assert_ok(sampler_open(VOCAB, &p, &s));
        uint64_t begin = os_now_ns();
        int32_t id;
        for (int k = 0; k < PICKS; k++) assert_ok(sampler_pick(s, logits, NULL, &id));
        printf("sampling, vocabulary %d, %s: %.0f us\n", VOCAB, cases[c].name,
               (double)(os_now_ns() - begin) / PICKS / 1000);
        fm_sampler_close(s);
    }
    free(logits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_twin),
        cmocka_unit_test(from_the_highest),
        cmocka_unit_test(what_the_highest_decide),
        cmocka_unit_test(shares),
        cmocka_unit_test(fixed_seeds),
        cmocka_unit_test(greedy_and_penalties),
        cmocka_unit_test(bad_logits),
        cmocka_unit_test(bad_fields),
        cmocka_unit_test(cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
