/* limits.h: what the benchmarks of streamed models share: the disk's rate as the store sees it, and
 * a ceiling under which a wished share of the experts has slots. Not for two threads at once. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <stddef.h>

#include "base/err.h"
#include "flashmoe.h"

/* Bytes a second of random direct reads as large as an expert, depth at a time, for so many
 * seconds, of the engine's own files and through the reads that its store uses. */
MUST_USE err limits_disk(const fm_engine *engine, int depth, double seconds, double *rate);

/* Sets o->memory so that this share of all experts' bytes, and more bytes, are left for experts
 * after everything else. o: complete but for the ceiling. */
MUST_USE fm_error limits_memory(fm_options *o, double share, size_t more);

#endif
