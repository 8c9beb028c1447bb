/* slog.c: see slog.h. What cannot be written is lost: a full disk must not stop the server. */
#include "server/slog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEBUG_KEPT 64
#define LINE_MAX_  2048

struct slog {
    char *dir, *file, *secret; /* file: instead of server.log, or NULL */
    bool http, debug;
    size_t file_max;
    pthread_mutex_t lock;
    int fd[2];      /* server.log, http.log; -1: closed */
    size_t size[2]; /* under lock */
};

static const char *const names[] = {"server.log", "http.log"};

#define PATH_MAX_ 4096

static void file_path(const slog *l, int which, char out[PATH_MAX_]) {
    if (which == 0 && l->file)
        snprintf(out, PATH_MAX_, "%s", l->file);
    else
        snprintf(out, PATH_MAX_, "%s/%s", l->dir, names[which]);
}

static int open_file(slog *l, int which, int flags) {
    char path[PATH_MAX_];
    file_path(l, which, path);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
}

err slog_open(const slog_options *o, slog **out) {
    *out = NULL;
    slog *l = calloc(1, sizeof *l);
    if (!l) return err_make(ERR_NOMEM, "no memory for the log");
    l->http = o->http;
    l->debug = o->debug && o->dir;
    l->file_max = o->file_max ? o->file_max : (size_t)8 << 20;
    l->fd[0] = STDERR_FILENO;
    l->fd[1] = -1;
    pthread_mutex_init(&l->lock, NULL);
    l->secret = o->secret && *o->secret ? strdup(o->secret) : NULL;
    l->dir = o->dir ? strdup(o->dir) : NULL;
    l->file = o->file && *o->file ? strdup(o->file) : NULL;
    if (l->dir && mkdir(l->dir, 0700) != 0 && errno != EEXIST) {
        err e = err_system(errno, "%s", l->dir);
        l->fd[0] = -1;
        slog_close(l);
        return e;
    }
    for (int i = 0; l->dir && i < (l->http ? 2 : 1); i++) {
        struct stat st;
        l->fd[i] = open_file(l, i, 0);
        if (l->fd[i] < 0) {
            int number = errno;
            char path[PATH_MAX_];
            file_path(l, i, path);
            err e = err_system(number, "the log %s", path);
            slog_close(l);
            return e;
        }
        if (fstat(l->fd[i], &st) == 0) l->size[i] = (size_t)st.st_size;
    }
    *out = l;
    return err_none();
}

void slog_close(slog *l) {
    if (!l) return;
    for (int i = 0; i < 2; i++)
        if (l->fd[i] > STDERR_FILENO) close(l->fd[i]);
    pthread_mutex_destroy(&l->lock);
    free(l->dir);
    free(l->file);
    free(l->secret);
    free(l);
}

/* Every occurrence of the key is overwritten. */
static void redact(const slog *l, char *text, size_t n) {
    size_t key = l->secret ? strlen(l->secret) : 0;
    if (!key) return;
    for (char *at = text; (at = memmem(at, n - (size_t)(at - text), l->secret, key));) {
        memset(at, '*', key);
        at += key;
    }
}

static void rotate(slog *l, int which) {
    char from[PATH_MAX_], to[PATH_MAX_ + 2];
    file_path(l, which, from);
    snprintf(to, sizeof to, "%s.1", from);
    if (rename(from, to) != 0) return;
    int fd = open_file(l, which, 0);
    if (fd < 0) return;
    close(l->fd[which]);
    l->fd[which] = fd;
    l->size[which] = 0;
}

static void write_line(slog *l, int which, const char *format, va_list arguments) {
    char line[LINE_MAX_];
    struct timespec now;
    struct tm t;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &t);
    size_t n = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S", &t);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03d ", (int)(now.tv_nsec / 1000000));
    int more = vsnprintf(line + n, sizeof line - n - 1, format, arguments);
    n += more < 0 ? 0 : (size_t)more;
    if (n > sizeof line - 2) n = sizeof line - 2;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    redact(l, line, n);
    line[n++] = '\n';
    pthread_mutex_lock(&l->lock);
    if (l->fd[which] >= 0 && write(l->fd[which], line, n) == (ssize_t)n) l->size[which] += n;
    if (l->dir && l->size[which] > l->file_max) rotate(l, which);
    pthread_mutex_unlock(&l->lock);
}

void slog_line(slog *l, const char *format, ...) {
    if (!l) return;
    va_list arguments;
    va_start(arguments, format);
    write_line(l, 0, format, arguments);
    va_end(arguments);
}

void slog_http(slog *l, const char *format, ...) {
    if (!l || !l->http) return;
    va_list arguments;
    va_start(arguments, format);
    write_line(l, l->dir ? 1 : 0, format, arguments);
    va_end(arguments);
}

bool slog_debugs(const slog *l) { return l && l->debug; }

void slog_debug(slog *l, uint64_t serial, const char *what, const char *bytes, size_t length) {
    if (!slog_debugs(l)) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/debug", l->dir);
    mkdir(path, 0700);
    if (serial > DEBUG_KEPT) {
        snprintf(path, sizeof path, "%s/debug/%06llu.%s", l->dir,
                 (unsigned long long)(serial - DEBUG_KEPT), what);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/debug/%06llu.%s", l->dir, (unsigned long long)serial, what);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    char *copy = fd >= 0 ? malloc(length + 1) : NULL;
    if (copy) {
        memcpy(copy, bytes, length);
        redact(l, copy, length);
        for (size_t at = 0; at < length;) {
            ssize_t n = write(fd, copy + at, length - at);
            if (n <= 0) break;
            at += (size_t)n;
        }
    }
    free(copy);
    if (fd >= 0) close(fd);
}
