/* fake_server.c: the real server before a model without weights (tests/unit/fake_model.h), for
 * tests of the protocol: fast, and every answer is known.
 *
 *     build/fake-server [--key KEY] [--step-us N] [--context N] [--sessions N] [--connections N]
 *                       [--send-seconds N] [--body-max N] [--queue N] [--log DIR] [--log-max N]
 *                       [--cors ORIGIN] [--cert FILE --cert-key FILE] [--ping-ms N]
 *
 * Prints "port N" and serves until SIGTERM (drains) or the end of its standard input. */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "../unit/fake_model.h"
#include "server/server.h"

static int number(const char *text) { return (int)strtol(text, NULL, 10); }

/* A file as text, for the life of the process. */
static const char *text_of(const char *path) {
    static char texts[2][16384];
    static int used;
    FILE *f = fopen(path, "re");
    char *out = texts[used++ % 2];
    size_t n = f ? fread(out, 1, sizeof texts[0] - 1, f) : 0;
    if (f) fclose(f);
    out[n] = '\0';
    return out;
}

static void wait_for_end(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    struct pollfd p[2] = {{.fd = signalfd(-1, &set, SFD_CLOEXEC), .events = POLLIN},
                          {.fd = 0, .events = 0}};
    while (poll(p, 2, -1) < 0 || !(p[0].revents | (p[1].revents & (POLLHUP | POLLERR)))) continue;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"key", 1, NULL, 'k'},      {"step-us", 1, NULL, 'u'},     {"context", 1, NULL, 'c'},
        {"sessions", 1, NULL, 's'}, {"connections", 1, NULL, 'n'}, {"send-seconds", 1, NULL, 't'},
        {"body-max", 1, NULL, 'b'}, {"queue", 1, NULL, 'q'},       {"log", 1, NULL, 'l'},
        {"ping-ms", 1, NULL, 'p'},  {"log-max", 1, NULL, 'm'},     {"cors", 1, NULL, 'o'},
        {"cert", 1, NULL, 'e'},     {"cert-key", 1, NULL, 'f'},    {0}};
    server_options o = {0};
    slog_options lo = {.http = true, .debug = true};
    int context = 65536, sessions = 4, step_us = 0, c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'k': o.api_key = optarg; break;
        case 'u': step_us = number(optarg); break;
        case 'c': context = number(optarg); break;
        case 's': sessions = number(optarg); break;
        case 'n': o.connections = number(optarg); break;
        case 't': o.send_seconds = number(optarg); break;
        case 'b': o.body_max = (size_t)number(optarg); break;
        case 'q': o.queue_max = number(optarg); break;
        case 'l': lo.dir = optarg; break;
        case 'p': o.ping_ms = number(optarg); break;
        case 'm': lo.file_max = (size_t)number(optarg); break;
        case 'o': o.cors = optarg; break;
        case 'e': o.tls_cert = text_of(optarg); break;
        case 'f': o.tls_key = text_of(optarg); break;
        default: return 2;
        }
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    fake_model f;
    fake_init(&f, sessions, context);
    f.step_us = step_us;
    f.no_late_system = true;
    slog *log = NULL;
    server *s;
    lo.secret = o.api_key;
    err e = lo.dir ? slog_open(&lo, &log) : err_none();
    o.port = &f.port;
    o.log = log;
    if (!e.code) e = server_open(&o, &s);
    if (e.code) {
        fprintf(stderr, "fake-server: %s\n", e.text);
        return 1;
    }
    printf("port %d\n", server_port(s));
    fflush(stdout);
    wait_for_end();
    server_drain(s, 5000);
    server_close(s);
    slog_close(log);
    return 0;
}
