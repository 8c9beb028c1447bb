/* weights_load.c: see weights_load.h. */
#include "model/weights_load.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define NAME_MAX_BYTES 320

/* Room in the arena; NULL while measuring. */
static void *take(loader *l, size_t bytes) {
    size_t at = round_up(l->used, bytes >= WEIGHTS_LARGE ? WEIGHTS_PAGE : WEIGHTS_ALIGN);
    l->used = at + bytes;
    assert(!l->base || l->used <= l->w->trunk.size);
    return l->base ? l->base + at : NULL;
}

static const char *file_of(const loader *l, const st_tensor *t) {
    return st_path(l->w->files, t->file);
}

bool loader_has(const loader *l, const char *name) {
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    return st_find(l->w->files, full) != NULL;
}

static err find(const loader *l, const char *full, const st_tensor **out) {
    *out = st_find(l->w->files, full);
    if (*out) return err_none();
    return err_make(ERR_NOT_FOUND, "%s: tensor %s is missing", st_path(l->w->files, 0), full);
}

/* "[4, 256, 128]" */
static void shape_text(char *out, size_t size, const int64_t *shape, int n) {
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n && used < size; i++) {
        used +=
            (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    if (used < size) snprintf(out + used, size - used, "]");
}

/* The tensor has exactly this shape ([stack,] rows, cols; cols 0: one dimension). */
static err check_shape(const loader *l, const st_tensor *t, int stack, int64_t rows, int64_t cols) {
    int64_t want[3];
    int n = 0;
    if (stack) want[n++] = stack;
    want[n++] = rows;
    if (cols) want[n++] = cols;
    bool same = t->n_dims == n;
    for (int i = 0; same && i < n; i++) same = t->shape[i] == want[i];
    if (same) return err_none();
    char expected[64], found[160];
    shape_text(expected, sizeof expected, want, n);
    shape_text(found, sizeof found, t->shape, t->n_dims);
    return err_make(ERR_CORRUPT, "%s: tensor %s: shape %s, but config.json asks for %s",
                    file_of(l, t), t->name, found, expected);
}

static err dense_kind(const loader *l, const st_tensor *t, qkind *out) {
    switch (t->dtype) {
    case ST_F32: *out = QK_F32; return err_none();
    case ST_F16: *out = QK_F16; return err_none();
    case ST_BF16: *out = QK_BF16; return err_none();
    default:
        return err_make(
            ERR_UNSUPPORTED,
            "%s: tensor %s: weights of type %s are not supported (BF16, F16, F32, or an "
            "MLX affine quantisation are)",
            file_of(l, t), t->name, st_dtype_name(t->dtype));
    }
}

/* scales or biases of a quantised module */
static err find_scale(const loader *l, const char *module, const char *which,
                      const st_tensor **out) {
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s.%s", module, which);
    TRY(find(l, name, out));
    if ((*out)->dtype == ST_BF16 || (*out)->dtype == ST_F16) return err_none();
    return err_make(ERR_UNSUPPORTED, "%s: tensor %s: type %s, expected BF16 or F16",
                    file_of(l, *out), name, st_dtype_name((*out)->dtype));
}

static err find_affine(const loader *l, const char *module, int stack, qmat *m, matrix_source *s) {
    qformat *f = &m->format;
    if (s->w->dtype != ST_U32)
        return err_make(ERR_CORRUPT, "%s: tensor %s: type %s, expected U32 for a quantised matrix",
                        file_of(l, s->w), s->w->name, st_dtype_name(s->w->dtype));
    if (m->cols % f->group || (int64_t)m->cols * f->bits % 32)
        return err_make(ERR_CORRUPT,
                        "%s: tensor %s: %d columns do not divide into groups of %d at %d bits",
                        file_of(l, s->w), s->w->name, m->cols, f->group, f->bits);
    TRY(check_shape(l, s->w, stack, m->rows, (int64_t)m->cols * f->bits / 32));
    TRY(find_scale(l, module, "scales", &s->scales));
    TRY(find_scale(l, module, "biases", &s->biases));
    TRY(check_shape(l, s->scales, stack, m->rows, m->cols / f->group));
    TRY(check_shape(l, s->biases, stack, m->rows, m->cols / f->group));
    if (s->scales->dtype != s->biases->dtype)
        return err_make(ERR_UNSUPPORTED, "%s: tensor %s: type %s, but its scales are %s",
                        file_of(l, s->biases), s->biases->name, st_dtype_name(s->biases->dtype),
                        st_dtype_name(s->scales->dtype));
    f->kind = QK_AFFINE;
    f->scales_f16 = s->scales->dtype == ST_F16;
    return err_none();
}

err loader_find_matrix(const loader *l, const char *module, int stack, qmat *out,
                       matrix_source *source) {
    *source = (matrix_source){0};
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s.weight", module);
    TRY(find(l, name, &source->w));
    bool quantised = false;
    qformat format = {0};
    TRY(config_module_format(l->w->config, module, &quantised, &format));
    snprintf(name, sizeof name, "%s.scales", module);
    if (quantised && (source->w->dtype == ST_U32 || st_find(l->w->files, name))) {
        out->format = format;
        return find_affine(l, module, stack, out, source);
    }
    TRY(dense_kind(l, source->w, &out->format.kind));
    return check_shape(l, source->w, stack, out->rows, out->cols);
}

/* ---- matrices of the trunk ---- */

static err load_matrix(loader *l, const char *full_module, int rows, int cols, qmat *out) {
    matrix_source s;
    *out = (qmat){.rows = rows, .cols = cols};
    TRY(loader_find_matrix(l, full_module, 0, out, &s));
    const st_tensor *tensors[3] = {s.w, s.scales, s.biases};
    const void **views[3] = {&out->w, &out->scales, &out->biases};
    for (int i = 0; i < 3 && tensors[i]; i++) {
        void *at = take(l, (size_t)tensors[i]->bytes);
        *views[i] = at;
        if (at && !l->skip) TRY(st_read(l->w->files, tensors[i], at));
    }
    return err_none();
}

err loader_matrix(loader *l, const char *module, int rows, int cols, qmat *out) {
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s%s", l->prefix, module);
    return load_matrix(l, full, rows, cols, out);
}

err loader_head(loader *l, qmat *out) {
    static const char *const known[] = {"lm_head", "language_model.lm_head", "model.lm_head"};
    const model_config *c = l->w->config;
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.weight", known[i]);
        if (st_find(l->w->files, name)) return load_matrix(l, known[i], c->vocab, c->hidden, out);
    }
    return err_make(ERR_NOT_FOUND,
                    "%s: tensor lm_head.weight is missing, and config.json does not tie it to the "
                    "embeddings",
                    st_path(l->w->files, 0));
}

static err stage(loader *l, const st_tensor *t) {
    if ((size_t)t->bytes > l->staging_bytes) {
        free(l->staging);
        l->staging_bytes = 0;
        l->staging = malloc((size_t)t->bytes);
        if (!l->staging) return err_make(ERR_NOMEM, "no memory to read tensor %s", t->name);
        l->staging_bytes = (size_t)t->bytes;
    }
    return st_read(l->w->files, t, l->staging);
}

/* The rows of every group, read straight to where they belong. */
static err read_groups(const loader *l, const fused_rows *f, const st_tensor *t, uint8_t *to) {
    int64_t row = t->bytes / f->file_rows;
    for (int h = 0; h < f->heads; h++) {
        for (int i = 0; i < f->n_groups; i++) {
            const row_group *g = &f->groups[i];
            int64_t source = (g->from + h * g->from_step) * row;
            int64_t target = (g->to + h * g->to_step) * row;
            TRY(st_read_part(l->w->files, t, source, (size_t)(g->rows * row), to + target));
        }
    }
    return err_none();
}

err loader_fused(loader *l, const fused_rows *f, qmat *out) {
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s%s", l->prefix, f->module);
    matrix_source s;
    *out = (qmat){.rows = f->file_rows, .cols = f->cols};
    TRY(loader_find_matrix(l, full, 0, out, &s));
    out->rows = f->rows;
    const st_tensor *tensors[3] = {s.w, s.scales, s.biases};
    const void **views[3] = {&out->w, &out->scales, &out->biases};
    for (int i = 0; i < 3 && tensors[i]; i++) {
        size_t row = (size_t)tensors[i]->bytes / (size_t)f->file_rows;
        uint8_t *at = take(l, row * (size_t)f->rows);
        *views[i] = at;
        if (at && !l->skip) TRY(read_groups(l, f, tensors[i], at));
    }
    return err_none();
}

/* ---- vectors ---- */

/* n numbers of a tensor whose shape was checked, as float32 in the arena. */
static err load_floats(loader *l, const st_tensor *t, size_t n, float add, const float **out) {
    qkind kind = QK_F32;
    TRY(dense_kind(l, t, &kind));
    float *at = take(l, n * sizeof(float));
    *out = at;
    if (!at || l->skip) return err_none();
    TRY(stage(l, t));
    qmat row = {.format = {.kind = kind}, .rows = 1, .cols = (int)n, .w = l->staging};
    dense_row_f32(at, &row, 0);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(at[i]))
            return err_make(ERR_CORRUPT, "%s: tensor %s: number %zu is %s: the file is damaged",
                            file_of(l, t), t->name, i, isnan(at[i]) ? "not a number" : "infinite");
        at[i] += add;
    }
    return err_none();
}

err loader_vector(loader *l, const char *name, int n, float add, const float **out) {
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    const st_tensor *t;
    TRY(find(l, full, &t));
    TRY(check_shape(l, t, 0, n, 0));
    return load_floats(l, t, (size_t)n, add, out);
}

err loader_norm(loader *l, const char *name, int n, const float **out) {
    return loader_vector(l, name, n, l->centred ? 1.0f : 0.0f, out);
}

err loader_conv(loader *l, const char *name, int channels, int kernel, const float **out) {
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    const st_tensor *t;
    TRY(find(l, full, &t));
    bool fits = t->n_dims == 3 && t->shape[0] == channels &&
                ((t->shape[1] == 1 && t->shape[2] == kernel) ||
                 (t->shape[1] == kernel && t->shape[2] == 1));
    if (!fits) {
        char found[160];
        shape_text(found, sizeof found, t->shape, t->n_dims);
        return err_make(ERR_CORRUPT,
                        "%s: tensor %s: shape %s, but config.json asks for [%d, 1, %d] or [%d, %d, "
                        "1]",
                        file_of(l, t), full, found, channels, kernel, channels, kernel);
    }
    return load_floats(l, t, (size_t)channels * (size_t)kernel, 0, out);
}
