/* http_impl.h: what the parts of the HTTP front share: http.c (the front thread), http_exchange.c
 * (answers, from any thread), http_watch.c (time).
 *
 * Locks, outermost first: http_server.lock (list of connections), http_exchange.lock (one answer).
 * A connection's phase and time belong to http_server.lock. */
#ifndef SERVER_HTTP_IMPL_H
#define SERVER_HTTP_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/http.h"
#include "text/text_buf.h"

typedef enum http_phase {
    HTTP_IDLE,      /* no request, or its headers are being sent */
    HTTP_SENDING,   /* the body is being sent */
    HTTP_WAITING,   /* a worker or the engine has it */
    HTTP_ANSWERING, /* a whole answer goes out */
    HTTP_STREAMING,
} http_phase;

typedef struct http_conn {
    struct http_conn *next, *before;
    int fd;
    http_phase phase;
    uint64_t since_ns; /* start of the phase */
    bool ended;        /* shut down by us: told once */
    http_exchange *x;  /* WAITING, STREAMING: borrowed until its completion */
} http_conn;

typedef struct http_pair {
    char *name, *value; /* owned; value NULL for "?name" */
} http_pair;

struct http_exchange {
    http_server *h;
    struct MHD_Connection *c; /* front thread; others only under lock while !finished */
    http_conn *conn;
    atomic_int refs;
    uint64_t serial, begun_ns;
    /* fixed once the headers are there */
    char *uri, *method, *path;
    http_pair *headers, *query;
    int n_headers, n_query;
    char peer[64];
    /* front thread, then whoever handles it */
    text_buf body;
    size_t body_seen;
    bool seen, dispatched, too_large, no_room, bad_path;
    /* under lock */
    pthread_mutex_t lock;
    bool gone, finished, suspended, streaming, queued, ended, released;
    struct MHD_Response *response; /* a whole answer */
    int status;
    text_buf out; /* of a stream; [out_at ..) is still to go */
    size_t out_at, sent;
    uint64_t output_ns; /* the last time that the client took or was sent something */
    const char *ping, *type;
    void (*on_gone)(void *);
    void *on_gone_ctx;
    http_pair set[HTTP_HEADERS_MAX];
    int n_set;
};

struct http_server {
    http_options o;
    char *tls_cert, *tls_key;
    struct MHD_Daemon *daemon;
    int port;
    atomic_size_t body_bytes;
    atomic_ullong serial, requests, evicted;
    atomic_int live; /* exchanges */
    /* workers */
    pthread_mutex_t work_lock;
    pthread_cond_t work;
    http_exchange **ring; /* [waiting_max] */
    int ring_at, ring_n;
    bool stopping;
    pthread_t *workers;
    int n_workers;
    /* connections */
    pthread_mutex_t lock;
    http_conn *conns;
    int n_conns;
    pthread_t watcher;
    bool watching;
    atomic_bool closing;
};

http_exchange *http_exchange_new(http_server *h, const char *uri);
/* The connection goes on (front calls back). Under x->lock. */
void http_exchange_wake(http_exchange *x);
/* Marks it gone, wakes it, tells whoever asked. Any thread, no lock held. */
void http_exchange_gone(http_exchange *x);
/* Copies the headers and the query of the connection. false: no memory. */
bool http_exchange_read(http_exchange *x, const char *method, const char *path);
/* The stream's response, for the front to queue. */
struct MHD_Response *http_exchange_stream(http_exchange *x);

void http_phase_set(http_exchange *x, http_phase phase);
void *http_watch(void *server);
/* Makes room: closes the connection that has been idle or sending for longest. Under h->lock. */
void http_evict(http_server *h);

#endif
