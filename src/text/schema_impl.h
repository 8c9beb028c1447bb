/* schema_impl.h: what schema.c and schema_forms.c share; nobody else includes it. */
#ifndef TEXT_SCHEMA_IMPL_H
#define TEXT_SCHEMA_IMPL_H

#include "text/schema.h"

#define SCHEMA_FLAT_MAX    64
#define SCHEMA_FLAT_TEXT   "64"
#define SCHEMA_SET_MAX     16
#define SCHEMA_CHOICES_MAX 4096

/* Schemas that must all hold, by address. */
typedef struct schema_set {
    const json_t *items[SCHEMA_SET_MAX];
    int n;
} schema_set;

typedef struct schema_item {
    const json_t *schema; /* an object */
    int parent;           /* the item that led here, -1 */
    bool expanded[2];     /* its anyOf, its oneOf: an option was chosen */
} schema_item;

typedef struct schema_flat {
    schema_item items[SCHEMA_FLAT_MAX];
    int n;
    bool never; /* one of them was `false` */
} schema_flat;

typedef struct schema_forms {
    schema_form *list;
    int n, capacity;
} schema_forms;

typedef struct schema_reader {
    const char *name;
    const json_t *document;
    schema *out;
    schema_set *sets; /* [nodes]: what each node stands for */
    int depth, choices, forms;
    char path[256]; /* of the schema that is read: "#/properties/a"; deeper ones are cut */
} schema_reader;

/* "NAME: PATH: KEY: MESSAGE"; key may be NULL. */
err schema_error(const schema_reader *r, err_code code, const char *key,
                 const char *message) MUST_USE;
/* The node of a set, which is tidied. segment is added to the path meanwhile; may be NULL. */
err schema_resolve(schema_reader *r, schema_set *set, const char *segment, int *out) MUST_USE;
/* Appends the forms of a flat whose choices are made. */
err schema_flat_forms(schema_reader *r, const schema_flat *f, schema_forms *out) MUST_USE;
/* No value fits forms of two of the n ranges [ends[i], ends[i + 1]). */
bool schema_forms_disjoint(const schema_reader *r, const schema_forms *forms, const int *ends,
                           int n);
void schema_form_free(schema_form *f);

#endif
