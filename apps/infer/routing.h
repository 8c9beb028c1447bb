/* routing.h: which experts were chosen: counted, and written down token by token.
 *
 * The engine reports layer by layer, for all rows of a chunk; a line of the trace is all layers of
 * one token. So the chunk is kept until its last sparse layer has been reported, then its lines go
 * out:
 *
 *     {"tok":0,"layers":[[3,17,2,60],[5,1,0,9], ...]}
 *
 * tok counts from 0 over prompt and answer; dense layers are left out of "layers". */
#ifndef INFER_ROUTING_H
#define INFER_ROUTING_H

#include "flashmoe.h"

typedef struct routing routing;

/* Listens to e until routing_close. path: where the trace goes, or NULL to count only. NULL after a
 * message. */
routing *routing_open(const char *program, fm_engine *e, const char *path);
/* The counts on standard error: per layer how even they are, and its busiest experts. */
void routing_print(const routing *r);
/* An exit code: the trace may not have been written completely. NULL is allowed. */
int routing_close(routing *r);

#endif
