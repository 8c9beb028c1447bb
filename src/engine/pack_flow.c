/* pack_flow.c: the states of batches, the writer's thread, and the flow's beginning and end. See
 * pack_flow.h. */
#include "engine/pack_flow.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"

/* ---- states ---- */

static flow_state after(flow_state s) { return s == FLOW_WRITING ? FLOW_FREE : s + 1; }

static flow_batch *oldest(flow *f, flow_state state) {
    flow_batch *found = NULL;
    for (int i = 0; i < FLOW_BATCHES; i++) {
        flow_batch *b = &f->batches[i];
        if (b->state == state && (!found || b->number < found->number)) found = b;
    }
    return found;
}

flow_batch *flow_take(flow *f, flow_state from, bool wait) {
    int stage = (int)from / 2; /* reading, making, writing */
    pthread_mutex_lock(&f->lock);
    flow_batch *b = NULL;
    while (!f->e.code && f->begun[stage] < f->n_batches && !(b = oldest(f, from)) && wait)
        pthread_cond_wait(&f->changed, &f->lock);
    if (b) {
        b->state = after(b->state);
        if (from == FLOW_FREE) b->number = f->begun[stage];
        /* the last one ends the waiting of the others at this stage */
        if (++f->begun[stage] == f->n_batches) pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return b;
}

void flow_pass(flow *f, flow_batch *b) {
    pthread_mutex_lock(&f->lock);
    b->state = after(b->state);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void flow_fail(flow *f, err e) {
    pthread_mutex_lock(&f->lock);
    if (!f->e.code) f->e = e;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* ---- writing ---- */

/* Flushes the layers that are set aside and gives them their names. */
static err name_layers(flow *f) {
    for (int i = 0; i < f->n_layers; i++) {
        if (!f->layers[i].unflushed) continue;
        TRY(bank_writer_finish(&f->layers[i].writer));
        f->layers[i].unflushed = false;
    }
    f->unflushed = 0;
    return err_none();
}

static err write_batch(flow *f, const flow_batch *b) {
    flow_layer *l = b->layer;
    uint64_t bytes = (uint64_t)b->n * l->record.total;
    TRY(bank_writer_put(&l->writer, b->first, b->n, b->records));
    pack_tell(f->p, bytes);
    f->unflushed += bytes;
    l->left -= b->n;
    if (l->left) return err_none();
    TRY(bank_writer_end(&l->writer));
    l->unflushed = true;
    f->n_ended++;
    return f->unflushed >= FLOW_FLUSH || f->n_ended == f->n_layers ? name_layers(f) : err_none();
}

static void *flow_write(void *ctx) {
    flow *f = ctx;
    for (flow_batch *b; (b = flow_take(f, FLOW_MADE, true));) {
        err e = write_batch(f, b);
        if (e.code) flow_fail(f, err_within(e, "layer %d", b->layer->number));
        flow_pass(f, b);
    }
    return NULL;
}

/* ---- the caller's part ---- */

static void make_all(flow *f) {
    for (flow_batch *b; (b = flow_take(f, FLOW_READ, true));) {
        flow_layer *l = b->layer;
        err e = err_none();
        if (!l->writer.hashes)
            e = bank_writer_open(&l->writer, f->p->report->out_dir, l->number, f->p->config.experts,
                                 l->record.total);
        if (e.code)
            flow_fail(f, err_within(e, "layer %d", l->number));
        else
            flow_make(f, b);
        flow_pass(f, b);
        if (!pack_show(f->p)) flow_fail(f, err_make(ERR_CANCELLED, "stopped"));
    }
}

/* ---- begin and end ---- */

static void add_layer(flow *f, int number) {
    packer *p = f->p;
    flow_layer *l = &f->layers[f->n_layers++];
    int experts = p->config.experts;
    *l = (flow_layer){
        .number = number, .weights = &p->w.layers[number], .writer = {.fd = -1}, .left = experts};
    l->parts = p->w.experts.parts +
               (size_t)l->weights->sparse_index * (size_t)experts * (size_t)PACK_PARTS;
    pack_record_of(p, l->weights, &l->record);
    size_t source = flow_source_bytes(l, experts);
    size_t most = source > l->record.total ? source : l->record.total;
    l->step = int_min(experts, int_max(1, (int)(FLOW_BATCH_BYTES / most)));
    f->n_batches += (experts + l->step - 1) / l->step;
    f->experts_max = int_max(f->experts_max, l->step);
    source *= (size_t)l->step;
    size_t records = l->record.total * (size_t)l->step;
    f->source_bytes = source > f->source_bytes ? source : f->source_bytes;
    f->records_bytes = records > f->records_bytes ? records : f->records_bytes;
}

static err open_memory(flow *f) {
    f->source_bytes = round_up(f->source_bytes, IO_ALIGN);
    f->records_bytes = round_up(f->records_bytes, IO_ALIGN);
    size_t each = f->source_bytes + f->records_bytes;
    void *memory;
    TRY(os_map(each * FLOW_BATCHES, true, &memory));
    f->memory = memory;
    f->memory_bytes = each * FLOW_BATCHES;
    size_t parts = (size_t)f->experts_max * PACK_PARTS;
    f->reads = calloc(FLOW_DEPTH, sizeof *f->reads);
    bool ok = f->reads != NULL;
    for (int i = 0; i < FLOW_BATCHES; i++) {
        flow_batch *b = &f->batches[i];
        b->source = f->memory + each * (size_t)i;
        b->records = b->source + f->source_bytes;
        b->part = calloc(parts, sizeof *b->part);
        b->runs = calloc(parts, sizeof *b->runs);
        ok = ok && b->part && b->runs;
    }
    return ok ? err_none() : err_make(ERR_NOMEM, "no memory for packing");
}

/* Past the page cache where that is possible here. */
static err open_reader(flow *f) {
    io_options o = {
        .paths = f->p->w.experts.paths, .n_files = f->p->w.experts.n_files, .depth = FLOW_DEPTH};
    return io_open_first(&o, &f->io);
}

static void run_threads(flow *f) {
    pthread_t threads[2];
    int n = 0, failed = 0;
    for (; n < 2 && !failed; n += !failed)
        failed = pthread_create(&threads[n], NULL, n ? flow_write : flow_read, f);
    if (failed) flow_fail(f, err_system(failed, "a thread cannot be started"));
    make_all(f);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static void flow_close(flow *f) {
    io_close(f->io);
    for (int i = 0; i < f->n_layers; i++) bank_writer_close(&f->layers[i].writer);
    for (int i = 0; i < FLOW_BATCHES; i++) {
        free(f->batches[i].part);
        free(f->batches[i].runs);
    }
    if (f->memory) os_unmap(f->memory, f->memory_bytes);
    free(f->reads);
    free(f->layers);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
}

err pack_experts(packer *p, const bool *missing) {
    flow f = {.p = p, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    f.layers = calloc((size_t)p->config.layers, sizeof *f.layers);
    if (!f.layers) return err_make(ERR_NOMEM, "no memory for the list of layers");
    for (int i = 0; i < p->config.layers; i++)
        if (missing[i]) add_layer(&f, i);
    err e = err_none();
    if (f.n_layers) {
        e = open_memory(&f);
        if (!e.code) e = open_reader(&f);
        if (!e.code) run_threads(&f);
        if (!e.code) e = f.e;
        if (!e.code) e = bank_flush_directory(f.layers[0].writer.path);
    }
    flow_close(&f);
    return e;
}
