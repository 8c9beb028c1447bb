/* model.h: what every command that opens a model shares: its options, how a name becomes a
 * directory, opening with messages a person can act on, and Ctrl-C. */
#ifndef COMMON_MODEL_H
#define COMMON_MODEL_H

#include "args.h"
#include "flashmoe.h"

#define MODEL_PATH_MAX 4096

typedef struct model_args {
    const char *model, *cpu, *gpu, *overlap, *kv; /* NULL: the default */
    size_t memory, vram;
    int threads, io_threads, context, experts;
    bool exact, cpu_experts;
    /* of STREAM_ARGS */
    const char *mirror;
    int look_ahead; /* 0 or 1: see MODEL_DEFAULTS */
    bool overcommit, no_checksums;
} model_args;

/* What a command with STREAM_ARGS begins with. */
#define MODEL_DEFAULTS                                                                             \
    { .look_ahead = 1 }

/* Table entries for a struct `type` with a model_args called `m`. */
#define MODEL_ARG(type, field) (offsetof(type, m) + offsetof(model_args, field))
/* clang-format off */
#define MODEL_ARGS(type)                                                                          \
    {"--model", "ID|DIR", "the model (default: the bundled one)", ARG_TEXT,                       \
     MODEL_ARG(type, model), 0, 0},                                                               \
    {"--memory", "SIZE", "most memory to use, e.g. 12G (default: 3/4 of what is free)", ARG_SIZE, \
     MODEL_ARG(type, memory), 1, 0},                                                              \
    {"--context", "N", "context window in tokens (default: the model's, up to 32768)", ARG_INT,   \
     MODEL_ARG(type, context), 1, 1 << 24},                                                       \
    {"--kv", "TYPE", "conversation memory: f32, f16, q8 (8 bits, lossy) (default: f16)",         \
     ARG_TEXT, MODEL_ARG(type, kv), 0, 0},                                                        \
    {"--threads", "N", "processor threads (default: all)", ARG_INT, MODEL_ARG(type, threads),     \
     1, 256},                                                                                     \
    {"--gpu", "NAME", "auto, off, cuda, cuda:1, metal (default: auto)", ARG_TEXT,                \
     MODEL_ARG(type, gpu), 0, 0},                                                                \
    {"--vram", "SIZE", "most of the GPU's memory to use (default: nearly all)", ARG_SIZE,         \
     MODEL_ARG(type, vram), 1, 0},                                                                \
    {"--overlap", "WAY", "Apple GPU: compute while reading: auto, on, off (default: auto)",       \
     ARG_TEXT, MODEL_ARG(type, overlap), 0, 0},                                                   \
    {"--cpu-experts", NULL, "NVIDIA: the processor helps, where it pays (last bits vary)",        \
     ARG_FLAG, MODEL_ARG(type, cpu_experts), 0, 0},                                               \
    {"--experts", "N", "experts a token (fewer than trained: faster, worse answers)", ARG_INT,    \
     MODEL_ARG(type, experts), 1, 1024},                                                          \
    {"--cpu", "NAME", "instructions: scalar, avx2, avx512, neon (default: the best here)",        \
     ARG_TEXT, MODEL_ARG(type, cpu), 0, 0},                                                       \
    {"--exact", NULL, "full-precision arithmetic: slower, the reference", ARG_FLAG,               \
     MODEL_ARG(type, exact), 0, 0}

/* Of commands that run the model. */
#define STREAM_ARGS(type)                                                                         \
    {"--mirror", "DIR", "the model's files again on a second drive: both are read", ARG_TEXT,     \
     MODEL_ARG(type, mirror), 0, 0},                                                              \
    {"--look-ahead", NULL, "read early what the next layer may want (default: on)", ARG_SWITCH,   \
     MODEL_ARG(type, look_ahead), 0, 0},                                                          \
    {"--overcommit", NULL, "start even if running models and this one exceed the memory",         \
     ARG_FLAG, MODEL_ARG(type, overcommit), 0, 0}
/* clang-format on */

/* The directory of a model: `name` as a directory, as an id, or NULL for the default (the bundled
 * one, found from where the program is). False when there is none; the message was printed. */
bool model_find(const char *program, const char *name, char out[MODEL_PATH_MAX]);

/* model_find and fm_options from the arguments. dir must outlive the use of *o; what the program
 * remembers about drives and running engines is kept where state.h says. */
bool model_options(const char *program, const model_args *a, char dir[MODEL_PATH_MAX],
                   fm_options *o);

/* Finds and opens; NULL after a message. dir is only used during the call. */
fm_engine *model_open(const char *program, const model_args *a, int sessions);

/* Prints "program: text" and what could be done about it. Returns EXIT_FAILED, or
 * EXIT_INTERRUPTED for FM_ERR_CANCELLED, which prints nothing. */
int fail(const char *program, const fm_error *e);

/* From now on Ctrl-C (and SIGTERM) cancels what the engine computes; when the engine has not
 * answered by the next Ctrl-C, that one ends the program. NULL: back to the system's default. */
void interrupt_watch(fm_engine *e);
/* Called in the signal handler before that one does: puts the terminal right. NULL: nothing. */
void interrupt_last_words(void (*f)(void));
bool interrupted(void);
/* Waits until there is something to read on a terminal (standard input) or Ctrl-C: true for the
 * latter. A Ctrl-C just before the call counts. */
bool interrupt_wait_input(void);
/* Ready for the next one. */
void interrupt_clear(fm_engine *e);

double seconds_now(void); /* monotonic */

#endif
