/* Any JSON as a schema, as tools or as a pattern: compiling answers without a crash, and what is
 * written under the grammar never gets stuck and always matches its mask. The first byte chooses
 * what the rest is; bytes of it also choose the tokens. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar.h"

/* Every byte is a token; so are some longer pieces. */
static tokenizer *open_tokenizer(void) {
    tokenizer *t;
    err e = tokenizer_open("assets/ember", &t);
    if (e.code) e = tokenizer_open("../assets/ember", &t);
    return e.code ? NULL : t;
}

static void write_some(grammar *g, size_t words, const uint8_t *data, size_t size) {
    uint64_t mask[96];
    grammar_state *s;
    if (words > 96 || grammar_state_open(g, &s).code) return;
    for (size_t step = 0; step < 40; step++) {
        if (!grammar_mask(s, mask)) abort();
        int start = (int)(data[step % size] * 37u + (unsigned)step * 101u) % 6144, id = start;
        while (!(mask[id >> 6] >> (id & 63) & 1)) id = (id + 1) % 6144;
        if (!grammar_accept(s, id)) abort();
        if (id == 6137) {
            if (!grammar_done(s)) abort();
            break;
        }
        int other = (id + 1 + data[(step + 1) % size]) % 6144; /* refused, unless the mask has it */
        grammar_state *copy;
        bool allowed = grammar_mask(s, mask) && (mask[other >> 6] >> (other & 63) & 1);
        if (grammar_state_open(g, &copy).code) break;
        grammar_state_copy(copy, s);
        if (grammar_accept(copy, other) != allowed) abort();
        grammar_state_close(copy);
    }
    grammar_state_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tokenizer *t;
    static grammar_vocab *v;
    static const int32_t end = 6137;
    if (!t) {
        t = open_tokenizer();
        if (!t || grammar_vocab_open(t, 6144, &end, 1, &v).code) abort();
    }
    if (size < 2 || size > 4096) return 0;
    char *pattern = strndup((const char *)data + 1, size - 1);
    json_t *value = json_loadb((const char *)data + 1, size - 1, JSON_DECODE_ANY, NULL);
    grammar_spec spec = {.kind = (grammar_kind)(data[0] % 3 + 1),
                         .name = "fuzz",
                         .schema = value,
                         .tools = value,
                         .format = toolcall_format_find(data[0] & 8 ? "hermes" : "qwen3-coder"),
                         .strict = data[0] & 16,
                         .parallel = data[0] & 32,
                         .pattern = pattern};
    if (spec.kind == GRAMMAR_CHOICE) spec.kind = GRAMMAR_REGEX;
    /* a pattern comes out of JSON elsewhere, so it is valid UTF-8 */
    json_t *text = pattern ? json_string(pattern) : NULL;
    bool fits = spec.kind == GRAMMAR_REGEX ? text != NULL : value != NULL;
    grammar *g = NULL;
    if (fits && !grammar_compile(v, &spec, &g).code) {
        write_some(g, grammar_vocab_words(v), data, size);
        grammar_close(g);
    }
    json_decref(text);
    json_decref(value);
    free(pattern);
    return 0;
}
