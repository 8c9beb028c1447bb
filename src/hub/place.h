/* place.h: the writing side of the cache layout: where a download puts things, in the order that
 * keeps the invariants of hub.h at every moment. */
#ifndef HUB_PLACE_H
#define HUB_PLACE_H

#include "hub/hub.h"

typedef struct hub_place {
    char blobs[HUB_PATH_MAX], snapshot[HUB_PATH_MAX], refs[HUB_PATH_MAX], locks[HUB_PATH_MAX];
} hub_place;

/* Makes the folders. */
err place_open(hub_place *p, const char *cache, const hub_listing *l) MUST_USE;
/* The blob is there, complete (its size is right: only checked bytes get that name). */
bool place_has_blob(const hub_place *p, const hub_file *f);
/* The lock file, not locked yet; the caller closes *fd. */
err place_lock_open(const hub_place *p, const char *etag, int *fd) MUST_USE;
/* blobs/<etag>.incomplete for reading and writing; the caller closes *fd. */
err place_incomplete_open(const hub_place *p, const char *etag, int *fd) MUST_USE;
/* Renames the .incomplete file, whose bytes are synced, to its final name. */
err place_finish_blob(const hub_place *p, const char *etag) MUST_USE;
/* snapshots/COMMIT/path -> ../../blobs/etag */
err place_link(const hub_place *p, const hub_file *f) MUST_USE;
/* Syncs the folders and writes refs/REVISION. */
err place_finish(const hub_place *p, const hub_listing *l) MUST_USE;

#endif
