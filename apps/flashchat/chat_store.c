/* chat_store.c: see chat_store.h. */
#include "chat_store.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

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

void kept_new_id(char out[CHAT_ID_MAX]) {
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

static uint64_t hash_of(const fm_session *s) {
    return XXH3_64bits(fm_session_tokens(s), fm_session_length(s) * sizeof(int32_t));
}

err kept_save_state(const char *id, const fm_session *s, kept_mark *mark) {
    char path[PATH_TEXT_MAX];
    size_t covered = mark->messages;
    mark->messages = 0;
    TRY(store_path(id, ".state", path));
    size_t size = fm_session_length(s) ? fm_session_save(s, NULL, 0) : 0;
    char *blob = size && size <= CHAT_STATE_MAX ? malloc(size) : NULL;
    if (!blob || fm_session_save(s, blob, size) != size) {
        free(blob);
        return err_none();
    }
    err e = file_write(path, blob, size, 0600);
    free(blob);
    if (e.code) return e;
    mark->messages = covered;
    mark->hash = hash_of(s);
    return err_none();
}

err kept_save(const char *id, const char *model, const json_t *messages, const kept_mark *mark) {
    char path[PATH_TEXT_MAX], hash[24];
    TRY(store_path(id, ".json", path));
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)mark->hash);
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:{s:I, s:s, s:i}, s:O}", "version", 2, "id", id,
                          "model", model, "saved", (json_int_t)time(NULL), "state", "messages",
                          (json_int_t)mark->messages, "hash", hash, "pending", (int)mark->pending,
                          "messages", messages);
    char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!text) return err_make(ERR_NOMEM, "no memory to keep the conversation");
    err e = file_write(path, text, strlen(text), 0600);
    free(text);
    return e;
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

/* Conversations of version 1 called the content text. */
static void modernise(json_t *messages) {
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m) {
        json_t *text = json_object_get(m, "text");
        if (!text || json_object_get(m, "content")) continue;
        json_object_set(m, "content", text);
        json_object_del(m, "text");
    }
}

static err check_messages(const json_t *messages, const char *path) {
    size_t i;
    json_t *m;
    if (!json_is_array(messages)) return err_make(ERR_CORRUPT, "%s has no messages", path);
    if (json_array_size(messages) > CHAT_STORED_MAX)
        return err_make(ERR_RANGE, "%s has too many messages", path);
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        const json_t *content = json_object_get(m, "content");
        bool known = role && (!strcmp(role, "user") || !strcmp(role, "assistant") ||
                              !strcmp(role, "system") || !strcmp(role, "tool"));
        if (!known || !(json_is_string(content) || json_is_null(content)))
            return err_make(ERR_CORRUPT, "%s: message %zu has no role or text", path, i);
    }
    return err_none();
}

static void read_mark(const json_t *o, size_t n, kept_mark *mark) {
    const json_t *state = json_object_get(o, "state");
    const char *hash = json_string_value(json_object_get(state, "hash"));
    json_int_t covered = json_integer_value(json_object_get(state, "messages"));
    const json_t *pending = json_object_get(state, "pending");
    *mark = (kept_mark){.pending = -1};
    if (!hash || covered < 1 || (size_t)covered > n) return;
    mark->messages = (size_t)covered;
    mark->hash = strtoull(hash, NULL, 16);
    json_int_t id = json_is_integer(pending) ? json_integer_value(pending) : -1;
    if (id >= 0 && id < INT32_MAX) mark->pending = (int32_t)id;
}

err kept_load(char id[CHAT_ID_MAX], json_t **messages, kept_mark *mark) {
    char path[PATH_TEXT_MAX];
    json_t *o;
    *messages = NULL;
    *mark = (kept_mark){.pending = -1};
    if (!id[0]) TRY(newest(id));
    TRY(store_path(id, ".json", path));
    err e = json_read_file(path, TEXT_BYTES_MAX, &o);
    if (e.code == ERR_NOT_FOUND)
        return err_make(ERR_NOT_FOUND,
                        "there is no conversation %s; `flashchat sessions` lists them", id);
    if (e.code) return e;
    json_t *list = json_object_get(o, "messages");
    modernise(list);
    e = check_messages(list, path);
    if (!e.code) {
        *messages = json_incref(list);
        read_mark(o, json_array_size(list), mark);
    }
    json_decref(o);
    return e;
}

bool kept_load_state(const char *id, const kept_mark *mark, fm_session *session) {
    char path[PATH_TEXT_MAX], *blob;
    size_t length;
    fm_session_clear(session);
    if (!mark->messages || store_path(id, ".state", path).code) return false;
    if (json_read_text(path, CHAT_STATE_MAX, &blob, &length).code) return false;
    fm_error e = fm_session_restore(session, blob, length);
    free(blob);
    if (!e.code && hash_of(session) == mark->hash) return true;
    fm_session_clear(session);
    return false;
}

/* ---- looking at them ---- */

static const char *member(const json_t *m, const char *key) {
    const char *text = json_string_value(json_object_get(m, key));
    return text ? text : "";
}

static void print_messages(FILE *f, const json_t *messages) {
    size_t i, k;
    json_t *m, *call;
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) {
        fprintf(f, "## %s\n\n%s\n\n", member(m, "role"), member(m, "content"));
        json_array_foreach(json_object_get(m, "tool_calls"), k, call) {
            const json_t *function = json_object_get(call, "function");
            fprintf(f, "(calls %s: %s)\n\n", member(function, "name"),
                    member(function, "arguments"));
        }
    }
}

err kept_export(const char *path, const json_t *messages) {
    char full[PATH_TEXT_MAX];
    TRY(path_expand(full, path));
    if (file_exists(full)) return err_make(ERR_ARG, "%s is there already; name another file", full);
    FILE *f = fopen(full, "we");
    if (!f) return err_system(errno, "cannot write %s", full);
    print_messages(f, messages);
    return fclose(f) == 0 ? err_none() : err_system(errno, "writing %s", full);
}

/* The first thing that the person said, in one line. */
static void title_of(const json_t *messages, char *out, size_t size) {
    size_t i;
    json_t *m;
    snprintf(out, size, "(empty)");
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) {
        if (strcmp(member(m, "role"), "user")) continue;
        snprintf(out, size, "%s", member(m, "content"));
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
        json_t *m;
        kept_mark mark;
        snprintf(id, sizeof id, "%.31s", names[i]->d_name);
        err e = kept_load(id, &m, &mark);
        title_of(m, title, sizeof title);
        snprintf(line, sizeof line, "%s (%zu messages)", e.code ? "cannot be read" : title,
                 json_array_size(m));
        printf("%s  ", id);
        print_cell(stdout, line, screen_width() - (int)strlen(id) - 3);
        putchar('\n');
        json_decref(m);
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
        json_t *m;
        kept_mark mark;
        snprintf(id, sizeof id, "%.31s", names[i]->d_name);
        err e = kept_load(id, &m, &mark);
        title_of(m, title, sizeof title);
        json_array_append_new(list, json_pack("{s:s, s:i, s:o, s:b}", "id", id, "messages",
                                              (int)json_array_size(m), "title",
                                              json_stringn_nocheck(title, text_fit(title, 60)),
                                              "readable", !e.code));
        json_decref(m);
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
    json_t *m;
    kept_mark mark;
    snprintf(id, sizeof id, "%.31s", name);
    err e = kept_load(id, &m, &mark);
    if (!e.code && path) e = kept_export(path, m);
    if (!e.code && !path) print_messages(stdout, m);
    json_decref(m);
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
