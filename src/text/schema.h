/* schema.h: a JSON Schema, checked and brought to a form that a grammar can be made of.
 *
 *     {"allOf": [A, {"$ref": "#/$defs/b"}], "properties": ...}   -->   node: form | form | form
 *
 * A node is a list of forms, each of one type with all its constraints merged: $ref resolved, allOf
 * merged, anyOf and oneOf multiplied out. Recursion goes through properties and items only, as
 * indices of nodes. What a form describes is a subset of what the schema accepts, never more:
 *
 *   - a schema without type, enum or const but with keywords of some types describes those types
 *   - properties that are not listed are generated only where additionalProperties says so, or
 * where the object lists none
 *   - oneOf is read as anyOf when no value can fit two alternatives (different types, different
 *     constants, a required property with different constants); otherwise it is refused
 *   - numbers with bounds: what can be said with an integer part within them
 *   - format and the other annotations are ignored (as the specification allows)
 *
 * docs/STRUCTURED.md is the list of keywords. Any other keyword is ERR_UNSUPPORTED and named with
 * its place ("#/properties/a: uniqueItems"). A schema is a stranger's: depth, nodes, forms and
 * alternatives are bounded (ERR_RANGE). */
#ifndef TEXT_SCHEMA_H
#define TEXT_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SCHEMA_NODES_MAX        4096
#define SCHEMA_FORMS_MAX        16384
#define SCHEMA_ALTERNATIVES_MAX 256
#define SCHEMA_DEPTH_MAX        64
#define SCHEMA_ANY              0               /* node: any value */
#define SCHEMA_NEVER            (-1)            /* node: no value */
#define SCHEMA_INTEGER_MAX      999999999999999 /* what a double holds exactly, in 15 digits */

typedef enum schema_kind {
    SCHEMA_VALUES, /* enum and const */
    SCHEMA_NULL,
    SCHEMA_BOOLEAN,
    SCHEMA_INTEGER,
    SCHEMA_NUMBER,
    SCHEMA_STRING,
    SCHEMA_ARRAY,
    SCHEMA_OBJECT,
} schema_kind;

typedef struct schema_property {
    const char *name; /* borrowed from the document */
    int node;         /* SCHEMA_NEVER: it must not occur */
    bool required;
} schema_property;

typedef struct schema_form {
    schema_kind kind;
    unsigned other_types; /* types that the schema accepts though no form of it has them: bits */
    json_t *values;       /* values: owned list */
    /* integer, number: bounds, -INFINITY and INFINITY without; exclusive: the bound itself is not
     * in */
    double low, high;
    bool low_exclusive, high_exclusive;
    int least, most;     /* string: characters; array: items; most < 0: no limit */
    const char *pattern; /* string: borrowed, may be NULL */
    /* object: in the order in which they are written */
    schema_property *properties; /* owned */
    int n_properties;
    int additional; /* node of other properties, SCHEMA_NEVER for none */
    bool closed;    /* the schema itself forbids other properties */
    /* array */
    int *prefix; /* owned: nodes of the first items */
    int n_prefix;
    int items; /* node of the others, SCHEMA_NEVER for none */
} schema_form;

typedef struct schema_node {
    schema_form *forms; /* owned; none: no value fits */
    int n_forms;
} schema_node;

typedef struct schema {
    json_t *document; /* owned reference */
    schema_node *nodes;
    int n_nodes, root; /* root: a node, or SCHEMA_NEVER */
} schema;

/* Reads a schema: an object or a boolean. name stands for it in messages ("response_format"). The
 * document must not be changed while *out lives. On error *out is zero. */
err schema_open(const json_t *document, const char *name, schema *out) MUST_USE;
void schema_close(schema *s);

#endif
