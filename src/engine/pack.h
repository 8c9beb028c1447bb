/* pack.h: writes a bank (format/bank.h) from a checkpoint.
 *
 *     MLX source          laid out anew, every value as it is
 *     BF16, F16, F32      experts to `bits` in groups of `group`; all other matrices to 8 bits in
 *                         groups of 64; vectors, convolutions and what does not divide into groups
 *                         as they are
 *
 * Layer by layer: each layer's file is whole under its name or not there, so a packing that was
 * killed goes on at the layer it was on, and ends with the same bytes. The manifest comes last.
 * Reading, working and writing go on at the same time (pack_flow.h). Memory: about 160 MB, or ten
 * experts where those are larger, whatever the model's size. */
#ifndef ENGINE_PACK_H
#define ENGINE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* what: "model"; bytes of the result. Called from the calling thread. */
typedef void (*pack_progress)(void *ctx, const char *what, uint64_t done, uint64_t total);

typedef struct pack_options {
    const char *model_dir;
    const char *out_dir;    /* NULL: MODEL_DIR/flashchat/q<bits> */
    int bits, group;        /* 4 or 8; 32, 64 or 128; of an MLX source its own count */
    int threads;            /* 0: one per processor, at most 8 */
    bool dry_run;           /* fills the report only */
    pack_progress progress; /* may be NULL */
    void *progress_ctx;
} pack_options;

typedef struct pack_report {
    char out_dir[4096];
    bool relaid;                         /* no value was changed */
    bool complete_before;                /* the bank was there already */
    int layers, layers_before;           /* files of experts; of these already there */
    uint64_t experts_bytes, trunk_bytes; /* of the result */
    uint64_t written;                    /* now */
} pack_report;

/* ERR_BUDGET when the disk is too small (before anything is written), ERR_BUSY when another process
 * packs into the same directory, ERR_ARG when out_dir holds a bank of another source or of other
 * settings, and the errors of opening the model. */
err pack_model(const pack_options *options, pack_report *out) MUST_USE;

#endif
