/* models.c: reading the registry and finding a model's files. See models.h. */
#include "models.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "hub/hub.h"

#define ENTRY_MAX_BYTES (256 * 1024)

/* ---- one entry ---- */

static err copy_text(const json_t *o, const char *where, const char *key, char *out, size_t size) {
    const char *text;
    TRY(json_get_string(o, where, key, "", &text));
    if (strlen(text) >= size)
        return err_make(ERR_RANGE, "%s: %s has %zu letters, at most %zu", where, key, strlen(text),
                        size - 1);
    memcpy(out, text, strlen(text) + 1);
    return err_none();
}

static err get_count(const json_t *o, const char *where, const char *key, int low, int *out) {
    int64_t v;
    TRY(json_get_int(o, where, key, (json_range){low, 100000000, -1}, &v));
    if (v < 0 && low > 0) return err_make(ERR_CORRUPT, "%s: %s is missing", where, key);
    *out = v < 0 ? 0 : (int)v;
    return err_none();
}

static err parse_dimensions(const json_t *o, const char *where, model_entry *m) {
    struct {
        const char *key;
        int *out;
        int low;
    } const numbers[] = {
        {"layers", &m->layers, 1},
        {"full_attention_layers", &m->full_attention_layers, 0},
        {"hidden", &m->hidden, 1},
        {"heads", &m->heads, 1},
        {"kv_heads", &m->kv_heads, 1},
        {"head_dim", &m->head_dim, 1},
        {"experts", &m->experts, 1},
        {"experts_per_token", &m->experts_per_token, 1},
        {"expert_intermediate", &m->expert_intermediate, 1},
        {"shared_intermediate", &m->shared_intermediate, 0},
        {"linear_value_heads", &m->linear_value_heads, 0},
        {"linear_key_heads", &m->linear_key_heads, 0},
        {"linear_head_dim", &m->linear_head_dim, 0},
        {"vocab", &m->vocab, 1},
        {"context", &m->context, 1},
    };
    TRY(copy_text(o, where, "family", m->family, sizeof m->family));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        TRY(get_count(o, where, numbers[i].key, numbers[i].low, numbers[i].out));
    if (m->full_attention_layers > m->layers || m->experts_per_token > m->experts)
        return err_make(ERR_CORRUPT,
                        "%s: more attention layers than layers, or more experts per "
                        "token than experts",
                        where);
    return err_none();
}

static err parse_profile(const char *name, const json_t *o, const char *where, model_profile *p) {
    int64_t k;
    if (strlen(name) >= sizeof p->name)
        return err_make(ERR_RANGE, "%s: the profile name %.60s is too long", where, name);
    memcpy(p->name, name, strlen(name) + 1);
    TRY(json_get_number(o, where, "temperature", 0, &p->temperature));
    TRY(json_get_number(o, where, "top_p", 1, &p->top_p));
    TRY(json_get_int(o, where, "top_k", (json_range){0, 1000000, 0}, &k));
    TRY(json_get_number(o, where, "min_p", 0, &p->min_p));
    TRY(json_get_number(o, where, "presence_penalty", 0, &p->presence_penalty));
    TRY(json_get_number(o, where, "repetition_penalty", 1, &p->repetition_penalty));
    TRY(json_get_bool(o, where, "reasoning", false, &p->reasoning));
    p->top_k = (int)k;
    return err_none();
}

static err parse_profiles(const json_t *o, const char *where, model_entry *m) {
    const char *name;
    json_t *profile;
    json_object_foreach(json_object_get(o, "profiles"), name, profile) {
        if (m->n_profiles == PROFILES_MAX)
            return err_make(ERR_RANGE, "%s: more than %d profiles", where, PROFILES_MAX);
        TRY(parse_profile(name, profile, where, &m->profiles[m->n_profiles++]));
    }
    TRY(copy_text(o, where, "default_profile", m->default_profile, sizeof m->default_profile));
    TRY(copy_text(o, where, "profiles_source", m->profiles_source, sizeof m->profiles_source));
    for (int i = 0; i < m->n_profiles; i++)
        if (!strcmp(m->profiles[i].name, m->default_profile)) return err_none();
    if (!m->n_profiles && !m->default_profile[0]) return err_none();
    return err_make(ERR_CORRUPT, "%s: default_profile \"%s\" is not among its profiles", where,
                    m->default_profile);
}

static err parse_entry(const json_t *o, const char *where, model_entry *m) {
    if (!json_is_object(o)) return err_make(ERR_CORRUPT, "%s: not an object", where);
    TRY(copy_text(o, where, "id", m->id, sizeof m->id));
    TRY(copy_text(o, where, "name", m->name, sizeof m->name));
    TRY(copy_text(o, where, "summary", m->summary, sizeof m->summary));
    TRY(copy_text(o, where, "license", m->license, sizeof m->license));
    TRY(copy_text(o, where, "repo", m->repo, sizeof m->repo));
    TRY(copy_text(o, where, "revision", m->revision, sizeof m->revision));
    TRY(copy_text(o, where, "path", m->path, sizeof m->path));
    if (!m->id[0] || !m->name[0]) return err_make(ERR_CORRUPT, "%s: id or name is missing", where);
    if ((m->repo[0] != '\0') == (m->path[0] != '\0'))
        return err_make(ERR_CORRUPT, "%s: exactly one of repo and path must be given", where);
    if (m->repo[0]) TRY(hub_check_repo(m->repo));
    if (!m->revision[0]) snprintf(m->revision, sizeof m->revision, "main");
    TRY(get_count(o, where, "bits", 2, &m->bits));
    TRY(get_count(o, where, "trunk_bits", 0, &m->trunk_bits));
    TRY(get_count(o, where, "group", 0, &m->group));
    if (m->bits > 32) return err_make(ERR_CORRUPT, "%s: bits is %d", where, m->bits);
    if (!m->trunk_bits) m->trunk_bits = m->bits;
    TRY(parse_dimensions(json_object_get(o, "dimensions"), where, m));
    return parse_profiles(o, where, m);
}

err model_parse(const char *where, const void *json, size_t length, model_entry *out) {
    json_t *o;
    memset(out, 0, sizeof *out);
    TRY(json_read_bytes(where, json, length, &o));
    err e = parse_entry(o, where, out);
    json_decref(o);
    if (e.code) memset(out, 0, sizeof *out);
    return e;
}

/* ---- the registry ---- */

#define REGISTRY "assets/models"

err install_dir(char *out) {
    const char *home = getenv("FLASHCHAT_HOME");
    if (home && home[0] == '/') return path_expand(out, home);
    if (!os_program_path(out, PATH_TEXT_MAX)) {
        return err_make(ERR_NOT_FOUND,
                        "cannot tell where flashchat is installed; set FLASHCHAT_HOME");
    }
    /* build/flashchat lies in the installation, a portable one beside its assets */
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(out, '/'), assets[PATH_TEXT_MAX];
        if (slash && slash != out) *slash = '\0';
        TRY(path_join(assets, out, REGISTRY));
        if (access(assets, F_OK) == 0) break;
    }
    return err_none();
}

static err registry_dir(char *out) {
    char home[PATH_TEXT_MAX];
    const char *given = getenv("FLASHCHAT_MODEL_CONFIG");
    if (given && *given) return path_expand(out, given);
    TRY(install_dir(home));
    return path_join(out, home, REGISTRY);
}

static int is_json(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return n > 5 && d->d_name[0] != '.' && !strcmp(d->d_name + n - 5, ".json");
}

static err add_file(model_list *l, const char *path, bool user) {
    char *text;
    size_t length;
    if (l->n == MODELS_MAX) return err_make(ERR_RANGE, "more than %d models", MODELS_MAX);
    TRY(json_read_text(path, ENTRY_MAX_BYTES, &text, &length));
    model_entry *m = &l->entries[l->n];
    err e = model_parse(path, text, length, m);
    free(text);
    if (e.code) return e;
    if (models_find(l, m->id))
        return err_make(ERR_CORRUPT, "%s: there is a model %s already", path, m->id);
    m->user = user;
    l->n++;
    return err_none();
}

static err add_folder(model_list *l, const char *dir, bool user) {
    struct dirent **names;
    int n = scandir(dir, &names, is_json, alphasort);
    if (n < 0) {
        if (user && errno == ENOENT) return err_none();
        return err_system(errno, "the model registry %s", dir);
    }
    err e = err_none();
    for (int i = 0; i < n; i++) {
        char path[PATH_TEXT_MAX];
        err one = path_join(path, dir, names[i]->d_name);
        if (!one.code) one = add_file(l, path, user);
        if (one.code && user && !l->problem[0])
            snprintf(l->problem, sizeof l->problem, "%s", one.text);
        if (one.code && !user && !e.code) e = one;
        free(names[i]);
    }
    free(names);
    return e;
}

static int by_size(const void *a, const void *b) {
    const model_entry *x = a, *y = b;
    model_need nx, ny;
    model_need_get(x, 0, "auto", &nx);
    model_need_get(y, 0, "auto", &ny);
    if (nx.disk != ny.disk) return nx.disk < ny.disk ? -1 : 1;
    return strcmp(x->id, y->id);
}

err models_load(const settings *c, model_list *out) {
    char dir[PATH_TEXT_MAX];
    *out = (model_list){0};
    TRY(registry_dir(dir));
    out->entries = calloc(MODELS_MAX, sizeof *out->entries);
    if (!out->entries) return err_make(ERR_NOMEM, "no memory for the model registry");
    err e = add_folder(out, dir, false);
    if (!e.code) e = path_join(dir, settings_dir(c), "models.d");
    if (!e.code) e = add_folder(out, dir, true);
    if (e.code) return models_free(out), e;
    qsort(out->entries, (size_t)out->n, sizeof *out->entries, by_size);
    return e;
}

void models_free(model_list *l) {
    free(l->entries);
    *l = (model_list){0};
}

const model_entry *models_find(const model_list *l, const char *name) {
    for (int i = 0; i < l->n; i++)
        if (!strcasecmp(l->entries[i].id, name)) return &l->entries[i];
    for (int i = 0; i < l->n; i++)
        if (l->entries[i].repo[0] && !strcasecmp(l->entries[i].repo, name)) return &l->entries[i];
    return NULL;
}

/* ---- files ---- */

err models_cache_dir(const settings *c, char *out) {
    const char *set = settings_text(c, CONFIG_HUGGINGFACE_CACHE_DIR), *hub = getenv("HF_HUB_CACHE"),
               *hf = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME");
    char base[PATH_TEXT_MAX];
    if (*set) return path_expand(out, set);
    if (hub && *hub) return path_expand(out, hub);
    if (hf && *hf) {
        TRY(path_expand(base, hf));
        return path_join(out, base, "hub");
    }
    if (xdg && *xdg == '/') return path_join(out, xdg, "huggingface/hub");
    return path_expand(out, "~/.cache/huggingface/hub");
}

/* What `flashchat pack` wrote into a snapshot, when it is complete: its manifest comes last. */
static bool find_packed(const char *snapshot, char *out) {
    static const char *const names[] = {"flashchat/q4", "flashchat/q8"};
    char manifest[PATH_TEXT_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!path_join(out, snapshot, names[i]).code &&
            !path_join(manifest, out, "manifest.json").code && file_exists(manifest))
            return true;
    return false;
}

static model_state model_in_cache(const settings *c, const model_entry *m, bool packed, char *out) {
    char cache[PATH_TEXT_MAX], repo[PATH_TEXT_MAX], snapshot[PATH_TEXT_MAX];
    out[0] = '\0';
    if (models_cache_dir(c, cache).code) return MODEL_ABSENT;
    if (!hub_find_snapshot(cache, m->repo, m->revision, snapshot).code) {
        if (packed && find_packed(snapshot, out)) return MODEL_READY;
        memcpy(out, snapshot, strlen(snapshot) + 1);
        if (!hub_complete(snapshot).code) return MODEL_READY;
    }
    bool begun = !hub_repo_dir(cache, m->repo, repo).code && dir_exists(repo);
    return begun ? MODEL_PARTIAL : MODEL_ABSENT;
}

model_state model_published(const settings *c, const model_entry *m, char *out) {
    return m->path[0] ? model_where(c, m, out) : model_in_cache(c, m, false, out);
}

model_state model_where(const settings *c, const model_entry *m, char *out) {
    char home[PATH_TEXT_MAX];
    out[0] = '\0';
    if (m->path[0]) {
        err e =
            m->path[0] == '/' || m->path[0] == '~' ? path_expand(out, m->path) : install_dir(home);
        if (!e.code && !out[0]) e = path_join(out, home, m->path);
        if (!e.code && !hub_complete(out).code) return MODEL_READY;
        out[0] = '\0';
        return MODEL_ABSENT;
    }
    return model_in_cache(c, m, true, out);
}

static bool has_config(const char *dir) {
    char path[PATH_TEXT_MAX];
    return !path_join(path, dir, "config.json").code && file_exists(path);
}

err model_resolve(const settings *c, const model_list *l, const char *name, char *dir,
                  const model_entry **entry) {
    dir[0] = '\0';
    const model_entry *m = models_find(l, name);
    if (entry) *entry = m;
    if (m) {
        model_state state = model_where(c, m, dir);
        if (state == MODEL_READY) return err_none();
        dir[0] = '\0';
        return err_make(ERR_NOT_FOUND, "%s is not %s yet; get it with: flashchat download %s",
                        m->name, state == MODEL_PARTIAL ? "completely here" : "on this machine",
                        m->id);
    }
    TRY(path_expand(dir, name));
    if (has_config(dir)) return err_none();
    bool folder = dir_exists(dir);
    dir[0] = '\0';
    if (folder)
        return err_make(ERR_NOT_FOUND, "%s has no config.json: it is not a model's folder", name);
    return err_make(ERR_NOT_FOUND,
                    "there is no model \"%.200s\" and no such folder; `flashchat models` "
                    "lists the names",
                    name);
}

/* ---- profile ---- */

static err put_number(settings *c, config_id id, double v) {
    char text[40];
    snprintf(text, sizeof text, "%g", v);
    return settings_put(c, ORIGIN_REGISTRY, id, text);
}

err model_apply_profile(settings *c, const model_entry *m) {
    const char *wanted = settings_text(c, CONFIG_SAMPLING_PROFILE);
    char label[200], names[PROFILES_MAX * 44] = "";
    if (!m || !m->n_profiles || !strcmp(wanted, "custom")) return err_none();
    if (!strcmp(wanted, "auto")) wanted = m->default_profile;
    for (int i = 0; i < m->n_profiles; i++) {
        const model_profile *p = &m->profiles[i];
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", p->name);
        if (strcmp(p->name, wanted)) continue;
        snprintf(label, sizeof label, "%s, answer style %s", m->id, p->name);
        settings_registry_name(c, label);
        TRY(put_number(c, CONFIG_TEMPERATURE, p->temperature));
        TRY(put_number(c, CONFIG_TOP_P, p->top_p));
        TRY(put_number(c, CONFIG_TOP_K, p->top_k));
        TRY(put_number(c, CONFIG_MIN_P, p->min_p));
        TRY(put_number(c, CONFIG_PRESENCE_PENALTY, p->presence_penalty));
        TRY(put_number(c, CONFIG_REPETITION_PENALTY, p->repetition_penalty));
        return settings_put(c, ORIGIN_REGISTRY, CONFIG_REASONING, p->reasoning ? "on" : "off");
    }
    return err_make(ERR_ARG, "%s has no answer style \"%.60s\"; it has %s (and custom)", m->id,
                    wanted, names);
}
