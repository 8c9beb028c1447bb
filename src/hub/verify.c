/* verify.c: are the bytes of a snapshot still what their names say? */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub/hub_impl.h"

#define DEPTH_MAX 16

typedef struct walk {
    const atomic_bool *cancel;
    void (*progress)(void *ctx, const char *file, uint64_t bytes);
    void *ctx;
    int *dropped; /* not NULL: what is damaged is removed and counted, not an error */
} walk;

/* A link into blobs/: its target's name is the hash. Anything else has no promise to check. */
static err drop(const walk *w, const char *path) {
    char blob[PATH_MAX];
    if (!realpath(path, blob) || unlink(blob) != 0)
        return err_system(errno, "removing the damaged %s", path);
    ++*w->dropped;
    return err_none();
}

static err check_link(const walk *w, const char *path) {
    char target[HUB_PATH_MAX], now[HUB_ETAG_MAX];
    struct stat s;
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0) return err_none();
    target[n] = '\0';
    const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
    size_t digits = strlen(name);
    if ((digits != 40 && digits != 64) || strspn(name, "0123456789abcdef") != digits)
        return err_none();
    if (stat(path, &s) != 0)
        return w->dropped ? err_none() : err_make(ERR_CORRUPT, "%s is missing", path);
    TRY(hub_hash_file(path, digits == 64, w->cancel, now));
    if (strcmp(now, name) && w->dropped) return drop(w, path);
    if (strcmp(now, name))
        return err_make(ERR_CORRUPT,
                        "%s is damaged: its bytes have the hash %.16s..., not %.16s...", path, now,
                        name);
    if (w->progress) w->progress(w->ctx, path, (uint64_t)s.st_size);
    return err_none();
}

static err check_folder(const walk *w, const char *dir, int depth) {
    char path[HUB_PATH_MAX];
    if (depth > DEPTH_MAX) return err_make(ERR_RANGE, "%s: folders nested too deeply", dir);
    DIR *d = opendir(dir);
    if (!d) return err_system(errno, "%s", dir);
    err e = err_none();
    for (struct dirent *f; !e.code && (f = readdir(d));) {
        struct stat s;
        if (f->d_name[0] == '.') continue;
        e = hub_join(path, dir, f->d_name);
        if (e.code || lstat(path, &s) != 0) continue;
        if (S_ISLNK(s.st_mode)) e = check_link(w, path);
        if (S_ISDIR(s.st_mode)) e = check_folder(w, path, depth + 1);
    }
    closedir(d);
    return e;
}

err hub_verify(const char *snapshot, const atomic_bool *cancel,
               void (*progress)(void *ctx, const char *file, uint64_t bytes), void *ctx) {
    walk w = {cancel, progress, ctx, NULL};
    TRY(hub_complete(snapshot));
    return check_folder(&w, snapshot, 0);
}

err hub_drop_damaged(const char *snapshot, const atomic_bool *cancel,
                     void (*progress)(void *ctx, const char *file, uint64_t bytes), void *ctx,
                     int *dropped) {
    walk w = {cancel, progress, ctx, dropped};
    *dropped = 0;
    return check_folder(&w, snapshot, 0);
}
