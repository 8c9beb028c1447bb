/* place.c: see place.h. */
#include "model/place.h"

#include <stdio.h>
#include <string.h>

bool share_has_part(layer_share s, const model_config *c, int part) {
    if (!s.place) return true;
    if (part > c->layers) return s.place->head == s.device;
    if (part > 0) return s.place->layer[part - 1] == s.device;
    return s.place->embed == s.device || (c->tied_embeddings && s.place->head == s.device);
}

void place_all(layer_place *p, const model_config *c, int device) {
    *p = (layer_place){.embed = (int8_t)device, .head = (int8_t)device};
    for (int i = 0; i < c->layers; i++) p->layer[i] = (int8_t)device;
}

void place_last(layer_place *p, const model_config *c, int n, bool head, int device) {
    place_all(p, c, PLACE_CPU);
    if (head) p->head = (int8_t)device;
    for (int i = c->layers - n; i < c->layers; i++) p->layer[i] = (int8_t)device;
}

int place_layers(const layer_place *p, const model_config *c, int device) {
    int n = 0;
    for (int i = 0; i < c->layers; i++) n += p->layer[i] == device;
    return n;
}

/* The machine of a stop on the way of a token: 0 is the embedding, then the layers, then the head.
 */
static int machine_at(const layer_place *p, const model_config *c, int stop) {
    return stop == 0 ? p->embed : stop > c->layers ? p->head : p->layer[stop - 1];
}

static void describe(char *out, size_t size, const model_config *c, int from, int to) {
    int first = from > 0 ? from - 1 : 0, last = (to < c->layers ? to : c->layers) - 1;
    char layers[48] = "";
    if (last > first) snprintf(layers, sizeof layers, "layers %d-%d", first, last);
    if (last == first) snprintf(layers, sizeof layers, "layer %d", first);
    snprintf(out, size, "%s%s%s%s%s", from == 0 ? "embedding" : "",
             from == 0 && layers[0] ? " and " : "", layers,
             to > c->layers && (layers[0] || from == 0) ? " and " : "",
             to > c->layers ? "the head" : "");
}

const char *place_text(const layer_place *p, const model_config *c, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int from = 0, to; from <= c->layers + 1 && used < size; from = to + 1) {
        int device = machine_at(p, c, from);
        for (to = from; to <= c->layers && machine_at(p, c, to + 1) == device;) to++;
        char what[120], where[24] = "the processor";
        describe(what, sizeof what, c, from, to);
        if (device == 0) snprintf(where, sizeof where, "the card");
        if (device > 0) snprintf(where, sizeof where, "card %d", device);
        used +=
            (size_t)snprintf(out + used, size - used, "%s%s on %s", from ? ", " : "", what, where);
    }
    return out;
}
