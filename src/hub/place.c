/* place.c: see place.h. */
#include "hub/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "hub/hub_impl.h"
#include "hub/pieces.h"

static err make_dirs(const char *path) {
    char part[HUB_PATH_MAX];
    size_t n = strlen(path);
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST && errno != EISDIR)
            return err_system(errno, "cannot make the folder %s", part);
    }
    return err_none();
}

static err make_dirs_above(const char *path) {
    char dir[HUB_PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 0, path);
    return make_dirs(dir);
}

/* A power cut after this keeps the names in the folder. */
static err sync_dir(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_system(errno, "%s", path);
    int bad = fsync(fd);
    int number = errno;
    close(fd);
    return bad && number != EINVAL ? err_system(number, "saving %s", path) : err_none();
}

err place_open(hub_place *p, const char *cache, const hub_listing *l) {
    char repo[HUB_PATH_MAX], snapshots[HUB_PATH_MAX], locks[HUB_PATH_MAX];
    TRY(hub_repo_dir(cache, l->repo, repo));
    TRY(hub_join(p->blobs, repo, "blobs"));
    TRY(hub_join(p->refs, repo, "refs"));
    TRY(hub_join(snapshots, repo, "snapshots"));
    TRY(hub_join(p->snapshot, snapshots, l->commit));
    TRY(hub_join(locks, cache, ".locks"));
    TRY(hub_join(p->locks, locks, strrchr(repo, '/') + 1));
    TRY(make_dirs(p->blobs));
    TRY(make_dirs(p->refs));
    TRY(make_dirs(p->snapshot));
    return make_dirs(p->locks);
}

bool place_has_blob(const hub_place *p, const hub_file *f) {
    char path[HUB_PATH_MAX];
    struct stat s;
    return !hub_join(path, p->blobs, f->etag).code && stat(path, &s) == 0 && S_ISREG(s.st_mode) &&
           (uint64_t)s.st_size == f->size;
}

static err named(const char *dir, const char *etag, const char *suffix, char *out) {
    char name[HUB_ETAG_MAX + 20];
    snprintf(name, sizeof name, "%s%s", etag, suffix);
    return hub_join(out, dir, name);
}

err place_lock_open(const hub_place *p, const char *etag, int *fd) {
    char path[HUB_PATH_MAX];
    *fd = -1;
    TRY(named(p->locks, etag, ".lock", path));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return *fd < 0 ? err_system(errno, "the lock %s", path) : err_none();
}

err place_incomplete_open(const hub_place *p, const char *etag, int *fd) {
    char path[HUB_PATH_MAX];
    *fd = -1;
    TRY(named(p->blobs, etag, ".incomplete", path));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    return *fd < 0 ? err_system(errno, "cannot write %s", path) : err_none();
}

err place_finish_blob(const hub_place *p, const char *etag) {
    char from[HUB_PATH_MAX], to[HUB_PATH_MAX];
    TRY(named(p->blobs, etag, ".incomplete", from));
    TRY(hub_join(to, p->blobs, etag));
    if (rename(from, to) != 0) return err_system(errno, "cannot name %s", to);
    return sync_dir(p->blobs);
}

err place_link(const hub_place *p, const hub_file *f) {
    char path[HUB_PATH_MAX], temporary[HUB_PATH_MAX], target[HUB_PATH_MAX], now[HUB_PATH_MAX];
    size_t n = 0;
    TRY(hub_join(path, p->snapshot, f->path));
    for (const char *c = f->path; *c; c++)
        if (*c == '/') n += (size_t)snprintf(target + n, sizeof target - n, "../");
    snprintf(target + n, sizeof target - n, "../../blobs/%s", f->etag);
    ssize_t length = readlink(path, now, sizeof now - 1);
    if (length > 0) {
        now[length] = '\0';
        if (!strcmp(now, target)) return err_none();
    }
    if (strchr(f->path, '/')) TRY(make_dirs_above(path));
    TRY(named(p->snapshot, f->etag, ".link", temporary));
    unlink(temporary);
    if (symlink(target, temporary) != 0) return err_system(errno, "cannot link %s", path);
    if (rename(temporary, path) == 0) return err_none();
    int number = errno;
    unlink(temporary);
    return err_system(number, "cannot link %s", path);
}

static err write_ref(const hub_place *p, const hub_listing *l) {
    char path[HUB_PATH_MAX], temporary[HUB_PATH_MAX];
    TRY(hub_join(path, p->refs, l->revision));
    TRY(make_dirs_above(path));
    TRY(hub_join(temporary, p->refs, ".flashchat-new"));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return err_system(errno, "cannot write %s", path);
    bool good = write(fd, l->commit, 40) == 40 && fsync(fd) == 0;
    int number = errno;
    close(fd);
    if (good && rename(temporary, path) == 0) return sync_dir(p->refs);
    if (good) number = errno;
    unlink(temporary);
    return err_system(number, "cannot write %s", path);
}

err place_finish(const hub_place *p, const hub_listing *l) {
    TRY(sync_dir(p->snapshot));
    return hub_is_commit(l->revision) ? err_none() : write_ref(p, l);
}

/* ---- what a download would do ---- */

static uint64_t size_of(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (uint64_t)s.st_size : 0;
}

/* Free bytes on the drive where path is or would be made. */
static uint64_t free_space(const char *path) {
    char part[HUB_PATH_MAX];
    struct statvfs v;
    snprintf(part, sizeof part, "%s", path);
    while (statvfs(part, &v) != 0) {
        char *slash = strrchr(part, '/');
        if (!slash) return 0;
        slash[slash == part] = '\0';
        if (slash == part && statvfs(part, &v) != 0) return 0;
    }
    return (uint64_t)v.f_bavail * v.f_frsize;
}

err hub_need_get(const hub_options *o, const hub_listing *l, hub_need *out) {
    hub_place p = {0};
    char repo[HUB_PATH_MAX], path[HUB_PATH_MAX];
    *out = (hub_need){.disk_free = free_space(o->cache)};
    TRY(hub_repo_dir(o->cache, l->repo, repo));
    TRY(hub_join(p.blobs, repo, "blobs"));
    for (int i = 0; i < l->n_files; i++) {
        const hub_file *f = &l->files[i];
        out->total += f->size;
        if (place_has_blob(&p, f)) {
            out->present += f->size;
            continue;
        }
        TRY(named(p.blobs, f->etag, ".incomplete", path));
        uint64_t begun = size_of(path) + pieces_on_disk(&p, f->etag);
        out->partial += begun <= f->size ? begun : 0;
        out->files_missing++;
    }
    out->download = out->total - out->present - out->partial;
    return err_none();
}
