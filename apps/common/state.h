/* state.h: where programs keep what they find out for themselves, apart from settings:
 *
 *     $XDG_STATE_HOME/flashchat, else ~/.local/state/flashchat
 *       io.json         how each file system is read fastest (measured once)
 *       engines/        which engines are running, and what memory they may take */
#ifndef COMMON_STATE_H
#define COMMON_STATE_H

#include <stdbool.h>

#define STATE_PATH_MAX 4096

/* The path of `name` in that folder, which is made when it is not there. False, and out empty,
 * where there is no such folder: programs then do without. */
bool state_file(char out[STATE_PATH_MAX], const char *name);

#endif
