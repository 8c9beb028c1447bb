/* rope.c: see rope.h. One small function per scaling type, each turning the plain frequencies into
 * its own. */
#include "model/rope.h"

#include <assert.h>
#include <math.h>

#define PI 3.14159265358979323846

/* theta^(2i / rot), rounded where the reference rounds: the exponent, then the power. */
static float wave_scale(double theta, int rot, int i) {
    float exponent = (float)(2 * i) / (float)rot;
    return (float)pow((double)(float)theta, (double)exponent);
}

static void plain(const rope_config *rope, int rot, float *inv_freq) {
    for (int i = 0; i < rot / 2; i++) inv_freq[i] = 1.0f / wave_scale(rope->theta, rot, i);
}

static void scale_linear(const rope_config *rope, int rot, float *inv_freq) {
    for (int i = 0; i < rot / 2; i++) inv_freq[i] /= (float)rope->factor;
}

/* The (fractional) pair that makes this many turns over the trained length. */
static double yarn_pair(const rope_config *rope, int rot, double turns) {
    return rot * log(rope->original_context / (turns * 2 * PI)) / (2 * log(rope->theta));
}

/* Pairs below `low` turn fast and keep their frequency, pairs above `high` are slowed by factor, a
 * ramp joins them. */
static void scale_yarn(const rope_config *rope, int rot, float *inv_freq) {
    double low = yarn_pair(rope, rot, rope->beta_fast);
    double high = yarn_pair(rope, rot, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, rot - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < rot / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        float slowed = 1.0f / ((float)rope->factor * wave_scale(rope->theta, rot, i));
        inv_freq[i] = slowed * (1.0f - keep) + inv_freq[i] * keep;
    }
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static float yarn_attention(const rope_config *rope) {
    if (rope->attention_factor >= 0) return (float)rope->attention_factor;
    if (rope->mscale != 0 && rope->mscale_all_dim != 0)
        return (float)(yarn_mscale(rope->factor, rope->mscale) /
                       yarn_mscale(rope->factor, rope->mscale_all_dim));
    return (float)yarn_mscale(rope->factor, 1);
}

/* Long waves are slowed by factor, short ones kept, those between mixed. */
static void scale_llama3(const rope_config *rope, int rot, float *inv_freq) {
    float factor = (float)rope->factor, original = (float)rope->original_context;
    float low = (float)rope->low_freq_factor;
    float span = (float)(rope->high_freq_factor - rope->low_freq_factor);
    float longest_kept = (float)(rope->original_context / rope->high_freq_factor);
    float shortest_slowed = (float)(rope->original_context / rope->low_freq_factor);
    for (int i = 0; i < rot / 2; i++) {
        float wave = (float)(2 * PI) / inv_freq[i];
        if (wave < longest_kept) continue;
        if (wave > shortest_slowed) {
            inv_freq[i] /= factor;
        } else {
            float smooth = (original / wave - low) / span;
            inv_freq[i] = (1.0f - smooth) * inv_freq[i] / factor + smooth * inv_freq[i];
        }
    }
}

err rope_frequencies(const rope_config *rope, int rot_dims, int context, float *inv_freq,
                     float *attention_factor) {
    assert(rot_dims >= 2 && rot_dims % 2 == 0);
    if (rope->scaling == ROPE_DYNAMIC && context > rope->original_context)
        return err_make(ERR_UNSUPPORTED,
                        "rope scaling \"dynamic\": a context of %d is not supported, at most the "
                        "trained %d",
                        context, rope->original_context);
    plain(rope, rot_dims, inv_freq);
    *attention_factor = 1.0f;
    switch (rope->scaling) {
    case ROPE_DEFAULT:
    case ROPE_DYNAMIC: break;
    case ROPE_LINEAR: scale_linear(rope, rot_dims, inv_freq); break;
    case ROPE_LLAMA3: scale_llama3(rope, rot_dims, inv_freq); break;
    case ROPE_YARN:
        scale_yarn(rope, rot_dims, inv_freq);
        *attention_factor = yarn_attention(rope);
        break;
    }
    return err_none();
}
