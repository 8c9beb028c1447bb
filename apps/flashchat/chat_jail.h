/* chat_jail.h: files below one folder, and only there. Paths come from a model: "..", links and
 * absolute paths must not lead out. The kernel checks it where it can (openat2 with
 * RESOLVE_BENEATH: no race between check and use); elsewhere the path is walked folder by folder,
 * and links are refused altogether. Errors name the path as it was given. */
#ifndef FLASHCHAT_CHAT_JAIL_H
#define FLASHCHAT_CHAT_JAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

typedef struct jail {
    int fd;          /* of the folder */
    char root[4096]; /* its real path */
    bool walk;       /* never ask the kernel: for tests */
} jail;

err jail_open(const char *root, jail *out) MUST_USE;
void jail_close(jail *j);

/* A path to what openat takes: without the root in front, "." for the root itself. ERR_ARG for one
 * that is empty, too long, or absolute and not below the root. out[4096] */
err jail_inside(const jail *j, const char *path, char *out) MUST_USE;

/* Opens what is there (flags as of open, no O_CREAT). ERR_NOT_FOUND, ERR_ARG (leads out), ERR_IO.
 */
err jail_open_file(const jail *j, const char *path, int flags, int *fd) MUST_USE;
/* Writes a whole regular file: a new one beside it, renamed into its place. A link of that name is
 * replaced, not followed. *existed: there was a file (its mode is kept). */
err jail_write(const jail *j, const char *path, const char *bytes, size_t length,
               bool *existed) MUST_USE;
/* For a child process about to run a program: from now on it can change files only below the folder
 * and in the folder for temporary files. False: this system cannot do that. */
bool jail_confine(const jail *j);
/* Whether jail_confine would work. */
bool jail_can_confine(void);

#endif
