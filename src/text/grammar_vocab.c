/* grammar_vocab.c: the tokens of a model as a trie, and the automata that every grammar shares with
 * what each of their states allows.
 *
 *     "a" 5, "ab" 7, "b" 9     node  byte  end  token
 *                               0     -     4    -1       the root
 *                               1     a     3     5
 *                               2     b     3     7
 *                               3     b     4     9
 *
 * A JSON string goes on with nearly every token, so finding out costs a walk through all of the
 * trie (a millisecond for 150,000 tokens). Those walks are made once, here. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "text/grammar_impl.h"

#define DEPTH_MAX (TOKEN_BYTES_MAX + 1)

/* ---- the trie ---- */

typedef struct entry {
    const char *bytes;
    int32_t length, id;
} entry;

static int by_bytes(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, (size_t)int_min(x->length, y->length));
    if (order) return order;
    return x->length != y->length ? x->length - y->length : x->id - y->id;
}

static bool is_end(const grammar_vocab *v, int id) {
    for (int i = 0; i < v->n_ends; i++)
        if (v->ends[i] == id) return true;
    return false;
}

/* The ordinary tokens, sorted; *nodes: an upper bound for the trie. */
static int collect(const grammar_vocab *v, entry *list, size_t *nodes) {
    int n = 0;
    *nodes = 1;
    for (int id = 0; id < v->ids && id < tokenizer_size(v->tokenizer); id++) {
        size_t length;
        const char *bytes = tokenizer_bytes(v->tokenizer, id, &length);
        if (!bytes || !length || length > TOKEN_BYTES_MAX || is_end(v, id)) continue;
        if (tokenizer_is_added(v->tokenizer, id)) continue;
        list[n++] = (entry){bytes, (int32_t)length, id};
        *nodes += length;
    }
    qsort(list, (size_t)n, sizeof *list, by_bytes);
    return n;
}

/* Appends the tokens, which are sorted, so that each shares a prefix with the one before. */
static void build(grammar_trie *t, const entry *list, int n) {
    int32_t path[DEPTH_MAX]; /* nodes of the last token */
    int depth = 0;
    t->n = 1;
    t->byte[0] = 0;
    t->token[0] = -1;
    for (int i = 0; i < n; i++) {
        int common = 0;
        const entry *e = &list[i], *before = i ? &list[i - 1] : NULL;
        while (before && common < before->length && common < e->length &&
               before->bytes[common] == e->bytes[common])
            common++;
        while (depth > common) t->end[path[--depth]] = t->n;
        for (; depth < e->length; depth++) {
            t->byte[t->n] = (uint8_t)e->bytes[depth];
            t->token[t->n] = -1;
            path[depth] = t->n++;
        }
        int32_t node = path[depth - 1];
        t->same[e->id] = t->token[node];
        t->token[node] = e->id;
    }
    while (depth > 0) t->end[path[--depth]] = t->n;
    t->end[0] = t->n;
    for (int b = 0; b < 256; b++) t->root_child[b] = -1;
    for (int32_t x = 1; x < t->n; x = t->end[x]) t->root_child[t->byte[x]] = x;
}

static err open_trie(grammar_vocab *v) {
    grammar_trie *t = &v->trie;
    entry *list = malloc(((size_t)v->ids + 1) * sizeof *list);
    if (!list) return err_make(ERR_NOMEM, "no memory for a vocabulary of %d", v->ids);
    size_t nodes;
    int n = collect(v, list, &nodes);
    if (nodes > INT32_MAX) {
        free(list);
        return err_make(ERR_RANGE, "the tokens of the vocabulary are too long");
    }
    t->byte = malloc(nodes);
    t->end = malloc(nodes * sizeof *t->end);
    t->token = malloc(nodes * sizeof *t->token);
    t->same = malloc(((size_t)v->ids + 1) * sizeof *t->same);
    bool ok = t->byte && t->end && t->token && t->same;
    if (ok) build(t, list, n);
    free(list);
    if (!ok) return err_make(ERR_NOMEM, "no memory for a vocabulary of %d", v->ids);
    size_t used = (size_t)t->n;
    void *byte = realloc(t->byte, used), *end = realloc(t->end, used * sizeof *t->end);
    void *token = realloc(t->token, used * sizeof *t->token);
    if (byte) t->byte = byte;
    if (end) t->end = end;
    if (token) t->token = token;
    v->memory += used * 9 + (size_t)v->ids * 4;
    return err_none();
}

/* ---- what one state of an automaton allows ---- */

static void scan_add(grammar_scratch *s, const grammar_trie *t, int32_t node, int characters) {
    for (int32_t id = t->token[node]; id >= 0; id = t->same[id]) {
        if (s->n_ids == s->ids_most) {
            s->full = true;
            return;
        }
        s->ids[s->n_ids] = id;
        s->characters[s->n_ids++] = characters;
    }
}

void grammar_scan(const grammar_vocab *v, const grammar_machine *m, int q, grammar_scratch *s) {
    struct {
        int32_t end, characters;
        int q;
    } at[DEPTH_MAX + 1];
    const grammar_trie *t = &v->trie;
    int depth = 0;
    at[0].end = t->n;
    at[0].characters = 0;
    at[0].q = q;
    s->n_ids = s->n_exits = s->characters_most = 0;
    s->full = false;
    for (int32_t x = 1; x < t->n && !s->full;) {
        while (x >= at[depth].end) depth--;
        unsigned value = m->d.next[at[depth].q][t->byte[x]];
        if ((value & DFA_DEAD) == DFA_DEAD) {
            x = t->end[x];
            continue;
        }
        int to = (int)(value & DFA_DEAD), count = at[depth].characters + (value & DFA_CHAR ? 1 : 0);
        int characters = count + (m->needs ? m->needs[to] : 0);
        if (characters > s->characters_most) s->characters_most = characters;
        if (!m->ends[to]) scan_add(s, t, x, characters);
        if (m->d.accept[to] && !m->left_by_token) {
            if (s->n_exits == s->exits_most)
                s->full = true;
            else
                s->exits[s->n_exits++] = (grammar_exit){x, characters};
        }
        depth++;
        at[depth].end = t->end[x];
        at[depth].characters = count;
        at[depth].q = to;
        x = m->ends[to] ? t->end[x] : x + 1;
    }
}

/* Exits with nodes below them come first. */
static int sort_exits(const grammar_trie *t, grammar_exit *exits, int n) {
    int deep = 0;
    for (int i = 0; i < n; i++) {
        if (t->end[exits[i].node] == exits[i].node + 1) continue;
        grammar_exit swap = exits[deep];
        exits[deep++] = exits[i];
        exits[i] = swap;
    }
    return deep;
}

static int by_characters(const void *a, const void *b) {
    const int32_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] > y[0]) - (x[0] < y[0]) : (x[1] > y[1]) - (x[1] < y[1]);
}

/* The ids ascending by characters. */
static err sort_ids(const grammar_scratch *s, grammar_table *t) {
    size_t n = (size_t)s->n_ids;
    int32_t(*pairs)[2] = malloc((n + 1) * sizeof *pairs);
    t->characters = malloc((n + 1) * sizeof *t->characters);
    if (!pairs || !t->characters) {
        free(pairs);
        return err_make(ERR_NOMEM, "no memory for the tables of the vocabulary");
    }
    for (size_t i = 0; i < n; i++) pairs[i][0] = s->characters[i], pairs[i][1] = s->ids[i];
    qsort(pairs, n, sizeof *pairs, by_characters);
    for (size_t i = 0; i < n; i++) t->characters[i] = pairs[i][0], t->ids[i] = pairs[i][1];
    free(pairs);
    return err_none();
}

/* A table of exactly the size that it needs. counted: ids are kept by characters. */
static err table_make(grammar_vocab *v, const grammar_scratch *s, bool counted, grammar_table *t) {
    bool mask = (size_t)s->n_ids > v->words, list = !mask || counted;
    size_t ids = list ? (size_t)s->n_ids : 0, exits = (size_t)s->n_exits;
    t->characters_most = s->characters_most;
    t->n_ids = (int)ids;
    t->n_exits = s->n_exits;
    if (mask) t->inside = calloc(v->words, sizeof *t->inside);
    if (list) t->ids = malloc((ids + 1) * sizeof *t->ids);
    t->exits = malloc((exits + 1) * sizeof *t->exits);
    if ((mask && !t->inside) || (list && !t->ids) || !t->exits)
        return err_make(ERR_NOMEM, "no memory for the tables of the vocabulary");
    memcpy(t->exits, s->exits, exits * sizeof *t->exits);
    t->n_deep = sort_exits(&v->trie, t->exits, s->n_exits);
    for (int i = 0; i < s->n_ids && mask; i++)
        t->inside[s->ids[i] >> 6] |= (uint64_t)1 << (s->ids[i] & 63);
    v->memory += (mask ? v->words * 8 : 0) + ids * (counted ? 8 : 4) + exits * sizeof *t->exits;
    if (counted) return sort_ids(s, t);
    if (list) memcpy(t->ids, s->ids, ids * sizeof *t->ids);
    return err_none();
}

/* ---- machines ---- */

err grammar_machine_open(dfa *d, const char *what, grammar_machine *out) {
    *out = (grammar_machine){.d = *d};
    *d = (dfa){0};
    out->ends = malloc((size_t)out->d.n + 1);
    if (!out->ends) {
        grammar_machine_close(out);
        return err_make(ERR_NOMEM, "%s: no memory", what);
    }
    for (int i = 0; i < out->d.n; i++) {
        out->ends[i] = 1;
        for (int b = 0; b < 256 && out->ends[i]; b++)
            out->ends[i] = (out->d.next[i][b] & DFA_DEAD) == DFA_DEAD;
    }
    return err_none();
}

void grammar_machine_close(grammar_machine *m) {
    for (int i = 0; i < m->d.n && m->tables; i++) {
        free(m->tables[i].inside);
        free(m->tables[i].ids);
        free(m->tables[i].characters);
        free(m->tables[i].exits);
    }
    free(m->tables);
    free(m->ends);
    free(m->needs);
    free(m->closing);
    dfa_free(&m->d);
    *m = (grammar_machine){0};
}

/* Any characters, in a loop, then `close`. */
static err loop_until(nfa_spelling spelling, const char *close, const char *what, dfa *out) {
    nfa a = {0};
    int start = nfa_state(&a);
    nfa_points(&a, start, 1, 0x10ffff, spelling, start);
    int accept = nfa_literal(&a, start, close, strlen(close));
    err e = nfa_compile(&a, start, accept, what, out);
    nfa_free(&a);
    return e;
}

/* Anything that does not contain `close` before its end, then close: the automaton of Knuth, Morris
 * and Pratt comes out of determinising; what could go on after an accepting state is cut off. */
static err text_until(const char *close, const char *what, dfa *out) {
    TRY(loop_until(NFA_RAW, close, what, out));
    for (int i = 0; i < out->n; i++)
        for (int b = 0; b < 256 && out->accept[i]; b++) out->next[i][b] = DFA_DEAD;
    return err_none();
}

/* No '<' but that of the end. */
static err short_text(const char *what, dfa *out) {
    nfa a = {0};
    int start = nfa_state(&a);
    nfa_points(&a, start, 1, '<' - 1, NFA_RAW, start);
    nfa_points(&a, start, '<' + 1, 0x10ffff, NFA_RAW, start);
    int accept = nfa_literal(&a, start, PARAMETER_CLOSE, strlen(PARAMETER_CLOSE));
    err e = nfa_compile(&a, start, accept, what, out);
    nfa_free(&a);
    return e;
}

/* Shortest ways by completed characters. */
static err find_needs(grammar_machine *m) {
    size_t n = (size_t)m->d.n;
    m->needs = malloc(n + 1);
    if (!m->needs) return err_make(ERR_NOMEM, "no memory for the tables of the vocabulary");
    for (size_t i = 0; i < n; i++) m->needs[i] = m->d.accept[i] ? 0 : 100;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++)
            for (int b = 0; b < 256; b++) {
                unsigned value = m->d.next[i][b], to = value & DFA_DEAD;
                if (to == DFA_DEAD) continue;
                int way = m->needs[to] + (value & DFA_CHAR ? 1 : 0);
                if (way >= m->needs[i]) continue;
                m->needs[i] = (uint8_t)way;
                changed = true;
            }
    }
    return err_none();
}

/* States from which no byte is counted any more: the end of a text, once it has begun. */
static err find_closing(grammar_machine *m) {
    size_t n = (size_t)m->d.n;
    m->closing = malloc(n + 1);
    if (!m->closing) return err_make(ERR_NOMEM, "no memory for the tables of the vocabulary");
    memset(m->closing, 1, n);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++) {
            for (int b = 0; b < 256 && m->closing[i]; b++) {
                unsigned value = m->d.next[i][b], to = value & DFA_DEAD;
                if (to == DFA_DEAD || (!(value & DFA_CHAR) && m->closing[to])) continue;
                m->closing[i] = 0;
                changed = true;
            }
        }
    }
    return err_none();
}

static err shared_automaton(grammar_shared which, dfa *out) {
    switch (which) {
    case SHARED_STRING: return loop_until(NFA_JSON_FREE, "\"", "strings", out);
    case SHARED_KEY: {
        nfa a = {0};
        int start = nfa_state(&a);
        nfa_points(&a, start, 0x20, '"' - 1, NFA_RAW, start);
        nfa_points(&a, start, '"' + 1, '\\' - 1, NFA_RAW, start);
        nfa_points(&a, start, '\\' + 1, 0x10ffff, NFA_RAW, start);
        err e = nfa_compile(&a, start, nfa_literal(&a, start, "\"", 1), "keys", out);
        nfa_free(&a);
        return e;
    }
    case SHARED_TEXT: return text_until(PARAMETER_CLOSE, "texts", out);
    case SHARED_SHORT: return short_text("texts", out);
    default: return loop_until(NFA_RAW, "", "texts", out);
    }
}

static err open_shared(grammar_vocab *v, grammar_shared which, grammar_scratch *scratch) {
    dfa d;
    TRY(shared_automaton(which, &d));
    grammar_machine *m = &v->shared[which];
    TRY(grammar_machine_open(&d, "the vocabulary", m));
    m->left_by_token = which == SHARED_FREE;
    m->extra = which == SHARED_SHORT; /* the newline of the end could be one of the text */
    if (which == SHARED_STRING || which == SHARED_SHORT) TRY(find_needs(m));
    if (which == SHARED_SHORT) TRY(find_closing(m));
    m->tables = calloc((size_t)m->d.n, sizeof *m->tables);
    if (!m->tables) return err_make(ERR_NOMEM, "no memory for the tables of the vocabulary");
    v->memory += dfa_bytes(&m->d);
    for (int q = 0; q < m->d.n; q++) {
        grammar_scan(v, m, q, scratch);
        assert(!scratch->full);
        TRY(table_make(v, scratch, which == SHARED_STRING || which == SHARED_SHORT, &m->tables[q]));
    }
    return err_none();
}

/* ---- open, close ---- */

static err open_all(grammar_vocab *v, const int32_t *ends, int n_ends) {
    v->ends = malloc(((size_t)n_ends + 1) * sizeof *v->ends);
    if (!v->ends) return err_make(ERR_NOMEM, "no memory for a vocabulary of %d", v->ids);
    for (int i = 0; i < n_ends; i++)
        if (ends[i] >= 0 && ends[i] < v->ids) v->ends[v->n_ends++] = ends[i];
    TRY(open_trie(v));
    grammar_scratch s = {.ids_most = v->ids, .exits_most = v->trie.n};
    s.ids = malloc(((size_t)s.ids_most + 1) * sizeof *s.ids);
    s.characters = malloc(((size_t)s.ids_most + 1) * sizeof *s.characters);
    s.exits = malloc((size_t)s.exits_most * sizeof *s.exits);
    err e = s.ids && s.characters && s.exits
                ? err_none()
                : err_make(ERR_NOMEM, "no memory for a vocabulary of %d", v->ids);
    for (int i = 0; i < SHARED_COUNT && !e.code; i++) e = open_shared(v, (grammar_shared)i, &s);
    free(s.ids);
    free(s.characters);
    free(s.exits);
    return e;
}

err grammar_vocab_open(const tokenizer *t, int ids, const int32_t *ends, int n_ends,
                       grammar_vocab **out) {
    *out = NULL;
    grammar_vocab *v = calloc(1, sizeof *v);
    if (!v) return err_make(ERR_NOMEM, "no memory for a vocabulary of %d", ids);
    v->tokenizer = t;
    v->ids = ids;
    v->words = ((size_t)ids + 63) / 64;
    err e = open_all(v, ends, n_ends);
    if (e.code)
        grammar_vocab_close(v);
    else
        *out = v;
    return e;
}

void grammar_vocab_close(grammar_vocab *v) {
    if (!v) return;
    for (int i = 0; i < SHARED_COUNT; i++) grammar_machine_close(&v->shared[i]);
    free(v->trie.byte);
    free(v->trie.end);
    free(v->trie.token);
    free(v->trie.same);
    free(v->ends);
    free(v);
}

size_t grammar_vocab_words(const grammar_vocab *v) { return v->words; }

size_t grammar_vocab_memory(const grammar_vocab *v) { return v->memory; }
