/* chat_replay.c: remembers the tokens of finished turns and finds them again.
 *
 * Keys. A conversation of m messages has the hash of (template, tools, variables, message 0, ...
 * m-1), where an assistant message counts by its content and calls only: clients send it back
 * without reasoning, with other ids, with arguments spelled anew.
 *
 * Where the remembered part ends in a later text: the end token of the turn of message m-1, which
 * is the first one behind everything that came from that message (MARK_TAGGED).
 *
 * The skeleton of a text is what is no assistant's: bytes of assistant messages, white space, think
 * tags and the word "assistant" (a template writes it itself, or takes it from the message's role)
 * are left out. The later text must begin with the skeleton of the earlier prompt; so a template
 * that rewrites its beginning is followed and not the memory. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "text/chat_impl.h"
#include "text/text_buf.h"

/* ---- keys ---- */

static int feed(const char *bytes, size_t length, void *state) {
    return XXH3_128bits_update(state, bytes, length) == XXH_OK ? 0 : -1;
}

static bool hash_json(XXH3_state_t *state, const json_t *value) {
    const char border = value ? '\1' : '\2';
    const size_t flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY;
    return feed(&border, 1, state) == 0 &&
           (!value || json_dump_callback(value, feed, state, flags) == 0);
}

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* The text of a content, without white space around it. */
static bool hash_content(XXH3_state_t *state, const json_t *content) {
    size_t i;
    json_t *part;
    if (json_is_string(content)) {
        const char *text = json_string_value(content);
        size_t from = 0, to = json_string_length(content);
        while (from < to && is_blank(text[from])) from++;
        while (to > from && is_blank(text[to - 1])) to--;
        return feed(text + from, to - from, state) == 0;
    }
    json_array_foreach(content, i, part) {
        const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
        if (!json_is_string(text)) return hash_json(state, content);
        if (!hash_content(state, text)) return false;
    }
    return true;
}

static bool hash_call(XXH3_state_t *state, const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    if (!function) function = call;
    const json_t *arguments = json_object_get(function, "arguments");
    json_t *parsed = NULL;
    if (json_is_string(arguments)) {
        parsed = json_loadb(json_string_value(arguments), json_string_length(arguments),
                            JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    }
    bool good = hash_json(state, json_object_get(function, "name")) &&
                hash_json(state, parsed ? parsed : arguments);
    json_decref(parsed);
    return good;
}

static bool hash_message(XXH3_state_t *state, const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    if (!role || strcmp(role, "assistant") != 0) return hash_json(state, message);
    size_t i;
    json_t *call;
    if (feed("assistant", 9, state) != 0) return false;
    if (!hash_content(state, json_object_get(message, "content"))) return false;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        if (feed("\3", 1, state) != 0 || !hash_call(state, call)) return false;
    }
    return feed("\4", 1, state) == 0;
}

static bool begin_hash(const chat *c, const chat_request *r, XXH3_state_t *state) {
    const char which = chat_template_for(c, r) == &c->tools ? 't' : 'p';
    const json_t *tools = json_array_size(r->tools) ? r->tools : NULL;
    return XXH3_128bits_reset(state) == XXH_OK && feed(&which, 1, state) == 0 &&
           hash_json(state, tools) && hash_json(state, json_is_null(r->kwargs) ? NULL : r->kwargs);
}

static chat_hash hash_now(const XXH3_state_t *state) {
    XXH128_hash_t h = XXH3_128bits_digest(state);
    return (chat_hash){h.low64, h.high64};
}

/* ---- skeletons ---- */

typedef struct skeleton {
    XXH3_state_t *state;
    size_t at, length; /* of the text, of the skeleton */
} skeleton;

/* Bytes at `at` that are left out; 0: this byte counts. */
static size_t left_out(const chat_prompt *p, size_t at) {
    static const char *const tags[] = {"<think>", "</think>", "assistant"};
    if (p->marks[at] >= MARK_ASSISTANT || is_blank(p->text[at])) return 1;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(tags[i]);
        if (n <= p->length - at && memcmp(p->text + at, tags[i], n) == 0 &&
            p->marks[at] == MARK_MARKUP) {
            return n;
        }
    }
    return 0;
}

/* Walks until the skeleton has `length` bytes or the text ends. */
static bool walk(const chat_prompt *p, skeleton *s, size_t length) {
    while (s->at < p->length && s->length < length) {
        size_t skip = left_out(p, s->at);
        if (skip) {
            s->at += skip;
            continue;
        }
        if (XXH3_64bits_update(s->state, p->text + s->at, 1) != XXH_OK) return false;
        s->at++;
        s->length++;
    }
    return true;
}

/* *hash of the first `length` bytes of the skeleton, and where in the text they end. */
static bool measure(const chat_prompt *p, size_t length, skeleton *s, uint64_t *hash) {
    *s = (skeleton){.state = XXH3_createState()};
    bool good = s->state && XXH3_64bits_reset(s->state) == XXH_OK && walk(p, s, length);
    *hash = good ? XXH3_64bits_digest(s->state) : 0;
    XXH3_freeState(s->state);
    s->state = NULL;
    return good;
}

/* ---- memory ---- */

static bool same_key(chat_hash a, chat_hash b) { return a.low == b.low && a.high == b.high; }

static chat_entry *find_entry(chat *c, chat_hash key) {
    for (int i = 0; i < c->n_entries; i++) {
        if (same_key(c->entries[i].key, key)) return &c->entries[i];
    }
    return NULL;
}

static void drop_entry(chat *c, chat_entry *e) {
    c->used_bytes -= e->count * sizeof *e->ids;
    free(e->ids);
    *e = c->entries[--c->n_entries];
}

static void make_room(chat *c, size_t bytes) {
    while (c->n_entries &&
           (c->n_entries == CHAT_ENTRIES_MAX || c->used_bytes + bytes > c->memory_bytes)) {
        chat_entry *oldest = &c->entries[0];
        for (int i = 1; i < c->n_entries; i++) {
            if (c->entries[i].used < oldest->used) oldest = &c->entries[i];
        }
        drop_entry(c, oldest);
    }
}

void chat_keep_entry(chat *c, chat_entry *e) {
    size_t bytes = e->count * sizeof *e->ids;
    pthread_mutex_lock(&c->lock);
    chat_entry *old = find_entry(c, e->key);
    if (old) drop_entry(c, old);
    make_room(c, bytes);
    if (bytes <= c->memory_bytes) {
        e->used = ++c->clock;
        c->entries[c->n_entries++] = *e;
        c->used_bytes += bytes;
        e->ids = NULL;
    }
    pthread_mutex_unlock(&c->lock);
}

static bool key_of(const chat *c, const chat_request *r, const json_t *message, chat_hash *key) {
    XXH3_state_t *state = XXH3_createState();
    bool good = state && begin_hash(c, r, state);
    for (size_t i = 0; good && i < json_array_size(r->messages); i++) {
        good = hash_message(state, json_array_get(r->messages, i));
    }
    good = good && hash_message(state, message);
    if (good) *key = hash_now(state);
    XXH3_freeState(state);
    return good;
}

static err remember(chat *c, const chat_prompt *p, chat_entry *e, const int32_t *ids) {
    skeleton s;
    e->ids = malloc((e->count + 1) * sizeof *e->ids);
    if (!e->ids || !measure(p, SIZE_MAX, &s, &e->skeleton_hash)) {
        free(e->ids);
        return err_make(ERR_NOMEM, "no memory to remember a reply");
    }
    e->skeleton_length = s.length;
    memcpy(e->ids, ids, e->count * sizeof *e->ids);
    chat_keep_entry(c, e);
    free(e->ids); /* unless it was kept */
    return err_none();
}

err chat_remember(chat *c, const chat_request *r, const chat_prompt *p, const json_t *message,
                  const int32_t *ids, size_t count) {
    chat_prompt own = {.text = NULL};
    chat_entry e = {.count = count};
    if (!key_of(c, r, message, &e.key)) return err_make(ERR_NOMEM, "no memory to remember a reply");
    err failed = p ? err_none() : chat_render_text(c, r, -1, &own);
    if (!failed.code) failed = remember(c, p ? p : &own, &e, ids);
    chat_prompt_free(&own);
    return failed;
}

/* ---- replay ---- */

/* Copies the entry's ids into out. */
static err copy_entry(chat *c, chat_hash key, chat_entry *out, bool *found) {
    err e = err_none();
    pthread_mutex_lock(&c->lock);
    chat_entry *entry = find_entry(c, key);
    *found = entry != NULL;
    if (entry) {
        *out = *entry;
        out->ids = malloc((entry->count + 1) * sizeof *out->ids);
        if (out->ids) memcpy(out->ids, entry->ids, entry->count * sizeof *out->ids);
        entry->used = ++c->clock;
        if (!out->ids) e = err_make(ERR_NOMEM, "no memory for a conversation");
    }
    pthread_mutex_unlock(&c->lock);
    return e;
}

/* The first end token at or after `at`, all in markup; its length, 0 when content comes first. */
static size_t next_stop(const chat *c, const chat_prompt *p, size_t *at) {
    for (; *at < p->length && p->marks[*at] == MARK_MARKUP; ++*at) {
        for (int i = 0; i < c->n_stops; i++) {
            size_t n;
            const char *bytes = tokenizer_bytes(c->tokens, c->stops[i], &n);
            if (bytes && n && n <= p->length - *at && memcmp(p->text + *at, bytes, n) == 0)
                return n;
        }
    }
    return 0;
}

/* Where in the later text the remembered timeline ends; false: it is not the same conversation. */
static bool find_end(const chat *c, const chat_prompt *p, const chat_entry *e, size_t *from) {
    skeleton s;
    uint64_t hash;
    if (!measure(p, e->skeleton_length, &s, &hash)) return false;
    if (s.length != e->skeleton_length || hash != e->skeleton_hash) return false;
    size_t at = s.at;
    for (size_t i = p->length; i > at; i--) {
        if (p->marks[i - 1] == MARK_TAGGED) at = i;
    }
    size_t n = next_stop(c, p, &at);
    if (!n) return false;
    bool stopped = e->count && chat_is_stop(c, e->ids[e->count - 1]);
    *from = stopped ? at + n : at;
    return true;
}

/* The longest beginning of the conversation that is remembered: its number of messages, 0 for none.
 * `below`: look for fewer messages than that. */
static err find_longest(chat *c, const chat_request *r, size_t below, chat_entry *out, size_t *m) {
    XXH3_state_t *state = XXH3_createState();
    err e = err_none();
    bool good = state && begin_hash(c, r, state);
    *m = 0;
    for (size_t i = 0; good && !e.code && i + 1 < below; i++) {
        const json_t *message = json_array_get(r->messages, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        good = hash_message(state, message);
        if (!good || !role || strcmp(role, "assistant") != 0) continue;
        chat_entry found;
        bool have;
        e = copy_entry(c, hash_now(state), &found, &have);
        if (e.code || !have) continue;
        free(out->ids);
        *out = found;
        *m = i + 1;
    }
    XXH3_freeState(state);
    return e;
}

err chat_replay(chat *c, const chat_request *r, chat_prompt *p, size_t *from) {
    enum { TRIES = 3 }; /* each one renders anew */
    size_t below = json_array_size(r->messages) + 1;
    *from = 0;
    for (int i = 0; i < TRIES && c->tokens && c->n_stops; i++) {
        chat_entry e = {.ids = NULL};
        size_t m;
        TRY(find_longest(c, r, below, &e, &m));
        if (!m) return err_none();
        err failed = chat_render_text(c, r, (int)m - 1, p);
        if (!failed.code && find_end(c, p, &e, from)) {
            p->tokens = (token_list){.ids = e.ids, .count = e.count, .capacity = e.count + 1};
            p->replayed = e.count;
            return err_none();
        }
        free(e.ids);
        TRY(failed);
        below = m;
    }
    return err_none();
}
