/* chat_memory.c: remembered replies as bytes, so that they outlive the process.
 *
 *     header | entry | ids, padded to 8 | entry | ids | ...        oldest first
 *
 * In the order of this machine; whoever keeps the bytes answers for their being those that were
 * given out (the prompt cache has a checksum). What is read is checked all the same: counts against
 * the bytes there are, ids against the vocabulary. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "text/chat_impl.h"

#define MAGIC 0x3179726f6d656d66u /* "fmemory1" */

typedef struct memory_header {
    uint64_t magic, entries;
} memory_header;

typedef struct memory_entry {
    uint64_t low, high, skeleton_length, skeleton_hash, count;
} memory_entry;

static size_t ids_bytes(size_t count) { return round_up(count * sizeof(int32_t), 8); }
static size_t entry_bytes(const chat_entry *e) {
    return sizeof(memory_entry) + ids_bytes(e->count);
}

static int newest_first(const void *a, const void *b) {
    const chat_entry *x = a, *y = b;
    return x->used > y->used ? -1 : x->used < y->used;
}

static uint8_t *put(uint8_t *to, const chat_entry *e) {
    const memory_entry m = {e->key.low, e->key.high, e->skeleton_length, e->skeleton_hash,
                            e->count};
    memcpy(to, &m, sizeof m);
    to += sizeof m;
    memset(to, 0, ids_bytes(e->count));
    memcpy(to, e->ids, e->count * sizeof *e->ids);
    return to + ids_bytes(e->count);
}

err chat_memory_save(chat *c, size_t most, uint8_t **out, size_t *bytes) {
    *out = NULL;
    *bytes = 0;
    pthread_mutex_lock(&c->lock);
    qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, newest_first);
    size_t total = sizeof(memory_header);
    int n = 0;
    for (; n < c->n_entries && total + entry_bytes(&c->entries[n]) <= most; n++)
        total += entry_bytes(&c->entries[n]);
    uint8_t *to = malloc(total);
    *out = to;
    if (to) {
        const memory_header h = {MAGIC, (uint64_t)n};
        memcpy(to, &h, sizeof h);
        to += sizeof h;
        for (int i = n; i-- > 0;) to = put(to, &c->entries[i]);
        *bytes = total;
    }
    pthread_mutex_unlock(&c->lock);
    return *out ? err_none() : err_make(ERR_NOMEM, "no memory to save replies");
}

static err bad(void) { return err_make(ERR_CORRUPT, "saved replies contradict themselves"); }

/* The entry at bytes[*at ..); *at moves behind it. */
static err take(chat *c, int vocab, const uint8_t *bytes, size_t n, size_t *at) {
    memory_entry m;
    if (n - *at < sizeof m) return bad();
    memcpy(&m, bytes + *at, sizeof m);
    *at += sizeof m;
    if (m.count > (n - *at) / sizeof(int32_t) || ids_bytes(m.count) > n - *at) return bad();
    chat_entry e = {.key = {m.low, m.high},
                    .count = m.count,
                    .skeleton_length = m.skeleton_length,
                    .skeleton_hash = m.skeleton_hash};
    e.ids = malloc((e.count + 1) * sizeof *e.ids);
    if (!e.ids) return err_make(ERR_NOMEM, "no memory for saved replies");
    memcpy(e.ids, bytes + *at, e.count * sizeof *e.ids);
    *at += ids_bytes(e.count);
    bool good = true;
    for (size_t i = 0; i < e.count; i++) good = good && e.ids[i] >= 0 && e.ids[i] < vocab;
    if (good) chat_keep_entry(c, &e);
    free(e.ids); /* unless it was kept */
    return good ? err_none() : bad();
}

err chat_memory_load(chat *c, int vocab, const uint8_t *bytes, size_t n) {
    memory_header h;
    if (n < sizeof h) return bad();
    memcpy(&h, bytes, sizeof h);
    if (h.magic != MAGIC || h.entries > CHAT_ENTRIES_MAX) return bad();
    size_t at = sizeof h;
    for (uint64_t i = 0; i < h.entries; i++) TRY(take(c, vocab, bytes, n, &at));
    return at == n ? err_none() : bad();
}
