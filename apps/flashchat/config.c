/* config.c: the layers of settings and which of them wins.
 *
 *     values[layer][setting]     NULL where a layer says nothing; the highest layer that says
 *     flag                       something wins. Every stored value was accepted by its row, so
 *     environment                the typed reads cannot fail.
 *     file
 *     registry                   put there by models.c once the model is known
 *     built in                   the row's fallback */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "files.h"

#define PROBLEMS_MAX 64

extern char **environ;

struct settings {
    char dir[PATH_TEXT_MAX], file[PATH_TEXT_MAX];
    char *values[ORIGIN_COUNT][CONFIG_COUNT]; /* owned */
    int lines[CONFIG_COUNT];                  /* where the file sets it; 0: nowhere */
    char registry[200];
    int n_problems, n_errors;
    char problems[PROBLEMS_MAX][ERR_TEXT_MAX];
};

/* Variables with our prefix that are not settings. */
static const char *const other_variables[] = {"HOME", "YES", "MODEL_CONFIG", "WIDTH"};

static void add_problem(settings *c, const char *where, int line, const char *what) {
    c->n_errors++;
    if (c->n_problems == PROBLEMS_MAX) return;
    char *out = c->problems[c->n_problems++];
    if (line)
        snprintf(out, ERR_TEXT_MAX, "%.400s, line %d: %.300s", where, line, what);
    else
        snprintf(out, ERR_TEXT_MAX, "%.400s: %.300s", where, what);
}

int settings_problems(const settings *c) { return c->n_problems; }
bool settings_blocked(const settings *c) { return c->n_errors > 0; }
const char *settings_problem(const settings *c, int i) { return c->problems[i]; }
const char *settings_dir(const settings *c) { return c->dir; }
const char *settings_file(const settings *c) { return c->file; }

err settings_put(settings *c, config_origin origin, config_id id, const char *text) {
    char *copy = NULL;
    if (text) {
        TRY(config_check(&config_rows[id], text));
        copy = strdup(text);
        if (!copy) return err_make(ERR_NOMEM, "no memory for a setting");
    }
    free(c->values[origin][id]);
    c->values[origin][id] = copy;
    return err_none();
}

void settings_registry_name(settings *c, const char *name) {
    snprintf(c->registry, sizeof c->registry, "%s", name);
}

/* ---- reading ---- */

static void unknown_name(char *out, size_t size, const char *key) {
    const char *near = config_nearest(key);
    if (near)
        snprintf(out, size, "there is no setting %.80s; did you mean %s?", key, near);
    else
        snprintf(out, size, "there is no setting %.80s; `flashchat config explain` lists them",
                 key);
}

static err take_line(settings *c, int number, const char *line, size_t length) {
    char key[SETTINGS_LINE_MAX], value[SETTINGS_LINE_MAX], what[300];
    err e = settings_parse_line(line, length, key, value);
    if (e.code) return add_problem(c, c->file, number, e.text), err_none();
    if (!key[0]) return err_none();
    int id = config_find(key);
    if (id < 0) {
        unknown_name(what, sizeof what, key);
        return add_problem(c, c->file, number, what), err_none();
    }
    if (c->lines[id]) {
        snprintf(what, sizeof what, "%s was set in line %d already; keep one of them",
                 config_rows[id].name, c->lines[id]);
        return add_problem(c, c->file, number, what), err_none();
    }
    c->lines[id] = number;
    e = settings_put(c, ORIGIN_FILE, (config_id)id, value);
    if (e.code == ERR_ARG) return add_problem(c, c->file, number, e.text), err_none();
    return e;
}

static err read_file(settings *c, bool must_exist) {
    char *bytes;
    size_t length;
    err e = json_read_text(c->file, SETTINGS_FILE_MAX, &bytes, &length);
    if (e.code == ERR_NOT_FOUND && !must_exist) return err_none();
    if (e.code) return err_within(e, "the settings file");
    int number = 0;
    for (const char *p = bytes, *end = bytes + length; p < end && !e.code;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = newline ? (size_t)(newline - p) : (size_t)(end - p);
        e = take_line(c, ++number, p, n);
        p += n + (newline ? 1 : 0);
    }
    free(bytes);
    return e;
}

static bool is_other(const char *name) {
    for (size_t i = 0; i < sizeof other_variables / sizeof *other_variables; i++)
        if (!strcmp(name, other_variables[i])) return true;
    return false;
}

static err read_environment(settings *c) {
    static const char prefix[] = "FLASHCHAT_";
    for (char **v = environ; *v; v++) {
        char name[100], what[300];
        if (strncmp(*v, prefix, sizeof prefix - 1)) continue;
        const char *rest = *v + sizeof prefix - 1, *equals = strchr(rest, '=');
        if (!equals || equals - rest >= (int)sizeof name) continue;
        snprintf(name, sizeof name, "%.*s", (int)(equals - rest), rest);
        if (is_other(name)) continue;
        int id = config_find(name);
        if (id < 0) {
            unknown_name(what, sizeof what, name);
            add_problem(c, "the environment", 0, what);
            c->n_errors--; /* may be another program's: said, but nothing stops */
            continue;
        }
        err e = settings_put(c, ORIGIN_ENVIRONMENT, (config_id)id, equals + 1);
        if (e.code == ERR_ARG)
            add_problem(c, "the environment, FLASHCHAT_...", 0, e.text);
        else if (e.code)
            return e;
    }
    return err_none();
}

static err find_dir(char *out) {
    const char *xdg = getenv("XDG_CONFIG_HOME");
    if (xdg && xdg[0] == '/') return path_join(out, xdg, "flashchat");
    const char *home = home_dir();
    if (!home)
        return err_make(ERR_NOT_FOUND, "this user has no home folder; set HOME, or name a settings "
                                       "file with --config FILE");
    return path_join(out, home, ".config/flashchat");
}

static err fill(settings *c, const char *file) {
    TRY(find_dir(c->dir));
    if (file)
        TRY(path_expand(c->file, file));
    else
        TRY(path_join(c->file, c->dir, "config"));
    TRY(read_file(c, file != NULL));
    return read_environment(c);
}

err settings_open(const char *file, settings **out) {
    *out = NULL;
    settings *c = calloc(1, sizeof *c);
    if (!c) return err_make(ERR_NOMEM, "no memory for the settings");
    err e = fill(c, file);
    if (e.code) return settings_close(c), e;
    *out = c;
    return e;
}

void settings_close(settings *c) {
    if (!c) return;
    for (int o = 0; o < ORIGIN_COUNT; o++)
        for (int i = 0; i < CONFIG_COUNT; i++) free(c->values[o][i]);
    free(c);
}

/* ---- flags ---- */

/* Takes count words at argv[i] out. */
static void drop(int *argc, char **argv, int i, int count) {
    for (int k = i; k + count <= *argc; k++) argv[k] = argv[k + count];
    *argc -= count;
}

/* The row whose flag the word is; *value is what follows "=", *off says --no-key. -1: none. */
static int flag_row(const char *word, const char **value, bool *off) {
    *value = NULL;
    *off = false;
    size_t n = strcspn(word, "=");
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const char *flag = config_rows[i].flag;
        if (!flag) continue;
        if (strlen(flag) == n && !strncmp(word, flag, n)) {
            *value = word[n] ? word + n + 1 : NULL;
            return i;
        }
        if (config_rows[i].kind == KIND_BOOL && !strncmp(word, "--no-", 5) &&
            !strcmp(word + 5, flag + 2)) {
            *off = true;
            return i;
        }
    }
    return -1;
}

static err take_config_flag(int *argc, char **argv, char **file) {
    *file = NULL;
    for (int i = 1; i < *argc && strcmp(argv[i], "--"); i++) {
        if (!strncmp(argv[i], "--config=", 9)) {
            *file = argv[i] + 9;
            drop(argc, argv, i, 1);
            return err_none();
        }
        if (strcmp(argv[i], "--config")) continue;
        if (i + 1 >= *argc) return err_make(ERR_ARG, "--config needs a file name after it");
        *file = argv[i + 1];
        drop(argc, argv, i, 2);
        return err_none();
    }
    return err_none();
}

err settings_take_flags(settings *c, int *argc, char **argv,
                        bool (*takes)(const void *ctx, config_id id), const void *ctx) {
    for (int i = 1; i < *argc && strcmp(argv[i], "--");) {
        const char *value;
        bool off;
        int id = flag_row(argv[i], &value, &off);
        if (id < 0 || (takes && !takes(ctx, (config_id)id))) {
            i++;
            continue;
        }
        int words = 1;
        if (config_rows[id].kind == KIND_BOOL && !value) {
            value = off ? "off" : "on";
        } else if (!value) {
            if (i + 1 >= *argc) return err_make(ERR_ARG, "%s needs a value after it", argv[i]);
            value = argv[i + 1];
            words = 2;
        }
        err e = settings_put(c, ORIGIN_FLAG, (config_id)id, value);
        if (e.code) return err_within(e, "%s", config_rows[id].flag);
        drop(argc, argv, i, words);
    }
    return err_none();
}

err settings_open_args(int *argc, char **argv, settings **out) {
    char *file;
    *out = NULL;
    TRY(take_config_flag(argc, argv, &file));
    settings *c;
    TRY(settings_open(file, &c));
    err e = settings_take_flags(c, argc, argv, NULL, NULL);
    if (e.code) return settings_close(c), e;
    *out = c;
    return e;
}

/* ---- values ---- */

config_origin settings_origin_of(const settings *c, config_id id) {
    for (int o = ORIGIN_COUNT - 1; o > ORIGIN_DEFAULT; o--)
        if (c->values[o][id]) return (config_origin)o;
    return ORIGIN_DEFAULT;
}

const char *settings_layer(const settings *c, config_origin origin, config_id id) {
    return origin == ORIGIN_DEFAULT ? config_rows[id].fallback : c->values[origin][id];
}

const char *settings_text(const settings *c, config_id id) {
    return settings_layer(c, settings_origin_of(c, id), id);
}

void settings_origin_text(const settings *c, config_id id, char *out, size_t size) {
    const config_row *row = &config_rows[id];
    switch (settings_origin_of(c, id)) {
    case ORIGIN_FLAG: snprintf(out, size, "the flag %s", row->flag); break;
    case ORIGIN_ENVIRONMENT: snprintf(out, size, "the variable FLASHCHAT_%s", row->name); break;
    case ORIGIN_FILE: snprintf(out, size, "line %d of %s", c->lines[id], c->file); break;
    case ORIGIN_REGISTRY: snprintf(out, size, "the model, %s", c->registry); break;
    case ORIGIN_DEFAULT:
    case ORIGIN_COUNT: snprintf(out, size, "built in"); break;
    }
}

bool settings_is_auto(const settings *c, config_id id) {
    return !strcmp(settings_text(c, id), "auto");
}

int64_t settings_int(const settings *c, config_id id) {
    int64_t v;
    return value_int(settings_text(c, id), &v) ? v : 0;
}

double settings_number(const settings *c, config_id id) {
    double v;
    return value_number(settings_text(c, id), &v) ? v : 0;
}

bool settings_bool(const settings *c, config_id id) {
    bool v;
    return value_bool(settings_text(c, id), &v) && v;
}

uint64_t settings_size(const settings *c, config_id id) {
    uint64_t v;
    return value_size(settings_text(c, id), &v) ? v : 0;
}

err settings_path(const settings *c, config_id id, char *out) {
    return path_expand(out, settings_text(c, id));
}
