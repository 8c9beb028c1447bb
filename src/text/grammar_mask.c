/* grammar_mask.c: the tokens that a state allows.
 *
 * The answer is the union over the configurations. For each, the trie is walked from the terminal's
 * place: a literal follows one path; an automaton brings its table (what stays within it, and the
 * nodes where it can be left), and below every node where it can be left, the walk goes on with
 * what comes after. Tables of the shared automata exist; those of a grammar's own are made when
 * first needed and kept in its slots. */
#include <string.h>

#include "text/grammar_impl.h"

#define STACK_MAX 4096 /* configurations of all open walks together */

typedef struct walker {
    grammar_state *s;
    const grammar_trie *t;
    uint64_t *allowed;
    grammar_config *stack;
    int top;
} walker;

static void allow(walker *w, int32_t node) {
    for (int32_t id = w->t->token[node]; id >= 0; id = w->t->same[id])
        w->allowed[id >> 6] |= (uint64_t)1 << (id & 63);
}

static void walk(walker *w, int32_t node, const grammar_config *c);

/* What comes after a terminal, found out when it is first needed. */
typedef struct rest {
    int begin, n; /* in the stack; n < 0: not known yet */
    int frames;   /* to go back to */
} rest;

static void rest_find(walker *w, rest *r, int parent) {
    grammar_set set = {.list = w->stack + w->top, .most = STACK_MAX - w->top};
    r->frames = w->s->n_frames;
    grammar_leave(w->s, &set, parent);
    r->begin = w->top;
    r->n = set.n;
    w->top += set.n;
}

/* Below the node, everything that may come after a terminal with this parent. */
static void walk_rest(walker *w, rest *r, int32_t node, int parent) {
    if (w->t->end[node] == node + 1) return;
    if (r->n < 0) rest_find(w, r, parent);
    for (int i = 0; i < r->n; i++) {
        grammar_config c = w->stack[r->begin + i];
        walk(w, node, &c);
    }
}

static void rest_drop(walker *w, rest *r) {
    if (r->n < 0) return;
    w->top = r->begin;
    w->s->n_frames = r->frames;
}

static int32_t child(const grammar_trie *t, int32_t node, uint8_t byte) {
    if (node == 0) return t->root_child[byte];
    for (int32_t x = node + 1; x < t->end[node]; x = t->end[x])
        if (t->byte[x] >= byte) return t->byte[x] == byte ? x : -1;
    return -1;
}

static void walk_literal(walker *w, int32_t node, const grammar_config *c) {
    const grammar *g = w->s->g;
    const grammar_node *n = &g->nodes[c->node];
    for (int i = c->pos; i < n->b; i++) {
        node = child(w->t, node, (uint8_t)g->text.data[n->a + i]);
        if (node < 0) return;
        allow(w, node);
    }
    rest r = {.n = -1};
    walk_rest(w, &r, node, c->parent);
    rest_drop(w, &r);
}

/* An automaton below a node, step by step. */
static void walk_machine(walker *w, int32_t node, const grammar_config *c) {
    const grammar *g = w->s->g;
    const grammar_machine *m = grammar_machine_at(g, g->nodes[c->node].a);
    bool exits = !m->left_by_token;
    rest r = {.n = -1};
    struct {
        int32_t end;
        grammar_config c;
    } at[TOKEN_BYTES_MAX + 2];
    int depth = 0;
    at[0].end = w->t->end[node];
    at[0].c = *c;
    for (int32_t x = node + 1; x < w->t->end[node];) {
        while (x >= at[depth].end) depth--;
        grammar_config next = at[depth].c;
        if (!grammar_machine_step(g, &next, w->t->byte[x])) {
            x = w->t->end[x];
            continue;
        }
        allow(w, x);
        if (exits && grammar_machine_accepts(g, &next)) walk_rest(w, &r, x, c->parent);
        depth++;
        at[depth].end = w->t->end[x];
        at[depth].c = next;
        x = m->ends[next.pos] ? w->t->end[x] : x + 1;
    }
    rest_drop(w, &r);
}

static void walk(walker *w, int32_t node, const grammar_config *c) {
    const grammar_node *n = &w->s->g->nodes[c->node];
    if (n->kind == NODE_LITERAL) walk_literal(w, node, c);
    if (n->kind == NODE_MACHINE) walk_machine(w, node, c);
}

/* ---- tables ---- */

/* The table of one of the grammar's own machines, made if need be; NULL when it does not fit a
 * slot. */
static const grammar_table *own_table(grammar *g, int machine, int q) {
    for (int i = 0; i < GRAMMAR_SLOTS; i++)
        if (g->slots[i].machine == machine && g->slots[i].state == q) return &g->slots[i].table;
    grammar_scratch *s = &g->scratch;
    grammar_scan(g->v, grammar_machine_at(g, machine), q, s);
    if (s->full) return NULL;
    grammar_slot *slot = &g->slots[g->next_slot];
    g->next_slot = (g->next_slot + 1) % GRAMMAR_SLOTS;
    slot->machine = machine;
    slot->state = q;
    grammar_table *t = &slot->table; /* exits have room for all; ids become bits */
    memset(t->inside, 0, g->v->words * sizeof *t->inside);
    for (int i = 0; i < s->n_ids; i++) t->inside[s->ids[i] >> 6] |= (uint64_t)1 << (s->ids[i] & 63);
    int deep = 0, flat = s->n_exits;
    for (int i = 0; i < s->n_exits; i++) {
        int32_t node = s->exits[i].node;
        bool below = g->v->trie.end[node] > node + 1;
        t->exits[below ? deep++ : --flat] = s->exits[i];
    }
    t->n_exits = s->n_exits;
    t->n_deep = deep;
    t->characters_most = s->characters_most;
    return t;
}

/* Tokens that stay inside and complete at most `room` characters. */
static void allow_counted(walker *w, const grammar_table *t, int room) {
    for (int i = 0; i < t->n_ids && t->characters[i] <= room; i++)
        w->allowed[t->ids[i] >> 6] |= (uint64_t)1 << (t->ids[i] & 63);
}

static void use_table(walker *w, const grammar_table *t, const grammar_config *c) {
    const grammar *g = w->s->g;
    const grammar_node *n = &g->nodes[c->node];
    const grammar_machine *m = grammar_machine_at(g, n->a);
    int room = n->high < 0 ? INT32_MAX : n->high + m->extra - c->count;
    if (room < t->characters_most) {
        allow_counted(w, t, room);
    } else if (t->inside) {
        for (size_t i = 0; i < g->v->words; i++) w->allowed[i] |= t->inside[i];
    } else {
        for (int i = 0; i < t->n_ids; i++)
            w->allowed[t->ids[i] >> 6] |= (uint64_t)1 << (t->ids[i] & 63);
    }
    rest r = {.n = -1};
    int least = n->low + m->extra - c->count;
    for (int i = 0; i < t->n_exits; i++) {
        const grammar_exit *x = &t->exits[i];
        if (x->characters > room || x->characters < least) continue;
        allow(w, x->node);
        if (i < t->n_deep) walk_rest(w, &r, x->node, c->parent);
    }
    rest_drop(w, &r);
}

static void allow_machine(walker *w, const grammar_config *c) {
    grammar *g = w->s->g;
    const grammar_node *n = &g->nodes[c->node];
    const grammar_machine *m = grammar_machine_at(g, n->a);
    const grammar_table *t = m->tables ? &m->tables[c->pos] : own_table(g, n->a, c->pos);
    bool counted = n->high >= 0 && t && n->high + m->extra - c->count < t->characters_most;
    bool early = m->closing && c->count < n->low + m->extra; /* tables do not know of closing */
    if (!t || early || (counted && !t->characters))
        walk_machine(w, 0, c);
    else
        use_table(w, t, c);
}

bool grammar_mask(grammar_state *s, uint64_t *allowed) {
    const grammar_vocab *v = s->g->v;
    grammar_config stack[STACK_MAX];
    walker w = {.s = s, .t = &v->trie, .allowed = allowed, .stack = stack};
    memset(allowed, 0, v->words * sizeof *allowed);
    for (int i = 0; i < s->n_configs; i++) {
        grammar_config c = s->configs[i];
        const grammar_node *n = &s->g->nodes[c.node];
        if (n->kind == NODE_MACHINE)
            allow_machine(&w, &c);
        else if (n->kind == NODE_LITERAL)
            walk_literal(&w, 0, &c);
        else
            allowed[n->a >> 6] |= (uint64_t)1 << (n->a & 63);
    }
    for (int i = 0; i < v->n_ends && s->done; i++)
        allowed[v->ends[i] >> 6] |= (uint64_t)1 << (v->ends[i] & 63);
    bool any = false;
    for (size_t i = 0; i < v->words && !any; i++) any = allowed[i] != 0;
    return any;
}
