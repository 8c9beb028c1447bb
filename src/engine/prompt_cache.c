/* prompt_cache.c: what is kept, what is worth keeping, who has to go (see prompt_cache.h).
 *
 * The folder is the truth: before anything is added it is read again, because other processes may
 * share it. The index in memory only saves looking; a file that it names and that is gone is a
 * miss.
 *
 * Invariants: entries, queue, pending and the counters are under the lock; loaded belongs to the
 * owner; a job stays at the head of the queue while it is written. */
#include "engine/prompt_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/os.h"
#include "engine/prompt_cache_impl.h"

#define ENTRIES_LIMIT 16384 /* more files than that are not looked at */
#define COMPLAINTS    64    /* names that a line was written about already */
#define ANSWER_STEP   64 /* an answer is kept when it is longer than a kept beginning by so many */

typedef struct entry {
    prompt_file file;
    uint64_t used; /* nanoseconds since 1970: the time of the file */
    bool seen;     /* in this scan */
} entry;

typedef struct job {
    struct job *next;
    prompt_file file;
    prompt_key before; /* of the conversation's earlier answer; tokens 0: none */
    uint8_t *blob;
} job;

struct prompt_cache {
    prompt_cache_options o;
    char *dir; /* owned */
    int fd;    /* of the folder */
    pthread_t thread;
    bool thread_runs;
    uint8_t *loaded; /* owned */
    size_t loaded_bytes;

    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    entry *entries; /* owned; of all fingerprints */
    int n_entries, capacity;
    job *queue;
    size_t pending; /* bytes of blobs in the queue */
    uint64_t serial;
    bool closing;
    uint64_t complaints[COMPLAINTS]; /* hashes of names */
    int n_complaints;
    prompt_cache_stats stats;
};

static void say(const prompt_cache *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const prompt_cache *c, const char *format, ...) {
    if (!c->o.log) return;
    char line[1024];
    va_list list;
    int n = snprintf(line, sizeof line, "prompt cache %.500s: ", c->dir);
    va_start(list, format);
    vsnprintf(line + n, sizeof line - (size_t)n, format, list);
    va_end(list);
    c->o.log(c->o.log_ctx, line);
}

/* ---- the folder ---- */

static err make_dirs(const char *path) {
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) return err_make(ERR_RANGE, "%s: the path is too long", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST && errno != EISDIR && errno != EROFS)
            return err_system(errno, "%s", part);
    }
    return err_none();
}

static err open_dir(prompt_cache *c) {
    struct stat st;
    TRY(make_dirs(c->dir));
    c->fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->fd < 0 || fstat(c->fd, &st) != 0) return err_system(errno, "%s", c->dir);
    if (st.st_uid != geteuid())
        return err_make(ERR_IO, "%s: the folder belongs to somebody else", c->dir);
    if (faccessat(c->fd, ".", W_OK, 0) != 0) return err_system(errno, "%s", c->dir);
    if ((st.st_mode & 077) && fchmod(c->fd, 0700) != 0) return err_system(errno, "%s", c->dir);
    return err_none();
}

/* ---- the index, under the lock ---- */

static entry *find_entry(prompt_cache *c, const prompt_key *k) {
    for (int i = 0; i < c->n_entries; i++) {
        const prompt_key *e = &c->entries[i].file.key;
        if (e->fingerprint == k->fingerprint && e->low == k->low && e->high == k->high)
            return &c->entries[i];
    }
    return NULL;
}

static bool add_entry(prompt_cache *c, const prompt_file *f, uint64_t used) {
    if (c->n_entries == c->capacity) {
        int more = c->capacity ? 2 * c->capacity : 32;
        entry *grown = realloc(c->entries, (size_t)more * sizeof *grown);
        if (!grown) return false;
        c->entries = grown;
        c->capacity = more;
    }
    c->entries[c->n_entries++] = (entry){*f, used, true};
    return true;
}

static void drop_entry(prompt_cache *c, entry *e) { *e = c->entries[--c->n_entries]; }

static void remove_entry(prompt_cache *c, entry *e) {
    char name[PROMPT_NAME_MAX];
    prompt_name(&e->file.key, name);
    (void)unlinkat(c->fd, name, 0);
    drop_entry(c, e);
}

static uint64_t total_bytes(const prompt_cache *c) {
    uint64_t sum = 0;
    for (int i = 0; i < c->n_entries; i++) sum += prompt_file_bytes(&c->entries[i].file);
    return sum;
}

/* The one that was unused for longest; with answers_only of those. NULL: none. */
static entry *oldest_entry(prompt_cache *c, bool answers_only) {
    entry *oldest = NULL;
    for (int i = 0; i < c->n_entries; i++) {
        entry *e = &c->entries[i];
        if (answers_only && e->file.kind != PROMPT_ANSWER) continue;
        if (!oldest || e->used < oldest->used) oldest = e;
    }
    return oldest;
}

static int answers_max(const prompt_cache *c) { return int_max(1, c->o.entries_max / 4); }

static bool make_room_answer(prompt_cache *c, uint64_t bytes) {
    if (bytes > c->o.bytes_max / 2) return false;
    for (;;) {
        int n = 0;
        uint64_t sum = bytes;
        for (int i = 0; i < c->n_entries; i++) {
            if (c->entries[i].file.kind != PROMPT_ANSWER) continue;
            n++;
            sum += prompt_file_bytes(&c->entries[i].file);
        }
        if (n < answers_max(c) && sum <= c->o.bytes_max / 2) return true;
        remove_entry(c, oldest_entry(c, true));
    }
}

/* bytes 0: no file is to come, the bounds shall hold. */
static bool make_room(prompt_cache *c, uint64_t bytes, prompt_kind kind) {
    int more = bytes > 0;
    if (bytes > c->o.bytes_max) return false;
    if (kind == PROMPT_ANSWER && !make_room_answer(c, bytes)) return false;
    while (c->n_entries &&
           (c->n_entries + more > c->o.entries_max || total_bytes(c) + bytes > c->o.bytes_max))
        remove_entry(c, oldest_entry(c, false));
    return true;
}

/* ---- reading the folder, under the lock ---- */

static void complain(prompt_cache *c, const char *name, const char *what) {
    uint64_t hash = XXH3_64bits(name, strlen(name));
    for (int i = 0; i < c->n_complaints; i++)
        if (c->complaints[i] == hash) return;
    if (c->n_complaints == COMPLAINTS) return;
    c->complaints[c->n_complaints++] = hash;
    c->stats.refused++;
    say(c, "%.80s %s", name, what);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t time_of(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) return 0;
    return os_changed_ns(&st);
}

/* What is damaged goes; what is no file of this user is left alone. */
static void scan_ours(prompt_cache *c, const char *name) {
    char own[PROMPT_NAME_MAX];
    prompt_file f;
    int fd = openat(c->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT) complain(c, name, "cannot be opened and is ignored");
        return;
    }
    err e = prompt_file_header(fd, &f);
    if (!e.code) {
        prompt_name(&f.key, own);
        if (strcmp(own, name) != 0) e = err_make(ERR_CORRUPT, "has the name of another one");
    }
    entry *known = e.code ? NULL : find_entry(c, &f.key);
    if (known) {
        known->file = f;
        known->seen = true;
    } else if (!e.code) {
        (void)!add_entry(c, &f, time_of(fd)); /* without memory it is not found, nothing worse */
    } else {
        char text[ERR_TEXT_MAX + 32];
        bool keep = strstr(e.text, "this user") != NULL;
        snprintf(text, sizeof text, "%s; it is %s", e.text, keep ? "ignored" : "removed");
        complain(c, name, text);
        if (!keep) (void)unlinkat(c->fd, name, 0);
    }
    close(fd);
}

/* Left behind by a process that was killed. */
static void scan_temp(prompt_cache *c, const char *name, bool first) {
    long pid = strtol(name + sizeof PROMPT_TEMP - 1, NULL, 10);
    bool mine = pid == (long)getpid();
    if (pid <= 0 || (mine && !first)) return;
    if (!mine && (kill((pid_t)pid, 0) == 0 || errno != ESRCH)) return;
    (void)unlinkat(c->fd, name, 0);
}

static void scan(prompt_cache *c, bool first) {
    int fd = openat(c->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) close(fd);
        return;
    }
    for (int i = 0; i < c->n_entries; i++) c->entries[i].seen = false;
    struct dirent *e;
    for (int n = 0; n < ENTRIES_LIMIT && (e = readdir(d)); n++) {
        const char *name = e->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
        if (strncmp(name, PROMPT_TEMP, sizeof PROMPT_TEMP - 1) == 0) {
            scan_temp(c, name, first);
        } else if (prompt_name_ours(name)) {
            scan_ours(c, name);
        } else {
            complain(c, name, "is not one of this folder's files and is ignored");
        }
    }
    closedir(d);
    for (int i = c->n_entries; i-- > 0;)
        if (!c->entries[i].seen) drop_entry(c, &c->entries[i]);
}

/* ---- writing ---- */

static void publish(prompt_cache *c, const char *temp, const job *j) {
    char name[PROMPT_NAME_MAX];
    prompt_name(&j->file.key, name);
    pthread_mutex_lock(&c->lock);
    scan(c, false);
    entry *old = find_entry(c, &j->file.key);
    if (old) drop_entry(c, old); /* renaming replaces it */
    entry *before = j->before.tokens ? find_entry(c, &j->before) : NULL;
    if (before) drop_entry(c, before); /* its file goes when the new one is there */
    bool room = make_room(c, prompt_file_bytes(&j->file), j->file.kind);
    bool done = room && renameat(c->fd, temp, c->fd, name) == 0;
    int error = errno;
    if (done) {
        (void)fsync(c->fd);
        prompt_name(&j->before, name);
        if (before) (void)unlinkat(c->fd, name, 0);
        (void)!add_entry(c, &j->file, now_ns());
        c->stats.saved += j->file.kind != PROMPT_NOTE;
    }
    pthread_mutex_unlock(&c->lock);
    if (done) return;
    (void)unlinkat(c->fd, temp, 0);
    say(c, "%llu tokens were not kept: %s", (unsigned long long)j->file.key.tokens,
        room ? strerror(error) : "they need more bytes than the folder may have");
}

static void write_job(prompt_cache *c, job *j) {
    char temp[64];
    snprintf(temp, sizeof temp, PROMPT_TEMP "%ld-%llu", (long)getpid(),
             (unsigned long long)++c->serial);
    int fd = openat(c->fd, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    err e = fd < 0 ? err_system(errno, "%s", temp) : prompt_file_write(fd, &j->file, j->blob);
    if (fd >= 0) close(fd);
    if (!e.code) {
        publish(c, temp, j);
        return;
    }
    if (fd >= 0) (void)unlinkat(c->fd, temp, 0);
    say(c, "%llu tokens were not kept: %s", (unsigned long long)j->file.key.tokens, e.text);
}

static void *writer(void *ctx) {
    prompt_cache *c = ctx;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->queue && !c->closing) pthread_cond_wait(&c->work, &c->lock);
        job *j = c->queue;
        if (!j) break;
        pthread_mutex_unlock(&c->lock);
        write_job(c, j);
        pthread_mutex_lock(&c->lock);
        c->queue = j->next;
        c->pending -= j->file.raw;
        free(j->blob);
        free(j);
        if (!c->queue) pthread_cond_broadcast(&c->idle);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- life ---- */

err prompt_cache_open(const prompt_cache_options *o, prompt_cache **out) {
    *out = NULL;
    prompt_cache *c = calloc(1, sizeof *c);
    if (!c) return err_make(ERR_NOMEM, "no memory for the prompt cache");
    c->o = *o;
    c->fd = -1;
    c->dir = strdup(o->dir);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->idle, NULL);
    err e = c->dir ? open_dir(c) : err_make(ERR_NOMEM, "no memory for the prompt cache");
    if (!e.code) {
        scan(c, true);
        make_room(c, 0, PROMPT_BORDER); /* the bounds may have become smaller */
        c->thread_runs = pthread_create(&c->thread, NULL, writer, c) == 0;
        if (!c->thread_runs) e = err_make(ERR_IO, "%s: no thread to write with", o->dir);
    }
    if (e.code) {
        prompt_cache_close(c);
        return e;
    }
    *out = c;
    return e;
}

void prompt_cache_close(prompt_cache *c) {
    if (!c) return;
    if (c->thread_runs) {
        pthread_mutex_lock(&c->lock);
        c->closing = true;
        pthread_cond_signal(&c->work);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    prompt_cache_done(c);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->idle);
    if (c->fd >= 0) close(c->fd);
    free(c->entries);
    free(c->dir);
    free(c);
}

void prompt_cache_flush(prompt_cache *c) {
    pthread_mutex_lock(&c->lock);
    while (c->queue) pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void prompt_cache_stats_get(prompt_cache *c, prompt_cache_stats *out) {
    pthread_mutex_lock(&c->lock);
    *out = c->stats;
    out->bytes = total_bytes(c);
    out->entries = 0;
    for (int i = 0; i < c->n_entries; i++)
        out->entries += c->entries[i].file.key.fingerprint == c->o.fingerprint;
    pthread_mutex_unlock(&c->lock);
}

void prompt_cache_now(prompt_cache *c, uint64_t fingerprint) {
    pthread_mutex_lock(&c->lock);
    c->o.fingerprint = fingerprint;
    pthread_mutex_unlock(&c->lock);
}

/* ---- finding ---- */

static int by_length(const void *a, const void *b) {
    uint64_t x = ((const prompt_key *)a)->tokens, y = ((const prompt_key *)b)->tokens;
    return x < y ? -1 : x > y;
}

/* Keys that may be a beginning of so many tokens, shortest first; free(). NULL: none. */
static prompt_key *candidates(prompt_cache *c, size_t count, size_t above, bool answers_only,
                              int *n) {
    *n = 0;
    pthread_mutex_lock(&c->lock);
    prompt_key *list = malloc(((size_t)c->n_entries + 1) * sizeof *list);
    for (int i = 0; list && i < c->n_entries; i++) {
        const prompt_key *k = &c->entries[i].file.key;
        if (answers_only && c->entries[i].file.kind != PROMPT_ANSWER) continue;
        if (k->fingerprint == c->o.fingerprint && k->tokens <= count && k->tokens > above)
            list[(*n)++] = *k;
    }
    pthread_mutex_unlock(&c->lock);
    if (list) qsort(list, (size_t)*n, sizeof *list, by_length);
    return list;
}

static size_t find(prompt_cache *c, const int32_t *tokens, size_t count, size_t above,
                   bool answers_only) {
    int n;
    size_t best = 0, at = 0;
    prompt_key *list = candidates(c, count, above, answers_only, &n);
    XXH3_state_t *state = n ? XXH3_createState() : NULL;
    bool good = state && XXH3_128bits_reset(state) == XXH_OK;
    for (int i = 0; good && i < n; i++) {
        size_t to = (size_t)list[i].tokens;
        good = XXH3_128bits_update(state, tokens + at, (to - at) * sizeof *tokens) == XXH_OK;
        at = to;
        XXH128_hash_t h = XXH3_128bits_digest(state);
        if (good && h.low64 == list[i].low && h.high64 == list[i].high) best = to;
    }
    XXH3_freeState(state);
    free(list);
    return best;
}

size_t prompt_cache_find(prompt_cache *c, const int32_t *tokens, size_t count, size_t above) {
    return find(c, tokens, count, above, false);
}

/* ---- reading ---- */

static void forget(prompt_cache *c, const prompt_key *k, const char *why) {
    char name[PROMPT_NAME_MAX], text[ERR_TEXT_MAX + 32];
    prompt_name(k, name);
    pthread_mutex_lock(&c->lock);
    entry *e = find_entry(c, k);
    if (e && why) {
        snprintf(text, sizeof text, "%s; it is removed", why);
        complain(c, name, text);
        remove_entry(c, e);
    } else if (e) {
        drop_entry(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

/* Memory for a blob on its way back: waits for those on their way out if it must. */
static err take_memory(prompt_cache *c, uint64_t bytes) {
    prompt_cache_done(c);
    if (bytes > c->o.memory_max)
        return err_make(ERR_BUDGET, "a saved prompt of %llu bytes does not fit the %zu set aside",
                        (unsigned long long)bytes, c->o.memory_max);
    pthread_mutex_lock(&c->lock);
    while (c->queue && c->pending + bytes > c->o.memory_max) pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
    c->loaded = malloc(bytes ? (size_t)bytes : 1);
    if (!c->loaded) return err_make(ERR_NOMEM, "no memory for a saved prompt");
    c->loaded_bytes = (size_t)bytes;
    return err_none();
}

static err load(prompt_cache *c, const prompt_key *k, int fd) {
    prompt_file f;
    TRY(prompt_file_header(fd, &f));
    if (f.key.fingerprint != k->fingerprint || f.key.low != k->low || f.key.high != k->high ||
        f.key.tokens != k->tokens)
        return err_make(ERR_CORRUPT, "has the name of another one");
    TRY(take_memory(c, f.raw));
    TRY(prompt_file_read(fd, &f, c->loaded));
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    (void)futimens(fd, now); /* an older time only means that it goes sooner */
    pthread_mutex_lock(&c->lock);
    entry *e = find_entry(c, k);
    if (e) e->used = now_ns();
    c->stats.found += f.kind != PROMPT_NOTE;
    pthread_mutex_unlock(&c->lock);
    return err_none();
}

err prompt_cache_load(prompt_cache *c, const int32_t *tokens, size_t count, const uint8_t **out,
                      size_t *bytes) {
    prompt_key k = prompt_key_of(c->o.fingerprint, tokens, count);
    char name[PROMPT_NAME_MAX];
    *out = NULL;
    *bytes = 0;
    prompt_name(&k, name);
    int fd = openat(c->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        forget(c, &k, NULL);
        return err_make(ERR_NOT_FOUND, "the saved prompt is gone");
    }
    err e = load(c, &k, fd);
    close(fd);
    if (e.code == ERR_CORRUPT) forget(c, &k, e.text);
    if (e.code) {
        prompt_cache_done(c);
        return e;
    }
    *out = c->loaded;
    *bytes = c->loaded_bytes;
    return e;
}

void prompt_cache_done(prompt_cache *c) {
    free(c->loaded);
    c->loaded = NULL;
    c->loaded_bytes = 0;
}

void prompt_cache_bad(prompt_cache *c, const int32_t *tokens, size_t count, const char *why) {
    prompt_key k = prompt_key_of(c->o.fingerprint, tokens, count);
    forget(c, &k, why);
}

/* ---- keeping ---- */

/* Of those on their way, the longest beginning. */
static size_t find_queued(prompt_cache *c, const int32_t *tokens, size_t count, bool answers_only,
                          size_t *pending) {
    size_t best = 0;
    pthread_mutex_lock(&c->lock);
    for (const job *j = c->queue; j; j = j->next) {
        size_t n = (size_t)j->file.key.tokens;
        if (n > count || n <= best) continue;
        if (answers_only && j->file.kind != PROMPT_ANSWER) continue;
        prompt_key k = prompt_key_of(c->o.fingerprint, tokens, n);
        if (k.low == j->file.key.low && k.high == j->file.key.high) best = n;
    }
    *pending = c->pending;
    pthread_mutex_unlock(&c->lock);
    return best;
}

/* A beginning that was just found in memory is in use, though nobody read its file. */
static void touch(prompt_cache *c, const int32_t *tokens, size_t count) {
    prompt_key k = prompt_key_of(c->o.fingerprint, tokens, count);
    char name[PROMPT_NAME_MAX];
    prompt_name(&k, name);
    (void)utimensat(c->fd, name, NULL, AT_SYMLINK_NOFOLLOW);
    pthread_mutex_lock(&c->lock);
    entry *e = find_entry(c, &k);
    if (e) e->used = now_ns();
    pthread_mutex_unlock(&c->lock);
}

bool prompt_cache_wants(prompt_cache *c, const int32_t *tokens, size_t count, size_t bytes,
                        prompt_kind kind) {
    size_t pending, step = kind == PROMPT_ANSWER ? ANSWER_STEP : c->o.step;
    if (bytes > c->o.bytes_max || (count < c->o.min_tokens && kind != PROMPT_NOTE)) return false;
    size_t known = find_queued(c, tokens, count, false, &pending);
    size_t kept = prompt_cache_find(c, tokens, count, known);
    if (kept) touch(c, tokens, kept);
    if (kept > known) known = kept;
    if (pending + c->loaded_bytes + bytes > c->o.memory_max) return false;
    if (kind == PROMPT_NOTE) return true;
    return !known || count >= known + step;
}

/* The same conversation's earlier answer, which a later one replaces. */
static prompt_key answer_before(prompt_cache *c, const int32_t *tokens, size_t count) {
    size_t pending, best = find_queued(c, tokens, count - 1, true, &pending);
    size_t kept = find(c, tokens, count - 1, best, true);
    if (kept > best) best = kept;
    return best ? prompt_key_of(c->o.fingerprint, tokens, best) : (prompt_key){.tokens = 0};
}

void prompt_cache_store(prompt_cache *c, const int32_t *tokens, size_t count, uint8_t *blob,
                        size_t bytes, prompt_kind kind) {
    job *j = calloc(1, sizeof *j);
    if (!j) {
        free(blob);
        say(c, "%zu tokens were not kept: no memory", count);
        return;
    }
    j->file = (prompt_file){
        .key = prompt_key_of(c->o.fingerprint, tokens, count), .raw = bytes, .kind = kind};
    if (kind == PROMPT_ANSWER) j->before = answer_before(c, tokens, count);
    j->blob = blob;
    pthread_mutex_lock(&c->lock);
    job **end = &c->queue;
    while (*end) end = &(*end)->next;
    *end = j;
    c->pending += bytes;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}
