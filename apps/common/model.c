/* model.c: see model.h. */
#include "model.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "state.h"

/* ---- finding ------------------------------------------------------------ */

/* The folder that has assets/: named by the launcher, else the one above the program's. */
static bool home_folder(char out[MODEL_PATH_MAX]) {
    const char *home = getenv("FLASHCHAT_HOME");
    if (home && *home) {
        int n = snprintf(out, MODEL_PATH_MAX, "%s", home);
        return n > 0 && n < MODEL_PATH_MAX;
    }
    if (!os_program_path(out, MODEL_PATH_MAX)) return false;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(out, '/');
        if (!slash) return false;
        *slash = '\0';
    }
    return true;
}

/* assets/NAME of the program's own folder. */
static bool find_bundled(const char *name, char out[MODEL_PATH_MAX]) {
    char home[MODEL_PATH_MAX];
    if (!home_folder(home)) return false;
    int n = snprintf(out, MODEL_PATH_MAX, "%s/assets/%s", home, name);
    if (n < 0 || n >= MODEL_PATH_MAX) return false;
    char config[MODEL_PATH_MAX + 16];
    snprintf(config, sizeof config, "%s/config.json", out);
    return access(config, R_OK) == 0;
}

bool model_find(const char *program, const char *name, char out[MODEL_PATH_MAX]) {
    if (!name) {
        if (find_bundled("ember", out)) return true;
        fprintf(stderr, "%s: the bundled model (assets/ember) is not beside the program\n",
                program);
        fprintf(stderr, "Name a model directory with --model DIR\n");
        return false;
    }
    struct stat st;
    if (strlen(name) < MODEL_PATH_MAX && stat(name, &st) == 0) {
        snprintf(out, MODEL_PATH_MAX, "%s", name);
        return true; /* also a file: the engine says what is wrong with it */
    }
    if (!strchr(name, '/') && find_bundled(name, out)) return true;
    fprintf(stderr,
            "%s: there is no model \"%s\": no directory of that name, no model with that id\n",
            program, name);
    fprintf(stderr, "Give the directory that has its config.json, or leave --model out for the "
                    "bundled model\n");
    return false;
}

/* ---- opening ------------------------------------------------------------ */

static const char *hint(fm_code code) {
    switch (code) {
    case FM_ERR_BUDGET: return "`flashchat plan` shows the whole sum";
    case FM_ERR_RANGE: return "Use a shorter text, or a larger window with --context";
    case FM_ERR_CORRUPT: return "The file is damaged or incomplete; download the model again";
    case FM_ERR_BUSY: return "End it, give both less with --memory, or insist with --overcommit";
    case FM_ERR_NOMEM: return "Close other programs, or use less with --memory";
    case FM_ERR_IO: return "Check that the disk is healthy and the files are readable";
    case FM_ERR_NOT_FOUND:
        return "A model is a directory with config.json, tokenizer.json and .safetensors files";
    default: return NULL;
    }
}

int fail(const char *program, const fm_error *e) {
    if (e->code == FM_ERR_CANCELLED) return EXIT_INTERRUPTED;
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", program, e->text);
    const char *next = hint(e->code);
    if (next) fprintf(stderr, "%s\n", next);
    return EXIT_FAILED;
}

static bool parse_kv(const char *program, const char *text, fm_kv *out) {
    static const char *const names[] = {
        [FM_KV_DEFAULT] = "auto", [FM_KV_F32] = "f32", [FM_KV_F16] = "f16", [FM_KV_Q8] = "q8"};
    *out = FM_KV_DEFAULT;
    for (int i = 0; text && i < (int)(sizeof names / sizeof *names); i++) {
        *out = (fm_kv)i;
        if (!strcmp(text, names[i])) return true;
    }
    if (text) args_wrong(program, "--kv is \"%s\"; it must be auto, f32, f16 or q8", text);
    return !text;
}

/* Before the result, which may be piped on: to the error output. */
static void print_notice(void *ctx, const char *text) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", (const char *)ctx, text);
}

bool model_options(const char *program, const model_args *a, char dir[MODEL_PATH_MAX],
                   fm_options *o) {
    fm_options_init(o);
    if (!parse_kv(program, a->kv, &o->kv)) return false;
    if (!model_find(program, a->model, dir)) return false;
    o->model_dir = dir;
    o->memory = a->memory;
    o->threads = a->threads;
    o->io_threads = a->io_threads;
    o->context = a->context;
    o->experts_per_token = a->experts;
    o->exact = a->exact;
    o->cpu = a->cpu;
    o->gpu = a->gpu;
    o->overlap = a->overlap;
    o->vram = a->vram;
    o->cpu_experts = a->cpu_experts;
    o->mirror_dir = a->mirror;
    o->no_look_ahead = !a->look_ahead;
    o->no_checksums = a->no_checksums;
    o->force = a->overcommit;
    o->notice = print_notice;
    o->notice_ctx = (void *)(uintptr_t)program;
    static char io_state[STATE_PATH_MAX], engines[STATE_PATH_MAX]; /* the same for every call */
    if (state_file(io_state, "io.json")) o->io_state = io_state;
    if (state_file(engines, "engines")) o->lock_dir = engines;
    return true;
}

fm_engine *model_open(const char *program, const model_args *a, int sessions) {
    char dir[MODEL_PATH_MAX];
    fm_options o;
    if (!model_options(program, a, dir, &o)) return NULL;
    o.sessions = sessions;
    fm_engine *engine;
    fm_error e = fm_engine_open(&o, &engine);
    if (e.code) {
        fail(program, &e);
        return NULL;
    }
    return engine;
}

/* ---- Ctrl-C ------------------------------------------------------------- */

static fm_engine *volatile watched;
static volatile sig_atomic_t seen;
static void (*volatile last_words)(void);

void interrupt_last_words(void (*f)(void)) { last_words = f; }

static void on_signal(int signal_number) {
    if (seen) {
        if (last_words) last_words();
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    seen = 1;
    fm_engine *e = watched;
    if (e) fm_cancel(e);
}

void interrupt_watch(fm_engine *e) {
    watched = e;
    struct sigaction action = {0};
    action.sa_handler = on_signal; /* no SA_RESTART: a waiting read of a line ends */
    if (!e) action.sa_handler = SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupted(void) { return seen; }

bool interrupt_wait_input(void) {
    sigset_t both, before;
    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    sigprocmask(SIG_BLOCK, &both, &before);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    if (!seen) pselect(1, &set, NULL, NULL, NULL, &before); /* signals arrive only in here */
    sigprocmask(SIG_SETMASK, &before, NULL);
    return seen;
}

void interrupt_clear(fm_engine *e) {
    seen = 0;
    fm_cancel_clear(e);
}

double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
