/* prompt_cache_impl.h: one file of a prompt cache. Not for others.
 *
 *     prompt_cache.c       what there is, what is worth keeping, who has to go
 *     prompt_cache_file.c  the bytes of one file */
#ifndef ENGINE_PROMPT_CACHE_IMPL_H
#define ENGINE_PROMPT_CACHE_IMPL_H

#include "engine/prompt_cache.h"

#define PROMPT_NAME_MAX 80
#define PROMPT_SUFFIX   ".prompt"
#define PROMPT_TEMP     ".tmp-"

typedef struct prompt_key {
    uint64_t fingerprint, low, high; /* low, high: XXH3-128 of the tokens */
    uint64_t tokens;
} prompt_key;

typedef struct prompt_file {
    prompt_key key;
    uint64_t raw, packed; /* bytes of the blob, of the frame */
    uint64_t checksum;    /* of the frame */
    prompt_kind kind;
} prompt_file;

prompt_key prompt_key_of(uint64_t fingerprint, const int32_t *tokens, size_t count);
void prompt_name(const prompt_key *key, char out[PROMPT_NAME_MAX]);
/* The name is one that prompt_name makes. */
bool prompt_name_ours(const char *name);
uint64_t prompt_file_bytes(const prompt_file *f);

/* fd is a file of its own; ERR_CORRUPT says in what way it is not one of ours. */
err prompt_file_header(int fd, prompt_file *out) MUST_USE;
/* Checks the frame and unpacks it into blob [f->raw]. */
err prompt_file_read(int fd, const prompt_file *f, uint8_t *blob) MUST_USE;
/* Writes header and frame at the start of fd and syncs it; sets f->packed and checksum. */
err prompt_file_write(int fd, prompt_file *f, const uint8_t *blob) MUST_USE;

#endif
