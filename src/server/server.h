/* server.h: the HTTP server: any model behind the OpenAI and Anthropic APIs. The face of server/.
 *
 *     web.h (front, workers) -> routes (server.c) -> generate.c -> engine/sched.h
 *                                                        |  each token
 *                                   emit_*.h <- reply.h <-
 *
 * server_open listens and returns; the threads do the rest until server_close. docs/SERVER.md lists
 * every endpoint and field. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "server/port.h"
#include "server/slog.h"

typedef struct server server;

/* What an answer begins with, for tests of clients. */
typedef struct server_script {
    char *text; /* owned by the server */
    int more;   /* then so many tokens of the model, without calls; 0: the turn is over */
} server_script;

typedef struct server_options {
    const port *port;               /* borrowed until close */
    slog *log;                      /* borrowed until close; may be NULL */
    const char *host;               /* NULL: 127.0.0.1 */
    int listen_port;                /* 0: any free one */
    const char *api_key;            /* NULL: none asked for */
    const char *cors;               /* an origin, or "*"; NULL: no other origin may use it */
    const char *tls_cert, *tls_key; /* PEM text */
    const char *const *aliases;     /* further names of the model; NULL-terminated; may be NULL */
    size_t body_max;                /* 0: 32 MiB */
    int connections;                /* 0: 512 */
    int queue_max;                  /* requests waiting for a session; 0: 64 */
    int request_seconds;            /* 0: 3600 */
    int send_seconds;               /* 0: 60 */
    int ping_ms;                    /* 0: 5000 */
    int workers;                    /* 0: 2 */
    /* Test builds only: false: the answer is the model's. */
    bool (*script)(void *ctx, const request *r, server_script *out);
    void *script_ctx;
} server_options;

err server_open(const server_options *o, server **out) MUST_USE;
int server_port(const server *s);
/* No new connections, no new work; waits for what runs, at most timeout_ms, then cancels it. true:
 * all of it ended by itself. */
bool server_drain(server *s, int timeout_ms);
void server_close(server *s);

#endif
