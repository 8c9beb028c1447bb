/* archive.c: store, free, restore, verify. The order of the steps is what keeps the invariants of
 * archive.h; tests/unit/test_archive.c cuts the power after every one of them. */
#include "hub/archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub/archive_impl.h"

#define CHUNK (1u << 20)

typedef struct pass { /* one run over many files */
    const archive_job *j;
    const char *what;
    char local[HUB_PATH_MAX], remote[HUB_PATH_MAX];
    uint8_t *chunk; /* CHUNK; owned */
    uint64_t done, total;
} pass;

static err failed(int code, const char *what, const char *path) {
    return err_system(-code, "%s %s", what, path);
}

static err pass_open(pass *p, const archive_job *j, const char *what) {
    *p = (pass){.j = j, .what = what};
    TRY(archive_local_dir(j, p->local));
    if (j->archive) TRY(archive_remote_dir(j, p->remote));
    p->chunk = malloc(CHUNK);
    return p->chunk ? err_none() : err_make(ERR_NOMEM, "no memory to copy files");
}

static void pass_close(pass *p) { free(p->chunk); }

static err pass_step(pass *p, size_t bytes) {
    p->done += bytes;
    if (p->j->progress) p->j->progress(p->j->progress_ctx, p->what, p->done, p->total);
    if (p->j->cancel && atomic_load(p->j->cancel))
        return err_make(ERR_CANCELLED, "stopped; the same command goes on");
    return err_none();
}

/* Writes all bytes; to < 0 writes nothing. */
static err put(pass *p, int to, size_t n, const char *path) {
    const archive_fs *fs = p->j->fs;
    for (size_t done = 0; to >= 0 && done < n;) {
        ssize_t w = fs->write(fs->ctx, to, p->chunk + done, n - done);
        if (w <= 0) return failed(w < 0 ? (int)w : -EIO, "writing", path);
        done += (size_t)w;
    }
    return err_none();
}

/* Reads a whole file, hashing it and, with to >= 0, copying it there. git: also git's hash, which
 * small blobs are named by. */
static err stream(pass *p, const char *path, int to, char *sha256, char *git) {
    const archive_fs *fs = p->j->fs;
    archive_stat s;
    hub_hash a = {0}, b = {0};
    int code = fs->stat(fs->ctx, path, &s);
    if (code) return failed(code, "looking at", path);
    int fd = fs->open(fs->ctx, path, false);
    if (fd < 0) return failed(fd, "opening", path);
    err e = hub_hash_open(&a, true, s.size);
    if (!e.code && git) e = hub_hash_open(&b, false, s.size);
    while (!e.code) {
        ssize_t n = fs->read(fs->ctx, fd, p->chunk, CHUNK);
        if (n < 0) e = failed((int)n, "reading", path);
        if (n <= 0) break;
        e = hub_hash_add(&a, p->chunk, (size_t)n);
        if (!e.code && git) e = hub_hash_add(&b, p->chunk, (size_t)n);
        if (!e.code) e = put(p, to, (size_t)n, path);
        if (!e.code) e = pass_step(p, (size_t)n);
    }
    fs->close(fs->ctx, fd);
    if (!e.code) e = hub_hash_end(&a, sha256);
    if (!e.code && git) e = hub_hash_end(&b, git);
    hub_hash_close(&a);
    hub_hash_close(&b);
    return e;
}

static err check_name(const archive_item *item, const char *sha256, const char *git) {
    if (strncmp(item->path, "blobs/", 6)) return err_none();
    const char *name = item->path + 6;
    size_t n = strlen(name);
    const char *now = n == 64 ? sha256 : n == 40 ? git : name;
    if (!strcmp(now, name)) return err_none();
    return err_make(ERR_CORRUPT,
                    "%s is damaged here: its bytes have the hash %.16s.... Repair it first "
                    "with: flashchat download",
                    item->path, now);
}

/* Copies from -> to by way of to.partial: bytes synced, hash known and right, then the name: a
 * damaged file never takes the place of a good one. item->sha256 is the hash that is wanted, or ""
 * to be filled in; blobs must have the hash that they are named by. ERR_CORRUPT leaves no file. */
static err copy(pass *p, const char *from, const char *to, archive_item *item) {
    const archive_fs *fs = p->j->fs;
    char partial[HUB_PATH_MAX], sha256[HUB_ETAG_MAX], git[HUB_ETAG_MAX];
    int n = snprintf(partial, sizeof partial, "%s.partial", to);
    if (n < 0 || n >= (int)sizeof partial) return err_make(ERR_RANGE, "the path is too long");
    int fd = fs->open(fs->ctx, partial, true);
    if (fd < 0) return failed(fd, "writing", partial);
    err e = stream(p, from, fd, sha256, git);
    int code = e.code ? 0 : fs->sync(fs->ctx, fd);
    int closed = fs->close(fs->ctx, fd);
    if (!e.code && (code || closed)) e = failed(code ? code : closed, "saving", partial);
    if (!e.code && item->sha256[0] && strcmp(item->sha256, sha256))
        e = err_make(ERR_CORRUPT, "%s is damaged: its bytes have the hash %.16s..., not %.16s...",
                     from, sha256, item->sha256);
    if (!e.code) e = check_name(item, sha256, git);
    if (e.code) {
        fs->unlink(fs->ctx, partial);
        return e;
    }
    memcpy(item->sha256, sha256, sizeof sha256);
    code = fs->rename(fs->ctx, partial, to);
    if (code) return failed(code, "naming", to);
    return archive_sync_above(fs, to);
}

/* ---- the journal ---- */

static err journal_write(const pass *p, const char *operation) {
    char path[HUB_PATH_MAX], line[64];
    TRY(hub_join(path, p->local, ARCHIVE_JOURNAL));
    snprintf(line, sizeof line, "%s %u\n", operation, p->j->parts);
    return archive_write_small(p->j->fs, path, line);
}

static err journal_end(const pass *p) {
    char path[HUB_PATH_MAX];
    archive_stat s;
    TRY(hub_join(path, p->local, ARCHIVE_JOURNAL));
    if (p->j->fs->stat(p->j->fs->ctx, path, &s) || s.kind != ARCHIVE_FILE) return err_none();
    int code = p->j->fs->unlink(p->j->fs->ctx, path);
    return code ? failed(code, "removing", path) : archive_sync_above(p->j->fs, path);
}

err archive_journal(const archive_job *j, char *out, size_t size) {
    char dir[HUB_PATH_MAX], path[HUB_PATH_MAX], *text;
    out[0] = '\0';
    TRY(archive_local_dir(j, dir));
    TRY(hub_join(path, dir, ARCHIVE_JOURNAL));
    err e = archive_read_small(j->fs, path, 256, &text);
    if (e.code == ERR_NOT_FOUND) return err_none();
    if (e.code) return e;
    text[strcspn(text, " \n")] = '\0';
    snprintf(out, size, "%s", text);
    free(text);
    return e;
}

/* ---- store ---- */

/* One file into the archive, unless a good copy is there; fills in its hash. */
static err store_file(pass *p, archive_item *item, const archive_list *before) {
    char from[HUB_PATH_MAX], to[HUB_PATH_MAX], git[HUB_ETAG_MAX], there[HUB_ETAG_MAX];
    const archive_fs *fs = p->j->fs;
    archive_stat s;
    TRY(hub_join(from, p->local, item->path));
    TRY(hub_join(to, p->remote, item->path));
    int code = fs->stat(fs->ctx, to, &s);
    if (code) return failed(code, "looking at", to);
    const archive_item *old = archive_list_find(before, item->path);
    bool same = s.kind == ARCHIVE_FILE && s.size == item->size;
    if (same) { /* an earlier run's: does it have our bytes? */
        TRY(stream(p, from, -1, item->sha256, git));
        TRY(check_name(item, item->sha256, git));
        if (old && !strcmp(old->sha256, item->sha256))
            return err_none(); /* freeing reads it back */
        p->done -= item->size;
        TRY(stream(p, to, -1, there, NULL));
        if (!strcmp(there, item->sha256)) return archive_sync_above(fs, to);
        p->done -= item->size;
    }
    TRY(archive_make_above(fs, p->remote, to));
    item->sha256[0] = '\0';
    return copy(p, from, to, item);
}

/* What the manifest had and we do not store now stays in it: its files are still there. */
static err keep_rest(archive_list *now, const archive_list *before) {
    for (int i = 0; i < before->n; i++)
        if (!archive_list_find(now, before->items[i].path))
            TRY(archive_list_add(now, &before->items[i]));
    return err_none();
}

static err store_all(pass *p, const archive_list *local, const archive_list *before,
                     archive_list *now) {
    for (int i = 0; i < local->n; i++) {
        archive_item *item = &local->items[i];
        if (item->kind == ARCHIVE_FILE && (item->part & p->j->parts))
            TRY(store_file(p, item, before));
        if (item->kind == ARCHIVE_LINK || (item->part & p->j->parts))
            TRY(archive_list_add(now, item));
    }
    TRY(keep_rest(now, before));
    return archive_write_manifest(p->j, now);
}

err archive_store(const archive_job *j) {
    pass p;
    archive_list local = {0}, before = {0}, now = {0};
    TRY(pass_open(&p, j, "copying"));
    err e = archive_local(j, &local);
    p.total = archive_list_bytes(&local, j->parts);
    int code = j->fs->mkdir(j->fs->ctx, j->archive);
    if (!e.code && code) e = failed(code, "making the folder", j->archive);
    if (!e.code) code = j->fs->mkdir(j->fs->ctx, p.remote);
    if (!e.code && code) e = failed(code, "making the folder", p.remote);
    if (!e.code) e = archive_sync_above(j->fs, p.remote);
    if (!e.code && local.n == 0) e = err_make(ERR_NOT_FOUND, "%s has no files here", j->repo);
    if (!e.code) e = journal_write(&p, "offload");
    if (!e.code) e = archive_manifest(j, &before);
    if (!e.code) e = store_all(&p, &local, &before, &now);
    if (!e.code) e = journal_end(&p);
    archive_list_free(&local);
    archive_list_free(&before);
    archive_list_free(&now);
    pass_close(&p);
    return e;
}

/* ---- free ---- */

/* The copy in the archive is there and has the promised hash, and so has what we are about to
 * remove. */
static err check_copy(pass *p, const archive_item *local, const archive_list *manifest) {
    char path[HUB_PATH_MAX], mine[HUB_PATH_MAX], now[HUB_ETAG_MAX];
    const archive_item *there = archive_list_find(manifest, local->path);
    if (!there || there->kind != ARCHIVE_FILE)
        return err_make(ERR_NOT_FOUND, "%s is not in the archive; nothing was removed",
                        local->path);
    TRY(hub_join(path, p->remote, local->path));
    TRY(hub_join(mine, p->local, local->path));
    if (there->size != local->size)
        return err_make(ERR_CORRUPT, "%s changed since it was archived; nothing was removed", mine);
    TRY(stream(p, path, -1, now, NULL));
    if (strcmp(now, there->sha256))
        return err_make(ERR_CORRUPT, "%s is damaged in the archive; nothing was removed", path);
    if (strncmp(local->path, "blobs/", 6) == 0) return err_none(); /* named by its hash */
    TRY(stream(p, mine, -1, now, NULL));
    if (strcmp(now, there->sha256))
        return err_make(ERR_CORRUPT, "%s changed since it was archived; nothing was removed", mine);
    return err_none();
}

static err remove_one(const pass *p, const char *path) {
    char full[HUB_PATH_MAX];
    TRY(hub_join(full, p->local, path));
    int code = p->j->fs->unlink(p->j->fs->ctx, full);
    return code && code != -ENOENT ? failed(code, "removing", full) : err_none();
}

/* Files of the parts; with all parts also links and then empty folders. The rest of the folder
 * (unfinished downloads, prompt caches) stays and keeps its folders. */
static err remove_files(const pass *p, const archive_list *local) {
    for (int i = 0; i < local->n; i++)
        if (local->items[i].kind == ARCHIVE_FILE && (local->items[i].part & p->j->parts))
            TRY(remove_one(p, local->items[i].path));
    if (p->j->parts != ARCHIVE_ALL) return err_none();
    for (int i = 0; i < local->n; i++)
        if (local->items[i].kind == ARCHIVE_LINK) TRY(remove_one(p, local->items[i].path));
    return err_none();
}

static void remove_folders(const pass *p, const char *dir, int depth) {
    char name[256], full[HUB_PATH_MAX];
    const archive_fs *fs = p->j->fs;
    for (int i = 0; depth < 16; i++) {
        archive_stat s;
        if (fs->list(fs->ctx, dir, i, name, sizeof name)) break;
        if (hub_join(full, dir, name).code || fs->stat(fs->ctx, full, &s)) break;
        if (s.kind != ARCHIVE_DIR) continue;
        remove_folders(p, full, depth + 1);
        if (fs->stat(fs->ctx, full, &s) || s.kind == ARCHIVE_NOTHING) i--;
    }
    fs->rmdir(fs->ctx, dir); /* fails where something is left, as it should */
}

/* What the list leaves out, too: prompt caches, beginnings of downloads. The journal goes last. */
static err remove_rest(const pass *p, const char *dir, int depth) {
    char name[256], full[HUB_PATH_MAX];
    const archive_fs *fs = p->j->fs;
    for (int i = 0; depth < 16; i++) {
        archive_stat s;
        if (fs->list(fs->ctx, dir, i, name, sizeof name)) break;
        if (!strncmp(name, ARCHIVE_JOURNAL, strlen(ARCHIVE_JOURNAL))) continue;
        TRY(hub_join(full, dir, name));
        int code = fs->stat(fs->ctx, full, &s);
        if (code) return failed(code, "looking at", full);
        if (s.kind == ARCHIVE_DIR) {
            TRY(remove_rest(p, full, depth + 1));
            continue;
        }
        code = fs->unlink(fs->ctx, full);
        if (code) return failed(code, "removing", full);
        i--;
    }
    return err_none();
}

static err finish_removal(const pass *p) {
    TRY(journal_end(p));
    if (p->j->parts == ARCHIVE_ALL) remove_folders(p, p->local, 0);
    return err_none();
}

err archive_free_local(const archive_job *j) {
    pass p;
    archive_list local = {0}, manifest = {0};
    TRY(pass_open(&p, j, "checking the archive"));
    err e = archive_local(j, &local);
    if (!e.code) e = archive_manifest(j, &manifest);
    p.total = archive_list_bytes(&local, j->parts);
    for (int i = 0; !e.code && i < local.n; i++)
        if (local.items[i].kind == ARCHIVE_FILE && (local.items[i].part & j->parts))
            e = check_copy(&p, &local.items[i], &manifest);
    if (!e.code) e = journal_write(&p, "free");
    if (!e.code) e = remove_files(&p, &local);
    if (!e.code) e = finish_removal(&p);
    archive_list_free(&local);
    archive_list_free(&manifest);
    pass_close(&p);
    return e;
}

err archive_delete_local(const archive_job *j) {
    pass p;
    archive_list local = {0};
    TRY(pass_open(&p, j, "removing"));
    err e = archive_local(j, &local);
    if (!e.code) e = journal_write(&p, "delete");
    if (!e.code) e = remove_files(&p, &local);
    if (!e.code && j->parts == ARCHIVE_ALL) e = remove_rest(&p, p.local, 0);
    if (!e.code) e = finish_removal(&p);
    archive_list_free(&local);
    pass_close(&p);
    return e;
}

/* ---- restore ---- */

static err restore_file(pass *p, archive_item *item) {
    char from[HUB_PATH_MAX], to[HUB_PATH_MAX], now[HUB_ETAG_MAX];
    const archive_fs *fs = p->j->fs;
    archive_stat s;
    TRY(hub_join(from, p->remote, item->path));
    TRY(hub_join(to, p->local, item->path));
    int code = fs->stat(fs->ctx, to, &s);
    if (code) return failed(code, "looking at", to);
    if (s.kind == ARCHIVE_FILE && s.size == item->size) {
        TRY(stream(p, to, -1, now, NULL));
        if (!strcmp(now, item->sha256)) return err_none();
        p->done -= item->size;
    }
    TRY(archive_make_above(fs, p->local, to));
    return copy(p, from, to, item);
}

static err restore_link(const pass *p, const archive_item *item) {
    char to[HUB_PATH_MAX], now[HUB_PATH_MAX];
    const archive_fs *fs = p->j->fs;
    archive_stat s;
    TRY(hub_join(to, p->local, item->path));
    int code = fs->stat(fs->ctx, to, &s);
    if (code) return failed(code, "looking at", to);
    if (s.kind == ARCHIVE_LINK && fs->readlink(fs->ctx, to, now, sizeof now) >= 0 &&
        !strcmp(now, item->target))
        return err_none();
    TRY(archive_make_above(fs, p->local, to));
    if (s.kind != ARCHIVE_NOTHING && (code = fs->unlink(fs->ctx, to)))
        return failed(code, "replacing", to);
    code = fs->symlink(fs->ctx, item->target, to);
    return code ? failed(code, "linking", to) : archive_sync_above(fs, to);
}

/* Files before links, so that no link ever leads nowhere; refs come last of the files because their
 * path sorts after blobs/. */
static err restore_all(pass *p, const archive_list *manifest) {
    for (int i = 0; i < manifest->n; i++)
        if (manifest->items[i].kind == ARCHIVE_FILE && (manifest->items[i].part & p->j->parts))
            TRY(restore_file(p, &manifest->items[i]));
    for (int i = 0; i < manifest->n; i++)
        if (manifest->items[i].kind == ARCHIVE_LINK) TRY(restore_link(p, &manifest->items[i]));
    return err_none();
}

err archive_restore(const archive_job *j) {
    pass p;
    archive_list manifest = {0};
    TRY(pass_open(&p, j, "restoring"));
    err e = archive_manifest(j, &manifest);
    if (!e.code && manifest.n == 0)
        e = err_make(ERR_NOT_FOUND, "%s is not in the archive %s", j->repo, j->archive);
    p.total = archive_list_bytes(&manifest, j->parts);
    int code = e.code ? 0 : j->fs->mkdir(j->fs->ctx, p.local);
    if (code) e = failed(code, "making the folder", p.local);
    if (!e.code) e = archive_sync_above(j->fs, p.local);
    if (!e.code) e = journal_write(&p, "restore");
    if (!e.code) e = restore_all(&p, &manifest);
    if (!e.code) e = journal_end(&p);
    archive_list_free(&manifest);
    pass_close(&p);
    return e;
}

/* ---- verify ---- */

static err verify_one(pass *p, const archive_item *item, bool deep) {
    char path[HUB_PATH_MAX], now[HUB_ETAG_MAX];
    archive_stat s;
    TRY(hub_join(path, p->remote, item->path));
    int code = p->j->fs->stat(p->j->fs->ctx, path, &s);
    if (code) return failed(code, "looking at", path);
    if (s.kind != ARCHIVE_FILE || s.size != item->size)
        return err_make(ERR_CORRUPT, "%s is missing or has another size than it should", path);
    if (!deep) return err_none();
    TRY(stream(p, path, -1, now, NULL));
    if (!strcmp(now, item->sha256)) return err_none();
    return err_make(ERR_CORRUPT, "%s is damaged: its bytes have another hash than the manifest",
                    path);
}

err archive_verify(const archive_job *j, bool deep) {
    pass p;
    archive_list manifest = {0};
    TRY(pass_open(&p, j, "checking"));
    err e = archive_manifest(j, &manifest);
    p.total = archive_list_bytes(&manifest, j->parts);
    if (!e.code && manifest.n == 0)
        e = err_make(ERR_NOT_FOUND, "%s is not in the archive %s", j->repo, j->archive);
    for (int i = 0; !e.code && i < manifest.n; i++)
        if (manifest.items[i].kind == ARCHIVE_FILE && (manifest.items[i].part & j->parts))
            e = verify_one(&p, &manifest.items[i], deep);
    archive_list_free(&manifest);
    pass_close(&p);
    return e;
}
