/* json_pointer.c: see json_pointer.h. */
#include "text/json_pointer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define POINTER_LENGTH_MAX 1024

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One path segment, escapes resolved, into out; returns where the next begins. */
static const char *segment(const char *at, char *out) {
    while (*at && *at != '/') {
        char c = *at++;
        if (c == '%' && hex_digit(at[0]) >= 0 && hex_digit(at[1]) >= 0) {
            c = (char)(hex_digit(at[0]) * 16 + hex_digit(at[1]));
            at += 2;
        }
        if (c == '~' && (*at == '0' || *at == '1')) c = *at++ == '0' ? '~' : '/';
        *out++ = c;
    }
    *out = '\0';
    return at;
}

static const json_t *element(const json_t *list, const char *index) {
    size_t n = strlen(index);
    if (!n || n > 9 || strspn(index, "0123456789") != n) return NULL;
    return json_array_get(list, (size_t)strtoul(index, NULL, 10));
}

const json_t *json_pointer_get(const json_t *root, const char *reference) {
    if (reference[0] != '#' || strlen(reference) > POINTER_LENGTH_MAX) return NULL;
    char key[POINTER_LENGTH_MAX + 1];
    const char *at = reference + 1;
    const json_t *value = root;
    while (value && *at) {
        if (*at != '/') return NULL;
        at = segment(at + 1, key);
        value = json_is_array(value) ? element(value, key) : json_object_get(value, key);
    }
    return value;
}
