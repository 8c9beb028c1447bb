/* weights_load.h: how one tensor becomes a view, inside src/model. See weights.c for the walk. */
#ifndef MODEL_WEIGHTS_LOAD_H
#define MODEL_WEIGHTS_LOAD_H

#include <stdio.h>

#include "model/weights.h"

#define WEIGHTS_ALIGN 64
/* Matrices from this size on begin on a page: one core multiplies them 10 to 15 % faster so
 * (docs/MEASURED.md, "Where a decoded token's time goes"). */
#define WEIGHTS_LARGE ((size_t)256 << 10)
#define WEIGHTS_PAGE  4096

typedef struct loader {
    weights *w;
    const char *prefix;       /* of the text model's tensors, static */
    bool centred;             /* norms are stored as w, used as 1 + w */
    uint8_t *base;            /* the trunk's arena; NULL: measure only */
    size_t used;              /* of it, so far */
    bool skip;                /* what comes is not to be read: only views are made */
    int reading;              /* the part that is being read, -1: none */
    const weights_sink *sink; /* NULL: nothing is read */
    uint8_t *staging;         /* owned; a vector as it is in the file */
    size_t staging_bytes;
    int sparse; /* layers with experts so far */
} loader;

/* Names are given without the prefix. */
bool loader_has(const loader *l, const char *name);

/* The format of module's matrix, whose shape the caller has put into *out; the file's is checked
 * against it. source: its tensors (scales and biases NULL when dense). stack > 0: the tensors have
 * that leading dimension. */
typedef struct matrix_source {
    const st_tensor *w, *scales, *biases;
} matrix_source;
err loader_find_matrix(const loader *l, const char *full_module, int stack, qmat *out,
                       matrix_source *source) MUST_USE;

/* Module "layers.0.self_attn.q_proj" as a matrix in the arena. */
err loader_matrix(loader *l, const char *module, int rows, int cols, qmat *out) MUST_USE;
err loader_head(loader *l, qmat *out) MUST_USE;

/* Rows of a fused tensor in another order: of every head, `rows` rows from `from` go to `to`. */
typedef struct row_group {
    int from, to, rows;
    int from_step, to_step; /* from one head to the next */
} row_group;
typedef struct fused_rows {
    const char *module;
    const row_group *groups;
    int n_groups, heads;
    int file_rows, rows, cols; /* of the tensor; of the result */
} fused_rows;
err loader_fused(loader *l, const fused_rows *f, qmat *out) MUST_USE;

/* A tensor of n numbers as float32, `add` added to each. ERR_CORRUPT when one is not finite. */
err loader_vector(loader *l, const char *name, int n, float add, const float **out) MUST_USE;
/* A norm's weight: 1 is added where the checkpoint is zero-centred. */
err loader_norm(loader *l, const char *name, int n, const float **out) MUST_USE;
/* [channels, 1, kernel] or [channels, kernel, 1] as [channels, kernel]. */
err loader_conv(loader *l, const char *name, int channels, int kernel, const float **out) MUST_USE;

/* weights_experts.c: the layer's part of the expert map, and the views' formats. */
err experts_prepare(weights *w) MUST_USE;
err loader_experts(loader *l, int layer, layer_weights *out) MUST_USE;
/* Reads what a packed model's files say of their records; nothing for others. */
err experts_checksums(weights *w) MUST_USE;

#endif
