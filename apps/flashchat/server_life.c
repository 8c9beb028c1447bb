/* server_life.c: see server_life.h. */
#include "server_life.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/os.h"
#include "flashmoe.h"
#include "hub_access.h"
#include "screen.h"

#define DRAIN_SECONDS 30
#define PORTS_TRIED   200
#define TAIL_LINES    8

static void pause_briefly(void) { nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); }

static const char *host_of(const life_order *o) { return o->host ? o->host : "127.0.0.1"; }

/* ---- the signature ------------------------------------------------------ */

static void sign(XXH3_state_t *h, const void *bytes, size_t n) {
    XXH3_64bits_update(h, &n, sizeof n); /* so that "ab","c" is not "a","bc" */
    XXH3_64bits_update(h, bytes, n);
}

static void sign_text(XXH3_state_t *h, const char *text) { sign(h, text, strlen(text)); }

/* Which file a path is today: a new version has another size, time or number. */
static void sign_file(XXH3_state_t *h, const char *path) {
    struct stat s;
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode)) return; /* in a folder our own caches change */
    int64_t v[] = {(int64_t)s.st_size, (int64_t)s.st_mtime, (int64_t)s.st_ino};
    sign_text(h, path);
    sign(h, v, sizeof v);
}

static bool is_about_life(const char *name) {
    return !strcmp(name, "--stop") || !strcmp(name, "--force") || !strcmp(name, "--external") ||
           !strcmp(name, "--background");
}

static void sign_option(XXH3_state_t *h, const arg_def *d, const void *args) {
    const char *field = (const char *)args + d->offset;
    if (d->kind == ARG_HEADING || is_about_life(d->name)) return;
    sign_text(h, d->name);
    switch (d->kind) {
    case ARG_TEXT: {
        const char *text = *(const char *const *)(const void *)field;
        sign_text(h, text ? text : "");
        if (text && strchr(text, '/')) sign_file(h, text); /* a key, a certificate */
        break;
    }
    case ARG_FLAG: sign(h, field, sizeof(bool)); break;
    case ARG_SWITCH:
    case ARG_INT: sign(h, field, sizeof(int)); break;
    case ARG_U64: sign(h, field, sizeof(uint64_t)); break;
    case ARG_FLOAT: sign(h, field, sizeof(float)); break;
    case ARG_SIZE: sign(h, field, sizeof(size_t)); break;
    case ARG_HEADING: break;
    }
}

void life_signature(const command *c, const void *args, const char *dir, char out[SIGNATURE_MAX]) {
    static const char *const files[] = {
        "config.json",       "generation_config.json", "model.safetensors.index.json",
        "model.safetensors", "tokenizer.json",         "manifest.json"};
    char path[PATH_TEXT_MAX];
    const char *key = getenv("FLASHCHAT_API_KEY");
    XXH3_state_t *h = XXH3_createState();
    snprintf(out, SIGNATURE_MAX, "%s", "");
    if (!h) return; /* an empty signature equals none: the server restarts */
    XXH3_64bits_reset(h);
    sign_text(h, FM_VERSION);
    if (os_program_path(path, sizeof path)) sign_file(h, path);
    sign_text(h, dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!path_join(path, dir, files[i]).code) sign_file(h, path);
    for (int i = 0; i < c->n_args; i++) sign_option(h, &c->args[i], args);
    sign_text(h, key ? key : "");
    snprintf(out, SIGNATURE_MAX, "%016llx", (unsigned long long)XXH3_64bits_digest(h));
    XXH3_freeState(h);
}

/* ---- stopping ----------------------------------------------------------- */

/* True when the process has ended, after so many seconds at most. */
static bool wait_gone(const server_trace *t, int seconds) {
    for (int i = 0; i < seconds * 20 && trace_alive(t); i++) pause_briefly();
    return !trace_alive(t);
}

/* The process is gone; is its port closed, too? Another program may have taken it since. */
static bool wait_closed(const server_trace *t) {
    for (int i = 0; i < 100 && port_answers(t->host, t->port, 200); i++) pause_briefly();
    return !port_answers(t->host, t->port, 200);
}

static int end_process(const life_order *o, const server_trace *t, bool force) {
    if (kill(t->pid, SIGTERM) != 0 && errno != ESRCH) {
        fprintf(stderr, "%s: process %d: %s\n", o->program, (int)t->pid, strerror(errno));
        return EXIT_FAILED;
    }
    bool gone = wait_gone(t, force ? 2 : DRAIN_SECONDS + 10);
    if (!gone && force) {
        kill(t->pid, SIGKILL);
        gone = wait_gone(t, 10);
    }
    if (!gone) {
        fprintf(stderr,
                "%s: the server (process %d) has not ended yet. To end it now: flashchat serve "
                "--stop --force\n",
                o->program, (int)t->pid);
        return EXIT_FAILED;
    }
    printf("The server on port %d (process %d) has ended%s.\n", t->port, (int)t->pid,
           wait_closed(t) ? " and its port is closed"
                          : "; another program listens on that port now");
    return 0;
}

static int stop_external(const life_order *o) {
    server_trace t = {.pid = server_on_port(o->port), .port = o->port};
    if (!t.pid) {
        fprintf(stderr,
                "%s: no flashchat server of yours listens on port %d. Name another port with "
                "--port\n",
                o->program, o->port);
        return EXIT_FAILED;
    }
    t.started = process_started(t.pid);
    snprintf(t.host, sizeof t.host, "%s", host_of(o));
    return end_process(o, &t, o->force);
}

int life_stop(const life_order *o) {
    server_trace t;
    bool known = server_trace_read(&t);
    if (known && trace_alive(&t)) {
        int code = end_process(o, &t, o->force);
        if (code == 0) server_trace_remove();
        if (code == 0) puts("To start it again: flashchat serve --background");
        return code;
    }
    if (known) server_trace_remove(); /* it ended without saying so */
    if (o->external) return stop_external(o);
    pid_t other = server_on_port(o->port);
    if (other) {
        printf("No server of this home is running, but another flashchat (process %d) listens on "
               "port %d.\nTo end that one: flashchat serve --stop --external --port %d\n",
               (int)other, o->port, o->port);
        return EXIT_FAILED;
    }
    printf("No server is running. To start one: flashchat serve --background\n");
    return 0;
}

/* ---- the port ----------------------------------------------------------- */

static bool port_is_free(const char *host, int port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &list) != 0) return true; /* the server says why not */
    int s = os_socket(list->ai_family, list->ai_socktype, list->ai_protocol), on = 1;
    bool busy = false;
    if (s >= 0) {
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        busy = bind(s, list->ai_addr, list->ai_addrlen) != 0 && errno == EADDRINUSE;
        close(s);
    }
    freeaddrinfo(list);
    return !busy;
}

int life_port(const life_order *o) {
    char text[300];
    if (!o->port || port_is_free(host_of(o), o->port)) return o->port;
    int next = o->port + 1;
    while (next < 65536 && next <= o->port + PORTS_TRIED && !port_is_free(host_of(o), next)) next++;
    if (next > 65535 || next > o->port + PORTS_TRIED) next = 0;
    pid_t other = server_on_port(o->port);
    if (other)
        snprintf(text, sizeof text,
                 "Port %d is used by another flashchat server (process %d). It stays as it is; to "
                 "end it: flashchat serve --stop --external --port %d",
                 o->port, (int)other, o->port);
    else
        snprintf(text, sizeof text, "Port %d is used by another program.", o->port);
    fflush(stdout);
    print_wrapped(stderr, "", text);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && next) {
        char label[60];
        snprintf(label, sizeof label, "use port %d instead", next);
        if (ask_consent(label)) return next;
        puts("User cancelled: no server was started.");
        return -1;
    }
    if (next)
        snprintf(text, sizeof text,
                 "The next free one: add --port %d, or for always: flashchat "
                 "config set SERVER_PORT %d",
                 next, next);
    else
        snprintf(text, sizeof text, "Choose another with --port N.");
    print_wrapped(stderr, "", text);
    return -1;
}

/* ---- starting ----------------------------------------------------------- */

static void say_where(const server_trace *t, const char *how) {
    bool six = strchr(t->host, ':') != NULL;
    const char *host = strcmp(t->host, "0.0.0.0") ? t->host : "127.0.0.1";
    char text[700];
    snprintf(text, sizeof text, "%s %s at %s://%s%s%s:%d/v1 (process %d).", t->model, how,
             t->tls ? "https" : "http", six ? "[" : "", host, six ? "]" : "", t->port, (int)t->pid);
    print_wrapped(stdout, "", text);
    print_wrapped(stdout, "", "End it with: flashchat serve --stop");
}

/* The known server: 0 it is right, -1 there is none (any more), else an exit code. */
static int look_at_known(const life_order *o) {
    server_trace t;
    if (!server_trace_read(&t)) return -1;
    if (!trace_alive(&t)) {
        server_trace_remove();
        return -1;
    }
    bool well = server_healthy(t.host, t.port, t.tls, 10000);
    if (well && t.signature[0] && !strcmp(t.signature, o->signature)) {
        say_where(&t, "is served already");
        return 0;
    }
    if (!t.background) {
        fprintf(stderr,
                "%s: a server with other settings runs in a terminal (process %d, port %d). End "
                "it first: flashchat serve --stop\n",
                o->program, (int)t.pid, t.port);
        return EXIT_FAILED;
    }
    print_wrapped(stdout, "",
                  well ? "The running server was started with other settings, another model or "
                         "another version: it restarts."
                       : "The running server does not answer: it restarts.");
    int code = end_process(o, &t, !well);
    if (code) return code;
    server_trace_remove();
    return -1;
}

/* The last lines of a file, each with "  | " in front. */
static void show_tail(const char *path) {
    char text[4096];
    FILE *f = fopen(path, "re");
    if (!f) return;
    if (fseek(f, -(long)(sizeof text - 1), SEEK_END) != 0) rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f), begin = n;
    fclose(f);
    text[n] = '\0';
    while (n && text[n - 1] == '\n') text[--n] = '\0';
    begin = n;
    for (int lines = 0; begin > 0; begin--)
        if (text[begin - 1] == '\n' && ++lines == TAIL_LINES) break;
    if (n) print_wrapped(stderr, "  | ", text + begin);
}

static void become_server(const life_order *o, int port, const char *out_path) {
    setsid();
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out =
        open(out_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (null < 0 || out < 0) _exit(EXIT_FAILED);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    int code = o->serve(o->ctx, port);
    fflush(stdout);
    _exit(code);
}

static int start_failed(const life_order *o, const char *out_path) {
    fprintf(stderr, "%s: the server did not start. The last that it said:\n", o->program);
    show_tail(out_path);
    print_wrapped(stderr, "its log: ", o->log_path);
    print_wrapped(stderr, "Next: ",
                  "mend what it names, then start it again; flashchat doctor "
                  "looks at the whole machine.");
    return EXIT_FAILED;
}

/* Until the server has written server.pid (after its health check), ended, or Ctrl-C came. However
 * long loading takes: the process is watched, not the clock. */
static int wait_ready(const life_order *o, pid_t child, const char *out_path) {
    const atomic_bool *cancelled = cancel_watch();
    bool shows = isatty(STDOUT_FILENO), stopped = false;
    int state, code = -1;
    server_trace t;
    for (int i = 0; code < 0; i++) {
        if (waitpid(child, &state, WNOHANG) == child) {
            if (shows) fputs("\r\033[K", stdout);
            fflush(stdout);
            code = stopped ? EXIT_INTERRUPTED : start_failed(o, out_path);
            if (stopped) puts("Stopped: no server was started.");
        } else if (server_trace_read(&t) && t.pid == child) {
            if (shows) fputs("\r\033[K", stdout);
            say_where(&t, "is served");
            code = 0;
        } else {
            if (shows && i % 10 == 0) printf("\rThe server is starting: %d s ", i / 20);
            if (shows && i % 10 == 0) fflush(stdout);
            if (atomic_load(cancelled) && !stopped) stopped = kill(child, SIGTERM) == 0;
            pause_briefly();
        }
    }
    cancel_unwatch();
    return code;
}

static int start(const life_order *o, int lock) {
    char out_path[STATE_PATH_MAX], logs[STATE_PATH_MAX];
    int port = life_port(o);
    if (port < 0) return EXIT_FAILED;
    if (!state_path("logs", logs) || !state_path("logs/server.out", out_path)) {
        fprintf(stderr, "%s: there is no home folder to keep the log in; set HOME\n", o->program);
        return EXIT_FAILED;
    }
    mkdir(logs, 0700);
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    if (child == 0) {
        if (lock >= 0) close(lock); /* the server does not hold it for its whole life */
        become_server(o, port, out_path);
    }
    if (child > 0) return wait_ready(o, child, out_path);
    fprintf(stderr, "%s: the system cannot start another program now; try again in a moment\n",
            o->program);
    return EXIT_FAILED;
}

int life_background(const life_order *o) {
    char path[STATE_PATH_MAX];
    int lock = state_path("server.lock", path)
                   ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)
                   : -1;
    while (lock >= 0 && flock(lock, LOCK_EX) != 0 && errno == EINTR) continue;
    int code = look_at_known(o);
    if (code < 0) code = start(o, lock);
    if (lock >= 0) close(lock);
    return code;
}
