/* pack_experts.c: one layer's experts, each read, quantised or not, and written by one thread. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine/pack_impl.h"

typedef struct job {
    packer *p;
    const layer_weights *layer;
    const expert_part *parts; /* [experts][PACK_PARTS] */
    pack_record record;
    bank_writer writer;
    size_t source_bytes; /* of the largest matrix of the source */
    uint8_t **memory;    /* [threads]: record, then source, then one row as float32 */
    int first;           /* expert of task 0 */
    pthread_mutex_t lock;
    err e; /* the first failure; under lock */
} job;

static const qmat *matrix_of(const layer_weights *l, int which) {
    return which == 0 ? &l->expert.gate : which == 1 ? &l->expert.up : &l->expert.down;
}

static err read_part(const packer *p, const expert_part *part, uint8_t *out) {
    size_t done = 0;
    const char *path = p->w.experts.paths[part->file];
    while (done < part->bytes) {
        ssize_t n = pread(p->fds[part->file], out + done, part->bytes - done,
                          (off_t)(part->offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_system(errno, "%s: reading at %lld", path, (long long)part->offset);
        if (n == 0) return err_make(ERR_IO, "%s: the file ended", path);
        done += (size_t)n;
    }
    return err_none();
}

static err quantise(const job *j, int which, uint8_t *record, const uint8_t *source, float *row) {
    const pack_record *r = &j->record;
    qmat m = *matrix_of(j->layer, which);
    m.w = source;
    qformat f = r->format[which];
    size_t w = qformat_row_bytes(f, m.cols), s = qformat_scale_row_bytes(f, m.cols);
    for (int i = 0; i < m.rows; i++) {
        qmat_row_f32(row, &m, i);
        for (int c = 0; c < m.cols; c++)
            if (!isfinite(row[c]))
                return err_make(ERR_CORRUPT, "a weight that is not finite (row %d, column %d)", i,
                                c);
        affine_row out = {.w = record + r->offset[which * 3] + (size_t)i * w,
                          .scales = record + r->offset[which * 3 + 1] + (size_t)i * s,
                          .biases = record + r->offset[which * 3 + 2] + (size_t)i * s,
                          .format = f,
                          .cols = m.cols};
        affine_quantise_row(&out, row);
    }
    return err_none();
}

static err make_record(const job *j, int expert, uint8_t *memory) {
    const expert_part *parts = j->parts + (size_t)expert * PACK_PARTS;
    uint8_t *source = memory + j->record.total;
    float *row = (float *)(void *)(source + round_up(j->source_bytes, 64));
    memset(memory, 0, j->record.total);
    for (int which = 0; which < 3; which++) {
        bool as_is = j->record.format[which].kind == matrix_of(j->layer, which)->format.kind;
        for (int i = which * 3; i < which * 3 + 3 && as_is; i++)
            TRY(read_part(j->p, &parts[i], memory + j->record.offset[i]));
        if (as_is) continue;
        TRY(read_part(j->p, &parts[which * 3], source));
        TRY(quantise(j, which, memory, source, row));
    }
    return err_none();
}

static void pack_expert(void *ctx, int task, int worker) {
    job *j = ctx;
    int expert = j->first + task;
    err e = make_record(j, expert, j->memory[worker]);
    if (!e.code) e = bank_writer_put(&j->writer, expert, j->memory[worker]);
    if (!e.code) return;
    pthread_mutex_lock(&j->lock);
    if (!j->e.code) j->e = err_within(e, "expert %d", expert);
    pthread_mutex_unlock(&j->lock);
}

static err open_memory(job *j) {
    int cols = 0;
    for (int which = 0; which < 3; which++) {
        const qmat *m = matrix_of(j->layer, which);
        size_t bytes = qformat_row_bytes(m->format, m->cols) * (size_t)m->rows;
        if (bytes > j->source_bytes) j->source_bytes = bytes;
        cols = int_max(cols, m->cols);
    }
    size_t each = j->record.total + round_up(j->source_bytes, 64) + (size_t)cols * sizeof(float);
    j->memory = calloc((size_t)j->p->threads, sizeof *j->memory);
    for (int i = 0; i < j->p->threads && j->memory; i++) {
        void *block = NULL;
        if (posix_memalign(&block, BANK_ALIGN, each) != 0) break;
        j->memory[i] = block;
    }
    bool ok = j->memory && j->memory[j->p->threads - 1];
    return ok ? err_none() : err_make(ERR_NOMEM, "no memory for %zu bytes a thread", each);
}

err pack_layer(packer *p, int layer) {
    const model_config *c = &p->config;
    job j = {.p = p,
             .layer = &p->w.layers[layer],
             .lock = PTHREAD_MUTEX_INITIALIZER,
             .writer = {.fd = -1}};
    pack_record_of(p, j.layer, &j.record);
    j.parts = p->w.experts.parts + (size_t)j.layer->sparse_index * (size_t)c->experts * PACK_PARTS;
    err e = open_memory(&j);
    if (!e.code)
        e = bank_writer_open(&j.writer, p->report->out_dir, layer, c->experts, j.record.total);
    int step =
        p->threads * 8; /* some between two reports of progress, where all wait for the last */
    for (int i = 0; i < c->experts && !e.code; i += step) {
        int n = int_min(step, c->experts - i);
        j.first = i;
        pool_run(p->pool, pack_expert, &j, n);
        e = j.e;
        if (!e.code) pack_tell(p, "experts", (uint64_t)n * j.record.total);
    }
    if (!e.code) e = bank_writer_finish(&j.writer);
    bank_writer_close(&j.writer);
    for (int i = 0; i < p->threads && j.memory; i++) free(j.memory[i]);
    free(j.memory);
    return e.code ? err_within(e, "%s: layer %d", p->o->model_dir, layer) : e;
}
