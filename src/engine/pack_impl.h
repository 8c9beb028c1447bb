/* pack_impl.h: what the pack*.c files share; nobody else includes it. */
#ifndef ENGINE_PACK_IMPL_H
#define ENGINE_PACK_IMPL_H

#include <jansson.h>
#include <pthread.h>

#include "base/pool.h"
#include "cpu/cpu.h"
#include "engine/pack.h"
#include "format/bank.h"
#include "format/config.h"
#include "model/weights.h"

#define PACK_CHUNK       ((size_t)2 << 20) /* bytes of a trunk tensor in memory at once, about */
#define PACK_TRUNK_BITS  8
#define PACK_TRUNK_GROUP 64
#define PACK_PARTS       9

/* One tensor of the result's trunk. */
typedef struct pack_tensor {
    char name[300];
    const st_tensor *source;
    int role; /* -1: copied; 0, 1, 2: weight, scales, biases of the source, quantised */
    st_dtype dtype;
    int n_dims;
    int64_t shape[ST_DIMS_MAX];
    int64_t offset, bytes;
    uint64_t hash;
} pack_tensor;

typedef struct packer {
    const pack_options *o;
    pack_report *report;
    model_config config;
    st_set *files;
    weights w; /* measured only: the map of the experts */
    bool relaid;
    qformat format; /* of experts that are quantised here */
    int threads;
    const cpu_kernels *cpu;
    pool *pool;
    char prefix[64];    /* of the text model's tensors */
    pack_tensor *trunk; /* owned */
    int n_trunk;
    uint64_t total;
    int mark_fd;    /* of packing.json, locked */
    char mark[20];  /* source and settings */
    uint64_t shown; /* bytes of the result; the caller's thread's */
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t told;    /* of done, written and trunk_ended */
    uint64_t done, written; /* bytes of the result; of these now */
    bool stopped, trunk_ended;
} packer;

/* pack_plan.c */
err pack_plan(packer *p) MUST_USE;
bool pack_is_expert(const char *name);
/* Where the nine parts of a record lie (parts that are not there have 0 bytes), and its size. */
typedef struct pack_record {
    int64_t offset[PACK_PARTS];
    size_t bytes[PACK_PARTS];
    size_t total; /* a multiple of BANK_ALIGN */
    qformat format[3];
} pack_record;
void pack_record_of(const packer *p, const layer_weights *layer, pack_record *out);
/* manifest.json and config.json of the result; the caller owns them. */
err pack_manifest(const packer *p, json_t **out) MUST_USE;
err pack_config(const packer *p, json_t **out) MUST_USE;

/* pack_flow.c: the experts of those of the model's layers that are missing [layers]. */
err pack_experts(packer *p, const bool *missing) MUST_USE;
/* pack_trunk.c */
err pack_trunk(packer *p) MUST_USE;

/* So many bytes more are written; any thread. */
void pack_tell(packer *p, uint64_t bytes);
/* Shows progress, where there is some; the caller's thread. False: something else has failed, and
 * all should stop. */
bool pack_show(packer *p);
void pack_stop(packer *p);
bool pack_stopped(packer *p);

#endif
