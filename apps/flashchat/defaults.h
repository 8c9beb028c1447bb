/* defaults.h: how the settings reach a command that describes its options in a table: as words in
 * front of the person's own, so that what is typed wins.
 *
 *     flashchat prompt --top-k 5 Hello      becomes, with MEMORY="12G" and MODEL="qwen3-..." set,
 *     flashchat prompt --model=DIR --memory=12G --temperature=0.7 ... --top-k 5 Hello */
#ifndef DEFAULTS_H
#define DEFAULTS_H

#include <stdbool.h>

#include "command.h"

#define DEFAULT_WORDS_MAX 64

typedef struct default_words {
    int argc;
    char **argv;                    /* owned */
    char *owned[DEFAULT_WORDS_MAX]; /* the words that are not the caller's */
    int n_owned;
} default_words;

/* argv without the command's name. Takes --config FILE out, names of the registry become folders.
 * False after a message; *rc is the exit code then. */
bool default_words_make(const command *c, int argc, char **argv, default_words *out, int *rc);
void default_words_free(default_words *d);

#endif
