/* web_watch.c: the watcher of the HTTP front: everything that happens because time passes.
 *
 * Ten times a second it looks at every connection: did a waiting client leave (poll), was a stream
 * silent for long (its keep-alive goes out), does a client send or read too slowly (its socket is
 * shut down; the front thread then sees the end and cleans up). A socket's number cannot be used
 * anew meanwhile: the front takes a connection off the list, under the same lock, before it closes
 * the socket. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/os.h"
#include "server/web_impl.h"

#define TICK_MS 100

void web_phase_set(web_exchange *x, web_phase phase) {
    pthread_mutex_lock(&x->h->lock);
    if (x->conn) {
        x->conn->phase = phase;
        x->conn->since_ns = os_now_ns();
        x->conn->x = phase == WEB_WAITING || phase == WEB_STREAMING ? x : NULL;
    }
    pthread_mutex_unlock(&x->h->lock);
}

static void shut(web_conn *c) {
    if (c->ended) return;
    c->ended = true;
    shutdown(c->fd, SHUT_RDWR);
}

void web_evict(web_server *h) {
    web_conn *oldest = NULL;
    for (web_conn *c = h->conns; c; c = c->next)
        if (!c->ended && c->phase <= WEB_SENDING && (!oldest || c->since_ns < oldest->since_ns))
            oldest = c;
    if (!oldest) return;
    shut(oldest);
    atomic_fetch_add(&h->evicted, 1);
}

/* Seconds that a phase may take; 0: as long as it needs. */
static int phase_seconds(const web_server *h, web_phase phase) {
    switch (phase) {
    case WEB_IDLE: return h->o.idle_seconds;
    case WEB_SENDING: return h->o.send_seconds;
    case WEB_ANSWERING: return 10 * h->o.send_seconds;
    case WEB_WAITING:
    case WEB_STREAMING: break;
    }
    return 0;
}

/* A stream: keep-alive into silence; true when its reader takes nothing for too long. */
static bool stream_tick(web_exchange *x, uint64_t now) {
    pthread_mutex_lock(&x->lock);
    uint64_t silent = now > x->output_ns ? now - x->output_ns : 0;
    size_t left = x->out.length - x->out_at;
    bool stuck = left > 0 && silent > (uint64_t)x->h->o.send_seconds * 1000000000u;
    bool ping = x->streaming && x->ping && !x->ended && left == 0 &&
                silent > (uint64_t)x->h->o.ping_ms * 1000000u;
    const char *text = x->ping;
    pthread_mutex_unlock(&x->lock);
    if (ping) web_stream_write(x, text, strlen(text));
    return stuck;
}

typedef struct watch_list {
    struct pollfd *polls;
    web_exchange **who; /* a reference each */
    int n, capacity;
} watch_list;

static void watch_add(watch_list *l, web_conn *c) {
    if (l->n == l->capacity) {
        int more = l->capacity ? 2 * l->capacity : 64;
        struct pollfd *p = realloc(l->polls, (size_t)more * sizeof *p);
        if (p) l->polls = p;
        web_exchange **w = realloc(l->who, (size_t)more * sizeof *w);
        if (w) l->who = w;
        if (!p || !w) return;
        l->capacity = more;
    }
    web_exchange_take(c->x);
    l->polls[l->n] = (struct pollfd){.fd = c->fd, .events = POLLRDHUP};
    l->who[l->n++] = c->x;
}

static void tick(web_server *h, watch_list *l) {
    uint64_t now = os_now_ns();
    l->n = 0;
    pthread_mutex_lock(&h->lock);
    for (web_conn *c = h->conns; c; c = c->next) {
        int seconds = phase_seconds(h, c->phase);
        if (seconds && now > c->since_ns && now - c->since_ns > (uint64_t)seconds * 1000000000u)
            shut(c);
        if (c->x) watch_add(l, c);
    }
    /* Polled under the lock, without waiting: a descriptor cannot be somebody else's by then. */
    if (l->n) poll(l->polls, (nfds_t)l->n, 0);
    pthread_mutex_unlock(&h->lock);
    for (int i = 0; i < l->n; i++) {
        bool left = l->polls[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
        if (left || stream_tick(l->who[i], now)) web_exchange_gone(l->who[i]);
        web_exchange_release(l->who[i]);
    }
}

void *web_watch(void *server) {
    web_server *h = server;
    watch_list l = {0};
    while (!atomic_load(&h->closing)) {
        tick(h, &l);
        nanosleep(&(struct timespec){.tv_nsec = TICK_MS * 1000000L}, NULL);
    }
    free(l.polls);
    free(l.who);
    return NULL;
}
