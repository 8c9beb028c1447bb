/* Any text, in pieces that the first bytes choose, under both parsers' options: no crash, arguments
 * are valid JSON, and the pieces do not matter. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_buf.h"
#include "text/toolcall.h"

typedef struct heard {
    text_buf log, arguments;
    int last;
} heard;

static err hear(void *ctx, const toolcall_event *e) {
    heard *h = ctx;
    bool border = e->kind == TOOLCALL_BEGIN || e->kind == TOOLCALL_END;
    if (border || h->last != (int)e->kind) TRY(text_buf_add_byte(&h->log, (char)('0' + e->kind)));
    h->last = (int)e->kind;
    if (e->kind == TOOLCALL_BEGIN) h->arguments.length = 0;
    if (e->kind == TOOLCALL_ARGUMENTS) TRY(text_buf_add(&h->arguments, e->text, e->length));
    if (e->kind == TOOLCALL_END) {
        /* The library refuses invalid UTF-8, numbers out of range and zero bytes in keys. */
        text_buf clean = {0};
        TRY(text_buf_add_utf8(&clean, h->arguments.data, h->arguments.length));
        json_error_t why;
        json_t *value =
            json_loadb(clean.data, clean.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        enum json_error_code code = json_error_code(&why);
        bool ours = code != json_error_numeric_overflow && code != json_error_null_byte_in_key;
        if (!value && ours) abort();
        json_decref(value);
        text_buf_free(&clean);
    }
    return text_buf_add(&h->log, e->text, e->length);
}

static void feed(toolcall_options opt, const char *text, size_t length, size_t piece, heard *h) {
    *h = (heard){.last = -1};
    opt.sink = hear;
    opt.ctx = h;
    toolcall_parser *p;
    if (toolcall_open(&opt, &p).code) abort();
    for (size_t at = 0; at < length; at += piece) {
        size_t n = piece < length - at ? piece : length - at;
        if (toolcall_push(p, text + at, n).code) abort();
    }
    if (toolcall_finish(p).code) abort();
    toolcall_close(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    json_t *tools = json_loads("[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": "
                               "{\"type\": \"string\"}, \"b\": "
                               "{\"type\": [\"integer\", \"null\"]}, \"c\": {}}}}]",
                               0, NULL);
    toolcall_options opt = {
        .format = toolcall_format_find(data[0] & 1 ? "qwen3-coder" : "minimax"),
        .tools = data[0] & 2 ? tools : NULL,
        .reasoning = (toolcall_reasoning)((data[0] >> 2) % 3),
    };
    heard whole, pieces;
    feed(opt, (const char *)data + 2, size - 2, size, &whole);
    feed(opt, (const char *)data + 2, size - 2, 1 + data[1] % 16, &pieces);
    if (whole.log.length != pieces.log.length) abort();
    if (whole.log.length && memcmp(whole.log.data, pieces.log.data, whole.log.length)) abort();
    heard *both[] = {&whole, &pieces};
    for (int i = 0; i < 2; i++) {
        text_buf_free(&both[i]->log);
        text_buf_free(&both[i]->arguments);
    }
    json_decref(tools);
    return 0;
}
