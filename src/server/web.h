/* web.h: the HTTP front: libmicrohttpd on one thread that never waits for anybody else.
 *
 *     client --> front thread --> worker threads --> whoever answers (the engine's thread)
 *                reads, writes    parse, prepare     web_answer, web_stream_*
 *
 * The front thread reads a request, sets the connection aside and gives it to a worker; what is
 * written by any thread later goes out through the front thread again. So nothing that a request
 * does can delay another: /health is answered on the front thread itself. A watcher thread looks
 * after time: clients that left (their request is told at once, so that no token is made for
 * nobody), clients that send or read too slowly, keep-alive comments in silent streams.
 *
 * Limits (web_options): header bytes, body bytes of one and of all requests, connections,
 * seconds for sending a request. When the connections run out, the one that has been sending or
 * idle for longest is closed, never one that waits for an answer: a flood of silent connections
 * cannot lock anybody out.
 *
 * A client that closes its sending side counts as gone: that looks the same as closing both.
 *
 * Threads: handlers run on workers (or, `inline_route`, on the front thread and must not block);
 * web_answer and web_stream_* from any thread. */
#ifndef SERVER_WEB_H
#define SERVER_WEB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct web_server web_server;
typedef struct web_exchange web_exchange; /* one request and its answer */

/* Takes the request. Exactly one of web_answer and web_stream_begin .. web_stream_end must
 * follow, by any thread; after it the exchange is no longer the handler's. */
typedef void (*web_handler)(void *ctx, web_exchange *x);

typedef struct web_options {
    const char *host;               /* NULL: 127.0.0.1 */
    int port;                       /* 0: any free one */
    const char *tls_cert, *tls_key; /* PEM text; both or none */
    size_t header_max;              /* bytes of one request's headers; 0: 32 KiB */
    size_t body_max;                /* bytes of one body; 0: 32 MiB */
    size_t bodies_max;              /* of all bodies that are held; 0: 8 * body_max */
    int connections;                /* 0: 512 */
    int workers;                    /* 0: 2 */
    int waiting_max;                /* requests waiting for a worker; 0: 256 */
    int send_seconds;               /* a request must be complete after this; 0: 60 */
    int idle_seconds;               /* kept-alive connections without a request; 0: 75 */
    int ping_ms;                    /* silence in a stream before its keep-alive is sent; 0: 5000 */
    web_handler handler;
    /* true: the handler of this request is fast and runs on the front thread. */
    bool (*inline_route)(void *ctx, const char *method, const char *path);
    /* Headers are there, the body is not: answer (web_answer) to refuse, true when it did. May be
     * NULL. Runs on the front thread. */
    bool (*early)(void *ctx, web_exchange *x);
    /* A body or header that the front itself refuses: the answer in the API's own shape. */
    void (*refuse)(void *ctx, web_exchange *x, int status, const char *message);
    /* A line for the access log. May be NULL. */
    void (*log)(void *ctx, const web_exchange *x, int status, uint64_t ns, size_t bytes);
    void *ctx;
} web_options;

/* Listens and serves until web_close. ERR_IO when the address cannot be had (it is named). */
err web_open(const web_options *options, web_server **out) MUST_USE;
/* Stops listening; connections go on. New requests on them are still handled. */
void web_quiesce(web_server *h);
/* Ends every connection, telling those that wait for their on_gone, joins the threads and waits
 * until every exchange was answered or ended by whoever holds it. */
void web_close(web_server *h);
int web_port(const web_server *h);

typedef struct web_counters {
    int connections, waiting, held_aside;
    size_t body_bytes;
    uint64_t requests, evicted;
} web_counters;
void web_counters_get(web_server *h, web_counters *out);

/* For those who look at an exchange after somebody else may have answered it. */
void web_exchange_take(web_exchange *x);
void web_exchange_release(web_exchange *x);

/* ---- the request; valid until it is answered ---- */

const char *web_method(const web_exchange *x);
const char *web_path(const web_exchange *x);                    /* decoded, without the query */
const char *web_query(const web_exchange *x, const char *name); /* NULL when absent */
const char *web_header(const web_exchange *x, const char *name);
const char *web_body(const web_exchange *x, size_t *length);
const char *web_peer(const web_exchange *x);
uint64_t web_serial(const web_exchange *x); /* 1, 2, 3 ... */
/* The body is no longer needed: gives its memory back early. */
void web_body_drop(web_exchange *x);

/* Headers of every answer of this exchange, before it begins; at most WEB_HEADERS_MAX. Both are
 * copied; a control character in value is refused silently (an answer must not be split). */
#define WEB_HEADERS_MAX 8
void web_set_header(web_exchange *x, const char *name, const char *value);

/* ---- the answer ---- */

/* The whole answer; bytes are copied. type NULL: application/json. */
void web_answer(web_exchange *x, int status, const char *type, const char *bytes, size_t length);

/* Told once when the client is gone before the answer's end; at once if it is gone already. Not
 * called, nor running, after web_stream_end or web_answer has returned. From the watcher or front
 * thread, with the exchange locked: it must not call web_*. */
void web_on_gone(web_exchange *x, void (*gone)(void *ctx), void *ctx);

/* A stream with status 200. ping (a literal): what is sent into silence, unless web_stream_ping
 * said so already. Writing and ending may come before, from another thread. */
void web_stream_begin(web_exchange *x, const char *type, const char *ping);
/* Queues bytes (copied). false: nobody reads any more (gone, or WEB_BACKLOG_MAX behind). */
bool web_stream_write(web_exchange *x, const char *bytes, size_t length);
void web_stream_end(web_exchange *x);
/* From now on this (a literal) goes into silence. */
void web_stream_ping(web_exchange *x, const char *ping);
#define WEB_BACKLOG_MAX ((size_t)8 << 20)

#endif
