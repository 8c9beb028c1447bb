/* chat_jail.c: see chat_jail.h. */
#include "chat_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"

#define PATH_BYTES 4096
#define PARTS_MAX  64

err jail_open(const char *root, jail *out) {
    *out = (jail){.fd = -1};
    char *real = realpath(root, NULL);
    if (!real || strlen(real) >= sizeof out->root) {
        free(real);
        return err_system(errno, "the folder %.200s", root);
    }
    snprintf(out->root, sizeof out->root, "%s", real);
    free(real);
    out->fd = open(out->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return out->fd < 0 ? err_system(errno, "the folder %.200s", root) : err_none();
}

void jail_close(jail *j) {
    if (j->fd >= 0) close(j->fd);
    j->fd = -1;
}

static err leads_out(const char *path) {
    return err_make(ERR_ARG, "%.200s is outside of the working directory", path);
}

err jail_inside(const jail *j, const char *path, char *out) {
    size_t n = strlen(j->root);
    if (!*path || strlen(path) >= PATH_BYTES)
        return err_make(ERR_ARG, "a path of %zu bytes", strlen(path));
    const char *rest = path;
    if (*path == '/') {
        if (strncmp(path, j->root, n) || (path[n] && path[n] != '/' && n > 1))
            return leads_out(path);
        rest = path + n;
        while (*rest == '/') rest++;
    }
    snprintf(out, PATH_BYTES, "%s", *rest ? rest : ".");
    return err_none();
}

/* ---- opening ---- */

static err no_file(const char *path, int code) {
    if (code == EXDEV || code == ELOOP) return leads_out(path);
    if (code == ENOENT || code == ENOTDIR)
        return err_make(ERR_NOT_FOUND, "there is no %.200s", path);
    return err_system(code, "%.200s", path);
}

/* Folder by folder; ".." and links are refused. */
static int open_walking(int dir, const char *path, int flags) {
    char part[PATH_BYTES];
    int at = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    for (int i = 0; at >= 0 && i < PARTS_MAX; i++) {
        while (*path == '/') path++;
        size_t n = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)n, n ? path : ".");
        if (!n) part[0] = '.', part[1] = '\0';
        path += n;
        bool last = path[strspn(path, "/")] == '\0';
        int next = -1;
        if (!strcmp(part, ".."))
            errno = EXDEV;
        else
            next =
                openat(at, part, (last ? flags : O_RDONLY | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
        int code = errno;
        struct stat st;
        if (next < 0 && code == ENOTDIR && !fstatat(at, part, &st, AT_SYMLINK_NOFOLLOW) &&
            S_ISLNK(st.st_mode))
            code = ELOOP;
        close(at);
        errno = code;
        if (last || next < 0) return next;
        at = next;
    }
    if (at >= 0) close(at);
    errno = ENAMETOOLONG;
    return -1;
}

err jail_open_file(const jail *j, const char *path, int flags, int *fd) {
    char inside[PATH_BYTES];
    *fd = -1;
    TRY(jail_inside(j, path, inside));
    errno = ENOSYS;
    if (!j->walk) *fd = os_open_beneath(j->fd, inside, flags);
    if (*fd < 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: some sandboxes say so */
        *fd = open_walking(j->fd, inside, flags);
    return *fd < 0 ? no_file(path, errno) : err_none();
}

/* ---- writing ---- */

static err write_all(int fd, const char *bytes, size_t length, const char *path) {
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(errno, "writing %.200s", path);
        bytes += n;
        length -= (size_t)n;
    }
    return err_none();
}

/* In the open folder: name becomes these bytes. */
static err write_in(int dir, const char *name, const char *bytes, size_t length, bool *existed) {
    char fresh[PATH_BYTES + 32];
    struct stat st;
    mode_t mode = 0644;
    *existed = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (*existed && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return err_make(ERR_ARG, "%.200s is no file that can be written", name);
    if (*existed && S_ISREG(st.st_mode)) mode = st.st_mode & 0777;
    snprintf(fresh, sizeof fresh, ".%.200s.%ld.new", name, (long)getpid());
    int fd = openat(dir, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) return err_system(errno, "writing %.200s", name);
    err e = write_all(fd, bytes, length, name);
    if (!e.code && *existed && fchmod(fd, mode)) e = err_system(errno, "writing %.200s", name);
    if (close(fd) && !e.code) e = err_system(errno, "writing %.200s", name);
    if (!e.code && renameat(dir, fresh, dir, name)) e = err_system(errno, "writing %.200s", name);
    if (e.code) unlinkat(dir, fresh, 0);
    return e;
}

err jail_write(const jail *j, const char *path, const char *bytes, size_t length, bool *existed) {
    char inside[PATH_BYTES];
    int dir;
    *existed = false;
    TRY(jail_inside(j, path, inside));
    char *slash = strrchr(inside, '/');
    const char *name = slash ? slash + 1 : inside;
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return err_make(ERR_ARG, "%.200s names no file", path);
    if (slash) *slash = '\0';
    err e = jail_open_file(j, slash ? inside : ".", O_RDONLY | O_DIRECTORY, &dir);
    if (e.code == ERR_NOT_FOUND)
        return err_make(ERR_NOT_FOUND, "there is no folder %.200s", slash ? inside : ".");
    if (e.code) return e;
    e = write_in(dir, name, bytes, length, existed);
    close(dir);
    return e;
}

/* ---- programs ---- */

bool jail_can_confine(void) { return os_can_limit_writes(); }

bool jail_confine(const jail *j) {
    const char *folders[] = {j->root, "/tmp"};
    return os_limit_writes(folders, 2);
}
