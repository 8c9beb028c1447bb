/* archive_list.c: what there is: the model's folder walked, the manifest read and written. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "hub/archive_impl.h"

#define DEPTH_MAX          16
#define MANIFEST_MAX_BYTES (64u << 20)

static err failed(int code, const char *what, const char *path) {
    return err_system(-code, "%s %s", what, path);
}

err archive_local_dir(const archive_job *j, char *out) {
    return hub_repo_dir(j->cache, j->repo, out);
}

err archive_remote_dir(const archive_job *j, char *out) {
    out[0] = '\0';
    if (!j->archive || !j->archive[0])
        return err_make(ERR_ARG, "no archive folder is set; choose one with: flashchat config set "
                                 "OFFLOAD_DIR FOLDER");
    return hub_repo_dir(j->archive, j->repo, out);
}

/* ---- lists ---- */

void archive_list_free(archive_list *l) {
    for (int i = 0; i < l->n; i++) {
        free(l->items[i].path);
        free(l->items[i].target);
    }
    free(l->items);
    *l = (archive_list){0};
}

uint64_t archive_list_bytes(const archive_list *l, unsigned parts) {
    uint64_t sum = 0;
    for (int i = 0; i < l->n; i++)
        if (l->items[i].part & parts) sum += l->items[i].size;
    return sum;
}

archive_item *archive_list_find(const archive_list *l, const char *path) {
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->items[i].path, path)) return &l->items[i];
    return NULL;
}

err archive_list_add(archive_list *l, const archive_item *item) {
    if (l->n == ARCHIVE_ITEMS_MAX)
        return err_make(ERR_RANGE, "the model has more than %d files", ARCHIVE_ITEMS_MAX);
    if (l->n == l->capacity) {
        int wanted = l->capacity ? 2 * l->capacity : 64;
        archive_item *grown = realloc(l->items, (size_t)wanted * sizeof *grown);
        if (!grown) return err_make(ERR_NOMEM, "no memory for the list of files");
        l->items = grown, l->capacity = wanted;
    }
    archive_item copy = *item;
    copy.path = strdup(item->path);
    copy.target = item->target ? strdup(item->target) : NULL;
    if (!copy.path || (item->target && !copy.target)) {
        free(copy.path);
        free(copy.target);
        return err_make(ERR_NOMEM, "no memory for the list of files");
    }
    l->items[l->n++] = copy;
    return err_none();
}

/* ---- the local folder ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static bool is_left_out(const char *name) {
    return name[0] == '.' || ends_with(name, ".incomplete") || ends_with(name, ".lock") ||
           strstr(name, ".range-") || ends_with(name, ".partial") || ends_with(name, ".new") ||
           !strcmp(name, "system_prompt_cache") || !strcmp(name, "prompt_cache");
}

static err add_entry(const archive_job *j, const char *full, const char *path, archive_list *l,
                     archive_kind *kind) {
    archive_stat s;
    char target[HUB_PATH_MAX];
    int code = j->fs->stat(j->fs->ctx, full, &s);
    if (code) return failed(code, "looking at", full);
    *kind = s.kind;
    bool packed = !strncmp(path, "snapshots/", 10) && strstr(path, "/flashchat/");
    archive_item item = {(char *)(uintptr_t)path, s.kind, ARCHIVE_RUNTIME, s.size, "", NULL};
    if (packed) item.part = ARCHIVE_PACKED;
    if (s.kind == ARCHIVE_LINK) {
        ssize_t n = j->fs->readlink(j->fs->ctx, full, target, sizeof target);
        if (n < 0) return failed((int)n, "reading the link", full);
        item.target = target;
        item.size = 0;
    }
    if (s.kind != ARCHIVE_FILE && s.kind != ARCHIVE_LINK) return err_none();
    return archive_list_add(l, &item);
}

static err walk(const archive_job *j, const char *dir, const char *below, int depth,
                archive_list *l) {
    char name[256], full[HUB_PATH_MAX], path[HUB_PATH_MAX];
    if (depth > DEPTH_MAX) return err_make(ERR_RANGE, "%s: folders nested too deeply", dir);
    for (int i = 0;; i++) {
        int code = j->fs->list(j->fs->ctx, dir, i, name, sizeof name);
        if (code == -ENOENT) return err_none();
        if (code) return failed(code, "listing", dir);
        if (is_left_out(name)) continue;
        archive_kind kind = ARCHIVE_NOTHING;
        TRY(hub_join(full, dir, name));
        if (below[0])
            TRY(hub_join(path, below, name));
        else
            snprintf(path, sizeof path, "%s", name);
        TRY(add_entry(j, full, path, l, &kind));
        if (kind == ARCHIVE_DIR) TRY(walk(j, full, path, depth + 1, l));
    }
}

/* A blob that a snapshot calls *.safetensors is published weights. */
static void mark_originals(archive_list *l) {
    for (int i = 0; i < l->n; i++) {
        const archive_item *link = &l->items[i];
        if (link->kind != ARCHIVE_LINK || !ends_with(link->path, ".safetensors")) continue;
        const char *blob = strstr(link->target, "blobs/");
        archive_item *file = blob ? archive_list_find(l, blob) : NULL;
        if (file) file->part = ARCHIVE_ORIGINALS;
    }
}

err archive_local(const archive_job *j, archive_list *out) {
    char dir[HUB_PATH_MAX];
    *out = (archive_list){0};
    TRY(archive_local_dir(j, dir));
    err e = walk(j, dir, "", 0, out);
    if (e.code) return archive_list_free(out), e;
    mark_originals(out);
    return e;
}

/* ---- small files ---- */

err archive_read_small(const archive_fs *fs, const char *path, size_t max, char **out) {
    archive_stat s;
    *out = NULL;
    int code = fs->stat(fs->ctx, path, &s);
    if (code) return failed(code, "looking at", path);
    if (s.kind != ARCHIVE_FILE) return err_make(ERR_NOT_FOUND, "%s: no such file", path);
    if (s.size > max) return err_make(ERR_RANGE, "%s is too large", path);
    char *text = malloc((size_t)s.size + 1);
    if (!text) return err_make(ERR_NOMEM, "no memory for %s", path);
    int fd = fs->open(fs->ctx, path, false);
    size_t done = 0;
    ssize_t n = fd < 0 ? fd : 1;
    while (n > 0 && done < s.size) {
        n = fs->read(fs->ctx, fd, text + done, (size_t)s.size - done);
        if (n > 0) done += (size_t)n;
    }
    if (fd >= 0) fs->close(fs->ctx, fd);
    if (n < 0) return free(text), failed((int)n, "reading", path);
    text[done] = '\0';
    *out = text;
    return err_none();
}

err archive_sync_above(const archive_fs *fs, const char *path) {
    char dir[HUB_PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 0, path);
    int code = fs->sync_dir(fs->ctx, dir);
    return code ? failed(code, "saving", dir) : err_none();
}

err archive_write_small(const archive_fs *fs, const char *path, const char *text) {
    char temporary[HUB_PATH_MAX];
    size_t length = strlen(text), done = 0;
    int n = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (n < 0 || n >= (int)sizeof temporary) return err_make(ERR_RANGE, "the path is too long");
    int fd = fs->open(fs->ctx, temporary, true);
    if (fd < 0) return failed(fd, "writing", path);
    ssize_t put = 1;
    while (done < length && put > 0) {
        put = fs->write(fs->ctx, fd, text + done, length - done);
        if (put > 0) done += (size_t)put;
    }
    int code = put < 0 ? (int)put : done < length ? -EIO : fs->sync(fs->ctx, fd);
    fs->close(fs->ctx, fd);
    if (!code) code = fs->rename(fs->ctx, temporary, path);
    if (code) return failed(code, "writing", path);
    return archive_sync_above(fs, path);
}

err archive_make_above(const archive_fs *fs, const char *root, const char *path) {
    char dir[HUB_PATH_MAX];
    size_t base = strlen(root);
    for (size_t i = base + 1; path[i]; i++) {
        if (path[i] != '/') continue;
        memcpy(dir, path, i);
        dir[i] = '\0';
        archive_stat s;
        int code = fs->stat(fs->ctx, dir, &s);
        if (!code && s.kind == ARCHIVE_DIR) continue;
        if (!code) code = fs->mkdir(fs->ctx, dir);
        if (code) return failed(code, "making the folder", dir);
        TRY(archive_sync_above(fs, dir));
    }
    return err_none();
}

/* ---- manifest ---- */

/* A link must stay inside the model's folder. */
static bool target_is_safe(const char *path, const char *target) {
    int depth = 0;
    for (const char *p = path; *p; p++) depth += *p == '/';
    while (!strncmp(target, "../", 3)) target += 3, depth--;
    return depth >= 0 && hub_path_is_safe(target);
}

static err read_item(const json_t *o, const char *where, archive_list *l) {
    const char *path, *sha, *target;
    int64_t size, part;
    if (!json_is_object(o)) return err_make(ERR_CORRUPT, "%s: an item is not an object", where);
    TRY(json_get_string(o, where, "path", "", &path));
    TRY(json_get_string(o, where, "sha256", "", &sha));
    TRY(json_get_string(o, where, "target", NULL, &target));
    TRY(json_get_int(o, where, "size", (json_range){0, INT64_MAX, 0}, &size));
    TRY(json_get_int(o, where, "part", (json_range){1, ARCHIVE_PACKED, 1}, &part));
    if (part == 3) return err_make(ERR_CORRUPT, "%s: an item belongs to no part", where);
    if (!hub_path_is_safe(path) || (target && !target_is_safe(path, target)))
        return err_make(ERR_CORRUPT, "%s: \"%.100s\" is no safe path", where, path);
    if (!target && (strlen(sha) != 64 || strspn(sha, "0123456789abcdef") != 64))
        return err_make(ERR_CORRUPT, "%s: %s has no hash", where, path);
    archive_item item = {(char *)(uintptr_t)path,
                         target ? ARCHIVE_LINK : ARCHIVE_FILE,
                         (unsigned)part,
                         (uint64_t)size,
                         "",
                         (char *)(uintptr_t)target};
    if (!target) memcpy(item.sha256, sha, 65);
    return archive_list_add(l, &item);
}

static err read_manifest(const archive_job *j, const char *path, const char *text,
                         archive_list *l) {
    json_t *o;
    int64_t version;
    const char *repo;
    TRY(json_read_bytes(path, text, strlen(text), &o));
    err e = json_get_int(o, path, "version", (json_range){1, 1, 0}, &version);
    if (!e.code) e = json_get_string(o, path, "repo", "", &repo);
    if (!e.code && (version != 1 || strcmp(repo, j->repo)))
        e = err_make(ERR_CORRUPT, "%s is not a manifest of %s", path, j->repo);
    const json_t *items = json_object_get(o, "items");
    for (size_t i = 0; !e.code && i < json_array_size(items); i++)
        e = read_item(json_array_get(items, i), path, l);
    json_decref(o);
    return e;
}

err archive_manifest(const archive_job *j, archive_list *out) {
    char dir[HUB_PATH_MAX], path[HUB_PATH_MAX], *text;
    *out = (archive_list){0};
    TRY(archive_remote_dir(j, dir));
    TRY(hub_join(path, dir, "manifest.json"));
    err e = archive_read_small(j->fs, path, MANIFEST_MAX_BYTES, &text);
    if (e.code == ERR_NOT_FOUND) return err_none();
    if (e.code) return e;
    e = read_manifest(j, path, text, out);
    free(text);
    if (e.code) archive_list_free(out);
    return e;
}

err archive_write_manifest(const archive_job *j, const archive_list *l) {
    char dir[HUB_PATH_MAX], path[HUB_PATH_MAX];
    TRY(archive_remote_dir(j, dir));
    TRY(hub_join(path, dir, "manifest.json"));
    json_t *items = json_array();
    for (int i = 0; i < l->n; i++) {
        const archive_item *a = &l->items[i];
        json_t *o = json_pack("{s:s, s:i, s:I}", "path", a->path, "part", (int)a->part, "size",
                              (json_int_t)a->size);
        if (a->target)
            json_object_set_new(o, "target", json_string(a->target));
        else
            json_object_set_new(o, "sha256", json_string(a->sha256));
        json_array_append_new(items, o);
    }
    json_t *all = json_pack("{s:i, s:s, s:o}", "version", 1, "repo", j->repo, "items", items);
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (!text) return err_make(ERR_NOMEM, "no memory for the manifest");
    err e = archive_write_small(j->fs, path, text);
    free(text);
    return e;
}
