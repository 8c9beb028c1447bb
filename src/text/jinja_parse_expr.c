/* jinja_parse_expr.c: expressions, by recursive descent; the order of the functions is the order of
 * precedence, loosest first. The grammar is Jinja's own, with its peculiarities: filters and tests
 * bind tighter than any operator, "**" groups to the left. */
#include <stdarg.h>
#include <stdio.h>

#include "text/jinja_impl.h"

static jnode *parse_unary(jparser *p, bool with_filters);
static jnode *parse_concat(jparser *p);

/* A node with children a and b, or NULL when one is missing. */
static jnode *node_of(jparser *p, jkind kind, jop op, jnode *a, jnode *b) {
    if (!a || !b) return NULL;
    jnode *n = jparse_node(p, kind);
    if (!n) return NULL;
    n->op = op;
    n->a = a;
    n->b = b;
    n->line = a->line;
    return n;
}

/* left (op right)*: all operators from first to last, one level of precedence. */
static jnode *parse_binary(jparser *p, jop first, jop last, jnode *(*next)(jparser *)) {
    jnode *left = next(p);
    while (left && p->at->type == TOK_OP && p->at->op >= first && p->at->op <= last) {
        jop op = p->at++->op;
        left = node_of(p, K_BINARY, op, left, next(p));
    }
    return left;
}

static jnode *parse_unary_full(jparser *p) { return parse_unary(p, true); }

static jnode *parse_pow(jparser *p) { return parse_binary(p, OP_POW, OP_POW, parse_unary_full); }

static jnode *parse_product(jparser *p) { return parse_binary(p, OP_MUL, OP_MOD, parse_pow); }

static jnode *parse_concat(jparser *p) {
    jnode *first = parse_product(p);
    if (!first || !jparse_is_op(p, OP_TILDE)) return first;
    jnode *n = jparse_node(p, K_CONCAT);
    if (!jparse_push(p, n, first)) return NULL;
    while (jparse_skip_op(p, OP_TILDE)) {
        if (!jparse_push(p, n, parse_product(p))) return NULL;
    }
    return n;
}

static jnode *parse_sum(jparser *p) { return parse_binary(p, OP_ADD, OP_SUB, parse_concat); }

static bool comparison_at(jparser *p, jop *op) {
    *op = OP_NONE;
    if (p->at->type == TOK_OP && p->at->op >= OP_EQ && p->at->op <= OP_LE) *op = p->at->op;
    if (jparse_is_name(p, "in")) *op = OP_IN;
    if (jparse_is_name(p, "not") && p->at[1].type == TOK_NAME &&
        jtext_is(p->at[1].value.text, "in")) {
        *op = OP_NOT_IN;
        p->at++;
    }
    if (*op != OP_NONE) p->at++;
    return *op != OP_NONE;
}

static jnode *parse_comparison(jparser *p) {
    jnode *first = parse_sum(p), *n = NULL;
    jop op;
    while (first && comparison_at(p, &op)) {
        jnode *operand = jparse_node(p, K_OPERAND);
        if (!operand) return NULL;
        operand->op = op;
        operand->a = parse_sum(p);
        if (!operand->a) return NULL;
        if (!n && !(n = jparse_node(p, K_COMPARE))) return NULL;
        n->a = first;
        n->line = first->line;
        if (!jparse_push(p, n, operand)) return NULL;
    }
    return n ? n : first;
}

static jnode *parse_not(jparser *p) {
    if (!jparse_is_name(p, "not")) return parse_comparison(p);
    if (!jparse_enter(p)) return NULL;
    jnode *n = jparse_node(p, K_NOT);
    p->at++;
    if (n && !(n->a = parse_not(p))) n = NULL;
    p->depth--;
    return n;
}

static jnode *parse_and(jparser *p) {
    jnode *left = parse_not(p);
    while (left && jparse_skip_name(p, "and")) {
        left = node_of(p, K_AND, OP_NONE, left, parse_not(p));
    }
    return left;
}

static jnode *parse_or(jparser *p) {
    jnode *left = parse_and(p);
    while (left && jparse_skip_name(p, "or")) {
        left = node_of(p, K_OR, OP_NONE, left, parse_and(p));
    }
    return left;
}

/* value if test else other */
static jnode *parse_condition(jparser *p) {
    jnode *value = parse_or(p);
    while (value && jparse_skip_name(p, "if")) {
        jnode *n = node_of(p, K_IF_ELSE, OP_NONE, parse_or(p), value);
        if (n && jparse_skip_name(p, "else") && !(n->c = jparse_expression(p, true))) return NULL;
        value = n;
    }
    return value;
}

jnode *jparse_expression(jparser *p, bool with_condition) {
    if (!jparse_enter(p)) return NULL;
    jnode *n = with_condition ? parse_condition(p) : parse_or(p);
    p->depth--;
    return n;
}

/* ---- primaries ---- */

static bool ends_tuple(const jparser *p, const char *end) {
    jtoken_type type = p->at->type;
    return type == TOK_VARIABLE_END || type == TOK_BLOCK_END || jparse_is_op(p, OP_RPAREN) ||
           (end && jparse_is_name(p, end));
}

static jnode *parse_simple(jparser *p);

jnode *jparse_tuple(jparser *p, jtuple_rule rule) {
    int line = p->at->line;
    jnode *tuple = jparse_node(p, K_TUPLE);
    bool comma = false;
    while (tuple && !ends_tuple(p, rule.end)) {
        jnode *one = rule.simplified ? parse_simple(p) : jparse_expression(p, rule.with_condition);
        if (!jparse_push(p, tuple, one)) return NULL;
        if (!jparse_is_op(p, OP_COMMA)) break;
        p->at++;
        comma = true;
    }
    if (!tuple || comma) return tuple;
    if (tuple->n) return tuple->items[0];
    char room[64];
    if (rule.explicit_parentheses) return tuple;
    return jparse_fail(p, ERR_CORRUPT, "expected an expression, found %s (line %d)",
                       jparse_token(p->at, room), line);
}

static jnode *parse_list(jparser *p) {
    jnode *n = jparse_node(p, K_LIST);
    while (n && !jparse_is_op(p, OP_RBRACKET)) {
        if (n->n && !jparse_expect_op(p, OP_COMMA)) return NULL;
        if (jparse_is_op(p, OP_RBRACKET)) break;
        if (!jparse_push(p, n, jparse_expression(p, true))) return NULL;
    }
    p->at++;
    return n;
}

static jnode *parse_dict(jparser *p) {
    jnode *n = jparse_node(p, K_DICT);
    while (n && !jparse_is_op(p, OP_RBRACE)) {
        if (n->n && !jparse_expect_op(p, OP_COMMA)) return NULL;
        if (jparse_is_op(p, OP_RBRACE)) break;
        if (!jparse_push(p, n, jparse_expression(p, true)) || !jparse_expect_op(p, OP_COLON) ||
            !jparse_push(p, n, jparse_expression(p, true))) {
            return NULL;
        }
    }
    p->at++;
    return n;
}

static jnode *constant(jparser *p, jvalue value) {
    jnode *n = jparse_node(p, K_CONST);
    if (n) n->value = value;
    return n;
}

/* Macros give `varargs`, `kwargs` and `caller` only when their body names them. */
static void note_use(jparser *p, const jtext *name) {
    int use = jtext_is(name, "varargs")  ? USES_VARARGS
              : jtext_is(name, "kwargs") ? USES_KWARGS
              : jtext_is(name, "caller") ? USES_CALLER
                                         : 0;
    for (int i = 0; use && i < p->n_macros; i++) p->macros[i]->uses |= (uint8_t)use;
}

static jnode *parse_name(jparser *p) {
    jtext *name = p->at->value.text;
    jnode *n;
    if (jtext_is(name, "true") || jtext_is(name, "True")) {
        n = constant(p, jbool(true));
    } else if (jtext_is(name, "false") || jtext_is(name, "False")) {
        n = constant(p, jbool(false));
    } else if (jtext_is(name, "none") || jtext_is(name, "None")) {
        n = constant(p, jnone());
    } else {
        n = jparse_node(p, K_NAME);
        if (n) n->name = name;
        note_use(p, name);
    }
    p->at++;
    return n;
}

/* Strings in a row are one string. */
static jnode *parse_constant(jparser *p) {
    jnode *n = constant(p, p->at++->value);
    while (n && n->value.type == J_TEXT && p->at->type == TOK_CONST &&
           p->at->value.type == J_TEXT) {
        jtext *a = n->value.text, *b = p->at++->value.text;
        jtext *both = jpool_alloc(&p->t->pool, sizeof *both);
        char *bytes = jpool_alloc(&p->t->pool, a->length + b->length);
        if (!both || !bytes) return jparse_fail(p, ERR_NOMEM, "the template is too large");
        memcpy(bytes, a->bytes, a->length);
        memcpy(bytes + a->length, b->bytes, b->length);
        *both =
            (jtext){.bytes = bytes, .length = a->length + b->length, .chars = a->chars + b->chars};
        both->hash = jtext_hash(both);
        n->value = jstring(both);
    }
    return n;
}

static jnode *parse_primary(jparser *p) {
    if (p->at->type == TOK_NAME) return parse_name(p);
    if (p->at->type == TOK_CONST) return parse_constant(p);
    jnode *n = NULL;
    if (!jparse_enter(p)) return NULL;
    if (jparse_skip_op(p, OP_LPAREN)) {
        n = jparse_tuple(p, (jtuple_rule){.with_condition = true, .explicit_parentheses = true});
        if (n && !jparse_expect_op(p, OP_RPAREN)) n = NULL;
    } else if (jparse_skip_op(p, OP_LBRACKET)) {
        n = parse_list(p);
    } else if (jparse_skip_op(p, OP_LBRACE)) {
        n = parse_dict(p);
    } else {
        char room[64];
        jparse_fail(p, ERR_CORRUPT, "expected an expression, found %s", jparse_token(p->at, room));
    }
    p->depth--;
    return n;
}

static jnode *parse_simple(jparser *p) { return parse_primary(p); }

/* ---- what may follow a primary ---- */

/* One index: x, or a slice a:b:c with any part left out. */
static jnode *parse_index(jparser *p) {
    jnode *part[3] = {NULL};
    int line = p->at->line, n = 0;
    if (!jparse_is_op(p, OP_COLON)) {
        part[0] = jparse_expression(p, true);
        if (!part[0] || !jparse_is_op(p, OP_COLON)) return part[0];
    }
    while (n < 2 && jparse_skip_op(p, OP_COLON)) {
        n++;
        bool empty =
            jparse_is_op(p, OP_COLON) || jparse_is_op(p, OP_RBRACKET) || jparse_is_op(p, OP_COMMA);
        if (!empty && !(part[n] = jparse_expression(p, true))) return NULL;
    }
    jnode *slice = jparse_node(p, K_SLICE);
    if (!slice) return NULL;
    slice->line = line;
    slice->a = part[0];
    slice->b = part[1];
    slice->c = part[2];
    return slice;
}

static jnode *parse_subscript(jparser *p, jnode *object) {
    jnode *index = parse_index(p);
    if (index && jparse_is_op(p, OP_COMMA)) {
        jnode *tuple = jparse_node(p, K_TUPLE);
        if (!jparse_push(p, tuple, index)) return NULL;
        while (jparse_skip_op(p, OP_COMMA)) {
            if (!jparse_push(p, tuple, parse_index(p))) return NULL;
        }
        index = tuple;
    }
    if (!index || !jparse_expect_op(p, OP_RBRACKET)) return NULL;
    return node_of(p, K_ITEM, OP_NONE, object, index);
}

static jnode *parse_attribute(jparser *p, jnode *object) {
    const jtoken *token = p->at;
    if (token->type == TOK_NAME) {
        jnode *n = jparse_node(p, K_ATTR);
        if (!n) return NULL;
        n->a = object;
        n->name = token->value.text;
        p->at++;
        return n;
    }
    if (token->type == TOK_CONST && token->value.type == J_INT) {
        p->at++;
        return node_of(p, K_ITEM, OP_NONE, object, constant(p, token->value));
    }
    char room[64];
    return jparse_fail(p, ERR_CORRUPT, "expected a name after '.', found %s",
                       jparse_token(token, room));
}

/* One argument: x, name=x, *x or **x. */
static jnode *parse_argument(jparser *p) {
    jkind kind = jparse_is_op(p, OP_MUL) ? K_STAR : jparse_is_op(p, OP_POW) ? K_STARSTAR : K_KWARG;
    bool named = p->at->type == TOK_NAME && p->at[1].type == TOK_OP && p->at[1].op == OP_ASSIGN;
    if (kind == K_KWARG && !named) return jparse_expression(p, true);
    jnode *n = jparse_node(p, kind);
    if (!n) return NULL;
    if (named) n->name = p->at++->value.text;
    p->at++;
    n->a = jparse_expression(p, true);
    return n->a ? n : NULL;
}

/* The order that Python wants: x, then name=x and *x, then **x. */
static bool check_arguments(jparser *p, const jnode *call) {
    int stage = 0;
    for (int i = 0; i < call->n; i++) {
        jkind kind = call->items[i]->kind;
        int next = kind == K_KWARG ? 1 : kind == K_STAR ? 2 : kind == K_STARSTAR ? 3 : 0;
        bool good = next == 0   ? stage == 0
                    : next == 1 ? stage < 3
                    : next == 2 ? stage < 2
                                : stage < 3;
        if (!good) {
            jparse_fail(p, ERR_CORRUPT, "invalid order of arguments in a call");
            return false;
        }
        if (next > stage) stage = next;
    }
    return true;
}

bool jparse_call_arguments(jparser *p, jnode *call) {
    if (!call || !jparse_expect_op(p, OP_LPAREN)) return false;
    bool comma = true;
    while (!jparse_is_op(p, OP_RPAREN)) {
        if (!comma) return jparse_expect_op(p, OP_COMMA);
        if (!jparse_push(p, call, parse_argument(p))) return false;
        comma = jparse_skip_op(p, OP_COMMA);
    }
    p->at++;
    return check_arguments(p, call);
}

static jnode *parse_call(jparser *p, jnode *callee) {
    jnode *n = jparse_node(p, K_CALL);
    if (n) n->a = callee;
    return jparse_call_arguments(p, n) ? n : NULL;
}

static jnode *parse_postfix(jparser *p, jnode *n) {
    for (;;) {
        if (!n) return NULL;
        if (jparse_skip_op(p, OP_DOT)) {
            n = parse_attribute(p, n);
        } else if (jparse_skip_op(p, OP_LBRACKET)) {
            n = parse_subscript(p, n);
        } else if (jparse_is_op(p, OP_LPAREN)) {
            n = parse_call(p, n);
        } else {
            return n;
        }
    }
}

/* name, or dotted.name */
static jtext *parse_dotted(jparser *p) {
    jtext *name = jparse_expect_name(p);
    if (name && jparse_is_op(p, OP_DOT)) {
        jparse_fail(p, ERR_UNSUPPORTED, "a filter or test with a dot in its name: %.*s.",
                    (int)name->length, name->bytes);
        return NULL;
    }
    return name;
}

static jnode *parse_filter(jparser *p, jnode *input) {
    jnode *n = jparse_node(p, K_FILTER);
    if (!n || !(n->name = parse_dotted(p))) return NULL;
    n->a = input;
    n->fn = jfind_filter(n->name);
    if (jparse_is_op(p, OP_LPAREN) && !jparse_call_arguments(p, n)) return NULL;
    return n;
}

/* Does something follow that can be a test's argument without brackets? */
static bool argument_follows(const jparser *p) {
    if (jparse_is_name(p, "else") || jparse_is_name(p, "or") || jparse_is_name(p, "and")) {
        return false;
    }
    return p->at->type == TOK_NAME || p->at->type == TOK_CONST || jparse_is_op(p, OP_LPAREN) ||
           jparse_is_op(p, OP_LBRACKET) || jparse_is_op(p, OP_LBRACE);
}

static jnode *parse_test(jparser *p, jnode *value) {
    jnode *n = jparse_node(p, K_TEST);
    bool negated = jparse_skip_name(p, "not");
    if (!n || !(n->name = parse_dotted(p))) return NULL;
    n->a = value;
    n->fn = jfind(jinja_tests, n->name);
    if (jparse_is_op(p, OP_LPAREN)) {
        if (!jparse_call_arguments(p, n)) return NULL;
    } else if (argument_follows(p)) {
        if (jparse_is_name(p, "is")) {
            return jparse_fail(p, ERR_CORRUPT, "tests with 'is' cannot be chained");
        }
        if (!jparse_push(p, n, parse_postfix(p, parse_primary(p)))) return NULL;
    }
    if (!negated) return n;
    jnode *no = jparse_node(p, K_NOT);
    if (no) no->a = n;
    return no;
}

jnode *jparse_filters(jparser *p, jnode *n, bool inline_start) {
    for (;;) {
        if (!n) return NULL;
        if (inline_start || jparse_skip_op(p, OP_PIPE)) {
            n = parse_filter(p, n);
        } else if (n->kind != K_HOLE && jparse_skip_name(p, "is")) {
            n = parse_test(p, n);
        } else if (n->kind != K_HOLE && jparse_is_op(p, OP_LPAREN)) {
            n = parse_call(p, n);
        } else {
            return n;
        }
        inline_start = false;
    }
}

static jnode *parse_unary(jparser *p, bool with_filters) {
    jnode *n;
    bool sign = jparse_is_op(p, OP_SUB) || jparse_is_op(p, OP_ADD);
    if (sign) {
        if (!jparse_enter(p)) return NULL;
        n = jparse_node(p, jparse_is_op(p, OP_SUB) ? K_NEG : K_POS);
        p->at++;
        if (n && !(n->a = parse_unary(p, false))) n = NULL;
        p->depth--;
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    return with_filters ? jparse_filters(p, n, false) : n;
}
