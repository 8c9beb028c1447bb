/* slow_disk.c: see slow_disk.h. */
#include "slow_disk.h"

#ifdef __linux__
#include <assert.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/os.h"
#include "io/io.h"

#define USERS_MAX 16 /* io objects with reads under way */

typedef struct promise {
    io_read *read;
    uint64_t due; /* os_now_ns */
    bool come;    /* the real read has ended */
} promise;

typedef struct user { /* owner thread of its io only, but for io and the search for a free one */
    const io *io;     /* NULL: free */
    int n, n_come;
    promise list[IO_DEPTH_MAX]; /* [n] in the order of starting and of due */
} user;

static double rate; /* fixed after slow_disk_set */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t free_at;      /* under lock: the end of the queue */
static user users[USERS_MAX]; /* under lock: io */

void __real_io_start(io *o, io_read *r);
io_read *__real_io_next(io *o, bool wait);
int __real_io_room(const io *o);
int __real_io_in_flight(const io *o);
void __real_io_close(io *o);
void __wrap_io_start(io *o, io_read *r);
io_read *__wrap_io_next(io *o, bool wait);
int __wrap_io_room(const io *o);
int __wrap_io_in_flight(const io *o);
void __wrap_io_close(io *o);

err slow_disk_set(double bytes_per_second) {
    rate = bytes_per_second;
    return err_none();
}

/* The io's entry, or a new one if make, else NULL. */
static user *user_of(const io *o, bool make) {
    user *found = NULL, *empty = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < USERS_MAX && !found; i++) {
        if (users[i].io == o) found = &users[i];
        if (!users[i].io && !empty) empty = &users[i];
    }
    if (!found && make) {
        assert(empty);
        found = empty;
        found->io = o;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static uint64_t reserve(const io_read *r) {
    uint64_t now = os_now_ns(), takes = (uint64_t)(1e9 * r->bytes / rate);
    pthread_mutex_lock(&lock);
    uint64_t due = free_at = (free_at > now ? free_at : now) + takes;
    pthread_mutex_unlock(&lock);
    return due;
}

void __wrap_io_start(io *o, io_read *r) {
    if (rate > 0) {
        user *u = user_of(o, true);
        u->list[u->n++] = (promise){.read = r, .due = reserve(r)};
    }
    __real_io_start(o, r);
}

static void arrived(user *u, const io_read *r) {
    for (int i = 0; i < u->n; i++)
        if (u->list[i].read == r) u->list[i].come = true;
    u->n_come++;
}

/* The first read that has come and is due, taken off the list. */
static io_read *take(user *u) {
    uint64_t now = os_now_ns();
    for (int i = 0; i < u->n; i++) {
        if (!u->list[i].come || u->list[i].due > now) continue;
        io_read *r = u->list[i].read;
        u->n--;
        u->n_come--;
        for (int k = i; k < u->n; k++) u->list[k] = u->list[k + 1];
        return r;
    }
    return NULL;
}

static void sleep_until(uint64_t due) {
    struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* of this thread; the usual 50 us count here */
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

io_read *__wrap_io_next(io *o, bool wait) {
    user *u = rate > 0 ? user_of(o, false) : NULL;
    if (!u) return __real_io_next(o, wait);
    for (;;) {
        for (io_read *r; (r = __real_io_next(o, false));) arrived(u, r);
        io_read *r = take(u);
        if (r || !wait || u->n == 0) return r;
        if (u->list[0].come)
            sleep_until(u->list[0].due);
        else if ((r = __real_io_next(o, true)))
            arrived(u, r);
    }
}

/* Reads that have come and wait to be due are under way for the caller. */
static int held(const io *o) {
    const user *u = rate > 0 ? user_of(o, false) : NULL;
    return u ? u->n_come : 0;
}

int __wrap_io_room(const io *o) { return __real_io_room(o) - held(o); }
int __wrap_io_in_flight(const io *o) { return __real_io_in_flight(o) + held(o); }

void __wrap_io_close(io *o) {
    user *u = o ? user_of(o, false) : NULL;
    if (u) u->n = u->n_come = 0;
    __real_io_close(o); /* waits for what is in flight */
    if (!u) return;
    pthread_mutex_lock(&lock);
    u->io = NULL;
    pthread_mutex_unlock(&lock);
}
#else
err slow_disk_set(double bytes_per_second) {
    if (bytes_per_second == 0) return err_none();
    return err_make(ERR_UNSUPPORTED, "no slower disk on this system: its linker has no --wrap");
}
#endif
