/* state.c: see state.h. */
#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Makes every folder on the way to path, which begins with a slash. */
static bool make_folders(char *path) {
    for (char *at = path + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        char was = *at;
        *at = '\0';
        bool there = mkdir(path, 0700) == 0 || errno == EEXIST;
        *at = was;
        if (!there) return false;
        if (!was) return true;
    }
}

bool state_file(char out[STATE_PATH_MAX], const char *name) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char dir[STATE_PATH_MAX];
    int n = -1;
    if (state && state[0] == '/')
        n = snprintf(dir, sizeof dir, "%s/flashchat", state);
    else if (home && home[0] == '/')
        n = snprintf(dir, sizeof dir, "%s/.local/state/flashchat", home);
    out[0] = '\0';
    if (n < 0 || n >= STATE_PATH_MAX || !make_folders(dir)) return false;
    n = snprintf(out, STATE_PATH_MAX, "%s/%s", dir, name);
    if (n > 0 && n < STATE_PATH_MAX) return true;
    out[0] = '\0';
    return false;
}
