/* hub_access.h: the hub as the settings and the environment describe it, for the commands that use
 * it, and what they show while it works. */
#ifndef HUB_ACCESS_H
#define HUB_ACCESS_H

#include "config.h"
#include "files.h"
#include "hub/hub.h"

typedef struct hub_access {
    hub_options options; /* points into the fields below */
    char cache[PATH_TEXT_MAX], endpoint[1024], token[1024];
    int last_tenth; /* of the progress shown in a pipe */
    bool bar;       /* a progress line is on the screen */
} hub_access;

/* HF_ENDPOINT, HF_TOKEN (else the token file of HF_TOKEN_PATH or HF_HOME), HF_HUB_OFFLINE is obeyed
 * (ERR_ARG). Ctrl-C cancels from now on until hub_access_end. */
err hub_access_begin(const settings *c, hub_access *out) MUST_USE;
void hub_access_end(hub_access *a);

/* Ctrl-C sets the flag; a second one ends the program. For long work without a hub as well. */
const atomic_bool *cancel_watch(void);
void cancel_unwatch(void);

/* One line that is redrawn on a terminal, or a line for every tenth in a pipe. total 0: unknown. */
void progress_show(hub_access *a, const char *what, const hub_progress *p);
void progress_end(hub_access *a);

#endif
