/* slog.h: the server's logs: lines with a time, in a file that is rotated.
 *
 *     server.log      what happened (always)
 *     http.log        one line for each request (SERVER_HTTP_LOG)
 *     debug/N.*       request, prompt and answer of request N (SERVER_DEBUG); the last 64 of them
 *
 * Secrets: headers are never written; where the API key turns up in a text, it is written as
 * "[key]". Any thread. */
#ifndef SERVER_SLOG_H
#define SERVER_SLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct slog slog;

typedef struct slog_options {
    const char *dir;    /* made if missing (0700); NULL: server.log goes to standard error */
    const char *file;   /* instead of server.log in dir; NULL: that */
    const char *secret; /* the API key; NULL: none */
    bool http, debug;
    size_t file_max; /* a file is renamed to NAME.1 beyond; 0: 8 MiB */
} slog_options;

err slog_open(const slog_options *o, slog **out) MUST_USE;
void slog_close(slog *l);
void slog_line(slog *l, const char *format, ...) PRINTF_LIKE(2, 3);
void slog_http(slog *l, const char *format, ...) PRINTF_LIKE(2, 3);
bool slog_debugs(const slog *l);
/* debug/<serial>.<what> */
void slog_debug(slog *l, uint64_t serial, const char *what, const char *bytes, size_t length);

#endif
