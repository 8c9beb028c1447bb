/* bpe.c: see bpe.h. */
#include "text/bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define NO_RANK UINT32_MAX
#define NOWHERE UINT32_MAX

err bpe_add_rule(bpe *b, bpe_rule rule) {
    if (b->n_rules == b->rules_capacity) {
        uint32_t capacity = b->rules_capacity ? b->rules_capacity * 2 : 1024;
        if (capacity > 1u << 28) return err_make(ERR_RANGE, "more than %u merges", 1u << 28);
        bpe_rule *rules = realloc(b->rules, capacity * sizeof *rules);
        if (!rules) return err_make(ERR_NOMEM, "no memory for %u merges", capacity);
        b->rules = rules;
        b->rules_capacity = capacity;
    }
    b->rules[b->n_rules++] = rule;
    return err_none();
}

static uint64_t pair_hash(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

/* The slot of the pair, or the empty one where it would go. */
static uint32_t find_slot(const bpe *b, int32_t left, int32_t right) {
    uint64_t h = pair_hash(left, right);
    uint32_t at = (uint32_t)(h >> 32) & b->slot_mask, tag = (uint32_t)h;
    for (;; at = (at + 1) & b->slot_mask) {
        uint64_t slot = b->slots[at];
        if (slot == 0) return at;
        if ((uint32_t)(slot >> 32) != tag) continue;
        const bpe_rule *r = &b->rules[(uint32_t)slot - 1];
        if (r->left == left && r->right == right) return at;
    }
}

err bpe_build(bpe *b) {
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)b->n_rules) n_slots *= 2;
    b->slots = calloc(n_slots, sizeof *b->slots);
    if (!b->slots) return err_make(ERR_NOMEM, "no memory for %u merges", b->n_rules);
    b->slot_mask = (uint32_t)(n_slots - 1);
    for (uint32_t i = 0; i < b->n_rules; i++) {
        const bpe_rule *r = &b->rules[i];
        uint64_t tag = (uint32_t)pair_hash(r->left, r->right);
        b->slots[find_slot(b, r->left, r->right)] = tag << 32 | (i + 1);
    }
    return err_none();
}

void bpe_free(bpe *b) {
    free(b->rules);
    free(b->slots);
    *b = (bpe){0};
}

size_t bpe_memory(const bpe *b) {
    size_t slots = b->slots ? ((size_t)b->slot_mask + 1) * sizeof *b->slots : 0;
    return b->rules_capacity * sizeof *b->rules + slots;
}

static uint32_t pair_rank(const bpe *b, int32_t left, int32_t right) {
    uint64_t slot = b->slots[find_slot(b, left, right)];
    return slot == 0 ? NO_RANK : (uint32_t)slot - 1;
}

void bpe_scratch_free(bpe_scratch *s) {
    free(s->memory);
    *s = (bpe_scratch){0};
}

/* One piece at work. Symbol i begins at byte i; a symbol that was merged into its left neighbour is
 * dead, and its rank is NO_RANK. */
typedef struct merging {
    const bpe *b;
    uint64_t *heap; /* rank << 32 | symbol, smallest first */
    size_t heap_count;
    int32_t *id;
    uint32_t *next, *previous; /* living neighbours, NOWHERE at the ends */
    uint32_t *rank; /* of the pair that begins here; a heap entry that differs is stale */
} merging;

#define BYTES_PER_SYMBOL (2 * sizeof(uint64_t) + sizeof(int32_t) + 3 * sizeof(uint32_t))

static err merging_open(merging *m, const bpe *b, size_t length, bpe_scratch *s) {
    if (length >= NOWHERE) {
        return err_make(ERR_RANGE, "a single word of %zu bytes is too long", length);
    }
    if (length > s->capacity) {
        size_t capacity = length + length / 2 + 256, bytes;
        bpe_scratch_free(s);
        s->memory = size_mul(capacity, BYTES_PER_SYMBOL, &bytes) ? malloc(bytes) : NULL;
        if (!s->memory) {
            return err_make(ERR_NOMEM, "no memory to tokenize a word of %zu bytes", length);
        }
        s->capacity = capacity;
    }
    size_t n = s->capacity;
    m->b = b;
    m->heap_count = 0;
    m->heap = s->memory; /* at most 2 n entries: n - 1 at first, at most 2 for each of n - 1 merges,
                            which takes one away */
    m->id = (int32_t *)(m->heap + 2 * n);
    m->next = (uint32_t *)(m->id + n);
    m->previous = m->next + n;
    m->rank = m->previous + n;
    return err_none();
}

static void heap_push(merging *m, uint64_t entry) {
    size_t at = m->heap_count++;
    while (at > 0 && m->heap[(at - 1) / 2] > entry) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = entry;
}

static uint64_t heap_pop(merging *m) {
    uint64_t top = m->heap[0], entry = m->heap[--m->heap_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < m->heap_count) {
        if (child + 1 < m->heap_count && m->heap[child + 1] < m->heap[child]) child++;
        if (m->heap[child] >= entry) break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = entry;
    return top;
}

/* Ranks the pair that begins at symbol i and makes it a candidate. */
static void consider(merging *m, uint32_t i) {
    uint32_t next = m->next[i];
    m->rank[i] = next == NOWHERE ? NO_RANK : pair_rank(m->b, m->id[i], m->id[next]);
    if (m->rank[i] != NO_RANK) heap_push(m, (uint64_t)m->rank[i] << 32 | i);
}

/* Symbol i swallows its right neighbour. */
static void merge(merging *m, uint32_t i, uint32_t rank) {
    uint32_t gone = m->next[i];
    m->id[i] = m->b->rules[rank].result;
    m->next[i] = m->next[gone];
    m->rank[gone] = NO_RANK;
    if (m->next[i] != NOWHERE) m->previous[m->next[i]] = i;
    consider(m, i);
    if (m->previous[i] != NOWHERE) consider(m, m->previous[i]);
}

err bpe_encode(const bpe *b, const char *piece, size_t length, bpe_scratch *s, token_list *out) {
    merging m = {0};
    if (length == 0) return err_none();
    TRY(merging_open(&m, b, length, s));
    uint32_t n = (uint32_t)length;
    for (uint32_t i = 0; i < n; i++) {
        m.id[i] = b->byte_ids[(unsigned char)piece[i]];
        m.next[i] = i + 1 < n ? i + 1 : NOWHERE;
        m.previous[i] = i > 0 ? i - 1 : NOWHERE;
    }
    for (uint32_t i = 0; i < n; i++) consider(&m, i);
    while (m.heap_count > 0) {
        uint64_t entry = heap_pop(&m);
        uint32_t at = (uint32_t)entry, rank = (uint32_t)(entry >> 32);
        if (m.rank[at] == rank) merge(&m, at, rank);
    }
    for (uint32_t i = 0; i != NOWHERE; i = m.next[i]) TRY(token_list_push(out, m.id[i]));
    return err_none();
}
