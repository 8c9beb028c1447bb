/* config.h: what a checkpoint's config.json says about the model, validated.
 *
 * Nothing is guessed: a field that changes the maths and is unknown, or has a value that we do not
 * implement, is refused by name (ERR_UNSUPPORTED); a field with an impossible value is ERR_CORRUPT.
 * Missing fields take the value that the public reference implementation gives them. Dimensions are
 * bounded so that products of two of them fit an int64. */
#ifndef FORMAT_CONFIG_H
#define FORMAT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "quant/blocks.h"

#define CONFIG_LAYERS_MAX 256
#define CONFIG_EOS_MAX    8

typedef enum model_family { FAMILY_QWEN3_5_MOE, FAMILY_QWEN3_NEXT, FAMILY_QWEN3_MOE } model_family;

typedef enum rope_scaling {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_DYNAMIC
} rope_scaling;

typedef struct rope_config {
    double theta;
    double partial; /* share of head_dim that turns: 0.25, or 1 */
    int dims;       /* how many that is: the first dims of a head, even, 2 to head_dim */
    rope_scaling scaling;
    double factor;                            /* > 0; 1 for default */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow,
        attention_factor;          /* yarn; attention_factor < 0: derive it from factor, mscale */
    double mscale, mscale_all_dim; /* yarn; 0 when absent */
    bool truncate;                 /* yarn */
    int original_context;          /* what the model was trained on before scaling */
} rope_config;

typedef struct layer_config {
    bool full_attention; /* else gated DeltaNet */
    bool sparse;         /* MoE block, else a dense MLP of intermediate_size */
} layer_config;

typedef struct model_config {
    model_family family;
    char architecture[64]; /* model_type of the text model, for messages */
    int hidden, layers, vocab, context;
    int heads, kv_heads, head_dim;
    bool attention_bias;
    bool attention_gate; /* q_proj carries a gate (hybrid families) */
    int intermediate;    /* dense MLP layers; 0 when there are none */
    int experts, experts_per_token, expert_intermediate, shared_intermediate; /* 0: none */
    bool norm_topk;
    bool tied_embeddings; /* the wrapper's field where it has one, else the text model's */
    int linear_k_heads, linear_v_heads, linear_k_dim, linear_v_dim,
        conv_kernel; /* 0 without DeltaNet layers */
    int mtp_layers;  /* as config.json says; Qwen3-Next files do not say (0) and may carry mtp.* */
    double norm_eps;
    rope_config rope;
    layer_config layer[CONFIG_LAYERS_MAX];
    int n_eos;
    int eos[CONFIG_EOS_MAX]; /* from generation_config.json where it has any, else config.json */
    bool quantized;          /* a "quantization" block is present (MLX conversion) */
    struct quant_overrides *overrides; /* owned; NULL when not quantised */
} model_config;

/* Reads DIR/config.json and, where present, DIR/generation_config.json. ERR_NOT_FOUND without the
 * former; ERR_UNSUPPORTED names the architecture, field or value that we do not implement,
 * ERR_CORRUPT what contradicts itself. On error *out is zero and needs no close. */
err config_open(const char *dir, model_config *out) MUST_USE;
/* The same from JSON text (generation may be NULL), for tests and fuzzing. */
err config_parse(const char *text, size_t length, const char *generation, size_t generation_length,
                 model_config *out) MUST_USE;
void config_close(model_config *c); /* also fine on a zeroed one */

/* The format of the module with this path, exactly as the checkpoint spells it (without ".weight").
 * *quantised is false for a module that the quantization block excludes (and for every module of a
 * model without such a block); then *out is untouched. A module that the block does not name has
 * the block's defaults, provided that the file holds its ".scales": norms and the like have none.
 * scales_f16 is left false: it comes from the tensor. Only format: cannot fail today. O(log n). */
err config_module_format(const model_config *c, const char *module, bool *quantised,
                         qformat *out) MUST_USE;

#endif
