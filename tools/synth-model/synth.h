/* synth.h: a checkpoint of a real model's size, made of random numbers.
 *
 *     shape ---> list of tensors ---> shards of about 5 GB, index, config.json, tokenizer
 *                each: name, dtype, shape, and a recipe that gives any range of its bytes
 *
 * The layout is that of MLX conversions: stacked experts (switch_mlp), affine quantisation, router
 * and shared_expert_gate at 8 bits, norms stored as 1 + w, conv1d [C, 4, 1]. The values are well
 * formed (scales such that every layer's output stays of ordinary size), mean nothing, and depend
 * on the seed only.
 *
 * Routing. Random weights route in a way that no trained model does (hidden states share a common
 * part that grows with depth). So the hidden vector is divided into four regions, in units of a
 * quantisation group, and every matrix has its own gain for each region that it reads or writes:
 *
 *     [ constant | slow | private | general ............ ]
 *       always 1   only     only      everything writes
 *                  full     the       here
 *                  attention embedding
 *                  writes
 *
 * The router reads `private` (changes from token to token, independent of everything else), `slow`
 * (an average over about the last ten tokens, see below) and `constant` (a fixed popularity of each
 * expert). skew 0 takes the first alone: near-uniform, no locality between different tokens, the
 * same token always chooses the same experts. skew 1 mixes them 25 : 64 : 36 in variance, which
 * gives what published traces show: half of the choices on 10 to 20 % of the experts, neighbouring
 * tokens share 30 to 45 %. Layers of a hybrid model before its first full attention have popularity
 * only.
 *
 * The slow part: q and k of full attention are mostly one constant vector on rotary pairs of low
 * frequency, so that after rotation a score falls with distance whatever the tokens are. */
#ifndef SYNTH_MODEL_SYNTH_H
#define SYNTH_MODEL_SYNTH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct synth_shape {
    const char *name;
    const char *model_type; /* qwen3_5_moe, qwen3_next, qwen3_moe */
    const char *prefix;     /* of every tensor but lm_head */
    const char *head;       /* lm_head's module */
    int layers, hidden, vocab, context;
    int heads, kv_heads, head_dim;
    int experts, experts_per_token, expert_intermediate, shared_intermediate; /* shared 0: none */
    int linear_k_heads, linear_v_heads, linear_dim; /* 0: every layer is full attention */
    double rope_theta, partial;
} synth_shape;

/* NULL for a name that is not in the table; synth_shape_names is all of them, for messages. */
const synth_shape *synth_shape_find(const char *name);
const char *synth_shape_names(void);

typedef struct synth_options {
    synth_shape shape; /* with --layers and --vocab applied */
    int bits, group;
    double skew;
    uint64_t seed;
} synth_options;

typedef enum synth_region { SYNTH_CONST, SYNTH_SLOW, SYNTH_PRIVATE, SYNTH_GENERAL } synth_region;
#define SYNTH_REGIONS 4

/* What is added to every weight of a row in the constant region. */
typedef enum synth_offset {
    SYNTH_NO_OFFSET,
    SYNTH_ONE,        /* embedding: the constant itself */
    SYNTH_POPULARITY, /* router: normal, per expert */
    SYNTH_POSITION,   /* q and k: on rotary pairs of low frequency */
} synth_offset;

/* One affine matrix (or a stack of them). Its weight, scales and biases tensors share it. */
typedef struct synth_matrix {
    uint64_t seed;
    int rows, cols, bits, group;
    bool reads_hidden, writes_hidden;
    double gain[SYNTH_REGIONS][SYNTH_REGIONS]; /* standard deviation of a weight: [row's region]
                                                  [column's region]; sides that are no hidden
                                                  vector count as general */
    synth_offset offset;
    double offset_size;
    int head_rows, head_dim; /* position: rows of one head, of which the first head_dim count */
    uint16_t scale[SYNTH_REGIONS][SYNTH_REGIONS][4]; /* bf16; four close to each other */
    uint16_t bias[SYNTH_REGIONS][SYNTH_REGIONS][4];
} synth_matrix;

typedef enum synth_kind {
    SYNTH_WORDS,
    SYNTH_SCALES,
    SYNTH_BIASES,
    SYNTH_NORM,    /* bf16, around 1 */
    SYNTH_CONV,    /* bf16, normal, 0.5 */
    SYNTH_A_LOG,   /* f32, log of 1 .. 16 */
    SYNTH_DT_BIAS, /* bf16, inverse softplus of 0.001 .. 0.1 */
} synth_kind;

typedef struct synth_tensor {
    char name[160];
    synth_kind kind;
    const char *dtype;
    int n_dims;
    int64_t shape[3];
    int64_t bytes;
    uint64_t seed;
    int matrix; /* index into the model's matrices; -1 */
} synth_tensor;

typedef struct synth_model {
    synth_options o;
    int unit;                      /* hidden columns in the constant region */
    int region_end[SYNTH_REGIONS]; /* hidden columns [.., end) */
    int n_tensors, tensors_capacity, n_matrices, matrices_capacity;
    synth_tensor *tensors;  /* owned, in the order of the files */
    synth_matrix *matrices; /* owned */
    int64_t bytes;          /* of all tensors */
} synth_model;

/* ---- tensors.c ---- */
err synth_model_open(const synth_options *o, synth_model *out) MUST_USE;
void synth_model_close(synth_model *m);
synth_region synth_region_of(const synth_model *m, int column);

/* ---- fill.c ---- */

/* Ranges given to synth_fill begin at multiples of this. */
#define SYNTH_BLOCK ((int64_t)1 << 20)

/* Fills the matrix's tables from gain. */
void synth_matrix_prepare(synth_matrix *m);
/* Bytes [begin, begin + length) of a tensor; any thread. */
void synth_fill(const synth_model *m, const synth_tensor *t, int64_t begin, size_t length,
                uint8_t *out);

/* ---- shapes.c ---- */

/* The object of config.json; the caller owns it. */
err synth_config(const synth_model *m, json_t **out) MUST_USE;

/* ---- write.c ---- */

/* Writes the checkpoint into dir, which must be missing or empty. tokenizer_dir: where its files
 * are copied from. config.json is written last: without it the directory is not a model. */
err synth_write(const synth_model *m, const char *dir, const char *tokenizer_dir) MUST_USE;

#endif
