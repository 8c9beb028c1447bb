/* json.h: what we add to the JSON library (jansson): reading hostile files with errors that name
 * file and field. Objects come back with duplicate keys refused. Depth is bounded by jansson
 * (2048). */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The file's JSON value; the caller owns *out (json_decref). ERR_NOT_FOUND, ERR_IO, ERR_CORRUPT
 * (line, column, reason), ERR_RANGE when the file is larger than max_bytes. */
err json_read_file(const char *path, size_t max_bytes, json_t **out) MUST_USE;

/* The file's text as it is: *out is the caller's (free), *length bytes without a zero at the end.
 * Same errors, except for ERR_CORRUPT. */
err json_read_text(const char *path, size_t max_bytes, char **out, size_t *length) MUST_USE;

/* json_read_file from memory; `name` stands for the path in messages. */
err json_read_bytes(const char *name, const void *bytes, size_t length, json_t **out) MUST_USE;

/* What json_get_int accepts. */
typedef struct json_range {
    int64_t low, high; /* inclusive */
    int64_t otherwise; /* not checked against them */
} json_range;

/* Typed reads of object[key]. `where` names the object in messages ("config.json: text_config").
 * Without the key (or with null) the value is `otherwise`; of the wrong type or outside the range
 * it is ERR_CORRUPT naming where, key, what was expected and what was found. */
err json_get_int(const json_t *object, const char *where, const char *key, json_range range,
                 int64_t *out) MUST_USE;
err json_get_number(const json_t *object, const char *where, const char *key, double otherwise,
                    double *out) MUST_USE;
err json_get_bool(const json_t *object, const char *where, const char *key, bool otherwise,
                  bool *out) MUST_USE;
/* Borrowed from object; `otherwise` may be NULL. */
err json_get_string(const json_t *object, const char *where, const char *key, const char *otherwise,
                    const char **out) MUST_USE;

/* "an object", "a string" ...: for messages. */
const char *json_kind(const json_t *value);

#endif
