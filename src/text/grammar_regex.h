/* grammar_regex.h: the `pattern` keyword and numeric ranges as automata. */
#ifndef TEXT_GRAMMAR_REGEX_H
#define TEXT_GRAMMAR_REGEX_H

#include "text/grammar_dfa.h"

#define REGEX_BYTES_MAX  4096
#define REGEX_REPEAT_MAX 1000

/* The strings that an ECMAScript regular expression (with its u flag) finds a match in, spelled as
 * said. Known: literals, . \d \D \w \W \s \S \t \n \r \f \v \xHH \uHHHH \u{H} and escaped
 * punctuation, [classes], ( ) (?: ) |, * + ? {m} {m,} {m,n} (lazy or not is the same), ^ at the
 * beginning and $ at the end of an alternative at the outermost level. Anything else is
 * ERR_UNSUPPORTED naming the construct and its place; what names the expression. */
err regex_compile(const char *pattern, nfa_spelling spelling, const char *what, dfa *out) MUST_USE;

/* Adds paths from `from` to `to` for the decimal integers low .. high, without leading zeros; each
 * completes no character. low <= high, both within +-10^15. */
void nfa_integers(nfa *a, int from, int64_t low, int64_t high, int to);

#endif
