/* grammar_dfa.c: see grammar_dfa.h. Subset construction, products, trimming.
 *
 * Everything here may be fed by a stranger's schema: states are bounded, and so is the work
 * (WORK_MAX edge visits), because a set of n states can be visited n * states times. */
#include "text/grammar_dfa.h"

#include <stdlib.h>
#include <string.h>

#define WORK_MAX 40000000

void dfa_free(dfa *d) {
    free(d->next);
    free(d->accept);
    *d = (dfa){0};
}

size_t dfa_bytes(const dfa *d) { return (size_t)d->n * (sizeof *d->next + 1); }

void nfa_free(nfa *a) {
    free(a->first);
    free(a->edges);
    *a = (nfa){0};
}

static bool grow(void **list, int *capacity, int most, size_t size) {
    int more = *capacity ? *capacity * 2 : 64;
    if (more > most) more = most;
    void *moved = more > *capacity ? realloc(*list, (size_t)more * size) : NULL;
    if (!moved) return false;
    *list = moved;
    *capacity = more;
    return true;
}

int nfa_state(nfa *a) {
    if (a->n_states == NFA_STATES_MAX) a->too_large = true;
    if (a->too_large || a->no_memory) return 0;
    if (a->n_states == a->states_capacity &&
        !grow((void **)&a->first, &a->states_capacity, NFA_STATES_MAX, sizeof *a->first)) {
        a->no_memory = true;
        return 0;
    }
    a->first[a->n_states] = -1;
    return a->n_states++;
}

static void add_edge(nfa *a, int from, nfa_edge edge) {
    if (a->n_edges == NFA_STATES_MAX * 4) a->too_large = true;
    if (a->too_large || a->no_memory) return;
    if (a->n_edges == a->edges_capacity &&
        !grow((void **)&a->edges, &a->edges_capacity, NFA_STATES_MAX * 4, sizeof *a->edges)) {
        a->no_memory = true;
        return;
    }
    edge.sibling = a->first[from];
    a->first[from] = a->n_edges;
    a->edges[a->n_edges++] = edge;
}

void nfa_range(nfa *a, int from, int low, int high, bool completes, int to) {
    nfa_edge e = {.low = (uint8_t)low, .high = (uint8_t)high, .completes = completes, .to = to};
    add_edge(a, from, e);
}

void nfa_empty(nfa *a, int from, int to) { add_edge(a, from, (nfa_edge){.empty = true, .to = to}); }

int nfa_literal(nfa *a, int from, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        int next = nfa_state(a);
        nfa_range(a, from, (uint8_t)bytes[i], (uint8_t)bytes[i], false, next);
        from = next;
    }
    return from;
}

/* ---- characters ---- */

/* UTF-8 of [low, high], all of the same length. Splits where a continuation byte wraps. */
static void utf8_same_length(nfa *a, int from, uint32_t low, uint32_t high, int n, int to) {
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int shift = 6 * (n - 1); shift > 0; shift -= 6) { /* the first byte that differs */
        uint32_t mask = ((uint32_t)1 << shift) - 1;
        if ((low & ~mask) == (high & ~mask)) continue;
        if (low & mask) {
            utf8_same_length(a, from, low, low | mask, n, to);
            utf8_same_length(a, from, (low | mask) + 1, high, n, to);
            return;
        }
        if ((high & mask) != mask) {
            utf8_same_length(a, from, low, (high & ~mask) - 1, n, to);
            utf8_same_length(a, from, high & ~mask, high, n, to);
            return;
        }
        break;
    }
    for (int i = 0; i < n; i++) {
        int shift = 6 * (n - 1 - i), next = i == n - 1 ? to : nfa_state(a);
        uint32_t first = i ? 0x80 | (low >> shift & 0x3f) : lead[n] | low >> shift;
        uint32_t last = i ? 0x80 | (high >> shift & 0x3f) : lead[n] | high >> shift;
        nfa_range(a, from, (int)first, (int)last, i == n - 1, next);
        from = next;
    }
}

static void utf8_points(nfa *a, int from, uint32_t low, uint32_t high, int to) {
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff};
    static const int lengths[] = {1, 2, 3, 0, 3, 4}; /* 0: surrogates */
    uint32_t begin = 0;
    for (int i = 0; i < 6; i++) {
        uint32_t first = low > begin ? low : begin, last = high < ends[i] ? high : ends[i];
        if (first <= last && lengths[i]) utf8_same_length(a, from, first, last, lengths[i], to);
        begin = ends[i] + 1;
    }
}

static void escape(nfa *a, int from, const char *text, int to) {
    size_t n = strlen(text);
    int state = nfa_literal(a, from, text, n - 1);
    nfa_range(a, state, (uint8_t)text[n - 1], (uint8_t)text[n - 1], true, to);
}

/* The characters below U+0080 that a JSON string cannot hold as they are. */
static void json_escaped(nfa *a, int from, uint32_t low, uint32_t high, int to) {
    static const char hex[] = "0123456789abcdef";
    for (uint32_t c = low; c <= high && c < 0x80; c++) {
        const char *at = strchr("\"\\\b\f\n\r\t", (int)c);
        if (at && c) {
            static const char letters[] = "\"\\bfnrt";
            char text[3] = {'\\', letters[at - "\"\\\b\f\n\r\t"], 0};
            escape(a, from, text, to);
        } else if (c < 0x20 && c) {
            char text[7] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15], 0};
            escape(a, from, text, to);
        }
    }
}

static void hex_digits(nfa *a, int from, const char *digits, bool completes, int to) {
    for (; *digits; digits++) nfa_range(a, from, (uint8_t)*digits, (uint8_t)*digits, completes, to);
}

/* Every way to write any character with a backslash, but for surrogates and U+0000. */
static void json_free_escapes(nfa *a, int from, int to) {
    static const char all[] = "0123456789abcdefABCDEF", not0[] = "123456789abcdefABCDEF";
    int slash = nfa_literal(a, from, "\\", 1), u = nfa_literal(a, slash, "u", 1);
    hex_digits(a, slash, "\"\\/bfnrt", true, to);
    int zero = nfa_state(a), two_zeros = nfa_state(a), three_zeros = nfa_state(a);
    int two = nfa_state(a), three = nfa_state(a), after_d = nfa_state(a), one = nfa_state(a);
    nfa_range(a, u, '0', '0', false, zero);
    hex_digits(a, u, "123456789abcefABCEF", false, one);
    hex_digits(a, u, "dD", false, after_d);
    nfa_range(a, after_d, '0', '7', false, two);
    hex_digits(a, one, all, false, two);
    nfa_range(a, zero, '0', '0', false, two_zeros);
    hex_digits(a, zero, not0, false, two);
    nfa_range(a, two_zeros, '0', '0', false, three_zeros);
    hex_digits(a, two_zeros, not0, false, three);
    hex_digits(a, two, all, false, three);
    hex_digits(a, three_zeros, not0, true, to);
    hex_digits(a, three, all, true, to);
}

void nfa_points(nfa *a, int from, uint32_t low, uint32_t high, nfa_spelling spelling, int to) {
    if (low == 0) low = 1;
    if (low > high) return;
    if (spelling == NFA_RAW) {
        utf8_points(a, from, low, high, to);
        return;
    }
    static const uint32_t plain[][2] = {{0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, 0x10ffff}};
    for (int i = 0; i < 3; i++) {
        uint32_t first = low > plain[i][0] ? low : plain[i][0];
        uint32_t last = high < plain[i][1] ? high : plain[i][1];
        if (first <= last) utf8_points(a, from, first, last, to);
    }
    if (spelling == NFA_JSON)
        json_escaped(a, from, low, high, to);
    else
        json_free_escapes(a, from, to);
}

/* ---- determinising ---- */

typedef struct subsets {
    const nfa *a;
    int32_t *pool; /* the sets, one after the other, each ascending */
    size_t pool_count, pool_capacity;
    size_t *begin; /* [capacity + 1] */
    uint32_t *hash;
    int32_t *table; /* open addressing: dfa state + 1 */
    uint32_t table_mask;
    uint8_t *mark; /* [nfa states]; all 0 between calls */
    int32_t *stack, *found;
    long long work;
    int capacity;
    dfa d;
} subsets;

static void subsets_free(subsets *s) {
    free(s->pool);
    free(s->begin);
    free(s->hash);
    free(s->table);
    free(s->mark);
    free(s->stack);
    free(s->found);
    dfa_free(&s->d);
}

static bool subsets_alloc(subsets *s) {
    size_t n = (size_t)s->a->n_states;
    s->table_mask = DFA_STATES_MAX * 4 - 1;
    s->table = calloc((size_t)s->table_mask + 1, sizeof *s->table);
    s->mark = calloc(n, 1);
    s->stack = malloc(n * sizeof *s->stack);
    s->found = malloc(n * sizeof *s->found);
    return s->table && s->mark && s->stack && s->found;
}

static bool room_for_state(subsets *s) {
    if (s->d.n < s->capacity) return true;
    size_t more = s->capacity ? (size_t)s->capacity * 2 : 16;
    void *next = realloc(s->d.next, more * sizeof *s->d.next);
    if (next) s->d.next = next;
    void *accept = realloc(s->d.accept, more);
    if (accept) s->d.accept = accept;
    void *begin = realloc(s->begin, (more + 1) * sizeof *s->begin);
    if (begin) s->begin = begin;
    void *hash = realloc(s->hash, more * sizeof *s->hash);
    if (hash) s->hash = hash;
    if (!next || !accept || !begin || !hash) return false;
    s->capacity = (int)more;
    return true;
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* found[0 .. n) becomes everything reachable by empty edges, sorted. */
static int close_set(subsets *s, int n) {
    int depth = 0;
    for (int i = 0; i < n; i++) s->stack[depth++] = s->found[i], s->mark[s->found[i]] = 1;
    while (depth) {
        int state = s->stack[--depth];
        for (int32_t k = s->a->first[state]; k >= 0; k = s->a->edges[k].sibling) {
            const nfa_edge *e = &s->a->edges[k];
            s->work++;
            if (!e->empty || s->mark[e->to]) continue;
            s->mark[e->to] = 1;
            s->found[n++] = s->stack[depth++] = e->to;
        }
    }
    for (int i = 0; i < n; i++) s->mark[s->found[i]] = 0;
    qsort(s->found, (size_t)n, sizeof *s->found, ascending);
    return n;
}

/* The state of the set found[0 .. n), new or known; -1 when there is no room. */
static int state_of_set(subsets *s, int n) {
    uint32_t h = 2166136261u;
    for (int i = 0; i < n; i++) h = (h ^ (uint32_t)s->found[i]) * 16777619u;
    uint32_t slot = h * 2654435761u >> 7 & s->table_mask;
    for (; s->table[slot]; slot = (slot + 1) & s->table_mask) {
        int known = s->table[slot] - 1;
        size_t at = s->begin[known];
        if (s->hash[known] == h && s->begin[known + 1] - at == (size_t)n &&
            memcmp(s->pool + at, s->found, (size_t)n * sizeof *s->found) == 0)
            return known;
    }
    if (s->d.n == DFA_STATES_MAX || !room_for_state(s)) return -1;
    while (s->pool_count + (size_t)n > s->pool_capacity) {
        size_t more = s->pool_capacity ? s->pool_capacity * 2 : 1024;
        void *moved = realloc(s->pool, more * sizeof *s->pool);
        if (!moved) return -1;
        s->pool = moved;
        s->pool_capacity = more;
    }
    int state = s->d.n++;
    memcpy(s->pool + s->pool_count, s->found, (size_t)n * sizeof *s->found);
    s->begin[state] = s->pool_count;
    s->pool_count += (size_t)n;
    s->begin[state + 1] = s->pool_count;
    s->hash[state] = h;
    s->table[slot] = state + 1;
    return state;
}

/* The transitions of one state. The pool may move: edges are visited by index. */
static bool expand(subsets *s, int state) {
    bool border[257] = {false};
    for (size_t i = s->begin[state]; i < s->begin[state + 1]; i++)
        for (int32_t k = s->a->first[s->pool[i]]; k >= 0; k = s->a->edges[k].sibling) {
            const nfa_edge *e = &s->a->edges[k];
            if (!e->empty) border[e->low] = border[e->high + 1] = true;
            s->work++;
        }
    for (int low = 0, high; low < 256; low = high) {
        for (high = low + 1; high < 256 && !border[high]; high++) {
        }
        int n = 0;
        bool completes = false;
        for (size_t i = s->begin[state]; i < s->begin[state + 1]; i++)
            for (int32_t k = s->a->first[s->pool[i]]; k >= 0; k = s->a->edges[k].sibling) {
                const nfa_edge *e = &s->a->edges[k];
                s->work++;
                if (e->empty || e->low > low || e->high < low || s->mark[e->to]) continue;
                s->mark[e->to] = 1;
                s->found[n++] = e->to;
                completes = completes || e->completes;
            }
        for (int i = 0; i < n; i++) s->mark[s->found[i]] = 0;
        int to = n ? state_of_set(s, close_set(s, n)) : (int)DFA_DEAD;
        if (to < 0 || s->work > WORK_MAX) return false;
        uint16_t value = (uint16_t)((unsigned)to | (completes && n ? DFA_CHAR : 0));
        for (int b = low; b < high; b++) s->d.next[state][b] = value;
    }
    return true;
}

/* ---- trimming ---- */

/* useful[i]: an accepting state can be reached from i. */
static void find_useful(const dfa *d, uint8_t *useful) {
    memcpy(useful, d->accept, (size_t)d->n);
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = d->n - 1; i >= 0; i--) {
            for (int b = 0; b < 256 && !useful[i]; b++) {
                unsigned to = d->next[i][b] & DFA_DEAD;
                if (to != DFA_DEAD && useful[to]) useful[i] = 1, changed = true;
            }
        }
    }
}

/* Cuts off states without a way to accept and gives the memory that is not needed back. */
static err trim(dfa *d, const char *what) {
    uint8_t *useful = malloc((size_t)d->n + 1);
    uint16_t *number = malloc(((size_t)d->n + 1) * sizeof *number);
    if (!useful || !number) {
        free(useful);
        free(number);
        return err_make(ERR_NOMEM, "%s: no memory", what);
    }
    find_useful(d, useful);
    int n = 0;
    for (int i = 0; i < d->n; i++) number[i] = (uint16_t)(useful[i] ? n++ : (int)DFA_DEAD);
    if (d->n && !useful[0]) n = 0;
    for (int i = 0; n && i < d->n; i++) {
        if (!useful[i]) continue;
        for (int b = 0; b < 256; b++) {
            unsigned to = d->next[i][b] & DFA_DEAD, flag = d->next[i][b] & DFA_CHAR;
            unsigned moved = to == DFA_DEAD ? DFA_DEAD : number[to];
            d->next[number[i]][b] = (uint16_t)(moved == DFA_DEAD ? DFA_DEAD : (moved | flag));
        }
        d->accept[number[i]] = d->accept[i];
    }
    d->n = n;
    free(useful);
    free(number);
    void *next = n ? realloc(d->next, (size_t)n * sizeof *d->next) : NULL;
    if (next) d->next = next;
    return err_none();
}

err nfa_compile(const nfa *a, int start, int accept, const char *what, dfa *out) {
    *out = (dfa){0};
    if (a->no_memory) return err_make(ERR_NOMEM, "%s: no memory", what);
    if (a->too_large) return err_make(ERR_RANGE, "%s: too large", what);
    subsets s = {.a = a};
    bool ok = subsets_alloc(&s);
    if (ok) {
        s.found[0] = start;
        ok = state_of_set(&s, close_set(&s, 1)) == 0;
    }
    for (int i = 0; ok && i < s.d.n; i++) {
        s.d.accept[i] = 0;
        for (size_t k = s.begin[i]; k < s.begin[i + 1]; k++)
            if (s.pool[k] == accept) s.d.accept[i] = 1;
        ok = expand(&s, i);
    }
    err e = ok ? trim(&s.d, what)
               : err_make(ERR_RANGE, "%s: too large (more than %d states, or too many choices)",
                          what, DFA_STATES_MAX);
    if (!e.code) {
        *out = s.d;
        s.d = (dfa){0};
    }
    subsets_free(&s);
    return e;
}

err dfa_append(dfa *d, const char *bytes, size_t length, const char *what) {
    if (d->n == 0) return err_none();
    nfa a = {0};
    for (int i = 0; i < d->n; i++) nfa_state(&a);
    int tail = nfa_state(&a), accept = nfa_literal(&a, tail, bytes, length);
    for (int i = 0; i < d->n; i++) {
        if (d->accept[i]) nfa_empty(&a, i, tail);
        for (int low = 0, high; low < 256; low = high) { /* runs of one value */
            for (high = low + 1; high < 256 && d->next[i][high] == d->next[i][low]; high++) {
            }
            unsigned to = d->next[i][low] & DFA_DEAD;
            bool flag = (d->next[i][low] & DFA_CHAR) != 0;
            if (to != DFA_DEAD) nfa_range(&a, i, low, high - 1, flag, (int)to);
        }
    }
    dfa_free(d);
    err e = nfa_compile(&a, 0, accept, what, d);
    nfa_free(&a);
    return e;
}

/* ---- products ---- */

/* Pairs (state of d, number below `width`) found so far, as states of the product. */
typedef struct product {
    dfa out;
    int32_t *index; /* [d->n * width]: product state + 1 */
    int32_t *pairs; /* [DFA_STATES_MAX] */
    int width;
} product;

static err product_open(product *p, const dfa *d, int width, const char *what) {
    *p = (product){.width = width};
    p->index = calloc((size_t)d->n * (size_t)width + 1, sizeof *p->index);
    p->pairs = malloc(DFA_STATES_MAX * sizeof *p->pairs);
    return p->index && p->pairs ? err_none() : err_make(ERR_NOMEM, "%s: no memory", what);
}

static void product_close(product *p) {
    free(p->index);
    free(p->pairs);
    dfa_free(&p->out);
}

static int pair_state(product *p, int state, int number) {
    int32_t pair = state * p->width + number;
    if (p->index[pair]) return p->index[pair] - 1;
    int n = p->out.n;
    if (n == DFA_STATES_MAX) return -1;
    if ((n & (n - 1)) == 0) { /* a power of two: double */
        size_t more = n ? (size_t)n * 2 : 1;
        void *next = realloc(p->out.next, more * sizeof *p->out.next);
        if (next) p->out.next = next;
        void *accept = realloc(p->out.accept, more);
        if (accept) p->out.accept = accept;
        if (!next || !accept) return -1;
    }
    p->pairs[n] = pair;
    p->index[pair] = n + 1;
    return p->out.n++;
}

static err product_finish(product *p, bool ok, dfa *d, const char *what) {
    err e = ok ? trim(&p->out, what) : err_make(ERR_RANGE, "%s: too large", what);
    if (!e.code) {
        dfa_free(d);
        *d = p->out;
        p->out = (dfa){0};
    }
    product_close(p);
    return e;
}

err dfa_limit_length(dfa *d, int low, int high, const char *what) {
    if (d->n == 0) return err_none();
    int most = high < 0 ? low : high; /* without a limit, counting stops at low */
    if (most > DFA_STATES_MAX) return err_make(ERR_RANGE, "%s: too large", what);
    product p;
    err e = product_open(&p, d, most + 1, what);
    if (e.code) {
        product_close(&p);
        return e;
    }
    bool ok = pair_state(&p, 0, 0) == 0;
    for (int i = 0; ok && i < p.out.n; i++) {
        int state = p.pairs[i] / p.width, count = p.pairs[i] % p.width;
        p.out.accept[i] = d->accept[state] && count >= low;
        for (int b = 0; b < 256 && ok; b++) {
            unsigned value = d->next[state][b], flag = value & DFA_CHAR;
            int more = count + (flag ? 1 : 0), to = (int)DFA_DEAD;
            if (high < 0 && more > most) more = most;
            if ((value & DFA_DEAD) != DFA_DEAD && more <= most)
                to = pair_state(&p, (int)(value & DFA_DEAD), more);
            ok = to >= 0;
            if (ok) p.out.next[i][b] = (uint16_t)((unsigned)to | (to == (int)DFA_DEAD ? 0 : flag));
        }
    }
    return product_finish(&p, ok, d, what);
}

err dfa_subtract(dfa *d, const dfa *without, const char *what) {
    if (d->n == 0 || without->n == 0) return err_none();
    product p;
    err e = product_open(&p, d, without->n + 1, what); /* the last number: `without` has failed */
    if (e.code) {
        product_close(&p);
        return e;
    }
    bool ok = pair_state(&p, 0, 0) == 0;
    for (int i = 0; ok && i < p.out.n; i++) {
        int state = p.pairs[i] / p.width, other = p.pairs[i] % p.width;
        p.out.accept[i] = d->accept[state] && !(other < without->n && without->accept[other]);
        for (int b = 0; b < 256 && ok; b++) {
            unsigned value = d->next[state][b], flag = value & DFA_CHAR;
            unsigned step = other < without->n ? without->next[other][b] & DFA_DEAD : DFA_DEAD;
            int to = (int)DFA_DEAD;
            if ((value & DFA_DEAD) != DFA_DEAD)
                to = pair_state(&p, (int)(value & DFA_DEAD),
                                step == DFA_DEAD ? without->n : (int)step);
            ok = to >= 0;
            if (ok) p.out.next[i][b] = (uint16_t)((unsigned)to | (to == (int)DFA_DEAD ? 0 : flag));
        }
    }
    return product_finish(&p, ok, d, what);
}
