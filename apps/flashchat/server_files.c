/* server_files.c: see server_files.h. */
#include "server_files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/model.h"
#include "base/os.h"

/* ---- the state folder --------------------------------------------------- */

bool state_path(const char *name, char out[STATE_PATH_MAX]) {
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int n;
    if (base && *base == '/') {
        n = snprintf(out, STATE_PATH_MAX, "%s", base);
    } else if (home && *home == '/') {
        n = snprintf(out, STATE_PATH_MAX, "%s/.config", home);
    } else {
        return false;
    }
    if (n < 0 || n > STATE_PATH_MAX - 64) return false;
    mkdir(out, 0700);
    snprintf(out + n, (size_t)(STATE_PATH_MAX - n), "/flashchat");
    if (mkdir(out, 0700) != 0 && errno != EEXIST) return false;
    size_t length = strlen(out);
    return snprintf(out + length, STATE_PATH_MAX - length, "/%s", name) <
           (int)(STATE_PATH_MAX - length);
}

/* ---- the trace ---------------------------------------------------------- */

bool server_trace_write(const server_trace *t) {
    char path[STATE_PATH_MAX], fresh[STATE_PATH_MAX + 16];
    if (!state_path("server.pid", path)) return false;
    snprintf(fresh, sizeof fresh, "%s.%d", path, (int)t->pid);
    json_t *o =
        json_pack("{s:i, s:I, s:s, s:i, s:s, s:s, s:b, s:b}", "pid", (int)t->pid, "started",
                  (json_int_t)t->started, "host", t->host, "port", t->port, "model", t->model,
                  "signature", t->signature, "tls", t->tls, "background", t->background);
    int fd = o ? open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    bool ok = fd >= 0 && json_dumpfd(o, fd, JSON_COMPACT) == 0 && write(fd, "\n", 1) == 1;
    if (fd >= 0) ok = close(fd) == 0 && ok;
    json_decref(o);
    if (ok && rename(fresh, path) == 0) return true;
    unlink(fresh);
    return false;
}

bool server_trace_read(server_trace *t) {
    char path[STATE_PATH_MAX];
    const char *host, *model, *signature = "";
    int pid, port, tls = 0, background = 0;
    json_int_t started;
    memset(t, 0, sizeof *t);
    json_t *o = state_path("server.pid", path) ? json_load_file(path, 0, NULL) : NULL;
    bool ok = json_unpack(o, "{s:i, s:I, s:s, s:i, s:s, s?s, s?b, s?b}", "pid", &pid, "started",
                          &started, "host", &host, "port", &port, "model", &model, "signature",
                          &signature, "tls", &tls, "background", &background) == 0;
    if (ok && pid > 1) {
        t->pid = pid;
        t->started = (unsigned long long)started;
        t->port = port;
        snprintf(t->host, sizeof t->host, "%s", host);
        snprintf(t->model, sizeof t->model, "%s", model);
        snprintf(t->signature, sizeof t->signature, "%s", signature);
        t->tls = tls, t->background = background;
    }
    json_decref(o);
    return ok && pid > 1;
}

void server_trace_remove(void) {
    char path[STATE_PATH_MAX];
    if (state_path("server.pid", path)) unlink(path);
}

unsigned long long process_started(pid_t pid) { return os_process_started((int)pid); }

bool trace_alive(const server_trace *t) {
    unsigned long long now = process_started(t->pid);
    return now && now == t->started;
}

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* os_socket has seen to it */
#endif

/* ---- health ------------------------------------------------------------- */

/* "0.0.0.0" and "::" are not addresses to connect to. */
static const char *reachable(const char *host) {
    if (!*host || strcmp(host, "0.0.0.0") == 0) return "127.0.0.1";
    return strcmp(host, "::") == 0 ? "::1" : host;
}

static int connect_to(const char *host, int port, int timeout_ms) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(reachable(host), service, &hints, &list) != 0) return -1;
    int s = -1;
    for (struct addrinfo *a = list; a && s < 0; a = a->ai_next) {
        s = os_socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (s < 0) continue;
        int error = 0;
        socklen_t length = sizeof error;
        struct pollfd p = {.fd = s, .events = POLLOUT};
        bool ok = connect(s, a->ai_addr, a->ai_addrlen) == 0 ||
                  (errno == EINPROGRESS && poll(&p, 1, timeout_ms) == 1 &&
                   getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
        if (ok) continue;
        close(s);
        s = -1;
    }
    freeaddrinfo(list);
    return s;
}

bool port_answers(const char *host, int port, int timeout_ms) {
    int s = connect_to(host, port, timeout_ms);
    if (s >= 0) close(s);
    return s >= 0;
}

bool server_health(const char *host, int port, int timeout_ms, char *json, size_t size) {
    json[0] = '\0';
    int s = connect_to(host, port, timeout_ms);
    if (s < 0) return false;
    static const char ask[] =
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char text[4096];
    size_t n = 0;
    bool ok = send(s, ask, sizeof ask - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof ask - 1);
    double until = seconds_now() + timeout_ms * 1e-3;
    while (ok && n < sizeof text - 1 && seconds_now() < until) {
        struct pollfd p = {.fd = s, .events = POLLIN};
        if (poll(&p, 1, 100) != 1) continue;
        ssize_t got = recv(s, text + n, sizeof text - 1 - n, 0);
        if (got <= 0) break;
        n += (size_t)got;
    }
    text[n] = '\0';
    close(s);
    const char *body = strstr(text, "\r\n\r\n");
    if (body) snprintf(json, size, "%s", body + 4);
    return strncmp(text, "HTTP/1.1 200", 12) == 0 && strstr(text, "\"status\":\"ok\"");
}

bool server_healthy(const char *host, int port, bool tls, int timeout_ms) {
    char json[8];
    return tls ? port_answers(host, port, timeout_ms)
               : server_health(host, port, timeout_ms, json, sizeof json);
}

/* ---- who listens -------------------------------------------------------- */

/* The inode of the listening socket of a port, from one of the kernel's tables; 0: none. */
static unsigned long listening(const char *table, int port) {
    FILE *f = fopen(table, "re");
    if (!f) return 0;
    char line[512];
    unsigned long found = 0;
    while (!found && fgets(line, sizeof line, f)) {
        /* sl local rem st tx:rx tr:when retrnsmt uid timeout inode */
        char *save = NULL, *word = strtok_r(line, " \n", &save), *local = NULL, *state = NULL;
        char *inode = NULL;
        for (int i = 0; word; word = strtok_r(NULL, " \n", &save), i++) {
            if (i == 1) local = word;
            if (i == 3) state = word;
            if (i == 9) inode = word;
        }
        char *colon = local ? strrchr(local, ':') : NULL;
        if (!colon || !state || !inode || strcmp(state, "0A") != 0) continue;
        if (strtol(colon + 1, NULL, 16) == port) found = strtoul(inode, NULL, 10);
    }
    fclose(f);
    return found;
}

static bool holds_socket(pid_t pid, unsigned long inode) {
    char path[64], want[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    DIR *d = opendir(path);
    if (!d) return false;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        char one[512];
        snprintf(one, sizeof one, "%s/%s", path, e->d_name);
        ssize_t n = readlink(one, link, sizeof link - 1);
        if (n <= 0) continue;
        link[n] = '\0';
        found = strcmp(link, want) == 0;
    }
    closedir(d);
    return found;
}

static bool is_flashchat(pid_t pid) {
    char path[64], target[STATE_PATH_MAX];
    struct stat owner;
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    if (stat(path, &owner) != 0 || owner.st_uid != getuid()) return false;
    if (!os_process_path((int)pid, target, sizeof target)) return false;
    const char *slash = strrchr(target, '/');
    return slash && strncmp(slash + 1, "flashchat", 9) == 0;
}

pid_t server_on_port(int port) {
    unsigned long inode = listening("/proc/net/tcp", port);
    if (!inode) inode = listening("/proc/net/tcp6", port);
    DIR *d = inode ? opendir("/proc") : NULL;
    pid_t found = 0;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)strtol(e->d_name, NULL, 10) : 0;
        if (pid > 1 && is_flashchat(pid) && holds_socket(pid, inode)) found = pid;
    }
    if (d) closedir(d);
    return found;
}
