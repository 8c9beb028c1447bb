/* prompt_cache_api.c: sessions and the folder of saved prompts (prompt_cache.h).
 *
 * A session asks the folder when it does not know much of the tokens by itself, and offers what it
 * has computed whenever it remembers a place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine/prompt_cache.h"

/* So many tokens more than the session knows make reading a file worth it. */
#define WORTH 128

static err open_in(fm_engine *e, const fm_prompt_cache_options *o, const char *dir) {
    const prompt_cache_options p = {.dir = dir,
                                    .fingerprint = e->fingerprint,
                                    .bytes_max = o->bytes ? o->bytes : (uint64_t)4 << 30,
                                    .entries_max = o->entries > 0 ? o->entries : 16,
                                    .memory_max = e->plan.blob_bytes,
                                    .min_tokens = (size_t)(o->min_tokens > 0 ? o->min_tokens : 256),
                                    .step = (size_t)(o->step > 0 ? o->step : 2048),
                                    .log = o->log,
                                    .log_ctx = o->log_ctx};
    return prompt_cache_open(&p, &e->prompts);
}

static err prompts_open(fm_engine *e, const fm_prompt_cache_options *o) {
    char dir[4096];
    if (e->prompts) return err_make(ERR_BUSY, "the prompt cache is open already");
    if (!e->plan.blob_bytes)
        return err_make(ERR_BUDGET, "no memory was set aside for saving prompts (options."
                                    "keep_prompts), or the memory limit has no room for it");
    if (snprintf(dir, sizeof dir, "%s/flashchat/prompt_cache", e->dir) >= (int)sizeof dir)
        return err_make(ERR_RANGE, "%s: the path is too long", e->dir);
    err first = open_in(e, o, o->dir ? o->dir : dir);
    if (!first.code || !o->fallback_dir) return first;
    return open_in(e, o, o->fallback_dir);
}

fm_error fm_prompt_cache_open(fm_engine *e, const fm_prompt_cache_options *o) {
    return FM_WRAP(prompts_open(e, o));
}

void fm_prompt_cache_flush(fm_engine *e) {
    if (e->prompts) prompt_cache_flush(e->prompts);
}

/* ---- sessions ---- */

static void offer(fm_session *s, prompt_kind kind) {
    prompt_cache *c = s->engine->prompts;
    if (!c || !s->has_logits || s->stale) return;
    size_t n = (size_t)s->length, bytes = fm_session_save(s, NULL, 0);
    if (!prompt_cache_wants(c, s->tokens, n, bytes, kind)) return;
    uint8_t *blob = malloc(bytes);
    if (!blob || fm_session_save(s, blob, bytes) != bytes) {
        free(blob);
        return;
    }
    prompt_cache_store(c, s->tokens, n, blob, bytes, kind);
}

void session_offer(fm_session *s) { offer(s, PROMPT_BORDER); }

void fm_session_keep(fm_session *s) {
    fm_engine *e = s->engine;
    offer(s, PROMPT_ANSWER);
    if (e->prompts && e->kept) e->kept(e->kept_ctx);
}

/* ---- a note ---- */

static const int32_t note_key[1] = {-1}; /* no token of any model */

void engine_note_put(fm_engine *e, uint8_t *bytes, size_t n) {
    if (e->prompts && prompt_cache_wants(e->prompts, note_key, 1, n, PROMPT_NOTE))
        prompt_cache_store(e->prompts, note_key, 1, bytes, n, PROMPT_NOTE);
    else
        free(bytes);
}

bool engine_note_get(fm_engine *e, const uint8_t **bytes, size_t *n) {
    return e->prompts && !prompt_cache_load(e->prompts, note_key, 1, bytes, n).code;
}

void engine_note_done(fm_engine *e, const char *bad) {
    if (bad) prompt_cache_bad(e->prompts, note_key, 1, bad);
    prompt_cache_done(e->prompts);
}

bool session_fetch(fm_session *s, const int32_t *tokens, size_t count, size_t known) {
    prompt_cache *c = s->engine->prompts;
    const uint8_t *blob;
    size_t bytes;
    if (!c) return false;
    size_t n = prompt_cache_find(c, tokens, count, known + WORTH);
    if (!n || prompt_cache_load(c, tokens, n, &blob, &bytes).code) return false;
    fm_error e = fm_session_restore(s, blob, bytes);
    prompt_cache_done(c);
    if (!e.code && ((size_t)s->length != n || memcmp(s->tokens, tokens, n * sizeof *tokens) != 0)) {
        fm_session_clear(s);
        e = FM_WRAP(err_make(ERR_CORRUPT, "holds other tokens than its name says"));
    }
    if (e.code == FM_ERR_CORRUPT) prompt_cache_bad(c, tokens, n, e.text); /* not a card's failure */
    return !e.code;
}
