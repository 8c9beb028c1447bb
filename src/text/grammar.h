/* grammar.h: which tokens may come next, so that the text becomes what was promised.
 *
 *     JSON Schema, tools, a list of strings  --grammar_compile-->  grammar (fixed)
 *     grammar  --state_open-->  state  --mask--> bits of ids --(sampling)--> id --accept--> state
 *
 * A grammar is a pushdown automaton over bytes: nodes (literal, small automaton, sequence,
 * alternative, repetition, object, single token) and, at run time, some configurations (terminal,
 * place in it, what comes afterwards). A token is allowed when its bytes lead some configuration
 * on. From every reachable configuration the end can be reached: what is allowed never leads into
 * a dead end (alternatives that could not be finished within the depth limit are not offered).
 *
 * Text it produces. JSON has one space or none, or a newline with at most 32 spaces or tabs, after
 * '{', '[', ',' and ':' and before '}' and ']' that are not first; nothing elsewhere. Properties
 * come in the order of the schema, optional ones may be left out; names that the schema does not
 * list are written without escapes. Integers have at most 15 digits; other numbers up to 15 before
 * and 16 after the point and two in the exponent. Strings are valid UTF-8 without U+0000; escapes
 * may not be surrogates. Added tokens (markup) never occur inside values.
 *
 * Threads: a vocabulary is fixed after open and may be shared; a grammar and its states belong to
 * one thread (its masks are remembered in it). No call after grammar_compile and
 * grammar_state_open allocates. */
#ifndef TEXT_GRAMMAR_H
#define TEXT_GRAMMAR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer.h"
#include "text/toolcall.h"

/* ---- vocabulary ---- */

typedef struct grammar_vocab grammar_vocab;

/* The tokens of a model, prepared: a trie of their bytes, and which of them continue a JSON string.
 * ids: how many logits the model gives (ids from tokenizer_size on have no bytes and are never
 * allowed). ends: what may follow a finished text (borrowed for the call). The tokenizer is
 * borrowed until close. Cost: docs/MEASURED.md, "constrained decoding". */
err grammar_vocab_open(const tokenizer *t, int ids, const int32_t *ends, int n_ends,
                       grammar_vocab **out) MUST_USE;
void grammar_vocab_close(grammar_vocab *v); /* NULL is fine */
/* 64-bit words of a mask. */
size_t grammar_vocab_words(const grammar_vocab *v);
size_t grammar_vocab_memory(const grammar_vocab *v);

/* ---- grammars ---- */

typedef enum grammar_kind {
    GRAMMAR_JSON_OBJECT, /* any JSON object */
    GRAMMAR_JSON_SCHEMA, /* schema */
    GRAMMAR_TOOLS,       /* calls of tools */
    GRAMMAR_CHOICE,      /* one of some strings */
    GRAMMAR_REGEX,       /* pattern, as in the keyword `pattern` */
} grammar_kind;

typedef struct grammar_spec {
    grammar_kind kind;
    const char *name;           /* of the request's field, for messages; must be set */
    const json_t *schema;       /* json_schema; borrowed for the call */
    const char *const *choices; /* choice */
    int n_choices;
    const char *pattern; /* regex */
    /* tools: one call at least, then more of them (parallel) or the end */
    const json_t *tools;           /* as in toolcall.h; borrowed for the call */
    const toolcall_format *format; /* qwen3-coder or hermes */
    const char *tool;              /* the one tool that must be called; NULL: any of them */
    bool parallel;
    bool after_opening; /* the text so far ends with <tool_call>: for tool_choice auto */
    /* Arguments follow the parameters' schema of every tool. Otherwise only of tools that say
     * "strict": true; those of the others are a JSON object, or parameters of any text. */
    bool strict;
    bool reasoning; /* the text begins inside a think block: free until </think> */
} grammar_spec;

typedef struct grammar grammar;

/* ERR_UNSUPPORTED names the keyword or construct and its place, ERR_CORRUPT a schema that is none,
 * ERR_RANGE what is too large, ERR_ARG a request that cannot be met (no such tool, no value fits).
 * v is borrowed until close. */
err grammar_compile(const grammar_vocab *v, const grammar_spec *spec, grammar **out) MUST_USE;
void grammar_close(grammar *g); /* NULL is fine */

/* ---- states ---- */

typedef struct grammar_state grammar_state;

/* At the beginning. g is borrowed until close. */
err grammar_state_open(grammar *g, grammar_state **out) MUST_USE;
void grammar_state_close(grammar_state *s); /* NULL is fine */
/* Both of the same grammar. Costs what is in use of 200 KB, mostly under 1 KB. */
void grammar_state_copy(grammar_state *to, const grammar_state *from);
void grammar_state_reset(grammar_state *s);

/* allowed [grammar_vocab_words]: the bit of every id that may come next. False when none may: after
 * the end was accepted (or when the vocabulary lacks bytes that are needed). */
bool grammar_mask(grammar_state *s, uint64_t *allowed);
/* The token that was chosen. False, and nothing changed, when it is not allowed. */
bool grammar_accept(grammar_state *s, int32_t id);
/* The text so far is complete; the end may come now. */
bool grammar_done(const grammar_state *s);
/* What comes next is syntax and not a value: pick the likeliest token instead of sampling. */
bool grammar_greedy(const grammar_state *s);

#endif
