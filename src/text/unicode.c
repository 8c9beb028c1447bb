/* unicode.c: see unicode.h. */
#include "text/unicode.h"

#include <string.h>

static bool is_continuation(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

int utf8_decode(const char *bytes, size_t length, uint32_t *code_point) {
    *code_point = 0;
    if (length == 0) return 0;
    unsigned char lead = (unsigned char)bytes[0];
    if (lead < 0x80) {
        *code_point = lead;
        return 1;
    }
    int n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || length < (size_t)n) return 0;
    uint32_t c = lead & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if (!is_continuation(bytes[i])) return 0;
        c = c << 6 | ((unsigned char)bytes[i] & 0x3fu);
    }
    bool overlong = (n == 3 && c < 0x800) || (n == 4 && c < 0x10000);
    if (overlong || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *code_point = c;
    return n;
}

int utf8_encode(uint32_t code_point, char out[4]) {
    uint32_t c = code_point;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)((0xf00 >> n & 0xff) | (int)c);
    return n;
}

size_t utf8_valid_prefix(const char *bytes, size_t length) {
    size_t at = 0;
    while (at < length) {
        uint64_t eight;
        if (length - at >= sizeof eight) {
            memcpy(&eight, bytes + at, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                at += sizeof eight;
                continue;
            }
        }
        uint32_t c;
        int n = utf8_decode(bytes + at, length - at, &c);
        if (n == 0) break;
        at += (size_t)n;
    }
    return at;
}

uint32_t unicode_standin(uint32_t code_point) {
    if (code_point < unicode_category_runs[0].first) return code_point;
    int low = 0, high = unicode_category_count; /* the answer is in [low, high) if anywhere */
    while (low < high) {
        int middle = (low + high) / 2;
        const unicode_run *run = &unicode_category_runs[middle];
        if (code_point < run->first) {
            high = middle;
        } else if (code_point > run->last) {
            low = middle + 1;
        } else {
            return run->standin;
        }
    }
    return code_point;
}

bool unicode_is_barrier(uint32_t code_point) {
    int low = 0, high = unicode_barrier_count;
    while (low < high) {
        int middle = (low + high) / 2;
        const unicode_span *span = &unicode_normal_barriers[middle];
        if (code_point < span->first) {
            high = middle;
        } else if (code_point > span->last) {
            low = middle + 1;
        } else {
            return true;
        }
    }
    return false;
}
