/* json.c: see json.h. */
#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

err json_read_text(const char *path, size_t max_bytes, char **out, size_t *length) {
    *out = NULL;
    *length = 0;
    FILE *f = fopen(path, "re");
    if (!f) return err_system(errno, "%s", path);
    err e = err_none();
    char *bytes = NULL;
    struct stat st;
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        e = err_make(ERR_IO, "%s: not a regular file", path);
    } else if ((uint64_t)st.st_size > max_bytes) {
        e = err_make(ERR_RANGE, "%s: %lld bytes, more than the %zu that such a file may have", path,
                     (long long)st.st_size, max_bytes);
    } else if (!(bytes = malloc((size_t)st.st_size + 1))) {
        e = err_make(ERR_NOMEM, "%s: no memory to read it", path);
    } else if (fread(bytes, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        e = err_make(ERR_IO, "%s: short read", path);
    } else {
        *out = bytes;
        *length = (size_t)st.st_size;
        bytes = NULL;
    }
    free(bytes);
    fclose(f);
    return e;
}

err json_read_bytes(const char *name, const void *bytes, size_t length, json_t **out) {
    json_error_t why;
    *out = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (*out) return err_none();
    return err_make(ERR_CORRUPT, "%s: not valid JSON: line %d, column %d: %s", name, why.line,
                    why.column, why.text);
}

err json_read_file(const char *path, size_t max_bytes, json_t **out) {
    *out = NULL;
    char *bytes;
    size_t length;
    TRY(json_read_text(path, max_bytes, &bytes, &length));
    err e = json_read_bytes(path, bytes, length, out);
    free(bytes);
    return e;
}

const char *json_kind(const json_t *value) {
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "a whole number";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    default: return "nothing";
    }
}

static err wrong_kind(const char *where, const char *key, const char *expected,
                      const json_t *found) {
    return err_make(ERR_CORRUPT, "%s: %s: expected %s, found %s", where, key, expected,
                    json_kind(found));
}

/* object[key], or NULL when it is missing or null. */
static const json_t *present(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

err json_get_int(const json_t *object, const char *where, const char *key, json_range range,
                 int64_t *out) {
    *out = 0;
    const json_t *value = present(object, key);
    if (value && !json_is_integer(value)) return wrong_kind(where, key, "a whole number", value);
    int64_t n = value ? (int64_t)json_integer_value(value) : range.otherwise;
    if (value && (n < range.low || n > range.high)) {
        return err_make(ERR_CORRUPT, "%s: %s: expected %lld to %lld, found %lld", where, key,
                        (long long)range.low, (long long)range.high, (long long)n);
    }
    *out = n;
    return err_none();
}

err json_get_number(const json_t *object, const char *where, const char *key, double otherwise,
                    double *out) {
    *out = 0;
    const json_t *value = present(object, key);
    if (value && !json_is_number(value)) return wrong_kind(where, key, "a number", value);
    *out = value ? json_number_value(value) : otherwise;
    return err_none();
}

err json_get_bool(const json_t *object, const char *where, const char *key, bool otherwise,
                  bool *out) {
    *out = false;
    const json_t *value = present(object, key);
    if (value && !json_is_boolean(value)) return wrong_kind(where, key, "true or false", value);
    *out = value ? json_is_true(value) : otherwise;
    return err_none();
}

err json_get_string(const json_t *object, const char *where, const char *key, const char *otherwise,
                    const char **out) {
    *out = NULL;
    const json_t *value = present(object, key);
    if (value && !json_is_string(value)) return wrong_kind(where, key, "a string", value);
    *out = value ? json_string_value(value) : otherwise;
    return err_none();
}
