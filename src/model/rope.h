/* rope.h: the frequencies of rotary position embedding, with the context extensions in use.
 *
 * Pair i of a head (dimensions i and i + rot/2) turns by position * inv_freq[i]; cos and sin are
 * multiplied by attention_factor. Positions of text only: the three mrope streams are equal. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "base/err.h"
#include "format/config.h"

/* inv_freq [rot_dims / 2] f32, attention_factor one f32 (1 unless yarn). rot_dims is rope->dims:
 * even, from 2. context is the largest number of positions that will be used.
 *
 * Follows the reference (transformers 5) operation by operation in float32, so the values are its
 * own up to the last bit of pow.
 *
 * Errors  ERR_UNSUPPORTED for dynamic scaling when context passes the trained length: the
 *         reference then changes the frequencies with every token, which no cache of keys survives.
 *         Up to that length dynamic is exactly default. The outs are then untouched. */
err rope_frequencies(const rope_config *rope, int rot_dims, int context, float *inv_freq,
                     float *attention_factor) MUST_USE;

#endif
