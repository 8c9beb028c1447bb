/* crash_fs.h: a file system in memory that forgets like a real one when the power goes.
 *
 *     node      bytes now, bytes that were synced
 *     entry     path -> node, now; path -> node, as synced folders say
 *
 * crash_fs counts every call that changes something. At call number `cut` the power goes: that call
 * and all later ones fail, and crash_fs_power_up makes the present what the drive had: names of
 * synced folders, bytes of synced files. Between "all unsynced is lost" and "all unsynced names
 * survived, their bytes did not" a real drive may do anything; `names_survive` picks the second. */
#ifndef CRASH_FS_H
#define CRASH_FS_H

#include "hub/archive.h"

#define CRASH_NODES   512
#define CRASH_ENTRIES 512
#define CRASH_OPEN    32

typedef struct crash_node {
    archive_kind kind;
    char *now, *synced; /* bytes, or a link's target; owned */
    size_t n_now, n_synced;
} crash_node;

typedef struct crash_entry {
    char path[200];
    int now, synced; /* node, -1: no such name */
} crash_entry;

typedef struct crash_fs {
    crash_node nodes[CRASH_NODES];
    crash_entry entries[CRASH_ENTRIES];
    int n_nodes, n_entries;
    struct {
        int node;
        size_t at;
    } open[CRASH_OPEN];
    int calls, cut; /* cut 0: never */
    bool names_survive, off;
} crash_fs;

void crash_fs_init(crash_fs *f);
void crash_fs_free(crash_fs *f);
archive_fs crash_fs_face(crash_fs *f);
/* The state after the power came back; everything present is then also synced. */
void crash_fs_power_up(crash_fs *f);
/* All names reach the drive, then the same. */
void crash_fs_settle(crash_fs *f);
/* Makes a synced file, folder or link, with the folders above. */
void crash_fs_put(crash_fs *f, const char *path, archive_kind kind, const char *bytes);
/* The bytes of a file that is there now, or NULL. */
const char *crash_fs_get(const crash_fs *f, const char *path, size_t *length);
void crash_fs_damage(crash_fs *f, const char *path); /* flips a byte */

#endif
