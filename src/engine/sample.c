/* sample.c: from logits to a token. sample.h fixes what is computed; this file is about doing it
 * without sorting a vocabulary of a quarter of a million.
 *
 *   work  [vocab]    penalised logits, -infinity where not allowed
 *   ids, weight [n]  those still in the game, ids ascending
 *   heap  [n]        keys: (logit, lower id first) as one integer whose order is the sampling order
 *
 * Each filter ends in one number, the lowest key that stays, because "the k highest" and "the
 * shortest run" are both everything above a line. top-k keeps a heap of k; top-p drops what is
 * too light to matter (all that is dropped together weighs less than half of what top-p cuts off),
 * makes a heap of the rest and takes from it until the line is reached. */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define TEMPERATURE_MAX 100.0f
#define PENALTY_MAX     100.0f

struct fm_sampler {
    fm_sampling p; /* fixed after open */
    int vocab;
    bool penalizes, picked;
    rng random;
    float *work;        /* owned [vocab] */
    int32_t *ids;       /* owned [n_max]; NULL when greedy */
    float *weight;      /* owned [n_max]; NULL when greedy */
    uint64_t *heap;     /* owned [n_max]; NULL when greedy */
    uint32_t *count;    /* owned [vocab]: how often generated; NULL without penalties */
    int32_t *generated; /* owned [vocab]: the distinct ones, n_generated of them */
    int n_generated;
    int n_max; /* most candidates: top_k or vocab */
};

/* ---- opening ------------------------------------------------------------ */

static err check_range(const char *name, float value, float low, float high) {
    if (value >= low && value <= high) return err_none();
    return err_make(ERR_ARG, "%s is %g; it must be from %g to %g", name, (double)value, (double)low,
                    (double)high);
}

static err check(const fm_sampling *p) {
    TRY(check_range("temperature", p->temperature, 0, TEMPERATURE_MAX));
    TRY(check_range("top_p", p->top_p, 0, 1));
    TRY(check_range("min_p", p->min_p, 0, 1));
    TRY(check_range("repetition_penalty", p->repetition_penalty, 0.01f, PENALTY_MAX));
    TRY(check_range("presence_penalty", p->presence_penalty, -PENALTY_MAX, PENALTY_MAX));
    TRY(check_range("frequency_penalty", p->frequency_penalty, -PENALTY_MAX, PENALTY_MAX));
    if (p->top_k < 0) return err_make(ERR_ARG, "top_k is %d; it must be 0 (off) or more", p->top_k);
    return err_none();
}

err sampler_open(int vocab, const fm_sampling *p, fm_sampler **out) {
    *out = NULL;
    TRY(check(p));
    fm_sampler *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "sampler: no memory");
    s->p = *p;
    s->vocab = vocab;
    s->penalizes =
        p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    s->n_max = p->top_k > 0 && p->top_k < vocab ? p->top_k : vocab;
    rng_seed(&s->random, p->seed);

    size_t n = (size_t)vocab;
    bool draws = p->temperature > 0;
    s->work = calloc(n, sizeof *s->work);
    if (draws) s->ids = calloc((size_t)s->n_max, sizeof *s->ids);
    if (draws) s->weight = calloc((size_t)s->n_max, sizeof *s->weight);
    if (draws) s->heap = calloc((size_t)s->n_max, sizeof *s->heap);
    if (s->penalizes) s->count = calloc(n, sizeof *s->count);
    if (s->penalizes) s->generated = calloc(n, sizeof *s->generated);
    if (!s->work || (draws && (!s->ids || !s->weight || !s->heap)) ||
        (s->penalizes && (!s->count || !s->generated))) {
        fm_sampler_close(s);
        return err_make(ERR_NOMEM, "sampler: no memory for a vocabulary of %d", vocab);
    }
    *out = s;
    return err_none();
}

void fm_sampler_close(fm_sampler *s) {
    if (!s) return;
    free(s->work);
    free(s->ids);
    free(s->weight);
    free(s->heap);
    free(s->count);
    free(s->generated);
    free(s);
}

/* Restores the heap below i; `sign` 0: smallest at the top, ~0: largest at the top. */
static void sift_down(uint64_t *heap, int n, int i, uint64_t sign) {
    uint64_t moving = heap[i];
    for (;;) {
        int child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && (heap[child + 1] ^ sign) < (heap[child] ^ sign)) child++;
        if ((heap[child] ^ sign) >= (moving ^ sign)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static void heapify(uint64_t *heap, int n, uint64_t sign) {
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(heap, n, i, sign);
}

/* ---- weights ------------------------------------------------------------ */

/* exp(x) for x <= 0, as float32; below -80 it is 0. Taylor series in double to the 13th power
 * around the nearest multiple of ln 2: only additions and multiplications, so the same bits
 * everywhere, and without branches, so that loops over it vectorise. */
static inline float weight_of(double x) {
    const double round_big = 0x1.8p+52;
    double within = x >= -80 ? x : -80;
    double big = within * 0x1.71547652b82fep+0 + round_big;
    double n = big - round_big;
    double r = (within - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; /* ln 2 in two parts */
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t bits;
    memcpy(&bits, &big, sizeof bits); /* its low bits are n */
    bits = (bits + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x >= -80 ? (float)(p * power) : 0;
}

static inline float weight_at(const fm_sampler *s, int32_t id, float highest) {
    return weight_of(((double)s->work[id] - (double)highest) / (double)s->p.temperature);
}

static void weigh_all(const float *restrict work, int n, float highest, float temperature,
                      float *restrict weight) {
    for (int i = 0; i < n; i++)
        weight[i] = weight_of(((double)work[i] - (double)highest) / (double)temperature);
}

/* ---- the steps of a pick ------------------------------------------------ */

static err copy_checked(fm_sampler *s, const float *logits) {
    /* All bits of the exponent: infinite or NaN. A pass that vectorises, then the culprit. */
    uint32_t bad = 0;
    for (int i = 0; i < s->vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        s->work[i] = logits[i];
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    for (int i = 0; bad && i < s->vocab; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return err_make(ERR_CORRUPT,
                            "the logit of token %d is %s: the model's weights or this computation "
                            "are broken",
                            i, isnan(logits[i]) ? "not a number" : "infinite");
    }
    return err_none();
}

static float penalized(const fm_sampler *s, int32_t id, float l) {
    l = l > 0 ? l / s->p.repetition_penalty : l * s->p.repetition_penalty;
    l = l - s->p.presence_penalty;
    return l - s->p.frequency_penalty * (float)s->count[id];
}

static void penalize(fm_sampler *s) {
    for (int k = 0; k < s->n_generated; k++) {
        int32_t id = s->generated[k];
        s->work[id] = penalized(s, id, s->work[id]);
    }
}

/* -infinity to what is not allowed; *lowest is the first allowed id. */
static err mask(fm_sampler *s, const uint64_t *allowed, int32_t *lowest) {
    *lowest = -1;
    for (int base = 0; base < s->vocab; base += 64) {
        uint64_t word = allowed[base / 64];
        int end = int_min(base + 64, s->vocab);
        if (word == UINT64_MAX) {
            if (*lowest < 0) *lowest = base;
            continue;
        }
        for (int i = base; i < end; i++) {
            if (word >> (i - base) & 1) {
                if (*lowest < 0) *lowest = i;
            } else {
                s->work[i] = -INFINITY;
            }
        }
    }
    if (*lowest < 0) return err_make(ERR_ARG, "no token is allowed here");
    return err_none();
}

/* The first id of the highest logit: lanes first, so that the compiler can vectorise. */
static float highest_of(const float *x, int n) {
    float lane[8];
    for (int j = 0; j < 8; j++) lane[j] = -INFINITY;
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    float best = -INFINITY;
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    for (int j = 0; j < 8; j++) best = lane[j] > best ? lane[j] : best;
    return best;
}

static int32_t first_with(const float *x, float value) {
    int32_t i = 0;
    while (x[i] != value) i++;
    return i;
}

/* Key of the k-th highest of work; k < vocab. */
static uint64_t top_k_line(fm_sampler *s, int k) {
    for (int i = 0; i < k; i++) s->heap[i] = logit_key(s->work[i], i);
    heapify(s->heap, k, 0);
    for (int i = k; i < s->vocab; i++) {
        uint64_t key = logit_key(s->work[i], i);
        if (key <= s->heap[0]) continue;
        s->heap[0] = key;
        sift_down(s->heap, k, 0, 0);
    }
    return s->heap[0];
}

/* Fills ids and weight with what is on or above the line; returns how many. */
static int gather(fm_sampler *s, uint64_t line, float highest) {
    int n = 0;
    if (line == 0) {
        for (; n < s->vocab; n++) s->ids[n] = n;
        weigh_all(s->work, n, highest, s->p.temperature, s->weight);
        return n;
    }
    for (int32_t i = 0; i < s->vocab; i++)
        if (logit_key(s->work[i], i) >= line) s->ids[n++] = i;
    for (int i = 0; i < n; i++) s->weight[i] = weight_at(s, s->ids[i], highest);
    return n;
}

static double total_weight(const float *weight, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)weight[i];
    return sum;
}

/* Key of the last token of the shortest run whose weight reaches top_p of the total. */
static uint64_t top_p_line(fm_sampler *s, int n, float highest) {
    double total = total_weight(s->weight, n);
    double want = (double)s->p.top_p * total;
    double light = 0.5 * (1 - (double)s->p.top_p) * total / n;
    int m = 0;
    for (int i = 0; i < n; i++)
        if ((double)s->weight[i] >= light) s->heap[m++] = logit_key(s->work[s->ids[i]], s->ids[i]);
    heapify(s->heap, m, UINT64_MAX);
    double sum = 0;
    uint64_t line = s->heap[0];
    while (m > 0) {
        line = s->heap[0];
        sum += (double)weight_at(s, logit_key_id(line), highest);
        if (sum >= want) break;
        s->heap[0] = s->heap[--m];
        sift_down(s->heap, m, 0, UINT64_MAX);
    }
    return line;
}

/* Keeps the candidates that are on or above the line and weigh at least `lightest`. */
static int keep(fm_sampler *s, int n, uint64_t line, float lightest) {
    int m = 0;
    for (int i = 0; i < n; i++) {
        int32_t id = s->ids[i];
        float weight = s->weight[i];
        if (weight < lightest || logit_key(s->work[id], id) < line) continue;
        s->ids[m] = id;
        s->weight[m++] = weight;
    }
    return m;
}

/* Among the n in ids, which weigh `weight`; `first` is the highest of them. */
static int32_t draw(fm_sampler *s, int n, float highest, int32_t first) {
    if (s->p.top_p < 1) n = keep(s, n, top_p_line(s, n, highest), 0);
    if (s->p.min_p > 0) n = keep(s, n, 0, s->p.min_p);
    double at = rng_unit(&s->random) * total_weight(s->weight, n), sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)s->weight[i];
        if (at < sum) return s->ids[i];
    }
    return first; /* only when penalties made it infinite */
}

static void remember(fm_sampler *s, int32_t id) {
    if (!s->penalizes || id < 0 || id >= s->vocab) return;
    if (s->count[id] == 0) s->generated[s->n_generated++] = id;
    if (s->count[id] < UINT32_MAX) s->count[id]++;
}

err sampler_pick(fm_sampler *s, const float *logits, const uint64_t *allowed, int32_t *out) {
    *out = 0;
    if (!logits)
        return err_make(ERR_ARG, "there are no logits yet: sync or step the session first");
    TRY(copy_checked(s, logits));
    if (s->n_generated) penalize(s);
    int32_t lowest = 0;
    if (allowed) TRY(mask(s, allowed, &lowest));
    float highest = highest_of(s->work, s->vocab);
    if (highest == -INFINITY) {
        *out = lowest;
    } else if (s->p.temperature > 0) {
        uint64_t line = s->n_max < s->vocab ? top_k_line(s, s->n_max) : 0;
        int n = gather(s, line, highest);
        *out = draw(s, n, highest, first_with(s->work, highest));
    } else {
        *out = first_with(s->work, highest);
    }
    s->picked = true;
    remember(s, *out);
    return err_none();
}

/* ---- from the highest logits alone -------------------------------------- */

static bool allows(const uint64_t *allowed, int32_t id) {
    return allowed[id / 64] >> (id % 64) & 1;
}

/* The keys of those that are allowed, after penalties, in order. */
static int candidates(fm_sampler *s, const top_logits *top, const uint64_t *allowed,
                      uint64_t *key) {
    int n = 0;
    for (int i = 0; i < top->n; i++) {
        int32_t id = top->id[i];
        if (allowed && !allows(allowed, id)) continue;
        s->work[id] = top->value[i];
        if (s->n_generated && s->count[id]) s->work[id] = penalized(s, id, top->value[i]);
        uint64_t k = logit_key(s->work[id], id);
        int at = n++;
        for (; at > 0 && key[at - 1] < k; at--) key[at] = key[at - 1];
        key[at] = k;
    }
    return n;
}

/* Whether the n candidates are all tokens that are allowed. */
static bool complete(const fm_sampler *s, const top_logits *top, const uint64_t *allowed, int n) {
    if (top->n == s->vocab) return true;
    int64_t in_all = 0;
    for (int w = 0; allowed && w * 64 < s->vocab && in_all <= n; w++) {
        int left = s->vocab - w * 64;
        uint64_t word = left < 64 ? allowed[w] & ((1ull << left) - 1) : allowed[w];
        in_all += __builtin_popcountll(word);
    }
    return allowed && in_all == n;
}

/* How many of the n candidates surely come before every token that is not among them. Those outside
 * were below the last one of `top`, and are still if penalties only lower. */
static int sure_ones(const fm_sampler *s, const top_logits *top, const uint64_t *key, int n) {
    const fm_sampling *p = &s->p;
    bool lowers =
        p->repetition_penalty >= 1 && p->presence_penalty >= 0 && p->frequency_penalty >= 0;
    if (s->n_generated && !lowers) return 0;
    uint64_t line = logit_key(top->value[top->n - 1], top->id[top->n - 1]);
    int sure = 0;
    while (sure < n && key[sure] >= line) sure++;
    return sure;
}

/* ids ascending, and their weights. */
static void take(fm_sampler *s, const uint64_t *key, int n, float highest) {
    for (int i = 0; i < n; i++) {
        int32_t id = logit_key_id(key[i]);
        int at = i;
        for (; at > 0 && s->ids[at - 1] > id; at--) s->ids[at] = s->ids[at - 1];
        s->ids[at] = id;
    }
    for (int i = 0; i < n; i++) s->weight[i] = weight_at(s, s->ids[i], highest);
}

bool sampler_pick_top(fm_sampler *s, const top_logits *top, const uint64_t *allowed, int32_t *out) {
    uint64_t key[TOP_LOGITS];
    bool draws = s->p.temperature > 0;
    int wanted = draws ? s->n_max : 1;
    *out = 0;
    int n = candidates(s, top, allowed, key);
    if (!n) return false;
    if (sure_ones(s, top, key, n) < wanted && !complete(s, top, allowed, n)) return false;
    int32_t first = logit_key_id(key[0]);
    float highest = s->work[first];
    if (isinf(highest)) return false;
    n = int_min(n, wanted);
    if (draws) take(s, key, n, highest);
    *out = draws ? draw(s, n, highest, first) : first;
    s->picked = true;
    remember(s, *out);
    return true;
}

/* ---- the public face ---------------------------------------------------- */

void fm_sampling_init(fm_sampling *p) { *p = (fm_sampling){.top_p = 1, .repetition_penalty = 1}; }

void fm_sampler_accept(fm_sampler *s, int32_t id) {
    if (s->picked || s->p.penalize_prompt) remember(s, id);
}
