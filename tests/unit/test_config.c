/* test_config.c: every field of config.json that we read, its defaults, its synonyms, and what is
 * refused; published shapes of all families; the golden checkpoints' own files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "format/config.h"
#include "scratch.h"

static err parse(const char *text, model_config *c) {
    return config_parse(text, strlen(text), NULL, 0, c);
}

static void parse_ok(const char *text, model_config *c) { assert_ok(parse(text, c)); }

/* The text is refused with this code and sentence, and the struct is zero. */
static void parse_bad(const char *text, err_code code, const char *needle) {
    model_config c, zero;
    memset(&c, 0xee, sizeof c);
    memset(&zero, 0, sizeof zero);
    assert_err(parse(text, &c), code, needle);
    assert_memory_equal(&c, &zero, sizeof c);
}

/* One more member in an otherwise default file of this type. */
static char *with(const char *type, const char *member) {
    static char text[4096];
    snprintf(text, sizeof text, "{\"model_type\":\"%s\"%s%s}", type, member[0] ? "," : "", member);
    return text;
}

#define Q35  "qwen3_5_moe_text"
#define NEXT "qwen3_next"
#define Q3   "qwen3_moe"

/* ---- families and defaults ---- */

/* An otherwise empty file has the sizes of the reference's configuration class. */
static void test_defaults(void **state) {
    (void)state;
    model_config c;
    parse_ok(with(Q35, ""), &c);
    assert_int_equal(c.family, FAMILY_QWEN3_5_MOE);
    assert_int_equal(c.vocab, 248320);
    assert_int_equal(c.layers, 40);
    assert_int_equal(c.hidden, 2048);
    assert_int_equal(c.heads, 16);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.context, 32768);
    assert_int_equal(c.experts, 256);
    assert_int_equal(c.experts_per_token, 8);
    assert_int_equal(c.expert_intermediate, 512);
    assert_int_equal(c.shared_intermediate, 512);
    assert_int_equal(c.intermediate, 0);
    assert_int_equal(c.linear_k_heads, 16);
    assert_int_equal(c.linear_v_heads, 32);
    assert_int_equal(c.linear_k_dim, 128);
    assert_int_equal(c.linear_v_dim, 128);
    assert_int_equal(c.conv_kernel, 4);
    assert_true(c.norm_topk && c.attention_gate && !c.attention_bias && !c.tied_embeddings);
    assert_true(c.rope.theta == 10000.0 && c.rope.partial == 0.25 && c.norm_eps == 1e-6);
    assert_int_equal(c.rope.dims, 64);
    assert_int_equal(c.rope.scaling, ROPE_DEFAULT);
    assert_int_equal(c.n_eos, 0);
    assert_int_equal(c.mtp_layers, 0);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(c.layer[i].full_attention, i % 4 == 3);
        assert_true(c.layer[i].sparse);
    }
    config_close(&c);

    parse_ok(with(NEXT, ""), &c);
    assert_int_equal(c.family, FAMILY_QWEN3_NEXT);
    assert_int_equal(c.layers, 48);
    assert_int_equal(c.experts, 512);
    assert_int_equal(c.experts_per_token, 10);
    assert_true(c.norm_topk && c.attention_gate);
    config_close(&c);

    parse_ok(with(Q3, ""), &c);
    assert_int_equal(c.family, FAMILY_QWEN3_MOE);
    assert_int_equal(c.layers, 24);
    assert_int_equal(c.head_dim, 64); /* hidden / heads */
    assert_int_equal(c.rope.dims, 64);
    assert_int_equal(c.experts, 128);
    assert_int_equal(c.expert_intermediate, 768);
    assert_int_equal(c.shared_intermediate, 0);
    assert_int_equal(c.linear_k_heads, 0);
    assert_int_equal(c.conv_kernel, 0);
    assert_true(!c.norm_topk && !c.attention_gate && c.layer[0].full_attention);
    config_close(&c);
}

static void test_architectures(void **state) {
    (void)state;
    parse_bad("{\"model_type\":\"llama\"}", ERR_UNSUPPORTED,
              "model_type: \"llama\" is not supported; supported are qwen3_5_moe");
    parse_bad("{\"model_type\":\"qwen3_vl_moe\",\"text_config\":{\"model_type\":\"x\"}}",
              ERR_UNSUPPORTED, "qwen3_vl_moe");
    parse_bad("{\"model_type\":\"qwen3_5_moe\",\"text_config\":{\"model_type\":\"gemma\"}}",
              ERR_UNSUPPORTED, "text_config: model_type: \"gemma\"");
    parse_bad("{\"model_type\":\"qwen3_5_moe\",\"text_config\":7}", ERR_CORRUPT,
              "text_config: expected an object");
    parse_bad("{}", ERR_CORRUPT, "model_type: missing");
    parse_bad("{\"model_type\":7}", ERR_CORRUPT, "model_type: expected a string");
    parse_bad("[]", ERR_CORRUPT, "expected an object");
    parse_bad("", ERR_CORRUPT, "not valid JSON");
    parse_bad("{\"model_type\":\"qwen3_moe\"", ERR_CORRUPT, "not valid JSON");
    parse_bad("{\"model_type\":\"qwen3_moe\",\"model_type\":\"qwen3_next\"}", ERR_CORRUPT,
              "duplicate");
    model_config c;
    parse_ok("{\"model_type\":\"qwen3_5_moe\",\"text_config\":{\"num_hidden_layers\":8}}", &c);
    assert_int_equal(c.layers, 8);
    config_close(&c);
    parse_ok("{\"model_type\":\"qwen3_5_moe\",\"num_hidden_layers\":8}", &c);
    assert_int_equal(c.layers, 8);
    config_close(&c);
}

/* Shapes as published: the table of sizes that the documentation gives. */
static void test_published(void **state) {
    (void)state;
    model_config c;
    parse_ok("{\"model_type\":\"qwen3_5_moe\",\"tie_word_embeddings\":false,\"text_config\":{"
             "\"model_type\":\"qwen3_5_moe_text\",\"hidden_size\":4096,\"num_hidden_layers\":60,"
             "\"num_attention_heads\":32,\"num_key_value_heads\":2,\"head_dim\":256,"
             "\"num_experts\":512,\"num_experts_per_tok\":10,\"moe_intermediate_size\":1024,"
             "\"shared_expert_intermediate_size\":1024,\"linear_num_value_heads\":64,"
             "\"linear_num_key_heads\":16,\"full_attention_interval\":4,\"attn_output_gate\":true,"
             "\"mtp_num_hidden_layers\":1,\"max_position_embeddings\":262144,"
             "\"eos_token_id\":248044,\"mlp_only_layers\":[],"
             "\"rope_parameters\":{\"mrope_interleaved\":true,\"mrope_section\":[11,11,10],"
             "\"rope_type\":\"default\",\"rope_theta\":10000000,\"partial_rotary_factor\":0.25}}}",
             &c);
    assert_int_equal(c.experts, 512);
    assert_int_equal(c.linear_v_heads, 64);
    assert_int_equal(c.mtp_layers, 1);
    assert_true(c.rope.theta == 1e7);
    assert_int_equal(c.eos[0], 248044);
    config_close(&c);
    parse_ok("{\"model_type\":\"qwen3_moe\",\"hidden_size\":4096,\"num_hidden_layers\":94,"
             "\"num_attention_heads\":64,\"num_key_value_heads\":4,\"head_dim\":128,"
             "\"rope_scaling\":null,\"rope_theta\":1000000.0,\"norm_topk_prob\":true,"
             "\"sliding_window\":null,\"use_sliding_window\":false,\"max_window_layers\":94}",
             &c);
    assert_int_equal(c.rope.dims, 128);
    assert_true(c.rope.theta == 1e6 && c.norm_topk);
    config_close(&c);
}

/* ---- layers ---- */

static void test_layer_kinds(void **state) {
    (void)state;
    model_config c;
    parse_ok(with(NEXT, "\"num_hidden_layers\":3,\"full_attention_interval\":2,"
                        "\"decoder_sparse_step\":2,\"mlp_only_layers\":[1,99]"),
             &c);
    assert_true(!c.layer[0].full_attention && c.layer[1].full_attention);
    assert_true(!c.layer[0].sparse && !c.layer[1].sparse && !c.layer[2].sparse);
    assert_int_equal(c.experts, 0); /* nobody uses them */
    assert_int_equal(c.intermediate, 5632);
    config_close(&c);
    parse_ok(with(NEXT, "\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\","
                        "\"linear_attention\"],\"full_attention_interval\":1"),
             &c);
    assert_true(c.layer[0].full_attention && !c.layer[1].full_attention);
    config_close(&c);
    parse_ok(with(Q3, "\"num_hidden_layers\":5,\"mlp_only_layers\":[0,3],\"intermediate_size\":77"),
             &c);
    assert_true(!c.layer[0].sparse && c.layer[1].sparse && !c.layer[3].sparse);
    assert_int_equal(c.intermediate, 77);
    config_close(&c);
    parse_ok(with(NEXT, "\"num_hidden_layers\":1,\"layer_types\":[\"full_attention\"]"), &c);
    assert_int_equal(c.linear_v_heads, 0); /* nobody uses them */
    config_close(&c);
    parse_ok(with(Q3, "\"num_experts\":0"), &c);
    assert_false(c.layer[0].sparse);
    config_close(&c);

    parse_bad(with(NEXT, "\"layer_types\":[\"full_attention\"]"), ERR_CORRUPT, "layer_types");
    parse_bad(with(NEXT, "\"layer_types\":3"), ERR_CORRUPT, "layer_types");
    parse_bad(with(NEXT, "\"num_hidden_layers\":1,\"layer_types\":[3]"), ERR_CORRUPT,
              "layer_types[0]");
    parse_bad(with(NEXT, "\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]"),
              ERR_UNSUPPORTED, "layer_types[0]: \"sliding_attention\"");
    parse_bad(with(Q3, "\"num_hidden_layers\":1,\"layer_types\":[\"linear_attention\"]"),
              ERR_UNSUPPORTED, "layer_types[0]");
    parse_bad(with(NEXT, "\"full_attention_interval\":0"), ERR_CORRUPT, "full_attention_interval");
    parse_bad(with(NEXT, "\"decoder_sparse_step\":0"), ERR_CORRUPT, "decoder_sparse_step");
    parse_bad(with(NEXT, "\"mlp_only_layers\":3"), ERR_CORRUPT, "mlp_only_layers");
    parse_bad(with(NEXT, "\"mlp_only_layers\":[\"3\"]"), ERR_CORRUPT, "mlp_only_layers");
    parse_bad(with(Q3, "\"mlp_only_layers\":[0],\"intermediate_size\":0"), ERR_CORRUPT,
              "intermediate_size");
    parse_bad(with(Q35, "\"mlp_only_layers\":[0]"), ERR_UNSUPPORTED, "mlp_only_layers");
    parse_bad(with(Q35, "\"decoder_sparse_step\":2"), ERR_UNSUPPORTED, "decoder_sparse_step");
}

/* ---- numbers and switches ---- */

static void test_sizes_refused(void **state) {
    (void)state;
    static const char *const positive[] = {"hidden_size",
                                           "num_hidden_layers",
                                           "vocab_size",
                                           "max_position_embeddings",
                                           "num_attention_heads",
                                           "head_dim",
                                           "num_key_value_heads",
                                           "linear_num_key_heads",
                                           "linear_num_value_heads",
                                           "linear_key_head_dim",
                                           "linear_value_head_dim",
                                           "linear_conv_kernel_dim"};
    static const char *const values[] = {"0", "-1", "1.5", "\"8\"", "true", "9999999999999", "[]"};
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++) {
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            char member[128];
            snprintf(member, sizeof member, "\"%s\":%s", positive[i], values[k]);
            parse_bad(with(NEXT, member), ERR_CORRUPT, positive[i]);
        }
    }
    parse_bad(with(Q3, "\"num_hidden_layers\":257"), ERR_CORRUPT, "num_hidden_layers");
    parse_bad(with(Q3, "\"num_attention_heads\":3"), ERR_CORRUPT, "num_attention_heads");
    parse_bad(with(Q3, "\"num_key_value_heads\":5"), ERR_CORRUPT, "num_key_value_heads");
    parse_bad(with(Q35, "\"linear_num_value_heads\":33"), ERR_CORRUPT, "linear_num_key_heads");
    parse_bad(with(Q3, "\"num_experts_per_tok\":129"), ERR_CORRUPT, "num_experts_per_tok");
    parse_bad(with(Q3, "\"num_experts_per_tok\":0"), ERR_CORRUPT, "num_experts_per_tok");
    parse_bad(with(Q3, "\"moe_intermediate_size\":0"), ERR_CORRUPT, "moe_intermediate_size");
    parse_bad(with(Q3, "\"num_attention_heads\":65536,\"head_dim\":65536"), ERR_CORRUPT,
              "head_dim");
    parse_bad(with(Q35, "\"linear_key_head_dim\":65536,\"linear_value_head_dim\":65536"),
              ERR_CORRUPT, "linear_num_value_heads");
    parse_bad(with(Q3, "\"rms_norm_eps\":0"), ERR_CORRUPT, "rms_norm_eps");
    parse_bad(with(Q3, "\"rms_norm_eps\":\"x\""), ERR_CORRUPT, "rms_norm_eps");
    parse_bad(with(Q3, "\"rms_norm_eps\":1e999"), ERR_CORRUPT, "not valid JSON");
    parse_bad(with(Q3, "\"num_experts\":4,\"num_local_experts\":8"), ERR_CORRUPT,
              "num_local_experts");
}

static void test_switches(void **state) {
    (void)state;
    model_config c;
    parse_ok(with(Q3, "\"num_local_experts\":16,\"attention_bias\":true,\"norm_topk_prob\":true,"
                      "\"tie_word_embeddings\":true,\"hidden_act\":\"swish\""),
             &c);
    assert_int_equal(c.experts, 16);
    assert_true(c.attention_bias && c.norm_topk && c.tied_embeddings);
    config_close(&c);
    parse_ok(with(NEXT, "\"norm_topk_prob\":false,\"attn_output_gate\":false"), &c);
    assert_true(!c.norm_topk && !c.attention_gate);
    config_close(&c);
    parse_ok(with(Q35, "\"norm_topk_prob\":false"), &c);
    assert_true(c.norm_topk);
    config_close(&c);
    parse_ok(with(Q35, "\"mtp_num_hidden_layers\":1,\"mtp_use_dedicated_embeddings\":true"), &c);
    assert_int_equal(c.mtp_layers, 0);
    config_close(&c);
    parse_bad(with(Q3, "\"attn_output_gate\":true"), ERR_UNSUPPORTED, "attn_output_gate");
    parse_bad(with(Q3, "\"attention_bias\":1"), ERR_CORRUPT, "attention_bias");
    parse_bad(with(Q3, "\"hidden_act\":\"gelu\""), ERR_UNSUPPORTED, "hidden_act: \"gelu\"");
    parse_bad(with(Q3, "\"scoring_func\":\"sigmoid\""), ERR_UNSUPPORTED, "scoring_func");
    static const char *const refused[] = {"\"use_sliding_window\":true",
                                          "\"routed_scaling_factor\":2.5",
                                          "\"n_group\":8",
                                          "\"final_logit_softcapping\":30.0",
                                          "\"use_qk_norm\":false",
                                          "\"mlp_bias\":true",
                                          "\"clip_qkv\":\"8\""};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char key[64];
        sscanf(refused[i], "\"%63[^\"]", key);
        parse_bad(with(Q3, refused[i]), ERR_UNSUPPORTED, key);
    }
    parse_ok(with(Q3, "\"use_sliding_window\":false,\"routed_scaling_factor\":1.0,\"n_group\":1,"
                      "\"clip_qkv\":null"),
             &c);
    config_close(&c);
}

/* The wrapper's field wins over the text model's, where it is there. */
static void test_tied(void **state) {
    (void)state;
    static const struct {
        const char *outer, *inner;
        bool tied;
    } cases[] = {{"", "", false},
                 {"", ",\"tie_word_embeddings\":true", true},
                 {",\"tie_word_embeddings\":true", "", true},
                 {",\"tie_word_embeddings\":false", ",\"tie_word_embeddings\":true", false},
                 {",\"tie_word_embeddings\":true", ",\"tie_word_embeddings\":false", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"model_type\":\"qwen3_5_moe\"%s,\"text_config\":{\"vocab_size\":9%s}}",
                 cases[i].outer, cases[i].inner);
        model_config c;
        parse_ok(text, &c);
        assert_int_equal(c.tied_embeddings, cases[i].tied);
        config_close(&c);
    }
}

/* ---- end of sequence ---- */

static void eos_is(const char *member, const char *generation, int n, int first, int last) {
    const char *text = with(Q3, member);
    model_config c;
    assert_ok(
        config_parse(text, strlen(text), generation, generation ? strlen(generation) : 0, &c));
    assert_int_equal(c.n_eos, n);
    if (n) assert_int_equal(c.eos[0], first);
    if (n) assert_int_equal(c.eos[n - 1], last);
    config_close(&c);
}

static void test_eos(void **state) {
    (void)state;
    eos_is("", NULL, 0, 0, 0);
    eos_is("\"eos_token_id\":7", NULL, 1, 7, 7);
    eos_is("\"eos_token_id\":[7,8,9]", NULL, 3, 7, 9);
    eos_is("\"eos_token_id\":null", "{\"eos_token_id\":[5,4]}", 2, 5, 4);
    eos_is("\"eos_token_id\":7", "{\"eos_token_id\":5}", 1, 5, 5);
    eos_is("\"eos_token_id\":7", "{\"eos_token_id\":null}", 1, 7, 7);
    eos_is("\"eos_token_id\":7", "{}", 1, 7, 7);
    parse_bad(with(Q3, "\"eos_token_id\":-1"), ERR_CORRUPT, "eos_token_id");
    parse_bad(with(Q3, "\"eos_token_id\":\"x\""), ERR_CORRUPT, "eos_token_id");
    parse_bad(with(Q3, "\"eos_token_id\":[1,null]"), ERR_CORRUPT, "eos_token_id");
    parse_bad(with(Q3, "\"eos_token_id\":4294967296"), ERR_CORRUPT, "eos_token_id");
    parse_bad(with(Q3, "\"eos_token_id\":[1,2,3,4,5,6,7,8,9]"), ERR_UNSUPPORTED, "eos_token_id");
    model_config c;
    const char *text = with(Q3, "");
    assert_err(config_parse(text, strlen(text), "[]", 2, &c), ERR_CORRUPT,
               "generation_config.json");
    assert_err(config_parse(text, strlen(text), "{", 1, &c), ERR_CORRUPT, "generation_config.json");
    parse_ok("{\"model_type\":\"qwen3_5_moe\",\"eos_token_id\":3,\"text_config\":{}}", &c);
    assert_int_equal(c.eos[0], 3);
    config_close(&c);
}

/* ---- rope ---- */

static void test_rope_spellings(void **state) {
    (void)state;
    model_config c;
    parse_ok(with(NEXT, "\"rope_theta\":5e5,\"partial_rotary_factor\":0.5,\"rope_scaling\":null"),
             &c);
    assert_true(c.rope.theta == 5e5 && c.rope.partial == 0.5);
    assert_int_equal(c.rope.dims, 128);
    config_close(&c);
    /* Plain RoPE: inside outranks beside, as the reference saves both. */
    parse_ok(with(NEXT, "\"partial_rotary_factor\":0.25,\"rope_theta\":3,\"rope_parameters\":"
                        "{\"rope_theta\":4e4,\"partial_rotary_factor\":0.5}"),
             &c);
    assert_true(c.rope.theta == 4e4 && c.rope.partial == 0.5);
    config_close(&c);
    parse_ok(with(Q3, "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7},"
                      "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}"),
             &c);
    assert_int_equal(c.rope.scaling, ROPE_LINEAR);
    assert_true(c.rope.theta == 10000 && c.rope.factor == 2);
    config_close(&c);
    parse_ok(with(Q3, "\"max_position_embeddings\":131072,\"rope_scaling\":{\"rope_type\":\"yarn\","
                      "\"factor\":4.0,\"original_max_position_embeddings\":32768}"),
             &c);
    assert_int_equal(c.rope.scaling, ROPE_YARN);
    assert_int_equal(c.rope.original_context, 32768);
    assert_true(c.rope.factor == 4 && c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    assert_true(c.rope.attention_factor < 0 && c.rope.truncate && c.rope.mscale == 0);
    config_close(&c);
    parse_ok(with(Q3,
                  "\"max_position_embeddings\":131072,\"rope_scaling\":{\"type\":\"yarn\","
                  "\"factor\":null,\"original_max_position_embeddings\":32768,\"truncate\":false,"
                  "\"beta_fast\":0,\"beta_slow\":2,\"attention_factor\":1.5,\"mscale\":0.7,"
                  "\"mscale_all_dim\":0.8}"),
             &c);
    assert_true(c.rope.factor == 4 && c.rope.beta_fast == 32 && c.rope.beta_slow == 2);
    assert_true(c.rope.attention_factor == 1.5 && !c.rope.truncate && c.rope.mscale == 0.7);
    config_close(&c);
    parse_ok(with(Q3, "\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8,"
                      "\"low_freq_factor\":1,\"high_freq_factor\":4}"),
             &c);
    assert_int_equal(c.rope.scaling, ROPE_LLAMA3);
    assert_int_equal(c.rope.original_context, 32768); /* max_position_embeddings */
    config_close(&c);
    parse_ok(with(Q3, "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2,"
                      "\"original_max_position_embeddings\":4096}"),
             &c);
    assert_int_equal(c.rope.scaling, ROPE_DYNAMIC);
    assert_int_equal(c.rope.original_context, 32768); /* the reference ignores the field here */
    config_close(&c);
}

static void test_rope_refused(void **state) {
    (void)state;
    static const struct {
        const char *rope;
        err_code code;
        const char *needle;
    } cases[] = {
        {"{\"rope_type\":\"longrope\",\"factor\":2}", ERR_UNSUPPORTED, "rope_type: \"longrope\""},
        {"{\"rope_type\":\"su\"}", ERR_UNSUPPORTED, "rope_type: \"su\""},
        {"{\"rope_type\":3}", ERR_CORRUPT, "rope_type"},
        {"{\"full_attention\":{\"rope_type\":\"default\"}}", ERR_UNSUPPORTED, "full_attention"},
        {"{\"long_factor\":[1]}", ERR_UNSUPPORTED, "long_factor"},
        {"{\"type\":\"linear\"}", ERR_CORRUPT, "factor: missing"},
        {"{\"type\":\"linear\",\"factor\":0}", ERR_CORRUPT, "factor"},
        {"{\"type\":\"linear\",\"factor\":-2}", ERR_CORRUPT, "factor"},
        {"{\"type\":\"dynamic\"}", ERR_CORRUPT, "factor: missing"},
        {"{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1}", ERR_CORRUPT,
         "high_freq_factor: missing"},
        {"{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}",
         ERR_CORRUPT, "high_freq_factor"},
        {"{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":-1}", ERR_CORRUPT, "beta_fast"},
        {"{\"type\":\"yarn\",\"factor\":4,\"truncate\":1}", ERR_CORRUPT, "truncate"},
        {"{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0}", ERR_CORRUPT,
         "original_max_position_embeddings"},
        {"{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":-1}", ERR_CORRUPT,
         "attention_factor"},
        {"{\"rope_theta\":0}", ERR_CORRUPT, "rope_theta"},
        {"{\"rope_theta\":-10000}", ERR_CORRUPT, "rope_theta"},
        {"{\"rope_theta\":\"1e6\"}", ERR_CORRUPT, "rope_theta"},
        {"{\"partial_rotary_factor\":1.5}", ERR_CORRUPT, "partial_rotary_factor"},
        {"{\"partial_rotary_factor\":0}", ERR_CORRUPT, "partial_rotary_factor"},
        {"{\"partial_rotary_factor\":0.001}", ERR_UNSUPPORTED, "0 dimensions"},
        {"{\"partial_rotary_factor\":0.0275}", ERR_UNSUPPORTED, "7 dimensions"},
        {"[]", ERR_CORRUPT, "expected an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char member[256];
        snprintf(member, sizeof member, "\"rope_parameters\":%s", cases[i].rope);
        parse_bad(with(NEXT, member), cases[i].code, cases[i].needle);
        snprintf(member, sizeof member, "\"rope_scaling\":%s", cases[i].rope);
        parse_bad(with(NEXT, member), cases[i].code, cases[i].needle);
    }
    parse_bad(with(Q3, "\"partial_rotary_factor\":0.5"), ERR_UNSUPPORTED, "partial_rotary_factor");
    parse_bad(with(NEXT, "\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"type\":\"linear\","
                         "\"factor\":2,\"partial_rotary_factor\":0.25}"),
              ERR_CORRUPT, "partial_rotary_factor: 0.25 here, 0.5 in");
}

/* ---- quantisation ---- */

static void module_is(const model_config *c, const char *module, int bits, int group) {
    bool quantised = false;
    qformat f = {.kind = QK_F32};
    assert_ok(config_module_format(c, module, &quantised, &f));
    assert_int_equal(quantised, bits > 0);
    assert_int_equal(f.kind, bits > 0 ? QK_AFFINE : QK_F32);
    assert_int_equal(f.bits, bits);
    assert_int_equal(f.group, group);
    assert_false(f.scales_f16);
}

static void test_quantization(void **state) {
    (void)state;
    model_config c;
    parse_ok(with(Q3, ""), &c);
    assert_true(!c.quantized && !c.overrides);
    module_is(&c, "lm_head", 0, 0);
    config_close(&c);
    parse_ok(with(Q3, "\"quantization\":{\"group_size\":32,\"bits\":3,\"b\":{\"bits\":8,"
                      "\"group_size\":128},\"a\":false,\"d\":true,\"c\":{\"bits\":6},"
                      "\"e\":{\"mode\":\"affine\",\"group_size\":32,\"bits\":5}},"
                      "\"quantization_config\":{\"group_size\":64,\"bits\":4}"),
             &c);
    assert_true(c.quantized);
    module_is(&c, "a", 0, 0);
    module_is(&c, "b", 8, 128);
    module_is(&c, "c", 6, 64); /* MLX's own default, not the block's */
    module_is(&c, "d", 3, 32);
    module_is(&c, "e", 5, 32);
    module_is(&c, "other", 3, 32);
    module_is(&c, "", 3, 32);
    config_close(&c);
    config_close(&c); /* closing twice is harmless */
    parse_ok(with(Q3, "\"quantization_config\":{\"group_size\":64,\"bits\":4}"), &c);
    module_is(&c, "x", 4, 64);
    config_close(&c);
    parse_ok("{\"model_type\":\"qwen3_5_moe\",\"text_config\":{\"quantization\":"
             "{\"group_size\":64,\"bits\":2}}}",
             &c);
    module_is(&c, "x", 2, 64);
    config_close(&c);
}

static void test_quantization_refused(void **state) {
    (void)state;
    static const struct {
        const char *block;
        err_code code;
        const char *needle;
    } cases[] = {
        {"\"quantization\":3", ERR_CORRUPT, "quantization"},
        {"\"quantization\":{}", ERR_CORRUPT, "group_size and bits"},
        {"\"quantization\":{\"group_size\":64}", ERR_CORRUPT, "group_size and bits"},
        {"\"quantization\":{\"group_size\":16,\"bits\":4}", ERR_UNSUPPORTED, "group_size: 16"},
        {"\"quantization\":{\"group_size\":64,\"bits\":7}", ERR_UNSUPPORTED, "bits: 7"},
        {"\"quantization\":{\"group_size\":64,\"bits\":1}", ERR_UNSUPPORTED, "bits: 1"},
        {"\"quantization\":{\"group_size\":64,\"bits\":\"4\"}", ERR_CORRUPT, "bits"},
        {"\"quantization\":{\"group_size\":-64,\"bits\":4}", ERR_CORRUPT, "group_size"},
        {"\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}", ERR_UNSUPPORTED,
         "mode: \"mxfp4\""},
        {"\"quantization\":{\"group_size\":64,\"bits\":4,\"m\":{\"mode\":\"nvfp4\"}}",
         ERR_UNSUPPORTED, "quantization: m: mode: \"nvfp4\""},
        {"\"quantization\":{\"group_size\":64,\"bits\":4,\"m\":7}", ERR_UNSUPPORTED, "m: expected"},
        {"\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}",
         ERR_UNSUPPORTED, "quant_method: \"fp8\""},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128}",
         ERR_UNSUPPORTED, "quant_method: \"gptq\""},
        {"\"quantization_config\":{\"quant_method\":\"awq\"}", ERR_UNSUPPORTED, "\"awq\""},
        {"\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}", ERR_UNSUPPORTED,
         "\"bitsandbytes\""},
        {"\"quantization_config\":{\"load_in_4bit\":true}", ERR_UNSUPPORTED, "quantization_config"},
        {"\"compression_config\":{\"quant_method\":\"compressed-tensors\"}", ERR_UNSUPPORTED,
         "compressed-tensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        parse_bad(with(Q3, cases[i].block), cases[i].code, cases[i].needle);
}

/* ---- files ---- */

static void put(const char *name, const char *text) {
    char path[SCRATCH_PATH];
    scratch_path(path, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_files(void **state) {
    (void)state;
    model_config c;
    assert_err(config_open(scratch_dir(), &c), ERR_NOT_FOUND, "config.json");
    put("config.json", with(Q3, "\"eos_token_id\":2"));
    assert_ok(config_open(scratch_dir(), &c));
    assert_int_equal(c.eos[0], 2);
    config_close(&c);
    put("generation_config.json", "{\"eos_token_id\":[3,4]}");
    assert_ok(config_open(scratch_dir(), &c));
    assert_int_equal(c.n_eos, 2);
    config_close(&c);
    put("generation_config.json", "{");
    assert_err(config_open(scratch_dir(), &c), ERR_CORRUPT, "generation_config.json");
    put("config.json", "\xff\xfe");
    assert_err(config_open(scratch_dir(), &c), ERR_CORRUPT, "/config.json");
}

static void test_goldens(void **state) {
    (void)state;
    static const char *const names[] = {
        "qwen3_5_moe", "qwen3_5_moe_hub", "qwen3_5_moe_mlx4", "qwen3_5_moe_mlx_mixed",
        "qwen3_next",  "qwen3_next_mlx8", "qwen3_moe",        "qwen3_moe_mlx4"};
    if (!golden_root()) skip();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[SCRATCH_PATH];
        golden_path(dir, names[i], NULL);
        model_config c;
        assert_ok(config_open(dir, &c));
        bool plain = strncmp(names[i], "qwen3_moe", 9) == 0;
        assert_int_equal(c.layers, 4);
        assert_int_equal(c.experts, 16);
        assert_int_equal(c.experts_per_token, 4);
        assert_int_equal(c.vocab, 320);
        assert_int_equal(c.rope.dims, plain ? 32 : 8);
        assert_true(c.rope.theta == (plain ? 1e6 : 1e7));
        assert_int_equal(c.layer[0].full_attention, plain);
        assert_int_equal(c.quantized, strstr(names[i], "mlx") != NULL);
        assert_int_equal(c.n_eos, 1);
        if (strstr(names[i], "mixed")) {
            module_is(&c, "language_model.model.layers.2.mlp.switch_mlp.up_proj", 3, 32);
            module_is(&c, "language_model.model.layers.2.mlp.gate", 8, 32);
            module_is(&c, "language_model.lm_head", 6, 32);
        }
        config_close(&c);
    }
}

static void test_ember(void **state) {
    (void)state;
    if (access("assets/ember/config.json", F_OK) != 0) skip();
    model_config c;
    assert_ok(config_open("assets/ember", &c));
    assert_int_equal(c.mtp_layers, 1);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.rope.dims, 16);
    module_is(&c, "mtp.fc", 8, 64);
    module_is(&c, "model.layers.0.mlp.switch_mlp.up_proj", 4, 64);
    config_close(&c);
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_layer_kinds),
        cmocka_unit_test(test_sizes_refused),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_eos),
        cmocka_unit_test(test_rope_spellings),
        cmocka_unit_test(test_rope_refused),
        cmocka_unit_test(test_quantization),
        cmocka_unit_test(test_quantization_refused),
        cmocka_unit_test_setup_teardown(test_files, scratch_open, scratch_close),
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_ember),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
