/* archive_impl.h: what the files of the archive share. */
#ifndef HUB_ARCHIVE_IMPL_H
#define HUB_ARCHIVE_IMPL_H

#include "hub/archive.h"
#include "hub/hub_impl.h"

#define ARCHIVE_ITEMS_MAX 100000
#define ARCHIVE_JOURNAL   ".flashchat-journal"

/* The model's folder in the cache and in the archive. */
err archive_local_dir(const archive_job *j, char *out) MUST_USE;
err archive_remote_dir(const archive_job *j, char *out) MUST_USE;

/* Appends a copy of the strings; target may be NULL. */
err archive_list_add(archive_list *l, const archive_item *item) MUST_USE;
/* The item of this path, or NULL. */
archive_item *archive_list_find(const archive_list *l, const char *path);

/* A small file as text, zero-terminated: *out is the caller's. ERR_NOT_FOUND, ERR_RANGE. */
err archive_read_small(const archive_fs *fs, const char *path, size_t max, char **out) MUST_USE;
/* path.new, synced, renamed, folder synced. */
err archive_write_small(const archive_fs *fs, const char *path, const char *text) MUST_USE;
err archive_write_manifest(const archive_job *j, const archive_list *l) MUST_USE;

/* The folders above path, made and synced. root exists. */
err archive_make_above(const archive_fs *fs, const char *root, const char *path) MUST_USE;
err archive_sync_above(const archive_fs *fs, const char *path) MUST_USE;

#endif
