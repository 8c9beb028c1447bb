/* pack_read.c: the packer's reader: which bytes of the source a batch needs, and reading them past
 * the page cache. See pack_flow.h.
 *
 * Through the page cache the system has to find and clear a page for every 4 KiB that are used
 * once: packing reached half of the disk's rate that way (docs/MEASURED.md, "Packing"). */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "engine/pack_flow.h"

static const expert_part *part_of(const flow_layer *l, int expert, int i) {
    return &l->parts[(size_t)expert * PACK_PARTS + (size_t)i];
}

size_t flow_source_bytes(const flow_layer *l, int n_experts) {
    size_t most = 0;
    for (int e = 0; e < n_experts; e++) {
        size_t sum = 0;
        for (int i = 0; i < PACK_PARTS; i++)
            sum += round_up(part_of(l, e, i)->bytes, IO_ALIGN) + 2 * (size_t)IO_ALIGN;
        most = sum > most ? sum : most;
    }
    return most;
}

/* ---- what to read ---- */

static int64_t block_of(int64_t offset) { return offset - offset % IO_ALIGN; }

static size_t run_room(const flow_run *r) {
    return round_up((size_t)(r->offset + r->bytes - block_of(r->offset)), IO_ALIGN);
}

/* The part begins in the run, right after it, or in the block that follows. */
static bool joins(const flow_run *r, const expert_part *part) {
    return r->file == part->file && part->offset >= r->offset &&
           part->offset <= r->offset + r->bytes + IO_ALIGN;
}

static void add_part(flow_batch *b, const expert_part *part, size_t *place) {
    flow_run *r = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;
    if (!r || !joins(r, part)) {
        if (r) *place += run_room(r);
        r = &b->runs[b->n_runs++];
        *r = (flow_run){.offset = part->offset, .file = part->file, .place = *place};
    }
    int64_t end = part->offset + part->bytes;
    if (end > r->offset + r->bytes) r->bytes = end - r->offset;
}

/* Part by part over all experts of the batch: those of a stacked tensor are one run. */
static void plan(flow_batch *b) {
    size_t place = 0;
    b->n_runs = b->run = 0;
    b->run_at = 0;
    for (int i = 0; i < PACK_PARTS; i++) {
        for (int e = 0; e < b->n; e++) {
            const expert_part *part = part_of(b->layer, b->first + e, i);
            if (part->bytes == 0) continue;
            add_part(b, part, &place);
            const flow_run *r = &b->runs[b->n_runs - 1];
            b->part[e * PACK_PARTS + i] = r->place + (size_t)(part->offset - block_of(r->offset));
        }
    }
}

/* A free batch for the next experts. */
static flow_batch *begin_batch(flow *f, bool wait) {
    flow_batch *b = flow_take(f, FLOW_FREE, wait);
    if (!b) return NULL;
    b->layer = &f->layers[f->next_layer];
    b->first = f->next_expert;
    b->n = int_min(b->layer->step, f->p->config.experts - b->first);
    f->next_expert += b->n;
    if (f->next_expert == f->p->config.experts) {
        f->next_expert = 0;
        f->next_layer++;
    }
    plan(b);
    return b;
}

/* ---- reading it ---- */

/* The next piece of b; false when all are under way. */
static bool start_piece(flow *f, flow_batch *b, io_read *read) {
    if (b->run == b->n_runs) return false;
    const flow_run *r = &b->runs[b->run];
    int64_t from = block_of(r->offset), end = r->offset + r->bytes;
    int64_t left = end - from - b->run_at;
    uint32_t need = left < FLOW_PIECE ? (uint32_t)left : FLOW_PIECE;
    *read = (io_read){.dst = b->source + r->place + b->run_at,
                      .offset = from + b->run_at,
                      .bytes = (uint32_t)round_up(need, IO_ALIGN),
                      .need = need,
                      .file = r->file,
                      .owner = b};
    b->run_at += need;
    if (from + b->run_at == end) {
        b->run++;
        b->run_at = 0;
    }
    b->reads++;
    io_start(f->io, read);
    return true;
}

typedef struct reader {
    flow *f;
    flow_batch *now; /* pieces of it are being started; NULL: none */
    io_read *idle[FLOW_DEPTH];
    int n_idle;
} reader;

/* Keeps the disk busy; false when there is nothing more to start now. */
static void start_pieces(reader *r) {
    flow *f = r->f;
    while (r->n_idle > 0) {
        if (!r->now) r->now = begin_batch(f, io_in_flight(f->io) == 0);
        if (!r->now) return;
        if (start_piece(f, r->now, r->idle[r->n_idle - 1])) {
            r->n_idle--;
            continue;
        }
        if (r->now->reads == 0) flow_pass(f, r->now);
        r->now = NULL;
    }
}

static err end_piece(reader *r, io_read *read) {
    flow *f = r->f;
    flow_batch *b = read->owner;
    r->idle[r->n_idle++] = read;
    if (--b->reads == 0 && b != r->now) flow_pass(f, b);
    return read->error ? io_read_error(f->io, read) : err_none();
}

void *flow_read(void *ctx) {
    reader r = {.f = ctx};
    for (int i = 0; i < FLOW_DEPTH; i++) r.idle[r.n_idle++] = &r.f->reads[i];
    for (;;) {
        start_pieces(&r);
        io_flush(r.f->io);
        io_read *read = io_next(r.f->io, true);
        if (!read) break;
        err e = end_piece(&r, read);
        if (e.code) flow_fail(r.f, e);
    }
    return NULL;
}
