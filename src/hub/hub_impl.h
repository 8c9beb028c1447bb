/* hub_impl.h: what the files of src/hub share and nobody else sees. */
#ifndef HUB_HUB_IMPL_H
#define HUB_HUB_IMPL_H

#include <openssl/evp.h>

#include "hub/hub.h"

/* "dir/name" into out[HUB_PATH_MAX]. */
err hub_join(char *out, const char *dir, const char *name) MUST_USE;
bool hub_is_commit(const char *text);

/* A running hash of a blob. */
typedef struct hub_hash {
    EVP_MD_CTX *ctx; /* owned; NULL when closed */
    uint64_t bytes;
} hub_hash;

/* size is needed for git's hash, which begins with it. */
err hub_hash_open(hub_hash *h, bool lfs, uint64_t size) MUST_USE;
err hub_hash_add(hub_hash *h, const void *bytes, size_t length) MUST_USE;
/* Hex into out[HUB_ETAG_MAX]; closes. */
err hub_hash_end(hub_hash *h, char *out) MUST_USE;
void hub_hash_close(hub_hash *h);

#endif
