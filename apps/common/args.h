/* args.h: command lines, from one table.
 *
 * A program describes its options in a table of arg_def (name, kind, bounds, where the value goes,
 * one line of help). The table parses, checks, explains itself (--help) and suggests what was
 * meant when a name is misspelt. Values are written into a struct of the caller's, whose contents
 * before the call are the defaults.
 *
 *     --name VALUE   --name=VALUE   --flag   --no-flag (ARG_SWITCH)   -- (the rest is text)
 *
 * A lone "-" is text (standard input by custom). Errors are one line on standard error and a hint
 * at --help; the caller exits with EXIT_USAGE. */
#ifndef COMMON_ARGS_H
#define COMMON_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_FAILED      1 /* it was understood and did not work */
#define EXIT_USAGE       2 /* it was not understood */
#define EXIT_INTERRUPTED 130

typedef enum arg_kind {
    ARG_FLAG,   /* bool: given or not */
    ARG_SWITCH, /* int: 1 for --name, 0 for --no-name, unchanged when neither */
    ARG_TEXT,   /* const char *: points into argv */
    ARG_INT,    /* int within low .. high */
    ARG_U64,    /* uint64_t */
    ARG_FLOAT,  /* float within low .. high */
    ARG_SIZE,   /* size_t bytes: 800M, 12G, 1.5GiB, 4096; units of 1,024; at least low */
    ARG_HEADING /* not an option: a line in --help */
} arg_kind;

typedef struct arg_def {
    const char *name;  /* "--tokens" */
    const char *value; /* "N", shown in help; NULL for flags */
    const char *help;  /* one line; NULL: not shown */
    arg_kind kind;
    size_t offset; /* of the field in the caller's struct */
    double low, high;
} arg_def;

#define ARGS_REST_MAX 64

typedef struct arg_list { /* what is not an option, in order */
    const char *item[ARGS_REST_MAX];
    int n;
} arg_list;

typedef struct arg_table {
    const char *program; /* "flashchat prompt", for messages */
    const arg_def *defs;
    int n;
} arg_table;

typedef enum arg_result { ARGS_OK, ARGS_HELP, ARGS_WRONG } arg_result;

/* argv[0 .. argc) without the program's name. ARGS_HELP for --help or -h (nothing is printed);
 * after ARGS_WRONG the message has been printed. */
arg_result args_parse(const arg_table *table, int argc, char **argv, void *out, arg_list *rest);

/* The options as lines of help on standard output. */
void args_help(const arg_table *table);

/* A message for standard error in the style of args_parse, with the hint at --help. Returns
 * EXIT_USAGE. */
int args_wrong(const char *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "12G", "1.5GiB", "800M", "64k", "4096": false when it is no such thing or does not fit. */
bool size_parse(const char *text, size_t *out);
/* "12.3 GB" (units of 1,024 as everywhere in this program) into out[16]. */
const char *size_text(double bytes, char out[16]);

/* The nearest of names (n of them) to what was typed, or NULL when none is near. */
const char *nearest_name(const char *typed, const char *const *names, int n);

#endif
