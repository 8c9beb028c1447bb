/* pieces.c: see pieces.h. */
#include "hub/pieces.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub/hub_impl.h"

static err piece_path(const hub_place *p, const char *etag, uint64_t start, char *out) {
    char name[HUB_ETAG_MAX + 40];
    snprintf(name, sizeof name, "%s.range-%llu", etag, (unsigned long long)start);
    return hub_join(out, p->blobs, name);
}

/* START of a file's name, when it is a piece of this blob. */
static bool piece_start(const char *name, const char *etag, uint64_t *start) {
    size_t n = strlen(etag);
    char *end;
    if (strncmp(name, etag, n) || strncmp(name + n, ".range-", 7)) return false;
    const char *digits = name + n + 7;
    errno = 0;
    *start = strtoull(digits, &end, 10);
    return *digits >= '0' && *digits <= '9' && !*end && !errno;
}

static int by_start(const void *a, const void *b) {
    const piece *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static err open_piece(const hub_place *p, const char *etag, piece *part) {
    char path[HUB_PATH_MAX];
    TRY(piece_path(p, etag, part->start, path));
    part->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    return part->fd < 0 ? err_system(errno, "cannot write %s", path) : err_none();
}

static void delete_piece(const hub_place *p, const char *etag, piece *part) {
    char path[HUB_PATH_MAX];
    if (part->fd >= 0) close(part->fd);
    part->fd = -1;
    if (!piece_path(p, etag, part->start, path).code) unlink(path);
}

/* Every piece on the drive to visit, at most LOOKED_MAX of them; then in order. */
#define LOOKED_MAX 256

static int look(const hub_place *p, const char *etag, piece *out) {
    DIR *d = opendir(p->blobs);
    int n = 0;
    for (struct dirent *f; d && n < LOOKED_MAX && (f = readdir(d));) {
        char path[HUB_PATH_MAX];
        struct stat s;
        uint64_t start;
        if (!piece_start(f->d_name, etag, &start) || hub_join(path, p->blobs, f->d_name).code ||
            lstat(path, &s) != 0)
            continue;
        uint64_t have = S_ISREG(s.st_mode) ? (uint64_t)s.st_size : 0;
        out[n++] = (piece){.start = start, .end = start + have, .have = have, .fd = -1};
    }
    if (d) closedir(d);
    qsort(out, (size_t)n, sizeof *out, by_start);
    return n;
}

err pieces_find(const hub_place *p, const char *etag, uint64_t size, uint64_t offset,
                piece_list *out) {
    piece found[LOOKED_MAX];
    int n = look(p, etag, found);
    *out = (piece_list){.n = 0};
    for (int i = 0; i < n; i++) {
        piece *f = &found[i];
        uint64_t before = out->n ? out->all[out->n - 1].end : offset;
        bool first = out->n == 0;
        bool good = f->have && f->end > f->start && f->end <= size && f->end > before &&
                    (first || f->start >= before) && out->n < PIECES_MAX;
        if (!good) {
            delete_piece(p, etag, f);
            continue;
        }
        if (f->start < offset) f->taken = offset - f->start; /* cut while it was appended */
        err e = open_piece(p, etag, f);
        if (e.code) return pieces_close(out), e;
        out->all[out->n++] = *f;
    }
    return err_none();
}

err pieces_add(const hub_place *p, const char *etag, uint64_t start, uint64_t end, piece_list *l,
               piece **out) {
    *out = NULL;
    if (l->n == PIECES_MAX) return err_make(ERR_RANGE, "more than %d pieces", PIECES_MAX);
    piece fresh = {.start = start, .end = end, .fd = -1, .busy = true};
    TRY(open_piece(p, etag, &fresh));
    if (ftruncate(fresh.fd, 0) != 0) {
        int number = errno;
        close(fresh.fd);
        return err_system(number, "a piece of %s", etag);
    }
    l->all[l->n] = fresh;
    *out = &l->all[l->n++];
    return err_none();
}

piece *pieces_at(piece_list *l, uint64_t start) {
    for (int i = 0; i < l->n; i++)
        if (l->all[i].start == start) return &l->all[i];
    return NULL;
}

void pieces_remove(const hub_place *p, const char *etag, piece_list *l, uint64_t start) {
    piece *part = pieces_at(l, start);
    if (!part) return;
    delete_piece(p, etag, part);
    size_t after = (size_t)(&l->all[l->n] - part - 1);
    memmove(part, part + 1, after * sizeof *part);
    l->n--;
}

void pieces_close(piece_list *l) {
    for (int i = 0; i < l->n; i++)
        if (l->all[i].fd >= 0) close(l->all[i].fd);
    l->n = 0;
}

uint64_t pieces_bytes(const piece_list *l) {
    uint64_t sum = 0;
    for (int i = 0; i < l->n; i++) sum += l->all[i].have - l->all[i].taken;
    return sum;
}

uint64_t pieces_on_disk(const hub_place *p, const char *etag) {
    piece found[LOOKED_MAX];
    uint64_t sum = 0;
    int n = look(p, etag, found);
    for (int i = 0; i < n; i++) sum += found[i].have;
    return sum;
}
