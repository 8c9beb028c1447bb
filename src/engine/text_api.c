/* text_api.c: the tokenizer's public face. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

static err tokenize(const fm_engine *e, fm_text_mode mode, const char *text, size_t length,
                    fm_tokens *out) {
    if (!e->files.tokens)
        return err_make(ERR_NOT_FOUND, "%s: no tokenizer.json: this model takes token ids only",
                        e->dir);
    token_list list = {.ids = out->ids, .count = out->count, .capacity = out->capacity};
    err failed = tokenizer_encode(e->files.tokens, mode == FM_MARKUP ? TOKEN_MARKUP : TOKEN_CONTENT,
                                  text, length, &list);
    *out = (fm_tokens){.ids = list.ids, .count = list.count, .capacity = list.capacity};
    return failed;
}

fm_error fm_tokenize(const fm_engine *e, fm_text_mode mode, const char *text, size_t length,
                     fm_tokens *out) {
    return FM_WRAP(tokenize(e, mode, text, length, out));
}

fm_error fm_tokens_push(fm_tokens *t, int32_t id) {
    token_list list = {.ids = t->ids, .count = t->count, .capacity = t->capacity};
    err failed = token_list_push(&list, id);
    *t = (fm_tokens){.ids = list.ids, .count = list.count, .capacity = list.capacity};
    return fm_error_from(&failed);
}

void fm_tokens_free(fm_tokens *t) {
    free(t->ids);
    *t = (fm_tokens){0};
}

const char *fm_token_bytes(const fm_engine *e, int32_t id, size_t *length) {
    *length = 0;
    return e->files.tokens ? tokenizer_bytes(e->files.tokens, id, length) : NULL;
}

int32_t fm_token_find(const fm_engine *e, const char *text) {
    return e->files.tokens ? tokenizer_find(e->files.tokens, text, strlen(text)) : -1;
}

_Static_assert(sizeof(fm_utf8) == sizeof(utf8_stream), "one is the other's public face");

size_t fm_utf8_push(fm_utf8 *s, const char *bytes, size_t length, char *out) {
    utf8_stream inner;
    memcpy(&inner, s, sizeof inner);
    size_t n = utf8_stream_push(&inner, bytes, length, out);
    memcpy(s, &inner, sizeof inner);
    return n;
}

size_t fm_utf8_end(fm_utf8 *s, char *out) {
    utf8_stream inner;
    memcpy(&inner, s, sizeof inner);
    size_t n = utf8_stream_end(&inner, out);
    memcpy(s, &inner, sizeof inner);
    return n;
}
