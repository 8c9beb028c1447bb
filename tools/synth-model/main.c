/* main.c: build/synth-model, a checkpoint of a real model's size made of random numbers, for
 * measuring without a download. See synth.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "synth.h"

typedef struct arguments {
    synth_options o;
    const char *out, *tokenizer;
    bool dry;
} arguments;

static void usage(FILE *to) {
    fprintf(to,
            "usage: synth-model --shape NAME --out DIR [options]\n"
            "writes a checkpoint (MLX layout) of a model's size with random weights.\n\n"
            "  --shape NAME      %s\n"
            "  --layers N        instead of the model's own\n"
            "  --vocab N         rows of the embedding and the head, at least 6144\n"
            "  --bits N          2, 3, 4, 5, 6 or 8; default 4\n"
            "  --group N         32, 64 or 128; default 64\n"
            "  --skew S          routing: 0 near-uniform (default), 1 as published traces\n"
            "  --seed N          default 1\n"
            "  --tokenizer DIR   whose tokenizer files are copied; default assets/ember\n"
            "  --out DIR         must be missing or empty\n"
            "  --dry-run         prints the size only\n",
            synth_shape_names());
}

static bool whole(const char *text, int low, int high, int *out) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *end || end == text || value < low || value > high) return false;
    *out = (int)value;
    return true;
}

static bool real(const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && isfinite(*out) && *out >= 0 && *out <= 100;
}

static bool one_of(int value, const int *list, int n) {
    for (int i = 0; i < n; i++)
        if (list[i] == value) return true;
    return false;
}

/* Takes one option with its value. The shape's own numbers are overridden afterwards. */
static bool take(arguments *a, int *layers, int *vocab, const char *key, const char *value) {
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    int number;
    if (strcmp(key, "--shape") == 0) {
        const synth_shape *s = synth_shape_find(value);
        if (s) a->o.shape = *s;
        return s != NULL;
    }
    if (strcmp(key, "--layers") == 0) return whole(value, 1, 256, layers);
    if (strcmp(key, "--vocab") == 0) return whole(value, 6144, 1 << 20, vocab);
    if (strcmp(key, "--bits") == 0)
        return whole(value, 1, 8, &a->o.bits) && one_of(a->o.bits, bits, 6);
    if (strcmp(key, "--group") == 0)
        return whole(value, 1, 128, &a->o.group) && one_of(a->o.group, groups, 3);
    if (strcmp(key, "--skew") == 0) return real(value, &a->o.skew);
    if (strcmp(key, "--seed") == 0) {
        bool ok = whole(value, 0, 2147483647, &number);
        a->o.seed = (uint64_t)(ok ? number : 0);
        return ok;
    }
    if (strcmp(key, "--tokenizer") == 0)
        a->tokenizer = value;
    else if (strcmp(key, "--out") == 0)
        a->out = value;
    else
        return false;
    return true;
}

static bool parse(int argc, char **argv, arguments *a) {
    int layers = 0, vocab = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dry-run") == 0) {
            a->dry = true;
        } else if (i + 1 >= argc || !take(a, &layers, &vocab, argv[i], argv[i + 1])) {
            fprintf(stderr, "synth-model: %s %s: not an option, or not a value for it\n\n", argv[i],
                    i + 1 < argc ? argv[i + 1] : "");
            return false;
        } else {
            i++;
        }
    }
    if (!a->o.shape.name || (!a->out && !a->dry)) {
        fprintf(stderr, "synth-model: --shape and --out are needed\n\n");
        return false;
    }
    if (layers) a->o.shape.layers = layers;
    if (vocab) a->o.shape.vocab = vocab;
    return true;
}

int main(int argc, char **argv) {
    arguments a = {.o = {.bits = 4, .group = 64, .seed = 1}, .tokenizer = "assets/ember"};
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return 0;
    }
    if (!parse(argc, argv, &a)) {
        usage(stderr);
        return 2;
    }
    synth_model m;
    err e = synth_model_open(&a.o, &m);
    if (!e.code) {
        printf("%s: %d layers, %d tensors, %.2f GB, skew %g\n", a.o.shape.name, a.o.shape.layers,
               m.n_tensors, (double)m.bytes / 1e9, a.o.skew);
        if (!a.dry) e = synth_write(&m, a.out, a.tokenizer);
        synth_model_close(&m);
    }
    if (!e.code) return 0;
    fprintf(stderr, "synth-model: %s\n", e.text);
    return 1;
}
