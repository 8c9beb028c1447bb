/* weights_experts.c: where every expert lies in the checkpoint's files.
 *
 * A record has nine parts, in this order; those that a layout does not have are empty:
 *
 *     gate.w gate.scales gate.biases | up.w up.scales up.biases | down.w down.scales down.biases
 *
 *   mlp.switch_mlp.{gate,up,down}_proj     [E, out, ...]      part e is the e-th slice
 *   mlp.experts.gate_up_proj, down_proj    [E, 2I, H]         gate is the first half of slice e
 *   mlp.experts.N.{gate,up,down}_proj      [out, in]          a tensor an expert */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "format/bank.h"
#include "model/weights_load.h"

enum { PARTS = 9, PER_MATRIX = 3 };

typedef struct expert_place {
    loader *l;
    int layer; /* of the model */
    layer_weights *out;
    expert_part *parts; /* of this layer: [experts][PARTS] */
} expert_place;

err experts_prepare(weights *w) {
    const model_config *c = w->config;
    int sparse = 0;
    for (int i = 0; i < c->layers; i++) sparse += c->layer[i].sparse;
    if (!sparse) return err_none();
    size_t n = (size_t)sparse * (size_t)c->experts * PARTS;
    w->parts = calloc(n, sizeof *w->parts);
    w->paths = calloc((size_t)st_files(w->files), sizeof *w->paths);
    w->numbers = calloc((size_t)sparse, sizeof *w->numbers);
    if (!w->parts || !w->paths || !w->numbers)
        return err_make(ERR_NOMEM, "no memory for the map of experts");
    for (int i = 0; i < st_files(w->files); i++) w->paths[i] = st_path(w->files, i);
    w->experts = (expert_map){.n_layers = sparse,
                              .n_experts = c->experts,
                              .n_parts = PARTS,
                              .n_files = st_files(w->files),
                              .paths = w->paths,
                              .parts = w->parts,
                              .layer_numbers = w->numbers};
    return err_none();
}

/* Slice e of n equal slices of t, from byte `skip` of it on, `bytes` long. */
static err slice(const expert_place *p, const st_tensor *t, int64_t begin, int64_t bytes,
                 expert_part *out) {
    if (bytes > UINT32_MAX)
        return err_make(ERR_UNSUPPORTED, "%s: tensor %s: %lld bytes for one expert",
                        st_path(p->l->w->files, t->file), t->name, (long long)bytes);
    *out = (expert_part){.offset = t->offset + begin, .bytes = (uint32_t)bytes, .file = t->file};
    return err_none();
}

/* The three parts of matrix `which` for every expert, from tensors with a leading [E]. */
static err stacked(const expert_place *p, const matrix_source *s, int which) {
    const st_tensor *tensors[PER_MATRIX] = {s->w, s->scales, s->biases};
    int n = p->l->w->config->experts;
    for (int i = 0; i < PER_MATRIX && tensors[i]; i++) {
        int64_t bytes = tensors[i]->bytes / n;
        int64_t step = tensors[i]->stride ? tensors[i]->stride : bytes; /* a bank's records */
        for (int e = 0; e < n; e++) {
            expert_part *part = &p->parts[e * PARTS + which * PER_MATRIX + i];
            TRY(slice(p, tensors[i], e * step, bytes, part));
        }
    }
    return err_none();
}

static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};

static qmat *matrix_of(layer_weights *w, int which) {
    return which == 0 ? &w->expert.gate : which == 1 ? &w->expert.up : &w->expert.down;
}

static void shape_of(const model_config *c, int which, int *rows, int *cols) {
    *rows = which == 2 ? c->hidden : c->expert_intermediate;
    *cols = which == 2 ? c->expert_intermediate : c->hidden;
}

static err place_switch(const expert_place *p) {
    const model_config *c = p->l->w->config;
    for (int which = 0; which < 3; which++) {
        char module[256];
        snprintf(module, sizeof module, "%slayers.%d.mlp.switch_mlp.%s", p->l->prefix, p->layer,
                 names[which]);
        int rows, cols;
        shape_of(c, which, &rows, &cols);
        matrix_source s;
        qmat *m = matrix_of(p->out, which);
        *m = (qmat){.rows = rows, .cols = cols};
        TRY(loader_find_matrix(p->l, module, c->experts, m, &s));
        TRY(stacked(p, &s, which));
    }
    return err_none();
}

/* A stacked tensor has no ".weight" of its own in its name. */
static err find_stack(const expert_place *p, const char *name, int rows, int cols, qmat *m,
                      const st_tensor **out) {
    const weights *w = p->l->w;
    char full[256];
    snprintf(full, sizeof full, "%slayers.%d.mlp.experts.%s", p->l->prefix, p->layer, name);
    *out = st_find(w->files, full);
    if (!*out)
        return err_make(ERR_NOT_FOUND, "%s: tensor %s is missing", st_path(w->files, 0), full);
    const st_tensor *t = *out;
    const char *path = st_path(w->files, t->file);
    if (t->n_dims != 3 || t->shape[0] != w->config->experts || t->shape[1] != rows ||
        t->shape[2] != cols)
        return err_make(
            ERR_CORRUPT,
            "%s: tensor %s: shape does not fit config.json, which asks for [%d, %d, %d]", path,
            full, w->config->experts, rows, cols);
    switch (t->dtype) {
    case ST_F32: m->format.kind = QK_F32; break;
    case ST_F16: m->format.kind = QK_F16; break;
    case ST_BF16: m->format.kind = QK_BF16; break;
    default:
        return err_make(ERR_UNSUPPORTED, "%s: tensor %s: weights of type %s are not supported",
                        path, full, st_dtype_name(t->dtype));
    }
    m->rows = rows, m->cols = cols;
    return err_none();
}

static err place_stacked(const expert_place *p) {
    const model_config *c = p->l->w->config;
    int inner = c->expert_intermediate;
    mlp_weights *m = &p->out->expert;
    const st_tensor *t;
    TRY(find_stack(p, "gate_up_proj", 2 * inner, c->hidden, &m->gate, &t));
    m->gate.rows = inner;
    m->up = m->gate;
    int64_t half = t->bytes / c->experts / 2;
    for (int e = 0; e < c->experts; e++) {
        expert_part *parts = &p->parts[e * PARTS];
        TRY(slice(p, t, 2 * half * e, half, &parts[0]));
        TRY(slice(p, t, 2 * half * e + half, half, &parts[PER_MATRIX]));
    }
    TRY(find_stack(p, "down_proj", c->hidden, inner, &m->down, &t));
    return stacked(p, &(matrix_source){.w = t}, 2);
}

static bool same_format(qformat a, qformat b) {
    return a.kind == b.kind && a.bits == b.bits && a.group == b.group &&
           a.scales_f16 == b.scales_f16;
}

static err place_one(const expert_place *p, int e, int which) {
    char module[256];
    snprintf(module, sizeof module, "%slayers.%d.mlp.experts.%d.%s", p->l->prefix, p->layer, e,
             names[which]);
    int rows, cols;
    shape_of(p->l->w->config, which, &rows, &cols);
    matrix_source s;
    qmat found = {.rows = rows, .cols = cols}, *m = matrix_of(p->out, which);
    TRY(loader_find_matrix(p->l, module, 0, &found, &s));
    if (e == 0) *m = found;
    if (!same_format(m->format, found.format))
        return err_make(ERR_UNSUPPORTED,
                        "%s: tensor %s: another format than expert 0 of its layer has",
                        st_path(p->l->w->files, s.w->file), s.w->name);
    const st_tensor *tensors[PER_MATRIX] = {s.w, s.scales, s.biases};
    for (int i = 0; i < PER_MATRIX && tensors[i]; i++) {
        expert_part *part = &p->parts[e * PARTS + which * PER_MATRIX + i];
        TRY(slice(p, tensors[i], 0, tensors[i]->bytes, part));
    }
    return err_none();
}

static err place_each(const expert_place *p) {
    for (int e = 0; e < p->l->w->config->experts; e++) {
        for (int which = 0; which < 3; which++) TRY(place_one(p, e, which));
    }
    return err_none();
}

err loader_experts(loader *l, int layer, layer_weights *out) {
    weights *w = l->w;
    out->sparse_index = l->sparse++;
    w->numbers[out->sparse_index] = layer;
    expert_place p = {.l = l, .layer = layer, .out = out};
    p.parts = w->parts + (size_t)out->sparse_index * (size_t)w->config->experts * PARTS;
    char name[160];
    snprintf(name, sizeof name, "layers.%d.mlp.switch_mlp.gate_proj.weight", layer);
    if (loader_has(l, name)) return place_switch(&p);
    snprintf(name, sizeof name, "layers.%d.mlp.experts.gate_up_proj", layer);
    if (loader_has(l, name)) return place_stacked(&p);
    return place_each(&p);
}

/* Bytes from one record to the next in a bank's file; 0: the file is none. */
static int64_t record_step(const weights *w, int file) {
    for (int i = 0; i < st_count(w->files); i++)
        if (st_at(w->files, i)->stride && st_at(w->files, i)->file == file)
            return st_at(w->files, i)->stride;
    return 0;
}

err experts_checksums(weights *w) {
    size_t layers = (size_t)w->experts.n_layers, experts = (size_t)w->experts.n_experts;
    if (!layers || !record_step(w, w->parts[0].file)) return err_none();
    w->records = calloc(layers, sizeof *w->records);
    w->hashes = calloc(layers * experts, sizeof *w->hashes);
    if (!w->records || !w->hashes) return err_make(ERR_NOMEM, "no memory for checksums");
    for (size_t i = 0; i < layers; i++) {
        int file = w->parts[i * experts * PARTS].file;
        int64_t step = record_step(w, file);
        if (step < 1 || step > UINT32_MAX)
            return err_make(ERR_CORRUPT, "%s: records of %lld bytes", w->paths[file],
                            (long long)step);
        w->records[i] = (uint32_t)step;
        TRY(bank_hashes(w->paths[file], (int)experts, step, w->hashes + i * experts));
    }
    w->experts.record_bytes = w->records;
    w->experts.hashes = w->hashes;
    return err_none();
}

static void view_of(const expert_view *view, int first, qmat *m) {
    m->w = view->part[first];
    if (m->format.kind != QK_AFFINE) return;
    m->scales = view->part[first + 1];
    m->biases = view->part[first + 2];
}

void weights_expert(const layer_weights *layer, const expert_view *view, mlp_weights *out) {
    *out = layer->expert;
    view_of(view, 0, &out->gate);
    view_of(view, PER_MATRIX, &out->up);
    view_of(view, 2 * PER_MATRIX, &out->down);
}

static size_t matrix_bytes(const qmat *m) {
    return qformat_row_total(m->format, m->cols) * (size_t)m->rows;
}

size_t weights_expert_bytes(const layer_weights *layer) {
    const mlp_weights *m = &layer->expert;
    return matrix_bytes(&m->gate) + matrix_bytes(&m->up) + matrix_bytes(&m->down);
}
