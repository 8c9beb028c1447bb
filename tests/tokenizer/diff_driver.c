/* diff_driver.c (build/tokenizer-diff): encodes a file of strings, for differential.mjs to compare.
 *
 *   tokenizer-diff DIR markup|content STRINGS IDS   STRINGS and IDS are records: count u32, then
 * bytes or ids u32, all little-endian tokenizer-diff DIR roundtrip STRINGS            checks
 * decode(encode(x)) == x, for tokenizers without NFC or strings that NFC leaves alone
 *   tokenizer-diff DIR open                         opens only: prints seconds, bytes, ids
 *   tokenizer-diff DIR long                         a megabyte of each awkward thing: prints
 * seconds */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/tokenizer.h"

/* Processor time: what other programs do meanwhile does not count. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double since(uint64_t start_ns) { return (double)(cpu_ns() - start_ns) * 1e-9; }

static int report(const char *what, err e) {
    fprintf(stderr, "%s: %s: %s\n", what, err_code_name(e.code), e.text);
    return 1;
}

/* The next record's bytes, or NULL at the end. */
static char *read_record(FILE *f, size_t *length) {
    unsigned char head[4];
    *length = 0;
    if (fread(head, 1, 4, f) != 4) return NULL;
    size_t n =
        (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    char *bytes = malloc(n + 1);
    if (!bytes || fread(bytes, 1, n, f) != n) {
        free(bytes);
        return NULL;
    }
    *length = n;
    return bytes;
}

static void write_u32(FILE *f, uint32_t value) {
    unsigned char b[4] = {(unsigned char)value, (unsigned char)(value >> 8),
                          (unsigned char)(value >> 16), (unsigned char)(value >> 24)};
    fwrite(b, 1, 4, f);
}

static bool same_bytes(const tokenizer *t, const token_list *ids, const char *text, size_t length) {
    size_t at = 0;
    for (size_t i = 0; i < ids->count; i++) {
        size_t n;
        const char *bytes = tokenizer_bytes(t, ids->ids[i], &n);
        if (!bytes || n > length - at || memcmp(bytes, text + at, n) != 0) return false;
        at += n;
    }
    return at == length;
}

static int run_file(const tokenizer *t, token_mode mode, const char *in_path,
                    const char *out_path) {
    FILE *in = fopen(in_path, "rb"), *out = out_path ? fopen(out_path, "wb") : NULL;
    if (!in || (out_path && !out)) {
        fprintf(stderr, "%s: cannot open\n", in ? out_path : in_path);
        return 1;
    }
    token_list ids = {0};
    size_t length, n = 0, n_bytes = 0, n_bad = 0;
    int failed = 0;
    uint64_t ns = 0;
    for (char *text; !failed && (text = read_record(in, &length)); free(text), n++) {
        ids.count = 0;
        uint64_t start = cpu_ns();
        err e = tokenizer_encode(t, mode, text, length, &ids);
        ns += cpu_ns() - start;
        n_bytes += length;
        if (e.code) failed = report("encode", e);
        if (!out && !same_bytes(t, &ids, text, length)) n_bad++;
        if (out) write_u32(out, (uint32_t)ids.count);
        for (size_t i = 0; out && i < ids.count; i++) write_u32(out, (uint32_t)ids.ids[i]);
    }
    printf("%zu strings, %zu bytes, %.2f MB/s%s\n", n, n_bytes,
           (double)n_bytes / ((double)ns * 1e-3 + 1), n_bad ? ", DIFFERENT" : "");
    token_list_free(&ids);
    fclose(in);
    if (out && fclose(out) != 0) failed = 1;
    return failed || n_bad;
}

/* A megabyte of one thing, repeated. */
static int run_long(const tokenizer *t) {
    static const char *const THINGS[] = {"a",
                                         " ",
                                         "\n",
                                         " \n",
                                         "\xf0\x9f\x98\x80",
                                         "\xe6\xbc\xa2",
                                         "A",
                                         "1",
                                         "-",
                                         "\xcc\x81\xcc\x96",
                                         "a\xcc\x81\xcc\x95\xcc\x96",
                                         "\xed\x95\x9c",
                                         "\xe1\x84\x92\xe1\x85\xa1",
                                         "\xff",
                                         "\xe2\x80\x80",
                                         "'s",
                                         "\t ",
                                         "<|im_",
                                         "<",
                                         "\xf0\x9f\x91\xa8\xe2\x80\x8d",
                                         "aA",
                                         " a",
                                         "\r",
                                         "\xc2\x85"};
    int failed = 0;
    const size_t size = 1 << 20;
    char *text = malloc(size);
    for (size_t i = 0; text && i < sizeof THINGS / sizeof *THINGS; i++) {
        size_t n = strlen(THINGS[i]), length = size / n * n;
        for (size_t at = 0; at < length; at += n) memcpy(text + at, THINGS[i], n);
        token_list ids = {0};
        uint64_t start = cpu_ns();
        err e = tokenizer_encode(t, TOKEN_MARKUP, text, length, &ids);
        if (e.code) failed = report("encode", e);
        printf("%.3f s, %zu ids, thing %zu\n", since(start), ids.count, i);
        failed |= since(start) > 1.0;
        token_list_free(&ids);
    }
    free(text);
    return failed || !text;
}

int main(int argc, char **argv) {
    tokenizer *t = NULL;
    const char *what = argc > 2 ? argv[2] : "";
    if (argc < 3) {
        fprintf(stderr, "usage: tokenizer-diff DIR markup|content|roundtrip|open|long ...\n");
        return 2;
    }
    uint64_t start = cpu_ns();
    err e = tokenizer_open(argv[1], &t);
    if (e.code) return report("open", e);
    int rc = 2;
    if (strcmp(what, "open") == 0) {
        printf("%.3f s, %zu bytes, %d ids\n", since(start), tokenizer_memory(t), tokenizer_size(t));
        rc = 0;
    } else if (strcmp(what, "long") == 0) {
        rc = run_long(t);
    } else if (strcmp(what, "roundtrip") == 0 && argc == 4) {
        rc = run_file(t, TOKEN_CONTENT, argv[3], NULL);
    } else if (argc == 5) {
        rc = run_file(t, strcmp(what, "markup") ? TOKEN_CONTENT : TOKEN_MARKUP, argv[3], argv[4]);
    }
    tokenizer_close(t);
    return rc;
}
