/* shapes.c: the sizes of published models, and a config.json that says them.
 *
 * The tiny ones are for tests: the same tensors, small. */
#include <stdio.h>
#include <string.h>

#include "synth.h"

#define NESTED "language_model.model.", "language_model.lm_head"
#define FLAT   "model.", "lm_head"

static const synth_shape shapes[] = {
    {"qwen3.6-35b", "qwen3_5_moe", NESTED, 40, 2048, 248320, 262144, 16, 2, 256, 256, 8, 512, 512,
     16, 32, 128, 1e7, 0.25},
    {"qwen3-next-80b", "qwen3_next", FLAT, 48, 2048, 151936, 262144, 16, 2, 256, 512, 10, 512, 512,
     16, 32, 128, 1e7, 0.25},
    {"qwen3.5-397b", "qwen3_5_moe", NESTED, 60, 4096, 248320, 262144, 32, 2, 256, 512, 10, 1024,
     1024, 16, 64, 128, 1e7, 0.25},
    {"qwen3-30b", "qwen3_moe", FLAT, 48, 2048, 151936, 40960, 32, 4, 128, 128, 8, 768, 0, 0, 0, 0,
     1e6, 1},
    {"tiny-qwen3.6", "qwen3_5_moe", NESTED, 4, 256, 6144, 4096, 4, 2, 64, 32, 4, 128, 128, 2, 4, 64,
     1e7, 0.25},
    {"tiny-qwen3-next", "qwen3_next", FLAT, 4, 256, 6144, 4096, 4, 2, 64, 32, 4, 128, 128, 2, 4, 64,
     1e7, 0.25},
    {"tiny-qwen3", "qwen3_moe", FLAT, 3, 256, 6144, 4096, 4, 2, 64, 32, 4, 128, 0, 0, 0, 0, 1e6, 1},
};

const synth_shape *synth_shape_find(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

const char *synth_shape_names(void) {
    return "qwen3.6-35b, qwen3-next-80b, qwen3.5-397b, qwen3-30b, tiny-qwen3.6, tiny-qwen3-next, "
           "tiny-qwen3";
}

static void set(json_t *object, const char *key, json_t *value) {
    json_object_set_new(object, key, value); /* a failed one shows when config_open reads it */
}

static void add_sizes(json_t *c, const synth_shape *s) {
    const struct {
        const char *key;
        int value;
    } fields[] = {
        {"vocab_size", s->vocab},
        {"hidden_size", s->hidden},
        {"num_hidden_layers", s->layers},
        {"max_position_embeddings", s->context},
        {"num_attention_heads", s->heads},
        {"num_key_value_heads", s->kv_heads},
        {"head_dim", s->head_dim},
        {"num_experts", s->experts},
        {"num_experts_per_tok", s->experts_per_token},
        {"moe_intermediate_size", s->expert_intermediate},
        {"intermediate_size", s->expert_intermediate},
        {"eos_token_id", 6137}, /* of the bundled tokenizer */
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        set(c, fields[i].key, json_integer(fields[i].value));
    set(c, "rms_norm_eps", json_real(1e-6));
    set(c, "norm_topk_prob", json_true());
    set(c, "tie_word_embeddings", json_false());
    set(c, "hidden_act", json_string("silu"));
    set(c, "attention_bias", json_false());
}

static void add_hybrid(json_t *c, const synth_shape *s) {
    set(c, "shared_expert_intermediate_size", json_integer(s->shared_intermediate));
    set(c, "linear_num_key_heads", json_integer(s->linear_k_heads));
    set(c, "linear_num_value_heads", json_integer(s->linear_v_heads));
    set(c, "linear_key_head_dim", json_integer(s->linear_dim));
    set(c, "linear_value_head_dim", json_integer(s->linear_dim));
    set(c, "linear_conv_kernel_dim", json_integer(4));
    set(c, "full_attention_interval", json_integer(4));
    json_t *types = json_array();
    for (int i = 0; i < s->layers; i++)
        json_array_append_new(
            types, json_string((i + 1) % 4 == 0 ? "full_attention" : "linear_attention"));
    set(c, "layer_types", types);
}

static void add_rope(json_t *c, const synth_shape *s) {
    json_t *rope = json_object();
    set(rope, "rope_type", json_string("default"));
    set(rope, "rope_theta", json_real(s->rope_theta));
    if (s->partial < 1) set(rope, "partial_rotary_factor", json_real(s->partial));
    set(c, "rope_parameters", rope);
    if (s->partial < 1) set(c, "partial_rotary_factor", json_real(s->partial));
}

static json_t *quantization(const synth_model *m) {
    json_t *q = json_object();
    set(q, "group_size", json_integer(m->o.group));
    set(q, "bits", json_integer(m->o.bits));
    set(q, "mode", json_string("affine"));
    for (int i = 0; i < m->n_tensors; i++) {
        const synth_tensor *t = &m->tensors[i];
        if (t->kind != SYNTH_WORDS) continue;
        const synth_matrix *matrix = &m->matrices[t->matrix];
        if (matrix->bits == m->o.bits && matrix->group == m->o.group) continue;
        char module[160];
        snprintf(module, sizeof module, "%.*s", (int)(strlen(t->name) - strlen(".weight")),
                 t->name);
        json_t *format = json_object();
        set(format, "group_size", json_integer(matrix->group));
        set(format, "bits", json_integer(matrix->bits));
        set(q, module, format);
    }
    return q;
}

err synth_config(const synth_model *m, json_t **out) {
    const synth_shape *s = &m->o.shape;
    json_t *text = json_object(), *top = text;
    bool nested = strcmp(s->model_type, "qwen3_5_moe") == 0;
    set(text, "model_type", json_string(nested ? "qwen3_5_moe_text" : s->model_type));
    add_sizes(text, s);
    add_rope(text, s);
    if (s->linear_k_heads) add_hybrid(text, s);
    if (nested) {
        top = json_object();
        set(top, "model_type", json_string(s->model_type));
        set(top, "text_config", text);
        set(top, "tie_word_embeddings", json_false());
    }
    set(top, "quantization", quantization(m));
    set(top, "quantization_config", quantization(m));
    json_t *about = json_object();
    set(about, "shape", json_string(s->name));
    set(about, "skew", json_real(m->o.skew));
    set(about, "seed", json_integer((json_int_t)m->o.seed));
    set(top, "synthetic", about);
    *out = top;
    return top ? err_none() : err_make(ERR_NOMEM, "config.json: no memory");
}
