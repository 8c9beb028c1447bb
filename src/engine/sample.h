/* sample.h: the sampler without an engine around it (tests need no model). The face for programs is
 * fm_sampler_* of flashmoe.h; this one says exactly what is computed, so that a twin can be
 * written.
 *
 * With l the logits, n the count of how often a token was generated:
 *
 *   1. penalties, float32, only where n > 0:  l = l > 0 ? l / repetition : l * repetition
 *                                             l = l - presence;  l = l - frequency * n
 *   2. not allowed: out of the game. temperature 0: the highest l, lowest id of equals; done.
 *   3. weight w = exp((l - highest l) / temperature), computed in double by additions and
 *      multiplications alone (no library function), rounded to float32
 *   4. top-k: the k highest (l, then lower id)
 *   5. top-p: of those, highest first, the shortest run with sum of w >= top_p * sum of all w
 *      (sums in double; the total in ascending id order, the run in descending order of l)
 *   6. min-p: of those, w >= min_p (the highest has w = 1)
 *   7. draw: u * sum of w, u uniform in [0, 1) from xoshiro256** seeded with `seed`, one number a
 *      pick; ids ascending, the first whose running sum exceeds it. Greedy picks draw nothing.
 *
 * Every step is IEEE arithmetic in a fixed order: the same bits on every platform. */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "base/err.h"
#include "flashmoe.h"
#include "model/ops.h"

/* vocab >= 1. ERR_ARG names the field of *p that is out of range; ERR_NOMEM. Memory: up to 28 bytes
 * a vocabulary entry, less when greedy, without penalties or with top_k. */
err sampler_open(int vocab, const fm_sampling *p, fm_sampler **out) MUST_USE;

/* As fm_sampler_pick. ERR_CORRUPT names the first token whose logit is NaN or +infinity (allowed or
 * not); -infinity is legal and has weight 0. When all that is allowed is -infinity the lowest
 * allowed id is picked. Allocates nothing. Cost: a few passes over the vocabulary
 * (docs/MEASURED.md, "sampling"). */
err sampler_pick(fm_sampler *s, const float *logits, const uint64_t *allowed,
                 int32_t *out) MUST_USE;
/* The same token (and the same random numbers used) from the highest logits alone. False: they
 * do not decide it, nothing has changed, use sampler_pick. They decide when the k tokens that
 * steps 1 to 4 leave are all among them: penalties that raise a logit, no top_k, or a mask that
 * allows few of them, do not. */
bool sampler_pick_top(fm_sampler *s, const top_logits *top, const uint64_t *allowed, int32_t *out);

#endif
