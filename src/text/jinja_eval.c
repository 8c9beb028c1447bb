/* jinja_eval.c: evaluates expressions. */
#include <stdarg.h>
#include <stdio.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

/* ---- the run's bounds and error ---- */

bool jrun_fail(jrun *r, err_code code, const char *format, ...) {
    if (r->error.code) return false;
    char sentence[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    r->error = code == ERR_ARG ? err_make(code, "%s", sentence)
                               : err_make(code, "%s: line %d: %s", r->t->name, r->line, sentence);
    return false;
}

bool jrun_charge(jrun *r, size_t units) {
    if (units > r->steps) {
        r->steps = 0;
        return jrun_fail(r, ERR_RANGE, "rendering takes too many steps");
    }
    r->steps -= units;
    return true;
}

bool jrun_enter(jrun *r) {
    if (r->depth >= JINJA_EVAL_DEPTH) {
        return jrun_fail(r, ERR_RANGE, "macros or data are nested too deeply");
    }
    r->depth++;
    return true;
}

/* ---- arguments ---- */

static int word_length(const char *s) {
    int n = 0;
    while (s[n] && s[n] != ' ' && s[n] != '!') n++;
    return n;
}

/* Index of the named argument in names, or -1. */
static int name_index(const char *names, const jtext *name) {
    for (int i = 0; *names; i++) {
        int n = word_length(names);
        if (name->length == (size_t)n && memcmp(names, name->bytes, (size_t)n) == 0) return i;
        names += n + (names[n] == '!');
        names += *names == ' ';
    }
    return -1;
}

bool jargs_bind(jrun *r, const char *what, const jargs *args, const char *names, jvalue *out) {
    int count = 0;
    for (const char *s = names; *s; count++) {
        out[count] = (jvalue){.type = J_MISSING};
        s += word_length(s);
        s += *s == '!';
        s += *s == ' ';
    }
    if (args->n > count) return JFAIL(r, "%s takes at most %d arguments", what, count);
    for (int i = 0; i < args->n; i++) out[i] = args->pos[i];
    for (int i = 0; i < args->n_kw; i++) {
        int at = name_index(names, args->kw[i].name);
        int n = (int)size_min(args->kw[i].name->length, 60);
        if (at < 0) return JFAIL(r, "%s has no argument '%.*s'", what, n, args->kw[i].name->bytes);
        if (out[at].type != J_MISSING) {
            return JFAIL(r, "%s got '%.*s' twice", what, n, args->kw[i].name->bytes);
        }
        out[at] = args->kw[i].value;
    }
    for (int i = 0; i < count; i++) {
        int n = word_length(names);
        if (names[n] == '!' && out[i].type == J_MISSING) {
            return JFAIL(r, "%s needs the argument '%.*s'", what, n, names);
        }
        names += n + (names[n] == '!');
        names += *names == ' ';
    }
    return true;
}

typedef struct collected {
    jlist *pos;
    jkwarg *kw;
    int n_kw, capacity;
} collected;

static bool add_kwarg(jrun *r, collected *c, jtext *name, jvalue value) {
    for (int i = 0; i < c->n_kw; i++) {
        if (jtext_same(c->kw[i].name, name)) {
            return JFAIL(r, "argument '%.*s' is given twice", (int)size_min(name->length, 60),
                         name->bytes);
        }
    }
    if (c->n_kw == c->capacity) {
        int capacity = c->capacity ? c->capacity * 2 : 4;
        jkwarg *kw = jrun_alloc(r, (size_t)capacity, sizeof *kw);
        if (!kw || !jrun_charge(r, (size_t)capacity)) return false;
        if (c->n_kw) memcpy(kw, c->kw, (size_t)c->n_kw * sizeof *kw);
        c->kw = kw;
        c->capacity = capacity;
    }
    c->kw[c->n_kw++] = (jkwarg){name, value};
    return jrun_charge(r, (size_t)c->n_kw);
}

static bool add_argument(jrun *r, const jnode *n, collected *c) {
    jvalue v;
    bool special = n->kind == K_KWARG || n->kind == K_STAR || n->kind == K_STARSTAR;
    if (!jeval(r, special ? n->a : n, &v)) return false;
    if (!special) return jlist_push(r, c->pos, v);
    if (n->kind == K_KWARG) return add_kwarg(r, c, n->name, v);
    if (n->kind == K_STAR) {
        jlist *more;
        if (!jiterate(r, v, &more)) return false;
        for (size_t i = 0; i < more->count; i++) {
            if (!jlist_push(r, c->pos, more->items[i])) return false;
        }
        return true;
    }
    if (v.type != J_DICT) return JFAIL(r, "the argument after ** is a %s", jtype_name(v));
    for (uint32_t i = 0; i < v.dict->count; i++) {
        jentry *e = &v.dict->entries[i];
        if (e->key.type != J_TEXT) return JFAIL(r, "a key after ** is a %s", jtype_name(e->key));
        if (!add_kwarg(r, c, e->key.text, e->value)) return false;
    }
    return true;
}

bool jeval_args(jrun *r, const jnode *call, jargs *out) {
    *out = (jargs){0};
    if (!call->n) return true;
    collected c = {.pos = jlist_new(r, 0)};
    if (!c.pos) return false;
    for (int i = 0; i < call->n; i++) {
        if (!add_argument(r, call->items[i], &c)) return false;
    }
    if (c.pos->count > 100000) return JFAIL(r, "a call has too many arguments");
    *out = (jargs){.pos = c.pos->items, .kw = c.kw, .n = (int)c.pos->count, .n_kw = c.n_kw};
    return true;
}

/* ---- calls ---- */

/* Methods of Python's Markup escape their string arguments and give Markup. */
static bool call_safe(jrun *r, const jcall *call, const jargs *args, jvalue *out) {
    static const char *const escaping[] = {
        "capitalize", "title",  "lower", "upper",      "replace",  "ljust", "rjust", "lstrip",
        "rstrip",     "center", "strip", "expandtabs", "swapcase", "zfill", NULL};
    static const char *const refused[] = {"join",      "split",      "rsplit", "splitlines",
                                          "partition", "rpartition", "format", NULL};
    bool wraps = false;
    for (int i = 0; escaping[i]; i++) wraps = wraps || strcmp(call->name, escaping[i]) == 0;
    for (int i = 0; refused[i]; i++) {
        if (strcmp(call->name, refused[i]) == 0) {
            return jrun_fail(r, ERR_UNSUPPORTED, "%s of a string marked safe", call->name);
        }
    }
    jargs copy = *args;
    copy.pos = jrun_alloc(r, (size_t)args->n, sizeof *copy.pos);
    if (!copy.pos) return false;
    for (int i = 0; i < args->n; i++) {
        copy.pos[i] = args->pos[i];
        if (!wraps || args->pos[i].type != J_TEXT || args->pos[i].text->safe) continue;
        copy.pos[i].text = jtext_escape(r, args->pos[i].text);
        if (!copy.pos[i].text) return false;
    }
    if (!call->fn(r, call->self, &copy, out)) return false;
    if (out->type != J_TEXT) return true;
    jtext *made = jtext_slice(r, out->text, 0, out->text->length);
    if (!made) return false;
    made->safe = wraps;
    *out = jstring(made);
    return true;
}

static bool call_joiner(jrun *r, jcycler *joiner, jvalue *out) {
    jtext *t = joiner->used ? joiner->separator : jtext_literal(r, "");
    joiner->used = true;
    if (t) *out = jstring(t);
    return t != NULL;
}

bool jcall_value(jrun *r, jvalue callee, const jargs *args, jvalue *out) {
    switch (callee.type) {
    case J_UNDEFINED: return jfail_undefined(r, callee);
    case J_FUNCTION:
        if (callee.call->self.type == J_TEXT && callee.call->self.text->safe) {
            return call_safe(r, callee.call, args, out);
        }
        return callee.call->fn(r, callee.call->self, args, out);
    case J_MACRO: return jrun_call_macro(r, callee.macro, args, out);
    case J_LOOP: return jrun_call_loop(r, callee.loop, args, out);
    case J_JOINER: return call_joiner(r, callee.cycler, out);
    default: return JFAIL(r, "'%s' object is not callable", jtype_name(callee));
    }
}

static bool eval_call(jrun *r, const jnode *n, jvalue *out) {
    jvalue callee;
    jargs args;
    if (!jeval(r, n->a, &callee) || !jeval_args(r, n, &args)) return false;
    r->line = n->line;
    return jcall_value(r, callee, &args, out);
}

static bool eval_filter(jrun *r, const jnode *n, jvalue *out) {
    jvalue input;
    jargs args;
    if (!jeval(r, n->a, &input) || !jeval_args(r, n, &args)) return false;
    r->line = n->line;
    if (n->fn) return n->fn(r, input, &args, out);
    return jrun_fail(r, n->kind == K_TEST ? ERR_UNSUPPORTED : ERR_UNSUPPORTED, "unknown %s '%.*s'",
                     n->kind == K_TEST ? "test" : "filter", (int)size_min(n->name->length, 60),
                     n->name->bytes);
}

/* ---- operators ---- */

static bool compare_one(jrun *r, jop op, jvalue a, jvalue b, bool *out) {
    int c;
    switch (op) {
    case OP_EQ: return jequal(r, a, b, out);
    case OP_NE:
        if (!jequal(r, a, b, out)) return false;
        *out = !*out;
        return true;
    case OP_IN: return jcontains(r, b, a, out);
    case OP_NOT_IN:
        if (!jcontains(r, b, a, out)) return false;
        *out = !*out;
        return true;
    default: break;
    }
    if (!jcompare(r, a, b, jop_text(op), &c)) return false;
    bool nan = jis_number(a) && jis_number(b) && !(jnumber(a) <= jnumber(b)) &&
               !(jnumber(a) >= jnumber(b));
    *out = !nan && (op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0);
    return true;
}

/* a < b <= c: each operand once, up to the first comparison that is false. */
static bool eval_compare(jrun *r, const jnode *n, jvalue *out) {
    jvalue left, right;
    bool yes = true;
    if (!jeval(r, n->a, &left)) return false;
    for (int i = 0; i < n->n && yes; i++) {
        if (!jeval(r, n->items[i]->a, &right)) return false;
        r->line = n->line;
        if (!compare_one(r, n->items[i]->op, left, right, &yes)) return false;
        left = right;
    }
    *out = jbool(yes);
    return true;
}

static bool eval_binary(jrun *r, const jnode *n, jvalue *out) {
    jvalue a, b;
    if (!jeval(r, n->a, &a) || !jeval(r, n->b, &b)) return false;
    r->line = n->line;
    return jbinary(r, n->op, a, b, out);
}

static bool eval_concat(jrun *r, const jnode *n, jvalue *out) {
    jvalue *parts = jrun_alloc(r, (size_t)n->n, sizeof *parts);
    if (!parts) return false;
    for (int i = 0; i < n->n; i++) {
        if (!jeval(r, n->items[i], &parts[i])) return false;
    }
    return jconcat(r, parts, n->n, out);
}

static bool eval_sign(jrun *r, const jnode *n, jvalue *out) {
    jvalue v;
    if (!jeval(r, n->a, &v)) return false;
    r->line = n->line;
    if (v.type == J_UNDEFINED) return jfail_undefined(r, v);
    if (!jis_number(v)) {
        return JFAIL(r, "bad operand type for unary %c: '%s'", n->kind == K_NEG ? '-' : '+',
                     jtype_name(v));
    }
    if (v.type == J_FLOAT) {
        *out = jfloat(n->kind == K_NEG ? -v.f : v.f);
        return true;
    }
    if (n->kind == K_POS) {
        *out = jint(jinteger(v));
        return true;
    }
    return jbinary(r, OP_SUB, jint(0), v, out);
}

static bool eval_condition(jrun *r, const jnode *n, jvalue *out) {
    jvalue test;
    if (!jeval(r, n->a, &test)) return false;
    if (jtruth(test)) return jeval(r, n->b, out);
    if (n->c) return jeval(r, n->c, out);
    *out =
        jundefined(jtext_literal(r, "an inline if without else was false, its value is undefined"));
    return out->text != NULL;
}

/* `and` and `or` give one of their operands, as in Python. */
static bool eval_logic(jrun *r, const jnode *n, jvalue *out) {
    if (!jeval(r, n->a, out)) return false;
    return jtruth(*out) == (n->kind == K_AND) ? jeval(r, n->b, out) : true;
}

/* ---- displays and items ---- */

static bool eval_items(jrun *r, const jnode *n, jvalue *out) {
    jlist *l = jlist_new(r, (size_t)n->n);
    if (!l) return false;
    for (int i = 0; i < n->n; i++) {
        jvalue v;
        if (!jeval(r, n->items[i], &v) || !jlist_push(r, l, v)) return false;
    }
    *out = n->kind == K_LIST ? jfrom_list(l) : jfrom_tuple(l);
    return true;
}

static bool eval_dict(jrun *r, const jnode *n, jvalue *out) {
    jdict *d = jdict_new(r);
    if (!d) return false;
    for (int i = 0; i < n->n; i += 2) {
        jvalue key, value;
        if (!jeval(r, n->items[i], &key) || !jeval(r, n->items[i + 1], &value)) return false;
        r->line = n->line;
        if (!jdict_set(r, d, key, value)) return false;
    }
    *out = jfrom_dict(d);
    return true;
}

static bool eval_item(jrun *r, const jnode *n, jvalue *out) {
    jvalue object, key, part[3] = {jnone(), jnone(), jnone()};
    if (!jeval(r, n->a, &object)) return false;
    if (n->b->kind == K_SLICE) {
        const jnode *const parts[] = {n->b->a, n->b->b, n->b->c};
        for (int i = 0; i < 3; i++) {
            if (parts[i] && !jeval(r, parts[i], &part[i])) return false;
        }
        r->line = n->line;
        return jslice(r, object, part, out);
    }
    if (!jeval(r, n->b, &key)) return false;
    r->line = n->line;
    return jget_item(r, object, key, out);
}

static bool eval_attr(jrun *r, const jnode *n, jvalue *out) {
    jvalue object;
    if (!jeval(r, n->a, &object)) return false;
    r->line = n->line;
    return jget_attr(r, object, n->name, out);
}

static bool eval_not(jrun *r, const jnode *n, jvalue *out) {
    jvalue v;
    if (!jeval(r, n->a, &v)) return false;
    *out = jbool(!jtruth(v));
    return true;
}

static bool eval_node(jrun *r, const jnode *n, jvalue *out) {
    switch (n->kind) {
    case K_CONST: *out = n->value; return true;
    case K_NAME: return jrun_lookup(r, n->name, out);
    case K_TUPLE:
    case K_LIST: return eval_items(r, n, out);
    case K_DICT: return eval_dict(r, n, out);
    case K_NEG:
    case K_POS: return eval_sign(r, n, out);
    case K_NOT: return eval_not(r, n, out);
    case K_AND:
    case K_OR: return eval_logic(r, n, out);
    case K_BINARY: return eval_binary(r, n, out);
    case K_COMPARE: return eval_compare(r, n, out);
    case K_CONCAT: return eval_concat(r, n, out);
    case K_IF_ELSE: return eval_condition(r, n, out);
    case K_FILTER:
    case K_TEST: return eval_filter(r, n, out);
    case K_ATTR: return eval_attr(r, n, out);
    case K_ITEM: return eval_item(r, n, out);
    case K_CALL: return eval_call(r, n, out);
    case K_HOLE: *out = r->hole; return true;
    default: return jrun_fail(r, ERR_UNSUPPORTED, "a slice in a tuple");
    }
}

bool jeval(jrun *r, const jnode *n, jvalue *out) {
    r->line = n->line;
    if (!jrun_charge(r, 1) || !jrun_enter(r)) return false;
    bool good = eval_node(r, n, out);
    jrun_leave(r);
    return good;
}
