/* added.c: see added.h. */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/unicode.h"

static err new_node(added_set *s, uint8_t byte, uint32_t *out) {
    *out = 0;
    if (s->n_nodes == s->nodes_capacity) {
        uint32_t capacity = s->nodes_capacity ? s->nodes_capacity * 2 : 256;
        if (capacity > 1u << 26) return err_make(ERR_RANGE, "too many added tokens");
        added_node *nodes = realloc(s->nodes, capacity * sizeof *nodes);
        if (!nodes) return err_make(ERR_NOMEM, "no memory for the added tokens");
        s->nodes = nodes;
        s->nodes_capacity = capacity;
    }
    *out = s->n_nodes++;
    s->nodes[*out] = (added_node){.token = -1, .byte = byte};
    return err_none();
}

static uint32_t child_of(const added_set *s, uint32_t node, uint8_t byte) {
    uint32_t child = s->nodes[node].child;
    while (child && s->nodes[child].byte != byte) child = s->nodes[child].sibling;
    return child;
}

static err keep_token(added_set *s, added_token token) {
    if (s->n_tokens == s->tokens_capacity) {
        uint32_t capacity = s->tokens_capacity ? s->tokens_capacity * 2 : 64;
        added_token *tokens = realloc(s->tokens, capacity * sizeof *tokens);
        if (!tokens) return err_make(ERR_NOMEM, "no memory for the added tokens");
        s->tokens = tokens;
        s->tokens_capacity = capacity;
    }
    s->tokens[s->n_tokens++] = token;
    return err_none();
}

err added_add(added_set *s, const char *bytes, size_t length, added_token token) {
    uint32_t node = 0;
    if (s->n_nodes == 0) TRY(new_node(s, 0, &node));
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        uint32_t child = child_of(s, node, byte);
        if (!child) {
            TRY(new_node(s, byte, &child));
            s->nodes[child].sibling = s->nodes[node].child;
            s->nodes[node].child = child;
        }
        node = child;
    }
    TRY(keep_token(s, token));
    s->nodes[node].token = (int32_t)s->n_tokens - 1;
    s->begins[(uint8_t)bytes[0]] = true;
    return err_none();
}

void added_free(added_set *s) {
    free(s->nodes);
    free(s->tokens);
    *s = (added_set){0};
}

size_t added_memory(const added_set *s) {
    return s->nodes_capacity * sizeof *s->nodes + s->tokens_capacity * sizeof *s->tokens;
}

/* The longest token that text begins with, NULL for none. */
static const added_token *longest(const added_set *s, const char *text, size_t length,
                                  size_t *token_length) {
    const added_token *best = NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        node = child_of(s, node, (uint8_t)text[i]);
        if (!node) break;
        if (s->nodes[node].token >= 0) {
            best = &s->tokens[s->nodes[node].token];
            *token_length = i + 1;
        }
    }
    return best;
}

const added_token *added_find(const added_set *s, const char *bytes, size_t length) {
    size_t found = 0;
    uint32_t node = 0;
    if (s->n_nodes == 0 || length == 0) return NULL;
    for (; found < length; found++) {
        node = child_of(s, node, (uint8_t)bytes[found]);
        if (!node) return NULL;
    }
    return s->nodes[node].token >= 0 ? &s->tokens[s->nodes[node].token] : NULL;
}

static bool is_space(uint32_t c) {
    if ((c >= 9 && c <= 13) || c == 0x85) return true;
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

/* Letters, marks, decimal digits, letter numbers, connectors and joiners. */
static bool is_word(uint32_t c) {
    if (c == 0x200c || c == 0x200d) return true;
    utf8proc_category_t k = utf8proc_category((int32_t)unicode_standin(c));
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

/* The character that ends at `end`, its length or 0. */
static int decode_before(const char *text, size_t begin, size_t end, uint32_t *c) {
    for (int n = 1; n <= 4 && (size_t)n <= end - begin; n++) {
        if (utf8_decode(text + end - n, (size_t)n, c) == n) return n;
    }
    return 0;
}

static bool stands_alone(const char *text, size_t length, size_t begin, size_t end) {
    uint32_t c;
    if (decode_before(text, 0, begin, &c) && is_word(c)) return false;
    return !(utf8_decode(text + end, length - end, &c) && is_word(c));
}

/* Bytes from `at` on that may belong to one token. */
static size_t markup_length(const added_text *in, size_t at) {
    size_t n = in->length - at;
    if (!in->marks) return n;
    if (n > ADDED_BYTES_MAX) n = ADDED_BYTES_MAX;
    size_t i = 0;
    while (i < n && in->marks[at + i] == 0) i++;
    return i;
}

bool added_next(const added_set *s, const added_text *in, size_t taken, size_t *from,
                added_match *out) {
    const char *text = in->bytes;
    size_t length = in->length;
    if (s->n_tokens == 0) return false;
    for (size_t at = *from; at < length; at++) {
        size_t n = 0;
        const added_token *token =
            s->begins[(uint8_t)text[at]] ? longest(s, text + at, markup_length(in, at), &n) : NULL;
        if (!token) continue;
        if (token->single_word && !stands_alone(text, length, at, at + n)) {
            at += n - 1;
            continue;
        }
        uint32_t c;
        int step;
        *from = at + n;
        *out = (added_match){at, at + n, token->id};
        while (token->left_strip && out->begin > taken &&
               (step = decode_before(text, taken, out->begin, &c)) && is_space(c)) {
            out->begin -= (size_t)step;
        }
        while (token->right_strip && (step = utf8_decode(text + out->end, length - out->end, &c)) &&
               is_space(c)) {
            out->end += (size_t)step;
        }
        return true;
    }
    *from = length;
    return false;
}
