/* chat_store.c: see chat_store.h. */
#include "chat_store.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "product.h"
#include "screen.h"

#define TEXT_BYTES_MAX ((size_t)256 << 20)

static err store_dir(char *out) {
    settings *c;
    TRY(settings_open(NULL, &c));
    err e = path_join(out, settings_dir(c), "sessions");
    settings_close(c);
    return e.code ? e : dir_make(out, 0700);
}

static err store_path(const char *id, const char *suffix, char *out) {
    char dir[PATH_TEXT_MAX], name[CHAT_ID_MAX + 16];
    if (!id[0] || strlen(id) >= CHAT_ID_MAX || strspn(id, "0123456789-") != strlen(id))
        return err_make(
            ERR_ARG, "\"%.60s\" is not the name of a conversation; `flashchat sessions` lists them",
            id);
    TRY(store_dir(dir));
    snprintf(name, sizeof name, "%s%s", id, suffix);
    return path_join(out, dir, name);
}

void chat_new_id(char out[CHAT_ID_MAX]) {
    time_t now = time(NULL);
    struct tm t;
    char path[PATH_TEXT_MAX];
    for (int i = 0; i < 1000; i++) { /* two in one second */
        localtime_r(&now, &t);
        strftime(out, CHAT_ID_MAX, "%Y%m%d-%H%M%S", &t);
        if (i) snprintf(out + 15, CHAT_ID_MAX - 15, "-%d", i);
        if (store_path(out, ".json", path).code || !file_exists(path)) return;
    }
}

/* ---- saving ---- */

static err save_state(const char *id, const fm_session *s) {
    char path[PATH_TEXT_MAX];
    TRY(store_path(id, ".state", path));
    size_t size = s ? fm_session_save(s, NULL, 0) : 0;
    if (!size || size > CHAT_STATE_MAX) {
        unlink(path); /* an older one does not fit the messages */
        return err_none();
    }
    char *blob = malloc(size);
    if (!blob) return err_none();
    err e =
        fm_session_save(s, blob, size) == size ? file_write(path, blob, size, 0600) : err_none();
    free(blob);
    return e;
}

err chat_save(const char *id, const char *model, const chat_message *m, int n,
              const fm_session *session) {
    char path[PATH_TEXT_MAX];
    TRY(store_path(id, ".json", path));
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:o}", "role", m[i].role, "text",
                                              json_stringn(m[i].text, m[i].length)));
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:o}", "version", 1, "id", id, "model", model,
                          "saved", (json_int_t)time(NULL), "messages", list);
    char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!text)
        return err_make(ERR_CORRUPT,
                        "the conversation has text that is not UTF-8 and cannot be kept");
    err e = file_write(path, text, strlen(text), 0600);
    free(text);
    return e.code ? e : save_state(id, session);
}

/* ---- loading ---- */

static int newest_first(const struct dirent **a, const struct dirent **b) {
    return -alphasort(a, b);
}

static int is_json(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return n > 5 && n < CHAT_ID_MAX + 5 && d->d_name[0] != '.' &&
           !strcmp(d->d_name + n - 5, ".json");
}

static int list_ids(struct dirent ***names) {
    char dir[PATH_TEXT_MAX];
    *names = NULL;
    int n = store_dir(dir).code ? 0 : scandir(dir, names, is_json, newest_first);
    for (int i = 0; i < n; i++) (*names)[i]->d_name[strlen((*names)[i]->d_name) - 5] = '\0';
    return n < 0 ? 0 : n;
}

static void free_ids(struct dirent **names, int n) {
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
}

static err newest(char id[CHAT_ID_MAX]) {
    struct dirent **names;
    int n = list_ids(&names);
    if (n) snprintf(id, CHAT_ID_MAX, "%.31s", names[0]->d_name);
    free_ids(names, n);
    return n ? err_none()
             : err_make(ERR_NOT_FOUND,
                        "there is no conversation to resume yet; begin one: flashchat chat");
}

static const char *role_of(const char *text) {
    static const char *const roles[] = {"user", "assistant", "system", "tool"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(text, roles[i])) return roles[i];
    return NULL;
}

static err take_messages(const json_t *o, const char *path, chat_message **messages, int *n) {
    const json_t *list = json_object_get(o, "messages");
    size_t count = json_array_size(list);
    if (count > CHAT_STORED_MAX) return err_make(ERR_RANGE, "%s has too many messages", path);
    *messages = calloc(count + 1, sizeof **messages);
    if (!*messages) return err_make(ERR_NOMEM, "no memory for the conversation");
    for (size_t i = 0; i < count; i++) {
        const json_t *m = json_array_get(list, i), *text = json_object_get(m, "text");
        const char *role, *known;
        TRY(json_get_string(m, path, "role", "", &role));
        if (!(known = role_of(role)) || !json_is_string(text))
            return err_make(ERR_CORRUPT, "%s: message %zu has no role or text", path, i);
        size_t length = json_string_length(text);
        char *copy = malloc(length + 1);
        if (!copy) return err_make(ERR_NOMEM, "no memory for the conversation");
        memcpy(copy, json_string_value(text), length + 1);
        (*messages)[(*n)++] = (chat_message){known, copy, length};
    }
    return err_none();
}

static void free_messages(chat_message *m, int n) {
    for (int i = 0; m && i < n; i++) free((char *)(uintptr_t)m[i].text);
    free(m);
}

static bool load_state(const char *id, fm_session *session) {
    char path[PATH_TEXT_MAX], *blob;
    size_t length;
    if (!session || store_path(id, ".state", path).code) return false;
    if (json_read_text(path, CHAT_STATE_MAX, &blob, &length).code) return false;
    fm_error e = fm_session_restore(session, blob, length);
    free(blob);
    return !e.code;
}

err chat_load(char id[CHAT_ID_MAX], fm_session *session, chat_message **messages, int *n,
              bool *restored) {
    char path[PATH_TEXT_MAX];
    json_t *o;
    *messages = NULL;
    *n = 0;
    *restored = false;
    if (!id[0]) TRY(newest(id));
    TRY(store_path(id, ".json", path));
    err e = json_read_file(path, TEXT_BYTES_MAX, &o);
    if (e.code == ERR_NOT_FOUND)
        return err_make(ERR_NOT_FOUND,
                        "there is no conversation %s; `flashchat sessions` lists them", id);
    if (e.code) return e;
    e = take_messages(o, path, messages, n);
    json_decref(o);
    if (e.code) {
        free_messages(*messages, *n);
        *messages = NULL;
        *n = 0;
        return e;
    }
    *restored = load_state(id, session);
    return e;
}

/* ---- looking at them ---- */

err chat_export(const char *path, const chat_message *m, int n) {
    char full[PATH_TEXT_MAX];
    TRY(path_expand(full, path));
    if (file_exists(full)) return err_make(ERR_ARG, "%s is there already; name another file", full);
    FILE *f = fopen(full, "we");
    if (!f) return err_system(errno, "cannot write %s", full);
    for (int i = 0; i < n; i++)
        fprintf(f, "## %s\n\n%.*s\n\n", m[i].role, (int)m[i].length, m[i].text);
    return fclose(f) == 0 ? err_none() : err_system(errno, "writing %s", full);
}

/* The first thing that the person said, in one line. */
static void title_of(const chat_message *m, int n, char *out, size_t size) {
    snprintf(out, size, "(empty)");
    for (int i = 0; i < n; i++) {
        if (strcmp(m[i].role, "user")) continue;
        snprintf(out, size, "%.*s", (int)(m[i].length < size ? m[i].length : size - 1), m[i].text);
        break;
    }
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 32) *p = ' ';
}

int sessions_show(void) {
    struct dirent **names;
    int n = list_ids(&names);
    if (!n) puts("No conversation is kept yet. Begin one: flashchat chat");
    for (int i = 0; i < n; i++) {
        char id[CHAT_ID_MAX], title[120], line[200];
        chat_message *m;
        int count;
        bool restored;
        snprintf(id, sizeof id, "%.31s", names[i]->d_name);
        err e = chat_load(id, NULL, &m, &count, &restored);
        title_of(m, count, title, sizeof title);
        snprintf(line, sizeof line, "%s (%d messages)", e.code ? "cannot be read" : title, count);
        printf("%s  ", id);
        print_cell(stdout, line, screen_width() - (int)strlen(id) - 3);
        putchar('\n');
        free_messages(m, count);
    }
    free_ids(names, n);
    if (n)
        print_wrapped(
            stdout, "",
            "Go on with one: flashchat chat --session ID; the newest: flashchat chat --resume");
    return 0;
}

static int show_json(void) {
    struct dirent **names;
    int n = list_ids(&names);
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        char id[CHAT_ID_MAX], title[120];
        chat_message *m;
        int count;
        bool restored;
        snprintf(id, sizeof id, "%.31s", names[i]->d_name);
        err e = chat_load(id, NULL, &m, &count, &restored);
        title_of(m, count, title, sizeof title);
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:o, s:b}", "id", id, "messages", count, "title",
                            json_stringn_nocheck(title, text_fit(title, 60)), "readable", !e.code));
        free_messages(m, count);
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
    free_ids(names, n);
    return 0;
}

static int delete_one(const char *id) {
    char json[PATH_TEXT_MAX], state[PATH_TEXT_MAX];
    err e = store_path(id, ".json", json);
    if (!e.code) e = store_path(id, ".state", state);
    if (!e.code && unlink(json) != 0)
        e = err_make(ERR_NOT_FOUND, "there is no conversation %s; `flashchat sessions` lists them",
                     id);
    if (e.code) return product_fail("sessions", e);
    unlink(state);
    printf("Deleted %s.\n", id);
    return 0;
}

static int export_one(const char *name, const char *path) {
    char id[CHAT_ID_MAX];
    chat_message *m;
    int n;
    bool restored;
    snprintf(id, sizeof id, "%.31s", name);
    err e = chat_load(id, NULL, &m, &n, &restored);
    if (!e.code && path) e = chat_export(path, m, n);
    for (int i = 0; !e.code && !path && i < n; i++)
        printf("## %s\n\n%.*s\n\n", m[i].role, (int)m[i].length, m[i].text);
    free_messages(m, n);
    if (e.code) return product_fail("sessions", e);
    if (path) printf("Written to %s\n", path);
    return 0;
}

int command_sessions(int argc, char **argv) {
    bool json = take_word(&argc, argv, "--json");
    const char *gone = take_value(&argc, argv, "--delete"),
               *out = take_value(&argc, argv, "--export");
    if (gone && argc == 1) return delete_one(gone);
    if (out && argc <= 2) return export_one(out, argc == 2 ? argv[1] : NULL);
    if (argc == 1) return json ? show_json() : sessions_show();
    fprintf(stderr,
            "flashchat sessions: it takes --delete ID, --export ID [FILE], --json or nothing\n");
    return 2;
}
