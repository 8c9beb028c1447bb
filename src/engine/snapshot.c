/* snapshot.c: a session as bytes, and back.
 *
 *     blob_header | tokens [length] i32 | logits [vocab] f32 | KV of [0, length) | recurrent state
 *
 * The header carries the engine's fingerprint (model, options, build) and a checksum over all that
 * follows, so that a blob of something else, or a damaged one, is refused before it is used. */
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "engine/engine_impl.h"

#define BLOB_MAGIC 0x66736e61u /* "ansf" */

typedef struct blob_header {
    uint32_t magic, has_logits;
    uint64_t fingerprint, checksum;
    uint64_t length; /* tokens */
    uint64_t bytes;  /* of the whole blob */
} blob_header;

typedef struct blob_parts {
    size_t tokens, logits, kv, recurrent, total; /* bytes */
} blob_parts;

static blob_parts parts_of(const fm_session *s, size_t length) {
    ops *o = s->engine->ops;
    blob_parts p = {.tokens = length * sizeof(int32_t),
                    .logits = (size_t)s->engine->files.config.vocab * sizeof(float),
                    .kv = o->table->kv_bytes(o, (int)length),
                    .recurrent = o->table->recurrent_bytes(o)};
    p.total = sizeof(blob_header) + p.tokens + p.logits + p.kv + p.recurrent;
    return p;
}

static err save(const fm_session *s, const blob_parts *p, uint8_t *out) {
    ops *o = s->engine->ops;
    blob_header h = {.magic = BLOB_MAGIC,
                     .has_logits = s->has_logits,
                     .fingerprint = s->engine->fingerprint,
                     .length = (uint64_t)s->length,
                     .bytes = p->total};
    uint8_t *at = out + sizeof h;
    if (s->has_logits && !fm_session_logits(s)) return err_make(ERR_IO, "no logits");
    memcpy(at, s->tokens, p->tokens);
    at += p->tokens;
    memcpy(at, s->logits, p->logits);
    at += p->logits;
    TRY(o->table->kv_get(o, s->state, s->length, at));
    TRY(o->table->recurrent_get(o, s->state, at + p->kv));
    h.checksum = XXH3_64bits(out + sizeof h, p->total - sizeof h);
    memcpy(out, &h, sizeof h);
    return err_none();
}

size_t fm_session_save(const fm_session *s, void *out, size_t capacity) {
    blob_parts p = parts_of(s, (size_t)s->length);
    if (capacity < p.total) return p.total;
    err failed = session_revive((fm_session *)(uintptr_t)s);
    if (!failed.code) failed = save(s, &p, out);
    return failed.code ? 0 : p.total;
}

static err check(const fm_session *s, const blob_header *h, const uint8_t *blob, size_t length) {
    const fm_engine *e = s->engine;
    if (h->magic != BLOB_MAGIC) return err_make(ERR_CORRUPT, "this is no saved session");
    if (h->fingerprint != e->fingerprint)
        return err_make(ERR_CORRUPT,
                        "the saved session belongs to another model, option set or version");
    if (h->length > (uint64_t)e->plan.face.context)
        return err_make(ERR_CORRUPT, "the saved session has %llu tokens, the context window is %d",
                        (unsigned long long)h->length, e->plan.face.context);
    blob_parts p = parts_of(s, (size_t)h->length);
    if (h->bytes != length || p.total != length)
        return err_make(ERR_CORRUPT, "the saved session has %zu bytes, expected %zu", length,
                        p.total);
    if (XXH3_64bits(blob + sizeof *h, length - sizeof *h) != h->checksum)
        return err_make(ERR_CORRUPT, "the saved session is damaged: its checksum differs");
    return err_none();
}

static err restore(fm_session *s, const uint8_t *blob, size_t length) {
    ops *o = s->engine->ops;
    blob_header h;
    if (length < sizeof h) return err_make(ERR_CORRUPT, "the saved session is cut off");
    memcpy(&h, blob, sizeof h);
    TRY(check(s, &h, blob, length));
    blob_parts p = parts_of(s, (size_t)h.length);
    const uint8_t *at = blob + sizeof h;
    memcpy(s->tokens, at, p.tokens);
    at += p.tokens;
    memcpy(s->logits, at, p.logits);
    at += p.logits;
    TRY(o->table->kv_put(o, s->state, (int)h.length, at));
    TRY(o->table->recurrent_put(o, s->state, at + p.kv));
    s->length = (int)h.length;
    s->has_logits = h.has_logits != 0;
    s->top.n = 0;
    return session_remember(s, false);
}

fm_error fm_session_restore(fm_session *s, const void *blob, size_t length) {
    fm_session_clear(s);
    err failed = restore(s, blob, length);
    if (failed.code) fm_session_clear(s);
    return fm_error_from(&failed);
}
