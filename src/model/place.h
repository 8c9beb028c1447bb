/* place.h: which machine computes which layer.
 *
 *     embed | layer 0 | layer 1 ...             | layer n-1 | head
 *      -1       -1        -1     0     0    0         0        0      -1: the processor, 0 ..: a
 * card
 *
 * What belongs to a layer is where the layer is: its part of the trunk, its attention cache or
 * recurrent state. Rows of the residual stream cross where two neighbours differ (split_ops.h). A
 * table that names one machine only needs no crossing. */
#ifndef MODEL_PLACE_H
#define MODEL_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/config.h"

#define PLACE_CPU       (-1)
#define PLACE_CARDS_MAX 8

typedef struct layer_place {
    int8_t embed, head;
    int8_t layer[CONFIG_LAYERS_MAX];
} layer_place;

/* One machine's share of a model. */
typedef struct layer_share {
    const layer_place *place; /* borrowed; NULL: all of it */
    int device;
} layer_share;

static inline bool share_has(layer_share s, int layer) {
    return !s.place || s.place->layer[layer] == s.device;
}

/* A part of the trunk as weights.h counts them. The embedding's is wanted for the head too when
 * both are the same matrix. */
bool share_has_part(layer_share s, const model_config *c, int part);

/* Everything on one device. */
void place_all(layer_place *p, const model_config *c, int device);
/* The last n layers on `device`, and the head when `head`; everything else on the processor. */
void place_last(layer_place *p, const model_config *c, int n, bool head, int device);
int place_layers(const layer_place *p, const model_config *c, int device);
/* "embedding and layers 0-11 on the processor, layers 12-47 and the head on the card". The card's
 * number is told when there may be several. Returns out. */
const char *place_text(const layer_place *p, const model_config *c, char *out, size_t size);

#endif
