/* safetensors.h: the tensors of a checkpoint directory, as published.
 *
 *     DIR/model.safetensors                      one file, or
 *     DIR/model.safetensors.index.json           weight_map: tensor -> shard
 *     DIR/model-0000N-of-0000M.safetensors       [u64 header length][JSON header][data]
 *
 * Only headers are read at open. Every number in a header is hostile: offsets are checked against
 * the file's size, shape against dtype against byte count, tensors against each other (no overlap,
 * no gap: together they fill the file, as the format demands), names against duplicates (within and
 * across shards), the index against the shards. A shard name is a plain file name inside DIR.
 * Errors name file, tensor and field. Symbolic links are followed (the Hugging Face cache is made
 * of them). Zero-size tensors and scalars (n_dims 0) are legal.
 *
 * A set keeps one descriptor per file open until st_close. */
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ST_DIMS_MAX   8
#define ST_FILES_MAX  4096
#define ST_HEADER_MAX 100000000 /* bytes of one JSON header: the limit of the reference reader */

typedef enum st_dtype {
    ST_BOOL,
    ST_U8,
    ST_I8,
    ST_F8_E4M3,
    ST_F8_E5M2,
    ST_F8_E8M0,
    ST_I16,
    ST_U16,
    ST_F16,
    ST_BF16,
    ST_I32,
    ST_U32,
    ST_F32,
    ST_F64,
    ST_I64,
    ST_U64,
    ST_DTYPES
} st_dtype;

const char *st_dtype_name(st_dtype d); /* as in the file: "BF16" */
size_t st_dtype_bytes(st_dtype d);
bool st_dtype_parse(const char *name, st_dtype *out); /* false: not known */

typedef struct st_tensor {
    const char *name; /* owned by the set */
    st_dtype dtype;
    int n_dims;
    int64_t shape[ST_DIMS_MAX];
    int file;       /* index for st_path */
    int64_t offset; /* of the first byte, from the start of the file */
    int64_t bytes;
    int64_t stride; /* of a bank's experts: from one slice of the first dimension to the next, in
                       bytes; 0: the tensor is one piece. st_read refuses strided ones */
} st_tensor;

typedef struct st_set st_set; /* fixed after open: reading it is safe from any thread */

/* How the bytes of files are read: tests inject short and failed reads here. Works like pread(2),
 * errno included; called from every thread that reads. */
typedef struct st_io {
    int64_t (*read_at)(void *ctx, int fd, void *dst, size_t length, int64_t offset);
    void *ctx; /* borrowed */
} st_io;

/* dir: a checkpoint directory. With an index, the index says which files belong; without one it is
 * DIR/model.safetensors. ERR_NOT_FOUND says what was looked for; ERR_CORRUPT, ERR_UNSUPPORTED
 * (unknown dtype, more than ST_DIMS_MAX dimensions) and ERR_IO name the file, ERR_ARG a dir that is
 * not one. On error *out is NULL. Costs the headers' bytes and, while it runs, about ten times
 * their size in memory (docs/MEASURED.md, "opening a checkpoint"). */
err st_open(const char *dir, st_set **out) MUST_USE;
/* The same reading through io (borrowed until st_close; NULL for the system's reads). */
err st_open_with(const char *dir, const st_io *io, st_set **out) MUST_USE;
/* One file (also golden.safetensors). */
err st_open_file(const char *path, st_set **out) MUST_USE;
/* A header in memory, for fuzzing: `bytes` is the file's beginning (8 bytes of length, then the
 * JSON), file_size what the file claims to have. There is no file behind the set: st_read on it is
 * ERR_ARG. */
err st_parse_header(const char *path, const uint8_t *bytes, size_t length, int64_t file_size,
                    st_set **out) MUST_USE;
/* A set of tensors whose places are known from elsewhere (bank.h): names and paths are copied,
 * offsets checked against the files' sizes, names against duplicates. format as of st_format. */
err st_from_list(const char *const *paths, int n_files, const st_tensor *tensors, int n,
                 const char *format, st_set **out) MUST_USE;
void st_close(st_set *s); /* NULL is fine */

int st_count(const st_set *s);
const st_tensor *st_at(const st_set *s, int i);              /* ascending by name */
const st_tensor *st_find(const st_set *s, const char *name); /* NULL when missing; O(log n) */
int st_files(const st_set *s);
const char *st_path(const st_set *s, int file);
/* __metadata__ "format" of the first file that has one, or "" ("pt", "mlx"). */
const char *st_format(const st_set *s);

/* Reads the whole tensor (t->bytes) through ordinary reads into dst. Partial reads are continued
 * and interrupted ones repeated; ERR_IO names file, tensor and offset, and a file that ends early
 * is one. On error dst holds anything. Threads any, at once. */
err st_read(const st_set *s, const st_tensor *t, void *dst) MUST_USE;
/* Reads bytes [begin, begin + length) of it; ERR_RANGE when that is not inside the tensor. */
err st_read_part(const st_set *s, const st_tensor *t, int64_t begin, size_t length,
                 void *dst) MUST_USE;

#endif
