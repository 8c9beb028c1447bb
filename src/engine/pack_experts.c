/* pack_experts.c: the records of a batch: every value as it is, or quantised. See pack_flow.h.
 *
 * A task is some rows of one matrix of one expert, so that the threads have enough to share also
 * where a batch is a single large expert. */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "engine/pack_flow.h"

#define ROWS_A_TASK 64

typedef struct making {
    flow *f;
    flow_batch *b;
    int blocks; /* tasks of a matrix, at most */
} making;

static const qmat *matrix_of(const layer_weights *l, int which) {
    return which == 0 ? &l->expert.gate : which == 1 ? &l->expert.up : &l->expert.down;
}

typedef struct span { /* rows [begin, end) of matrix `which` of an expert of the batch */
    int expert, which, begin, end;
} span;

static const uint8_t *source_of(const flow_batch *b, int expert, int part) {
    return b->source + b->part[expert * PACK_PARTS + part];
}

static uint8_t *target_of(const flow_batch *b, int expert, int part) {
    const pack_record *r = &b->layer->record;
    return b->records + (size_t)expert * r->total + r->offset[part];
}

static void copy_rows(const flow_batch *b, const span *s, int rows) {
    for (int part = s->which * 3; part < s->which * 3 + 3; part++) {
        size_t row = b->layer->record.bytes[part] / (size_t)rows, at = row * (size_t)s->begin;
        if (row == 0) continue;
        memcpy(target_of(b, s->expert, part) + at, source_of(b, s->expert, part) + at,
               row * (size_t)(s->end - s->begin));
    }
}

/* The first column of row `row` that is not finite; there is one. */
static int not_finite(const qmat *m, int row) {
    qmat values = *m; /* a row for each */
    values.rows = m->rows * m->cols;
    values.cols = 1;
    int c = 0;
    for (float x = 0; c < m->cols; c++) {
        dense_row_f32(&x, &values, row * m->cols + c);
        if (!isfinite(x)) break;
    }
    return c;
}

static err quantise_rows(const flow *f, const flow_batch *b, const span *s) {
    qmat m = *matrix_of(b->layer->weights, s->which);
    m.w = source_of(b, s->expert, s->which * 3);
    qformat to = b->layer->record.format[s->which];
    size_t w = qformat_row_bytes(to, m.cols), scale = qformat_scale_row_bytes(to, m.cols);
    for (int i = s->begin; i < s->end; i++) {
        affine_row out = {.w = target_of(b, s->expert, s->which * 3) + (size_t)i * w,
                          .scales = target_of(b, s->expert, s->which * 3 + 1) + (size_t)i * scale,
                          .biases = target_of(b, s->expert, s->which * 3 + 2) + (size_t)i * scale,
                          .format = to,
                          .cols = m.cols};
        if (!f->p->cpu->quantize_weights(&out, qmat_rows(&m, i, 1).w, m.format.kind))
            return err_make(ERR_CORRUPT, "a weight that is not finite (row %d, column %d)", i,
                            not_finite(&m, i));
    }
    return err_none();
}

static void make_rows(void *ctx, int task, int worker) {
    (void)worker;
    const making *k = ctx;
    const flow_batch *b = k->b;
    span s = {.expert = task / (3 * k->blocks), .which = task / k->blocks % 3};
    const qmat *m = matrix_of(b->layer->weights, s.which);
    s.begin = task % k->blocks * ROWS_A_TASK;
    s.end = int_min(s.begin + ROWS_A_TASK, m->rows);
    if (s.begin >= s.end) return;
    if (b->layer->record.format[s.which].kind == m->format.kind) {
        copy_rows(b, &s, m->rows);
        return;
    }
    err e = quantise_rows(k->f, b, &s);
    if (e.code)
        flow_fail(k->f, err_within(e, "%s: layer %d: expert %d", k->f->p->o->model_dir,
                                   b->layer->number, b->first + s.expert));
}

/* Zeroes between the parts and behind the last one, then the checksum. */
static void end_record(void *ctx, int expert, int worker) {
    (void)worker;
    const making *k = ctx;
    const flow_batch *b = k->b;
    const pack_record *r = &b->layer->record;
    for (int i = 0; i < PACK_PARTS; i++) {
        size_t end = (size_t)r->offset[i] + r->bytes[i];
        size_t next = i + 1 < PACK_PARTS ? (size_t)r->offset[i + 1] : r->total;
        memset(b->records + (size_t)expert * r->total + end, 0, next - end);
    }
    bank_writer_sum(&b->layer->writer, b->first + expert, 1,
                    b->records + (size_t)expert * r->total);
}

void flow_make(flow *f, flow_batch *b) {
    making k = {.f = f, .b = b};
    int rows = 0;
    for (int which = 0; which < 3; which++)
        rows = int_max(rows, matrix_of(b->layer->weights, which)->rows);
    k.blocks = (rows + ROWS_A_TASK - 1) / ROWS_A_TASK;
    pool_run(f->p->pool, make_rows, &k, b->n * 3 * k.blocks);
    pool_run(f->p->pool, end_record, &k, b->n);
}
