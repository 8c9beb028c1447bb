/* config_rope.c: the rotary position fields, in their present and older spellings.
 *
 *     rope_parameters { rope_theta, partial_rotary_factor, rope_type, ... }      present
 *     rope_theta, partial_rotary_factor, rope_scaling { type | rope_type, ... }  older
 *
 * Precedence as in the reference (transformers 5): a non-empty rope_scaling replaces
 * rope_parameters; inside the object first, the text config's own fields second, defaults last. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/config_parts.h"

#define DEFAULT_THETA 10000.0 /* RotaryEmbeddingConfigMixin.default_theta */

typedef struct rope_source {
    const json_t *object; /* borrowed; NULL when the file has none */
    char where[600];
} rope_source;

static bool one_of(const char *text, const char *const *list) {
    for (; *list; list++) {
        if (strcmp(text, *list) == 0) return true;
    }
    return false;
}

/* Everything in the rope object changes the maths, so a key that we do not know is refused. */
static err check_keys(const rope_source *r) {
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "partial_rotary_factor",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "attention_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "mscale",
                                        "mscale_all_dim",
                                        "truncate",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "mrope_section", /* for text the three streams are one */
                                        "mrope_interleaved", /* the same */
                                        "finetuned",         /* a remark */
                                        NULL};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->object, key, value) {
        if (!one_of(key, known) && !json_is_null(value))
            return err_make(ERR_UNSUPPORTED, "%s: %s: not supported", r->where, key);
    }
    return err_none();
}

static err find_object(const config_source *src, rope_source *r) {
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    r->object = NULL;
    snprintf(r->where, sizeof r->where, "%s", src->where);
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(src->text, names[i]);
        if (!value || json_is_null(value)) continue;
        if (!json_is_object(value))
            return err_make(ERR_CORRUPT, "%s: %s: expected an object, found %s", src->where,
                            names[i], json_kind(value));
        if (json_object_size(value) == 0) continue;
        r->object = value;
        snprintf(r->where, sizeof r->where, "%s: %s", src->where, names[i]);
        return check_keys(r);
    }
    return err_none();
}

static err find_type(const rope_source *r, rope_scaling *out) {
    static const char *const names[] = {[ROPE_DEFAULT] = "default",
                                        [ROPE_LINEAR] = "linear",
                                        [ROPE_YARN] = "yarn",
                                        [ROPE_LLAMA3] = "llama3",
                                        [ROPE_DYNAMIC] = "dynamic"};
    const char *older, *type;
    TRY(json_get_string(r->object, r->where, "type", "default", &older));
    TRY(json_get_string(r->object, r->where, "rope_type", older, &type));
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++) {
        if (strcmp(type, names[i]) == 0) {
            *out = (rope_scaling)i;
            return err_none();
        }
    }
    return err_make(ERR_UNSUPPORTED,
                    "%s: rope_type: \"%s\" is not supported (default, linear, yarn, llama3 and "
                    "dynamic are)",
                    r->where, type);
}

/* A number above `above`; `otherwise` when missing, and when `otherwise` is NaN it may not be. */
static err get_above(const json_t *object, const char *where, const char *key, double above,
                     double otherwise, double *out) {
    TRY(json_get_number(object, where, key, otherwise, out));
    const json_t *value = json_object_get(object, key);
    if ((!value || json_is_null(value)) && isnan(otherwise))
        return err_make(ERR_CORRUPT, "%s: %s: missing", where, key);
    if (value && !json_is_null(value) && !(*out > above && isfinite(*out)))
        return err_make(ERR_CORRUPT, "%s: %s: expected more than %g, found %g", where, key, above,
                        *out);
    return err_none();
}

static err base_fields(const config_source *src, const rope_source *r, double default_partial,
                       model_config *c) {
    rope_config *rope = &c->rope;
    double outside;
    TRY(get_above(src->text, src->where, "rope_theta", 1, DEFAULT_THETA, &outside));
    TRY(get_above(r->object, r->where, "rope_theta", 1, outside, &rope->theta));
    TRY(get_above(src->text, src->where, "partial_rotary_factor", 0, default_partial, &outside));
    TRY(get_above(r->object, r->where, "partial_rotary_factor", 0, outside, &rope->partial));
    if (rope->partial > 1)
        return err_make(ERR_CORRUPT, "%s: partial_rotary_factor: expected at most 1, found %g",
                        r->where, rope->partial);
    if (c->family == FAMILY_QWEN3_MOE && rope->partial < 1)
        return err_make(ERR_UNSUPPORTED,
                        "%s: partial_rotary_factor: %g is not supported for this architecture",
                        r->where, rope->partial);
    /* The reference takes the inner value for plain RoPE and the outer one when it scales. */
    if (rope->scaling != ROPE_DEFAULT && rope->partial != outside &&
        json_is_number(json_object_get(src->text, "partial_rotary_factor")))
        return err_make(ERR_CORRUPT, "%s: partial_rotary_factor: %g here, %g in %s", r->where,
                        rope->partial, outside, src->where);
    rope->dims = (int)(c->head_dim * rope->partial);
    if (rope->dims < 2 || rope->dims % 2)
        return err_make(ERR_UNSUPPORTED,
                        "%s: partial_rotary_factor: %g of head_dim %d is %d dimensions, an even "
                        "number from 2 expected",
                        r->where, rope->partial, c->head_dim, rope->dims);
    return err_none();
}

/* The length before scaling. A field beside the rope object outranks the one inside. */
static err original_context(const config_source *src, const rope_source *r, model_config *c) {
    const char *key = "original_max_position_embeddings";
    int64_t inside, n;
    TRY(json_get_int(r->object, r->where, key, (json_range){1, 1 << 30, c->context}, &inside));
    TRY(json_get_int(src->text, src->where, key, (json_range){1, 1 << 30, inside}, &n));
    c->rope.original_context = (int)n;
    return err_none();
}

/* What the reference writes as `x or default`: zero and null mean the default too. */
static err get_or(const rope_source *r, const char *key, double otherwise, double *out) {
    TRY(json_get_number(r->object, r->where, key, otherwise, out));
    if (*out == 0) *out = otherwise;
    if (!(*out >= 0 && isfinite(*out)))
        return err_make(ERR_CORRUPT, "%s: %s: expected a positive number, found %g", r->where, key,
                        *out);
    return err_none();
}

static err yarn_fields(const config_source *src, const rope_source *r, model_config *c) {
    rope_config *rope = &c->rope;
    TRY(original_context(src, r, c));
    double implied = (double)c->context / rope->original_context;
    TRY(get_above(r->object, r->where, "factor", 0, implied, &rope->factor));
    TRY(get_above(r->object, r->where, "attention_factor", 0, -1, &rope->attention_factor));
    TRY(get_or(r, "beta_fast", 32, &rope->beta_fast));
    TRY(get_or(r, "beta_slow", 1, &rope->beta_slow));
    TRY(get_or(r, "mscale", 0, &rope->mscale));
    TRY(get_or(r, "mscale_all_dim", 0, &rope->mscale_all_dim));
    return json_get_bool(r->object, r->where, "truncate", true, &rope->truncate);
}

static err llama3_fields(const config_source *src, const rope_source *r, model_config *c) {
    rope_config *rope = &c->rope;
    TRY(original_context(src, r, c));
    TRY(get_above(r->object, r->where, "factor", 0, NAN, &rope->factor));
    TRY(get_above(r->object, r->where, "low_freq_factor", 0, NAN, &rope->low_freq_factor));
    TRY(get_above(r->object, r->where, "high_freq_factor", 0, NAN, &rope->high_freq_factor));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return err_make(ERR_CORRUPT,
                        "%s: high_freq_factor: expected more than low_freq_factor (%g), found %g",
                        r->where, rope->low_freq_factor, rope->high_freq_factor);
    return err_none();
}

err config_rope(const config_source *src, double default_partial, model_config *c) {
    rope_source r;
    c->rope = (rope_config){.factor = 1, .attention_factor = -1, .original_context = c->context};
    TRY(find_object(src, &r));
    TRY(find_type(&r, &c->rope.scaling));
    TRY(base_fields(src, &r, default_partial, c));
    switch (c->rope.scaling) {
    case ROPE_DEFAULT: return err_none();
    case ROPE_YARN: return yarn_fields(src, &r, c);
    case ROPE_LLAMA3: return llama3_fields(src, &r, c);
    default: return get_above(r.object, r.where, "factor", 0, NAN, &c->rope.factor);
    }
}
