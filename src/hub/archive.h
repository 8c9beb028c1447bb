/* archive.h: a model's files between the cache and a slower place (OFFLOAD_DIR), without ever
 * losing the only copy.
 *
 *     CACHE/models--ORG--NAME/      blobs/, refs/, snapshots/COMMIT/{links, flashchat/}
 *     ARCHIVE/models--ORG--NAME/    the same paths for files, no links (any file system will do),
 * and manifest.json: every file with size and sha256, every link
 *
 * Invariants, whatever is interrupted and wherever the power goes:
 *   1. A file in the archive has its final name only after its bytes are synced.
 *   2. The manifest names only such files. It is replaced by rename.
 *   3. A local file is removed only after the archive's copy was read back in the same run and had
 *      the hash that the manifest (synced before) promises.
 *   4. Restoring and verifying change nothing in the archive; nothing here ever deletes from it.
 *   5. A local file gets its final name only after its bytes were hashed and synced.
 * Every operation can be run again after an interruption: what is done is recognised by its hash.
 * The journal CACHE/models--ORG--NAME/.flashchat-journal says which one was under way.
 *
 * Prompt caches (folders named prompt_cache or system_prompt_cache) and unfinished downloads are
 * never archived. Every call to the file system goes through archive_fs, so that tests can cut the
 * power at each.
 */
#ifndef HUB_ARCHIVE_H
#define HUB_ARCHIVE_H

#include <sys/types.h>

#include "hub/hub.h"

typedef enum archive_kind { ARCHIVE_FILE, ARCHIVE_LINK, ARCHIVE_DIR, ARCHIVE_NOTHING } archive_kind;

typedef struct archive_stat {
    archive_kind kind;
    uint64_t size;
} archive_stat;

/* Each returns 0 (or a count, a descriptor) or a negative errno. */
typedef struct archive_fs {
    void *ctx;
    int (*open)(void *ctx, const char *path, bool create); /* create: for writing, emptied */
    ssize_t (*read)(void *ctx, int fd, void *bytes, size_t n);
    ssize_t (*write)(void *ctx, int fd, const void *bytes, size_t n);
    int (*sync)(void *ctx, int fd);
    int (*close)(void *ctx, int fd);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int (*rmdir)(void *ctx, const char *path);
    int (*mkdir)(void *ctx, const char *path); /* 0 also when it is there */
    int (*sync_dir)(void *ctx, const char *path);
    int (*symlink)(void *ctx, const char *target, const char *path);
    ssize_t (*readlink)(void *ctx, const char *path, char *out, size_t size); /* terminated */
    int (*stat)(void *ctx, const char *path,
                archive_stat *out); /* of the link itself; NOTHING is 0 */
    /* The name number `index` in the folder in a fixed order, -ENOENT after the last. */
    int (*list)(void *ctx, const char *path, int index, char *name, size_t size);
} archive_fs;

extern const archive_fs archive_real_fs;

enum {                        /* parts of a model */
       ARCHIVE_RUNTIME = 1,   /* configuration, tokenizer: all but the next two */
       ARCHIVE_ORIGINALS = 2, /* published weights: *.safetensors */
       ARCHIVE_PACKED = 4,    /* snapshots/COMMIT/flashchat/: what `flashchat pack` wrote */
       ARCHIVE_ALL = 7,
};

typedef struct archive_item {
    char *path; /* below the model's folder; owned */
    archive_kind kind;
    unsigned part;
    uint64_t size;
    char sha256[65]; /* "" until known */
    char *target;    /* of a link; owned */
} archive_item;

typedef struct archive_list {
    archive_item *items; /* owned */
    int n, capacity;
} archive_list;

void archive_list_free(archive_list *l);
/* Bytes of the files of these parts. */
uint64_t archive_list_bytes(const archive_list *l, unsigned parts);

typedef struct archive_job {
    const archive_fs *fs;
    const char *cache, *archive; /* folders; archive may be NULL where it is not used */
    const char *repo;            /* org/name */
    unsigned parts;
    const atomic_bool *cancel;                                                    /* may be NULL */
    void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total); /* may be NULL */
    void *progress_ctx;
} archive_job;

/* What is in the cache (hashes unknown) and what the archive's manifest says (empty without one).
 */
err archive_local(const archive_job *j, archive_list *out) MUST_USE;
err archive_manifest(const archive_job *j, archive_list *out) MUST_USE;

/* Copies the parts into the archive and writes the manifest. A blob whose bytes do not have the
 * hash that it is named by is refused (ERR_CORRUPT: repair it first). */
err archive_store(const archive_job *j) MUST_USE;
/* Reads the archive's copies of the parts back, then removes the local files one by one. Refuses
 * (ERR_NOT_FOUND, ERR_CORRUPT) before anything is removed when one local file has no good copy. */
err archive_free_local(const archive_job *j) MUST_USE;
/* Brings missing or differing files of the parts back, with links and refs. */
err archive_restore(const archive_job *j) MUST_USE;
/* Checks the archive: presence and sizes, with deep also hashes. ERR_CORRUPT names the file. */
err archive_verify(const archive_job *j, bool deep) MUST_USE;
/* Removes local files without asking for a copy; with all parts also prompt caches and unfinished
 * downloads. For a person who typed the model's name. */
err archive_delete_local(const archive_job *j) MUST_USE;

/* "offload" ... of an interrupted operation, or "" */
err archive_journal(const archive_job *j, char *out, size_t size) MUST_USE;

#endif
