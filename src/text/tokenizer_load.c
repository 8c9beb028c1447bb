/* tokenizer_load.c: tokenizer.json into a tokenizer.
 *
 * Order matters: added tokens first (their ids must never come out of a merge), then the
 * vocabulary, then the merges, whose parts and results are looked up in it. Tokens are kept as the
 * bytes that they stand for: the file spells bytes as printable characters (0x20 is U+0120), and
 * that spelling ends here. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/json.h"
#include "text/json_cut.h"
#include "text/normalize.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

#define FILE_BYTES_MAX ((size_t)512 << 20)
#define TOKEN_IDS_MAX  (1 << 22)

/* The text of messages about a token: at most 40 bytes of it. */
#define SHOW_MAX    40
#define SHOW(bytes) (int)size_min((bytes)->count, SHOW_MAX), (bytes)->data ? (bytes)->data : ""

/* ---- the byte alphabet ---- */

/* The character that spells a byte: itself where it is printable, else one from U+0100 on. */
static uint32_t spelling_of(int byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) {
        return (uint32_t)byte;
    }
    if (byte <= 32) return 256u + (uint32_t)byte;
    if (byte <= 160) return 256u + 33 + (uint32_t)(byte - 127);
    return 256u + 33 + 34; /* 173 */
}

typedef struct alphabet {
    int16_t byte_of[324]; /* by code point, -1: spells nothing */
} alphabet;

static void alphabet_init(alphabet *a) {
    for (int i = 0; i < 324; i++) a->byte_of[i] = -1;
    for (int byte = 0; byte < 256; byte++) a->byte_of[spelling_of(byte)] = (int16_t)byte;
}

/* Replaces a token's spelling by its bytes, in place. False (and unchanged) when a character of it
 * is not in the alphabet. */
static bool to_bytes(const alphabet *a, text_buffer *token) {
    uint32_t c;
    for (size_t at = 0; at < token->count;) {
        at += (size_t)utf8_decode(token->data + at, token->count - at, &c);
        if (c >= 324 || a->byte_of[c] < 0) return false;
    }
    size_t made = 0;
    for (size_t at = 0; at < token->count;) {
        at += (size_t)utf8_decode(token->data + at, token->count - at, &c);
        token->data[made++] = (char)a->byte_of[c];
    }
    token->count = made;
    return true;
}

/* ---- tokens ---- */

int32_t tokenizer_lookup(const tokenizer *t, const char *bytes, size_t length) {
    return t->slots ? t->slots[tokenizer_slot(t, bytes, length)] - 1 : -1;
}

uint32_t tokenizer_slot(const tokenizer *t, const char *bytes, size_t length) {
    uint32_t at = (uint32_t)XXH3_64bits(bytes, length) & t->slot_mask;
    for (;; at = (at + 1) & t->slot_mask) {
        int32_t id = t->slots[at] - 1;
        if (id < 0) return at;
        const token_entry *e = &t->entries[id];
        if (e->length == length && memcmp(t->bytes.data + e->start, bytes, length) == 0) return at;
    }
}

/* Room for id. New entries are absent. */
static err reach(tokenizer *t, const char *where, int32_t id) {
    if (id >= TOKEN_IDS_MAX) {
        return err_make(ERR_RANGE, "%s: token id %d is not below %d", where, id, TOKEN_IDS_MAX);
    }
    if (id >= t->capacity) {
        int capacity = int_max(id + 1, int_max(1024, 2 * t->capacity));
        token_entry *entries = realloc(t->entries, (size_t)capacity * sizeof *entries);
        if (!entries) return err_make(ERR_NOMEM, "%s: no memory for %d tokens", where, capacity);
        memset(entries + t->capacity, 0, (size_t)(capacity - t->capacity) * sizeof *entries);
        t->entries = entries;
        t->capacity = capacity;
    }
    t->size = int_max(t->size, id + 1);
    return err_none();
}

/* Gives id its bytes. */
static err set_bytes(tokenizer *t, const char *where, int32_t id, const char *bytes,
                     size_t length) {
    TRY(reach(t, where, id));
    if (t->bytes.count + length > UINT32_MAX) return err_make(ERR_RANGE, "%s: too large", where);
    t->entries[id].start = (uint32_t)t->bytes.count;
    t->entries[id].length = (uint32_t)length;
    t->entries[id].flags |= TOKEN_IS_PRESENT;
    return text_buffer_add(&t->bytes, bytes, length);
}

/* ---- added tokens ---- */

/* Matching happens on text after NFC for these, so their own text is compared in that form. */
static err add_normalized(tokenizer *t, const char *content, size_t length, added_token token) {
    text_buffer composed = {0};
    bool changed = false;
    err e = t->nfc ? text_nfc(content, length, &composed, &changed) : err_none();
    if (!e.code) {
        e = added_add(&t->normalized, changed ? composed.data : content,
                      changed ? composed.count : length, token);
    }
    text_buffer_free(&composed);
    return e;
}

static err load_added_token(tokenizer *t, const char *where, const json_t *spec) {
    const char *content = NULL;
    int64_t id;
    bool special, normalized;
    added_token token = {0};
    TRY(json_get_string(spec, where, "content", NULL, &content));
    TRY(json_get_int(spec, where, "id", (json_range){0, TOKEN_IDS_MAX - 1, -1}, &id));
    TRY(json_get_bool(spec, where, "special", false, &special));
    TRY(json_get_bool(spec, where, "normalized", !special, &normalized));
    TRY(json_get_bool(spec, where, "lstrip", false, &token.left_strip));
    TRY(json_get_bool(spec, where, "rstrip", false, &token.right_strip));
    TRY(json_get_bool(spec, where, "single_word", false, &token.single_word));
    if (!content || id < 0) {
        return err_make(ERR_CORRUPT, "%s: %s is missing", where, content ? "id" : "content");
    }
    size_t length = strlen(content);
    if (length == 0 || length > ADDED_BYTES_MAX) {
        return err_make(ERR_RANGE, "%s: content of %zu bytes, expected 1 to %d", where, length,
                        ADDED_BYTES_MAX);
    }
    token.id = (int32_t)id;
    TRY(reach(t, where, token.id));
    if (t->entries[id].flags & TOKEN_IS_ADDED) {
        return err_make(ERR_CORRUPT, "%s: token id %d is used twice", where, token.id);
    }
    TRY(set_bytes(t, where, token.id, content, length));
    t->entries[id].flags |= (uint8_t)(TOKEN_IS_ADDED | (special ? TOKEN_IS_SPECIAL : 0));
    if (normalized) return add_normalized(t, content, length, token);
    return added_add(&t->plain, content, length, token);
}

static err load_added(tokenizer *t, const char *name, const json_t *list) {
    if (!list || json_is_null(list)) return err_none();
    if (!json_is_array(list)) {
        return err_make(ERR_CORRUPT, "%s: added_tokens: expected a list, found %s", name,
                        json_kind(list));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        char where[300];
        snprintf(where, sizeof where, "%.200s: added_tokens[%zu]", name, i);
        const json_t *spec = json_array_get(list, i);
        if (!json_is_object(spec)) {
            return err_make(ERR_CORRUPT, "%s: expected an object, found %s", where,
                            json_kind(spec));
        }
        TRY(load_added_token(t, where, spec));
    }
    return err_none();
}

/* ---- model.vocab ---- */

/* The id of an added token that is spelled like this vocabulary entry, -1 when there is none. */
static int32_t added_id(const tokenizer *t, const text_buffer *spelling) {
    const added_token *same = added_find(&t->plain, spelling->data, spelling->count);
    if (!same) same = added_find(&t->normalized, spelling->data, spelling->count);
    return same ? same->id : -1;
}

/* One entry. An added token that is also in the vocabulary must have the same id in both. */
static err load_vocab_entry(tokenizer *t, const char *name, const alphabet *a, text_buffer *token,
                            int32_t id) {
    char where[300];
    snprintf(where, sizeof where, "%.200s: model.vocab", name);
    TRY(reach(t, where, id));
    int32_t added = added_id(t, token);
    if (added >= 0 && added != id) {
        return err_make(ERR_CORRUPT, "%s: \"%.*s\" has id %d, but %d in added_tokens", where,
                        SHOW(token), id, added);
    }
    token_entry *e = &t->entries[id];
    if (e->flags & (added < 0 ? TOKEN_IS_PRESENT : TOKEN_IS_IN_VOCAB)) {
        return err_make(ERR_CORRUPT, "%s: id %d is used twice, the second time by \"%.*s\"", where,
                        id, SHOW(token));
    }
    e->flags |= TOKEN_IS_IN_VOCAB;
    bool literal = !to_bytes(a, token);
    if (!literal && token->count == 1) t->rules.byte_ids[(unsigned char)token->data[0]] = id;
    if (added >= 0) return err_none();
    if (literal) e->flags |= TOKEN_IS_LITERAL;
    return set_bytes(t, where, id, token->data, token->count);
}

#define ENCODABLE (TOKEN_IS_PRESENT | TOKEN_IS_IN_VOCAB)

/* Makes the table from bytes to ids; a token that is there twice is refused. */
static err index_vocab(tokenizer *t, const char *name) {
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)t->size) n_slots *= 2;
    t->slots = calloc(n_slots, sizeof *t->slots);
    if (!t->slots) return err_make(ERR_NOMEM, "%s: no memory for %d tokens", name, t->size);
    t->slot_mask = (uint32_t)(n_slots - 1);
    for (int32_t id = 0; id < t->size; id++) {
        const token_entry *e = &t->entries[id];
        if (e->flags != ENCODABLE || e->length == 0) continue;
        uint32_t slot = tokenizer_slot(t, t->bytes.data + e->start, e->length);
        if (t->slots[slot]) {
            return err_make(ERR_CORRUPT, "%s: model.vocab: tokens %d and %d are the same", name,
                            t->slots[slot] - 1, id);
        }
        t->slots[slot] = id + 1;
    }
    return err_none();
}

static err check_bytes(const tokenizer *t, const char *name) {
    for (int byte = 0; byte < 256; byte++) {
        if (t->rules.byte_ids[byte] >= 0) continue;
        return err_make(ERR_UNSUPPORTED,
                        "%s: model.vocab has no token for byte 0x%02x: only byte-level tokenizers "
                        "with all 256 bytes are supported",
                        name, byte);
    }
    return err_none();
}

static err load_vocab(tokenizer *t, json_reader *r, const alphabet *a, text_buffer *token) {
    for (int byte = 0; byte < 256; byte++) t->rules.byte_ids[byte] = -1;
    TRY(json_reader_expect(r, '{'));
    for (bool first = true;; first = false) {
        bool more;
        int32_t id;
        TRY(json_reader_more(r, '}', first, &more));
        if (!more) break;
        TRY(json_reader_string(r, token));
        TRY(json_reader_expect(r, ':'));
        TRY(json_reader_id(r, &id));
        TRY(load_vocab_entry(t, r->name, a, token, id));
    }
    TRY(index_vocab(t, r->name));
    return check_bytes(t, r->name);
}

/* ---- model.merges ---- */

/* "left right" or ["left", "right"], spelled in the byte alphabet, into the two parts. */
static err read_merge(json_reader *r, text_buffer *left, text_buffer *right) {
    if (json_reader_peek(r) == '[') {
        TRY(json_reader_expect(r, '['));
        TRY(json_reader_string(r, left));
        TRY(json_reader_expect(r, ','));
        TRY(json_reader_string(r, right));
        return json_reader_expect(r, ']');
    }
    TRY(json_reader_string(r, left));
    char *space = left->count ? memchr(left->data, ' ', left->count) : NULL;
    if (!space || memchr(space + 1, ' ', left->count - (size_t)(space + 1 - left->data))) {
        return err_make(ERR_CORRUPT, "%s: model.merges: \"%.*s\" is not two tokens", r->name,
                        SHOW(left));
    }
    right->count = 0;
    TRY(text_buffer_add(right, space + 1, left->count - (size_t)(space + 1 - left->data)));
    left->count = (size_t)(space - left->data);
    return err_none();
}

/* A token of a merge, its spelling replaced by its bytes. *id is -1 for an added token: such rules
 * are left out, because text must never merge into markup. */
static err merge_token(const tokenizer *t, const json_reader *r, const alphabet *a,
                       text_buffer *token, int32_t *id) {
    int32_t added = token->count ? added_id(t, token) : -1;
    bool spelled = to_bytes(a, token) && token->count > 0;
    *id = -1;
    if (spelled && token->count == 1) {
        *id = t->rules.byte_ids[(unsigned char)token->data[0]];
    } else if (spelled) {
        *id = tokenizer_lookup(t, token->data, token->count);
    }
    if (*id >= 0 || added >= 0) return err_none();
    return err_make(ERR_CORRUPT, "%s: model.merges: \"%.*s\" is not in model.vocab", r->name,
                    SHOW(token));
}

/* parts: left, right, and the two together. */
static err load_merge(tokenizer *t, json_reader *r, const alphabet *a, text_buffer parts[3]) {
    bpe_rule rule;
    TRY(read_merge(r, &parts[0], &parts[1]));
    parts[2].count = 0;
    TRY(text_buffer_add(&parts[2], parts[0].data, parts[0].count));
    TRY(text_buffer_add(&parts[2], parts[1].data, parts[1].count));
    TRY(merge_token(t, r, a, &parts[0], &rule.left));
    TRY(merge_token(t, r, a, &parts[1], &rule.right));
    TRY(merge_token(t, r, a, &parts[2], &rule.result));
    if (rule.left < 0 || rule.right < 0 || rule.result < 0) return err_none();
    return bpe_add_rule(&t->rules, rule);
}

static err load_merges(tokenizer *t, json_reader *r, const alphabet *a) {
    text_buffer parts[3] = {{0}, {0}, {0}};
    err e = json_reader_expect(r, '[');
    bool more = true;
    for (bool first = true; !e.code; first = false) {
        e = json_reader_more(r, ']', first, &more);
        if (e.code || !more) break;
        e = load_merge(t, r, a, parts);
    }
    text_buffer_free(&parts[0]);
    text_buffer_free(&parts[1]);
    text_buffer_free(&parts[2]);
    if (!e.code) e = bpe_build(&t->rules);
    return e;
}

/* ---- the rest ---- */

static err load_normalizer(tokenizer *t, const char *where, const json_t *spec, int depth) {
    if (!spec || json_is_null(spec)) return err_none();
    const char *type = NULL;
    if (!json_is_object(spec)) {
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", where, json_kind(spec));
    }
    TRY(json_get_string(spec, where, "type", "(none)", &type));
    if (strcmp(type, "NFC") == 0) {
        t->nfc = true;
        return err_none();
    }
    const json_t *members = json_object_get(spec, "normalizers");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(members) || depth > 4) {
        return err_make(ERR_UNSUPPORTED, "%s: type \"%s\" is not supported (only NFC is)", where,
                        type);
    }
    for (size_t i = 0; i < json_array_size(members); i++) {
        TRY(load_normalizer(t, where, json_array_get(members, i), depth + 1));
    }
    return err_none();
}

/* What would change the merging, and what we do not do. */
static err check_model(tokenizer *t, const char *where, const json_t *model) {
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = NULL;
    double dropout;
    bool fallback;
    if (!json_is_object(model)) {
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", where, json_kind(model));
    }
    TRY(json_get_string(model, where, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0) {
        return err_make(ERR_UNSUPPORTED, "%s: type \"%s\" is not supported (only BPE is)", where,
                        type);
    }
    for (int i = 0; i < 2; i++) {
        const char *affix = NULL;
        TRY(json_get_string(model, where, AFFIXES[i], "", &affix));
        if (*affix) {
            return err_make(ERR_UNSUPPORTED, "%s: %s \"%s\" is not supported", where, AFFIXES[i],
                            affix);
        }
    }
    TRY(json_get_bool(model, where, "byte_fallback", false, &fallback));
    if (fallback) {
        return err_make(ERR_UNSUPPORTED,
                        "%s: byte_fallback (a SentencePiece-like tokenizer) is not supported, only "
                        "byte-level BPE is",
                        where);
    }
    TRY(json_get_number(model, where, "dropout", 0, &dropout));
    if (dropout > 0) return err_make(ERR_UNSUPPORTED, "%s: dropout is not supported", where);
    return json_get_bool(model, where, "ignore_merges", false, &t->ignore_merges);
}

static err missing_part_of_model(const char *where, const json_t *model, const char *key,
                                 const char *expected) {
    const json_t *value = json_object_get(model, key);
    if (!value) return err_make(ERR_CORRUPT, "%s: %s is missing", where, key);
    return err_make(ERR_CORRUPT, "%s: %s: expected %s, found %s", where, key, expected,
                    json_kind(value));
}

static err load(tokenizer *t, const char *name, json_cut *cut) {
    char where[300];
    alphabet a;
    text_buffer token = {0};
    const json_t *model = json_object_get(cut->rest, "model");
    if (!json_is_object(cut->rest)) {
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", name,
                        json_kind(cut->rest));
    }
    snprintf(where, sizeof where, "%.200s: model", name);
    TRY(check_model(t, where, model));
    snprintf(where, sizeof where, "%.200s: normalizer", name);
    TRY(load_normalizer(t, where, json_object_get(cut->rest, "normalizer"), 0));
    TRY(pretokenizer_parse(name, json_object_get(cut->rest, "pre_tokenizer"), &t->split));
    snprintf(where, sizeof where, "%.200s: model", name);
    if (!cut->vocab.at) return missing_part_of_model(where, model, "vocab", "an object");
    if (!cut->merges.at) return missing_part_of_model(where, model, "merges", "a list");
    TRY(load_added(t, name, json_object_get(cut->rest, "added_tokens")));
    alphabet_init(&a);
    err e = load_vocab(t, &cut->vocab, &a, &token);
    text_buffer_free(&token);
    TRY(e);
    return load_merges(t, &cut->merges, &a);
}

err tokenizer_parse(const char *name, const char *json, size_t length, tokenizer **out) {
    *out = NULL;
    json_cut cut;
    if (length > FILE_BYTES_MAX) {
        return err_make(ERR_RANGE, "%s: %zu bytes are too many for a tokenizer", name, length);
    }
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return err_make(ERR_NOMEM, "%s: no memory", name);
    err e = json_cut_open(name, json, length, &cut);
    if (!e.code) e = load(t, name, &cut);
    json_decref(cut.rest);
    if (e.code) {
        tokenizer_close(t);
        return e;
    }
    *out = t;
    return e;
}

err tokenizer_open(const char *dir, tokenizer **out) {
    *out = NULL;
    char *path = NULL, *json = NULL;
    size_t length = 0;
    if (asprintf(&path, "%s/tokenizer.json", dir) < 0) {
        return err_make(ERR_NOMEM, "%s: no memory", dir);
    }
    err e = json_read_text(path, FILE_BYTES_MAX, &json, &length);
    if (!e.code) e = tokenizer_parse(path, json, length, out);
    free(json);
    free(path);
    return e;
}
