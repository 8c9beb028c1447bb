/* archive_fs.c: the real file system behind archive_fs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "hub/archive.h"

static int real_open(void *ctx, const char *path, bool create) {
    (void)ctx;
    int fd = create ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666)
                    : open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static ssize_t real_read(void *ctx, int fd, void *bytes, size_t n) {
    (void)ctx;
    ssize_t got;
    do {
        got = read(fd, bytes, n);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t real_write(void *ctx, int fd, const void *bytes, size_t n) {
    (void)ctx;
    ssize_t put;
    do {
        put = write(fd, bytes, n);
    } while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

/* After it, reading back comes from the drive and not from memory, as far as the system obeys. */
static int real_sync(void *ctx, int fd) {
    (void)ctx;
    if (fsync(fd) != 0) return -errno;
    os_drop_cache(fd);
    return 0;
}

static int real_close(void *ctx, int fd) {
    (void)ctx;
    return close(fd) != 0 ? -errno : 0;
}

static int real_rename(void *ctx, const char *from, const char *to) {
    (void)ctx;
    return rename(from, to) != 0 ? -errno : 0;
}

static int real_unlink(void *ctx, const char *path) {
    (void)ctx;
    return unlink(path) != 0 ? -errno : 0;
}

static int real_rmdir(void *ctx, const char *path) {
    (void)ctx;
    return rmdir(path) != 0 ? -errno : 0;
}

static int real_mkdir(void *ctx, const char *path) {
    (void)ctx;
    return mkdir(path, 0777) != 0 && errno != EEXIST ? -errno : 0;
}

static int real_sync_dir(void *ctx, const char *path) {
    (void)ctx;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int result = fsync(fd) != 0 && errno != EINVAL ? -errno : 0; /* EINVAL: needs no syncing */
    close(fd);
    return result;
}

static int real_symlink(void *ctx, const char *target, const char *path) {
    (void)ctx;
    return symlink(target, path) != 0 ? -errno : 0;
}

static ssize_t real_readlink(void *ctx, const char *path, char *out, size_t size) {
    (void)ctx;
    ssize_t n = readlink(path, out, size - 1);
    if (n < 0) return -errno;
    out[n] = '\0';
    return n;
}

static int real_stat(void *ctx, const char *path, archive_stat *out) {
    (void)ctx;
    struct stat s;
    *out = (archive_stat){ARCHIVE_NOTHING, 0};
    if (lstat(path, &s) != 0) return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    if (S_ISREG(s.st_mode)) *out = (archive_stat){ARCHIVE_FILE, (uint64_t)s.st_size};
    if (S_ISLNK(s.st_mode)) out->kind = ARCHIVE_LINK;
    if (S_ISDIR(s.st_mode)) out->kind = ARCHIVE_DIR;
    return 0;
}

static int not_dots(const struct dirent *d) {
    return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int real_list(void *ctx, const char *path, int index, char *name, size_t size) {
    (void)ctx;
    struct dirent **names;
    int n = scandir(path, &names, not_dots, alphasort), result = -ENOENT;
    if (n < 0) return -errno;
    for (int i = 0; i < n; i++) {
        if (i == index) {
            int length = snprintf(name, size, "%s", names[i]->d_name);
            result = length < (int)size ? 0 : -ENAMETOOLONG;
        }
        free(names[i]);
    }
    free(names);
    return result;
}

const archive_fs archive_real_fs = {
    .open = real_open,
    .read = real_read,
    .write = real_write,
    .sync = real_sync,
    .close = real_close,
    .rename = real_rename,
    .unlink = real_unlink,
    .rmdir = real_rmdir,
    .mkdir = real_mkdir,
    .sync_dir = real_sync_dir,
    .symlink = real_symlink,
    .readlink = real_readlink,
    .stat = real_stat,
    .list = real_list,
};
