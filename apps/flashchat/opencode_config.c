/* opencode_config.c: see opencode_config.h. */
#include "opencode_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX      (4 << 20)
#define FOLDERS_MAX   64
#define OUTPUT_TOKENS 8192

/* ---- the entry ---- */

json_t *opencode_entry(const opencode_server *s) {
    int output = s->context / 4 < OUTPUT_TOKENS ? s->context / 4 : OUTPUT_TOKENS;
    /* The key itself is nobody's business here: OpenCode reads it from the environment. */
    return json_pack("{s:s, s:{s:{s:s, s:s, s:{s:s, s:s}, s:{s:{s:s, s:{s:i, s:i}}}}}}", "$schema",
                     "https://opencode.ai/config.json", "provider", "flashchat", "npm",
                     "@ai-sdk/openai-compatible", "name", "flashchat (this machine)", "options",
                     "baseURL", s->base_url, "apiKey", s->key ? "{env:FLASHCHAT_API_KEY}" : "none",
                     "models", s->model, "name", s->model, "limit", "context", s->context, "output",
                     output);
}

/* ---- reading ---- */

/* Comments and commas before a closing bracket become blanks, outside strings: what is left is
 * JSON with the same line numbers. True when there were any. */
static bool blank_extras(char *t) {
    bool any = false;
    char *comma = NULL;
    for (size_t i = 0; t[i]; i++) {
        if (t[i] == '"') {
            for (i++; t[i] && t[i] != '"'; i++)
                if (t[i] == '\\' && t[i + 1]) i++;
            if (!t[i]) return any;
            comma = NULL;
        } else if (t[i] == '/' && t[i + 1] == '/') {
            any = true;
            while (t[i] && t[i] != '\n') t[i++] = ' ';
            if (!t[i]) return any;
        } else if (t[i] == '/' && t[i + 1] == '*') {
            const char *end = strstr(t + i + 2, "*/");
            size_t stop = end ? (size_t)(end - t) + 2 : strlen(t);
            any = true;
            for (; i < stop; i++)
                if (t[i] != '\n') t[i] = ' ';
            i--;
        } else if (t[i] == ',') {
            comma = t + i;
        } else if ((t[i] == '}' || t[i] == ']') && comma) {
            any = true;
            *comma = ' ';
            comma = NULL;
        } else if (!strchr(" \t\r\n", t[i])) {
            comma = NULL;
        }
    }
    return any;
}

static err read_text(const char *path, char **out) {
    *out = NULL;
    FILE *f = fopen(path, "re");
    if (!f)
        return errno == ENOENT ? err_make(ERR_NOT_FOUND, "%s: is not there", path)
                               : err_make(ERR_IO, "%s: %s", path, strerror(errno));
    char *text = calloc(1, FILE_MAX + 1);
    size_t n = text ? fread(text, 1, FILE_MAX, f) : 0;
    bool bad = text && (ferror(f) || !feof(f) || strlen(text) != n);
    fclose(f);
    if (text && !bad) {
        *out = text;
        return err_none();
    }
    free(text);
    return text ? err_make(ERR_CORRUPT, "%s: cannot be read as text", path)
                : err_make(ERR_NOMEM, "no memory for %s", path);
}

static err read_config(const char *path, json_t **out, bool *plain) {
    char *text;
    json_error_t where;
    *out = NULL;
    TRY(read_text(path, &text));
    *plain = !blank_extras(text);
    bool empty = text[strspn(text, " \t\r\n")] == '\0';
    *out = empty ? json_object() : json_loads(text, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (json_is_object(*out)) return err_none();
    err e = *out ? err_make(ERR_CORRUPT, "%s: is no JSON object", path)
                 : err_make(ERR_CORRUPT, "%s: line %d: %s", path, where.line, where.text);
    json_decref(*out);
    *out = NULL;
    return e;
}

static opencode_state state_in(const json_t *config, const opencode_server *s) {
    const json_t *entry = json_object_get(json_object_get(config, "provider"), "flashchat");
    if (!entry) return OPENCODE_ABSENT;
    const char *url =
        json_string_value(json_object_get(json_object_get(entry, "options"), "baseURL"));
    const json_t *model = json_object_get(json_object_get(entry, "models"), s->model);
    return url && !strcmp(url, s->base_url) && model ? OPENCODE_READY : OPENCODE_OTHER;
}

/* Takes the file into account where it is there. Later files override earlier ones. */
static err look_at(const char *dir, const opencode_server *s, opencode_config *c) {
    static const char *const names[] = {"opencode.json", "opencode.jsonc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_TEXT_MAX];
        json_t *config;
        bool plain;
        TRY(path_join(path, dir, names[i]));
        err e = read_config(path, &config, &plain);
        if (e.code == ERR_NOT_FOUND) continue;
        if (e.code) return e;
        opencode_state found = state_in(config, s);
        json_decref(config);
        /* Until some file has the entry, the first one that could take it is remembered. */
        if (found == OPENCODE_ABSENT && (c->exists || c->state != OPENCODE_ABSENT)) continue;
        c->state = found;
        c->exists = true;
        c->plain = plain;
        snprintf(c->path, sizeof c->path, "%s", path);
    }
    return err_none();
}

static err global_dir(char *out) {
    const char *base = getenv("XDG_CONFIG_HOME");
    if (base && *base == '/') return path_join(out, base, "opencode");
    return path_expand(out, "~/.config/opencode");
}

err opencode_look(const opencode_server *s, opencode_config *c) {
    char dir[PATH_TEXT_MAX], mark[PATH_TEXT_MAX], home[PATH_TEXT_MAX];
    memset(c, 0, sizeof *c);
    TRY(global_dir(home));
    TRY(look_at(home, s, c));
    if (!c->exists) {
        TRY(path_join(c->path, home, "opencode.json"));
        c->plain = true;
    }
    /* The folder's own files count last; OpenCode looks upwards as far as the repository goes. */
    opencode_config own = {0};
    if (!getcwd(dir, sizeof dir)) return err_none();
    for (int i = 0; i < FOLDERS_MAX; i++) {
        TRY(look_at(dir, s, &own));
        TRY(path_join(mark, dir, ".git"));
        char *slash = strrchr(dir, '/');
        if (own.state != OPENCODE_ABSENT || access(mark, F_OK) == 0 || !slash || slash == dir)
            break;
        *slash = '\0';
        own = (opencode_config){0};
    }
    if (own.state != OPENCODE_ABSENT) *c = own;
    return err_none();
}

/* ---- writing ---- */

/* The whole new text of the file (owned). What the person keeps in the entry besides (options,
 * other models) stays. */
static err new_text(const opencode_server *s, const opencode_config *c, char **out) {
    json_t *config = NULL, *entry = opencode_entry(s);
    bool plain = true;
    *out = NULL;
    err e = entry ? read_config(c->path, &config, &plain)
                  : err_make(ERR_NOMEM, "no memory for the entry");
    if (e.code == ERR_NOT_FOUND) {
        config = json_object();
        e = err_none();
    }
    if (!e.code && !plain) e = err_make(ERR_UNSUPPORTED, "%s: has comments", c->path);
    if (!e.code && json_object_update_recursive(config, entry) == 0)
        *out = json_dumps(config, JSON_INDENT(2));
    if (!e.code && !*out) e = err_make(ERR_NOMEM, "no memory for %s", c->path);
    json_decref(config);
    json_decref(entry);
    return e;
}

err opencode_write(const opencode_server *s, const opencode_config *c) {
    char *text, *line = NULL, dir[PATH_TEXT_MAX];
    struct stat now;
    mode_t mode = stat(c->path, &now) == 0 ? now.st_mode & 0777 : 0600;
    TRY(new_text(s, c, &text));
    int n = asprintf(&line, "%s\n", text);
    free(text);
    if (n < 0) return err_make(ERR_NOMEM, "no memory for %s", c->path);
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(c->path, '/') - c->path), c->path);
    err e = dir_make(dir, 0700);
    if (!e.code) e = file_write(c->path, line, (size_t)n, mode);
    free(line);
    return e;
}
