/* weights.h: a checkpoint's tensors as typed views: the trunk in memory, the experts as a map.
 *
 *     the files --st_set--> names, shapes, dtypes checked
 *           |                             |
 *           trunk: one arena              experts: not read; expert_map says where each one lies
 *           qmat views, float vectors     (9 parts: gate, up, down x weight, scales, biases)
 *
 * Three layouts (MODEL_FACTS section 7: an expert per tensor, experts stacked, MLX switch_mlp), any
 * of the known prefixes and two spellings of the DeltaNet projections end as the same views. Every
 * tensor's dtype and shape is checked against config.json; the error names the tensor, what was
 * expected and what was found. Vision tensors are skipped, mtp.* counted and left alone.
 *
 * The trunk lies in parts, one after the other: the embedding, every layer, the last norm with the
 * head. Which of them are in memory is up to weights_read's caller: what a graphics card has a copy
 * of need not be here as well. The views of a part that is not in memory still name its places;
 * reading through them is a crash.
 *
 * Fixed after weights_open (trunk and state: weights_read): any thread may read. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/budget.h"
#include "base/err.h"
#include "format/config.h"
#include "format/safetensors.h"
#include "quant/blocks.h"
#include "store/expert_store.h"

/* Full attention. Vectors are float32, NULL where the model has none. */
typedef struct attn_weights {
    qmat q;                       /* [heads * head_dim (* 2 with a gate), hidden] */
    qmat k, v;                    /* [kv_heads * head_dim, hidden] */
    qmat o;                       /* [hidden, heads * head_dim] */
    const float *q_norm, *k_norm; /* [head_dim], 1 already added where the file is zero-centred */
    const float *q_bias, *k_bias, *v_bias, *o_bias;
} attn_weights;

/* Gated DeltaNet, rows in head-contiguous order whatever the file's. */
typedef struct delta_weights {
    qmat qkv;               /* [2 * key_dim + value_dim, hidden]: q, k, v */
    qmat z;                 /* [value_dim, hidden] */
    qmat b, a;              /* [v_heads, hidden] */
    qmat out;               /* [hidden, value_dim] */
    const float *conv;      /* [channels, 4] */
    const float *exp_a_log; /* [v_heads]: e^A_log */
    const float *dt_bias;   /* [v_heads] */
    const float *norm;      /* [v_dim] */
} delta_weights;

/* gate, up [inner, hidden]; down [hidden, inner]. */
typedef struct mlp_weights {
    qmat gate, up, down;
} mlp_weights;

typedef struct layer_weights {
    const float *input_norm, *post_norm; /* [hidden] */
    attn_weights attn;                   /* full attention layers */
    delta_weights delta;                 /* the others */
    mlp_weights dense;                   /* layers without experts */
    qmat router;                         /* [experts, hidden] */
    mlp_weights shared;                  /* shared expert; rows 0: none */
    qmat shared_gate;                    /* [1, hidden] */
    mlp_weights expert; /* formats and shapes of this layer's experts; w, scales, biases NULL */
    int sparse_index;   /* layer number of the expert_map, -1 for a dense layer */
} layer_weights;

typedef enum weights_part_state {
    PART_NEW,  /* never read, or not whole */
    PART_HELD, /* in memory */
    PART_GONE, /* its pages went back */
} weights_part_state;

typedef struct weights {
    const model_config *config; /* borrowed */
    const st_set *files;        /* borrowed */
    qmat embed, head;           /* [vocab, hidden]; the same bytes when tied */
    const float *final_norm;
    layer_weights *layers; /* [config->layers], owned */
    expert_map experts;    /* n_layers 0 when the model has none */
    const char **paths;    /* owned; experts.paths */
    expert_part *parts;    /* owned; experts.parts */
    int *numbers;          /* owned; experts.layer_numbers */
    uint32_t *records;     /* owned; experts.record_bytes of a packed model once it is opened */
    uint64_t *hashes;      /* owned; the same, experts.hashes */
    arena trunk;           /* owned; closed (base NULL) while only measured */
    size_t trunk_bytes;
    size_t *part_at;           /* owned [parts + 1]: where the parts begin in the trunk */
    weights_part_state *state; /* owned [parts] */
    size_t trunk_bytes_token;  /* what one token reads of it: all but the embedding table */
    int n_mtp, n_vision;       /* tensors that were left alone */
    bool mlx;                  /* norms are stored as 1 + w */
} weights;

/* Parts of the trunk: 0 is the embedding, 1 + i layer i, the last one the last norm and the head
 * (the norm alone, when the head is the embedding). */
static inline int weights_parts(const weights *w) { return w->config->layers + 2; }
static inline size_t weights_part_bytes(const weights *w, int part) {
    return w->part_at[part + 1] - w->part_at[part];
}

/* Checks names, dtypes and shapes of everything and computes sizes; reads no weights. config and
 * files are borrowed until weights_close. ERR_NOT_FOUND (tensor), ERR_CORRUPT (shape, dtype),
 * ERR_UNSUPPORTED (fp8 and other encodings, a bias that config.json does not speak of). */
err weights_measure(const model_config *config, const st_set *files, weights *out) MUST_USE;
/* The same and prepares an arena for the trunk, charged to budget as its parts are read. */
typedef void (*weights_progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
typedef struct weights_options {
    budget *budget;    /* borrowed until weights_close */
    bool no_checksums; /* a packed model's experts are taken as they are */
} weights_options;
err weights_open(const model_config *config, const st_set *files, const weights_options *options,
                 weights *out) MUST_USE;

/* Reads the parts that are not in memory, in order, and hands each to the sink, which says whether
 * it stays. One part more than those that stay is charged at a time. A sink without a function
 * keeps all. progress may be NULL. On an error the parts so far are as the sink said. */
typedef struct weights_sink {
    err (*part)(void *ctx, int part, const uint8_t *bytes, size_t n, bool *keep);
    void *ctx;
    weights_progress progress;
    void *progress_ctx;
} weights_sink;
err weights_read(weights *w, const weights_sink *sink) MUST_USE;
void weights_close(weights *w); /* also fine on a zeroed one */

/* The matrices of one expert in memory. */
void weights_expert(const layer_weights *layer, const expert_view *view, mlp_weights *out);

/* Payload bytes of one expert of the layer. */
size_t weights_expert_bytes(const layer_weights *layer);

#endif
