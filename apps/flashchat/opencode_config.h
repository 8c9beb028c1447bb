/* opencode_config.h: OpenCode's settings, as far as this server's entry in them goes.
 *
 *     {"provider": {"flashchat": {"npm": ..., "name": ..., "options": {"baseURL": URL},
 *                                 "models": {MODEL: {"name": ..., "limit": {...}}}}}}
 *
 * OpenCode merges its files: ~/.config/opencode/opencode.json, then the nearest opencode.json of
 * the folder and those above it. Files with comments (.jsonc, or JSON that only OpenCode reads) are
 * understood but never written: the comments would be lost. */
#ifndef OPENCODE_CONFIG_H
#define OPENCODE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "files.h"

typedef struct opencode_server {
    char base_url[320]; /* http://127.0.0.1:8000/v1 */
    char model[256];
    int context;
    bool key; /* it asks for one */
} opencode_server;

typedef enum opencode_state {
    OPENCODE_ABSENT, /* no file names this server */
    OPENCODE_OTHER,  /* the entry is there with another address or without the model */
    OPENCODE_READY,
} opencode_state;

typedef struct opencode_config {
    opencode_state state;
    char path[PATH_TEXT_MAX]; /* the file that has the entry, or that should get it */
    bool exists, plain;       /* plain: without comments, so that it may be written */
} opencode_config;

/* The entry as the file should have it (new reference); NULL without memory. */
json_t *opencode_entry(const opencode_server *s);
/* Looks into the files for the folder the process is in. ERR_CORRUPT names a file that is no JSON
 * and the line. */
err opencode_look(const opencode_server *s, opencode_config *out) MUST_USE;
/* Puts the entry into the file; everything else in it stays, in its order. Atomic. */
err opencode_write(const opencode_server *s, const opencode_config *c) MUST_USE;

#endif
