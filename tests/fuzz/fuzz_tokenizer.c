/* fuzz_tokenizer.c: tokenizer.json from anybody, and any text through it.
 *
 * The input is a file's text, then optionally a zero byte and a text to encode. A good file needs
 * all 256 bytes in its vocabulary, which a fuzzer would have to invent; so where the input holds
 * @V@, a vocabulary of all bytes is put in its place. An input that begins with the zero byte is a
 * text for a tokenizer of ours, whose ids must spell the text again. Always: no crash, and the
 * stream makes whole characters. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/buffer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NEED(condition)                                                                            \
    if (!(condition)) __builtin_trap()

/* "\u0100":0, ... for every byte. */
static void put_bytes(text_buffer *b) {
    int moved = 0;
    for (int byte = 0; byte < 256; byte++) {
        bool moves = byte < 33 || (byte > 126 && byte < 161) || byte == 173;
        char text[32];
        int n = snprintf(text, sizeof text, "%s\"\\u%04x\":%d", byte ? "," : "",
                         (unsigned)(moves ? 256 + moved : byte), byte);
        moved += moves;
        NEED(!text_buffer_add(b, text, (size_t)n).code);
    }
}

static void check_stream(const tokenizer *t, const token_list *ids) {
    utf8_stream s = {0};
    for (size_t i = 0; i < ids->count; i++) {
        size_t n, made;
        const char *bytes = tokenizer_bytes(t, ids->ids[i], &n);
        char *out = malloc(3 * n + 9);
        NEED(bytes && out);
        made = utf8_stream_push(&s, bytes, n, out);
        NEED(made <= 3 * n + 9 && utf8_valid_prefix(out, made) == made);
        free(out);
    }
}

static void check_encode(const tokenizer *t, token_mode mode, const char *text, size_t length,
                         bool lossless) {
    token_list ids = {0};
    size_t at = 0;
    err e = tokenizer_encode(t, mode, text, length, &ids);
    NEED(!e.code || ids.count == 0);
    for (size_t i = 0; !e.code && i < ids.count; i++) {
        size_t n;
        const char *bytes = tokenizer_bytes(t, ids.ids[i], &n);
        NEED(bytes);
        if (lossless) NEED(n <= length - at && memcmp(bytes, text + at, n) == 0);
        at += n;
    }
    if (lossless && !e.code) NEED(at == length);
    check_stream(t, &ids);
    token_list_free(&ids);
}

/* The JSON with @V@ replaced, opened; NULL when it is refused. */
static tokenizer *open_input(const char *input, size_t size) {
    const char *mark = size ? memmem(input, size, "@V@", 3) : NULL;
    size_t before = mark ? (size_t)(mark - input) : size;
    text_buffer json = {0};
    tokenizer *t = NULL;
    NEED(!text_buffer_add(&json, input, before).code);
    if (mark) put_bytes(&json);
    if (mark) NEED(!text_buffer_add(&json, mark + 3, size - before - 3).code);
    err e = tokenizer_parse("fuzz", json.data ? json.data : "", json.count, &t);
    NEED((e.code == ERR_NONE) == (t != NULL));
    NEED(!e.code || e.text[0]);
    text_buffer_free(&json);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char OURS[] =
        "{\"added_tokens\":[{\"id\":300,\"content\":\"<|x|>\",\"normalized\":false}],"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
        "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(?i:'s|'ll)|[^\\\\r\\\\n\\\\p{L}"
        "\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}{1,3}|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)\"}},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},\"model\":{"
        "\"vocab\":{@V@,\"aa\":256,\"aaaa\":257,\"e\u00cc\":258},\"merges\":[\"a a\",[\"aa\","
        "\"aa\"],\"e \u00cc\"]}}";
    const char *input = (const char *)data;
    const char *zero = size ? memchr(input, 0, size) : NULL;
    size_t json_size = zero ? (size_t)(zero - input) : size;
    const char *text = zero ? zero + 1 : "a <|x|> e\xcc\x81 12\xff\n";
    size_t length = zero ? size - json_size - 1 : strlen(text);
    bool ours = zero == input;
    tokenizer *t = ours ? open_input(OURS, sizeof OURS - 1) : open_input(input, json_size);
    NEED(t || !ours);
    if (t) {
        check_encode(t, TOKEN_CONTENT, text, length, ours);
        check_encode(t, TOKEN_MARKUP, text, length, ours);
    }
    tokenizer_close(t);
    return 0;
}
