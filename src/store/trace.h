/* trace.h: which experts a model picked, token by token: recorded to repeat an experiment exactly.
 *
 * A file of lines, one JSON object a token, a list of expert numbers for each layer that has
 * experts:
 *
 *     {"flashchat": "routing trace", "experts": 64}       optional first line
 *     {"tok": 791, "layers": [[6, 8, 15], [7, 16, 18]]}
 *
 * Lists may differ in length (at most TRACE_PICKS_MAX) and hold no expert twice. Other fields are
 * left alone. */
#ifndef STORE_TRACE_H
#define STORE_TRACE_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define TRACE_BYTES_MAX   ((size_t)1 << 30)
#define TRACE_LAYERS_MAX  1024
#define TRACE_EXPERTS_MAX 65536
#define TRACE_PICKS_MAX   64

typedef struct trace {
    int n_tokens, n_layers;
    int n_experts;   /* as the first line says, else the highest number + 1 */
    int n_picks;     /* of the longest list */
    int32_t *ids;    /* [n_tokens][n_layers][n_picks], -1 behind a shorter list; owned */
    int32_t *tokens; /* [n_tokens], -1 where the file does not say; owned */
} trace;

/* ERR_NOT_FOUND, ERR_IO, ERR_RANGE (file too large), ERR_CORRUPT naming file and line. */
err trace_read(const char *path, trace *out) MUST_USE;
void trace_close(trace *t);

/* The list of one token and layer: its length, and *ids into the trace. */
int trace_picks(const trace *t, int token, int layer, const int32_t **ids);

/* Puts every list in ascending order: that of the engine's requests, on which the eviction of
 * equals depends. */
void trace_sort(trace *t);

/* Writes one line to f. first: the line before all tokens, with n_experts. */
err trace_write_first(FILE *f, int n_experts) MUST_USE;
/* ids [n_layers][n_picks], -1 behind a shorter list. */
err trace_write(FILE *f, int32_t token, const int32_t *ids, int n_layers, int n_picks) MUST_USE;

#endif
