/* pack_flow.h: batches of experts on their way through the packer, three things at a time.
 *
 *     reader thread     FREE -> READING -> READ     direct reads, several pieces at once
 *     caller, and pool  READ -> MAKING  -> MADE     laid out anew or quantised, checksums
 *     writer thread     MADE -> WRITING -> FREE     direct writes of whole batches
 *
 * FLOW_BATCHES of them, each some neighbouring experts of one layer: in a stacked tensor these lie
 * side by side, so that a batch is few long reads, and one long write. The disk reads and writes
 * while the processors work, also over the border between two layers. A finished layer is set
 * aside (bank_writer_end) and gets its name when a few are flushed together: a flush holds up
 * reading and writing, and the more so the sooner it comes (docs/MEASURED.md, "Packing").
 *
 * Memory: FLOW_BATCHES times (FLOW_BATCH_BYTES, or one expert where that is more) of the source and
 * of the result. Only pack*.c include this. */
#ifndef ENGINE_PACK_FLOW_H
#define ENGINE_PACK_FLOW_H

#include <pthread.h>

#include "engine/pack_impl.h"
#include "io/io.h"

#define FLOW_BATCHES     6
#define FLOW_FLUSH       ((uint64_t)4 << 30) /* bytes of written layers between two flushes */
#define FLOW_BATCH_BYTES ((size_t)16 << 20)
#define FLOW_PIECE       (1u << 20) /* bytes of one read */
#define FLOW_DEPTH       32         /* reads at once */

typedef enum flow_state {
    FLOW_FREE,
    FLOW_READING,
    FLOW_READ,
    FLOW_MAKING,
    FLOW_MADE,
    FLOW_WRITING
} flow_state;

/* A layer's file while its records come in. */
typedef struct flow_layer {
    int number; /* of the model */
    const layer_weights *weights;
    const expert_part *parts; /* [experts][PACK_PARTS] */
    pack_record record;
    int step;           /* experts of a batch */
    bank_writer writer; /* open from the layer's first batch on; its path is of that time */
    int left;           /* records not yet written; the writer's */
    bool unflushed;     /* set aside; the writer's */
} flow_layer;

/* Bytes of a file that are read as one, and where they land in the batch's source: at `place` the
 * block that holds the first of them. */
typedef struct flow_run {
    int64_t offset, bytes;
    int32_t file;
    size_t place;
} flow_run;

typedef struct flow_batch {
    flow_state state; /* under the flow's lock */
    int number;       /* of all batches */
    flow_layer *layer;
    int first, n;     /* experts */
    uint8_t *source;  /* covering ranges, each at a multiple of IO_ALIGN */
    uint8_t *records; /* [n][record.total] */
    size_t *part;     /* [n][PACK_PARTS] places in source; owned */
    /* the reader's */
    flow_run *runs; /* owned; room for n * PACK_PARTS */
    int n_runs, run;
    int64_t run_at; /* within that run, from the begin of its first block */
    int reads;      /* in flight */
} flow_batch;

typedef struct flow {
    packer *p;
    /* fixed before the threads start */
    flow_layer *layers; /* [n_layers], those that are not there yet; owned */
    int n_layers, n_batches;
    size_t source_bytes, records_bytes; /* of a batch, at most */
    int experts_max;                    /* of a batch */
    uint8_t *memory;                    /* of all batches; owned */
    size_t memory_bytes;
    flow_batch batches[FLOW_BATCHES];
    io *io;             /* the reader's */
    io_read *reads;     /* [FLOW_DEPTH]; the reader's */
    int next_layer;     /* of the batch that is filled next; the reader's */
    int next_expert;    /* the same */
    int n_ended;        /* layers that are set aside or flushed; the writer's */
    uint64_t unflushed; /* bytes of those between; the writer's */
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int begun[3]; /* batches that were ever taken for reading, making, writing */
    err e;        /* the first failure */
} flow;

/* The oldest batch in state `from`, now in the next state; with wait, waits for one. NULL: none
 * now, or nothing more will come, or something has failed. */
flow_batch *flow_take(flow *f, flow_state from, bool wait);
/* Into the state after its present one. */
void flow_pass(flow *f, flow_batch *b);
void flow_fail(flow *f, err e);

/* pack_read.c: the reader's thread; ctx is the flow. */
void *flow_read(void *ctx);
/* Bytes of source that one expert of the layer needs at most, margins included. */
size_t flow_source_bytes(const flow_layer *l, int n_experts);

/* pack_experts.c: the records of a batch from its source. */
void flow_make(flow *f, flow_batch *b);

#endif
