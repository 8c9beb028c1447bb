/* files.h: the few file operations that the program's own state needs (settings, sessions, lists).
 * Whoever interrupts us, a file of ours is either the old one or the new one. */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define PATH_TEXT_MAX 4096

/* "dir/name" into out[PATH_TEXT_MAX]; ERR_RANGE when it does not fit. */
err path_join(char *out, const char *dir, const char *name) MUST_USE;
/* ~ and ~/x become the home folder; everything else is copied. ERR_NOT_FOUND without a home. */
err path_expand(char *out, const char *text) MUST_USE;
/* The user's home folder ($HOME, else the password file), or NULL. Static or environment storage.
 */
const char *home_dir(void);

bool file_exists(const char *path);
bool dir_exists(const char *path);
/* Makes the folder and those above it. */
err dir_make(const char *path, mode_t mode) MUST_USE;
/* Removes the folder and all that is in it; never follows a link out of it. None there: fine. */
err tree_remove(const char *dir) MUST_USE;
/* Writes path.new, syncs it, renames it over path, syncs the folder. A link is followed, so that
 * settings kept elsewhere and linked stay there. */
err file_write(const char *path, const char *bytes, size_t length, mode_t mode) MUST_USE;

#endif
