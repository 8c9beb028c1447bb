/* pieces.h: later parts of a large file, fetched by connections of their own while the beginning is
 * still on its way.
 *
 *     blobs/<etag>.incomplete       [0 ......... offset)            always a correct beginning
 *     blobs/<etag>.range-START               [START .. START+have)  a correct run from START
 *
 * When the beginning reaches a piece, its bytes are appended (and hashed) and the piece's file
 * goes. Whatever is interrupted, both kinds of files stay true, so that we go on with both and any
 * other program with the beginning. One thread. */
#ifndef HUB_PIECES_H
#define HUB_PIECES_H

#include "hub/place.h"

#define PIECES_MAX 16

typedef struct piece {
    uint64_t start, end;  /* of the file */
    uint64_t have, taken; /* bytes from start that are here; that are appended to the beginning */
    int fd;
    bool busy; /* a connection fetches it */
} piece;

typedef struct piece_list { /* by start, without overlap */
    piece all[PIECES_MAX];
    int n;
    bool off; /* the hub sends whole files only */
} piece_list;

/* What an earlier run left of the blob. Pieces that the beginning (offset bytes) has passed, that
 * overlap or make no sense are deleted. */
err pieces_find(const hub_place *p, const char *etag, uint64_t size, uint64_t offset,
                piece_list *out) MUST_USE;
/* A new one after the last. *out is in the list, valid until it changes. */
err pieces_add(const hub_place *p, const char *etag, uint64_t start, uint64_t end, piece_list *l,
               piece **out) MUST_USE;
/* The one that begins there, or NULL. */
piece *pieces_at(piece_list *l, uint64_t start);
/* Deletes its file, too. */
void pieces_remove(const hub_place *p, const char *etag, piece_list *l, uint64_t start);
/* Closes; the files stay. */
void pieces_close(piece_list *l);
/* Bytes that are here and not yet appended. */
uint64_t pieces_bytes(const piece_list *l);
/* The same from the files alone. */
uint64_t pieces_on_disk(const hub_place *p, const char *etag);

#endif
