/* grammar.c: the state of a grammar: what has been read, and what may follow.
 *
 *     configs:  (terminal, place in it, parent)    several where the text is ambiguous so far
 *     frames:   (node, where to go on, parent)     what comes after, shared by configurations
 *
 *         {"a": [1,            config: number, parent 3
 *                              frame 3: the array, one item done, parent 2
 *                              frame 2: the object, property a done, parent -1
 *
 * Frames are never changed. Those that no configuration needs any more are dropped after every
 * token by copying the others. Where there is no room for one, its alternative is not offered: the
 * text stays right, the choice gets narrower. Likewise below GRAMMAR_DEPTH_MAX: every node knows
 * how many frames it needs at least, and an alternative is offered only if it can be finished. */
#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

#define FRAME_NONE    (-2) /* no room */
#define SEARCH_BACK   64   /* frames in which an equal one is looked for */
#define RECURSION_MAX 2000

/* ---- frames and sets ---- */

static int depth_of(const grammar_state *s, int parent) {
    return parent < 0 ? 0 : s->frames[parent].depth;
}

static int frame(grammar_state *s, int node, int pos, int count, int parent) {
    int oldest = s->n_frames > SEARCH_BACK ? s->n_frames - SEARCH_BACK : 0;
    for (int i = s->n_frames - 1; i >= oldest; i--) {
        const grammar_frame *f = &s->frames[i];
        if (f->node == node && f->pos == pos && f->count == count && f->parent == parent) return i;
    }
    if (s->n_frames == GRAMMAR_FRAMES_MAX) return FRAME_NONE;
    s->frames[s->n_frames] = (grammar_frame){node, pos, count, parent, depth_of(s, parent) + 1};
    return s->n_frames++;
}

static void emit(grammar_set *out, int node, int pos, int count, int parent) {
    for (int i = 0; i < out->n; i++) {
        const grammar_config *c = &out->list[i];
        if (c->node == node && c->pos == pos && c->count == count && c->parent == parent) return;
    }
    if (out->n < out->most) out->list[out->n++] = (grammar_config){node, pos, count, parent};
}

static bool fits(const grammar_state *s, int node, int parent) {
    return depth_of(s, parent) + s->g->nodes[node].need <= GRAMMAR_DEPTH_MAX;
}

/* ---- entering nodes ---- */

static void enter(grammar_state *s, grammar_set *out, int node, int parent);

void grammar_leave(grammar_state *s, grammar_set *out, int parent);

/* child, and after it node from pos on. */
static void enter_then(grammar_state *s, grammar_set *out, int child, const grammar_frame *after) {
    int next = frame(s, after->node, after->pos, after->count, after->parent);
    if (next != FRAME_NONE && fits(s, child, next)) enter(s, out, child, next);
}

static void go_sequence(grammar_state *s, grammar_set *out, int node, int pos, int parent) {
    const grammar_node *n = &s->g->nodes[node];
    int child = s->g->children[n->a + pos];
    if (pos + 1 == n->b)
        enter(s, out, child, parent);
    else
        enter_then(s, out, child, &(grammar_frame){node, pos + 1, 0, parent, 0});
}

static void go_repeat(grammar_state *s, grammar_set *out, int node, int done, int parent) {
    const grammar_node *n = &s->g->nodes[node];
    if (done >= n->low) grammar_leave(s, out, parent);
    if (n->high >= 0 && done >= n->high) return;
    int child = done < n->b ? s->g->children[n->a + done] : n->c;
    int most = n->low > n->b ? n->low : n->b; /* from here on, the count does not matter */
    int next = done + 1 > most && n->high < 0 ? most : done + 1;
    if (child >= 0) enter_then(s, out, child, &(grammar_frame){node, next, 0, parent, 0});
}

/* From property `pos` on; any: one was written before. */
static void go_object(grammar_state *s, grammar_set *out, int node, int pos, int any, int parent) {
    const grammar_node *n = &s->g->nodes[node];
    const int32_t *more = s->g->children + n->c;
    for (int i = pos; i < n->b; i++) {
        const int32_t *p = s->g->children + n->a + i * PROPERTY_INTS;
        int child = p[any ? PROPERTY_NEXT : PROPERTY_FIRST];
        enter_then(s, out, child, &(grammar_frame){node, i + 1, 1, parent, 0});
        if (p[PROPERTY_REQUIRED]) return;
    }
    int other = more[any ? OBJECT_MORE_NEXT : OBJECT_MORE_FIRST];
    if (other >= 0) enter_then(s, out, other, &(grammar_frame){node, n->b, 1, parent, 0});
    enter(s, out, more[any ? OBJECT_END : OBJECT_END_EMPTY], parent);
}

static void go_on(grammar_state *s, grammar_set *out, const grammar_config *c) {
    const grammar_node *n = &s->g->nodes[c->node];
    switch (n->kind) {
    case NODE_SEQUENCE: go_sequence(s, out, c->node, c->pos, c->parent); break;
    case NODE_CHOICE:
        for (int i = 0; i < n->b; i++) {
            int child = s->g->children[n->a + i];
            if (fits(s, child, c->parent)) enter(s, out, child, c->parent);
        }
        break;
    case NODE_REPEAT: go_repeat(s, out, c->node, c->pos, c->parent); break;
    case NODE_OBJECT: go_object(s, out, c->node, c->pos, c->count, c->parent); break;
    case NODE_LITERAL:
        if (c->pos == n->b)
            grammar_leave(s, out, c->parent);
        else
            emit(out, c->node, c->pos, 0, c->parent);
        break;
    case NODE_MACHINE:
        if (!grammar_machine_at(s->g, n->a)->ends[c->pos])
            emit(out, c->node, c->pos, c->count, c->parent);
        if (grammar_machine_accepts(s->g, c)) grammar_leave(s, out, c->parent);
        break;
    default: emit(out, c->node, 0, 0, c->parent); break;
    }
}

static void enter(grammar_state *s, grammar_set *out, int node, int parent) {
    go_on(s, out, &(grammar_config){node, 0, 0, parent});
}

void grammar_leave(grammar_state *s, grammar_set *out, int parent) {
    if (parent < 0) {
        out->done = true;
        return;
    }
    const grammar_frame *f = &s->frames[parent];
    go_on(s, out, &(grammar_config){f->node, f->pos, f->count, f->parent});
}

/* ---- machines ---- */

bool grammar_machine_accepts(const grammar *g, const grammar_config *c) {
    const grammar_node *n = &g->nodes[c->node];
    const grammar_machine *m = grammar_machine_at(g, n->a);
    return m->d.accept[c->pos] && c->count - m->extra >= n->low;
}

bool grammar_machine_step(const grammar *g, grammar_config *c, uint8_t byte) {
    const grammar_node *n = &g->nodes[c->node];
    const grammar_machine *m = grammar_machine_at(g, n->a);
    unsigned value = m->d.next[c->pos][byte], to = value & DFA_DEAD;
    if (to == DFA_DEAD) return false;
    c->pos = (int32_t)to;
    bool limited = n->high >= 0;
    if ((value & DFA_CHAR) && (limited || c->count < n->low + m->extra)) c->count++;
    if (limited && c->count + (m->needs ? m->needs[to] : 0) > n->high + m->extra) return false;
    if (m->closing && m->closing[to] && c->count < n->low + m->extra) return false;
    return !m->ends[to] || grammar_machine_accepts(g, c);
}

/* ---- reading ---- */

static void step_byte(grammar_state *s, const grammar_set *in, uint8_t byte, grammar_set *out) {
    out->n = 0;
    out->done = false;
    for (int i = 0; i < in->n; i++) {
        grammar_config c = in->list[i];
        const grammar_node *n = &s->g->nodes[c.node];
        if (n->kind == NODE_MACHINE) {
            if (grammar_machine_step(s->g, &c, byte)) go_on(s, out, &c);
        } else if (n->kind == NODE_LITERAL && (uint8_t)s->g->text.data[n->a + c.pos] == byte) {
            c.pos++;
            go_on(s, out, &c);
        }
    }
}

static void step_token(grammar_state *s, const grammar_set *in, int32_t id, grammar_set *out) {
    out->n = 0;
    out->done = false;
    for (int i = 0; i < in->n; i++) {
        const grammar_node *n = &s->g->nodes[in->list[i].node];
        if (n->kind == NODE_TOKEN && n->a == id) grammar_leave(s, out, in->list[i].parent);
    }
}

/* Takes over the new set, with the frames that it needs. */
static void commit(grammar_state *s, const grammar_set *set) {
    memset(s->moved, 0, (size_t)s->n_frames * sizeof *s->moved);
    for (int i = 0; i < set->n; i++)
        for (int f = set->list[i].parent; f >= 0 && !s->moved[f]; f = s->frames[f].parent)
            s->moved[f] = 1;
    int n = 0;
    for (int f = 0; f < s->n_frames; f++) { /* a parent comes before its children */
        if (!s->moved[f]) continue;
        grammar_frame kept = s->frames[f];
        if (kept.parent >= 0) kept.parent = s->moved[kept.parent];
        s->moved[f] = n;
        s->frames[n++] = kept;
    }
    s->n_frames = n;
    s->n_configs = set->n;
    for (int i = 0; i < set->n; i++) {
        grammar_config c = set->list[i];
        if (c.parent >= 0) c.parent = s->moved[c.parent];
        s->configs[i] = c;
    }
    s->done = set->done;
}

static bool is_end(const grammar_vocab *v, int32_t id) {
    for (int i = 0; i < v->n_ends; i++)
        if (v->ends[i] == id) return true;
    return false;
}

/* A token of ordinary bytes; it may be empty of them only if it is unknown. */
static bool read_bytes(grammar_state *s, int32_t id, grammar_set *a, grammar_set *b) {
    const grammar_vocab *v = s->g->v;
    size_t length;
    const char *bytes = tokenizer_bytes(v->tokenizer, id, &length);
    if (!bytes || !length) return false;
    for (size_t i = 0; i < length && a->n; i++) {
        step_byte(s, a, (uint8_t)bytes[i], b);
        grammar_set swap = *a;
        *a = *b;
        *b = swap;
        if (i + 1 < length) a->done = false;
    }
    return a->n > 0 || a->done;
}

bool grammar_accept(grammar_state *s, int32_t id) {
    const grammar_vocab *v = s->g->v;
    if (s->ended || id < 0 || id >= v->ids) return false;
    if (s->done && is_end(v, id)) {
        s->ended = true;
        s->n_configs = s->n_frames = 0;
        s->done = false;
        return true;
    }
    if (is_end(v, id)) return false;
    int mark = s->n_frames;
    grammar_set a = {.list = s->other, .most = GRAMMAR_CONFIGS_MAX};
    grammar_set b = {.list = s->other + GRAMMAR_CONFIGS_MAX, .most = GRAMMAR_CONFIGS_MAX};
    memcpy(a.list, s->configs, (size_t)s->n_configs * sizeof *a.list);
    a.n = s->n_configs;
    bool ok;
    if (tokenizer_is_added(v->tokenizer, id)) {
        step_token(s, &a, id, &b);
        a = b;
        ok = a.n > 0 || a.done;
    } else {
        ok = read_bytes(s, id, &a, &b);
    }
    if (ok)
        commit(s, &a);
    else
        s->n_frames = mark;
    return ok;
}

/* ---- open, close ---- */

void grammar_state_reset(grammar_state *s) {
    grammar_set set = {.list = s->configs, .most = GRAMMAR_CONFIGS_MAX};
    s->n_frames = 0;
    s->ended = false;
    enter(s, &set, s->g->root, -1);
    s->n_configs = set.n;
    s->done = set.done;
}

err grammar_state_open(grammar *g, grammar_state **out) {
    *out = malloc(sizeof **out);
    if (!*out) return err_make(ERR_NOMEM, "no memory for the state of a grammar");
    (*out)->g = g;
    grammar_state_reset(*out);
    return err_none();
}

void grammar_state_close(grammar_state *s) { free(s); }

void grammar_state_copy(grammar_state *to, const grammar_state *from) {
    to->g = from->g;
    to->done = from->done;
    to->ended = from->ended;
    to->n_configs = from->n_configs;
    to->n_frames = from->n_frames;
    memcpy(to->configs, from->configs, (size_t)from->n_configs * sizeof *to->configs);
    memcpy(to->frames, from->frames, (size_t)from->n_frames * sizeof *to->frames);
}

bool grammar_done(const grammar_state *s) { return s->done || s->ended; }

bool grammar_greedy(const grammar_state *s) {
    for (int i = 0; i < s->n_configs; i++)
        if (!s->g->nodes[s->configs[i].node].syntax) return false;
    return s->n_configs > 0;
}
