/* claim.h: what the engines of one user may take of this machine's memory, all together.
 *
 *     DIR/engines.lock      held for a moment by whoever reads or changes the others
 *     DIR/engine-XXXXXX     one a running engine, locked (flock) as long as it lives:
 *                           {"process": 123, "memory": 12884901888, "model": "/models/x"}
 *
 * A ceiling is a promise about one engine. Two of them, each within its own, can together ask for
 * more than the machine has, and then both crawl or one is killed: so the second is refused,
 * unless it insists. A file whose lock is free belongs to nobody any more (the system lets go of a
 * lock however its process ends) and is removed by the next one that looks. Where the folder cannot
 * be written or locked there is no protection, and that is no error. */
#ifndef ENGINE_CLAIM_H
#define ENGINE_CLAIM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define CLAIM_FILES_MAX 4096 /* looked at */

typedef struct claim claim;

typedef struct claim_wish {
    const char *dir;   /* made when it is not there */
    const char *model; /* for the message of others */
    size_t memory;     /* bytes that this engine may take */
    size_t machine;    /* bytes that there are */
    bool force;        /* claim even what does not fit */
} claim_wish;

/* *out is NULL without an error where nothing can be claimed. ERR_BUSY names the process, the model
 * and the sizes of the largest other engine when all together do not fit. Any thread. */
err claim_open(const claim_wish *w, claim **out) MUST_USE;
void claim_close(claim *c); /* NULL is fine */

#endif
