/* fuzz_safetensors.c: any bytes as a safetensors header (or as the file that claims to hold it),
 * and what must hold of every header that was accepted. */
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) abort();                                                                 \
    } while (0)

/* Every accepted tensor lies inside the file, and the tensors fill it exactly. */
static void check_set(const st_set *s, int64_t file_size, int64_t data_start) {
    int64_t total = 0;
    for (int i = 0; i < st_count(s); i++) {
        const st_tensor *t = st_at(s, i);
        int64_t bytes = (int64_t)st_dtype_bytes(t->dtype);
        CHECK(t->n_dims >= 0 && t->n_dims <= ST_DIMS_MAX);
        for (int d = 0; d < t->n_dims; d++) {
            CHECK(t->shape[d] >= 0);
            bytes *= t->shape[d];
        }
        CHECK(bytes == t->bytes);
        CHECK(t->offset >= data_start && t->bytes >= 0 && t->offset <= file_size - t->bytes);
        CHECK(st_find(s, t->name) == t);
        CHECK(i == 0 || strcmp(st_at(s, i - 1)->name, t->name) < 0);
        total += t->bytes;
    }
    CHECK(total == file_size - data_start);
}

/* Byte 0 of the input chooses: 0 takes the rest as a whole file's beginning with a size of its own,
 * else the rest is the JSON and the size of the data is what byte 1 on says. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    st_set *s;
    int64_t data_bytes = data[1] | data[2] << 8;
    const uint8_t *rest = data + 3;
    size_t length = size - 3;
    uint8_t *file = malloc(length + 8);
    if (!file) return 0;
    if (data[0] != 0) {
        for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)length >> (8 * i));
        memcpy(file + 8, rest, length);
        length += 8;
    } else {
        memcpy(file, rest, length);
    }
    int64_t file_size = (int64_t)length + data_bytes;
    err e = st_parse_header("fuzz", file, length, file_size, &s);
    CHECK((e.code == ERR_NONE) == (s != NULL));
    if (s) {
        uint64_t header = 0;
        for (int i = 7; i >= 0; i--) header = header << 8 | file[i];
        check_set(s, file_size, 8 + (int64_t)header);
    } else {
        CHECK(strlen(e.text) > 4);
    }
    st_close(s);
    free(file);
    return 0;
}
