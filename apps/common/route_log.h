/* route_log.h: every request that a run makes of its expert store, kept so that another cache can
 * be asked the same: how much would a plain LRU of this size have missed?
 *
 *     hook --> [ line 0: layer 0's experts, layer 1's, ... ][ line 1 ] ...   a line for each batch
 *
 * A batch of several rows (a prompt) asks a layer once for all experts that any row chose, in
 * ascending order; so does a line. One thread: the one that steps the engine. */
#ifndef COMMON_ROUTE_LOG_H
#define COMMON_ROUTE_LOG_H

#include <stdint.h>

#include "flashmoe.h"
#include "store/trace.h"

typedef struct route_log route_log;

/* Listens to the engine from now on, instead of an earlier hook. FM_ERR_ARG for a model without
 * experts in memory of their own (none, or all on a card). */
fm_error route_log_open(fm_engine *e, route_log **out);
void route_log_close(route_log *log); /* before the engine's close */
/* What is counted begins with the next batch; what came before only fills the cache. */
void route_log_mark(route_log *log);
/* All requests since open, in ascending order; trace_close when done. FM_ERR_NOMEM. */
fm_error route_log_trace(route_log *log, trace *out);
/* Bytes that a plain LRU with as many slots as the engine's store would have read since the mark,
 * of the same requests since open. */
fm_error route_log_lru(route_log *log, double *bytes);

#endif
