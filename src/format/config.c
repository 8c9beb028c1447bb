/* config.c: see config.h.
 *
 *     file -> family (model_type) -> sizes -> layers -> rope -> quantization -> consistency
 *
 * The defaults are those of the reference's configuration classes (transformers 5: Qwen3_5MoeText,
 * Qwen3Next, Qwen3Moe), one row of a table each. Rotary fields are read in config_rope.c, the
 * quantization block in config_quant.c. */
#include "format/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/config_parts.h"

#define FILE_MAX_BYTES ((size_t)64 << 20) /* a per-module block of a large model is a few MB */
#define DIM_MAX        (1 << 20)
#define WIDTH_MAX      (1 << 24) /* of a projection: heads * head_dim and the like */
#define VOCAB_MAX      (1 << 24)
#define CONTEXT_MAX    (1 << 30)
#define EXPERTS_MAX    (1 << 16)

typedef struct family_defaults {
    model_family family;
    const char *model_type;
    int vocab, hidden, intermediate, layers, heads, kv_heads;
    int head_dim; /* 0: hidden / heads */
    int experts, experts_per_token, expert_intermediate, shared_intermediate;
    bool norm_topk;
    double partial;
} family_defaults;

static const family_defaults families[] = {
    {FAMILY_QWEN3_5_MOE, "qwen3_5_moe_text", 248320, 2048, 0, 40, 16, 2, 256, 256, 8, 512, 512,
     true, 0.25},
    {FAMILY_QWEN3_NEXT, "qwen3_next", 151936, 2048, 5632, 48, 16, 2, 256, 512, 10, 512, 512, true,
     0.25},
    {FAMILY_QWEN3_MOE, "qwen3_moe", 151936, 2048, 6144, 24, 32, 4, 0, 128, 8, 768, 0, false, 1},
};

#define SUPPORTED_TEXT                                                                             \
    "supported are qwen3_5_moe (Qwen3.5, Qwen3.6), qwen3_next (Qwen3-Next, Qwen3-Coder-Next) and " \
    "qwen3_moe (Qwen3)"

/* ---- which model ---- */

static err find_family(const config_source *src, const family_defaults **out) {
    *out = NULL;
    const char *type;
    TRY(json_get_string(src->text, src->where, "model_type", NULL, &type));
    if (!type && src->text != src->outer) type = "qwen3_5_moe_text";
    if (!type) return err_make(ERR_CORRUPT, "%s: model_type: missing", src->where);
    /* A flat file under the wrapper's name, as some conversions write it. */
    if (strcmp(type, "qwen3_5_moe") == 0) type = "qwen3_5_moe_text";
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i].model_type, type) == 0) *out = &families[i];
    }
    if (!*out)
        return err_make(ERR_UNSUPPORTED, "%s: model_type: \"%s\" is not supported; %s", src->where,
                        type, SUPPORTED_TEXT);
    return err_none();
}

/* Where the text model's fields are: in text_config under the multimodal wrapper, else at the top.
 */
static err find_text(const char *file, const json_t *root, config_source *src) {
    *src = (config_source){.outer = root, .text = root, .file = file};
    snprintf(src->where, sizeof src->where, "%s", file);
    if (!json_is_object(root))
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", file, json_kind(root));
    const char *type;
    TRY(json_get_string(root, file, "model_type", NULL, &type));
    const json_t *inner = json_object_get(root, "text_config");
    if (!inner || json_is_null(inner) || !type || strcmp(type, "qwen3_5_moe") != 0)
        return err_none(); /* an unknown wrapper is refused by its own name */
    if (!json_is_object(inner))
        return err_make(ERR_CORRUPT, "%s: text_config: expected an object, found %s", file,
                        json_kind(inner));
    src->text = inner;
    snprintf(src->where, sizeof src->where, "%s: text_config", file);
    return err_none();
}

/* Fields of relatives of these models that would change the maths. They are harmless only with the
 * value given here; anything else is refused by name. */
static err check_neutral(const config_source *src) {
    static const struct {
        const char *key;
        double neutral; /* true is 1, false 0; null is always neutral */
    } fields[] = {
        {"use_sliding_window", 0},
        {"attn_logit_softcapping", 0},
        {"mlp_bias", 0},
        {"final_logit_softcapping", 0},
        {"routed_scaling_factor", 1},
        {"n_group", 1},
        {"topk_group", 1},
        {"use_qk_norm", 1},
        {"first_k_dense_replace", 0},
        {"residual_multiplier", 1},
        {"embedding_multiplier", 1},
        {"logits_scaling", 1},
        {"clip_qkv", 0},
        {"moe_layer_freq", 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const json_t *value = json_object_get(src->text, fields[i].key);
        if (!value || json_is_null(value)) continue;
        double found = json_is_true(value)     ? 1
                       : json_is_false(value)  ? 0
                       : json_is_number(value) ? json_number_value(value)
                                               : (double)NAN;
        if (found != fields[i].neutral)
            return err_make(ERR_UNSUPPORTED, "%s: %s: this value is not supported", src->where,
                            fields[i].key);
    }
    const char *act;
    TRY(json_get_string(src->text, src->where, "hidden_act", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return err_make(ERR_UNSUPPORTED, "%s: hidden_act: \"%s\" is not supported (silu is)",
                        src->where, act);
    const char *scoring;
    TRY(json_get_string(src->text, src->where, "scoring_func", "softmax", &scoring));
    if (strcmp(scoring, "softmax") != 0)
        return err_make(ERR_UNSUPPORTED, "%s: scoring_func: \"%s\" is not supported (softmax is)",
                        src->where, scoring);
    return err_none();
}

/* ---- sizes ---- */

typedef struct int_field {
    const char *key;
    int low, high, otherwise;
    int *out;
} int_field;

static err read_ints(const config_source *src, const int_field *fields, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int64_t value;
        TRY(json_get_int(src->text, src->where, fields[i].key,
                         (json_range){fields[i].low, fields[i].high, fields[i].otherwise}, &value));
        *fields[i].out = (int)value;
    }
    return err_none();
}

static err read_experts(const config_source *src, const family_defaults *d, model_config *c) {
    int64_t first, second;
    TRY(json_get_int(src->text, src->where, "num_experts", (json_range){0, EXPERTS_MAX, -1},
                     &first));
    TRY(json_get_int(src->text, src->where, "num_local_experts", (json_range){0, EXPERTS_MAX, -1},
                     &second));
    if (first >= 0 && second >= 0 && first != second)
        return err_make(ERR_CORRUPT, "%s: num_experts is %lld, but num_local_experts is %lld",
                        src->where, (long long)first, (long long)second);
    c->experts = first >= 0 ? (int)first : second >= 0 ? (int)second : d->experts;
    return err_none();
}

static err read_sizes(const config_source *src, const family_defaults *d, model_config *c) {
    const int_field fields[] = {
        {"hidden_size", 1, DIM_MAX, d->hidden, &c->hidden},
        {"num_hidden_layers", 1, CONFIG_LAYERS_MAX, d->layers, &c->layers},
        {"vocab_size", 1, VOCAB_MAX, d->vocab, &c->vocab},
        {"max_position_embeddings", 1, CONTEXT_MAX, 32768, &c->context},
        {"num_attention_heads", 1, DIM_MAX, d->heads, &c->heads},
        {"num_key_value_heads", 1, DIM_MAX, d->kv_heads, &c->kv_heads},
        {"head_dim", 1, DIM_MAX, d->head_dim, &c->head_dim},
        {"intermediate_size", 0, DIM_MAX, d->intermediate, &c->intermediate},
        {"num_experts_per_tok", 0, EXPERTS_MAX, d->experts_per_token, &c->experts_per_token},
        {"moe_intermediate_size", 0, DIM_MAX, d->expert_intermediate, &c->expert_intermediate},
    };
    TRY(read_ints(src, fields, sizeof fields / sizeof fields[0]));
    TRY(read_experts(src, d, c));
    if (c->head_dim == 0) {
        c->head_dim = c->hidden / c->heads;
        if (c->hidden % c->heads)
            return err_make(ERR_CORRUPT,
                            "%s: num_attention_heads: %d does not divide hidden_size %d, and "
                            "head_dim is missing",
                            src->where, c->heads, c->hidden);
    }
    if (d->family == FAMILY_QWEN3_MOE) return err_none();
    const int_field hybrid[] = {
        {"shared_expert_intermediate_size", 0, DIM_MAX, d->shared_intermediate,
         &c->shared_intermediate},
        {"linear_num_key_heads", 1, DIM_MAX, 16, &c->linear_k_heads},
        {"linear_num_value_heads", 1, DIM_MAX, 32, &c->linear_v_heads},
        {"linear_key_head_dim", 1, DIM_MAX, 128, &c->linear_k_dim},
        {"linear_value_head_dim", 1, DIM_MAX, 128, &c->linear_v_dim},
        {"linear_conv_kernel_dim", 2, 64, 4, &c->conv_kernel},
    };
    return read_ints(src, hybrid, sizeof hybrid / sizeof hybrid[0]);
}

static err read_switches(const config_source *src, const family_defaults *d, model_config *c) {
    const json_t *t = src->text;
    bool inner_tied, hybrid = d->family != FAMILY_QWEN3_MOE;
    TRY(json_get_bool(t, src->where, "attention_bias", false, &c->attention_bias));
    TRY(json_get_bool(t, src->where, "attn_output_gate", hybrid, &c->attention_gate));
    TRY(json_get_bool(t, src->where, "norm_topk_prob", d->norm_topk, &c->norm_topk));
    TRY(json_get_bool(t, src->where, "tie_word_embeddings", false, &inner_tied));
    TRY(json_get_bool(src->outer, src->file, "tie_word_embeddings", inner_tied,
                      &c->tied_embeddings));
    TRY(json_get_number(t, src->where, "rms_norm_eps", 1e-6, &c->norm_eps));
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return err_make(ERR_CORRUPT, "%s: rms_norm_eps: expected between 0 and 1, found %g",
                        src->where, c->norm_eps);
    if (c->attention_gate && !hybrid)
        return err_make(ERR_UNSUPPORTED, "%s: attn_output_gate: not supported for qwen3_moe",
                        src->where);
    /* The reference's Qwen3.5 router renormalises always and does not read the field. */
    if (d->family == FAMILY_QWEN3_5_MOE) c->norm_topk = true;
    int64_t mtp, nextn;
    bool own_embeddings;
    TRY(json_get_int(t, src->where, "num_nextn_predict_layers", (json_range){0, 64, 0}, &nextn));
    TRY(json_get_int(t, src->where, "mtp_num_hidden_layers", (json_range){0, 64, nextn}, &mtp));
    TRY(json_get_bool(t, src->where, "mtp_use_dedicated_embeddings", false, &own_embeddings));
    /* A draft head with embeddings of its own is not implemented; without it the output is the
     * same. */
    c->mtp_layers = own_embeddings ? 0 : (int)mtp;
    return err_none();
}

/* ---- layers ---- */

static err layer_type(const config_source *src, int i, const json_t *value, bool *full) {
    const char *type = json_string_value(value);
    if (!type)
        return err_make(ERR_CORRUPT, "%s: layer_types[%d]: expected a string, found %s", src->where,
                        i, json_kind(value));
    *full = strcmp(type, "full_attention") == 0 || strcmp(type, "attention") == 0;
    if (!*full && strcmp(type, "linear_attention") != 0)
        return err_make(ERR_UNSUPPORTED,
                        "%s: layer_types[%d]: \"%s\" is not supported (full_attention and "
                        "linear_attention are)",
                        src->where, i, type);
    return err_none();
}

static err read_attention_kinds(const config_source *src, model_config *c) {
    bool hybrid = c->family != FAMILY_QWEN3_MOE;
    const json_t *types = json_object_get(src->text, "layer_types");
    int64_t interval;
    TRY(json_get_int(src->text, src->where, "full_attention_interval", (json_range){1, DIM_MAX, 4},
                     &interval));
    if (types && !json_is_null(types) &&
        (!json_is_array(types) || json_array_size(types) != (size_t)c->layers))
        return err_make(ERR_CORRUPT, "%s: layer_types: expected a list of num_hidden_layers (%d)",
                        src->where, c->layers);
    for (int i = 0; i < c->layers; i++) {
        bool full = !hybrid || (i + 1) % interval == 0;
        if (json_is_array(types)) TRY(layer_type(src, i, json_array_get(types, (size_t)i), &full));
        if (!full && !hybrid)
            return err_make(ERR_UNSUPPORTED,
                            "%s: layer_types[%d]: linear_attention is not supported for qwen3_moe",
                            src->where, i);
        c->layer[i].full_attention = full;
    }
    return err_none();
}

/* The layers that mlp_only_layers names become dense. A number beyond the last layer names none,
 * as in the reference. */
static err read_mlp_only(const config_source *src, const json_t *list, model_config *c) {
    if (!list || json_is_null(list)) return err_none();
    if (!json_is_array(list))
        return err_make(ERR_CORRUPT, "%s: mlp_only_layers: expected a list, found %s", src->where,
                        json_kind(list));
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *value = json_array_get(list, k);
        if (!json_is_integer(value))
            return err_make(ERR_CORRUPT, "%s: mlp_only_layers: expected whole numbers, found %s",
                            src->where, json_kind(value));
        json_int_t i = json_integer_value(value);
        if (i >= 0 && i < c->layers) c->layer[i].sparse = false;
    }
    return err_none();
}

static err read_sparse_kinds(const config_source *src, model_config *c) {
    const json_t *list = json_object_get(src->text, "mlp_only_layers");
    int64_t step;
    TRY(json_get_int(src->text, src->where, "decoder_sparse_step", (json_range){1, DIM_MAX, 1},
                     &step));
    if (c->family == FAMILY_QWEN3_5_MOE && (step != 1 || json_array_size(list) > 0))
        return err_make(ERR_UNSUPPORTED,
                        "%s: %s: not supported for qwen3_5_moe, whose layers are all sparse",
                        src->where, step != 1 ? "decoder_sparse_step" : "mlp_only_layers");
    for (int i = 0; i < c->layers; i++) c->layer[i].sparse = c->experts > 0 && (i + 1) % step == 0;
    return read_mlp_only(src, list, c);
}

/* ---- consistency ---- */

/* What no layer uses is zero, so that nobody sizes anything by it. */
static err check_layer_sizes(const config_source *src, model_config *c) {
    int dense = 0, sparse = 0, linear = 0;
    for (int i = 0; i < c->layers; i++) {
        c->layer[i].sparse ? sparse++ : dense++;
        linear += !c->layer[i].full_attention;
    }
    if (dense && c->intermediate == 0)
        return err_make(ERR_CORRUPT, "%s: intermediate_size: missing or 0, but %d layers are dense",
                        src->where, dense);
    if (!dense) c->intermediate = 0;
    if (sparse && (c->experts_per_token < 1 || c->experts_per_token > c->experts))
        return err_make(ERR_CORRUPT, "%s: num_experts_per_tok: expected 1 to %d, found %d",
                        src->where, c->experts, c->experts_per_token);
    if (sparse && c->expert_intermediate == 0)
        return err_make(ERR_CORRUPT, "%s: moe_intermediate_size: expected more than 0", src->where);
    if (!sparse)
        c->experts = c->experts_per_token = c->expert_intermediate = c->shared_intermediate = 0;
    if (!linear)
        c->linear_k_heads = c->linear_v_heads = c->linear_k_dim = c->linear_v_dim = c->conv_kernel =
            0;
    return err_none();
}

static err check_sizes(const config_source *src, const model_config *c) {
    if (c->heads % c->kv_heads)
        return err_make(ERR_CORRUPT,
                        "%s: num_key_value_heads: %d does not divide num_attention_heads %d",
                        src->where, c->kv_heads, c->heads);
    if (c->linear_k_heads && c->linear_v_heads % c->linear_k_heads)
        return err_make(ERR_CORRUPT,
                        "%s: linear_num_key_heads: %d does not divide linear_num_value_heads %d",
                        src->where, c->linear_k_heads, c->linear_v_heads);
    const struct {
        const char *key;
        int64_t width;
    } widths[] = {
        {"head_dim", (int64_t)c->heads * c->head_dim},
        {"linear_key_head_dim", (int64_t)c->linear_k_heads * c->linear_k_dim},
        {"linear_value_head_dim", (int64_t)c->linear_v_heads * c->linear_v_dim},
        {"linear_num_value_heads",
         (int64_t)c->linear_v_heads * c->linear_k_dim * c->linear_v_dim / (1 << 10)},
    };
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        if (widths[i].width > WIDTH_MAX)
            return err_make(ERR_CORRUPT, "%s: %s: too large: all heads together take %lld",
                            src->where, widths[i].key, (long long)widths[i].width);
    }
    return err_none();
}

/* ---- end of sequence ---- */

static err add_eos(const char *where, const json_t *value, model_config *c) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > INT_MAX)
        return err_make(ERR_CORRUPT, "%s: eos_token_id: expected token ids", where);
    if (c->n_eos == CONFIG_EOS_MAX)
        return err_make(ERR_UNSUPPORTED, "%s: eos_token_id: more than %d", where, CONFIG_EOS_MAX);
    c->eos[c->n_eos++] = (int)json_integer_value(value);
    return err_none();
}

/* A number, a list of numbers, or nothing. */
static err read_eos(const char *where, const json_t *object, model_config *c) {
    const json_t *value = json_object_get(object, "eos_token_id");
    if (!value || json_is_null(value)) return err_none();
    if (!json_is_array(value)) return add_eos(where, value, c);
    for (size_t i = 0; i < json_array_size(value); i++)
        TRY(add_eos(where, json_array_get(value, i), c));
    return err_none();
}

static err read_all_eos(const config_source *src, const char *generation_file,
                        const json_t *generation, model_config *c) {
    if (generation && !json_is_object(generation))
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", generation_file,
                        json_kind(generation));
    TRY(read_eos(generation_file, generation, c));
    if (c->n_eos == 0) TRY(read_eos(src->where, src->text, c));
    if (c->n_eos == 0 && src->outer != src->text) TRY(read_eos(src->file, src->outer, c));
    return err_none();
}

/* ---- the whole ---- */

static err fill(const config_source *src, const family_defaults *d, model_config *c) {
    c->family = d->family;
    snprintf(c->architecture, sizeof c->architecture, "%s", d->model_type);
    TRY(check_neutral(src));
    TRY(read_sizes(src, d, c));
    TRY(read_switches(src, d, c));
    TRY(read_attention_kinds(src, c));
    TRY(read_sparse_kinds(src, c));
    TRY(check_layer_sizes(src, c));
    TRY(check_sizes(src, c));
    TRY(config_rope(src, d->partial, c));
    return config_quantization(src, c);
}

typedef struct named_json {
    const char *name;
    json_t *value; /* owned */
} named_json;

/* Reads both values into *out and releases them. */
static err from_json(named_json config, named_json generation, model_config *out) {
    memset(out, 0, sizeof *out);
    config_source src;
    const family_defaults *d;
    err e = find_text(config.name, config.value, &src);
    if (!e.code) e = find_family(&src, &d);
    if (!e.code) e = fill(&src, d, out);
    if (!e.code) e = read_all_eos(&src, generation.name, generation.value, out);
    if (e.code) config_close(out);
    json_decref(config.value);
    json_decref(generation.value);
    return e;
}

err config_parse(const char *text, size_t length, const char *generation, size_t generation_length,
                 model_config *out) {
    memset(out, 0, sizeof *out);
    named_json config = {.name = "config.json"}, gen = {.name = "generation_config.json"};
    TRY(json_read_bytes(config.name, text, length, &config.value));
    if (generation) {
        err e = json_read_bytes(gen.name, generation, generation_length, &gen.value);
        if (e.code) {
            json_decref(config.value);
            return e;
        }
    }
    return from_json(config, gen, out);
}

err config_open(const char *dir, model_config *out) {
    memset(out, 0, sizeof *out);
    size_t room = strlen(dir) + 32;
    char *config_path = malloc(room), *gen_path = malloc(room);
    err e = err_none();
    named_json config = {.name = config_path}, gen = {.name = gen_path};
    if (!config_path || !gen_path) {
        e = err_make(ERR_NOMEM, "no memory for a path");
        goto done;
    }
    snprintf(config_path, room, "%s/config.json", dir);
    snprintf(gen_path, room, "%s/generation_config.json", dir);
    e = json_read_file(config_path, FILE_MAX_BYTES, &config.value);
    if (!e.code && access(gen_path, F_OK) == 0) {
        e = json_read_file(gen_path, FILE_MAX_BYTES, &gen.value);
        if (e.code) json_decref(config.value);
    }
    if (!e.code) e = from_json(config, gen, out);
done:
    free(config_path);
    free(gen_path);
    return e;
}

void config_close(model_config *c) {
    quant_overrides_free(c->overrides);
    memset(c, 0, sizeof *c);
}
