/* config_parts.h: what config.c shares with config_rope.c and config_quant.c; nobody else includes
 * it. */
#ifndef FORMAT_CONFIG_PARTS_H
#define FORMAT_CONFIG_PARTS_H

#include "base/json.h"
#include "format/config.h"

/* The objects of one config.json. */
typedef struct config_source {
    const json_t *outer; /* the file's root; borrowed */
    const json_t *text;  /* the text model's fields: outer, or outer.text_config; borrowed */
    char where[512];     /* names `text` in messages */
    const char *file;    /* names `outer` in messages; borrowed */
} config_source;

/* Fills c->rope; needs c->family, head_dim and context. default_partial: the family's. */
err config_rope(const config_source *src, double default_partial, model_config *c) MUST_USE;

/* Fills c->quantized and c->overrides (owned by c; NULL on error), or refuses another kind of
 * quantisation by name. */
err config_quantization(const config_source *src, model_config *c) MUST_USE;

void quant_overrides_free(struct quant_overrides *q);

#endif
