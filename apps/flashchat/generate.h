/* generate.h: the loop that makes an answer, and what prompt and chat say about it. */
#ifndef FLASHCHAT_GENERATE_H
#define FLASHCHAT_GENERATE_H

#include "../common/model.h"
#include "flashmoe.h"

typedef struct sampling_args {
    float temperature, top_p, min_p, presence, frequency, repetition;
    int top_k;
    uint64_t seed;
} sampling_args;

#define SAMPLING_DEFAULTS                                                                          \
    { .top_p = 1, .repetition = 1 }

/* Table entries for a struct `type` with a sampling_args called `s`. */
#define SAMPLING_ARG(type, field) (offsetof(type, s) + offsetof(sampling_args, field))
#define SAMPLING_ARGS(type)                                                                        \
    {"--temperature",                                                                              \
     "T",                                                                                          \
     "0: always the likeliest word (default); 0.7: livelier",                                      \
     ARG_FLOAT,                                                                                    \
     SAMPLING_ARG(type, temperature),                                                              \
     0,                                                                                            \
     100},                                                                                         \
        {"--top-p",                                                                                \
         "P",                                                                                      \
         "only the likeliest, together P of the probability",                                      \
         ARG_FLOAT,                                                                                \
         SAMPLING_ARG(type, top_p),                                                                \
         0,                                                                                        \
         1},                                                                                       \
        {"--top-k", "K", "only the K likeliest", ARG_INT, SAMPLING_ARG(type, top_k), 0, 1 << 24},  \
        {"--min-p",                                                                                \
         "P",                                                                                      \
         "only those at least P times as likely as the likeliest",                                 \
         ARG_FLOAT,                                                                                \
         SAMPLING_ARG(type, min_p),                                                                \
         0,                                                                                        \
         1},                                                                                       \
        {"--presence-penalty",                                                                     \
         "X",                                                                                      \
         "against words already used",                                                             \
         ARG_FLOAT,                                                                                \
         SAMPLING_ARG(type, presence),                                                             \
         -100,                                                                                     \
         100},                                                                                     \
        {"--frequency-penalty",                                                                    \
         "X",                                                                                      \
         "against words, by how often they were used",                                             \
         ARG_FLOAT,                                                                                \
         SAMPLING_ARG(type, frequency),                                                            \
         -100,                                                                                     \
         100},                                                                                     \
        {"--repetition-penalty",                                                                   \
         "X",                                                                                      \
         "divides the score of words already used; 1: off",                                        \
         ARG_FLOAT,                                                                                \
         SAMPLING_ARG(type, repetition),                                                           \
         0.01,                                                                                     \
         100},                                                                                     \
    {                                                                                              \
        "--seed", "N", "the same seed gives the same answer (default 0)", ARG_U64,                 \
            SAMPLING_ARG(type, seed), 0, 0                                                         \
    }

fm_error sampling_open(const fm_engine *e, const sampling_args *a, fm_sampler **out);

/* The options that prompt and chat share. It must be the first member of the command's struct. */
typedef struct answer_args {
    model_args m;
    sampling_args s;
    const char *system;
    int tokens, think;
    bool timing, quiet;
} answer_args;

#define ANSWER_DEFAULTS                                                                            \
    { .m = MODEL_DEFAULTS, .s = SAMPLING_DEFAULTS }

/* clang-format off */
#define ANSWER_ARGS                                                                               \
    {"--tokens", "N", "at most N tokens an answer (default: until it ends)", ARG_INT,             \
     offsetof(answer_args, tokens), 1, 1 << 24},                                                  \
    {"--system", "TEXT", "instructions that come before everything else", ARG_TEXT,               \
     offsetof(answer_args, system), 0, 0},                                                        \
    {"--think", NULL, "let the model think before it answers", ARG_SWITCH,                        \
     offsetof(answer_args, think), 0, 0},                                                         \
    SAMPLING_ARGS(answer_args),                                                                   \
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},                                              \
    MODEL_ARGS(answer_args),                                                                      \
    STREAM_ARGS(answer_args),                                                                     \
    {NULL, NULL, "What is reported", ARG_HEADING, 0, 0, 0},                                       \
    {"--timing", NULL, "where the time went", ARG_FLAG, offsetof(answer_args, timing), 0, 0},     \
    {"--quiet", NULL, "only the answer, no figures", ARG_FLAG, offsetof(answer_args, quiet), 0, 0}
/* clang-format on */

/* A conversation as the model's own template writes it. kwargs for fm_chat_request: whether to
 * think, for models that can choose; NULL for others. */
const char *think_kwargs(const fm_chat *c, bool think);

typedef struct generation {
    fm_engine *engine;
    fm_session *session; /* synced */
    fm_sampler *sampler;
    size_t limit;        /* most tokens; 0: what the context window holds */
    const fm_chat *chat; /* what the answer is parsed by; NULL: all of it is text */
    const char *tools;   /* JSON list or NULL */
    fm_thinking thinking;
    /* Called with whole characters as they come; calls of tools are not shown. */
    fm_reply_show show;
    void *ctx;
    const char *script; /* test build: what the model is made to say; NULL */
    const char *hold;   /* test build: in its middle, wait until this file is there; NULL */
    /* out */
    size_t n;             /* tokens made, a stop token included */
    const char *finish;   /* "stop", "length" (limit), "context" (window full), "interrupted" */
    double seconds_first; /* from the call to the first token */
    char *message;        /* of a chat: what it says, as fm_chat_parse does; the caller's (free) */
    int32_t pending;      /* the last token when it is not in the session yet, else -1 */
} generation;

/* FM_OK also when interrupted: finish says so. */
fm_error generate(generation *g);

/* What is printed about a finished answer. */
typedef struct answer_report {
    size_t prompt_tokens, reused; /* reused: of these, not computed again */
    double seconds_to_first; /* from the request to the first token, without opening the model */
    const generation *g;
    const fm_engine *engine;
} answer_report;

/* The footer: one or two lines on standard error. */
void report_print(const answer_report *r);
/* The same for a terminal: one line of at most `columns`, the least important left out first. */
void report_line(const answer_report *r, int columns, char *out, size_t size);
/* The time per kind of work, all layers together, on standard error. */
void report_timing(const fm_engine *e);
/* The same as members of a JSON object. */
typedef struct json_t json_t;
void report_json(const answer_report *r, json_t *object);

#endif
