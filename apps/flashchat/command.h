/* command.h: what a command of flashchat is. Each has a file of its own and ends it with one
 * constant; main.c lists them and does everything that they share: parsing, --help, exit codes. */
#ifndef FLASHCHAT_COMMAND_H
#define FLASHCHAT_COMMAND_H

#include "../common/args.h"

typedef struct command {
    const char *name;    /* "prompt" */
    const char *program; /* "flashchat prompt": stands in front of messages */
    const char *usage;   /* "TEXT|- [options]" */
    const char *summary; /* one line for the list of commands */
    const char *details; /* what --help says before the options; ends with a line break; or NULL */
    const arg_def *args;
    int n_args;
    size_t args_bytes;    /* of the struct that args fill */
    const void *defaults; /* one such struct, or NULL for all zero */
    /* Returns the exit code. */
    int (*run)(const struct command *c, const void *args, const arg_list *rest);
} command;

extern const command command_prompt, command_chat, command_plan, command_serve, command_pack,
    command_verify, command_benchmark;

/* All of them (main.c). */
extern const command *const table_commands[];
extern const int n_table_commands;

#define COMMAND_ARGS(defs) .args = defs, .n_args = sizeof defs / sizeof defs[0]

#endif
