/* prompt_cache.h: saved sessions in a folder, found by the tokens that they begin with.
 *
 *     DIR/FINGERPRINT-HASH.prompt     header | zstd frame of a blob (snapshot.c)
 *
 *     header: magic, version, fingerprint (model, k, KV mode, ABI), hash and number of the tokens,
 *             sizes, XXH3 of the frame, XXH3 of the header itself
 *
 * A file is written under another name, synced, and renamed, so that under its own name it is whole
 * or absent whatever happens; everything read is checked again (header, frame, and by the caller
 * the blob). Files of others, damaged ones and those of other versions are not used, and a line
 * says so. The folder is bounded in files and bytes over all models and options that share it:
 * those unused for longest go first. Files are readable by their owner only: they hold what people
 * wrote.
 *
 * Memory: blobs on their way to the disk and one on its way back, together at most memory_max.
 *
 * Threads: one owner; a thread of its own writes. */
#ifndef ENGINE_PROMPT_CACHE_H
#define ENGINE_PROMPT_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct prompt_cache prompt_cache;

typedef struct prompt_cache_options {
    const char *dir;      /* made when missing (and its parents) */
    uint64_t fingerprint; /* of the engine */
    uint64_t bytes_max;
    int entries_max;
    size_t memory_max;
    size_t min_tokens; /* shorter beginnings are not kept */
    size_t step; /* a longer one is kept when it is longer than a kept one by so many tokens */
    void (*log)(void *ctx, const char *line); /* any thread; may be NULL */
    void *log_ctx;
} prompt_cache_options;

typedef struct prompt_cache_stats {
    int entries;                           /* of this engine */
    uint64_t bytes, found, saved, refused; /* bytes: of all files; refused: damaged or foreign */
} prompt_cache_stats;

/* ERR_IO when the folder cannot be made or written. */
err prompt_cache_open(const prompt_cache_options *o, prompt_cache **out) MUST_USE;
/* The engine is another one from now on: other files are looked for and written. */
void prompt_cache_now(prompt_cache *c, uint64_t fingerprint);
/* Finishes what is being written. NULL is allowed. */
void prompt_cache_close(prompt_cache *c);

/* The length of the longest kept beginning of tokens [count] that is longer than `above`; 0: none.
 */
size_t prompt_cache_find(prompt_cache *c, const int32_t *tokens, size_t count, size_t above);
/* The blob kept for exactly these tokens: *out is valid until prompt_cache_done. ERR_NOT_FOUND,
 * ERR_CORRUPT (it is forgotten then), ERR_BUDGET. */
err prompt_cache_load(prompt_cache *c, const int32_t *tokens, size_t count, const uint8_t **out,
                      size_t *bytes) MUST_USE;
void prompt_cache_done(prompt_cache *c);
/* The blob that was loaded last turned out to be no good: it is forgotten, with a line. */
void prompt_cache_bad(prompt_cache *c, const int32_t *tokens, size_t count, const char *why);

/* PROMPT_BORDER: a beginning that others may share. PROMPT_ANSWER: a conversation as it stands
 * after an answer; it takes the place of the same conversation's earlier one, and all of them
 * together have at most a quarter of the files and half of the bytes, so that many short
 * conversations do not push out the long beginnings. PROMPT_NOTE: one file of bytes that belong to
 * the answers; its tokens are none of a model's. */
typedef enum prompt_kind { PROMPT_BORDER, PROMPT_ANSWER, PROMPT_NOTE } prompt_kind;

/* Whether a blob of so many bytes for these tokens is worth writing and there is room to do it. */
bool prompt_cache_wants(prompt_cache *c, const int32_t *tokens, size_t count, size_t bytes,
                        prompt_kind kind);
/* Takes the blob (of malloc); it is written later. Without success there is a line. */
void prompt_cache_store(prompt_cache *c, const int32_t *tokens, size_t count, uint8_t *blob,
                        size_t bytes, prompt_kind kind);
/* Waits until everything is written. */
void prompt_cache_flush(prompt_cache *c);
void prompt_cache_stats_get(prompt_cache *c, prompt_cache_stats *out);

#endif
