/* bank.h: a packed model: the same tensors laid out for reading one expert at a time.
 *
 *     DIR/config.json, tokenizer.json ...   of the source (config.json says how it is quantised
 * now) DIR/manifest.json                     version, source, files, every tensor's place and hash
 *     DIR/trunk.bin                         all other tensors, each at a multiple of 64
 *     DIR/experts/layer_NN.bank             NN: the model's layer
 *
 *     layer_NN.bank   [record 0 ....|][record 1 ....|] ... [record E-1 ....|][trailer]
 *     record          gate.w gate.scales gate.biases up.w ... down.biases, each at a multiple of
 * 64; records at multiples of 4096, so that one aligned read brings one expert trailer "FMBANK01",
 * records u32, 0 u32, record bytes u64, XXH3 of each record u64, XXH3 of the trailer so far u64;
 * little-endian
 *
 * manifest.json is written last: without it the directory is an unfinished packing. It is
 * untrusted like every file of a model: places are checked against the files' sizes, file names are
 * made here and never read from it. */
#ifndef FORMAT_BANK_H
#define FORMAT_BANK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/safetensors.h"

#define BANK_VERSION      1
#define BANK_ALIGN        4096
#define BANK_TENSOR_ALIGN 64
#define BANK_PATH_MAX     4096
#define BANK_LAYERS_MAX   1024

/* The directory has a manifest. */
bool bank_is(const char *dir);
/* Its tensors, experts as stacked ones with a stride (safetensors.h). ERR_CORRUPT, ERR_UNSUPPORTED
 * (another version) name file and field. */
err bank_open(const char *dir, st_set **out) MUST_USE;

typedef void (*bank_progress)(void *ctx, const char *what, uint64_t done, uint64_t total);

typedef struct bank_check {
    bool deep;              /* read everything and compare every hash; else sizes and trailers */
    bank_progress progress; /* may be NULL */
    void *ctx;
} bank_check;

/* ERR_CORRUPT names the first bad file, and of it the first bad expert or tensor. */
err bank_verify(const char *dir, const bank_check *check) MUST_USE;

/* The checksums that a layer's file has of its records, out [records]: of a file whose trailer says
 * exactly this number of records and bytes of each, else ERR_CORRUPT. */
err bank_hashes(const char *path, int records, int64_t record_bytes, uint64_t *out) MUST_USE;

/* ---- writing ---- */

/* "DIR/experts/layer_07.bank"; layer < 0: "DIR/trunk.bin". False: too long. */
bool bank_path(char out[BANK_PATH_MAX], const char *dir, int layer);

/* One layer's file: PATH.partial, PATH.written when all is in it, PATH when it is also flushed. */
typedef struct bank_writer {
    char path[BANK_PATH_MAX], partial[BANK_PATH_MAX], written[BANK_PATH_MAX];
    int fd, records;
    size_t record_bytes; /* a multiple of BANK_ALIGN */
    uint64_t *hashes;    /* owned */
} bank_writer;

/* Anything left of an earlier attempt is written over. */
err bank_writer_open(bank_writer *w, const char *dir, int layer, int records,
                     size_t record_bytes) MUST_USE;
/* Records [first, first + n) side by side at `bytes`, which is aligned to BANK_ALIGN: their
 * checksums are taken, and they are written. Any thread, each record once. */
void bank_writer_sum(bank_writer *w, int first, int n, const void *bytes);
err bank_writer_put(bank_writer *w, int first, int n, const void *bytes) MUST_USE;
/* Trailer, and PATH.written: whole unless the power fails. */
err bank_writer_end(bank_writer *w) MUST_USE;
/* After it: flush, and the file's real name. */
err bank_writer_finish(bank_writer *w) MUST_USE;
void bank_writer_close(bank_writer *w); /* after finish or instead of it */

/* A file that an earlier process has left as PATH.written, of this many records and bytes of each:
 * when every checksum fits it is flushed and gets its name, and *done is true; else it is removed.
 * Without one *done is false. */
err bank_writer_adopt(const char *dir, int layer, int records, size_t record_bytes,
                      bool *done) MUST_USE;

/* All of bytes at offset; ERR_IO names path. */
err bank_write_at(int fd, const char *path, const void *bytes, size_t length,
                  int64_t offset) MUST_USE;
/* Flushes fd and renames from to path: whoever finds the new name after a power cut finds a whole
 * file. The name itself may be lost until the directory is flushed. */
err bank_rename(int fd, const char *from, const char *path) MUST_USE;
/* The directory that holds path. */
err bank_flush_directory(const char *path) MUST_USE;
/* value becomes DIR/name, whole or not at all. */
err bank_write_json(const char *dir, const char *name, const json_t *value) MUST_USE;

#endif
