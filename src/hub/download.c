/* download.c: the files of a listing into the cache: several at once, each resumable, each hashed.
 *
 *     WAITING -> LOCKED -> HASHING -> RUNNING -> (checked, synced, renamed) -> linked
 *                  |          |         |  ^
 *                  |   the part that    |  | RESTING: after a failure worth another try
 *                  |   is there already +--+
 *                  another program downloads it: look again later
 *
 * One thread, one curl multi handle, a slot for each connection. A file is fetched by one
 * connection from its beginning to its end, so that an .incomplete file is always a correct
 * beginning that any program may go on with; speed comes from several files (models are split into
 * shards).
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
#include "hub/place.h"

#define SLOTS_MAX  16
#define TRIES_MAX  1000 /* of one file, even if each brings a few bytes */
#define HASH_STEP  (4u << 20)
#define SPACE_LEFT (64u << 20) /* bytes that a download leaves free on the drive */

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
    int lock, fd;    /* -1: closed */
    uint64_t offset; /* bytes of the file that are written and hashed */
    hub_hash hash;
    http_request request;
    http_reply reply;
    bool in_multi, accepted;         /* accepted: the status and range of the answer were checked */
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

/* From nothing. */
static err slot_restart(slot *s) {
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
    if (n == 0) s->state = SLOT_RUNNING;
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

static err take_bytes(slot *s, const char *bytes, size_t length) {
    if (!s->accepted) {
        TRY(check_answer(s));
        s->accepted = true;
    }
    if (length > s->file->size - s->offset)
        return err_make(ERR_CORRUPT, "%s: more bytes arrive than the hub promised", s->file->path);
    for (size_t done = 0; done < length;) {
        ssize_t n = pwrite(s->fd, bytes + done, length - done, (off_t)(s->offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(n < 0 ? errno : EIO, "writing %s", s->file->path);
        done += (size_t)n;
    }
    TRY(hub_hash_add(&s->hash, bytes, length));
    s->offset += length;
    return err_none();
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *ctx) {
    slot *s = ctx;
    if (s->reply.status != 200 && s->reply.status != 206) return size * n; /* an error page */
    s->refused = take_bytes(s, bytes, size * n);
    return s->refused.code ? 0 : size * n;
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
    snprintf(range, sizeof range, "%llu-", (unsigned long long)s->offset);
    if (s->offset) curl_easy_setopt(s->request.easy, CURLOPT_RANGE, range);
    s->accepted = false;
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

/* A transfer ended. */
static err slot_ended(slot *s, CURLcode code) {
    err why;
    bool moved = s->offset > s->attempt_offset;
    http_reply reply = s->reply;
    slot_stop_transfer(s);
    if (s->refused.code) return s->refused;
    http_verdict v = http_judge(code, &reply, s->file->path, &why);
    if (s->offset == s->file->size && (v == HTTP_DONE || v == HTTP_RETRY)) return slot_finish(s);
    if (reply.status == 416 && s->offset &&
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
    case SLOT_RUNNING:
        if (s->in_multi) return err_none();
        return s->offset == s->file->size ? slot_finish(s) : slot_request(s);
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
        p.bytes_done += s->offset;
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
            hashing |= d->slots[i].state == SLOT_HASHING;
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
    if (need.download == 0 || need.disk_free >= need.download + SPACE_LEFT) return err_none();
    return err_make(ERR_BUDGET,
                    "%s needs %.1f GB more on the drive of %s and %.1f GB are free. Free some "
                    "space, or set HUGGINGFACE_CACHE_DIR to a folder on another drive",
                    l->repo, (double)(need.download + SPACE_LEFT) / 1e9, o->cache,
                    (double)need.disk_free / 1e9);
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
