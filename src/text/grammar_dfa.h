/* grammar_dfa.h: small automata over bytes, the terminals of grammars.
 *
 *     nfa builder:  states joined by edges [low .. high] and by empty edges
 *     dfa:          next[state][byte] = state | DFA_CHAR, or DFA_DEAD;   accept[state]
 *
 * A transition with DFA_CHAR completes one character of the string that the bytes spell (a code
 * point, or an escape that stands for one): lengths are counted in those. Whether a byte completes
 * a character depends only on the bytes before it, so the flag survives determinisation.
 *
 * Invariant of every finished dfa: from each state an accepting one can be reached (dead ends are
 * cut off), so that what was begun can be ended. A dfa without states accepts nothing. */
#ifndef TEXT_GRAMMAR_DFA_H
#define TEXT_GRAMMAR_DFA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DFA_CHAR       0x8000u
#define DFA_DEAD       0x7fffu
#define DFA_STATES_MAX 16384
#define NFA_STATES_MAX 20000

typedef struct dfa {
    int n;
    uint16_t (*next)[256]; /* owned */
    uint8_t *accept;       /* owned */
} dfa;

void dfa_free(dfa *d);
size_t dfa_bytes(const dfa *d);

typedef struct nfa_edge {
    uint8_t low, high;
    bool empty, completes; /* completes a character */
    int32_t to, sibling;   /* next edge of the same state, -1 */
} nfa_edge;

/* Zero-initialise; nfa_free releases. Failures (memory, NFA_STATES_MAX) are remembered and reported
 * by nfa_compile, so that building needs no checks. */
typedef struct nfa {
    int32_t *first; /* owned, [n_states] */
    nfa_edge *edges;
    int n_states, states_capacity, n_edges, edges_capacity;
    bool too_large, no_memory;
} nfa;

void nfa_free(nfa *a);
int nfa_state(nfa *a);
void nfa_range(nfa *a, int from, int low, int high, bool completes, int to);
void nfa_empty(nfa *a, int from, int to);
/* bytes one after the other; returns the last state. Completes no character. */
int nfa_literal(nfa *a, int from, const char *bytes, size_t length);

/* How a character is spelled. */
typedef enum nfa_spelling {
    NFA_RAW,       /* UTF-8 */
    NFA_JSON,      /* inside a JSON string, each character in one way: escaped where it must be */
    NFA_JSON_FREE, /* inside a JSON string, also with the escapes that it may have (no surrogates)
                    */
} nfa_spelling;

/* Every code point in [low, high] (surrogates and U+0000 left out) leads from `from` to `to`. */
void nfa_points(nfa *a, int from, uint32_t low, uint32_t high, nfa_spelling spelling, int to);

/* The automaton from start to accept. what names it in messages: ERR_RANGE when it is larger than
 * DFA_STATES_MAX or takes too long to make, ERR_NOMEM. */
err nfa_compile(const nfa *a, int start, int accept, const char *what, dfa *out) MUST_USE;

/* Keeps of d the strings that have low to high characters before they end (high < 0: no limit, only
 * low counts). Characters are the DFA_CHAR transitions. */
err dfa_limit_length(dfa *d, int low, int high, const char *what) MUST_USE;
/* Appends these bytes to every string of d. They complete no character, unless d could go on with
 * the same ones. */
err dfa_append(dfa *d, const char *bytes, size_t length, const char *what) MUST_USE;
/* Keeps of d the strings that `without` does not accept (each read from its own start). */
err dfa_subtract(dfa *d, const dfa *without, const char *what) MUST_USE;

#endif
