/* tokenizer.c: see tokenizer.h. Encoding, and what one may ask; tokenizer_load.c makes the tables.
 *
 *     text -> added tokens (markup only) -> NFC -> added tokens matched after NFC (markup only)
 *          -> stretches of valid UTF-8 -> pieces (pretokenize.h) -> merges (bpe.h) -> ids */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "text/normalize.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

void token_list_free(token_list *l) {
    free(l->ids);
    *l = (token_list){0};
}

err token_list_push(token_list *l, int32_t id) {
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity : 64, bytes;
        if (l->capacity && !size_mul(capacity, 2, &capacity)) capacity = SIZE_MAX;
        int32_t *ids = size_mul(capacity, sizeof *ids, &bytes) ? realloc(l->ids, bytes) : NULL;
        if (!ids) return err_make(ERR_NOMEM, "no memory for %zu tokens", capacity);
        l->ids = ids;
        l->capacity = capacity;
    }
    l->ids[l->count++] = id;
    return err_none();
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    text_buffer_free(&t->bytes);
    free(t->entries);
    free(t->slots);
    bpe_free(&t->rules);
    added_free(&t->plain);
    added_free(&t->normalized);
    pretokenizer_free(t->split);
    free(t);
}

int tokenizer_size(const tokenizer *t) { return t->size; }

int tokenizer_find(const tokenizer *t, const char *bytes, size_t length) {
    const added_token *added = added_find(&t->plain, bytes, length);
    if (!added) added = added_find(&t->normalized, bytes, length);
    if (added) return added->id;
    return length == 0 ? -1 : tokenizer_lookup(t, bytes, length);
}

bool tokenizer_is_special(const tokenizer *t, int id) {
    return id >= 0 && id < t->size && (t->entries[id].flags & TOKEN_IS_SPECIAL);
}

bool tokenizer_is_added(const tokenizer *t, int id) {
    return id >= 0 && id < t->size && (t->entries[id].flags & TOKEN_IS_ADDED);
}

const char *tokenizer_bytes(const tokenizer *t, int id, size_t *length) {
    *length = 0;
    if (id < 0 || id >= t->size || !(t->entries[id].flags & TOKEN_IS_PRESENT)) return NULL;
    *length = t->entries[id].length;
    return t->bytes.data ? t->bytes.data + t->entries[id].start : "";
}

size_t tokenizer_memory(const tokenizer *t) {
    return sizeof *t + t->bytes.capacity + (size_t)t->capacity * sizeof *t->entries +
           ((size_t)t->slot_mask + 1) * sizeof *t->slots + bpe_memory(&t->rules) +
           added_memory(&t->plain) + added_memory(&t->normalized);
}

/* ---- encoding ---- */

typedef struct encoder {
    const tokenizer *t;
    token_list *out;
    bpe_scratch scratch;
    const char *base;     /* the whole text ... */
    const uint8_t *marks; /* ... and its marks, or NULL */
} encoder;

static err encode_piece(void *ctx, const char *piece, size_t length) {
    encoder *e = ctx;
    if (e->t->ignore_merges) {
        int32_t id = tokenizer_lookup(e->t, piece, length);
        if (id >= 0) return token_list_push(e->out, id);
    }
    return bpe_encode(&e->t->rules, piece, length, &e->scratch, e->out);
}

/* Ordinary text after normalisation. Each invalid byte stands for itself and ends a stretch. */
static err encode_ordinary(encoder *e, const char *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        size_t valid = utf8_valid_prefix(text + at, length - at);
        TRY(pretokenizer_run(e->t->split, text + at, valid, encode_piece, e));
        at += valid;
        while (at < length) {
            uint32_t c;
            if (utf8_decode(text + at, length - at, &c) != 0) break;
            TRY(token_list_push(e->out, e->t->rules.byte_ids[(unsigned char)text[at]]));
            at++;
        }
    }
    return err_none();
}

typedef err (*part_fn)(encoder *e, const char *text, size_t length, token_mode mode);

/* Cuts the tokens of `set` out of text; what lies between goes to fn. */
static err cut_added(encoder *e, const added_set *set, const added_text *in, part_fn fn) {
    const char *text = in->bytes;
    size_t from = 0, taken = 0, length = in->length;
    added_match match;
    while (added_next(set, in, taken, &from, &match)) {
        if (match.begin > taken) {
            TRY(fn(e, text + taken, match.begin - taken, TOKEN_MARKUP));
        }
        TRY(token_list_push(e->out, match.id));
        taken = match.end;
    }
    return taken < length ? fn(e, text + taken, length - taken, TOKEN_MARKUP) : err_none();
}

static err encode_normalized(encoder *e, const char *text, size_t length, token_mode mode) {
    (void)mode;
    return encode_ordinary(e, text, length);
}

/* NFC of each valid stretch of text; invalid bytes are copied. */
static err normalize(const char *text, size_t length, text_buffer *out, bool *changed) {
    size_t at = 0;
    *changed = false;
    while (at < length) {
        size_t valid = utf8_valid_prefix(text + at, length - at);
        bool here = false;
        TRY(text_nfc(text + at, valid, out, &here));
        if (!here) TRY(text_buffer_add(out, text + at, valid));
        *changed = *changed || here;
        at += valid;
        if (at < length) TRY(text_buffer_add(out, text + at++, 1));
    }
    return err_none();
}

static bool all_markup(const encoder *e, const char *text, size_t length) {
    for (size_t i = 0; e->marks && i < length; i++) {
        if (e->marks[text - e->base + (ptrdiff_t)i] != 0) return false;
    }
    return true;
}

/* Text between added tokens. Where composing has moved the bytes, marks say nothing about single
 * ones: tokens that are matched after it are then found only if all of the part is markup. */
static err encode_part(encoder *e, const char *text, size_t length, token_mode mode) {
    text_buffer composed = {0};
    bool changed = false;
    err r = e->t->nfc ? normalize(text, length, &composed, &changed) : err_none();
    if (!r.code) {
        const char *use = changed ? composed.data : text;
        size_t n = changed ? composed.count : length;
        const added_text in = {use, n, e->marks && !changed ? e->marks + (text - e->base) : NULL};
        bool markup = mode == TOKEN_MARKUP && (!changed || all_markup(e, text, length));
        r = markup ? cut_added(e, &e->t->normalized, &in, encode_normalized)
                   : encode_ordinary(e, use, n);
    }
    text_buffer_free(&composed);
    return r;
}

static err encode(encoder *e, token_mode mode, size_t length) {
    const added_text in = {e->base, length, e->marks};
    size_t before = e->out->count;
    err r = mode == TOKEN_MARKUP ? cut_added(e, &e->t->plain, &in, encode_part)
                                 : encode_part(e, e->base, length, mode);
    bpe_scratch_free(&e->scratch);
    if (r.code) e->out->count = before;
    return r;
}

err tokenizer_encode(const tokenizer *t, token_mode mode, const char *text, size_t length,
                     token_list *out) {
    encoder e = {.t = t, .out = out, .base = text};
    return encode(&e, mode, length);
}

err tokenizer_encode_marked(const tokenizer *t, const char *text, const uint8_t *marks,
                            size_t length, token_list *out) {
    encoder e = {.t = t, .out = out, .base = text, .marks = marks};
    return encode(&e, TOKEN_MARKUP, length);
}
