/* files.c: see files.h. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_FDS 16 /* open at once while a folder is walked */

err path_join(char *out, const char *dir, const char *name) {
    size_t n = strlen(dir);
    const char *between = n && dir[n - 1] == '/' ? "" : "/";
    int length = snprintf(out, PATH_TEXT_MAX, "%s%s%s", dir, between, name);
    if (length < 0 || length >= PATH_TEXT_MAX) {
        out[0] = '\0';
        return err_make(ERR_RANGE, "the path %.200s/%.200s is too long", dir, name);
    }
    return err_none();
}

const char *home_dir(void) {
    const char *home = getenv("HOME");
    if (home && home[0] == '/') return home;
    const struct passwd *p = getpwuid(getuid());
    return p && p->pw_dir && p->pw_dir[0] == '/' ? p->pw_dir : NULL;
}

err path_expand(char *out, const char *text) {
    if (text[0] == '~' && (text[1] == '/' || text[1] == '\0')) {
        const char *home = home_dir();
        out[0] = '\0';
        if (!home) return err_make(ERR_NOT_FOUND, "%s: this user has no home folder", text);
        return text[1] ? path_join(out, home, text + 2) : path_join(out, home, "");
    }
    if (strlen(text) >= PATH_TEXT_MAX) {
        out[0] = '\0';
        return err_make(ERR_RANGE, "the path %.200s... is too long", text);
    }
    memcpy(out, text, strlen(text) + 1);
    return err_none();
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool dir_exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

err dir_make(const char *path, mode_t mode) {
    char part[PATH_TEXT_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) return err_make(ERR_RANGE, "a folder name of %zu bytes", n);
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST && !dir_exists(part))
            return err_system(errno, "cannot make the folder %s", part);
    }
    if (!dir_exists(path)) return err_make(ERR_IO, "%s is not a folder", path);
    return err_none();
}

static err write_all(int fd, const char *path, const char *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, bytes + done, length - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(n < 0 ? errno : EIO, "writing %s", path);
        done += (size_t)n;
    }
    if (fsync(fd) != 0) return err_system(errno, "writing %s", path);
    return err_none();
}

static void sync_folder_of(const char *path) {
    char dir[PATH_TEXT_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return;
    memcpy(dir, slash ? path : ".", slash ? n : 1);
    dir[slash ? n : 1] = '\0';
    int fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return; /* the rename is done; only its survival of a power cut is not certain */
    fsync(fd);
    close(fd);
}

err file_write(const char *path, const char *bytes, size_t length, mode_t mode) {
    char real[PATH_MAX], temporary[PATH_MAX + 8];
    if (!realpath(path, real)) {
        if (strlen(path) >= sizeof real) return err_make(ERR_RANGE, "the path is too long");
        memcpy(real, path, strlen(path) + 1);
    }
    snprintf(temporary, sizeof temporary, "%s.new", real);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return err_system(errno, "cannot write %s", temporary);
    err e = write_all(fd, temporary, bytes, length);
    if (!e.code && fchmod(fd, mode) != 0) e = err_system(errno, "cannot protect %s", temporary);
    close(fd);
    if (!e.code && rename(temporary, real) != 0) e = err_system(errno, "cannot replace %s", real);
    if (e.code)
        unlink(temporary);
    else
        sync_folder_of(real);
    return e;
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at) {
    (void)s, (void)at;
    return (kind == FTW_DP || kind == FTW_DNR ? rmdir(path) : unlink(path)) ? errno : 0;
}

err tree_remove(const char *dir) {
    struct stat s;
    if (lstat(dir, &s) != 0 && errno == ENOENT) return err_none();
    int code = nftw(dir, remove_one, TREE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (code == 0) return err_none();
    return err_system(code > 0 ? code : errno, "removing %s", dir);
}
