/* pack_plan.c: what a bank will hold and where, before anything is written. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/json.h"
#include "engine/pack_impl.h"

#define CONFIG_MAX ((size_t)64 << 20)

static bool contains(const char *text, const char *part) { return strstr(text, part) != NULL; }

static bool is_mtp(const char *name) {
    return strncmp(name, "mtp.", 4) == 0 || contains(name, ".mtp.");
}

static bool is_vision(const char *name) {
    return contains(name, "visual.") || contains(name, "vision_tower.");
}

bool pack_is_expert(const char *name) {
    return !is_mtp(name) && (contains(name, ".mlp.experts.") || contains(name, ".mlp.switch_mlp."));
}

static bool is_float(st_dtype d) { return d == ST_F32 || d == ST_F16 || d == ST_BF16; }

/* A matrix that becomes 8 bits: any [rows, cols] weight of floats in the text model. */
static bool is_quantised_here(const packer *p, const st_tensor *t) {
    size_t n = strlen(t->name);
    return !p->relaid && !is_mtp(t->name) && t->n_dims == 2 && is_float(t->dtype) && n > 7 &&
           strcmp(t->name + n - 7, ".weight") == 0 && t->shape[0] > 0 &&
           t->shape[1] % PACK_TRUNK_GROUP == 0 && t->shape[1] > 0 && t->shape[1] < 1 << 24;
}

static void place(packer *p, pack_tensor *t, int64_t *at) {
    t->bytes = (int64_t)st_dtype_bytes(t->dtype);
    for (int i = 0; i < t->n_dims; i++) t->bytes *= t->shape[i];
    t->offset = (int64_t)round_up((size_t)*at, BANK_TENSOR_ALIGN);
    *at = t->offset + t->bytes;
    p->n_trunk++;
}

static void add_copied(packer *p, const st_tensor *s, int64_t *at) {
    pack_tensor *t = &p->trunk[p->n_trunk];
    *t = (pack_tensor){.source = s, .role = -1, .dtype = s->dtype, .n_dims = s->n_dims};
    snprintf(t->name, sizeof t->name, "%s", s->name);
    memcpy(t->shape, s->shape, sizeof t->shape);
    place(p, t, at);
}

static void add_quantised(packer *p, const st_tensor *s, int64_t *at) {
    static const char *const ends[3] = {"weight", "scales", "biases"};
    for (int role = 0; role < 3; role++) {
        pack_tensor *t = &p->trunk[p->n_trunk];
        *t = (pack_tensor){.source = s, .role = role, .n_dims = 2};
        t->dtype = role ? ST_BF16 : ST_U32;
        t->shape[0] = s->shape[0];
        t->shape[1] = role ? s->shape[1] / PACK_TRUNK_GROUP : s->shape[1] * PACK_TRUNK_BITS / 32;
        snprintf(t->name, sizeof t->name, "%.*s%s", (int)strlen(s->name) - 6, s->name, ends[role]);
        place(p, t, at);
    }
}

static err plan_trunk(packer *p) {
    p->trunk = calloc((size_t)st_count(p->files) * 3 + 1, sizeof *p->trunk);
    if (!p->trunk) return err_make(ERR_NOMEM, "no memory for the list of tensors");
    int64_t at = 0;
    for (int i = 0; i < st_count(p->files); i++) {
        const st_tensor *s = st_at(p->files, i);
        if (pack_is_expert(s->name) || is_vision(s->name)) continue;
        if (strlen(s->name) > 280)
            return err_make(ERR_UNSUPPORTED, "%s: tensor %.100s...: too long a name",
                            st_path(p->files, s->file), s->name);
        if (is_quantised_here(p, s))
            add_quantised(p, s, &at);
        else
            add_copied(p, s, &at);
    }
    p->report->trunk_bytes = (uint64_t)at;
    return err_none();
}

/* ---- experts ---- */

static const qmat *matrix_of(const layer_weights *l, int which) {
    return which == 0 ? &l->expert.gate : which == 1 ? &l->expert.up : &l->expert.down;
}

void pack_record_of(const packer *p, const layer_weights *layer, pack_record *out) {
    *out = (pack_record){0};
    size_t at = 0;
    for (int which = 0; which < 3; which++) {
        const qmat *m = matrix_of(layer, which);
        qformat f = p->relaid ? m->format : p->format;
        size_t rows = (size_t)m->rows, scales = qformat_scale_row_bytes(f, m->cols);
        size_t bytes[3] = {rows * qformat_row_bytes(f, m->cols), rows * scales, rows * scales};
        out->format[which] = f;
        for (int i = 0; i < 3; i++) {
            at = round_up(at, BANK_TENSOR_ALIGN);
            out->offset[which * 3 + i] = (int64_t)at;
            out->bytes[which * 3 + i] = bytes[i];
            at += bytes[i];
        }
    }
    out->total = round_up(at, BANK_ALIGN);
}

static err check_divides(const packer *p) {
    const model_config *c = &p->config;
    for (int i = 0; i < c->layers; i++) {
        if (!c->layer[i].sparse || p->relaid) continue;
        for (int which = 0; which < 3; which++) {
            const qmat *m = matrix_of(&p->w.layers[i], which);
            if (m->format.kind != QK_AFFINE && m->cols % p->format.group)
                return err_make(ERR_ARG,
                                "%s: experts of %d columns do not divide into groups of %d: choose "
                                "another --group",
                                p->o->model_dir, m->cols, p->format.group);
        }
    }
    return err_none();
}

static void plan_experts(packer *p) {
    const model_config *c = &p->config;
    for (int i = 0; i < c->layers; i++) {
        if (!c->layer[i].sparse) continue;
        pack_record r;
        pack_record_of(p, &p->w.layers[i], &r);
        p->report->layers++;
        p->report->experts_bytes += r.total * (uint64_t)c->experts;
    }
}

static err find_prefix(packer *p) {
    static const char *const known[] = {"model.language_model.", "language_model.model.", "model.",
                                        ""};
    for (int i = 0; i < 4; i++) {
        char name[128];
        snprintf(name, sizeof name, "%sembed_tokens.weight", known[i]);
        if (!st_find(p->files, name)) continue;
        snprintf(p->prefix, sizeof p->prefix, "%s", known[i]);
        return err_none();
    }
    return err_make(ERR_NOT_FOUND, "%s: no tensor embed_tokens.weight", p->o->model_dir);
}

err pack_plan(packer *p) {
    TRY(find_prefix(p));
    TRY(check_divides(p));
    plan_experts(p);
    TRY(plan_trunk(p));
    p->total = p->report->experts_bytes + p->report->trunk_bytes;
    return err_none();
}

/* ---- manifest and config ---- */

static json_t *shape_json(const int64_t *shape, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(shape[i]));
    return list;
}

static const char *dense_name(qkind k) {
    return k == QK_F32 ? "F32" : k == QK_F16 ? "F16" : "BF16";
}

/* The three tensors of one matrix of all experts of a layer. */
static void add_stack(const packer *p, json_t *tensors, int layer, int which,
                      const pack_record *r) {
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    static const char *const ends[3] = {"weight", "scales", "biases"};
    const qmat *m = matrix_of(&p->w.layers[layer], which);
    qformat f = r->format[which];
    bool affine = f.kind == QK_AFFINE;
    for (int i = 0; i < (affine ? 3 : 1); i++) {
        char name[200];
        snprintf(name, sizeof name, "%slayers.%d.mlp.switch_mlp.%s.%s", p->prefix, layer,
                 names[which], ends[i]);
        int64_t cols = !affine ? m->cols : i ? m->cols / f.group : (int64_t)m->cols * f.bits / 32;
        int64_t shape[3] = {p->config.experts, m->rows, cols};
        const char *dtype = !affine        ? dense_name(f.kind)
                            : i == 0       ? "U32"
                            : f.scales_f16 ? "F16"
                                           : "BF16";
        json_object_set_new(tensors, name,
                            json_pack("{s:s, s:o, s:i, s:I}", "dtype", dtype, "shape",
                                      shape_json(shape, 3), "layer", layer, "offset",
                                      (json_int_t)r->offset[which * 3 + i]));
    }
}

err pack_manifest(const packer *p, json_t **out) {
    json_t *tensors = json_object(), *layers = json_array();
    for (int i = 0; i < p->config.layers; i++) {
        if (!p->config.layer[i].sparse) continue;
        pack_record r;
        pack_record_of(p, &p->w.layers[i], &r);
        for (int which = 0; which < 3; which++) add_stack(p, tensors, i, which, &r);
        json_array_append_new(layers,
                              json_pack("{s:i, s:i, s:I}", "layer", i, "records", p->config.experts,
                                        "record_bytes", (json_int_t)r.total));
    }
    for (int i = 0; i < p->n_trunk; i++) {
        const pack_tensor *t = &p->trunk[i];
        char hash[20];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->hash);
        json_object_set_new(tensors, t->name,
                            json_pack("{s:s, s:o, s:I, s:s}", "dtype", st_dtype_name(t->dtype),
                                      "shape", shape_json(t->shape, t->n_dims), "offset",
                                      (json_int_t)t->offset, "xxh3", hash));
    }
    *out = json_pack("{s:s, s:i, s:s, s:s, s:b, s:i, s:i, s:o, s:o}", "format", "flashchat-bank",
                     "version", BANK_VERSION, "source", p->mark, "convention", st_format(p->files),
                     "relaid", p->relaid, "bits", p->format.bits, "group", p->format.group,
                     "layers", layers, "tensors", tensors);
    return *out ? err_none() : err_make(ERR_NOMEM, "no memory for the manifest");
}

/* The quantization block as conversions write it. */
static json_t *quantization(const packer *p) {
    json_t *q = json_pack("{s:i, s:i, s:s}", "group_size", p->format.group, "bits", p->format.bits,
                          "mode", "affine");
    for (int i = 0; i < p->n_trunk && q; i++) {
        const pack_tensor *t = &p->trunk[i];
        if (t->role != 0) continue;
        char module[300];
        snprintf(module, sizeof module, "%.*s", (int)strlen(t->name) - 7, t->name);
        json_object_set_new(
            q, module,
            json_pack("{s:i, s:i}", "group_size", PACK_TRUNK_GROUP, "bits", PACK_TRUNK_BITS));
    }
    return q;
}

err pack_config(const packer *p, json_t **out) {
    char path[BANK_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/config.json", p->o->model_dir);
    if (n < 0 || n >= BANK_PATH_MAX) return err_make(ERR_ARG, "%s: too long a path", path);
    TRY(json_read_file(path, CONFIG_MAX, out));
    if (p->relaid) return err_none();
    json_object_set_new(*out, "quantization", quantization(p));
    json_object_set_new(*out, "quantization_config", quantization(p));
    return err_none();
}
