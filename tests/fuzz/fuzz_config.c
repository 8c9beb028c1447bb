/* fuzz_config.c: any bytes as config.json and generation_config.json (split at the first zero
 * byte), and what must hold of every configuration that was accepted: the model layer sizes memory
 * by it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/config.h"
#include "model/rope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) abort();                                                                 \
    } while (0)

static void check_sizes(const model_config *c) {
    CHECK(c->hidden >= 1 && c->vocab >= 1 && c->context >= 1);
    CHECK(c->layers >= 1 && c->layers <= CONFIG_LAYERS_MAX);
    CHECK(c->kv_heads >= 1 && c->heads % c->kv_heads == 0);
    CHECK((int64_t)c->heads * c->head_dim <= 1 << 24);
    CHECK(c->n_eos >= 0 && c->n_eos <= CONFIG_EOS_MAX);
    CHECK(c->norm_eps > 0 && isfinite(c->norm_eps));
    for (int i = 0; i < c->layers; i++) {
        if (c->layer[i].sparse)
            CHECK(c->experts_per_token >= 1 && c->experts_per_token <= c->experts &&
                  c->expert_intermediate >= 1);
        else
            CHECK(c->intermediate >= 1);
        if (!c->layer[i].full_attention)
            CHECK(c->linear_k_heads >= 1 && c->linear_v_heads % c->linear_k_heads == 0 &&
                  c->linear_k_dim >= 1 && c->linear_v_dim >= 1 && c->conv_kernel >= 2);
    }
}

static void check_rope(const model_config *c) {
    const rope_config *r = &c->rope;
    CHECK(r->dims >= 2 && r->dims % 2 == 0 && r->dims <= c->head_dim);
    float *f = malloc(sizeof *f * (size_t)r->dims / 2), factor;
    CHECK(f);
    err e = rope_frequencies(r, r->dims, c->context, f, &factor);
    CHECK(e.code == ERR_NONE || e.code == ERR_UNSUPPORTED);
    free(f);
}

static void check_quant(const model_config *c) {
    static const char *const modules[] = {"", "lm_head", "model.layers.0.mlp.gate", "a"};
    for (int i = 0; i < 4; i++) {
        bool quantised;
        qformat f = {0};
        CHECK(config_module_format(c, modules[i], &quantised, &f).code == ERR_NONE);
        CHECK(!quantised || c->quantized);
        if (quantised)
            CHECK(f.kind == QK_AFFINE && f.bits >= 2 && f.bits <= 8 && f.bits != 7 &&
                  (f.group == 32 || f.group == 64 || f.group == 128));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t length = zero ? (size_t)(zero - data) : size;
    const char *generation = zero ? (const char *)zero + 1 : NULL;
    model_config c;
    err e = config_parse((const char *)data, length, generation, zero ? size - length - 1 : 0, &c);
    if (e.code) {
        CHECK(c.layers == 0 && !c.overrides && strlen(e.text) > 4);
        return 0;
    }
    check_sizes(&c);
    check_rope(&c);
    check_quant(&c);
    config_close(&c);
    return 0;
}
