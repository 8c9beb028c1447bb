/* grammar_impl.h: what the grammar_*.c files share; nobody else includes it. */
#ifndef TEXT_GRAMMAR_IMPL_H
#define TEXT_GRAMMAR_IMPL_H

#include "text/grammar.h"
#include "text/grammar_dfa.h"
#include "text/schema.h"
#include "text/text_buf.h"

/* ---- vocabulary: grammar_vocab.c ---- */

#define TOKEN_BYTES_MAX 256 /* a longer token is never allowed */

/* Tokens by their bytes, in preorder: the subtree of node i is [i + 1, end[i]). Node 0 is the root;
 * its children are also in root_child. Added tokens and the ends are not in it. */
typedef struct grammar_trie {
    int n;
    uint8_t *byte;
    int32_t *end;
    int32_t *token;          /* -1: none */
    int32_t *same;           /* [ids]: another token of the same bytes, -1 */
    int32_t root_child[256]; /* -1: none */
} grammar_trie;

/* A node of the trie where an automaton accepts: what comes after it may begin there. */
typedef struct grammar_exit {
    int32_t node;
    int32_t characters; /* completed on the way, and needed from there on */
} grammar_exit;

/* What one state of an automaton allows by itself. */
typedef struct grammar_table {
    uint64_t *inside;           /* tokens that stay within it; NULL: they are in ids */
    int32_t *ids;               /* ascending by characters where by_characters is set */
    int32_t *characters;        /* [n_ids] or NULL */
    int n_ids, n_exits, n_deep; /* exits [0, n_deep) have nodes below them */
    grammar_exit *exits;
    int characters_most; /* of any token here */
} grammar_table;

/* Automata that every grammar may use, with the tables of all their states. */
typedef enum grammar_shared {
    SHARED_STRING, /* rest of a JSON string, its closing quote too */
    SHARED_KEY,    /* the same without escapes */
    SHARED_TEXT,   /* anything up to and with the end of a parameter */
    SHARED_SHORT,  /* the same without '<' before that: its characters can be counted */
    SHARED_FREE,   /* any characters; left by a token only */
    SHARED_COUNT
} grammar_shared;

#define PARAMETER_CLOSE "\n</parameter>"

typedef struct grammar_machine {
    dfa d;
    uint8_t *needs;     /* [n] or NULL: characters that are completed at least on the way to an
                           accepting     state; only with it can lengths be limited */
    uint8_t *closing;   /* [n] or NULL: no further character is counted from here on, so what must
                           be counted has to be by now */
    int extra;          /* of the characters counted at an accepting state, those of what closes the
                           value */
    uint8_t *ends;      /* [n]: nothing leads on */
    bool left_by_token; /* accepting states are left by a single token only: no exits */
    grammar_table *tables; /* [n], or NULL: made when needed, in the grammar's slots */
} grammar_machine;

struct grammar_vocab {
    const tokenizer *tokenizer; /* borrowed */
    int ids;
    size_t words;
    grammar_trie trie;
    int32_t *ends; /* owned */
    int n_ends;
    size_t memory;
    grammar_machine shared[SHARED_COUNT];
};

err grammar_machine_open(dfa *d, const char *what,
                         grammar_machine *out) MUST_USE; /* takes d over */
void grammar_machine_close(grammar_machine *m);

/* Room for one table, filled again and again. */
typedef struct grammar_scratch {
    int32_t *ids, *characters; /* [ids_most] */
    grammar_exit *exits;       /* [exits_most] */
    int ids_most, exits_most;
    int n_ids, n_exits;
    int characters_most;
    bool full;
} grammar_scratch;

/* Walks the trie from state q of m and fills s. */
void grammar_scan(const grammar_vocab *v, const grammar_machine *m, int q, grammar_scratch *s);

/* ---- grammar: grammar_build.c, grammar_json.c, grammar_tools.c ---- */

typedef enum grammar_node_kind {
    NODE_LITERAL,  /* a, b: bytes [a, a + b) of text */
    NODE_MACHINE,  /* a: machine (shared ones first); low, high: characters, high < 0: no limit */
    NODE_TOKEN,    /* a: id */
    NODE_SEQUENCE, /* a, b: children [a, a + b) */
    NODE_CHOICE,   /* a, b: children */
    NODE_REPEAT,   /* a, b: children for the first items; c: for the others; low, high: how many */
    NODE_OBJECT,   /* a, b: properties, PROPERTY_INTS children each; c: OBJECT_* children */
} grammar_node_kind;

/* children of an object at a: first among all, after another, required (0 or 1) */
enum { PROPERTY_FIRST, PROPERTY_NEXT, PROPERTY_REQUIRED, PROPERTY_INTS };
/* and at c: another property, first or after others (-1: none); the end without and with any */
enum { OBJECT_MORE_FIRST, OBJECT_MORE_NEXT, OBJECT_END_EMPTY, OBJECT_END, OBJECT_INTS };

#define NEED_NEVER (1 << 20)

typedef struct grammar_node {
    uint8_t kind;
    bool syntax; /* terminals: sampled greedily */
    int32_t a, b, c, low, high;
    int32_t need; /* frames that it needs at least, NEED_NEVER: cannot be finished */
} grammar_node;

#define GRAMMAR_SLOTS 24

typedef struct grammar_slot { /* a remembered table of one of the grammar's own machines */
    int machine, state;       /* -1: free */
    grammar_table table;
} grammar_slot;

struct grammar {
    const grammar_vocab *v; /* borrowed */
    grammar_node *nodes;
    int32_t *children;
    int n_nodes, nodes_capacity, n_children, children_capacity, root;
    text_buf text;
    grammar_machine *machines; /* its own: number SHARED_COUNT and up */
    int n_machines, machines_capacity;
    grammar_slot slots[GRAMMAR_SLOTS];
    int next_slot;
    grammar_scratch scratch;
    /* while compiling */
    const char *name;
    err e;                                                  /* the first failure */
    int any_value, any_object, whitespace, number, integer; /* nodes that are made once, or -1 */
    size_t machine_bytes;
};

static inline const grammar_machine *grammar_machine_at(const grammar *g, int i) {
    return i < SHARED_COUNT ? &g->v->shared[i] : &g->machines[i - SHARED_COUNT];
}

/* Nodes. After a failure (g->e) they return 0. syntax: sampled greedily. */
int grammar_literal(grammar *g, const char *bytes, size_t length, bool syntax);
int grammar_markup(grammar *g, const char *text); /* added tokens in it become single tokens */
/* low to high characters (high < 0: no limit). */
int grammar_machine_node(grammar *g, int machine, int low, int high, bool syntax);
int grammar_sequence(grammar *g, const int *nodes, int n);
int grammar_choice(grammar *g, const int *nodes, int n);
/* The first n_first items are first[i], the others `other` (-1: none). */
int grammar_repeat(grammar *g, const int *first, int n_first, int other, int low, int high);
/* properties: PROPERTY_INTS each; ends: OBJECT_INTS. */
int grammar_object(grammar *g, const int *properties, int n, const int *ends);
/* A node to be filled later (recursion), and what fills it. */
int grammar_reserve(grammar *g);
void grammar_become(grammar *g, int node, int other);
/* Takes d over; returns the machine's number. */
int grammar_add_machine(grammar *g, dfa *d);
void grammar_fail(grammar *g, err e);
/* One of these texts, each followed by `after`. */
int grammar_one_of(grammar *g, const text_buf *texts, int n, const char *after, bool syntax);
int grammar_whitespace(grammar *g);

/* How a value is written. */
typedef enum grammar_style {
    STYLE_JSON,
    STYLE_PARAMETER, /* the text of a tagged parameter and PARAMETER_CLOSE: strings as they are */
} grammar_style;

/* grammar_json.c: values of schemas; s is borrowed for the call. */
int grammar_schema_value(grammar *g, const schema *s);
int grammar_any_object(grammar *g);
/* Properties as <parameter=NAME> ... </parameter>, in any object that the schema describes; `end`
 * is what comes after them. */
int grammar_schema_parameters(grammar *g, const schema *s, int end);

/* grammar_tools.c */
int grammar_tools(grammar *g, const grammar_spec *spec);

/* ---- state: grammar.c ---- */

#define GRAMMAR_DEPTH_MAX   400 /* frames below each other */
#define GRAMMAR_FRAMES_MAX  4096
#define GRAMMAR_CONFIGS_MAX 512

/* What comes after a terminal: node, from pos on; then parent. */
typedef struct grammar_frame {
    int32_t node, pos, count, parent; /* parent -1: the end */
    int32_t depth;
} grammar_frame;

typedef struct grammar_config {
    int32_t node, pos, count, parent; /* a terminal */
} grammar_config;

/* A set of configurations that grows at the end of an array. */
typedef struct grammar_set {
    grammar_config *list;
    int n, most;
    bool done; /* nothing need come any more */
} grammar_set;

struct grammar_state {
    grammar *g;
    bool done, ended; /* ended: an end token was accepted */
    int n_configs, n_frames;
    grammar_config configs[GRAMMAR_CONFIGS_MAX];
    grammar_frame frames[GRAMMAR_FRAMES_MAX];
    /* scratch of accept and mask */
    grammar_config other[GRAMMAR_CONFIGS_MAX * 2];
    int32_t moved[GRAMMAR_FRAMES_MAX];
};

/* What may come after `parent`: its terminals are added to out. */
void grammar_leave(grammar_state *s, grammar_set *out, int parent);
/* A machine's transition with its count, in *c. False: not possible. */
bool grammar_machine_step(const grammar *g, grammar_config *c, uint8_t byte);
/* The machine may be left in this state. */
bool grammar_machine_accepts(const grammar *g, const grammar_config *c);

#endif
