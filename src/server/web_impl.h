/* web_impl.h: what the parts of the HTTP front share: web.c (the front thread), web_exchange.c
 * (answers, from any thread), web_watch.c (time).
 *
 * Locks, outermost first: web_server.lock (list of connections), web_exchange.lock (one answer).
 * A connection's phase and time belong to web_server.lock. */
#ifndef SERVER_WEB_IMPL_H
#define SERVER_WEB_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/web.h"
#include "text/text_buf.h"

typedef enum web_phase {
    WEB_IDLE,      /* no request, or its headers are being sent */
    WEB_SENDING,   /* the body is being sent */
    WEB_WAITING,   /* a worker or the engine has it */
    WEB_ANSWERING, /* a whole answer goes out */
    WEB_STREAMING,
} web_phase;

typedef struct web_conn {
    struct web_conn *next, *before;
    int fd;
    web_phase phase;
    uint64_t since_ns; /* start of the phase */
    bool ended;        /* shut down by us: told once */
    web_exchange *x;   /* WAITING, STREAMING: borrowed until its completion */
} web_conn;

typedef struct web_pair {
    char *name, *value; /* owned; value NULL for "?name" */
} web_pair;

struct web_exchange {
    web_server *h;
    struct MHD_Connection *c; /* front thread; others only under lock while !finished */
    web_conn *conn;
    atomic_int refs;
    uint64_t serial, begun_ns;
    /* fixed once the headers are there */
    char *uri, *method, *path;
    web_pair *headers, *query;
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
    web_pair set[WEB_HEADERS_MAX];
    int n_set;
};

struct web_server {
    web_options o;
    char *tls_cert, *tls_key;
    struct MHD_Daemon *daemon;
    int port;
    atomic_size_t body_bytes;
    atomic_ullong serial, requests, evicted;
    atomic_int live; /* exchanges */
    /* workers */
    pthread_mutex_t work_lock;
    pthread_cond_t work;
    web_exchange **ring; /* [waiting_max] */
    int ring_at, ring_n;
    bool stopping;
    pthread_t *workers;
    int n_workers;
    /* connections */
    pthread_mutex_t lock;
    web_conn *conns;
    int n_conns;
    pthread_t watcher;
    bool watching;
    atomic_bool closing;
};

web_exchange *web_exchange_new(web_server *h, const char *uri);
/* The connection goes on (front calls back). Under x->lock. */
void web_exchange_wake(web_exchange *x);
/* Marks it gone, wakes it, tells whoever asked. Any thread, no lock held. */
void web_exchange_gone(web_exchange *x);
/* Copies the headers and the query of the connection. false: no memory. */
bool web_exchange_read(web_exchange *x, const char *method, const char *path);
/* The stream's response, for the front to queue. */
struct MHD_Response *web_exchange_stream(web_exchange *x);

void web_phase_set(web_exchange *x, web_phase phase);
void *web_watch(void *server);
/* Makes room: closes the connection that has been idle or sending for longest. Under h->lock. */
void web_evict(web_server *h);

#endif
