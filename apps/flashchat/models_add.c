/* models_add.c: `flashchat add-model ORG/REPOSITORY`: a model of the hub under a name of one's own.
 *
 * Only config.json (and generation_config.json) is fetched. The engine's own reader decides whether
 * the model can run; what it refuses is refused here with the same words, before anything large is
 * downloaded. The entry goes to ~/.config/flashchat/models.d/NAME.json. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "format/config.h"
#include "hub_access.h"
#include "product.h"
#include "screen.h"

#define CONFIG_BYTES_MAX (4u << 20)

typedef struct published {     /* what the repository says */
    char *config, *generation; /* owned */
    size_t n_config, n_generation;
    model_config parsed;
    int bits, group;
} published;

static void published_free(published *p) {
    free(p->config);
    free(p->generation);
    config_close(&p->parsed);
}

static err read_quantization(published *p) {
    json_t *o;
    int64_t bits, group;
    TRY(json_read_bytes("config.json", p->config, p->n_config, &o));
    json_t *q = json_object_get(o, "quantization");
    err e = json_get_int(q, "config.json: quantization", "bits", (json_range){1, 32, 16}, &bits);
    if (!e.code)
        e = json_get_int(q, "config.json: quantization", "group_size", (json_range){1, 1024, 0},
                         &group);
    json_decref(o);
    if (e.code) return e;
    p->bits = (int)bits;
    p->group = (int)group;
    return e;
}

static err fetch(const hub_options *o, const hub_listing *l, published *out) {
    TRY(hub_fetch(o, l, "config.json", CONFIG_BYTES_MAX, &out->config, &out->n_config));
    err e = hub_fetch(o, l, "generation_config.json", CONFIG_BYTES_MAX, &out->generation,
                      &out->n_generation);
    if (e.code && e.code != ERR_NOT_FOUND) return e;
    TRY(config_parse(out->config, out->n_config, out->generation, out->n_generation, &out->parsed));
    bool weights = false;
    for (int i = 0; i < l->n_files; i++) {
        size_t n = strlen(l->files[i].path);
        weights |= n > 12 && !strcmp(l->files[i].path + n - 12, ".safetensors");
    }
    if (!weights)
        return err_make(ERR_UNSUPPORTED,
                        "%s has no .safetensors files; flashchat reads no other weights", l->repo);
    return read_quantization(out);
}

static const char *family_name(model_family f) {
    switch (f) {
    case FAMILY_QWEN3_5_MOE: return "qwen3_5_moe";
    case FAMILY_QWEN3_NEXT: return "qwen3_next";
    case FAMILY_QWEN3_MOE: return "qwen3_moe";
    }
    return "";
}

static json_t *dimensions(const model_config *m) {
    int full = 0;
    for (int i = 0; i < m->layers; i++) full += m->layer[i].full_attention;
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
        "family", family_name(m->family), "layers", m->layers, "full_attention_layers", full,
        "hidden", m->hidden, "heads", m->heads, "kv_heads", m->kv_heads, "head_dim", m->head_dim,
        "experts", m->experts, "experts_per_token", m->experts_per_token, "expert_intermediate",
        m->expert_intermediate, "shared_intermediate", m->shared_intermediate, "linear_value_heads",
        m->linear_v_heads, "linear_key_heads", m->linear_k_heads, "linear_head_dim",
        m->linear_v_dim, "vocab", m->vocab, "context", m->context);
}

static double number_or(const json_t *o, const char *key, double otherwise) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* One profile with what generation_config.json recommends; greedy where it says nothing. */
static json_t *profiles(const published *p) {
    json_t *g = NULL;
    if (p->generation &&
        json_read_bytes("generation_config.json", p->generation, p->n_generation, &g).code)
        g = NULL;
    bool samples = json_is_true(json_object_get(g, "do_sample"));
    json_t *one = json_pack(
        "{s:f, s:f, s:i, s:f, s:f, s:f, s:b}", "temperature",
        samples ? number_or(g, "temperature", 1) : 0.0, "top_p", number_or(g, "top_p", 1), "top_k",
        (int)number_or(g, "top_k", 0), "min_p", number_or(g, "min_p", 0), "presence_penalty", 0.0,
        "repetition_penalty", number_or(g, "repetition_penalty", 1), "reasoning", 1);
    json_decref(g);
    return json_pack("{s:o}", "published", one);
}

static void make_id(const char *repo, char *out, size_t size) {
    const char *slash = strchr(repo, '/');
    snprintf(out, size, "%s", slash ? slash + 1 : repo);
    for (char *p = out; *p; p++) *p = (char)tolower((unsigned char)*p);
}

static err make_entry(const hub_listing *l, const published *p, const char *id, char **text) {
    const char *slash = strchr(l->repo, '/');
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:o, s:s, s:s, s:o}", "id", id,
                          "name", slash + 1, "summary", "Added by you.", "repo", l->repo,
                          "revision", l->revision, "bits", p->bits, "group", p->group, "dimensions",
                          dimensions(&p->parsed), "default_profile", "published", "profiles_source",
                          "generation_config.json of the repository", "profiles", profiles(p));
    *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return *text ? err_none() : err_make(ERR_NOMEM, "no memory for the entry");
}

static void show_plan(const product *p, const model_entry *m, const hub_listing *l) {
    model_need need;
    machine here;
    char text[200], line[500], size[16], memory[16];
    model_need_get(m, (int)settings_int(p->c, CONFIG_CONTEXT_WINDOW),
                   settings_text(p->c, CONFIG_KV_QUANT), &need);
    if (machine_get(p->c, &here).code) return;
    model_outlook_text(&need, &here, text, sizeof text);
    snprintf(line, sizeof line,
             "%d layers of %d experts, %d at work for each token; %s to download; at "
             "least %s of memory. Fits this machine: %s",
             m->layers, m->experts, m->experts_per_token, human_bytes(size, l->total),
             human_memory(memory, need.least), text);
    print_wrapped(stdout, "  ", line);
}

static err save(const product *p, const char *id, const char *text, char *path) {
    char dir[PATH_TEXT_MAX], name[200];
    snprintf(name, sizeof name, "%s.json", id);
    TRY(path_join(dir, settings_dir(p->c), "models.d"));
    TRY(path_join(path, dir, name));
    TRY(dir_make(dir, 0700));
    return file_write(path, text, strlen(text), 0600);
}

static err add(const product *p, const hub_options *o, hub_listing *l, const char *id) {
    published pub = {0};
    model_entry entry;
    char *text = NULL, path[PATH_TEXT_MAX];
    hub_keep_needed(l);
    err e = fetch(o, l, &pub);
    if (!e.code) e = make_entry(l, &pub, id, &text);
    if (!e.code) e = model_parse(id, text, strlen(text), &entry);
    if (!e.code) e = save(p, id, text, path);
    if (!e.code) {
        printf("Added %s%s%s to your models: %s\n", style(STYLE_BOLD), id, STYLE_END, path);
        show_plan(p, &entry, l);
        printf("Next: flashchat download %s\n", id);
    }
    free(text);
    published_free(&pub);
    return e;
}

static int run(const product *p, const char *repo, const char *revision, const char *name) {
    char id[100];
    hub_access a;
    hub_listing l = {0};
    err e = hub_check_repo(repo);
    if (e.code) return product_fail("add-model", e), 2;
    make_id(repo, id, sizeof id);
    if (name) snprintf(id, sizeof id, "%s", name);
    if (!hub_path_is_safe(id) || strchr(id, '/') || id[0] == '.') {
        fprintf(stderr, "flashchat add-model: \"%s\" cannot be a name\n", id);
        return 2;
    }
    if (models_find(&p->models, id)) {
        fprintf(stderr,
                "flashchat add-model: there is a model %s already; give another name with --name\n",
                id);
        return 1;
    }
    e = hub_access_begin(p->c, &a);
    if (e.code) return product_fail("add-model", e);
    e = hub_list(&a.options, repo, revision ? revision : "main", &l);
    if (!e.code) e = add(p, &a.options, &l, id);
    hub_listing_free(&l);
    hub_access_end(&a);
    if (e.code == ERR_UNSUPPORTED) e = err_within(e, "%s cannot run here", repo);
    return e.code ? product_fail("add-model", e) : 0;
}

int command_add_model(int argc, char **argv) {
    product p;
    int rc;
    const char *revision = take_value(&argc, argv, "--revision");
    const char *name = take_value(&argc, argv, "--name");
    if (!product_open(&p, "add-model", &argc, argv, &rc)) return rc;
    if (argc == 2) {
        rc = run(&p, argv[1], revision, name);
    } else {
        fprintf(stderr, "flashchat add-model: which repository of the hub?\n"
                        "Try: flashchat add-model ORG/REPOSITORY [--name NAME] [--revision REV]\n");
        rc = 2;
    }
    product_close(&p);
    return rc;
}
