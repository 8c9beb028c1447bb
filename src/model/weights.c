/* weights.c: see weights.h. The walk over the model: which tensor goes where. How one tensor is
 * checked and read is in weights_load.c, where the experts lie in weights_experts.c.
 *
 * The same walk runs three times: with loader.base NULL, which only adds up sizes; with an arena of
 * exactly that size, for the views; and once more to read. So the plan and the engine cannot
 * disagree. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "cpu/cpu_math.h"
#include "model/weights_load.h"

#define PAGE     ((size_t)16 << 10) /* a multiple of every system's */
#define ROUNDING ((size_t)2 << 20)  /* of the arena to large pages, and of parts to pages */

/* Where the text model's tensors are: the prefix with which embed_tokens is found. */
static err find_prefix(loader *l) {
    static const char *const known[] = {"model.language_model.", "language_model.model.", "model.",
                                        ""};
    for (int i = 0; i < 4; i++) {
        char name[256];
        snprintf(name, sizeof name, "%sembed_tokens.weight", known[i]);
        if (!st_find(l->w->files, name)) continue;
        l->prefix = known[i];
        return err_none();
    }
    return err_make(ERR_NOT_FOUND,
                    "%s: no tensor embed_tokens.weight (with any known prefix): not a text model's "
                    "checkpoint",
                    st_path(l->w->files, 0));
}

/* MLX files store norms as 1 + w. conv1d's shape tells for sure; without DeltaNet layers the
 * metadata does. */
static void find_convention(loader *l) {
    const model_config *c = l->w->config;
    l->w->mlx = c->quantized || strcmp(st_format(l->w->files), "mlx") == 0;
    for (int i = 0; i < c->layers; i++) {
        if (c->layer[i].full_attention) continue;
        char name[256];
        snprintf(name, sizeof name, "%slayers.%d.linear_attn.conv1d.weight", l->prefix, i);
        const st_tensor *t = st_find(l->w->files, name);
        if (t && t->n_dims == 3) l->w->mlx = t->shape[2] == 1 && t->shape[1] != 1;
        break;
    }
    l->centred = !l->w->mlx && c->family != FAMILY_QWEN3_MOE;
}

/* ---- full attention ---- */

static err load_bias(loader *l, const char *module, int n, const float **out) {
    char name[256];
    snprintf(name, sizeof name, "%s.bias", module);
    bool there = loader_has(l, name);
    if (l->w->config->attention_bias) return loader_vector(l, name, n, 0, out);
    *out = NULL;
    if (there)
        return err_make(ERR_UNSUPPORTED, "%s%s: config.json does not speak of an attention bias",
                        l->prefix, name);
    return err_none();
}

static err load_attention(loader *l, int i, attn_weights *a) {
    const model_config *c = l->w->config;
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    int q_rows = c->attention_gate ? 2 * q : q;
    char m[160];
#define MODULE(what) (snprintf(m, sizeof m, "layers.%d.self_attn." what, i), m)
    TRY(loader_matrix(l, MODULE("q_proj"), q_rows, c->hidden, &a->q));
    TRY(load_bias(l, m, q_rows, &a->q_bias));
    TRY(loader_matrix(l, MODULE("k_proj"), kv, c->hidden, &a->k));
    TRY(load_bias(l, m, kv, &a->k_bias));
    TRY(loader_matrix(l, MODULE("v_proj"), kv, c->hidden, &a->v));
    TRY(load_bias(l, m, kv, &a->v_bias));
    TRY(loader_matrix(l, MODULE("o_proj"), c->hidden, q, &a->o));
    TRY(load_bias(l, m, c->hidden, &a->o_bias));
    TRY(loader_norm(l, MODULE("q_norm.weight"), c->head_dim, &a->q_norm));
    return loader_norm(l, MODULE("k_norm.weight"), c->head_dim, &a->k_norm);
#undef MODULE
}

/* ---- gated DeltaNet ---- */

/* Qwen3-Next's fused rows: per key head [q dk | k dk | v r*dv | z r*dv] and [b r | a r]. */
static err load_fused(loader *l, int i, delta_weights *d) {
    const model_config *c = l->w->config;
    int dk = c->linear_k_dim, n_k = c->linear_k_heads, r = c->linear_v_heads / n_k;
    int rv = r * c->linear_v_dim, step = 2 * dk + 2 * rv, keys = n_k * dk;
    char m[160];
    snprintf(m, sizeof m, "layers.%d.linear_attn.in_proj_qkvz", i);
    const row_group qkv[] = {
        {.from = 0, .to = 0, .rows = dk, .from_step = step, .to_step = dk},
        {.from = dk, .to = keys, .rows = dk, .from_step = step, .to_step = dk},
        {.from = 2 * dk, .to = 2 * keys, .rows = rv, .from_step = step, .to_step = rv}};
    const row_group z[] = {
        {.from = 2 * dk + rv, .to = 0, .rows = rv, .from_step = step, .to_step = rv}};
    fused_rows f = {.module = m, .file_rows = n_k * step, .cols = c->hidden, .heads = n_k};
    f.groups = qkv, f.n_groups = 3, f.rows = 2 * keys + n_k * rv;
    TRY(loader_fused(l, &f, &d->qkv));
    f.groups = z, f.n_groups = 1, f.rows = n_k * rv;
    TRY(loader_fused(l, &f, &d->z));
    snprintf(m, sizeof m, "layers.%d.linear_attn.in_proj_ba", i);
    f.file_rows = n_k * 2 * r, f.rows = n_k * r;
    const row_group b[] = {{.from = 0, .to = 0, .rows = r, .from_step = 2 * r, .to_step = r}};
    const row_group a[] = {{.from = r, .to = 0, .rows = r, .from_step = 2 * r, .to_step = r}};
    f.groups = b;
    TRY(loader_fused(l, &f, &d->b));
    f.groups = a;
    return loader_fused(l, &f, &d->a);
}

static err load_separate(loader *l, int i, delta_weights *d) {
    const model_config *c = l->w->config;
    int keys = c->linear_k_heads * c->linear_k_dim, values = c->linear_v_heads * c->linear_v_dim;
    char m[160];
#define MODULE(what) (snprintf(m, sizeof m, "layers.%d.linear_attn." what, i), m)
    TRY(loader_matrix(l, MODULE("in_proj_qkv"), 2 * keys + values, c->hidden, &d->qkv));
    TRY(loader_matrix(l, MODULE("in_proj_z"), values, c->hidden, &d->z));
    TRY(loader_matrix(l, MODULE("in_proj_b"), c->linear_v_heads, c->hidden, &d->b));
    return loader_matrix(l, MODULE("in_proj_a"), c->linear_v_heads, c->hidden, &d->a);
}

static err load_delta(loader *l, int i, delta_weights *d) {
    const model_config *c = l->w->config;
    int values = c->linear_v_heads * c->linear_v_dim;
    int channels = 2 * c->linear_k_heads * c->linear_k_dim + values;
    char m[160];
    if (c->conv_kernel != 4)
        return err_make(ERR_UNSUPPORTED,
                        "config.json: linear_conv_kernel_dim: %d is not implemented (4 is)",
                        c->conv_kernel);
    bool fused = loader_has(l, MODULE("in_proj_qkvz.weight"));
    TRY(fused ? load_fused(l, i, d) : load_separate(l, i, d));
    TRY(loader_matrix(l, MODULE("out_proj"), c->hidden, values, &d->out));
    TRY(loader_conv(l, MODULE("conv1d.weight"), channels, c->conv_kernel, &d->conv));
    TRY(loader_vector(l, MODULE("dt_bias"), c->linear_v_heads, 0, &d->dt_bias));
    TRY(loader_vector(l, MODULE("norm.weight"), c->linear_v_dim, 0, &d->norm));
    TRY(loader_vector(l, MODULE("A_log"), c->linear_v_heads, 0, &d->exp_a_log));
    float *a_log = (float *)d->exp_a_log; /* ours, in the arena */
    for (int h = 0; l->base && !l->skip && h < c->linear_v_heads; h++) a_log[h] = exp_1(a_log[h]);
    return err_none();
#undef MODULE
}

/* ---- mlp ---- */

static err load_mlp(loader *l, const char *module, int inner, mlp_weights *m) {
    int hidden = l->w->config->hidden;
    char name[200];
    snprintf(name, sizeof name, "%s.gate_proj", module);
    TRY(loader_matrix(l, name, inner, hidden, &m->gate));
    snprintf(name, sizeof name, "%s.up_proj", module);
    TRY(loader_matrix(l, name, inner, hidden, &m->up));
    snprintf(name, sizeof name, "%s.down_proj", module);
    return loader_matrix(l, name, hidden, inner, &m->down);
}

static err load_sparse(loader *l, int i, layer_weights *w) {
    const model_config *c = l->w->config;
    char m[160];
    snprintf(m, sizeof m, "layers.%d.mlp.gate", i);
    TRY(loader_matrix(l, m, c->experts, c->hidden, &w->router));
    if (c->shared_intermediate) {
        snprintf(m, sizeof m, "layers.%d.mlp.shared_expert", i);
        TRY(load_mlp(l, m, c->shared_intermediate, &w->shared));
        snprintf(m, sizeof m, "layers.%d.mlp.shared_expert_gate", i);
        TRY(loader_matrix(l, m, 1, c->hidden, &w->shared_gate));
    }
    return loader_experts(l, i, w);
}

static err load_layer(loader *l, int i) {
    const model_config *c = l->w->config;
    layer_weights *w = &l->w->layers[i];
    char m[160];
    snprintf(m, sizeof m, "layers.%d.input_layernorm.weight", i);
    TRY(loader_norm(l, m, c->hidden, &w->input_norm));
    snprintf(m, sizeof m, "layers.%d.post_attention_layernorm.weight", i);
    TRY(loader_norm(l, m, c->hidden, &w->post_norm));
    TRY(c->layer[i].full_attention ? load_attention(l, i, &w->attn) : load_delta(l, i, &w->delta));
    w->sparse_index = -1;
    if (c->layer[i].sparse) return load_sparse(l, i, w);
    snprintf(m, sizeof m, "layers.%d.mlp", i);
    return load_mlp(l, m, c->intermediate, &w->dense);
}

/* ---- parts ---- */

/* The whole pages of a part. */
static uint8_t *pages_of(const weights *w, int part, size_t *bytes) {
    size_t from = round_up(w->part_at[part], PAGE), to = w->part_at[part + 1] / PAGE * PAGE;
    *bytes = to > from ? to - from : 0;
    return w->trunk.base + from;
}

static err discard(weights *w, int part) {
    size_t bytes;
    uint8_t *pages = pages_of(w, part, &bytes);
    TRY(os_discard(pages, bytes));
    arena_uncharge(&w->trunk, weights_part_bytes(w, part));
    w->state[part] = PART_GONE;
    return err_none();
}

/* Before the tensors of a part are walked over. */
static err begin_part(loader *l, int part) {
    weights *w = l->w;
    l->used = round_up(l->used, WEIGHTS_ALIGN);
    if (!l->base) w->part_at[part] = l->used;
    l->skip = !l->sink || w->state[part] == PART_HELD;
    if (l->skip) return err_none();
    TRY(arena_charge(&w->trunk, weights_part_bytes(w, part)));
    l->reading = part;
    if (w->state[part] != PART_GONE) return err_none();
    size_t bytes;
    uint8_t *pages = pages_of(w, part, &bytes);
    return os_revive(pages, bytes);
}

static err end_part(loader *l, int part) {
    weights *w = l->w;
    const weights_sink *s = l->sink;
    bool keep = true;
    if (l->skip) return err_none();
    size_t bytes = weights_part_bytes(w, part);
    if (s->part) TRY(s->part(s->ctx, part, w->trunk.base + w->part_at[part], bytes, &keep));
    l->reading = -1;
    w->state[part] = PART_HELD;
    if (!keep) TRY(discard(w, part));
    if (s->progress) s->progress(s->progress_ctx, "loading", l->used, w->trunk_bytes);
    return err_none();
}

static err walk(loader *l) {
    weights *w = l->w;
    const model_config *c = w->config;
    l->used = 0, l->sparse = 0;
    TRY(begin_part(l, 0));
    TRY(loader_matrix(l, "embed_tokens", c->vocab, c->hidden, &w->embed));
    size_t embed_bytes = l->used;
    TRY(end_part(l, 0));
    for (int i = 0; i < c->layers; i++) {
        TRY(begin_part(l, 1 + i));
        TRY(load_layer(l, i));
        TRY(end_part(l, 1 + i));
    }
    TRY(begin_part(l, c->layers + 1));
    TRY(loader_norm(l, "norm.weight", c->hidden, &w->final_norm));
    w->head = w->embed;
    if (!c->tied_embeddings) TRY(loader_head(l, &w->head));
    w->trunk_bytes_token = l->used - (c->tied_embeddings ? 0 : embed_bytes);
    if (!l->base) w->part_at[c->layers + 2] = l->used;
    return end_part(l, c->layers + 1);
}

static void count_others(weights *w) {
    for (int i = 0; i < st_count(w->files); i++) {
        const char *name = st_at(w->files, i)->name;
        w->n_mtp += strncmp(name, "mtp.", 4) == 0 || strstr(name, ".mtp.") != NULL;
        w->n_vision += strstr(name, "visual.") != NULL || strstr(name, "vision_tower.") != NULL;
    }
}

static err prepare(const model_config *config, const st_set *files, weights *w) {
    *w = (weights){.config = config, .files = files};
    w->layers = calloc((size_t)config->layers, sizeof *w->layers);
    w->part_at = calloc((size_t)weights_parts(w) + 1, sizeof *w->part_at);
    w->state = calloc((size_t)weights_parts(w), sizeof *w->state);
    if (!w->layers || !w->part_at || !w->state)
        return err_make(ERR_NOMEM, "no memory for %d layers", config->layers);
    return experts_prepare(w);
}

static err walk_all(loader *l) {
    TRY(find_prefix(l));
    find_convention(l);
    return walk(l);
}

err weights_measure(const model_config *config, const st_set *files, weights *out) {
    loader l = {.w = out};
    err e = prepare(config, files, out);
    if (!e.code) e = walk_all(&l);
    out->trunk_bytes = l.used;
    if (!e.code) count_others(out);
    if (e.code) weights_close(out);
    return e;
}

err weights_open(const model_config *config, const st_set *files, const weights_options *options,
                 weights *out) {
    TRY(weights_measure(config, files, out));
    err e = arena_reserve(&out->trunk, options->budget, BUDGET_TRUNK, out->trunk_bytes, true);
    if (!e.code) e = arena_charge(&out->trunk, ROUNDING);
    loader l = {.w = out, .base = out->trunk.base};
    if (!e.code) e = walk_all(&l);
    assert(e.code || l.used == out->trunk_bytes);
    if (!e.code && !options->no_checksums) e = experts_checksums(out);
    if (e.code) weights_close(out);
    return e;
}

err weights_read(weights *w, const weights_sink *sink) {
    loader l = {.w = w, .base = w->trunk.base, .sink = sink, .reading = -1};
    err e = walk_all(&l);
    free(l.staging);
    if (l.reading < 0) return e;
    err ignored = discard(w, l.reading); /* what was read of it is of no use */
    (void)ignored;
    return e;
}

void weights_close(weights *w) {
    arena_close(&w->trunk);
    free(w->layers);
    free(w->part_at);
    free(w->state);
    free(w->paths);
    free(w->parts);
    free(w->numbers);
    free(w->records);
    free(w->hashes);
    *w = (weights){0};
}
