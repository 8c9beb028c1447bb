/* web.c: the front thread: libmicrohttpd's callbacks, and the workers' queue (see web.h).
 *
 * The life of an exchange, as libmicrohttpd calls us: uri_seen makes it; access() is called once
 * with the headers, then with each piece of the body, then with nothing: the request is complete
 * and goes to a worker. The connection is suspended until somebody has an answer; access() is then
 * called again and queues it. completed() is always the last call. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "server/web_impl.h"

/* ---- workers ---- */

static bool work_push(web_server *h, web_exchange *x) {
    pthread_mutex_lock(&h->work_lock);
    bool room = h->ring_n < h->o.waiting_max && !h->stopping;
    if (room) {
        h->ring[(h->ring_at + h->ring_n++) % h->o.waiting_max] = x;
        pthread_cond_signal(&h->work);
    }
    pthread_mutex_unlock(&h->work_lock);
    return room;
}

static void *worker(void *ctx) {
    web_server *h = ctx;
    pthread_mutex_lock(&h->work_lock);
    for (;;) {
        while (!h->ring_n && !h->stopping) pthread_cond_wait(&h->work, &h->work_lock);
        if (!h->ring_n) break;
        web_exchange *x = h->ring[h->ring_at];
        h->ring_at = (h->ring_at + 1) % h->o.waiting_max;
        h->ring_n--;
        pthread_mutex_unlock(&h->work_lock);
        h->o.handler(h->o.ctx, x);
        pthread_mutex_lock(&h->work_lock);
    }
    pthread_mutex_unlock(&h->work_lock);
    return NULL;
}

/* ---- libmicrohttpd's callbacks, all on the front thread ---- */

static void refuse(web_exchange *x, int status, const char *message) {
    web_exchange_take(x);
    x->dispatched = true;
    x->h->o.refuse(x->h->o.ctx, x, status, message);
}

/* What is ready goes out; true when the connection goes on. */
static enum MHD_Result deliver(web_exchange *x) {
    pthread_mutex_lock(&x->lock);
    struct MHD_Response *whole = x->response, *r = NULL;
    bool stream = x->streaming && !whole, gone = x->gone;
    int status = x->status;
    x->response = NULL;
    if (stream && !gone) r = web_exchange_stream(x);
    if (whole || r) {
        x->queued = true;
    } else if (!gone && !stream) {
        x->suspended = true;
        MHD_suspend_connection(x->c);
    }
    pthread_mutex_unlock(&x->lock);
    if (!whole && !r) return gone || stream ? MHD_NO : MHD_YES;
    web_phase_set(x, whole ? WEB_ANSWERING : WEB_STREAMING);
    enum MHD_Result ok =
        gone ? MHD_NO : MHD_queue_response(x->c, (unsigned)status, whole ? whole : r);
    MHD_destroy_response(whole ? whole : r);
    return ok;
}

static size_t content_length(const web_exchange *x) {
    const char *text = web_header(x, "Content-Length");
    return text ? (size_t)strtoull(text, NULL, 10) : 0;
}

/* The headers are there. */
static enum MHD_Result first_call(web_exchange *x, const char *method, const char *path) {
    web_server *h = x->h;
    x->seen = true;
    atomic_fetch_add(&h->requests, 1);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->conn = info ? info->socket_context : NULL;
    if (!web_exchange_read(x, method, path)) return MHD_NO;
    web_phase_set(x, WEB_SENDING);
    char text[128];
    if (x->bad_path) {
        refuse(x, 400, "the path contains a zero byte");
    } else if (content_length(x) > h->o.body_max) {
        snprintf(text, sizeof text, "the body has %zu bytes, at most %zu are accepted",
                 content_length(x), h->o.body_max);
        refuse(x, 413, text);
    } else if (h->o.early) {
        web_exchange_take(x);
        x->dispatched = h->o.early(h->o.ctx, x);
        if (!x->dispatched) web_exchange_release(x);
    }
    return x->dispatched ? deliver(x) : MHD_YES;
}

/* A piece of the body. What is too large is read and dropped up to four times the limit, so that
 * the client gets to see the answer. */
static enum MHD_Result take_body(web_exchange *x, const char *bytes, size_t n) {
    web_server *h = x->h;
    x->body_seen += n;
    if (x->body_seen > h->o.body_max) x->too_large = true;
    if (x->body_seen / 4 > h->o.body_max) return MHD_NO;
    if (!x->too_large && !x->no_room) {
        size_t all = atomic_fetch_add(&h->body_bytes, n) + n;
        x->no_room = all > h->o.bodies_max || text_buf_add(&x->body, bytes, n).code;
        if (x->no_room) atomic_fetch_sub(&h->body_bytes, n);
    }
    if (x->too_large || x->no_room) web_body_drop(x);
    return MHD_YES;
}

/* The request is complete. */
static void dispatch(web_exchange *x) {
    web_server *h = x->h;
    x->dispatched = true;
    if (x->too_large || x->no_room) {
        char text[128];
        snprintf(text, sizeof text, "the body is larger than %zu bytes", h->o.body_max);
        refuse(x, x->too_large ? 413 : 503,
               x->too_large ? text : "the server holds too many large requests; try again later");
        return;
    }
    web_exchange_take(x);
    if (h->o.inline_route(h->o.ctx, x->method, x->path)) {
        h->o.handler(h->o.ctx, x);
        return;
    }
    web_phase_set(x, WEB_WAITING);
    if (!work_push(h, x)) {
        web_exchange_release(x);
        refuse(x, 503, "too many requests are waiting; try again later");
    }
}

/* libmicrohttpd's MHD_AccessHandlerCallback: it has eight parameters, whatever we think of that. */
#define ACCESS_PARAMETERS                                                                          \
    (void *ctx, struct MHD_Connection *c, const char *url, const char *method,                     \
     const char *version, const char *upload, size_t *upload_size, void **con_cls)

static enum MHD_Result access_call ACCESS_PARAMETERS {
    (void)ctx, (void)version;
    web_exchange *x = *con_cls;
    if (!x) return MHD_NO; /* no memory when it began */
    x->c = c;
    if (!x->seen) return first_call(x, method, url);
    if (x->dispatched) return deliver(x);
    if (*upload_size > 0) {
        enum MHD_Result ok = take_body(x, upload, *upload_size);
        *upload_size = 0;
        return ok;
    }
    dispatch(x);
    return deliver(x);
}

static void *uri_seen(void *ctx, const char *uri, struct MHD_Connection *c) {
    web_exchange *x = web_exchange_new(ctx, uri);
    if (x) x->c = c;
    return x;
}

static void completed(void *ctx, struct MHD_Connection *c, void **con_cls,
                      enum MHD_RequestTerminationCode how) {
    web_server *h = ctx;
    (void)c;
    web_exchange *x = *con_cls;
    *con_cls = NULL;
    if (!x) return;
    web_phase_set(x, WEB_IDLE);
    pthread_mutex_lock(&x->lock);
    bool early = !x->ended || how != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    x->finished = true;
    x->suspended = false;
    int status = x->queued ? x->status : 0;
    size_t sent = x->sent;
    pthread_mutex_unlock(&x->lock);
    if (early) web_exchange_gone(x);
    if (h->o.log && x->seen) h->o.log(h->o.ctx, x, status, os_now_ns() - x->begun_ns, sent);
    x->conn = NULL;
    web_exchange_release(x);
}

static void conn_begin(web_server *h, struct MHD_Connection *c, void **socket_ctx) {
    web_conn *n = calloc(1, sizeof *n);
    *socket_ctx = n;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!n || !info) return;
    n->fd = info->connect_fd;
    n->since_ns = os_now_ns();
    pthread_mutex_lock(&h->lock);
    n->next = h->conns;
    if (h->conns) h->conns->before = n;
    h->conns = n;
    h->n_conns++;
    if (h->n_conns > h->o.connections - h->o.connections / 8) web_evict(h);
    pthread_mutex_unlock(&h->lock);
}

static void conn_end(web_server *h, web_conn *n) {
    if (!n) return;
    pthread_mutex_lock(&h->lock);
    if (n->before) n->before->next = n->next;
    if (n->next) n->next->before = n->before;
    if (h->conns == n) h->conns = n->next;
    h->n_conns--;
    pthread_mutex_unlock(&h->lock);
    free(n);
}

static void connection(void *ctx, struct MHD_Connection *c, void **socket_ctx,
                       enum MHD_ConnectionNotificationCode what) {
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_begin(ctx, c, socket_ctx);
    } else {
        conn_end(ctx, *socket_ctx);
        *socket_ctx = NULL;
    }
}

/* ---- opening ---- */

#define DEFAULT(field, value)                                                                      \
    if (!h->o.field) h->o.field = value

static void defaults(web_server *h) {
    DEFAULT(host, "127.0.0.1");
    DEFAULT(header_max, (size_t)32 << 10);
    DEFAULT(body_max, (size_t)32 << 20);
    DEFAULT(bodies_max, 8 * h->o.body_max);
    DEFAULT(connections, 512);
    DEFAULT(workers, 2);
    DEFAULT(waiting_max, 256);
    DEFAULT(send_seconds, 60);
    DEFAULT(idle_seconds, 75);
    DEFAULT(ping_ms, 5000);
}

static err listen_on(web_server *h, int *fd) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", h->o.port);
    int rc = getaddrinfo(h->o.host, port, &hints, &list);
    if (rc != 0) return err_make(ERR_ARG, "host %s: %s", h->o.host, gai_strerror(rc));
    int s = -1, one = 1, why = EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a && s < 0; a = a->ai_next) {
        s = os_socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (s < 0) continue;
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(s, a->ai_addr, a->ai_addrlen) == 0 && listen(s, 511) == 0) break;
        why = errno;
        close(s);
        s = -1;
    }
    freeaddrinfo(list);
    if (s < 0 && why == EADDRINUSE)
        return err_make(ERR_BUSY, "port %d of %s is in use; choose another with --port", h->o.port,
                        h->o.host);
    if (s < 0 && why == EADDRNOTAVAIL)
        return err_make(ERR_ARG,
                        "%s is no address of this machine; --host 127.0.0.1 is for this machine "
                        "only, --host 0.0.0.0 listens on all its addresses",
                        h->o.host);
    if (s < 0 && why == EACCES && h->o.port < 1024)
        return err_make(ERR_IO, "port %d is the system's; choose one from 1024 with --port",
                        h->o.port);
    if (s < 0) return err_system(why, "cannot listen on %s port %d", h->o.host, h->o.port);
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    if (getsockname(s, (struct sockaddr *)&bound, &length) == 0)
        h->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                    : ((struct sockaddr_in *)&bound)->sin_port);
    *fd = s;
    return err_none();
}

/* libmicrohttpd reports what clients do wrong; their own answers say it already. */
static void ignore_log(void *ctx, const char *format, va_list arguments) {
    (void)ctx, (void)format, (void)arguments;
}

static err start(web_server *h, int fd) {
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     (h->tls_cert ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, h->tls_cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, h->tls_key},
        {MHD_OPTION_END, 0, NULL},
    };
    if (!h->tls_cert) tls[0] = tls[2];
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, access_call, h, MHD_OPTION_EXTERNAL_LOGGER, ignore_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, uri_seen, h,
        MHD_OPTION_NOTIFY_COMPLETED, completed, h, MHD_OPTION_NOTIFY_CONNECTION, connection, h,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->o.connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        h->o.header_max, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->o.idle_seconds + 5,
        MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (h->daemon) return err_none();
    close(fd);
    return h->tls_cert
               ? err_make(ERR_ARG, "the TLS server could not be started: check the certificate "
                                   "and the key (both PEM)")
               : err_make(ERR_IO, "the HTTP server could not be started");
}

static err start_threads(web_server *h) {
    h->workers = calloc((size_t)h->o.workers, sizeof *h->workers);
    h->ring = calloc((size_t)h->o.waiting_max, sizeof *h->ring);
    if (!h->workers || !h->ring) return err_make(ERR_NOMEM, "no memory for the HTTP server");
    for (; h->n_workers < h->o.workers; h->n_workers++)
        if (pthread_create(&h->workers[h->n_workers], NULL, worker, h) != 0)
            return err_make(ERR_IO, "a worker thread could not be started");
    h->watching = pthread_create(&h->watcher, NULL, web_watch, h) == 0;
    return h->watching ? err_none() : err_make(ERR_IO, "a thread could not be started");
}

err web_open(const web_options *options, web_server **out) {
    *out = NULL;
    web_server *h = calloc(1, sizeof *h);
    if (!h) return err_make(ERR_NOMEM, "no memory for the HTTP server");
    h->o = *options;
    defaults(h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->work_lock, NULL);
    pthread_cond_init(&h->work, NULL);
    if (options->tls_cert) h->tls_cert = strdup(options->tls_cert);
    if (options->tls_key) h->tls_key = strdup(options->tls_key);
    int fd = -1;
    *out = h; /* before the first request can be there: its handler may ask for counters */
    err e = listen_on(h, &fd);
    if (!e.code) e = start_threads(h);
    if (e.code && fd >= 0) close(fd);
    if (!e.code) e = start(h, fd);
    if (e.code) {
        *out = NULL;
        web_close(h);
    }
    return e;
}

int web_port(const web_server *h) { return h->port; }

void web_quiesce(web_server *h) {
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
}

/* libmicrohttpd must not be stopped while connections are suspended: all are told to go. */
static void release_connections(web_server *h) {
    for (int i = 0; i < 200; i++) {
        int left = 0;
        pthread_mutex_lock(&h->lock);
        for (web_conn *c = h->conns; c; c = c->next) {
            if (!c->x) continue;
            left++;
            web_exchange_gone(c->x);
        }
        pthread_mutex_unlock(&h->lock);
        if (!left) return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

void web_close(web_server *h) {
    if (!h) return;
    atomic_store(&h->closing, true);
    if (h->watching) pthread_join(h->watcher, NULL);
    pthread_mutex_lock(&h->work_lock);
    h->stopping = true;
    pthread_cond_broadcast(&h->work);
    pthread_mutex_unlock(&h->work_lock);
    for (int i = 0; i < h->n_workers; i++) pthread_join(h->workers[i], NULL);
    if (h->daemon) {
        release_connections(h);
        MHD_stop_daemon(h->daemon);
    }
    /* Whoever still answers somebody that is gone: the engine, until its next step. */
    while (atomic_load(&h->live) > 0) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->work_lock);
    pthread_cond_destroy(&h->work);
    free(h->workers);
    free(h->ring);
    free(h->tls_cert);
    free(h->tls_key);
    free(h);
}

void web_counters_get(web_server *h, web_counters *out) {
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&h->lock);
    out->connections = h->n_conns;
    for (web_conn *c = h->conns; c; c = c->next) out->held_aside += c->x != NULL;
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&h->work_lock);
    out->waiting = h->ring_n;
    pthread_mutex_unlock(&h->work_lock);
    out->body_bytes = atomic_load(&h->body_bytes);
    out->requests = atomic_load(&h->requests);
    out->evicted = atomic_load(&h->evicted);
}
