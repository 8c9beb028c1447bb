/* server_files.h: where a running server leaves its traces, and finding and ending it again.
 *
 *     ~/.config/flashchat/server.pid     pid, start time, host, port, model, signature: written
 *                                        after the server's health was seen, removed when it has
 *                                        ended
 *     ~/.config/flashchat/logs/          server.log, http.log, debug/
 *
 * (Below $XDG_CONFIG_HOME where that is set.) A pid is only trusted together with the time at which
 * its process started: numbers are used again. */
#ifndef FLASHCHAT_SERVER_FILES_H
#define FLASHCHAT_SERVER_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define STATE_PATH_MAX 4096

#define SIGNATURE_MAX 17

typedef struct server_trace {
    pid_t pid;
    unsigned long long started; /* of the process, in the system's ticks */
    char host[256], model[256];
    char signature[SIGNATURE_MAX]; /* of what it was started with (server_life.h); may be "" */
    int port;
    bool tls, background; /* background: no person's terminal holds it */
} server_trace;

/* ~/.config/flashchat/NAME; makes the folder (0700). False without a home. */
bool state_path(const char *name, char out[STATE_PATH_MAX]);

bool server_trace_write(const server_trace *t);
/* False: there is none, or it cannot be read. */
bool server_trace_read(server_trace *out);
void server_trace_remove(void);
/* The process of the trace is still the one that wrote it. */
bool trace_alive(const server_trace *t);
unsigned long long process_started(pid_t pid); /* 0: no such process */

/* GET /health of host:port says that a flashchat server is well; waits at most timeout_ms. tls:
 * only that the port answers. */
bool server_healthy(const char *host, int port, bool tls, int timeout_ms);
/* The same without TLS, and what it answered, cut at size. */
bool server_health(const char *host, int port, int timeout_ms, char *json, size_t size);
/* Something listens there. */
bool port_answers(const char *host, int port, int timeout_ms);

/* The process that listens on this port of this machine, is a flashchat and belongs to this user;
 * 0: none. */
pid_t server_on_port(int port);

#endif
