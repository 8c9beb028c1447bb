/* json_pointer.h: "#/$defs/point" inside one JSON document. */
#ifndef TEXT_JSON_POINTER_H
#define TEXT_JSON_POINTER_H

#include <jansson.h>

/* The value that a local reference names: "#" is the root, "#/a/0/b~1c" a path (RFC 6901, percent
 * escapes decoded). NULL when there is none or the reference is not local. Borrowed from root. */
const json_t *json_pointer_get(const json_t *root, const char *reference);

#endif
