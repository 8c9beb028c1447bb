/* serve.c: flashchat serve: a model behind the OpenAI and Anthropic APIs, until Ctrl-C or SIGTERM;
 * and flashchat serve --stop, which ends it and makes sure that it has ended. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../common/model.h"
#include "command.h"
#include "serve_script.h"
#include "server/port_engine.h"
#include "server/server.h"
#include "server_files.h"

#define PORT_DEFAULT  8000
#define DRAIN_SECONDS 30
#define FILE_TEXT_MAX (1 << 20)
#define ALIASES_MAX   16

typedef struct serve_args {
    model_args m;
    const char *host, *api_key, *api_key_file, *cors, *tls_cert, *tls_key, *alias, *log_dir;
    const char *script;
    int port, sessions, queue, connections, request_seconds;
    size_t body_max;
    bool debug, http_log, stop, force, external;
} serve_args;

static const serve_args defaults = {.port = PORT_DEFAULT};

#define ARG(field) offsetof(serve_args, field)
static const arg_def defs[] = {
    {NULL, NULL, "Where it listens", ARG_HEADING, 0, 0, 0},
    {"--host", "ADDRESS", "address (default: 127.0.0.1, this machine only)", ARG_TEXT, ARG(host), 0,
     0},
    {"--port", "N", "port (default: 8000; 0: any free one)", ARG_INT, ARG(port), 0, 65535},
    {"--tls-cert", "FILE", "certificate (PEM), for https", ARG_TEXT, ARG(tls_cert), 0, 0},
    {"--tls-key", "FILE", "its private key (PEM)", ARG_TEXT, ARG(tls_key), 0, 0},
    {NULL, NULL, "Who may use it", ARG_HEADING, 0, 0, 0},
    {"--api-key-file", "FILE", "the key that clients must send, on the first line of a file",
     ARG_TEXT, ARG(api_key_file), 0, 0},
    {"--api-key", "KEY", "the same on the command line (others on this machine can see it)",
     ARG_TEXT, ARG(api_key), 0, 0},
    {"--cors", "ORIGIN", "a web page's origin that may use it, or *", ARG_TEXT, ARG(cors), 0, 0},
    {NULL, NULL, "What it does at once", ARG_HEADING, 0, 0, 0},
    {"--sessions", "N", "conversations computed together (default: 4, fewer if memory is short)",
     ARG_INT, ARG(sessions), 1, 64},
    {"--queue", "N", "requests that may wait (default: 64)", ARG_INT, ARG(queue), 1, 4096},
    {"--connections", "N", "open connections (default: 512)", ARG_INT, ARG(connections), 16, 16384},
    {"--max-body", "SIZE", "largest request (default: 32M)", ARG_SIZE, ARG(body_max), 1024, 0},
    {"--request-seconds", "N", "longest a request may take (default: 3600)", ARG_INT,
     ARG(request_seconds), 1, 1 << 24},
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},
    MODEL_ARGS(serve_args),
    {"--alias", "NAMES", "further names of the model, with commas between; * accepts any", ARG_TEXT,
     ARG(alias), 0, 0},
    {NULL, NULL, "Logs", ARG_HEADING, 0, 0, 0},
    {"--log-dir", "DIR", "where logs go (default: logs/ in the settings folder)", ARG_TEXT,
     ARG(log_dir), 0, 0},
    {"--http-log", NULL, "a line for each request (or SERVER_HTTP_LOG=1)", ARG_FLAG, ARG(http_log),
     0, 0},
    {"--debug", NULL, "keep requests, prompts and answers (or SERVER_DEBUG=1)", ARG_FLAG,
     ARG(debug), 0, 0},
    {NULL, NULL, "Ending it", ARG_HEADING, 0, 0, 0},
    {"--stop", NULL, "end the running server: it finishes what it does", ARG_FLAG, ARG(stop), 0, 0},
    {"--force", NULL, "with --stop: at once", ARG_FLAG, ARG(force), 0, 0},
    {"--external", NULL, "with --stop: whichever flashchat listens on --port", ARG_FLAG,
     ARG(external), 0, 0},
    SCRIPT_ARGS(serve_args)};

/* ---- stopping ----------------------------------------------------------- */

/* Waits for the process to end: 1 it has, 0 not yet, after so many seconds. */
static bool wait_gone(const server_trace *t, int seconds) {
    for (int i = 0; i < seconds * 20; i++) {
        if (!trace_alive(t)) return true;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return !trace_alive(t);
}

static int end_process(const char *program, const server_trace *t, bool force) {
    if (kill(t->pid, SIGTERM) != 0 && errno != ESRCH) {
        fprintf(stderr, "%s: process %d: %s\n", program, (int)t->pid, strerror(errno));
        return EXIT_FAILED;
    }
    bool gone = wait_gone(t, force ? 2 : DRAIN_SECONDS + 10);
    if (!gone && force) {
        kill(t->pid, SIGKILL);
        gone = wait_gone(t, 10);
    }
    if (!gone) {
        fprintf(stderr,
                "%s: the server (process %d) has not ended yet; --stop --force ends it now\n",
                program, (int)t->pid);
        return EXIT_FAILED;
    }
    printf("The server on port %d (process %d) has ended.\n", t->port, (int)t->pid);
    return 0;
}

static int stop_external(const char *program, const serve_args *a) {
    server_trace t = {.pid = server_on_port(a->port), .port = a->port};
    if (!t.pid) {
        fprintf(stderr, "%s: no flashchat server of yours listens on port %d\n", program, a->port);
        return EXIT_FAILED;
    }
    t.started = process_started(t.pid);
    return end_process(program, &t, a->force);
}

static int stop(const char *program, const serve_args *a) {
    server_trace t;
    bool known = server_trace_read(&t);
    if (known && trace_alive(&t)) {
        int code = end_process(program, &t, a->force);
        if (code == 0) server_trace_remove();
        return code;
    }
    if (known) server_trace_remove(); /* it ended without saying so */
    if (a->external) return stop_external(program, a);
    printf("No server is running.\n");
    return 0;
}

/* ---- options ------------------------------------------------------------ */

/* A small file as text (owned); NULL after a message. */
static char *read_file(const char *program, const char *path) {
    FILE *f = fopen(path, "re");
    char *text = f ? calloc(1, FILE_TEXT_MAX + 1) : NULL;
    size_t n = text ? fread(text, 1, FILE_TEXT_MAX, f) : 0;
    bool ok = text && !ferror(f) && n > 0;
    if (!ok)
        fprintf(stderr, "%s: %s: %s\n", program, path,
                f && text && !n ? "is empty" : strerror(errno));
    if (f) fclose(f);
    if (ok) return text;
    free(text);
    return NULL;
}

static bool env_on(const char *name) {
    const char *v = getenv(name);
    return v && *v && strcmp(v, "0") != 0;
}

typedef struct texts { /* owned */
    char *key, *cert, *tls_key, *aliases;
    const char *alias[ALIASES_MAX + 1];
} texts;

static void texts_free(texts *t) {
    if (t->key) explicit_bzero(t->key, strlen(t->key));
    if (t->tls_key) explicit_bzero(t->tls_key, strlen(t->tls_key));
    free(t->key);
    free(t->cert);
    free(t->tls_key);
    free(t->aliases);
}

static int read_key(const char *program, const serve_args *a, texts *t) {
    const char *env = getenv("FLASHCHAT_API_KEY");
    if (a->api_key_file) {
        t->key = read_file(program, a->api_key_file);
        if (!t->key) return EXIT_FAILED;
        t->key[strcspn(t->key, "\r\n")] = '\0';
    } else if (a->api_key || (env && *env)) {
        t->key = strdup(a->api_key ? a->api_key : env);
    }
    if (t->key && strlen(t->key) < 8)
        return args_wrong(program, "the API key must have at least 8 characters");
    return 0;
}

static int read_texts(const char *program, const serve_args *a, texts *t) {
    if (!a->tls_cert != !a->tls_key)
        return args_wrong(program, "--tls-cert and --tls-key belong together");
    int code = read_key(program, a, t);
    if (code) return code;
    if (a->tls_cert && !(t->cert = read_file(program, a->tls_cert))) return EXIT_FAILED;
    if (a->tls_key && !(t->tls_key = read_file(program, a->tls_key))) return EXIT_FAILED;
    t->aliases = a->alias ? strdup(a->alias) : NULL;
    char *save = NULL, *name = t->aliases ? strtok_r(t->aliases, ",", &save) : NULL;
    for (int i = 0; name && i < ALIASES_MAX; i++, name = strtok_r(NULL, ",", &save))
        t->alias[i] = name;
    return 0;
}

/* ORG/NAME for a folder in the Hugging Face cache, else the folder's name. */
static void model_name(const char *dir, char *out, size_t size) {
    const char *hub = strstr(dir, "models--");
    if (hub) {
        snprintf(out, size, "%.*s", (int)strcspn(hub + 8, "/"), hub + 8);
        char *dash = strstr(out, "--");
        if (dash) {
            *dash = '/';
            memmove(dash + 1, dash + 2, strlen(dash + 2) + 1);
        }
        return;
    }
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && dir[begin - 1] != '/') begin--;
    snprintf(out, size, "%.*s", (int)(n - begin), dir + begin);
}

/* ---- serving ------------------------------------------------------------ */

/* Asked for: so many. Else 4, or as many as leave the experts their memory. */
static fm_engine *open_engine(const char *program, const serve_args *a, char dir[MODEL_PATH_MAX],
                              int *sessions) {
    fm_options o;
    if (!model_options(program, &a->m, dir, &o)) return NULL;
    fm_error e = {.code = FM_ERR_BUDGET};
    fm_engine *engine = NULL;
    for (*sessions = a->sessions ? a->sessions : 4; *sessions > 0; *sessions /= 2) {
        o.sessions = *sessions;
        e = fm_engine_open(&o, &engine);
        if (e.code != FM_ERR_BUDGET || a->sessions) break;
    }
    if (!e.code) return engine;
    fail(program, &e);
    return NULL;
}

static void say_ready(const serve_args *a, const port_engine *p, const server *s) {
    const port *model = port_engine_port(p);
    const char *host = a->host ? a->host : "127.0.0.1";
    bool six = strchr(host, ':') != NULL;
    printf("%s is served at %s://%s%s%s:%d/v1  (context %d tokens, %d at once)\n", model->id,
           a->tls_cert ? "https" : "http", six ? "[" : "", host, six ? "]" : "", server_port(s),
           model->engine.context, model->engine.n_sessions);
    if (port_engine_trouble(p)) printf("Note: %s\n", port_engine_trouble(p));
    if (model->trained_context > 0 && model->engine.context > model->trained_context)
        printf("Warning: the model was trained on %d tokens; answers to longer prompts will be "
               "poor.\n",
               model->trained_context);
    printf("Ctrl-C ends it.\n");
    fflush(stdout);
}

/* Until a signal; a second one ends the process. */
static void wait_for_signal(const sigset_t *set, server *s) {
    int which;
    while (sigwait(set, &which) != 0) continue;
    fprintf(stderr, "Finishing what runs (at most %d s); once more to end now.\n", DRAIN_SECONDS);
    sigset_t again = *set;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &again, NULL);
    server_drain(s, DRAIN_SECONDS * 1000);
}

static void leave_trace(const serve_args *a, const port *p, const server *s, slog *log) {
    server_trace t = {.pid = getpid(), .port = server_port(s)};
    t.started = process_started(t.pid);
    snprintf(t.host, sizeof t.host, "%s", a->host ? a->host : "127.0.0.1");
    snprintf(t.model, sizeof t.model, "%s", p->id);
    bool healthy = server_healthy(t.host, t.port, a->tls_cert != NULL, 5000);
    if (healthy && server_trace_write(&t)) return;
    slog_line(log, healthy ? "server.pid could not be written: --stop needs --external"
                           : "the server does not answer its own health check");
}

static int serve(const char *program, const serve_args *a, const texts *t, port_engine *p,
                 slog *log) {
    server_options o = {.port = port_engine_port(p),
                        .log = log,
                        .host = a->host,
                        .listen_port = a->port,
                        .api_key = t->key,
                        .cors = a->cors,
                        .tls_cert = t->cert,
                        .tls_key = t->tls_key,
                        .aliases = t->alias,
                        .body_max = a->body_max,
                        .connections = a->connections,
                        .queue_max = a->queue,
                        .request_seconds = a->request_seconds};
    if (!script_open(program, a->script, &o)) return EXIT_FAILED;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before there are threads that would inherit it */
    server *s;
    err e = server_open(&o, &s);
    if (e.code) {
        fprintf(stderr, "%s: %s\n", program, e.text);
        return EXIT_FAILED;
    }
    leave_trace(a, o.port, s, log);
    say_ready(a, p, s);
    wait_for_signal(&set, s);
    server_trace mine;
    if (server_trace_read(&mine) && mine.pid == getpid()) server_trace_remove();
    server_close(s);
    script_close(&o);
    return 0;
}

static slog *open_log(const char *program, const serve_args *a, const char *key) {
    char dir[STATE_PATH_MAX];
    slog_options o = {.dir = a->log_dir,
                      .secret = key,
                      .http = a->http_log || env_on("SERVER_HTTP_LOG"),
                      .debug = a->debug || env_on("SERVER_DEBUG")};
    if (!o.dir && state_path("logs", dir)) o.dir = dir;
    slog *log;
    err e = slog_open(&o, &log);
    if (!e.code) return log;
    fprintf(stderr, "%s: %s\n", program, e.text);
    return NULL;
}

static int run_server(const char *program, const serve_args *a, const texts *t) {
    slog *log = open_log(program, a, t->key);
    if (!log) return EXIT_FAILED;
    char dir[MODEL_PATH_MAX], name[256];
    int sessions, code = EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN);
    fm_engine *engine = open_engine(program, a, dir, &sessions);
    if (engine) {
        port_engine *p;
        model_name(dir, name, sizeof name);
        err e = port_engine_open(engine, name, sessions, &p);
        if (e.code) {
            fprintf(stderr, "%s: %s\n", program, e.text);
        } else {
            code = serve(program, a, t, p, log);
        }
        port_engine_close(p);
        fm_engine_close(engine);
    }
    slog_close(log);
    return code;
}

static int run(const command *c, const void *args, const arg_list *rest) {
    const serve_args *a = args;
    if (rest->n) return args_wrong(c->program, "\"%s\" is not understood", rest->item[0]);
    if (a->stop) return stop(c->program, a);
    if (a->force || a->external)
        return args_wrong(c->program, "--force and --external belong to --stop");
    texts t = {0};
    int code = read_texts(c->program, a, &t);
    if (!code) code = run_server(c->program, a, &t);
    texts_free(&t);
    return code;
}

const command command_serve = {
    .name = "serve",
    .program = "flashchat serve",
    .usage = "[options]",
    .summary = "serve the model to programs (OpenAI and Anthropic APIs)",
    .details = "Programs that speak OpenAI's chat completions or responses, or Anthropic's "
               "messages, can use\nthe model at the address that is printed. It listens on this "
               "machine only unless --host says\notherwise.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(serve_args),
    .defaults = &defaults,
    .run = run,
};
