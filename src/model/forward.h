/* forward.h: the forward pass, written once over ops.h. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "format/config.h"
#include "model/ops.h"

/* Runs the batch through every layer and fills its items' logits. cancel (may be NULL) is looked at
 * before every layer: non-zero is ERR_CANCELLED. On any error the states hold the positions from
 * item.start on half done: rewind or reset them. */
err forward(ops *o, const model_config *config, const batch *b, const atomic_int *cancel) MUST_USE;

#endif
