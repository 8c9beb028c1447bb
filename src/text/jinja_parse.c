/* jinja_parse.c: tokens to statements. Every tag that Jinja has and chat templates cannot use
 * (files, inheritance, translation) is refused by name. */
#include <stdarg.h>
#include <stdio.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

/* ---- helpers of both files ---- */

jnode *jparse_fail(jparser *p, err_code code, const char *format, ...) {
    if (p->error.code) return NULL;
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    p->error = err_make(code, "%s: line %d: %s", p->t->name, p->at->line, sentence);
    return NULL;
}

jnode *jparse_node(jparser *p, jkind kind) {
    jnode *n = jpool_alloc(&p->t->pool, sizeof *n);
    if (!n) return jparse_fail(p, ERR_NOMEM, "the template is too large");
    n->kind = kind;
    n->line = p->at->line;
    return n;
}

/* The capacity of items is the power of two at or above n. */
bool jparse_push(jparser *p, jnode *parent, jnode *child) {
    if (!parent || !child) return false;
    if ((parent->n & (parent->n - 1)) == 0) {
        size_t capacity = parent->n ? 2 * (size_t)parent->n : 1;
        jnode **items = jpool_alloc(&p->t->pool, capacity * sizeof(jnode *));
        if (!items) {
            jparse_fail(p, ERR_NOMEM, "the template is too large");
            return false;
        }
        if (parent->n) memcpy(items, parent->items, (size_t)parent->n * sizeof(jnode *));
        parent->items = items;
    }
    parent->items[parent->n++] = child;
    return true;
}

bool jparse_is_op(const jparser *p, jop op) { return p->at->type == TOK_OP && p->at->op == op; }

bool jparse_is_name(const jparser *p, const char *name) {
    return p->at->type == TOK_NAME && jtext_is(p->at->value.text, name);
}

bool jparse_skip_op(jparser *p, jop op) {
    bool yes = jparse_is_op(p, op);
    p->at += yes;
    return yes;
}

bool jparse_skip_name(jparser *p, const char *name) {
    bool yes = jparse_is_name(p, name);
    p->at += yes;
    return yes;
}

const char *jparse_token(const jtoken *token, char room[64]) {
    static const char *const names[] = {
        [TOK_DATA] = "text",        [TOK_VARIABLE_BEGIN] = "{{",
        [TOK_VARIABLE_END] = "}}",  [TOK_BLOCK_BEGIN] = "{%",
        [TOK_BLOCK_END] = "%}",     [TOK_NAME] = "a name",
        [TOK_CONST] = "a constant", [TOK_OP] = "",
        [TOK_END] = "the end",
    };
    if (token->type == TOK_OP) {
        snprintf(room, 64, "'%s'", jop_text(token->op));
    } else if (token->type == TOK_NAME) {
        snprintf(room, 64, "'%.*s'", (int)size_min(token->value.text->length, 50),
                 token->value.text->bytes);
    } else {
        snprintf(room, 64, "%s", names[token->type]);
    }
    return room;
}

bool jparse_expect_op(jparser *p, jop op) {
    if (jparse_skip_op(p, op)) return true;
    char room[64];
    jparse_fail(p, ERR_CORRUPT, "expected '%s', found %s", jop_text(op), jparse_token(p->at, room));
    return false;
}

jtext *jparse_expect_name(jparser *p) {
    if (p->at->type == TOK_NAME) return p->at++->value.text;
    char room[64];
    jparse_fail(p, ERR_CORRUPT, "expected a name, found %s", jparse_token(p->at, room));
    return NULL;
}

bool jparse_enter(jparser *p) {
    if (p->depth == JINJA_PARSE_DEPTH) {
        jparse_fail(p, ERR_RANGE, "nested more than %d deep", JINJA_PARSE_DEPTH);
        return false;
    }
    p->depth++;
    return true;
}

static bool expect_type(jparser *p, jtoken_type type) {
    if (p->at->type == type) {
        p->at++;
        return true;
    }
    char room[64], other[64];
    jtoken wanted = {.type = type};
    jparse_fail(p, ERR_CORRUPT, "expected %s, found %s", jparse_token(&wanted, other),
                jparse_token(p->at, room));
    return false;
}

/* ---- targets of assignments ---- */

static bool can_assign(jparser *p, const jnode *n) {
    if (n->kind == K_NAME || n->kind == K_NSREF) return true;
    for (int i = 0; n->kind == K_TUPLE && i < n->n; i++) {
        if (!can_assign(p, n->items[i])) return false;
    }
    if (n->kind == K_TUPLE) return true;
    jparse_fail(p, ERR_CORRUPT, "cannot assign to this expression");
    return false;
}

static jnode *parse_nsref(jparser *p) {
    jnode *n = jparse_node(p, K_NSREF);
    if (!n) return NULL;
    n->value = p->at->value;
    n->name = p->at[2].value.text;
    p->at += 3;
    return n;
}

jnode *jparse_target(jparser *p, bool name_only, bool with_namespace, const char *end) {
    bool dotted = p->at->type == TOK_NAME && p->at[1].type == TOK_OP && p->at[1].op == OP_DOT;
    if (with_namespace && dotted && p->at[2].type == TOK_NAME) return parse_nsref(p);
    jnode *n = NULL;
    if (name_only) {
        n = jparse_node(p, K_NAME);
        jtext *name = jparse_expect_name(p);
        if (!n || !name) return NULL;
        n->name = name;
        bool constant = jtext_is(name, "true") || jtext_is(name, "false") ||
                        jtext_is(name, "none") || jtext_is(name, "True") ||
                        jtext_is(name, "False") || jtext_is(name, "None");
        if (constant) return jparse_fail(p, ERR_CORRUPT, "cannot assign to a constant");
    } else {
        n = jparse_tuple(p, (jtuple_rule){.simplified = true, .with_condition = true, .end = end});
    }
    return n && can_assign(p, n) ? n : NULL;
}

/* ---- statements ---- */

/* A list of up to three names that end a body. */
typedef struct ends {
    const char *name[4];
} ends;

static jnode *parse_body(jparser *p, ends until);

static bool is_end(const jparser *p, const ends *until) {
    for (int i = 0; until->name[i]; i++) {
        if (jparse_is_name(p, until->name[i])) return true;
    }
    return false;
}

/* The body behind "%}" up to one of `until`, whose name is then the next token. */
static jnode *parse_block(jparser *p, ends until) {
    jparse_skip_op(p, OP_COLON);
    if (!expect_type(p, TOK_BLOCK_END)) return NULL;
    jnode *body = parse_body(p, until);
    if (body && p->at->type == TOK_END) {
        return jparse_fail(p, ERR_CORRUPT, "the template ends before {%% %s %%}", until.name[0]);
    }
    return body;
}

static jnode *parse_if(jparser *p) {
    jnode *n = jparse_node(p, K_IF);
    const ends until = {{"endif", "else", "elif"}};
    for (;;) {
        if (!jparse_push(p, n, jparse_tuple(p, (jtuple_rule){.with_condition = false})))
            return NULL;
        if (!jparse_push(p, n, parse_block(p, until))) return NULL;
        if (jparse_skip_name(p, "elif")) continue;
        if (jparse_skip_name(p, "else")) {
            n->c = parse_block(p, (ends){{"endif"}});
            if (!n->c) return NULL;
        }
        p->at++; /* endif */
        return n;
    }
}

static jnode *parse_for(jparser *p) {
    jnode *n = jparse_node(p, K_FOR);
    if (!n || !(n->a = jparse_target(p, false, false, "in"))) return NULL;
    if (!jparse_skip_name(p, "in")) {
        return jparse_fail(p, ERR_CORRUPT, "expected 'in' in {%% for %%}");
    }
    n->b = jparse_tuple(p, (jtuple_rule){.with_condition = false, .end = "recursive"});
    if (!n->b) return NULL;
    if (jparse_skip_name(p, "if") && !(n->c = jparse_expression(p, true))) return NULL;
    n->recursive = jparse_skip_name(p, "recursive");
    p->loops++;
    n->d = parse_block(p, (ends){{"endfor", "else"}});
    p->loops--;
    if (!n->d) return NULL;
    if (jparse_skip_name(p, "else") && !(n->e = parse_block(p, (ends){{"endfor"}}))) return NULL;
    p->at++;
    return n;
}

static jnode *parse_set(jparser *p) {
    jnode *n = jparse_node(p, K_SET);
    if (!n || !(n->a = jparse_target(p, false, true, NULL))) return NULL;
    if (jparse_skip_op(p, OP_ASSIGN)) {
        n->b = jparse_tuple(p, (jtuple_rule){.with_condition = true});
        return n->b ? n : NULL;
    }
    n->kind = K_SET_BLOCK;
    if (jparse_is_op(p, OP_PIPE)) {
        n->c = jparse_filters(p, jparse_node(p, K_HOLE), false);
        if (!n->c) return NULL;
    }
    n->b = parse_block(p, (ends){{"endset"}});
    p->at++;
    return n->b ? n : NULL;
}

static jnode *parse_with(jparser *p) {
    jnode *n = jparse_node(p, K_WITH);
    while (n && p->at->type != TOK_BLOCK_END) {
        if (n->n && !jparse_expect_op(p, OP_COMMA)) return NULL;
        jnode *target = jparse_target(p, false, false, NULL);
        if (!jparse_push(p, n, target) || !jparse_expect_op(p, OP_ASSIGN) ||
            !jparse_push(p, n, jparse_expression(p, true))) {
            return NULL;
        }
    }
    if (!n || !(n->b = parse_block(p, (ends){{"endwith"}}))) return NULL;
    p->at++;
    return n;
}

/* (a, b=1) into items of the macro. */
static bool parse_signature(jparser *p, jnode *macro) {
    if (!jparse_expect_op(p, OP_LPAREN)) return false;
    bool defaults = false;
    while (!jparse_is_op(p, OP_RPAREN)) {
        if (macro->n && !jparse_expect_op(p, OP_COMMA)) return false;
        jnode *param = jparse_node(p, K_PARAM);
        if (!param || !(param->name = jparse_expect_name(p))) return false;
        if (jparse_skip_op(p, OP_ASSIGN)) {
            defaults = true;
            if (!(param->a = jparse_expression(p, true))) return false;
        } else if (defaults) {
            jparse_fail(p, ERR_CORRUPT, "an argument without a default follows one with a default");
            return false;
        }
        if (!jparse_push(p, macro, param)) return false;
    }
    p->at++;
    return true;
}

/* The body of a macro or call block; loops outside of it are not its own. */
static bool parse_macro_body(jparser *p, jnode *macro, const char *end) {
    if (p->n_macros == JINJA_PARSE_DEPTH) {
        jparse_fail(p, ERR_RANGE, "macros are nested too deeply");
        return false;
    }
    int loops = p->loops;
    p->loops = 0;
    p->macros[p->n_macros++] = macro;
    macro->b = parse_block(p, (ends){{end}});
    p->n_macros--;
    p->loops = loops;
    p->at++;
    return macro->b != NULL;
}

static jnode *parse_macro(jparser *p) {
    jnode *n = jparse_node(p, K_MACRO);
    jnode *name = jparse_target(p, true, false, NULL);
    if (!n || !name) return NULL;
    n->name = name->name;
    return parse_signature(p, n) && parse_macro_body(p, n, "endmacro") ? n : NULL;
}

static jnode *parse_call_block(jparser *p) {
    jnode *n = jparse_node(p, K_CALL_BLOCK), *macro = jparse_node(p, K_MACRO);
    if (!n || !macro) return NULL; /* this macro has no name */
    if (jparse_is_op(p, OP_LPAREN) && !parse_signature(p, macro)) return NULL;
    n->a = jparse_expression(p, true);
    n->c = macro;
    if (n->a && n->a->kind != K_CALL) {
        return jparse_fail(p, ERR_CORRUPT, "expected a call in {%% call %%}");
    }
    return n->a && parse_macro_body(p, macro, "endcall") ? n : NULL;
}

static jnode *parse_filter_block(jparser *p) {
    jnode *n = jparse_node(p, K_FILTER_BLOCK);
    if (!n || !(n->c = jparse_filters(p, jparse_node(p, K_HOLE), true))) return NULL;
    n->b = parse_block(p, (ends){{"endfilter"}});
    p->at++;
    return n->b ? n : NULL;
}

/* transformers marks what the assistant wrote with it; only training looks at that. */
static jnode *parse_generation(jparser *p) {
    jnode *n = jparse_node(p, K_SCOPE);
    if (!n || !(n->b = parse_block(p, (ends){{"endgeneration"}}))) return NULL;
    p->at++;
    return n;
}

static jnode *parse_jump(jparser *p, jkind kind) {
    if (!p->loops) {
        return jparse_fail(p, ERR_CORRUPT, "break or continue outside of a loop");
    }
    return jparse_node(p, kind);
}

static jnode *parse_print(jparser *p) {
    jnode *body = jparse_node(p, K_BODY);
    while (body && p->at->type != TOK_BLOCK_END) {
        if (body->n && !jparse_expect_op(p, OP_COMMA)) return NULL;
        jnode *n = jparse_node(p, K_OUTPUT);
        if (!n || !(n->a = jparse_expression(p, true)) || !jparse_push(p, body, n)) return NULL;
    }
    return body;
}

static jnode *refuse_tag(jparser *p, const jtext *name) {
    static const char *const known[] = {"block",      "extends", "include", "import", "from",
                                        "autoescape", "trans",   "do",      "debug",  NULL};
    p->at--;
    for (int i = 0; known[i]; i++) {
        if (jtext_is(name, known[i])) {
            return jparse_fail(p, ERR_UNSUPPORTED,
                               "{%% %s %%}: chat templates have no such statement", known[i]);
        }
    }
    bool end = name->length > 3 && memcmp(name->bytes, "end", 3) == 0;
    bool other = jtext_is(name, "else") || jtext_is(name, "elif");
    return jparse_fail(p, end || other ? ERR_CORRUPT : ERR_UNSUPPORTED, "%s {%% %.*s %%}",
                       end || other ? "unexpected" : "unknown statement",
                       (int)size_min(name->length, 60), name->bytes);
}

static jnode *parse_statement(jparser *p) {
    static const struct {
        const char *name;
        jnode *(*parse)(jparser *);
    } tags[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"with", parse_with},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"filter", parse_filter_block},
        {"generation", parse_generation},
        {"print", parse_print},
    };
    jtext *name = jparse_expect_name(p);
    if (!name) return NULL;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (jtext_is(name, tags[i].name)) return tags[i].parse(p);
    }
    if (jtext_is(name, "break")) return parse_jump(p, K_BREAK);
    if (jtext_is(name, "continue")) return parse_jump(p, K_CONTINUE);
    return refuse_tag(p, name);
}

/* What a token at the start of a statement stands for; NULL after an error. */
static jnode *parse_piece(jparser *p) {
    jnode *n;
    if (p->at->type == TOK_DATA) {
        n = jparse_node(p, K_DATA);
        if (n) n->value = p->at->value;
        p->at++;
        return n;
    }
    if (p->at->type == TOK_VARIABLE_BEGIN) {
        p->at++;
        n = jparse_node(p, K_OUTPUT);
        if (!n || !(n->a = jparse_tuple(p, (jtuple_rule){.with_condition = true}))) return NULL;
        return expect_type(p, TOK_VARIABLE_END) ? n : NULL;
    }
    n = parse_statement(p);
    return n && expect_type(p, TOK_BLOCK_END) ? n : NULL;
}

static jnode *parse_body(jparser *p, ends until) {
    if (!jparse_enter(p)) return NULL;
    jnode *body = jparse_node(p, K_BODY);
    while (body && p->at->type != TOK_END) {
        if (p->at->type == TOK_BLOCK_BEGIN) {
            p->at++;
            if (is_end(p, &until)) break;
        }
        if (!jparse_push(p, body, parse_piece(p))) body = NULL;
    }
    p->depth--;
    return body;
}

err jinja_parse(jinja_template *t, const jtoken *tokens) {
    jparser p = {.t = t, .at = tokens};
    t->body = parse_body(&p, (ends){{NULL}});
    return p.error;
}
