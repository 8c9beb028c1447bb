/* bank_sums.c: see bank_sums.h.
 *
 *     files    [ batch 0 ][ batch 1 ][ bat|ch 3 ][ ...      neighbouring bytes of one file each
 *     sums     [a][b][  c     ][d]  [     e    ][f]
 *
 * BATCHES of them are on their way: while the oldest is summed (a task for each record or tensor
 * that has bytes in it), the next ones are being read. What goes over the end of a batch keeps its
 * sum in one of two states: at most one thing comes in from the batch before, and at most one goes
 * on into the next. */
#include "format/bank_sums.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/sum.h"
#include "io/io.h"

#define BATCHES     3
#define BATCH_BYTES ((size_t)16 << 20)
#define PIECE       (1u << 20) /* bytes of a read */
#define PIECES      ((int)(BATCH_BYTES / PIECE))

typedef struct batch {
    int file;
    bank_sum *list; /* of the file */
    int first, n;   /* of list: those with bytes in here */
    bool last;      /* of the file: list goes with it; owned */
    int64_t from;   /* in the file, a multiple of IO_ALIGN */
    size_t bytes;
    uint8_t *data;
    int reads; /* in flight */
} batch;

typedef struct checker {
    const bank_sums *s;
    pool *pool;
    io *io;
    uint8_t *memory; /* of all batches; owned */
    io_read reads[BATCHES][PIECES];
    batch batches[BATCHES];
    int n_started, n_checked; /* batches, ever */
    XXH3_state_t *states[2];  /* owned */
    int state;                /* that was begun last */
    /* the file that is being read */
    int file;
    bank_sum *list; /* owned until its last batch is started */
    int n, at;      /* at: the first that goes beyond what was read */
    int64_t read, end;
} checker;

static int64_t end_of(const bank_sum *x) { return x->offset + x->bytes; }

static err damaged(const checker *c, int file, const bank_sum *x) {
    const char *path = c->s->paths[file];
    static const char why[] = "its bytes do not fit their checksum";
    return x->name ? err_make(ERR_CORRUPT, "%s: tensor %s: %s", path, x->name, why)
                   : err_make(ERR_CORRUPT, "%s: expert %d: %s", path, x->record, why);
}

/* ---- reading ---- */

static int by_place(const void *a, const void *b) {
    const bank_sum *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static err check_list(const checker *c) {
    const char *path = c->s->paths[c->file];
    int64_t end = 0;
    for (int i = 0; i < c->n; i++) {
        const bank_sum *x = &c->list[i];
        if (x->bytes < 0 || x->offset < end || x->offset > INT64_MAX - x->bytes)
            return err_make(ERR_CORRUPT, "%s: what lies at byte %lld overlaps something", path,
                            (long long)x->offset);
        end = end_of(x);
        if (end > io_file_bytes(c->io, c->file))
            return err_make(ERR_CORRUPT, "%s: %lld bytes are there, but %lld are needed", path,
                            (long long)io_file_bytes(c->io, c->file), (long long)end);
        if (x->bytes == 0 && x->hash != sum_bytes("", 0)) return damaged(c, c->file, x);
    }
    return err_none();
}

/* The next file with something in it; at c->file == n_files there is none. */
static err next_file(checker *c) {
    while (c->file < c->s->n_files && c->read == c->end) {
        free(c->list);
        c->list = NULL;
        c->n = c->at = 0;
        c->read = c->end = 0;
        if (++c->file == c->s->n_files) break;
        TRY(c->s->list(c->s->ctx, c->file, &c->list, &c->n));
        if (c->n) qsort(c->list, (size_t)c->n, sizeof *c->list, by_place);
        TRY(check_list(c));
        if (c->n) c->end = end_of(&c->list[c->n - 1]);
    }
    return err_none();
}

static void start_reads(checker *c, batch *b) {
    for (size_t at = 0; at < b->bytes; at += PIECE) {
        uint32_t need = (uint32_t)size_min(PIECE, b->bytes - at);
        io_read *r = &c->reads[b - c->batches][b->reads++];
        *r = (io_read){.dst = b->data + at,
                       .offset = b->from + (int64_t)at,
                       .bytes = (uint32_t)round_up(need, IO_ALIGN),
                       .need = need,
                       .file = b->file,
                       .owner = b};
        io_start(c->io, r);
    }
    io_flush(c->io);
}

/* False when everything is under way. */
static err start_batch(checker *c, bool *started) {
    TRY(next_file(c));
    *started = c->file < c->s->n_files;
    if (!*started) return err_none();
    batch *b = &c->batches[c->n_started++ % BATCHES];
    b->file = c->file;
    b->list = c->list;
    b->from = c->read;
    b->bytes = size_min(BATCH_BYTES, (size_t)(c->end - c->read));
    b->reads = 0;
    b->first = c->at;
    int64_t end = b->from + (int64_t)b->bytes;
    b->n = 0;
    while (b->first + b->n < c->n && c->list[b->first + b->n].offset < end) b->n++;
    while (c->at < c->n && end_of(&c->list[c->at]) <= end) c->at++;
    c->read = end;
    b->last = end == c->end;
    if (b->last) c->list = NULL;
    start_reads(c, b);
    return err_none();
}

static err wait_for(checker *c, const batch *b) {
    err e = err_none();
    while (b->reads && !e.code) {
        io_read *r = io_next(c->io, true);
        assert(r);
        batch *of = r->owner;
        of->reads--;
        if (r->error) e = io_read_error(c->io, r);
    }
    return e;
}

/* ---- sums ---- */

typedef struct summing {
    checker *c;
    const batch *b;
} summing;

static void sum_one(void *ctx, int task, int worker) {
    (void)worker;
    const summing *k = ctx;
    const batch *b = k->b;
    bank_sum *x = &b->list[b->first + task];
    int64_t batch_end = b->from + (int64_t)b->bytes;
    bool begins = x->offset >= b->from, ends = end_of(x) <= batch_end;
    int64_t from = begins ? x->offset : b->from, to = ends ? end_of(x) : batch_end;
    const uint8_t *bytes = b->data + (from - b->from);
    size_t length = (size_t)(to - from);
    if (begins && ends) {
        x->bad = sum_bytes(bytes, length) != x->hash;
        return;
    }
    XXH3_state_t *state = k->c->states[x->state];
    if (begins) XXH3_64bits_reset(state);
    XXH3_64bits_update(state, bytes, length);
    if (ends) x->bad = XXH3_64bits_digest(state) != x->hash;
}

static err check_batch(checker *c, batch *b) {
    bank_sum *list = &b->list[b->first];
    int64_t end = b->from + (int64_t)b->bytes;
    if (b->n && list[b->n - 1].offset >= b->from && end_of(&list[b->n - 1]) > end)
        list[b->n - 1].state = c->state = 1 - c->state;
    summing k = {c, b};
    pool_run(c->pool, sum_one, &k, b->n);
    for (int i = 0; i < b->n; i++)
        if (list[i].bad) return damaged(c, b->file, &list[i]);
    if (c->s->tell) c->s->tell(c->s->ctx, b->file, b->bytes);
    return err_none();
}

/* ---- begin and end ---- */

static err checker_open(checker *c) {
    io_options o = {.paths = c->s->paths,
                    .n_files = c->s->n_files,
                    .depth = BATCHES * PIECES,
                    .memory_bytes = BATCHES * BATCH_BYTES,
                    .memory_unit = BATCH_BYTES};
    void *memory;
    TRY(os_map(o.memory_bytes, true, &memory));
    c->memory = o.memory = memory;
    for (int i = 0; i < BATCHES; i++) c->batches[i].data = c->memory + (size_t)i * BATCH_BYTES;
    for (int i = 0; i < 2; i++) {
        c->states[i] = XXH3_createState();
        if (!c->states[i]) return err_make(ERR_NOMEM, "no memory for checksums");
    }
    TRY(pool_open(0, &c->pool));
    return io_open_first(&o, &c->io);
}

static void checker_close(checker *c) {
    io_close(c->io);
    pool_close(c->pool);
    for (int i = c->n_checked; i < c->n_started; i++)
        if (c->batches[i % BATCHES].last) free(c->batches[i % BATCHES].list);
    free(c->list);
    for (int i = 0; i < 2; i++) XXH3_freeState(c->states[i]);
    if (c->memory) os_unmap(c->memory, BATCHES * BATCH_BYTES);
    free(c);
}

static err check_all(checker *c) {
    bool more = true;
    for (;;) {
        while (more && c->n_started - c->n_checked < BATCHES) TRY(start_batch(c, &more));
        if (c->n_checked == c->n_started) return err_none();
        batch *b = &c->batches[c->n_checked % BATCHES];
        TRY(wait_for(c, b));
        TRY(check_batch(c, b));
        if (b->last) free(b->list);
        c->n_checked++;
    }
}

err bank_sums_check(const bank_sums *s) {
    checker *c = calloc(1, sizeof *c);
    if (!c) return err_make(ERR_NOMEM, "no memory for checksums");
    c->s = s;
    c->file = -1;
    err e = checker_open(c);
    if (!e.code) e = check_all(c);
    checker_close(c);
    return e;
}
