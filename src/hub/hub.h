/* hub.h: models from the Hugging Face hub, in the standard cache folder that other programs share.
 *
 *     CACHE/models--ORG--NAME/refs/main                      the commit that "main" was, as text
 *                             snapshots/COMMIT/config.json   -> ../../blobs/<etag>  (relative link)
 *                             blobs/<etag>                   the bytes; the name is their hash:
 *                                                            sha256 for LFS files, else git's sha1
 *                             blobs/<etag>.incomplete        the beginning of the bytes
 *                             blobs/<etag>.range-START       a later piece of them (pieces.h)
 *     CACHE/.locks/models--ORG--NAME/<etag>.lock             flock'ed by whoever writes the blob
 *
 * Invariants: a blob has its final name only after its hash was checked and its bytes were synced;
 * a link is made only after its blob; refs/REVISION is written only after all links of the commit.
 * An .incomplete file holds a correct beginning, so any program can go on with it.
 *
 * No environment is read here: where the cache is, the token and the endpoint come from the caller.
 */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define HUB_PATH_MAX  4096
#define HUB_FILES_MAX 20000 /* files in one repository that we are willing to list */
#define HUB_ETAG_MAX  65

/* ---- layout (layout.c) ---- */

/* ERR_ARG unless repo is "org/name" of letters, digits, '-', '_' and '.'. */
err hub_check_repo(const char *repo) MUST_USE;
/* CACHE/models--ORG--NAME into out[HUB_PATH_MAX]. */
err hub_repo_dir(const char *cache, const char *repo, char *out) MUST_USE;
/* The snapshot folder that revision (a branch, tag or commit) names in the cache,
 * out[HUB_PATH_MAX]. ERR_NOT_FOUND when it is not there. Says nothing about completeness: see
 * hub_complete. */
err hub_find_snapshot(const char *cache, const char *repo, const char *revision,
                      char *out) MUST_USE;
/* ERR_NOT_FOUND naming the first file of the snapshot that is missing: a link without its blob, no
 * config.json, or a weight file that model.safetensors.index.json names and that is not there. */
err hub_complete(const char *snapshot) MUST_USE;
/* A path inside a repository: relative, no empty, "." or ".." part, no control characters. */
bool hub_path_is_safe(const char *path);

/* ---- listing ---- */

typedef struct hub_file {
    char *path;              /* inside the repository; owned by the listing */
    uint64_t size;           /* bytes */
    char etag[HUB_ETAG_MAX]; /* lower-case hex: sha256 (64) when lfs, else git blob sha1 (40) */
    bool lfs;
} hub_file;

typedef struct hub_listing {
    char repo[256];
    char revision[128]; /* as asked for */
    char commit[41];    /* what it is today */
    hub_file *files;    /* owned, sorted by path */
    int n_files;
    uint64_t total; /* bytes of all files */
} hub_listing;

typedef struct hub_progress {
    int files_done, files_total;
    uint64_t bytes_done, bytes_total; /* bytes_done includes what was there before */
    double bytes_per_second;          /* over the last seconds; 0 while unknown */
    double seconds_left;              /* -1 while unknown */
    const char *note;                 /* "waiting 12 s: the hub limits requests", or NULL */
} hub_progress;

typedef struct hub_options {
    const char *cache;         /* the cache folder; made when missing */
    const char *endpoint;      /* "https://huggingface.co", without a final slash */
    const char *token;         /* may be NULL; sent to the endpoint's host only */
    int connections;           /* at once, of several files or of one; 1 .. 16; 0: 4 */
    int attempts;              /* tries without any progress before giving up; 0: 6 */
    double backoff;            /* first wait in seconds, doubled each time; 0: 0.5 */
    double wait_max;           /* longest wait that a limit header may ask for; 0: 300 */
    double stall;              /* seconds without a byte that end a connection; 0: 30 */
    const atomic_bool *cancel; /* may be NULL; set by a signal handler */
    void (*progress)(void *ctx, const hub_progress *p); /* may be NULL; about 5 times a second */
    void *progress_ctx;
} hub_options;

/* Asks the hub for the files of a revision. ERR_NOT_FOUND (no such model or revision, or it is
 * private), ERR_ARG (401, 403: what to do is in the text), ERR_IO, ERR_CORRUPT (an answer that
 * makes no sense), ERR_CANCELLED. */
err hub_list(const hub_options *o, const char *repo, const char *revision,
             hub_listing *out) MUST_USE;
void hub_listing_free(hub_listing *l);
/* Keeps only what flashchat needs: *.safetensors, *.json, *.jinja, *.txt, *.md, *.model,
 * tokenizers, licences; drops other weight formats (.bin, .gguf, .pth ...) and subfolders of them.
 */
void hub_keep_needed(hub_listing *l);

/* One small file of the repository into memory: *bytes is the caller's (free), zero-terminated.
 * ERR_RANGE beyond max_bytes. */
err hub_fetch(const hub_options *o, const hub_listing *l, const char *path, size_t max_bytes,
              char **bytes, size_t *length) MUST_USE;

/* ---- downloading ---- */

typedef struct hub_need {
    uint64_t total, present, partial; /* bytes: all files, complete blobs, beginnings */
    uint64_t download;                /* still to come: total - present - partial */
    uint64_t disk_free;               /* on the cache's drive */
    int files_missing;
} hub_need;

/* What a download would do. No network. */
err hub_need_get(const hub_options *o, const hub_listing *l, hub_need *out) MUST_USE;

/* Brings every file of the listing into the cache, makes the links and refs/REVISION. Goes on where
 * an earlier try stopped. ERR_BUDGET when the drive is too small (nothing is started); otherwise
 * what the files that failed say; what did arrive stays. snapshot [HUB_PATH_MAX] may be NULL. */
err hub_download(const hub_options *o, const hub_listing *l, char *snapshot) MUST_USE;

/* ---- hashes (hash.c) ---- */

/* The etag that the bytes of a file have: sha256 when lfs, else git's blob sha1. out[HUB_ETAG_MAX].
 * cancel may be NULL. Reads the whole file. */
err hub_hash_file(const char *path, bool lfs, const atomic_bool *cancel, char *out) MUST_USE;

/* Removes the blobs of a snapshot whose bytes are not what their names say, so that a download
 * fetches them again; *dropped counts them. progress as in hub_verify, for the good ones. */
err hub_drop_damaged(const char *snapshot, const atomic_bool *cancel,
                     void (*progress)(void *ctx, const char *file, uint64_t bytes), void *ctx,
                     int *dropped) MUST_USE;

/* Checks the files of a snapshot against the hashes that their blobs' names are. Quick compares
 * nothing but presence (hub_complete). *checked counts files. ERR_CORRUPT names the first bad one.
 */
err hub_verify(const char *snapshot, const atomic_bool *cancel,
               void (*progress)(void *ctx, const char *file, uint64_t bytes), void *ctx) MUST_USE;

#endif
