/* config_table.h: every setting of flashchat, once.
 *
 * One row says all there is to know about a setting: its name in the file, what it accepts, what it
 * is without being set, its flag, and what it means in words for a person. From the rows come the
 * parser and its messages (config.c), `config explain` and the wizard, --help, the shell
 * completions, the man page and docs/CONFIG.md. A setting that has no row does not exist.
 *
 *     row.name       MAX_TOKENS                 in the file: MAX_TOKENS="4096"
 *     environment    FLASHCHAT_MAX_TOKENS       always the name with FLASHCHAT_ in front
 *     row.flag       --max-tokens 4096          NULL: file and environment only */
#ifndef CONFIG_TABLE_H
#define CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum config_id {
    CONFIG_MODEL,
    CONFIG_HUGGINGFACE_CACHE_DIR,
    CONFIG_OFFLOAD_DIR,
    CONFIG_MEMORY,
    CONFIG_CONTEXT_WINDOW,
    CONFIG_KV_QUANT,
    CONFIG_THREADS,
    CONFIG_ACTIVE_EXPERTS,
    CONFIG_EXACT,
    CONFIG_CPU,
    CONFIG_MIRROR_DIR,
    CONFIG_LOOK_AHEAD,
    CONFIG_MAX_TOKENS,
    CONFIG_SAMPLING_PROFILE,
    CONFIG_REASONING,
    CONFIG_TEMPERATURE,
    CONFIG_TOP_P,
    CONFIG_TOP_K,
    CONFIG_MIN_P,
    CONFIG_PRESENCE_PENALTY,
    CONFIG_FREQUENCY_PENALTY,
    CONFIG_REPETITION_PENALTY,
    CONFIG_SEED,
    CONFIG_SYSTEM_PROMPT_FILE,
    CONFIG_SERVER_HOST,
    CONFIG_SERVER_PORT,
    CONFIG_SERVER_PARALLEL,
    CONFIG_SERVER_LOG_PATH,
    CONFIG_SERVER_DEBUG,
    CONFIG_SERVER_HTTP_LOG,
    CONFIG_API_KEY_FILE,
    CONFIG_SYSTEM_PROMPT_CACHE,
    CONFIG_SYSTEM_PROMPT_CACHE_MAX_ENTRIES,
    CONFIG_SYSTEM_PROMPT_CACHE_MAX_SIZE,
    CONFIG_SHOW_THINKING,
    CONFIG_COLOR_OUTPUT,
    CONFIG_COUNT
} config_id;

typedef enum config_kind {
    KIND_TEXT,   /* any text in one line */
    KIND_PATH,   /* ~ and ~/ are the home folder; may be empty */
    KIND_INT,    /* low .. high */
    KIND_NUMBER, /* low .. high, decimals allowed */
    KIND_BOOL,   /* on, off */
    KIND_CHOICE, /* one of choices */
    KIND_SIZE,   /* 12G, 900M, bytes */
} config_kind;

typedef enum config_group {
    GROUP_MODEL,
    GROUP_SPEED,
    GROUP_ANSWERS,
    GROUP_SERVER,
    GROUP_SCREEN
} config_group;
#define GROUP_COUNT 5

enum {
    CONFIG_AUTO = 1,    /* "auto" is a value too: flashchat decides */
    CONFIG_RESTART = 2, /* a running server was started with it: it restarts before its next use */
};

typedef struct config_row {
    const char *name;
    config_group group;
    config_kind kind;
    double low, high;     /* KIND_INT, KIND_NUMBER, KIND_SIZE */
    const char *choices;  /* KIND_CHOICE: "a|b|c" */
    const char *fallback; /* the value when nothing sets it */
    const char *flag;     /* "--max-tokens", or NULL */
    const char *title;    /* "Longest answer" */
    const char *meaning;  /* sentences for a person */
    const char *affects;  /* what it costs or changes: memory, speed, answers ... */
    unsigned marks;       /* CONFIG_AUTO ... */
} config_row;

extern const config_row config_rows[CONFIG_COUNT];
extern const char *const config_group_names[GROUP_COUNT];

/* The row with this name (any case, - for _), or -1. */
int config_find(const char *name);
/* The name that a misspelt one is nearest to, or NULL when none is near. */
const char *config_nearest(const char *name);

/* ERR_ARG saying what the row accepts when text is none of it. */
err config_check(const config_row *row, const char *text) MUST_USE;
/* "a number from 0 to 2, or auto": for messages and the documentation. */
void config_accepts(const config_row *row, char *out, size_t size);

/* Text to value; false when it is not one. "12G", "1.5GiB", "900M", "65536": binary units. */
bool value_size(const char *text, uint64_t *out);
bool value_int(const char *text, int64_t *out);
bool value_number(const char *text, double *out);
bool value_bool(const char *text, bool *out);

#endif
