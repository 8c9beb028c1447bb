/* settings_file.c: the text of the settings file: one line read, one line written, some lines
 * changed.
 *
 *     # comment
 *     MODEL="qwen3.6-35b-a3b-4bit"        spaces around = and after the value are allowed
 *     MAX_TOKENS=4096                     quotes may be left out around a single word
 *
 * Nothing is expanded or executed: $, ` and ; are characters. In double quotes \" is a quote and
 * \\ a backslash; single quotes take everything as it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/json.h"
#include "config.h"
#include "files.h"

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static bool is_name(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* The value from p to end into out; *rest is what follows it. */
static err parse_value(const char *p, const char *end, char *out, const char **rest) {
    size_t n = 0;
    if (p < end && (*p == '"' || *p == '\'')) {
        char quote = *p++;
        while (p < end && *p != quote) {
            if (quote == '"' && *p == '\\' && p + 1 < end && (p[1] == '"' || p[1] == '\\')) p++;
            out[n++] = *p++;
        }
        if (p == end) return err_make(ERR_CORRUPT, "the closing %c is missing", quote);
        p++;
    } else {
        while (p < end && !is_blank(*p) && *p != '#') out[n++] = *p++;
    }
    out[n] = '\0';
    *rest = p;
    return err_none();
}

err settings_parse_line(const char *line, size_t length, char *key, char *value) {
    key[0] = value[0] = '\0';
    if (length >= SETTINGS_LINE_MAX)
        return err_make(ERR_CORRUPT, "the line has %zu characters, at most %d", length,
                        SETTINGS_LINE_MAX - 1);
    if (memchr(line, '\0', length)) return err_make(ERR_CORRUPT, "the line has a zero byte");
    const char *p = line, *end = line + length;
    while (p < end && is_blank(*p)) p++;
    if (p == end || *p == '#') return err_none();
    size_t n = 0;
    while (p + n < end && is_name(p[n])) n++;
    const char *after = p + n;
    while (after < end && is_blank(*after)) after++;
    if (n == 0 || after == end || *after != '=')
        return err_make(ERR_CORRUPT, "expected KEY=\"value\", found \"%.*s\"",
                        (int)(end - p > 40 ? 40 : end - p), p);
    memcpy(key, p, n);
    key[n] = '\0';
    for (after++; after < end && is_blank(*after); after++) {
    }
    TRY(parse_value(after, end, value, &after));
    while (after < end && is_blank(*after)) after++;
    if (after < end && *after != '#')
        return err_make(ERR_CORRUPT, "%s: unexpected text after the value: \"%.*s\"", key,
                        (int)(end - after > 40 ? 40 : end - after), after);
    return err_none();
}

void settings_format_line(char *out, size_t size, const char *key, const char *value) {
    size_t n = (size_t)snprintf(out, size, "%s=\"", key);
    for (const char *p = value; *p && n + 4 < size; p++) {
        if (*p == '"' || *p == '\\') out[n++] = '\\';
        out[n++] = *p;
    }
    snprintf(out + n, size - n, "\"");
}

/* ---- changing ---- */

typedef struct text {
    char *bytes; /* owned */
    size_t length, capacity;
} text;

static err text_add(text *t, const char *bytes, size_t length) {
    if (t->length + length + 1 > t->capacity) {
        size_t capacity = (t->length + length + 1) * 2;
        char *more = realloc(t->bytes, capacity);
        if (!more) return err_make(ERR_NOMEM, "no memory for the settings file");
        t->bytes = more, t->capacity = capacity;
    }
    memcpy(t->bytes + t->length, bytes, length);
    t->length += length;
    t->bytes[t->length] = '\0';
    return err_none();
}

static const char file_head[] =
    "# Settings of flashchat. Change them here, with `flashchat config`, or with\n"
    "# `flashchat config set KEY VALUE`. docs/CONFIG.md says what each one means.\n";

static err add_setting(text *t, config_id id, const char *value) {
    char line[2 * SETTINGS_LINE_MAX];
    settings_format_line(line, sizeof line, config_rows[id].name, value);
    TRY(text_add(t, line, strlen(line)));
    return text_add(t, "\n", 1);
}

/* The change that a line is about, or -1. */
static int change_of(const char *line, size_t length, const settings_change *changes, int n) {
    char key[SETTINGS_LINE_MAX], value[SETTINGS_LINE_MAX];
    err e = settings_parse_line(line, length, key, value);
    if (e.code && !key[0]) return -1;
    int id = config_find(key);
    for (int i = 0; i < n; i++)
        if (id >= 0 && id == (int)changes[i].id) return i;
    return -1;
}

#define CHANGES_MAX CONFIG_COUNT

static err rewrite(const char *old, size_t length, const settings_change *changes, int n, text *t) {
    bool written[CHANGES_MAX] = {false};
    if (length == 0) TRY(text_add(t, file_head, sizeof file_head - 1));
    for (const char *p = old, *end = old + length; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t line = newline ? (size_t)(newline - p) : (size_t)(end - p);
        int i = change_of(p, line, changes, n);
        if (i < 0) {
            TRY(text_add(t, p, line));
            TRY(text_add(t, "\n", 1));
        } else if (changes[i].value && !written[i]) {
            TRY(add_setting(t, changes[i].id, changes[i].value));
            written[i] = true;
        } /* a second line of the same setting goes */
        p += line + (newline ? 1 : 0);
    }
    for (int i = 0; i < n; i++)
        if (changes[i].value && !written[i]) TRY(add_setting(t, changes[i].id, changes[i].value));
    return err_none();
}

/* An absent file is an empty one. */
static err read_old(const char *file, char **old, size_t *length) {
    err e = json_read_text(file, SETTINGS_FILE_MAX, old, length);
    if (e.code != ERR_NOT_FOUND) return e;
    *old = NULL;
    *length = 0;
    return err_none();
}

err settings_preview(const char *file, const settings_change *changes, int n, char **out) {
    *out = NULL;
    if (n > CHANGES_MAX) return err_make(ERR_RANGE, "%d changes at once", n);
    for (int i = 0; i < n; i++)
        if (changes[i].value) TRY(config_check(&config_rows[changes[i].id], changes[i].value));
    char *old;
    size_t length;
    TRY(read_old(file, &old, &length));
    text t = {0};
    err e = rewrite(old ? old : "", length, changes, n, &t);
    if (!e.code) e = text_add(&t, "", 0);
    free(old);
    if (e.code) return free(t.bytes), e;
    *out = t.bytes;
    return e;
}

/* Two programs that change settings take turns; the descriptor is the lock, -1 where the system has
 * none (then the last one wins, whole). */
static int lock_settings(const char *file) {
    char path[PATH_TEXT_MAX + 8];
    snprintf(path, sizeof path, "%s.lock", file);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) flock(fd, LOCK_EX);
    return fd;
}

static void unlock_settings(int fd) {
    if (fd >= 0) close(fd);
}

static err make_folder_of(const char *file) {
    char dir[PATH_TEXT_MAX];
    const char *slash = strrchr(file, '/');
    if (!slash || slash == file) return err_none();
    snprintf(dir, sizeof dir, "%.*s", (int)(slash - file), file);
    return dir_make(dir, 0700);
}

static err previous_path(const char *file, char *out) {
    char name[PATH_TEXT_MAX];
    if (snprintf(name, sizeof name, "%s.previous", file) >= PATH_TEXT_MAX)
        return err_make(ERR_RANGE, "the path %.200s is too long", file);
    memcpy(out, name, strlen(name) + 1);
    return err_none();
}

/* With the lock held: the old text becomes FILE.previous, then the new one takes its place. */
static err replace(const char *file, const char *text_new) {
    char previous[PATH_TEXT_MAX], *old = NULL;
    size_t length = 0;
    TRY(previous_path(file, previous));
    TRY(read_old(file, &old, &length));
    err e = file_write(previous, old ? old : "", length, 0600);
    free(old);
    return e.code ? e : file_write(file, text_new, strlen(text_new), 0600);
}

err settings_save(const char *file, const settings_change *changes, int n) {
    char *text_new = NULL;
    TRY(make_folder_of(file));
    int lock = lock_settings(file);
    err e = settings_preview(file, changes, n, &text_new);
    if (!e.code) e = replace(file, text_new);
    unlock_settings(lock);
    free(text_new);
    return e;
}

err settings_clear(const char *file) {
    TRY(make_folder_of(file));
    int lock = lock_settings(file);
    err e = replace(file, file_head);
    unlock_settings(lock);
    return e;
}

err settings_undo(const char *file) {
    char previous[PATH_TEXT_MAX], *now = NULL, *before = NULL;
    size_t n_now = 0, n_before = 0;
    TRY(previous_path(file, previous));
    int lock = lock_settings(file);
    err e = json_read_text(previous, SETTINGS_FILE_MAX, &before, &n_before);
    if (e.code == ERR_NOT_FOUND)
        e = err_make(ERR_NOT_FOUND, "there is nothing to undo: %s was not changed yet", file);
    if (!e.code) e = read_old(file, &now, &n_now);
    if (!e.code) e = file_write(file, before, n_before, 0600);
    if (!e.code) e = file_write(previous, now ? now : "", n_now, 0600);
    unlock_settings(lock);
    free(now);
    free(before);
    return e;
}
