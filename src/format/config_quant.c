/* config_quant.c: which modules are quantised, and how.
 *
 *     "quantization": { "group_size": 64, "bits": 4, "mode": "affine",
 *                       "model.layers.0.mlp.gate": { "group_size": 64, "bits": 8 },
 *                       "lm_head": false }
 *
 * The block is what MLX conversions write; they repeat it as quantization_config. An override that
 * leaves a field out has MLX's own default for it (64, 4, affine), not the block's, as MLX loads
 * it. Every other kind of quantisation names itself in quantization_config.quant_method and is
 * refused by that name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/config_parts.h"

#define MLX_GROUP 64
#define MLX_BITS  4

typedef struct override {
    char *module; /* owned */
    bool quantised;
    qformat format;
} override;

struct quant_overrides { /* fixed after open */
    qformat otherwise;   /* for modules that are not listed */
    int n;
    override *list; /* owned; ascending by module */
};

void quant_overrides_free(struct quant_overrides *q) {
    if (!q) return;
    for (int i = 0; i < q->n; i++) free(q->list[i].module);
    free(q->list);
    free(q);
}

static int by_module(const void *a, const void *b) {
    return strcmp(((const override *)a)->module, ((const override *)b)->module);
}

/* group_size, bits and mode of the block or of one override. */
static err read_format(const json_t *object, const char *where, qformat *out) {
    int64_t group, bits;
    const char *mode;
    TRY(json_get_string(object, where, "mode", "affine", &mode));
    if (strcmp(mode, "affine") != 0)
        return err_make(ERR_UNSUPPORTED, "%s: mode: \"%s\" is not supported (affine is)", where,
                        mode);
    TRY(json_get_int(object, where, "group_size", (json_range){1, 1 << 20, MLX_GROUP}, &group));
    TRY(json_get_int(object, where, "bits", (json_range){1, 64, MLX_BITS}, &bits));
    if (group != 32 && group != 64 && group != 128)
        return err_make(ERR_UNSUPPORTED,
                        "%s: group_size: %lld is not supported (32, 64 and 128 are)", where,
                        (long long)group);
    if (!((bits >= 2 && bits <= 6) || bits == 8))
        return err_make(ERR_UNSUPPORTED, "%s: bits: %lld is not supported (2, 3, 4, 5, 6, 8 are)",
                        where, (long long)bits);
    *out = (qformat){.kind = QK_AFFINE, .bits = (int)bits, .group = (int)group};
    return err_none();
}

static err add_override(struct quant_overrides *q, const char *where, const char *key,
                        const json_t *value) {
    override o = {.quantised = !json_is_false(value), .format = q->otherwise};
    if (json_is_object(value)) {
        char inner[700];
        snprintf(inner, sizeof inner, "%s: %s", where, key);
        TRY(read_format(value, inner, &o.format));
    } else if (!json_is_boolean(value)) {
        return err_make(ERR_UNSUPPORTED,
                        "%s: %s: expected the settings of a module or false, found %s", where, key,
                        json_kind(value));
    }
    o.module = strdup(key);
    if (!o.module) return err_make(ERR_NOMEM, "%s: no memory", where);
    q->list[q->n++] = o;
    return err_none();
}

static bool is_setting(const char *key) {
    return strcmp(key, "group_size") == 0 || strcmp(key, "bits") == 0 || strcmp(key, "mode") == 0;
}

static err read_block(struct quant_overrides *q, const char *where, const json_t *block) {
    if (!json_object_get(block, "group_size") || !json_object_get(block, "bits"))
        return err_make(ERR_CORRUPT, "%s: group_size and bits: expected both", where);
    TRY(read_format(block, where, &q->otherwise));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)block, key, value) {
        if (!is_setting(key)) TRY(add_override(q, where, key, value));
    }
    qsort(q->list, (size_t)q->n, sizeof *q->list, by_module);
    return err_none();
}

static err open_block(const char *where, const json_t *block, model_config *c) {
    struct quant_overrides *q = calloc(1, sizeof *q);
    override *list = calloc(json_object_size(block) + 1, sizeof *list);
    if (!q || !list) {
        free(q);
        free(list);
        return err_make(ERR_NOMEM, "%s: no memory", where);
    }
    q->list = list;
    err e = read_block(q, where, block);
    if (e.code) {
        quant_overrides_free(q);
        return e;
    }
    c->quantized = true;
    c->overrides = q;
    return err_none();
}

/* quantization_config without a quantization block beside it: MLX's under another name, or
 * something that we cannot read. */
static err other_kind(const char *where, const json_t *block) {
    const char *method;
    TRY(json_get_string(block, where, "quant_method", NULL, &method));
    if (method)
        return err_make(ERR_UNSUPPORTED,
                        "%s: quant_method: \"%s\" is not supported: use the original BF16 model or "
                        "an MLX conversion (affine)",
                        where, method);
    if (json_object_get(block, "group_size") && json_object_get(block, "bits")) return err_none();
    return err_make(ERR_UNSUPPORTED, "%s: a quantisation that does not name itself", where);
}

/* One spelling of the block in one object; *found tells whether it was there. */
static err try_block(const json_t *object, const char *where, const char *key, bool *found,
                     model_config *c) {
    const json_t *block = json_object_get(object, key);
    *found = block && !json_is_null(block);
    if (!*found) return err_none();
    char inner[600];
    snprintf(inner, sizeof inner, "%s: %s", where, key);
    if (!json_is_object(block))
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", inner, json_kind(block));
    if (strcmp(key, "quantization") != 0) TRY(other_kind(inner, block));
    return open_block(inner, block, c);
}

err config_quantization(const config_source *src, model_config *c) {
    static const char *const keys[] = {"quantization", "quantization_config", "compression_config"};
    c->quantized = false;
    c->overrides = NULL;
    bool found = false;
    for (int i = 0; i < 3 && !found; i++) {
        TRY(try_block(src->outer, src->file, keys[i], &found, c));
        if (!found && src->text != src->outer)
            TRY(try_block(src->text, src->where, keys[i], &found, c));
    }
    return err_none();
}

err config_module_format(const model_config *c, const char *module, bool *quantised, qformat *out) {
    *quantised = false;
    if (!c->overrides) return err_none();
    override key = {.module = (char *)module};
    const override *o = c->overrides->n ? bsearch(&key, c->overrides->list, (size_t)c->overrides->n,
                                                  sizeof *c->overrides->list, by_module)
                                        : NULL;
    *quantised = o ? o->quantised : true;
    if (*quantised) *out = o ? o->format : c->overrides->otherwise;
    return err_none();
}
