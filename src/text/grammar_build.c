/* grammar_build.c: making a grammar: its nodes, its automata, and what each node needs.
 *
 * Building functions return node numbers and never fail by themselves: the first failure is kept in
 * g->e, later calls do nothing, grammar_compile reports it. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"
#include "text/grammar_regex.h"

#define NODES_MAX         200000
#define CHILDREN_MAX      800000
#define MACHINES_MAX      4096
#define MACHINE_BYTES_MAX ((size_t)64 << 20)
#define SLOT_EXITS        8192
#define INDENT_MAX        32

void grammar_fail(grammar *g, err e) {
    if (!g->e.code) g->e = e;
}

/* A list that grows, bounded by most. */
typedef struct growing {
    void **list;
    int *capacity;
    int most;
    size_t size;
} growing;

/* Room for n elements. */
static bool room(grammar *g, const growing *l, int n) {
    if (g->e.code) return false;
    if (n <= *l->capacity) return true;
    int wanted = *l->capacity ? *l->capacity * 2 : 64;
    while (wanted < n) wanted *= 2;
    void *moved = n <= l->most ? realloc(*l->list, (size_t)wanted * l->size) : NULL;
    if (!moved) {
        grammar_fail(g, err_make(ERR_RANGE, "%s: too large for a grammar", g->name));
        return false;
    }
    *l->list = moved;
    *l->capacity = wanted;
    return true;
}

/* ---- nodes ---- */

static int add_node(grammar *g, grammar_node node) {
    growing l = {(void **)&g->nodes, &g->nodes_capacity, NODES_MAX, sizeof *g->nodes};
    if (!room(g, &l, g->n_nodes + 1)) return 0;
    g->nodes[g->n_nodes] = node;
    return g->n_nodes++;
}

static int add_children(grammar *g, const int *list, int n) {
    growing l = {(void **)&g->children, &g->children_capacity, CHILDREN_MAX, sizeof *g->children};
    if (!room(g, &l, g->n_children + n)) return 0;
    for (int i = 0; i < n; i++) g->children[g->n_children + i] = list[i];
    g->n_children += n;
    return g->n_children - n;
}

int grammar_literal(grammar *g, const char *bytes, size_t length, bool syntax) {
    int at = (int)g->text.length;
    if (length > (1u << 20) || g->text.length > (64u << 20))
        grammar_fail(g, err_make(ERR_RANGE, "%s: too large for a grammar", g->name));
    if (g->e.code) return 0;
    err e = text_buf_add(&g->text, bytes, length);
    if (e.code) grammar_fail(g, e);
    return add_node(
        g, (grammar_node){.kind = NODE_LITERAL, .syntax = syntax, .a = at, .b = (int)length});
}

int grammar_machine_node(grammar *g, int machine, int low, int high, bool syntax) {
    return add_node(
        g, (grammar_node){
               .kind = NODE_MACHINE, .syntax = syntax, .a = machine, .low = low, .high = high});
}

int grammar_sequence(grammar *g, const int *nodes, int n) {
    int a = add_children(g, nodes, n);
    return add_node(g, (grammar_node){.kind = NODE_SEQUENCE, .a = a, .b = n});
}

int grammar_choice(grammar *g, const int *nodes, int n) {
    int a = add_children(g, nodes, n);
    return add_node(g, (grammar_node){.kind = NODE_CHOICE, .a = a, .b = n});
}

int grammar_repeat(grammar *g, const int *first, int n_first, int other, int low, int high) {
    grammar_node node = {.kind = NODE_REPEAT, .b = n_first, .c = other, .low = low, .high = high};
    node.a = add_children(g, first, n_first);
    return add_node(g, node);
}

int grammar_object(grammar *g, const int *properties, int n, const int *ends) {
    grammar_node node = {.kind = NODE_OBJECT, .b = n};
    node.a = add_children(g, properties, n * PROPERTY_INTS);
    node.c = add_children(g, ends, OBJECT_INTS);
    return add_node(g, node);
}

int grammar_reserve(grammar *g) { return add_node(g, (grammar_node){.kind = NODE_CHOICE}); }

void grammar_become(grammar *g, int node, int other) {
    int a = add_children(g, &other, 1);
    if (g->e.code) return;
    g->nodes[node].a = a;
    g->nodes[node].b = 1;
}

int grammar_markup(grammar *g, const char *text) {
    token_list ids = {0};
    err e = tokenizer_encode(g->v->tokenizer, TOKEN_MARKUP, text, strlen(text), &ids);
    if (e.code) grammar_fail(g, e);
    int parts[64], n = 0;
    text_buf plain = {0};
    for (size_t i = 0; i <= ids.count && !g->e.code && n < 62; i++) {
        bool end = i == ids.count, added = !end && tokenizer_is_added(g->v->tokenizer, ids.ids[i]);
        if ((end || added) && plain.length) {
            parts[n++] = grammar_literal(g, plain.data, plain.length, true);
            text_buf_drop(&plain, plain.length);
        }
        size_t length;
        const char *bytes = end ? NULL : tokenizer_bytes(g->v->tokenizer, ids.ids[i], &length);
        if (added)
            parts[n++] =
                add_node(g, (grammar_node){.kind = NODE_TOKEN, .syntax = true, .a = ids.ids[i]});
        else if (bytes && (e = text_buf_add(&plain, bytes, length)).code)
            grammar_fail(g, e);
    }
    text_buf_free(&plain);
    token_list_free(&ids);
    return n == 1 ? parts[0] : grammar_sequence(g, parts, n);
}

/* ---- automata ---- */

int grammar_add_machine(grammar *g, dfa *d) {
    growing l = {(void **)&g->machines, &g->machines_capacity, MACHINES_MAX, sizeof *g->machines};
    g->machine_bytes += dfa_bytes(d);
    if (g->machine_bytes > MACHINE_BYTES_MAX)
        grammar_fail(g, err_make(ERR_RANGE, "%s: too large for a grammar", g->name));
    if (!room(g, &l, g->n_machines + 1)) {
        dfa_free(d);
        return 0;
    }
    err e = grammar_machine_open(d, g->name, &g->machines[g->n_machines]);
    if (e.code) {
        grammar_fail(g, e);
        return 0;
    }
    return SHARED_COUNT + g->n_machines++;
}

int grammar_one_of(grammar *g, const text_buf *texts, int n, const char *after, bool syntax) {
    if (g->e.code) return 0;
    nfa a = {0};
    int start = nfa_state(&a), accept = nfa_state(&a);
    for (int i = 0; i < n; i++) {
        int state = nfa_literal(&a, start, texts[i].data ? texts[i].data : "", texts[i].length);
        nfa_empty(&a, nfa_literal(&a, state, after, strlen(after)), accept);
    }
    dfa d;
    err e = nfa_compile(&a, start, accept, g->name, &d);
    nfa_free(&a);
    if (e.code) grammar_fail(g, e);
    if (e.code) return 0;
    return grammar_machine_node(g, grammar_add_machine(g, &d), 0, -1, syntax);
}

int grammar_whitespace(grammar *g) {
    if (g->whitespace >= 0 || g->e.code) return g->whitespace;
    nfa a = {0};
    int start = nfa_state(&a), accept = nfa_state(&a);
    nfa_empty(&a, start, accept);
    nfa_range(&a, start, ' ', ' ', false, accept);
    int state = nfa_literal(&a, start, "\n", 1);
    for (int i = 0; i < INDENT_MAX; i++) {
        int next = nfa_state(&a);
        nfa_empty(&a, state, accept);
        nfa_range(&a, state, ' ', ' ', false, next);
        nfa_range(&a, state, '\t', '\t', false, next);
        state = next;
    }
    nfa_empty(&a, state, accept);
    dfa d;
    err e = nfa_compile(&a, start, accept, g->name, &d);
    nfa_free(&a);
    if (e.code)
        grammar_fail(g, e);
    else
        g->whitespace = grammar_machine_node(g, grammar_add_machine(g, &d), 0, -1, true);
    return g->whitespace;
}

/* ---- what nodes need ---- */

static int need_of_object(const grammar *g, const grammar_node *n) {
    int need = 0;
    for (int i = 0; i < n->b; i++) {
        const int32_t *p = g->children + n->a + i * PROPERTY_INTS;
        for (int k = PROPERTY_FIRST; k <= PROPERTY_NEXT && p[PROPERTY_REQUIRED]; k++)
            if (g->nodes[p[k]].need + 1 > need) need = g->nodes[p[k]].need + 1;
    }
    for (int k = OBJECT_END_EMPTY; k <= OBJECT_END; k++) {
        int end = g->nodes[g->children[n->c + k]].need;
        if (end > need) need = end;
    }
    return need;
}

static int need_of(const grammar *g, const grammar_node *n) {
    int need = 0;
    switch (n->kind) {
    case NODE_MACHINE: return grammar_machine_at(g, n->a)->d.n ? 0 : NEED_NEVER;
    case NODE_SEQUENCE:
        for (int i = 0; i < n->b; i++) {
            int child = g->nodes[g->children[n->a + i]].need + (i + 1 < n->b);
            if (child > need) need = child;
        }
        return need;
    case NODE_CHOICE:
        need = NEED_NEVER;
        for (int i = 0; i < n->b; i++) {
            int child = g->nodes[g->children[n->a + i]].need;
            if (child < need) need = child;
        }
        return need;
    case NODE_REPEAT:
        for (int i = 0; i < n->low && i <= n->b; i++) {
            int32_t child = i < n->b ? g->children[n->a + i] : n->c;
            int more = child < 0 ? NEED_NEVER : g->nodes[child].need + 1;
            if (more > need) need = more;
        }
        return need;
    case NODE_OBJECT: return need_of_object(g, n);
    default: return 0;
    }
}

/* The least fixed point: everything needs too much until it is shown that it does not. */
static void find_needs(grammar *g) {
    for (int i = 0; i < g->n_nodes; i++) g->nodes[i].need = NEED_NEVER;
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = 0; i < g->n_nodes; i++) {
            int need = need_of(g, &g->nodes[i]);
            if (need > NEED_NEVER) need = NEED_NEVER;
            if (need == g->nodes[i].need) continue;
            g->nodes[i].need = need;
            changed = true;
        }
    }
}

/* ---- compiling ---- */

static int from_schema(grammar *g, const json_t *document) {
    schema s;
    err e = schema_open(document, g->name, &s);
    if (e.code) {
        grammar_fail(g, e);
        return 0;
    }
    int node = grammar_schema_value(g, &s);
    schema_close(&s);
    return node;
}

static int from_choices(grammar *g, const grammar_spec *spec) {
    text_buf *texts = calloc((size_t)spec->n_choices + 1, sizeof *texts);
    err e = texts ? err_none() : err_make(ERR_NOMEM, "%s: no memory", g->name);
    for (int i = 0; i < spec->n_choices && !e.code; i++)
        e = text_buf_add_text(&texts[i], spec->choices[i]);
    if (e.code) grammar_fail(g, e);
    int node = grammar_one_of(g, texts, spec->n_choices, "", false);
    for (int i = 0; i < spec->n_choices && texts; i++) text_buf_free(&texts[i]);
    free(texts);
    return node;
}

static int from_pattern(grammar *g, const char *pattern) {
    dfa d;
    err e = regex_compile(pattern, NFA_RAW, g->name, &d);
    if (e.code) grammar_fail(g, e);
    if (e.code) return 0;
    return grammar_machine_node(g, grammar_add_machine(g, &d), 0, -1, false);
}

static int root_of(grammar *g, const grammar_spec *spec) {
    switch (spec->kind) {
    case GRAMMAR_JSON_OBJECT: return grammar_any_object(g);
    case GRAMMAR_JSON_SCHEMA: return from_schema(g, spec->schema);
    case GRAMMAR_TOOLS: return grammar_tools(g, spec);
    case GRAMMAR_CHOICE: return from_choices(g, spec);
    default: return from_pattern(g, spec->pattern);
    }
}

/* Free text up to the end of the think block, then what was asked for. */
static int after_reasoning(grammar *g, int node) {
    int close = grammar_markup(g, "</think>");
    int free_text = grammar_machine_node(g, SHARED_FREE, 0, -1, false);
    if (!g->e.code && g->nodes[close].kind != NODE_TOKEN)
        grammar_fail(g, err_make(ERR_UNSUPPORTED,
                                 "%s: this model has no token for </think>: turn thinking off for "
                                 "structured output",
                                 g->name));
    int parts[4] = {free_text, close, grammar_literal(g, "\n\n", 2, true), node};
    return grammar_sequence(g, parts, 4);
}

/* Room for the tables of the grammar's own automata, so that no mask allocates. */
static err open_slots(grammar *g) {
    const grammar_vocab *v = g->v;
    int exits = v->trie.n < SLOT_EXITS ? v->trie.n : SLOT_EXITS;
    g->scratch = (grammar_scratch){.ids_most = v->ids, .exits_most = exits};
    g->scratch.ids = malloc(((size_t)v->ids + 1) * sizeof *g->scratch.ids);
    g->scratch.characters = malloc(((size_t)v->ids + 1) * sizeof *g->scratch.characters);
    g->scratch.exits = malloc(((size_t)exits + 1) * sizeof *g->scratch.exits);
    bool ok = g->scratch.ids && g->scratch.characters && g->scratch.exits;
    for (int i = 0; i < GRAMMAR_SLOTS; i++) {
        grammar_slot *slot = &g->slots[i];
        slot->machine = slot->state = -1;
        slot->table.inside = malloc((v->words + 1) * sizeof *slot->table.inside);
        slot->table.exits = malloc(((size_t)exits + 1) * sizeof *slot->table.exits);
        ok = ok && slot->table.inside && slot->table.exits;
    }
    return ok ? err_none() : err_make(ERR_NOMEM, "%s: no memory for a grammar", g->name);
}

static err compile(grammar *g, const grammar_spec *spec) {
    int root = root_of(g, spec);
    if (spec->reasoning && !g->e.code) root = after_reasoning(g, root);
    if (g->e.code) return g->e;
    g->root = root;
    find_needs(g);
    if (g->nodes[root].need >= NEED_NEVER)
        return err_make(ERR_ARG, "%s: no value fits (or only an endless one)", g->name);
    if (g->nodes[root].need > GRAMMAR_DEPTH_MAX)
        return err_make(ERR_RANGE, "%s: nested too deeply", g->name);
    return open_slots(g);
}

err grammar_compile(const grammar_vocab *v, const grammar_spec *spec, grammar **out) {
    *out = NULL;
    grammar *g = calloc(1, sizeof *g);
    if (!g) return err_make(ERR_NOMEM, "%s: no memory", spec->name);
    g->v = v;
    g->name = spec->name;
    g->any_value = g->any_object = g->whitespace = g->number = g->integer = -1;
    err e = compile(g, spec);
    g->name = NULL; /* was borrowed for the call */
    if (e.code)
        grammar_close(g);
    else
        *out = g;
    return e;
}

void grammar_close(grammar *g) {
    if (!g) return;
    for (int i = 0; i < g->n_machines; i++) grammar_machine_close(&g->machines[i]);
    for (int i = 0; i < GRAMMAR_SLOTS; i++) {
        free(g->slots[i].table.inside);
        free(g->slots[i].table.exits);
    }
    free(g->scratch.ids);
    free(g->scratch.characters);
    free(g->scratch.exits);
    free(g->machines);
    free(g->nodes);
    free(g->children);
    text_buf_free(&g->text);
    free(g);
}
