/* prompt_cache_file.c: the bytes of one kept prompt (see prompt_cache_impl.h).
 *
 * Numbers are in this machine's order: a file of another one has a magic that is spelled backwards.
 * The frame's checksum is verified before it is unpacked, so zstd sees only what was written. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "engine/prompt_cache_impl.h"

#define MAGIC   0x3174706d6f727046u /* "Fprompt1" */
#define VERSION 2
#define LEVEL   1

typedef struct header {
    uint64_t magic, version, fingerprint, low, high, tokens, raw, packed, checksum, kind;
    uint64_t own; /* checksum of all before */
} header;

prompt_key prompt_key_of(uint64_t fingerprint, const int32_t *tokens, size_t count) {
    XXH128_hash_t h = XXH3_128bits(tokens, count * sizeof *tokens);
    return (prompt_key){fingerprint, h.low64, h.high64, count};
}

void prompt_name(const prompt_key *k, char out[PROMPT_NAME_MAX]) {
    snprintf(out, PROMPT_NAME_MAX, "%016llx-%016llx%016llx" PROMPT_SUFFIX,
             (unsigned long long)k->fingerprint, (unsigned long long)k->high,
             (unsigned long long)k->low);
}

bool prompt_name_ours(const char *name) {
    static const char hex[] = "0123456789abcdef";
    return strspn(name, hex) == 16 && name[16] == '-' && strspn(name + 17, hex) == 32 &&
           strcmp(name + 49, PROMPT_SUFFIX) == 0;
}

uint64_t prompt_file_bytes(const prompt_file *f) { return sizeof(header) + f->packed; }

static uint64_t own_checksum(const header *h) { return XXH3_64bits(h, offsetof(header, own)); }

err prompt_file_header(int fd, prompt_file *out) {
    header h;
    struct stat st;
    *out = (prompt_file){.raw = 0};
    if (fstat(fd, &st) != 0) return err_system(errno, "reading it");
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return err_make(ERR_CORRUPT, "is no file of this user");
    if (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h) return err_make(ERR_CORRUPT, "is cut off");
    if (h.magic != MAGIC) return err_make(ERR_CORRUPT, "is no saved prompt");
    if (h.version != VERSION) return err_make(ERR_CORRUPT, "is of another version");
    if (h.own != own_checksum(&h)) return err_make(ERR_CORRUPT, "has a damaged header");
    if ((uint64_t)st.st_size != sizeof h + h.packed)
        return err_make(ERR_CORRUPT, "has %lld bytes, expected %llu", (long long)st.st_size,
                        (unsigned long long)(sizeof h + h.packed));
    *out = (prompt_file){.key = {h.fingerprint, h.low, h.high, h.tokens},
                         .raw = h.raw,
                         .packed = h.packed,
                         .checksum = h.checksum,
                         .kind = h.kind <= PROMPT_NOTE ? (prompt_kind)h.kind : PROMPT_BORDER};
    return err_none();
}

/* Once for the checksum (blob NULL), once to unpack. Read, not mapped: a file that somebody cuts
 * short under a mapping would end the process. */
static err read_frame(int fd, const prompt_file *f, ZSTD_DStream *z, XXH3_state_t *sum,
                      uint8_t *blob) {
    uint8_t in[1 << 16];
    uint64_t at = 0;
    ZSTD_outBuffer out = {blob, f->raw, 0};
    size_t rest = 1;
    while (at < f->packed) {
        uint64_t want = f->packed - at < sizeof in ? f->packed - at : sizeof in;
        ssize_t n = pread(fd, in, want, (off_t)(sizeof(header) + at));
        if (n < 0) return err_system(errno, "reading it");
        if (n == 0) return err_make(ERR_CORRUPT, "is cut off");
        at += (uint64_t)n;
        if (!blob) {
            if (XXH3_64bits_update(sum, in, (size_t)n) != XXH_OK)
                return err_make(ERR_CORRUPT, "cannot be summed");
            continue;
        }
        ZSTD_inBuffer b = {in, (size_t)n, 0};
        while (b.pos < b.size) {
            size_t before = b.pos, made = out.pos;
            rest = ZSTD_decompressStream(z, &out, &b);
            if (ZSTD_isError(rest) || (b.pos == before && out.pos == made))
                return err_make(ERR_CORRUPT, "cannot be unpacked");
        }
    }
    if (blob && (rest != 0 || out.pos != f->raw))
        return err_make(ERR_CORRUPT, "unpacks to another size");
    return err_none();
}

err prompt_file_read(int fd, const prompt_file *f, uint8_t *blob) {
    XXH3_state_t *sum = XXH3_createState();
    ZSTD_DStream *z = ZSTD_createDStream();
    err e = sum && z && XXH3_64bits_reset(sum) == XXH_OK
                ? err_none()
                : err_make(ERR_NOMEM, "no memory to unpack it");
    if (!e.code) e = read_frame(fd, f, NULL, sum, NULL);
    if (!e.code && XXH3_64bits_digest(sum) != f->checksum)
        e = err_make(ERR_CORRUPT, "is damaged: its checksum differs");
    if (!e.code) e = read_frame(fd, f, z, NULL, blob);
    ZSTD_freeDStream(z);
    XXH3_freeState(sum);
    return e;
}

static err write_all(int fd, const void *bytes, size_t n, off_t at) {
    const char *p = bytes;
    while (n) {
        ssize_t k = pwrite(fd, p, n, at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return err_system(k ? errno : ENOSPC, "writing it");
        p += k;
        n -= (size_t)k;
        at += k;
    }
    return err_none();
}

static err write_frame(int fd, prompt_file *f, ZSTD_CStream *z, XXH3_state_t *sum,
                       const uint8_t *blob) {
    uint8_t out[1 << 16];
    ZSTD_inBuffer in = {blob, f->raw, 0};
    size_t rest;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(z, f->raw)))
        return err_make(ERR_NOMEM, "packing it failed");
    do {
        ZSTD_outBuffer o = {out, sizeof out, 0};
        rest = ZSTD_compressStream2(z, &o, &in, ZSTD_e_end);
        if (ZSTD_isError(rest) || XXH3_64bits_update(sum, out, o.pos) != XXH_OK)
            return err_make(ERR_NOMEM, "packing it failed");
        TRY(write_all(fd, out, o.pos, (off_t)(sizeof(header) + f->packed)));
        f->packed += o.pos;
    } while (rest != 0);
    return err_none();
}

static err write_header(int fd, const prompt_file *f) {
    header h = {.magic = MAGIC,
                .version = VERSION,
                .fingerprint = f->key.fingerprint,
                .low = f->key.low,
                .high = f->key.high,
                .tokens = f->key.tokens,
                .raw = f->raw,
                .packed = f->packed,
                .checksum = f->checksum,
                .kind = (uint64_t)f->kind};
    h.own = own_checksum(&h);
    TRY(write_all(fd, &h, sizeof h, 0));
    return fsync(fd) == 0 ? err_none() : err_system(errno, "writing it");
}

err prompt_file_write(int fd, prompt_file *f, const uint8_t *blob) {
    XXH3_state_t *sum = XXH3_createState();
    ZSTD_CStream *z = ZSTD_createCStream();
    f->packed = 0;
    err e = sum && z && XXH3_64bits_reset(sum) == XXH_OK
                ? write_frame(fd, f, z, sum, blob)
                : err_make(ERR_NOMEM, "no memory to pack it");
    if (!e.code) {
        f->checksum = XXH3_64bits_digest(sum);
        e = write_header(fd, f);
    }
    ZSTD_freeCStream(z);
    XXH3_freeState(sum);
    return e;
}
