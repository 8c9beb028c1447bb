/* web_exchange.c: one request and its answer, from whatever thread (see web.h).
 *
 * The connection is "suspended" while there is nothing to do for the front thread; whoever has
 * something resumes it, under the exchange's lock, so that nobody touches a connection that the
 * front has already finished. */
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/os.h"
#include "server/web_impl.h"

web_exchange *web_exchange_new(web_server *h, const char *uri) {
    web_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->h = h;
    x->refs = 1;
    atomic_fetch_add(&h->live, 1);
    x->serial = atomic_fetch_add(&h->serial, 1) + 1;
    x->begun_ns = os_now_ns();
    x->uri = strdup(uri ? uri : "");
    pthread_mutex_init(&x->lock, NULL);
    if (!x->uri) {
        web_exchange_release(x);
        return NULL;
    }
    x->bad_path = strstr(x->uri, "%00") != NULL;
    return x;
}

static void pairs_free(web_pair *p, int n) {
    for (int i = 0; i < n; i++) {
        free(p[i].name);
        free(p[i].value);
    }
}

void web_exchange_take(web_exchange *x) { atomic_fetch_add(&x->refs, 1); }

void web_exchange_release(web_exchange *x) {
    if (atomic_fetch_sub(&x->refs, 1) != 1) return;
    web_body_drop(x);
    pairs_free(x->headers, x->n_headers);
    pairs_free(x->query, x->n_query);
    pairs_free(x->set, x->n_set);
    free(x->headers);
    free(x->query);
    free(x->uri);
    free(x->method);
    free(x->path);
    text_buf_free(&x->out);
    if (x->response) MHD_destroy_response(x->response);
    pthread_mutex_destroy(&x->lock);
    web_server *h = x->h;
    free(x);
    atomic_fetch_sub(&h->live, 1);
}

/* ---- reading the request ---- */

typedef struct collect {
    web_pair *pairs;
    int n;
    bool failed;
} collect;

static enum MHD_Result collect_one(void *ctx, enum MHD_ValueKind kind, const char *key,
                                   const char *value) {
    (void)kind;
    collect *c = ctx;
    web_pair *grown = realloc(c->pairs, (size_t)(c->n + 1) * sizeof *grown);
    if (grown) c->pairs = grown;
    char *k = strdup(key ? key : ""), *v = value ? strdup(value) : NULL;
    if (!grown || !k || (value && !v)) {
        free(k);
        free(v);
        c->failed = true;
        return MHD_NO;
    }
    c->pairs[c->n++] = (web_pair){k, v};
    return MHD_YES;
}

static void peer_name(web_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    socklen_t length = a && a->sa_family == AF_INET6 ? (socklen_t)sizeof(struct sockaddr_in6)
                                                     : (socklen_t)sizeof(struct sockaddr_in);
    if (!a || getnameinfo(a, length, x->peer, sizeof x->peer, NULL, 0, NI_NUMERICHOST) != 0)
        memcpy(x->peer, "?", 2);
}

bool web_exchange_read(web_exchange *x, const char *method, const char *path) {
    collect headers = {0}, query = {0};
    MHD_get_connection_values(x->c, MHD_HEADER_KIND, collect_one, &headers);
    MHD_get_connection_values(x->c, MHD_GET_ARGUMENT_KIND, collect_one, &query);
    x->headers = headers.pairs;
    x->n_headers = headers.n;
    x->query = query.pairs;
    x->n_query = query.n;
    x->method = strdup(method);
    x->path = strdup(path);
    peer_name(x);
    return !headers.failed && !query.failed && x->method && x->path;
}

const char *web_method(const web_exchange *x) { return x->method ? x->method : ""; }
const char *web_path(const web_exchange *x) { return x->path ? x->path : ""; }
const char *web_peer(const web_exchange *x) { return x->peer; }
uint64_t web_serial(const web_exchange *x) { return x->serial; }

const char *web_query(const web_exchange *x, const char *name) {
    for (int i = 0; i < x->n_query; i++)
        if (strcmp(x->query[i].name, name) == 0) return x->query[i].value ? x->query[i].value : "";
    return NULL;
}

const char *web_header(const web_exchange *x, const char *name) {
    for (int i = 0; i < x->n_headers; i++)
        if (strcasecmp(x->headers[i].name, name) == 0) return x->headers[i].value;
    return NULL;
}

const char *web_body(const web_exchange *x, size_t *length) {
    *length = x->body.length;
    return x->body.data ? x->body.data : "";
}

void web_body_drop(web_exchange *x) {
    atomic_fetch_sub(&x->h->body_bytes, x->body.length);
    text_buf_free(&x->body);
}

/* ---- answering ---- */

void web_set_header(web_exchange *x, const char *name, const char *value) {
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return;
    char *n = strdup(name), *v = strdup(value);
    pthread_mutex_lock(&x->lock);
    bool kept = n && v && x->n_set < WEB_HEADERS_MAX;
    if (kept) x->set[x->n_set++] = (web_pair){n, v};
    pthread_mutex_unlock(&x->lock);
    if (kept) return;
    free(n);
    free(v);
}

void web_exchange_wake(web_exchange *x) {
    if (!x->suspended || x->finished) return;
    x->suspended = false;
    MHD_resume_connection(x->c);
}

static void add_headers(web_exchange *x, struct MHD_Response *r, const char *type) {
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (int i = 0; i < x->n_set; i++) MHD_add_response_header(r, x->set[i].name, x->set[i].value);
}

void web_answer(web_exchange *x, int status, const char *type, const char *bytes, size_t length) {
    struct MHD_Response *r =
        MHD_create_response_from_buffer(length, (void *)(uintptr_t)bytes, MHD_RESPMEM_MUST_COPY);
    web_body_drop(x);
    pthread_mutex_lock(&x->lock);
    if (r) add_headers(x, r, type ? type : "application/json");
    if (!r) x->gone = true; /* no memory: the connection is closed */
    x->response = r;
    x->status = status;
    x->ended = true;
    x->sent = length;
    x->on_gone = NULL;
    web_exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    web_exchange_release(x);
}

void web_stream_begin(web_exchange *x, const char *type, const char *ping) {
    web_body_drop(x);
    pthread_mutex_lock(&x->lock);
    x->streaming = true;
    x->status = 200;
    x->type = type;
    if (!x->ping) x->ping = ping;
    x->output_ns = os_now_ns();
    web_exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
}

void web_stream_ping(web_exchange *x, const char *ping) {
    pthread_mutex_lock(&x->lock);
    x->ping = ping;
    pthread_mutex_unlock(&x->lock);
}

bool web_stream_write(web_exchange *x, const char *bytes, size_t length) {
    pthread_mutex_lock(&x->lock);
    if (x->out_at > 0 && x->out_at == x->out.length) x->out_at = x->out.length = 0;
    bool ok = !x->gone && !x->finished && !x->ended &&
              x->out.length - x->out_at + length <= WEB_BACKLOG_MAX;
    if (ok && x->out_at > (1u << 16)) {
        text_buf_drop(&x->out, x->out_at);
        x->out_at = 0;
    }
    if (ok) ok = text_buf_add(&x->out, bytes, length).code == ERR_NONE;
    if (ok) {
        x->output_ns = os_now_ns();
        web_exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
    return ok;
}

void web_stream_end(web_exchange *x) {
    pthread_mutex_lock(&x->lock);
    x->ended = true;
    x->on_gone = NULL;
    web_exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    web_exchange_release(x);
}

/* The front asks for the next bytes of a stream. */
static ssize_t stream_read(void *ctx, uint64_t at, char *out, size_t max) {
    (void)at;
    web_exchange *x = ctx;
    ssize_t result = 0;
    pthread_mutex_lock(&x->lock);
    size_t left = x->out.length - x->out_at;
    if (x->gone) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (left > 0) {
        size_t n = left < max ? left : max;
        memcpy(out, x->out.data + x->out_at, n);
        x->out_at += n;
        x->sent += n;
        x->output_ns = os_now_ns();
        result = (ssize_t)n;
    } else if (x->ended) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        x->suspended = true;
        MHD_suspend_connection(x->c);
    }
    pthread_mutex_unlock(&x->lock);
    return result;
}

struct MHD_Response *web_exchange_stream(web_exchange *x) {
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, x, NULL);
    if (!r) return NULL;
    add_headers(x, r, x->type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    return r;
}

void web_on_gone(web_exchange *x, void (*gone)(void *ctx), void *ctx) {
    pthread_mutex_lock(&x->lock);
    bool now = x->gone || (x->finished && !x->ended);
    if (now) {
        gone(ctx);
    } else if (!x->ended) {
        x->on_gone = gone;
        x->on_gone_ctx = ctx;
    }
    pthread_mutex_unlock(&x->lock);
}

void web_exchange_gone(web_exchange *x) {
    pthread_mutex_lock(&x->lock);
    void (*tell)(void *) = x->gone ? NULL : x->on_gone;
    void *ctx = x->on_gone_ctx;
    x->gone = true;
    x->on_gone = NULL;
    if (tell) tell(ctx); /* under the lock: after web_stream_end it can no longer be running */
    web_exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
}
