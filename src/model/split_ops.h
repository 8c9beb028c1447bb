/* split_ops.h: ops.h over several machines that share the layers of a model (place.h).
 *
 *     batch --> begin  [layer 0 .. m-1 on the processor] --rows--> [layer m .. on the card] head
 *
 * The machines are ops objects opened with their share of the layers; each has the whole table's
 * functions and is asked for its own layers only. Where two neighbours differ, the rows of the
 * residual stream are copied from one to the other: hidden x 4 bytes a row. A sequence has a state
 * in every machine; as bytes they lie one after the other, in the order of the machines. */
#ifndef MODEL_SPLIT_OPS_H
#define MODEL_SPLIT_OPS_H

#include "base/budget.h"
#include "model/ops.h"
#include "model/place.h"

typedef struct split_options {
    const model_config *config; /* borrowed, as all below */
    const layer_place *place;
    ops *machine[PLACE_CARDS_MAX + 1]; /* by device + 1; NULL: none that the table names */
    budget *budget;
    int rows_max;
} split_options;

typedef struct split_ops split_ops;

/* Bytes of scratch that split_open charges, for the plan. */
size_t split_scratch_bytes(const model_config *c, int rows_max);
err split_open(const split_options *options, split_ops **out) MUST_USE;
/* The machines are the caller's. NULL is allowed. */
void split_close(split_ops *s);
ops *split_face(split_ops *s);

#endif
