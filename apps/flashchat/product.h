/* product.h: the commands around settings, models and this machine. Each takes the words after
 * "flashchat" (argv[0] is the command's own name) and returns the exit code: 0 done, 1 failed or
 * cancelled, 2 not understood. They print for people, or JSON where --json says so. */
#ifndef PRODUCT_H
#define PRODUCT_H

#include <stdbool.h>

#include "config.h"
#include "models.h"

int command_config(int argc, char **argv);
int command_models(int argc, char **argv);
int command_add_model(int argc, char **argv);
int command_download(int argc, char **argv);
int command_offload(int argc, char **argv);
int command_restore(int argc, char **argv);
/* Files of the hub's cache; the engine's own check (command_verify) comes after it. */
int product_verify(int argc, char **argv);
int command_manage(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_status(int argc, char **argv);
int command_completion(int argc, char **argv);
int command_opencode(int argc, char **argv);
int command_man(int argc, char **argv);
int command_uninstall(int argc, char **argv);
int command_version(int argc, char **argv);

/* What each of them begins with: the settings with argv's flags taken out, complaints printed, the
 * registry read and the model's profile applied. False (and *rc set) when the command cannot go
 * on. */
typedef struct product {
    settings *c;
    model_list models;
} product;

bool product_open(product *p, const char *command, int *argc, char **argv, int *rc);
/* The same for a command that reads its own flags: only --config is taken out, and no profile is
 * applied. */
bool product_open_plain(product *p, const char *command, int *argc, char **argv, int *rc);
void product_close(product *p);
/* Prints "flashchat COMMAND: text" on standard error; returns 1. */
int product_fail(const char *command, err e);
/* Removes the word from argv where it is; true when it was. */
bool take_word(int *argc, char **argv, const char *word);
/* The value after --name (or in --name=value) with both removed; NULL without. */
const char *take_value(int *argc, char **argv, const char *name);

/* Returned where the command of the same name in main.c's table has the next word. */
#define PRODUCT_GOES_ON (-1)

/* The list of them, for main.c, the man page and the completions. */
typedef struct product_command {
    const char *name, *usage, *summary;
    const char *details; /* ends with a line break; or NULL */
    int (*run)(int argc, char **argv);
} product_command;

extern const product_command product_commands[];
extern const int n_product_commands;

#endif
