/* claim.c: see claim.h. */
#include "engine/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/json.h"

#define CLAIM_BYTES_MAX ((size_t)64 << 10) /* of one file */
#define LOCK_TRIES      100
#define LOCK_PAUSE_US   20000 /* between two tries: two seconds in all */

struct claim {
    int fd; /* locked */
    char path[PATH_MAX];
};

/* What the others have claimed. */
typedef struct others {
    int n;
    uint64_t memory;
    struct { /* the one that has claimed most */
        uint64_t memory;
        long process;
        char model[256];
    } largest;
} others;

/* The folder's lock; -1 where it cannot be had. */
static int lock_folder(const char *dir) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/engines.lock", dir);
    if (n < 0 || n >= PATH_MAX) return -1;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
        if (errno != EWOULDBLOCK && errno != EINTR) break;
        usleep(LOCK_PAUSE_US);
    }
    if (fd >= 0) close(fd);
    return -1;
}

static void add_other(others *o, const char *path) {
    json_t *said = NULL;
    err e = json_read_file(path, CLAIM_BYTES_MAX, &said);
    json_int_t memory = json_integer_value(json_object_get(said, "memory"));
    if (!e.code && memory > 0) {
        o->n++;
        o->memory += size_min((size_t)memory, SIZE_MAX / CLAIM_FILES_MAX);
        if ((uint64_t)memory > o->largest.memory) {
            const char *model = json_string_value(json_object_get(said, "model"));
            o->largest.memory = (uint64_t)memory;
            o->largest.process = (long)json_integer_value(json_object_get(said, "process"));
            snprintf(o->largest.model, sizeof o->largest.model, "%s", model ? model : "?");
        }
    }
    json_decref(said);
}

/* Adds what living engines claim; removes what dead ones left. */
static void look_around(const char *dir, others *o) {
    DIR *d = opendir(dir);
    int left = CLAIM_FILES_MAX;
    for (struct dirent *entry; d && left-- > 0 && (entry = readdir(d));) {
        char path[PATH_MAX];
        if (strncmp(entry->d_name, "engine-", 7) != 0) continue;
        int n = snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (n < 0 || n >= PATH_MAX) continue;
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlink(path);
        else if (errno == EWOULDBLOCK)
            add_other(o, path);
        close(fd);
    }
    if (d) closedir(d);
}

static err check(const claim_wish *w, const others *o) {
    if (w->force || o->n == 0) return err_none();
    if (w->memory <= w->machine && o->memory <= w->machine - w->memory) return err_none();
    double gib = 1073741824.0;
    char also[64] = "";
    if (o->n > 1)
        snprintf(also, sizeof also, " (%d engines together %.2f GiB)", o->n,
                 (double)o->memory / gib);
    return err_make(ERR_BUSY,
                    "another engine is running: process %ld may take %.2f GiB for %s%s; with the "
                    "%.2f GiB of this one that is more than the %.2f GiB of this machine",
                    o->largest.process, (double)o->largest.memory / gib, o->largest.model, also,
                    (double)w->memory / gib, (double)w->machine / gib);
}

/* Writes and locks this engine's file; NULL where that does not work. */
static claim *write_claim(const claim_wish *w) {
    claim *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    int n = snprintf(c->path, sizeof c->path, "%s/engine-XXXXXX", w->dir);
    c->fd = n > 0 && n < PATH_MAX ? mkostemp(c->path, O_CLOEXEC) : -1;
    if (c->fd < 0) {
        free(c);
        return NULL;
    }
    json_t *said =
        json_pack("{s:I, s:I}", "process", (json_int_t)getpid(), "memory", (json_int_t)w->memory);
    json_object_set_new(said, "model", json_string(w->model)); /* not at all if no UTF-8 */
    bool good = said && json_dumpfd(said, c->fd, 0) == 0 && flock(c->fd, LOCK_EX | LOCK_NB) == 0;
    json_decref(said);
    if (good) return c;
    claim_close(c);
    return NULL;
}

err claim_open(const claim_wish *w, claim **out) {
    *out = NULL;
    int lock = lock_folder(w->dir);
    if (lock < 0) return err_none();
    others o = {0};
    look_around(w->dir, &o);
    err e = check(w, &o);
    if (!e.code) *out = write_claim(w);
    close(lock);
    return e;
}

void claim_close(claim *c) {
    if (!c) return;
    unlink(c->path);
    close(c->fd);
    free(c);
}
