/* tensors.c: which tensors a checkpoint of this shape has, and how large their values are.
 *
 * Sizes of values are chosen so that, with a normalised input, projections come out with a standard
 * deviation of 1 and every block adds BLOCK_OUT to the hidden vector (in `general`; full attention
 * adds SLOW_OUT in `slow`), where the embedding is 1. Then the root mean square of the hidden
 * vector at a layer is known beforehand, and with it what the router sees. */
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "synth.h"

#define BLOCK_OUT  0.15
#define SLOW_OUT   0.5
#define ATTENDED   0.35 /* of values of 1, averaged over about eight tokens */
#define SILU_RMS   0.6  /* silu(x) of a normal x */
#define LOGITS     3.0  /* standard deviation of the last logits */
#define ROUTER     1.5  /* and of the router's */
#define Q_NOISE    0.25
#define NEGLIGIBLE 0x1p-14

typedef struct builder {
    synth_model *m;
    err e;                          /* the first failure */
    int full_before, sparse_before; /* layers of each kind so far */
} builder;

synth_region synth_region_of(const synth_model *m, int column) {
    for (int r = 0; r < SYNTH_GENERAL; r++)
        if (column < m->region_end[r]) return (synth_region)r;
    return SYNTH_GENERAL;
}

static int region_size(const synth_model *m, synth_region r) {
    return m->region_end[r] - (r ? m->region_end[r - 1] : 0);
}

static void choose_regions(synth_model *m) {
    int units = m->o.shape.hidden / m->unit;
    int slow = units / 8 > 1 ? units / 8 : 1, private_ = units / 4 > 1 ? units / 4 : 1;
    m->region_end[SYNTH_CONST] = m->unit;
    m->region_end[SYNTH_SLOW] = (1 + slow) * m->unit;
    m->region_end[SYNTH_PRIVATE] = (1 + slow + private_) * m->unit;
    m->region_end[SYNTH_GENERAL] = m->o.shape.hidden;
}

/* ---- adding ---- */

/* At most so many of a layer; one layer more covers what is outside of layers. */
#define LAYER_TENSORS  64
#define LAYER_MATRICES 20

static synth_tensor *add_tensor(builder *b, synth_kind kind, const char *format, va_list args) {
    synth_model *m = b->m;
    assert(m->n_tensors < m->tensors_capacity);
    synth_tensor *t = &m->tensors[m->n_tensors];
    *t = (synth_tensor){.kind = kind, .matrix = -1, .n_dims = 1};
    vsnprintf(t->name, sizeof t->name, format, args);
    t->seed = (m->o.seed + 1) * 0xd1342543de82ef95u + (uint64_t)m->n_tensors * 0x2545f4914f6cdd1du;
    m->n_tensors++;
    return t;
}

static void finish(synth_model *m, synth_tensor *t, const char *dtype, int64_t size) {
    t->dtype = dtype;
    t->bytes = size;
    for (int i = 0; i < t->n_dims; i++) t->bytes *= t->shape[i];
    m->bytes += t->bytes;
}

/* A tensor that is not a matrix: [n], or [n, 4, 1] for the convolution. */
__attribute__((format(printf, 4, 5))) static void add_small(builder *b, synth_kind kind, int n,
                                                            const char *format, ...) {
    va_list args;
    va_start(args, format);
    synth_tensor *t = add_tensor(b, kind, format, args);
    va_end(args);
    t->shape[0] = n;
    if (kind == SYNTH_CONV) {
        t->n_dims = 3;
        t->shape[1] = 4;
        t->shape[2] = 1;
    }
    bool f32 = kind == SYNTH_A_LOG;
    finish(b->m, t, f32 ? "F32" : "BF16", f32 ? 4 : 2);
}

static void add_part(builder *b, synth_kind kind, int stack, const char *format, ...) {
    va_list args;
    va_start(args, format);
    synth_tensor *t = add_tensor(b, kind, format, args);
    va_end(args);
    t->matrix = b->m->n_matrices;
    const synth_matrix *m = &b->m->matrices[t->matrix];
    int64_t *shape = t->shape;
    t->n_dims = stack ? 3 : 2;
    if (stack) *shape++ = stack;
    shape[0] = m->rows;
    shape[1] = kind == SYNTH_WORDS ? (int64_t)m->cols * m->bits / 32 : m->cols / m->group;
    bool words = kind == SYNTH_WORDS;
    finish(b->m, t, words ? "U32" : "BF16", words ? 4 : 2);
}

/* Weight, scales and biases of a module; stack 0 for a plain matrix. */
static void add_matrix(builder *b, const synth_matrix *matrix, int stack, const char *module) {
    synth_model *m = b->m;
    assert(m->n_matrices < m->matrices_capacity);
    if (!b->e.code && (matrix->cols % matrix->group || matrix->cols * matrix->bits % 32))
        b->e = err_make(ERR_ARG, "%s: %d columns do not divide into groups of %d", module,
                        matrix->cols, matrix->group);
    synth_matrix *kept = &m->matrices[m->n_matrices];
    *kept = *matrix;
    kept->seed =
        (m->o.seed + 3) * 0xda942042e4dd58b5u + (uint64_t)m->n_matrices * 0x9fb21c651e98df25u;
    synth_matrix_prepare(kept);
    add_part(b, SYNTH_WORDS, stack, "%s.weight", module);
    add_part(b, SYNTH_SCALES, stack, "%s.scales", module);
    add_part(b, SYNTH_BIASES, stack, "%s.biases", module);
    m->n_matrices++;
}

/* ---- recipes ---- */

static synth_matrix plain(const builder *b, int rows, int cols, double gain) {
    synth_matrix m = {.rows = rows, .cols = cols, .bits = b->m->o.bits, .group = b->m->o.group};
    for (int r = 0; r < SYNTH_REGIONS; r++)
        for (int c = 0; c < SYNTH_REGIONS; c++) m.gain[r][c] = gain;
    return m;
}

/* From the hidden vector: an output of `size`, not seeing the constant. */
static synth_matrix reader(const builder *b, int rows, double size) {
    int hidden = b->m->o.shape.hidden;
    synth_matrix m = plain(b, rows, hidden, size / sqrt(hidden));
    m.reads_hidden = true;
    for (int r = 0; r < SYNTH_REGIONS; r++) m.gain[r][SYNTH_CONST] *= NEGLIGIBLE;
    return m;
}

/* Into the hidden vector: inputs of root mean square `in`, adding `slow` and `general` there. */
static synth_matrix writer(const builder *b, int cols, double in, double slow, double general) {
    synth_matrix m = plain(b, b->m->o.shape.hidden, cols, NEGLIGIBLE / sqrt(cols));
    m.writes_hidden = true;
    for (int c = 0; c < SYNTH_REGIONS; c++) {
        if (slow > 0) m.gain[SYNTH_SLOW][c] = slow / (in * sqrt(cols));
        m.gain[SYNTH_GENERAL][c] = general / (in * sqrt(cols));
    }
    return m;
}

/* Root mean square of `slow`, and of the whole hidden vector, before a layer's MoE block. */
static double slow_rms(const builder *b) { return SLOW_OUT * sqrt(b->full_before); }

static double hidden_rms(const builder *b) {
    const synth_model *m = b->m;
    double blocks = b->full_before + 2.0 * b->sparse_before;
    double sum = region_size(m, SYNTH_CONST) + region_size(m, SYNTH_PRIVATE) +
                 region_size(m, SYNTH_SLOW) * slow_rms(b) * slow_rms(b) +
                 region_size(m, SYNTH_GENERAL) * (1 + blocks * BLOCK_OUT * BLOCK_OUT);
    return sqrt(sum / m->o.shape.hidden);
}

static void add_router(builder *b, const char *module) {
    const synth_model *m = b->m;
    synth_matrix router = reader(b, m->o.shape.experts, 1);
    double token = 0.5, slow = 0.8 * m->o.skew, popular = 0.6 * m->o.skew;
    double length = sqrt(token * token + slow * slow + popular * popular);
    double logit = ROUTER * hidden_rms(b) / length;
    router.bits = 8;
    router.group = 64;
    for (int r = 0; r < SYNTH_REGIONS; r++) {
        double *gain = router.gain[r];
        gain[SYNTH_PRIVATE] = logit * token / sqrt(region_size(m, SYNTH_PRIVATE));
        gain[SYNTH_SLOW] = gain[SYNTH_GENERAL] = gain[SYNTH_PRIVATE] * NEGLIGIBLE;
        if (slow > 0 && b->full_before)
            gain[SYNTH_SLOW] = logit * slow / (slow_rms(b) * sqrt(region_size(m, SYNTH_SLOW)));
    }
    router.offset = SYNTH_POPULARITY;
    router.offset_size = logit * popular / region_size(m, SYNTH_CONST);
    add_matrix(b, &router, 0, module);
}

/* ---- blocks ---- */

typedef struct place { /* of a layer, for names */
    char text[128];
} place;

static const char *name(place *p, const char *base, const char *module) {
    int n = snprintf(p->text, sizeof p->text, "%s%s", base, module);
    assert(n < (int)sizeof p->text);
    return p->text;
}

static void add_attention(builder *b, const char *base) {
    const synth_model *m = b->m;
    const synth_shape *s = &m->o.shape;
    bool gated = s->linear_k_heads > 0;
    place p;
    double rotary = s->head_dim * s->partial, pairs = 0;
    for (int j = 0; j < (int)rotary / 2; j++) {
        double frequency = pow(s->rope_theta, -2.0 * j / rotary);
        pairs += frequency > 0.004 && frequency < 0.14;
    }
    /* the constant part of q and k has eight times the energy of the rest */
    double amplitude = Q_NOISE * sqrt(8.0 * s->head_dim / (pairs > 0 ? pairs : 1));
    synth_matrix q = reader(b, s->heads * s->head_dim * (gated ? 2 : 1), Q_NOISE);
    q.offset = SYNTH_POSITION;
    q.offset_size = amplitude * hidden_rms(b) / region_size(m, SYNTH_CONST);
    q.head_dim = s->head_dim;
    q.head_rows = s->head_dim * (gated ? 2 : 1);
    synth_matrix k = q, v = reader(b, s->kv_heads * s->head_dim, 1);
    k.rows = v.rows;
    k.head_rows = s->head_dim;
    synth_matrix o =
        writer(b, s->heads * s->head_dim, ATTENDED * (gated ? 0.5 : 1), SLOW_OUT, BLOCK_OUT);
    add_matrix(b, &q, 0, name(&p, base, "self_attn.q_proj"));
    add_matrix(b, &k, 0, name(&p, base, "self_attn.k_proj"));
    add_matrix(b, &v, 0, name(&p, base, "self_attn.v_proj"));
    add_matrix(b, &o, 0, name(&p, base, "self_attn.o_proj"));
    add_small(b, SYNTH_NORM, s->head_dim, "%sself_attn.q_norm.weight", base);
    add_small(b, SYNTH_NORM, s->head_dim, "%sself_attn.k_norm.weight", base);
    b->full_before++;
}

static void add_delta(builder *b, const char *base) {
    const synth_shape *s = &b->m->o.shape;
    int key = s->linear_k_heads * s->linear_dim, value = s->linear_v_heads * s->linear_dim;
    bool fused = s->model_type[5] == '_' && s->model_type[6] == 'n'; /* qwen3_next */
    place p;
    synth_matrix m = reader(b, 2 * key + value * (fused ? 2 : 1), 1);
    add_matrix(b, &m, 0,
               name(&p, base, fused ? "linear_attn.in_proj_qkvz" : "linear_attn.in_proj_qkv"));
    m.rows = value;
    if (!fused) add_matrix(b, &m, 0, name(&p, base, "linear_attn.in_proj_z"));
    m.rows = s->linear_v_heads * (fused ? 2 : 1);
    if (fused) {
        add_matrix(b, &m, 0, name(&p, base, "linear_attn.in_proj_ba"));
    } else {
        add_matrix(b, &m, 0, name(&p, base, "linear_attn.in_proj_b"));
        add_matrix(b, &m, 0, name(&p, base, "linear_attn.in_proj_a"));
    }
    add_small(b, SYNTH_CONV, 2 * key + value, "%slinear_attn.conv1d.weight", base);
    add_small(b, SYNTH_A_LOG, s->linear_v_heads, "%slinear_attn.A_log", base);
    add_small(b, SYNTH_DT_BIAS, s->linear_v_heads, "%slinear_attn.dt_bias", base);
    add_small(b, SYNTH_NORM, s->linear_dim, "%slinear_attn.norm.weight", base);
    m = writer(b, value, SILU_RMS, 0, BLOCK_OUT);
    add_matrix(b, &m, 0, name(&p, base, "linear_attn.out_proj"));
}

static void add_mlp(builder *b, const char *base, int inter, int stack, double out) {
    place p;
    synth_matrix in = reader(b, inter, 1), down = writer(b, inter, SILU_RMS, 0, out);
    add_matrix(b, &in, stack, name(&p, base, ".gate_proj"));
    add_matrix(b, &in, stack, name(&p, base, ".up_proj"));
    add_matrix(b, &down, stack, name(&p, base, ".down_proj"));
}

static void add_moe(builder *b, const char *base) {
    const synth_shape *s = &b->m->o.shape;
    place p, inner;
    add_router(b, name(&p, base, "mlp.gate"));
    if (s->shared_intermediate) {
        synth_matrix gate = reader(b, 1, 1);
        gate.bits = 8;
        gate.group = 64;
        add_matrix(b, &gate, 0, name(&p, base, "mlp.shared_expert_gate"));
        add_mlp(b, name(&inner, base, "mlp.shared_expert"), s->shared_intermediate, 0, BLOCK_OUT);
    }
    add_mlp(b, name(&inner, base, "mlp.switch_mlp"), s->expert_intermediate, s->experts,
            BLOCK_OUT * sqrt(s->experts_per_token));
    b->sparse_before++;
}

static void add_layers(builder *b) {
    const synth_shape *s = &b->m->o.shape;
    for (int i = 0; i < s->layers; i++) {
        char base[96];
        snprintf(base, sizeof base, "%slayers.%d.", s->prefix, i);
        add_small(b, SYNTH_NORM, s->hidden, "%sinput_layernorm.weight", base);
        if (s->linear_k_heads && (i + 1) % 4)
            add_delta(b, base);
        else
            add_attention(b, base);
        add_small(b, SYNTH_NORM, s->hidden, "%spost_attention_layernorm.weight", base);
        add_moe(b, base);
    }
}

err synth_model_open(const synth_options *o, synth_model *out) {
    *out = (synth_model){.o = *o, .unit = o->group > 64 ? o->group : 64};
    if (o->shape.hidden % out->unit || o->shape.hidden / out->unit < 4)
        return err_make(ERR_ARG, "%s: a hidden vector of %d is too small for groups of %d",
                        o->shape.name, o->shape.hidden, o->group);
    choose_regions(out);
    out->tensors_capacity = LAYER_TENSORS * (o->shape.layers + 1);
    out->matrices_capacity = LAYER_MATRICES * (o->shape.layers + 1);
    out->tensors = calloc((size_t)out->tensors_capacity, sizeof *out->tensors);
    out->matrices = calloc((size_t)out->matrices_capacity, sizeof *out->matrices);
    if (!out->tensors || !out->matrices) {
        synth_model_close(out);
        return err_make(ERR_NOMEM, "no memory for the list of tensors");
    }
    builder b = {.m = out, .e = err_none()};
    synth_matrix embed = plain(&b, o->shape.vocab, o->shape.hidden, 1);
    embed.reads_hidden = true;
    embed.offset = SYNTH_ONE;
    for (int r = 0; r < SYNTH_REGIONS; r++)
        embed.gain[r][SYNTH_CONST] = embed.gain[r][SYNTH_SLOW] = NEGLIGIBLE;
    place p;
    add_matrix(&b, &embed, 0, name(&p, o->shape.prefix, "embed_tokens"));
    add_layers(&b);
    add_small(&b, SYNTH_NORM, o->shape.hidden, "%snorm.weight", o->shape.prefix);
    synth_matrix head = reader(&b, o->shape.vocab, LOGITS);
    add_matrix(&b, &head, 0, o->shape.head);
    if (b.e.code) synth_model_close(out);
    return b.e;
}

void synth_model_close(synth_model *m) {
    free(m->tensors);
    free(m->matrices);
    *m = (synth_model){0};
}
