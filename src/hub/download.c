/* download.c: the files of a listing into the cache: several at once, each resumable, each hashed.
 *
 *     WAITING -> LOCKED -> HASHING -> RUNNING -> (checked, synced, renamed) -> linked
 *                  |          |         |  ^
 *                  |   the part that    |  | RESTING: after a failure worth another try
 *                  |   is there already +--+
 *                  another program downloads it: look again later
 *
 * One thread, one curl multi handle, a slot for each connection. A file's slot fetches it from its
 * beginning, so that an .incomplete file is always a correct beginning that any program may go on
 * with. Slots that find no further file help: they fetch later pieces of a large one into files of
 * their own (pieces.h), which the file's slot appends, and hashes, when it has come so far.
 *
 * Nothing that the hub says is believed: the status, the range, the size and finally the hash of
 * the bytes decide. A file that fails the hash is fetched once more from nothing, then it is an
 * error. The first file that fails for good stops the others; what they have stays for next time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/os.h"
#include "hub/http.h"
#include "hub/hub_impl.h"
#include "hub/pieces.h"
#include "hub/place.h"

#define SLOTS_MAX  16
#define TRIES_MAX  1000 /* of one file, even if each brings a few bytes */
#define HASH_STEP  (4u << 20)
#define SPACE_LEFT (64u << 20) /* bytes that a download leaves free on the drive */
#define PIECE_MIN  ((uint64_t)4 << 20)
#define PIECE_MAX  ((uint64_t)256 << 20) /* so much more space than the file, at most, for each */

typedef enum slot_state {
    SLOT_FREE,
    SLOT_WAITING,
    SLOT_HASHING,
    SLOT_RUNNING,
    SLOT_RESTING
} slot_state;

typedef struct slot {
    slot_state state;
    const hub_file *file;
    struct download *all;
    struct slot *helps; /* the file's slot, when this one fetches a piece for it; else NULL */
    uint64_t start;     /* of that piece */
    uint64_t end;       /* where the running transfer ends */
    piece_list pieces;  /* of a file's slot */
    int lock, fd;       /* -1: closed */
    uint64_t offset;    /* where the next byte goes; of a file's slot all before is hashed */
    hub_hash hash;
    http_request request;
    http_reply reply;
    bool in_multi, accepted;         /* accepted: the status and range of the answer were checked */
    bool reached;                    /* the transfer was ended because a piece begins here */
    err refused;                     /* why a write stopped the transfer */
    int attempts, tries, mismatches; /* attempts: since the last progress; tries: in all */
    uint64_t attempt_offset; /* where the running try began: progress forgives earlier failures */
    uint64_t retry_at;       /* nanoseconds */
    char note[160];
} slot;

typedef struct download {
    const hub_options *o;
    const hub_listing *l;
    hub_place place;
    CURLM *multi;
    slot slots[SLOTS_MAX];
    int n_slots, next_file, files_done;
    uint64_t bytes_done; /* of finished files */
    uint8_t *chunk;      /* HASH_STEP */
    uint64_t told_at, rate_at, rate_bytes;
    double rate;
    err failed;
} download;

/* ---- one file ---- */

static void slot_stop_transfer(slot *s) {
    if (s->in_multi) curl_multi_remove_handle(s->all->multi, s->request.easy);
    s->in_multi = false;
    if (s->request.easy) http_close(&s->request);
}

static void slot_release(slot *s) {
    slot_stop_transfer(s);
    pieces_close(&s->pieces);
    s->helps = NULL;
    hub_hash_close(&s->hash);
    if (s->fd >= 0) close(s->fd);
    if (s->lock >= 0) close(s->lock);
    s->fd = s->lock = -1;
    s->state = SLOT_FREE;
}

static void slot_rest(slot *s, double seconds) {
    s->state = SLOT_RESTING;
    s->retry_at = os_now_ns() + (uint64_t)(seconds * 1e9);
}

/* Whoever fetches pieces of this file stops, and the pieces go. */
static void drop_pieces(slot *s) {
    for (int i = 0; i < SLOTS_MAX; i++)
        if (s->all->slots[i].helps == s) slot_release(&s->all->slots[i]);
    while (s->pieces.n)
        pieces_remove(&s->all->place, s->file->etag, &s->pieces, s->pieces.all[0].start);
}

/* From nothing. */
static err slot_restart(slot *s) {
    drop_pieces(s);
    hub_hash_close(&s->hash);
    if (ftruncate(s->fd, 0) != 0) return err_system(errno, "%s", s->file->path);
    s->offset = 0;
    return hub_hash_open(&s->hash, s->file->lfs, s->file->size);
}

/* Takes the lock and opens the beginning that is there. Leaves the slot WAITING when another
 * program has the lock; *done when the blob has arrived meanwhile. */
static err slot_open(slot *s, bool *done) {
    struct stat st;
    *done = false;
    if (s->lock < 0) TRY(place_lock_open(&s->all->place, s->file->etag, &s->lock));
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0) {
        snprintf(s->note, sizeof s->note, "waiting: another program downloads %.100s",
                 s->file->path);
        s->retry_at = os_now_ns() + 300000000u;
        return err_none();
    }
    s->note[0] = '\0';
    if (place_has_blob(&s->all->place, s->file)) {
        *done = true;
        return err_none();
    }
    TRY(place_incomplete_open(&s->all->place, s->file->etag, &s->fd));
    if (fstat(s->fd, &st) != 0) return err_system(errno, "%s", s->file->path);
    TRY(hub_hash_open(&s->hash, s->file->lfs, s->file->size));
    if ((uint64_t)st.st_size > s->file->size) TRY(slot_restart(s));
    s->state = SLOT_HASHING;
    return err_none();
}

/* Some bytes of the beginning that lies on the drive; RUNNING when it is all hashed. */
static err slot_hash(slot *s) {
    ssize_t n = pread(s->fd, s->all->chunk, HASH_STEP, (off_t)s->offset);
    if (n < 0 && errno != EINTR)
        return err_system(errno, "reading the beginning of %s", s->file->path);
    if (n > 0) {
        TRY(hub_hash_add(&s->hash, s->all->chunk, (size_t)n));
        s->offset += (uint64_t)n;
    }
    if (n) return err_none();
    s->state = SLOT_RUNNING;
    return pieces_find(&s->all->place, s->file->etag, s->file->size, s->offset, &s->pieces);
}

/* How far the slot of a file goes by itself: to the first piece. */
static uint64_t own_end(const slot *s) {
    return s->pieces.n ? s->pieces.all[0].start + s->pieces.all[0].taken : s->file->size;
}

/* Some bytes of the piece that the beginning has come to. */
static err slot_append(slot *s) {
    piece *part = &s->pieces.all[0];
    size_t left = (size_t)(part->have - part->taken), want = left < HASH_STEP ? left : HASH_STEP;
    ssize_t n = pread(part->fd, s->all->chunk, want, (off_t)part->taken);
    if (n < 0 && errno == EINTR) return err_none();
    if (n <= 0) return err_system(n < 0 ? errno : EIO, "reading a piece of %s", s->file->path);
    if (pwrite(s->fd, s->all->chunk, (size_t)n, (off_t)s->offset) != n)
        return err_system(errno ? errno : EIO, "writing %s", s->file->path);
    TRY(hub_hash_add(&s->hash, s->all->chunk, (size_t)n));
    part->taken += (uint64_t)n;
    s->offset += (uint64_t)n;
    return err_none();
}

/* Takes the next piece of the file whose rest is largest; the slot stays free when there is none.
 */
static err slot_help(slot *s) {
    download *d = s->all;
    slot *owner = NULL;
    uint64_t start = 0, most = 0, length = 0;
    for (int i = 0; i < d->n_slots; i++) {
        slot *o = &d->slots[i];
        bool under_way = o->state == SLOT_RUNNING && !o->helps && (o->in_multi || o->pieces.n);
        if (!under_way || o->pieces.off) continue;
        if (o->pieces.n == PIECES_MAX) continue;
        uint64_t left = o->file->size - o->offset, each = left / (2 * (uint64_t)d->n_slots);
        each = each < PIECE_MIN ? PIECE_MIN : each > PIECE_MAX ? PIECE_MAX : each;
        uint64_t next = o->pieces.n ? o->pieces.all[o->pieces.n - 1].end : o->offset + each;
        if (next >= o->file->size || o->file->size - next <= most) continue;
        most = o->file->size - next;
        owner = o, start = next, length = most < each + PIECE_MIN / 2 ? most : each;
    }
    if (!owner) return err_none();
    piece *part;
    TRY(pieces_add(&d->place, owner->file->etag, start, start + length, &owner->pieces, &part));
    *s = (slot){.state = SLOT_RUNNING,
                .file = owner->file,
                .all = d,
                .helps = owner,
                .start = start,
                .offset = start,
                .lock = -1,
                .fd = -1};
    return err_none();
}

/* May the bytes that now come be written at s->offset? */
static err check_answer(slot *s) {
    const http_reply *r = &s->reply;
    if (r->etag[0] && strcmp(r->etag, s->file->etag) && strlen(r->etag) == strlen(s->file->etag))
        return err_make(ERR_CORRUPT,
                        "%s changed on the hub while it was being downloaded; start the "
                        "download again",
                        s->file->path);
    if (r->status == 200 && (s->helps || s->pieces.n)) /* the hub sends whole files only */
        return err_make(ERR_UNSUPPORTED, "%s: no ranges", s->file->path);
    if (r->status == 200) {
        if (s->offset) TRY(slot_restart(s)); /* the hub does not go on: it begins anew */
        if (r->length < 0 || (uint64_t)r->length == s->file->size) return err_none();
        return err_make(ERR_CORRUPT, "%s: the hub sends %lld bytes and promised %llu",
                        s->file->path, (long long)r->length, (unsigned long long)s->file->size);
    }
    if (r->range_start == (int64_t)s->offset &&
        (r->range_total < 0 || (uint64_t)r->range_total == s->file->size))
        return err_none();
    return err_make(ERR_CORRUPT, "%s: asked for bytes from %llu of %llu, got from %lld of %lld",
                    s->file->path, (unsigned long long)s->offset, (unsigned long long)s->file->size,
                    (long long)r->range_start, (long long)r->range_total);
}

/* At the offset of the file; a helper's into its piece. */
static err put_bytes(slot *s, const char *bytes, size_t length) {
    piece *part = s->helps ? pieces_at(&s->helps->pieces, s->start) : NULL;
    int fd = part ? part->fd : s->fd;
    uint64_t at = part ? s->offset - s->start : s->offset;
    for (size_t done = 0; done < length;) {
        ssize_t n = pwrite(fd, bytes + done, length - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(n < 0 ? errno : EIO, "writing %s", s->file->path);
        done += (size_t)n;
    }
    s->offset += length;
    if (!part) return hub_hash_add(&s->hash, bytes, length);
    part->have += length;
    return err_none();
}

static err take_bytes(slot *s, const char *bytes, size_t length) {
    if (!s->accepted) {
        TRY(check_answer(s));
        s->accepted = true;
        if (s->reply.status == 200) s->end = s->file->size;
    }
    if (length > s->end - s->offset)
        return err_make(ERR_CORRUPT, "%s: more bytes arrive than the hub promised", s->file->path);
    uint64_t limit = s->helps ? s->end : own_end(s); /* a piece was begun since: stop before it */
    size_t fit = length > limit - s->offset ? (size_t)(limit - s->offset) : length;
    TRY(put_bytes(s, bytes, fit));
    s->reached = fit < length;
    return err_none();
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *ctx) {
    slot *s = ctx;
    if (s->reply.status != 200 && s->reply.status != 206) return size * n; /* an error page */
    s->refused = take_bytes(s, bytes, size * n);
    return s->refused.code || s->reached ? 0 : size * n;
}

static err slot_request(slot *s) {
    char base[HTTP_URL_MAX], url[HTTP_URL_MAX], range[40];
    snprintf(base, sizeof base, "%s/%s/resolve/%s/", s->all->o->endpoint, s->all->l->repo,
             s->all->l->commit);
    TRY(http_url(url, base, s->file->path));
    TRY(http_open(s->all->o, url, &s->reply, &s->request));
    curl_easy_setopt(s->request.easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(s->request.easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->request.easy, CURLOPT_PRIVATE, s);
    piece *part = s->helps ? pieces_at(&s->helps->pieces, s->start) : NULL;
    s->end = part ? part->end : own_end(s);
    if (s->end < s->file->size)
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)s->offset,
                 (unsigned long long)s->end - 1);
    else
        snprintf(range, sizeof range, "%llu-", (unsigned long long)s->offset);
    if (s->offset || s->end < s->file->size)
        curl_easy_setopt(s->request.easy, CURLOPT_RANGE, range);
    s->accepted = s->reached = false;
    s->refused = err_none();
    s->attempt_offset = s->offset;
    s->note[0] = '\0';
    if (curl_multi_add_handle(s->all->multi, s->request.easy) != CURLM_OK)
        return err_make(ERR_NOMEM, "cannot start another connection");
    s->in_multi = true;
    return err_none();
}

/* All bytes are there: check, name, link. */
static err slot_finish(slot *s) {
    char etag[HUB_ETAG_MAX];
    TRY(hub_hash_end(&s->hash, etag));
    if (strcmp(etag, s->file->etag)) {
        if (s->mismatches++) {
            TRY(slot_restart(s)); /* not even a beginning of it is right */
            return err_make(ERR_CORRUPT,
                            "%s: what arrived twice is not what the hub promised (its hash is "
                            "%.16s..., not %.16s...); nothing of it was kept",
                            s->file->path, etag, s->file->etag);
        }
        TRY(slot_restart(s));
        slot_rest(s, 0);
        return err_none();
    }
    if (fsync(s->fd) != 0) return err_system(errno, "saving %s", s->file->path);
    TRY(place_finish_blob(&s->all->place, s->file->etag));
    TRY(place_link(&s->all->place, s->file));
    s->all->files_done++;
    s->all->bytes_done += s->file->size;
    slot_release(s);
    return err_none();
}

/* The hub answered a range with the whole file. A file's slot begins anew, then in one go. */
static err slot_without_pieces(slot *s) {
    slot *owner = s->helps ? s->helps : s;
    owner->pieces.off = true;
    if (owner != s) return drop_pieces(owner), err_none(); /* this slot goes with them */
    TRY(slot_restart(s));
    slot_rest(s, 0);
    return err_none();
}

/* A transfer ended. */
static err slot_ended(slot *s, CURLcode code) {
    err why;
    bool moved = s->offset > s->attempt_offset;
    http_reply reply = s->reply;
    slot_stop_transfer(s);
    if (s->refused.code == ERR_UNSUPPORTED) return slot_without_pieces(s);
    if (s->refused.code) return s->refused;
    http_verdict v = http_judge(code, &reply, s->file->path, &why);
    if (s->offset == s->end && s->helps) {
        pieces_at(&s->helps->pieces, s->start)->busy = false;
        slot_release(s);
        return err_none();
    }
    if (s->offset == own_end(s) && (v == HTTP_DONE || v == HTTP_RETRY))
        return s->offset == s->file->size ? slot_finish(s) : err_none(); /* goes on by a piece */
    if (reply.status == 416 && s->offset && !s->helps &&
        !s->mismatches++) { /* our beginning is of another file */
        TRY(slot_restart(s));
        slot_rest(s, 0);
        return err_none();
    }
    if (v == HTTP_FATAL) return why;
    if (v == HTTP_DONE) why = err_make(ERR_IO, "%s: the connection ended early", s->file->path);
    s->attempts = moved ? 1 : s->attempts + 1;
    s->tries++;
    int most = s->all->o->attempts > 0 ? s->all->o->attempts : 6;
    if (s->attempts >= most || s->tries >= TRIES_MAX)
        return err_within(why, "given up after %d tries", s->tries);
    double wait = http_wait(s->all->o, &reply, s->attempts);
    if (reply.wait >= 1)
        snprintf(s->note, sizeof s->note, "waiting %.0f s: the hub limits requests", wait);
    slot_rest(s, wait);
    return err_none();
}

/* ---- all files ---- */

/* Gives a free slot the next file that is not there yet. */
static err slot_fill(download *d, slot *s) {
    while (d->next_file < d->l->n_files) {
        const hub_file *f = &d->l->files[d->next_file++];
        if (place_has_blob(&d->place, f)) {
            TRY(place_link(&d->place, f));
            d->files_done++;
            d->bytes_done += f->size;
            continue;
        }
        *s = (slot){.state = SLOT_WAITING, .file = f, .all = d, .lock = -1, .fd = -1};
        return err_none();
    }
    return slot_help(s);
}

/* A slot that may transfer: it begins to, appends, waits for a helper, or has all. */
static err slot_go_on(slot *s) {
    if (s->helps || s->offset < own_end(s)) return slot_request(s);
    if (!s->pieces.n) return slot_finish(s);
    piece *part = &s->pieces.all[0];
    if (part->taken < part->have) return slot_append(s);
    if (part->busy) return err_none();
    pieces_remove(&s->all->place, s->file->etag, &s->pieces, part->start);
    return err_none();
}

static err slot_step(slot *s) {
    bool done;
    switch (s->state) {
    case SLOT_FREE: return slot_fill(s->all, s);
    case SLOT_WAITING:
        if (s->retry_at > os_now_ns()) return err_none();
        TRY(slot_open(s, &done));
        if (!done) return err_none();
        TRY(place_link(&s->all->place, s->file));
        s->all->files_done++;
        s->all->bytes_done += s->file->size;
        slot_release(s);
        return err_none();
    case SLOT_HASHING: return slot_hash(s);
    case SLOT_RESTING:
        if (s->retry_at <= os_now_ns()) s->state = SLOT_RUNNING;
        return err_none();
    case SLOT_RUNNING: return s->in_multi ? err_none() : slot_go_on(s);
    }
    return err_none();
}

static void tell(download *d, bool now) {
    uint64_t t = os_now_ns();
    if (!d->o->progress || (!now && t - d->told_at < 200000000u)) return;
    hub_progress p = {d->files_done, d->l->n_files, d->bytes_done, d->l->total, 0, -1, NULL};
    for (int i = 0; i < d->n_slots; i++) {
        const slot *s = &d->slots[i];
        if (s->state == SLOT_FREE) continue;
        if (!s->helps) p.bytes_done += s->offset + pieces_bytes(&s->pieces);
        if (s->note[0]) p.note = s->note;
    }
    if (!d->rate_at) d->rate_at = t, d->rate_bytes = p.bytes_done;
    double seconds = (double)(t - d->rate_at) / 1e9;
    if (seconds >= 1) {
        double fresh =
            p.bytes_done > d->rate_bytes ? (double)(p.bytes_done - d->rate_bytes) / seconds : 0;
        d->rate = d->rate > 0 ? 0.7 * d->rate + 0.3 * fresh : fresh;
        d->rate_at = t, d->rate_bytes = p.bytes_done;
    }
    p.bytes_per_second = d->rate;
    if (d->rate > 0 && p.bytes_total >= p.bytes_done)
        p.seconds_left = (double)(p.bytes_total - p.bytes_done) / d->rate;
    d->told_at = t;
    d->o->progress(d->o->progress_ctx, &p);
}

static err take_messages(download *d) {
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(d->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        char *private = NULL;
        CURLcode code = m->data.result; /* m is gone once the handle is removed */
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
        TRY(slot_ended((slot *)(void *)private, code));
    }
    return err_none();
}

static bool appends(const slot *s) {
    return s->state == SLOT_RUNNING && !s->helps && !s->in_multi && s->pieces.n &&
           s->pieces.all[0].taken < s->pieces.all[0].have;
}

static bool is_busy(const download *d) {
    for (int i = 0; i < d->n_slots; i++)
        if (d->slots[i].state != SLOT_FREE) return true;
    return d->next_file < d->l->n_files;
}

static err loop(download *d) {
    while (is_busy(d)) {
        int running;
        bool hashing = false;
        if (hub_cancelled(d->o))
            return err_make(ERR_CANCELLED,
                            "stopped; what arrived is kept, the same command goes on");
        for (int i = 0; i < d->n_slots; i++) {
            TRY(slot_step(&d->slots[i]));
            hashing |= d->slots[i].state == SLOT_HASHING || appends(&d->slots[i]);
        }
        curl_multi_perform(d->multi, &running);
        TRY(take_messages(d));
        tell(d, false);
        if (!hashing && is_busy(d)) curl_multi_poll(d->multi, NULL, 0, 50, NULL);
    }
    tell(d, true);
    return err_none();
}

static err run(download *d) {
    d->chunk = malloc(HASH_STEP);
    d->multi = curl_multi_init();
    if (!d->chunk || !d->multi) return err_make(ERR_NOMEM, "no memory for a download");
    curl_multi_setopt(d->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING); /* real connections */
    err e = loop(d);
    for (int i = 0; i < d->n_slots; i++)
        if (d->slots[i].state != SLOT_FREE) slot_release(&d->slots[i]);
    return e;
}

static err check_space(const hub_options *o, const hub_listing *l) {
    hub_need need;
    TRY(hub_need_get(o, l, &need));
    uint64_t room = need.download + SPACE_LEFT, large = 0;
    for (int i = 0; i < l->n_files; i++)
        large = l->files[i].size > large ? l->files[i].size : large;
    if (large > 8 * PIECE_MIN) room += large / 8 < PIECE_MAX ? large / 8 : PIECE_MAX;
    if (need.download == 0 || need.disk_free >= room) return err_none();
    return err_make(ERR_BUDGET,
                    "%s needs %.1f GB more on the drive of %s and %.1f GB are free. Free some "
                    "space, or set HUGGINGFACE_CACHE_DIR to a folder on another drive",
                    l->repo, (double)room / 1e9, o->cache, (double)need.disk_free / 1e9);
}

err hub_download(const hub_options *o, const hub_listing *l, char *snapshot) {
    if (snapshot) snapshot[0] = '\0';
    download *d = calloc(1, sizeof *d);
    if (!d) return err_make(ERR_NOMEM, "no memory for a download");
    d->o = o;
    d->l = l;
    d->n_slots = o->connections <= 0 ? 4 : o->connections < SLOTS_MAX ? o->connections : SLOTS_MAX;
    for (int i = 0; i < d->n_slots; i++) d->slots[i] = (slot){.all = d, .lock = -1, .fd = -1};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    err e = place_open(&d->place, o->cache, l);
    if (!e.code) e = check_space(o, l);
    if (!e.code) e = run(d);
    if (!e.code) e = place_finish(&d->place, l);
    if (!e.code && snapshot) memcpy(snapshot, d->place.snapshot, strlen(d->place.snapshot) + 1);
    curl_multi_cleanup(d->multi);
    curl_global_cleanup();
    free(d->chunk);
    free(d);
    return e.code ? err_within(e, "%s", l->repo) : e;
}
