/* defaults.c: see defaults.h. */
#include "defaults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "models.h"
#include "product.h"

static const arg_def *find_arg(const command *c, const char *name) {
    for (int i = 0; name && i < c->n_args; i++)
        if (c->args[i].name && !strcmp(c->args[i].name, name)) return &c->args[i];
    return NULL;
}

#define SYSTEM_PROMPT_MAX (1 << 20) /* bytes of SYSTEM_PROMPT_FILE */

/* What the option of a setting is called in commands. */
static const char *option_of(config_id id) {
    if (id == CONFIG_MAX_TOKENS) return "--tokens";
    if (id == CONFIG_REASONING) return "--think";
    if (id == CONFIG_SYSTEM_PROMPT_FILE) return "--system";
    return config_rows[id].flag;
}

/* Flags of settings that a command takes although its own table has another name for it: they
 * become settings, and these become its options. */
static bool is_foreign(const void *ctx, config_id id) {
    const command *c = ctx;
    const char *flag = config_rows[id].flag;
    if (find_arg(c, flag)) return false;
    if (find_arg(c, option_of(id))) return true;
    return (id == CONFIG_HUGGINGFACE_CACHE_DIR && find_arg(c, "--model")) ||
           (id == CONFIG_SAMPLING_PROFILE && find_arg(c, "--temperature"));
}

static bool add_word(default_words *d, const char *name, const char *value) {
    size_t n = strlen(name) + strlen(value) + 2;
    char *word = d->n_owned < DEFAULT_WORDS_MAX ? malloc(n) : NULL;
    if (!word) {
        fprintf(stderr, "flashchat: no memory for the settings\n");
        return false;
    }
    size_t length = strlen(name);
    memcpy(word, name, length + 1);
    if (*value) {
        word[length] = '=';
        memcpy(word + length + 1, value, strlen(value) + 1);
    }
    d->owned[d->n_owned++] = word;
    d->argv[d->argc++] = word;
    return true;
}

/* The text of SYSTEM_PROMPT_FILE (or system.md beside the settings) as --system=TEXT. */
static bool add_system_prompt(default_words *d, const command *c, const settings *s) {
    char path[PATH_TEXT_MAX], *text = NULL;
    size_t n;
    bool set = settings_text(s, CONFIG_SYSTEM_PROMPT_FILE)[0] != '\0';
    err e = set ? settings_path(s, CONFIG_SYSTEM_PROMPT_FILE, path)
                : path_join(path, settings_dir(s), "system.md");
    if (!set && (e.code || !file_exists(path))) return true;
    if (!e.code) e = json_read_text(path, SYSTEM_PROMPT_MAX, &text, &n);
    if (!e.code && memchr(text, '\0', n))
        e = err_make(ERR_CORRUPT, "%s: it has bytes that no text has", path);
    if (e.code) {
        fprintf(stderr, "%s: SYSTEM_PROMPT_FILE: %s\n", c->program, e.text);
        fprintf(stderr,
                "Correct it with: flashchat config set SYSTEM_PROMPT_FILE FILE (or unset)\n");
    }
    while (!e.code && n && text[n - 1] == '\n') text[--n] = '\0';
    bool good = !e.code && (!n || add_word(d, "--system", text));
    free(text);
    return good;
}

/* One setting as a word; settings that decide nothing become none. */
static bool add_setting(default_words *d, const command *c, const settings *s, config_id id) {
    const arg_def *arg = find_arg(c, option_of(id));
    const char *text = settings_text(s, id);
    bool truth = false;
    if (arg && id == CONFIG_SYSTEM_PROMPT_FILE) return add_system_prompt(d, c, s);
    if (!arg || id == CONFIG_MODEL || !*text || !strcmp(text, "auto")) return true;
    if (settings_origin_of(s, id) == ORIGIN_DEFAULT) return true; /* the command's own default */
    if (arg->kind == ARG_FLAG || arg->kind == ARG_SWITCH) {
        char no[80];
        snprintf(no, sizeof no, "--no-%s", arg->name + 2);
        if (!value_bool(text, &truth)) return true;
        if (truth) return add_word(d, arg->name, "");
        return arg->kind == ARG_FLAG || add_word(d, no, "");
    }
    char path[PATH_TEXT_MAX];
    err e = err_none();
    if (config_rows[id].kind == KIND_PATH)
        e = settings_path(s, id, path); /* ~ is the home folder */
    if (e.code) fprintf(stderr, "%s: %s: %s\n", c->program, config_rows[id].name, e.text);
    return !e.code && add_word(d, arg->name, config_rows[id].kind == KIND_PATH ? path : text);
}

/* The model as a folder: the typed one when there is one (its word is replaced), else the
 * setting's. *entry is the registry's, or NULL. */
static err resolve(const command *c, const product *p, const char *typed, char *dir,
                   const model_entry **entry) {
    const settings *s = p->c;
    const model_list *l = &p->models;
    const char *name = typed ? typed : settings_text(s, CONFIG_MODEL);
    *entry = models_find(l, name);
    dir[0] = '\0';
    if (*entry && !strcmp(c->name, "pack")) {
        if (model_published(s, *entry, dir) == MODEL_READY) return err_none();
        dir[0] = '\0';
        return err_make(ERR_NOT_FOUND,
                        "the published weights of %s are not here; get them with: flashchat "
                        "download %s (from the archive: flashchat restore %s)",
                        (*entry)->id, (*entry)->id, (*entry)->id);
    }
    if (!*entry && typed) return err_none(); /* a folder: the command says what is wrong with it */
    return model_resolve(s, l, name, dir, entry);
}

/* A server can be ended whatever became of its model. */
static bool wants_model(const command *c, int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(c->name, "serve") == 0; i++)
        if (!strcmp(argv[i], "--stop")) return false;
    return find_arg(c, "--model") != NULL;
}

static int typed_model(const command *c, int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--model") || !strncmp(argv[i], "--model=", 8)) return i;
    bool names_one =
        !strcmp(c->name, "plan") || !strcmp(c->name, "verify") || !strcmp(c->name, "pack");
    return names_one && argc > 0 && argv[0][0] != '-' ? 0 : -1;
}

static bool fill(default_words *d, const command *c, const product *p, char **argv, int argc) {
    settings *s = p->c;
    char dir[PATH_TEXT_MAX];
    const model_entry *entry;
    bool model = wants_model(c, argc, argv);
    int at = model ? typed_model(c, argc, argv) : -1;
    bool apart = at >= 0 && !strcmp(argv[at], "--model");
    const char *typed = at < 0 ? NULL : apart ? (at + 1 < argc ? argv[at + 1] : NULL) : argv[at];
    if (typed && !apart && !strncmp(typed, "--model=", 8)) typed += 8;
    err e = err_none();
    if (model) {
        e = resolve(c, p, typed, dir, &entry);
        if (!e.code) e = model_apply_profile(s, entry);
    }
    if (e.code) {
        product_fail(c->name, e);
        return false;
    }
    bool good = true;
    if (model && !typed) good = add_word(d, "--model", dir);
    for (int i = 0; good && i < CONFIG_COUNT; i++) good = add_setting(d, c, s, (config_id)i);
    for (int i = 0; good && i < argc; i++) {
        bool name = typed && dir[0] && i == at + apart;
        if (name && apart) {
            d->argv[d->argc++] = d->owned[d->n_owned++] = strdup(dir);
            good = d->owned[d->n_owned - 1] != NULL;
        } else if (name) {
            good = add_word(d, strncmp(argv[i], "--model=", 8) ? dir : "--model",
                            strncmp(argv[i], "--model=", 8) ? "" : dir);
        } else {
            d->argv[d->argc++] = argv[i];
        }
    }
    return good;
}

static bool make(const command *c, int argc, char **words, default_words *out, int *rc) {
    product p;
    int n = argc + 1;
    if (!product_open_plain(&p, c->name, &n, words, rc)) return false;
    err e = settings_take_flags(p.c, &n, words, is_foreign, c);
    if (e.code) {
        *rc = EXIT_USAGE;
        product_fail(c->name, e);
        return product_close(&p), false;
    }
    out->argv = calloc((size_t)n + DEFAULT_WORDS_MAX + 1, sizeof *out->argv);
    bool good = out->argv && fill(out, c, &p, words + 1, n - 1);
    if (!good) *rc = EXIT_FAILED;
    product_close(&p);
    return good;
}

bool default_words_make(const command *c, int argc, char **argv, default_words *out, int *rc) {
    *out = (default_words){0};
    *rc = EXIT_FAILED;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) { /* help works whatever the settings */
        if (strcmp(argv[i], "--help") && strcmp(argv[i], "-h")) continue;
        out->argv = calloc((size_t)argc + 1, sizeof *out->argv);
        if (!out->argv) return false;
        memcpy(out->argv, argv, (size_t)argc * sizeof *argv);
        out->argc = argc;
        return true;
    }
    char **words = calloc((size_t)argc + 2, sizeof *words);
    if (!words) return false;
    words[0] = (char *)(uintptr_t)c->name;
    if (argc) memcpy(words + 1, argv, (size_t)argc * sizeof *argv);
    bool good = make(c, argc, words, out, rc);
    free(words);
    if (!good) default_words_free(out);
    return good;
}

void default_words_free(default_words *d) {
    for (int i = 0; i < d->n_owned; i++) free(d->owned[i]);
    free(d->argv);
    *d = (default_words){0};
}
