/* serve.c: flashchat serve: a model behind the OpenAI and Anthropic APIs, until Ctrl-C or SIGTERM.
 * Starting it in the background and ending it are in server_life.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/model.h"
#include "base/os.h"
#include "command.h"
#include "defaults.h"
#include "serve_sampling.h"
#include "serve_script.h"
#include "server/port_engine.h"
#include "server/server.h"
#include "server_files.h"
#include "server_life.h"

#define PORT_DEFAULT  8000
#define DRAIN_SECONDS 30
#define FILE_TEXT_MAX (1 << 20)
#define ALIASES_MAX   16

typedef struct serve_args {
    model_args m;
    serve_sampling s;
    const char *host, *api_key, *api_key_file, *cors, *tls_cert, *tls_key, *alias, *log_dir, *log;
    const char *script;
    int port, sessions, queue, connections, request_seconds;
    size_t body_max;
    const char *prompt_dir;
    int prompt_entries, prompt_cache; /* prompt_cache: a switch */
    size_t prompt_bytes;
    bool debug, http_log, background, stop, force, external;
    char signature[SIGNATURE_MAX]; /* no option: of all that is above */
} serve_args;

static const serve_args defaults = {
    .m = MODEL_DEFAULTS, .port = PORT_DEFAULT, .prompt_cache = 1, .s = SERVE_SAMPLING_UNSAID};

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
    {NULL, NULL, "What it keeps on disk", ARG_HEADING, 0, 0, 0},
    {"--prompt-cache", NULL,
     "the state after long beginnings (default; --no-prompt-cache: nothing)", ARG_SWITCH,
     ARG(prompt_cache), 0, 0},
    {"--prompt-cache-entries", "N", "how many of them (default: 16)", ARG_INT, ARG(prompt_entries),
     1, 10000},
    {"--prompt-cache-size", "SIZE", "their bytes together (default: 4G)", ARG_SIZE,
     ARG(prompt_bytes), 1, 0},
    {"--prompt-cache-dir", "DIR", "where (default: flashchat/prompt_cache in the model's folder)",
     ARG_TEXT, ARG(prompt_dir), 0, 0},
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},
    MODEL_ARGS(serve_args),
    STREAM_ARGS(serve_args),
    {"--alias", "NAMES", "further names of the model, with commas between; * accepts any", ARG_TEXT,
     ARG(alias), 0, 0},
    {NULL, NULL, "What a request gets that does not say", ARG_HEADING, 0, 0, 0},
    SERVE_SAMPLING_ARGS(serve_args),
    {NULL, NULL, "Logs", ARG_HEADING, 0, 0, 0},
    {"--log-dir", "DIR", "where logs go (default: logs/ in the settings folder)", ARG_TEXT,
     ARG(log_dir), 0, 0},
    {"--log", "FILE", "the log itself (default: server.log in that folder)", ARG_TEXT, ARG(log), 0,
     0},
    {"--http-log", NULL, "a line for each request (or SERVER_HTTP_LOG=1)", ARG_FLAG, ARG(http_log),
     0, 0},
    {"--debug", NULL, "keep requests, prompts and answers (or SERVER_DEBUG=1)", ARG_FLAG,
     ARG(debug), 0, 0},
    {NULL, NULL, "Starting and ending it", ARG_HEADING, 0, 0, 0},
    {"--background", NULL, "start it and come back once it answers; a fitting one is reused",
     ARG_FLAG, ARG(background), 0, 0},
    {"--stop", NULL, "end the running server: it finishes what it does", ARG_FLAG, ARG(stop), 0, 0},
    {"--force", NULL, "with --stop: at once", ARG_FLAG, ARG(force), 0, 0},
    {"--external", NULL, "with --stop: whichever flashchat listens on --port", ARG_FLAG,
     ARG(external), 0, 0},
    SCRIPT_ARGS(serve_args)};

/* ---- options ------------------------------------------------------------ */

/* A small file as text (owned); NULL after a message. */
static char *read_file(const char *program, const char *option, const char *path) {
    FILE *f = fopen(path, "re");
    char *text = f ? calloc(1, FILE_TEXT_MAX + 1) : NULL;
    size_t n = text ? fread(text, 1, FILE_TEXT_MAX, f) : 0;
    bool ok = text && !ferror(f) && n > 0;
    if (!ok)
        fprintf(stderr, "%s: %s %s: %s\n", program, option, path,
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
    if (t->key) os_forget(t->key, strlen(t->key));
    if (t->tls_key) os_forget(t->tls_key, strlen(t->tls_key));
    free(t->key);
    free(t->cert);
    free(t->tls_key);
    free(t->aliases);
}

static int read_key(const char *program, const serve_args *a, texts *t) {
    const char *env = getenv("FLASHCHAT_API_KEY");
    if (a->api_key_file) {
        t->key = read_file(program, "--api-key-file", a->api_key_file);
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
    if (a->tls_cert && !(t->cert = read_file(program, "--tls-cert", a->tls_cert)))
        return EXIT_FAILED;
    if (a->tls_key && !(t->tls_key = read_file(program, "--tls-key", a->tls_key)))
        return EXIT_FAILED;
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

/* What the engine says of its card: to the log, and to whoever started the server. */
static void note(void *ctx, const char *text) {
    slog_line(ctx, "%s", text);
    fprintf(stderr, "Note: %s\n", text);
}

/* Asked for: so many. Else 4, or as many as leave the experts their memory. */
static fm_engine *open_engine(const char *program, const serve_args *a, char dir[MODEL_PATH_MAX],
                              int *sessions, slog *log) {
    fm_options o;
    if (!model_options(program, &a->m, dir, &o)) return NULL;
    o.notice = note;
    o.notice_ctx = log;
    fm_error e = {.code = FM_ERR_BUDGET};
    fm_engine *engine = NULL;
    for (*sessions = a->sessions ? a->sessions : 4; *sessions > 0; *sessions /= 2) {
        o.sessions = *sessions;
        o.keep_prompts = a->prompt_cache != 0;
        e = fm_engine_open(&o, &engine);
        if (e.code != FM_ERR_BUDGET || a->sessions) break;
    }
    if (!e.code) return engine;
    fail(program, &e);
    return NULL;
}

static void log_prompts(void *ctx, const char *line) { slog_line(ctx, "%s", line); }

/* A folder of the user's for a model whose own cannot be written. */
static bool cache_folder(const char *name, char out[STATE_PATH_MAX]) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char safe[256];
    snprintf(safe, sizeof safe, "%s", name);
    for (char *p = safe; *p; p++)
        if (*p == '/') *p = '-';
    int n = base && *base == '/'
                ? snprintf(out, STATE_PATH_MAX, "%s/flashchat/prompt_cache/%s", base, safe)
                : snprintf(out, STATE_PATH_MAX, "%s/.cache/flashchat/prompt_cache/%s",
                           home ? home : "", safe);
    return n < STATE_PATH_MAX && out[0] == '/' && (base || home);
}

/* Serving works without it. */
static void open_prompts(const serve_args *a, fm_engine *engine, const char *name, slog *log) {
    char other[STATE_PATH_MAX];
    if (!a->prompt_cache) return;
    const fm_prompt_cache_options o = {.dir = a->prompt_dir,
                                       .fallback_dir = cache_folder(name, other) ? other : NULL,
                                       .bytes = a->prompt_bytes,
                                       .entries = a->prompt_entries,
                                       .log = log_prompts,
                                       .log_ctx = log};
    fm_error e = fm_prompt_cache_open(engine, &o);
    if (e.code) slog_line(log, "prompts are not kept on disk: %s", e.text);
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

/* server.pid, once our own health was seen; one server at a time can be known there. */
static bool leave_trace(const serve_args *a, const port *p, const server *s, slog *log) {
    server_trace t = {.pid = getpid(),
                      .port = server_port(s),
                      .tls = a->tls_cert != NULL,
                      .background = a->background},
                 other;
    t.started = process_started(t.pid);
    snprintf(t.host, sizeof t.host, "%s", a->host ? a->host : "127.0.0.1");
    snprintf(t.model, sizeof t.model, "%s", p->id);
    snprintf(t.signature, sizeof t.signature, "%s", a->signature);
    if (!server_healthy(t.host, t.port, t.tls, 30000)) {
        slog_line(log, "the server does not answer its own health check");
        return false;
    }
    if (server_trace_read(&other) && trace_alive(&other)) {
        slog_line(log, "process %d is in server.pid already: --stop needs --external for this one",
                  (int)other.pid);
        return !a->background;
    }
    if (server_trace_write(&t)) return true;
    slog_line(log, "server.pid could not be written: --stop needs --external");
    return !a->background;
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
    bool known = leave_trace(a, o.port, s, log);
    if (known || !a->background) {
        say_ready(a, p, s);
        wait_for_signal(&set, s);
    } else {
        fprintf(stderr, "%s: the server does not answer its own health check\n", program);
    }
    server_trace mine;
    if (server_trace_read(&mine) && mine.pid == getpid()) server_trace_remove();
    server_close(s);
    script_close(&o);
    return known || !a->background ? 0 : EXIT_FAILED;
}

static slog *open_log(const char *program, const serve_args *a, const char *key) {
    char dir[STATE_PATH_MAX];
    slog_options o = {.dir = a->log_dir,
                      .file = a->log,
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
    fm_engine *engine = open_engine(program, a, dir, &sessions, log);
    if (engine) {
        port_engine *p;
        model_name(dir, name, sizeof name);
        open_prompts(a, engine, name, log);
        err e = port_engine_open(engine, name, sessions, &p);
        if (e.code) {
            fprintf(stderr, "%s: %s\n", program, e.text);
        } else {
            serve_sampling_apply(p, &a->s);
            code = serve(program, a, t, p, log);
        }
        port_engine_close(p);
        fm_engine_close(engine);
    }
    slog_close(log);
    return code;
}

typedef struct deed { /* what the background process does */
    const char *program;
    serve_args *a;
    const texts *t;
} deed;

static int do_serve(void *ctx, int listen_port) {
    const deed *d = ctx;
    d->a->port = listen_port;
    return run_server(d->program, d->a, d->t);
}

static void log_place(const serve_args *a, char out[STATE_PATH_MAX]) {
    char dir[STATE_PATH_MAX];
    snprintf(out, STATE_PATH_MAX, "%s", a->log ? a->log : "");
    if (a->log) return;
    if (!a->log_dir && !state_path("logs", dir)) return;
    snprintf(out, STATE_PATH_MAX, "%.4000s/server.log", a->log_dir ? a->log_dir : dir);
}

static int run_checked(const command *c, serve_args *a, const life_order *o, const texts *t) {
    if (a->background) return life_background(o);
    int listen_port = life_port(o);
    if (listen_port < 0) return EXIT_FAILED;
    a->port = listen_port;
    return run_server(c->program, a, t);
}

static int run(const command *c, const void *args, const arg_list *rest) {
    serve_args a = *(const serve_args *)args;
    char dir[MODEL_PATH_MAX], log[STATE_PATH_MAX];
    texts t = {0};
    deed d = {c->program, &a, &t};
    life_order o = {.program = c->program,
                    .host = a.host,
                    .port = a.port,
                    .signature = a.signature,
                    .log_path = log,
                    .tls = a.tls_cert != NULL,
                    .force = a.force,
                    .external = a.external,
                    .serve = do_serve,
                    .ctx = &d};
    if (rest->n) return args_wrong(c->program, "\"%s\" is not understood", rest->item[0]);
    if (a.stop) return life_stop(&o);
    if (a.force || a.external)
        return args_wrong(c->program, "--force and --external belong to --stop");
    if (!model_find(c->program, a.m.model, dir)) return EXIT_FAILED;
    life_signature(c, &a, dir, a.signature);
    log_place(&a, log);
    int code = read_texts(c->program, &a, &t);
    if (!code) code = run_checked(c, &a, &o, &t);
    texts_free(&t);
    return code;
}

bool serve_signature(char out[SIGNATURE_MAX]) {
    default_words words;
    serve_args a = defaults;
    char dir[MODEL_PATH_MAX];
    int rc;
    arg_list rest;
    arg_table table = {command_serve.program, defs, sizeof defs / sizeof *defs};
    out[0] = '\0';
    if (!default_words_make(&command_serve, 0, NULL, &words, &rc)) return false;
    bool good = args_parse(&table, words.argc, words.argv, &a, &rest) == ARGS_OK &&
                model_find(command_serve.program, a.m.model, dir);
    if (good) life_signature(&command_serve, &a, dir, out);
    default_words_free(&words);
    return good;
}

const command command_serve = {
    .name = "serve",
    .program = "flashchat serve",
    .usage = "[options]",
    .summary = "serve the model to programs (OpenAI and Anthropic APIs)",
    .details = "Programs that speak OpenAI's chat completions or responses, or Anthropic's "
               "messages, can use\nthe model at the address that is printed. It listens on this "
               "machine only unless --host says\notherwise. With --background it goes on alone "
               "and this command comes back.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(serve_args),
    .defaults = &defaults,
    .run = run,
};
