/* hash.c: the hashes that blobs are named by. An LFS file's is the sha256 of its bytes; any other
 * file's is git's: sha1 of "blob <size>\0" and the bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub/hub_impl.h"

err hub_hash_open(hub_hash *h, bool lfs, uint64_t size) {
    *h = (hub_hash){EVP_MD_CTX_new(), 0};
    if (!h->ctx) return err_make(ERR_NOMEM, "no memory for a hash");
    if (EVP_DigestInit_ex(h->ctx, lfs ? EVP_sha256() : EVP_sha1(), NULL) != 1) {
        hub_hash_close(h);
        return err_make(ERR_UNSUPPORTED, "the crypto library has no %s", lfs ? "sha256" : "sha1");
    }
    if (lfs) return err_none();
    char head[64];
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)size);
    err e = hub_hash_add(h, head, (size_t)n + 1);
    h->bytes = 0;
    return e;
}

err hub_hash_add(hub_hash *h, const void *bytes, size_t length) {
    if (EVP_DigestUpdate(h->ctx, bytes, length) != 1)
        return err_make(ERR_IO, "the crypto library refused to hash");
    h->bytes += length;
    return err_none();
}

err hub_hash_end(hub_hash *h, char *out) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    out[0] = '\0';
    int good = EVP_DigestFinal_ex(h->ctx, digest, &n);
    hub_hash_close(h);
    if (good != 1 || n > 32) return err_make(ERR_IO, "the crypto library refused to hash");
    for (unsigned i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return err_none();
}

void hub_hash_close(hub_hash *h) {
    EVP_MD_CTX_free(h->ctx);
    *h = (hub_hash){NULL, 0};
}

#define HASH_CHUNK (4u << 20)

static err hash_descriptor(int fd, const char *path, const atomic_bool *cancel, hub_hash *h) {
    char *chunk = malloc(HASH_CHUNK);
    if (!chunk) return err_make(ERR_NOMEM, "no memory to read %s", path);
    err e = err_none();
    for (;;) {
        if (cancel && atomic_load(cancel)) {
            e = err_make(ERR_CANCELLED, "stopped while checking %s", path);
            break;
        }
        ssize_t n = read(fd, chunk, HASH_CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) e = err_system(errno, "reading %s", path);
        if (n <= 0) break;
        e = hub_hash_add(h, chunk, (size_t)n);
        if (e.code) break;
    }
    free(chunk);
    return e;
}

err hub_hash_file(const char *path, bool lfs, const atomic_bool *cancel, char *out) {
    struct stat s;
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_system(errno, "%s", path);
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
        close(fd);
        return err_make(ERR_IO, "%s: not a regular file", path);
    }
    hub_hash h;
    err e = hub_hash_open(&h, lfs, (uint64_t)s.st_size);
    if (!e.code) {
        e = hash_descriptor(fd, path, cancel, &h);
        if (!e.code) e = hub_hash_end(&h, out);
        hub_hash_close(&h);
    }
    close(fd);
    return e;
}
