/* jinja_run.c: runs statements.
 *
 * Scopes are a chain. Loops (each turn), macros, call blocks, `with`, set blocks and filter blocks
 * open one; `if` does not. Assigning sets the innermost scope, so what a loop assigns is gone after
 * the turn: that is what namespace() is for. A macro sees the scope in which it was written.
 *
 *     top: first, system, ns ---- loop turn: m, loop, c ---- inner loop turn: call, loop
 *                             \-- macro call: its arguments */
#include "base/bits.h"
#include "text/jinja_impl.h"

typedef enum jstatus { RUN_FAILED, RUN_NEXT, RUN_BREAK, RUN_CONTINUE } jstatus;

static jstatus run_node(jrun *r, const jnode *n);

/* ---- scopes ---- */

static jscope *open_scope(jrun *r, jscope *outer) {
    jscope *s = jrun_alloc(r, 1, sizeof *s);
    if (s) s->outer = outer;
    return s;
}

bool jscope_set(jrun *r, jscope *s, jtext *name, jvalue value) {
    for (int i = 0; i < s->count; i++) {
        if (s->names[i].name->hash == name->hash && jtext_same(s->names[i].name, name)) {
            s->names[i].value = value;
            return jrun_charge(r, (size_t)i / 8);
        }
    }
    if (s->count == s->capacity) {
        int capacity = s->capacity ? s->capacity * 2 : 4;
        void *names = jrun_alloc(r, (size_t)capacity, sizeof *s->names);
        if (!names) return false;
        if (s->count) memcpy(names, s->names, (size_t)s->count * sizeof *s->names);
        s->names = names;
        s->capacity = capacity;
    }
    s->names[s->count].name = name;
    s->names[s->count++].value = value;
    return jrun_charge(r, (size_t)s->count / 8);
}

static bool lookup_global(jrun *r, const jtext *name, jvalue *out) {
    jfunction fn = jfind(jinja_globals, name);
    if (!fn) return false;
    jcall *call = jrun_alloc(r, 1, sizeof *call);
    if (!call) return false;
    *call = (jcall){.name = "a global function", .fn = fn, .self = jnone()};
    *out = (jvalue){.type = J_FUNCTION, .call = call};
    return true;
}

bool jrun_lookup(jrun *r, const jtext *name, jvalue *out) {
    size_t seen = 0;
    for (const jscope *s = r->scope; s; s = s->outer) {
        for (int i = 0; i < s->count; i++) {
            if (s->names[i].name->hash == name->hash && jtext_same(s->names[i].name, name)) {
                *out = s->names[i].value;
                return jrun_charge(r, seen / 16);
            }
        }
        seen += 1 + (size_t)s->count;
    }
    jvalue *found = jdict_find(r->context, name);
    if (found) {
        *out = *found;
        return jrun_charge(r, seen / 16);
    }
    if (lookup_global(r, name, out)) return true;
    jbuf b = {0};
    if (!jbuf_add_literal(r, &b, "'") || !jbuf_add_slice(r, &b, name, 0, name->length) ||
        !jbuf_add_literal(r, &b, "' is undefined")) {
        return false;
    }
    *out = jundefined(jbuf_text(r, &b));
    return out->text != NULL && jrun_charge(r, seen / 16);
}

/* ---- assignment ---- */

static bool assign(jrun *r, jscope *s, const jnode *target, jvalue v);

static bool assign_attribute(jrun *r, const jnode *target, jvalue v) {
    jvalue ns;
    if (!jrun_lookup(r, target->value.text, &ns)) return false;
    if (ns.type != J_NAMESPACE) {
        return JFAIL(r, "cannot assign an attribute of '%.*s', which is no namespace",
                     (int)size_min(target->value.text->length, 60), target->value.text->bytes);
    }
    return jdict_set(r, ns.dict, jstring(target->name), v);
}

static bool assign_tuple(jrun *r, jscope *s, const jnode *target, jvalue v) {
    jlist *values;
    if (!jcan_iterate(v)) return JFAIL(r, "cannot unpack a %s", jtype_name(v));
    if (!jiterate(r, v, &values)) return false;
    if (values->count != (size_t)target->n) {
        return JFAIL(r, "%zu values for %d names", values->count, target->n);
    }
    for (int i = 0; i < target->n; i++) {
        if (!assign(r, s, target->items[i], values->items[i])) return false;
    }
    return true;
}

/* Depth: the parser's. */
static bool assign(jrun *r, jscope *s, const jnode *target, jvalue v) {
    if (target->kind == K_NAME) return jscope_set(r, s, target->name, v);
    if (target->kind == K_NSREF) return assign_attribute(r, target, v);
    return assign_tuple(r, s, target, v);
}

/* ---- output ---- */

static bool output(jrun *r, jvalue v) {
    jtext *t = v.type == J_TEXT ? v.text : jstr(r, v);
    return t && jbuf_add_text(r, r->out, t);
}

/* Runs the body in its scope and gives what it writes. */
static jstatus capture(jrun *r, const jnode *body, jscope *scope, jvalue *out) {
    jbuf buf = {0}, *outer_out = r->out;
    jscope *outer = r->scope;
    if (!scope) return RUN_FAILED;
    r->out = &buf;
    r->scope = scope;
    jstatus s = run_node(r, body);
    r->out = outer_out;
    r->scope = outer;
    if (s == RUN_FAILED) return s;
    jtext *t = jbuf_text(r, &buf);
    if (!t) return RUN_FAILED;
    *out = jstring(t);
    return s;
}

/* ---- loops ---- */

/* What the target's names hold: the items of a filtered loop are made anew from it. */
static bool target_value(jrun *r, const jnode *target, jvalue *out) {
    if (target->kind != K_TUPLE) return jrun_lookup(r, target->name, out);
    jlist *l = jlist_new(r, (size_t)target->n);
    for (int i = 0; l && i < target->n; i++) {
        jvalue v;
        if (!target_value(r, target->items[i], &v) || !jlist_push(r, l, v)) return false;
    }
    if (l) *out = jfrom_tuple(l);
    return l != NULL;
}

/* The next item that passes the loop's filter; *more is false at the end. */
static bool loop_fetch(jrun *r, jloop *l, jvalue *item, bool *more) {
    *more = false;
    while (l->at < l->source->count) {
        *item = l->source->items[l->at++];
        if (!l->node->c || l->filtered) {
            *more = true;
            return true;
        }
        jscope *scope = open_scope(r, l->outer), *outer = r->scope;
        jvalue test;
        if (!scope || !assign(r, scope, l->node->a, *item)) return false;
        r->scope = scope;
        bool good = jeval(r, l->node->c, &test) && target_value(r, l->node->a, item);
        r->scope = outer;
        if (!good) return false;
        *more = jtruth(test);
        if (*more) return true;
    }
    return true;
}

static bool loop_peek(jrun *r, jloop *l, bool *more) {
    *more = l->after.type != J_MISSING;
    if (*more) return true;
    jvalue item;
    if (!loop_fetch(r, l, &item, more)) return false;
    if (*more) l->after = item;
    return true;
}

/* Items in all. Walks the rest through the filter once. */
static bool loop_length(jrun *r, jloop *l, int64_t *out) {
    if (l->node->c && !l->filtered) {
        jlist *rest = jlist_new(r, 0);
        jvalue item;
        bool more = true;
        while (rest && more) {
            if (!loop_fetch(r, l, &item, &more)) return false;
            if (more && !jlist_push(r, rest, item)) return false;
        }
        if (!rest) return false;
        l->source = rest;
        l->at = 0;
        l->filtered = true;
    }
    *out = l->index0 + 1 + (l->after.type != J_MISSING) + (int64_t)(l->source->count - l->at);
    return true;
}

static bool loop_cycle(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!args->n) return JFAIL(r, "loop.cycle needs values");
    *out = args->pos[self.loop->index0 % args->n];
    return true;
}

static bool loop_changed(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jlist *now = jlist_new(r, (size_t)args->n);
    if (!now) return false;
    for (int i = 0; i < args->n; i++) now->items[now->count++] = args->pos[i];
    bool same = false;
    jvalue v = jfrom_tuple(now);
    if (self.loop->changed.type != J_MISSING && !jequal(r, self.loop->changed, v, &same)) {
        return false;
    }
    self.loop->changed = v;
    *out = jbool(!same);
    return true;
}

static bool bind_loop(jrun *r, jloop *l, jfunction fn, jvalue *out) {
    jcall *call = jrun_alloc(r, 1, sizeof *call);
    if (!call) return false;
    *call = (jcall){.name = "loop", .fn = fn, .self = {.type = J_LOOP, .loop = l}};
    *out = (jvalue){.type = J_FUNCTION, .call = call};
    return true;
}

static bool loop_neighbour(jrun *r, jvalue item, const char *why, jvalue *out) {
    *out = item;
    if (item.type != J_MISSING) return true;
    *out = jundefined(jtext_literal(r, why));
    return out->text != NULL;
}

bool jloop_attr(jrun *r, jloop *l, const jtext *name, jvalue *out, bool *found) {
    int64_t length;
    bool more;
    *found = true;
    if (jtext_is(name, "index0")) {
        *out = jint(l->index0);
    } else if (jtext_is(name, "index")) {
        *out = jint(l->index0 + 1);
    } else if (jtext_is(name, "first")) {
        *out = jbool(l->index0 == 0);
    } else if (jtext_is(name, "last")) {
        if (!loop_peek(r, l, &more)) return false;
        *out = jbool(!more);
    } else if (jtext_is(name, "length") || jtext_is(name, "revindex") ||
               jtext_is(name, "revindex0")) {
        if (!loop_length(r, l, &length)) return false;
        *out = jint(jtext_is(name, "length")     ? length
                    : jtext_is(name, "revindex") ? length - l->index0
                                                 : length - l->index0 - 1);
    } else if (jtext_is(name, "previtem")) {
        return loop_neighbour(r, l->before, "there is no previous item", out);
    } else if (jtext_is(name, "nextitem")) {
        return loop_peek(r, l, &more) && loop_neighbour(r, l->after, "there is no next item", out);
    } else if (jtext_is(name, "depth") || jtext_is(name, "depth0")) {
        *out = jint(l->depth0 + (name->length == 5));
    } else if (jtext_is(name, "cycle")) {
        return bind_loop(r, l, loop_cycle, out);
    } else if (jtext_is(name, "changed")) {
        return bind_loop(r, l, loop_changed, out);
    } else {
        *found = false;
    }
    return true;
}

/* Moves to the next item; *more is false at the end. */
static bool loop_next(jrun *r, jloop *l, bool *more) {
    jvalue item = l->after;
    *more = item.type != J_MISSING;
    l->after.type = J_MISSING;
    if (!*more && !loop_fetch(r, l, &item, more)) return false;
    if (!*more) return true;
    l->index0++;
    l->before = l->current;
    l->current = item;
    return true;
}

static jstatus run_turns(jrun *r, jloop *l, bool *any) {
    jscope *outer = r->scope;
    jstatus status = RUN_NEXT;
    for (;;) {
        bool more;
        if (!loop_next(r, l, &more)) return RUN_FAILED;
        if (!more) return RUN_NEXT;
        *any = true;
        jscope *turn = open_scope(r, l->outer);
        if (!turn || !assign(r, turn, l->node->a, l->current) ||
            !jscope_set(r, turn, r->loop_name, (jvalue){.type = J_LOOP, .loop = l})) {
            return RUN_FAILED;
        }
        r->scope = turn;
        status = run_node(r, l->node->d);
        r->scope = outer;
        if (status == RUN_FAILED) return status;
        if (status == RUN_BREAK) return RUN_NEXT;
    }
}

static jstatus run_loop(jrun *r, const jnode *n, jvalue items, jscope *outer, int depth0) {
    jloop *l = jrun_alloc(r, 1, sizeof *l);
    if (!l || !jiterate(r, items, &l->source)) return RUN_FAILED;
    jvalue missing = {.type = J_MISSING};
    l->node = n;
    l->outer = outer;
    l->index0 = -1;
    l->depth0 = depth0;
    l->current = l->before = l->after = l->changed = missing;
    bool any = false;
    jstatus status = run_turns(r, l, &any);
    if (status != RUN_NEXT || any || !n->e) return status;
    jscope *scope = open_scope(r, outer), *before = r->scope;
    if (!scope) return RUN_FAILED;
    r->scope = scope;
    status = run_node(r, n->e);
    r->scope = before;
    return status;
}

bool jrun_call_loop(jrun *r, jloop *loop, const jargs *args, jvalue *out) {
    if (!loop->node->recursive) return JFAIL(r, "a loop is called that is not recursive");
    if (args->n != 1 || args->n_kw) return JFAIL(r, "loop() takes one argument");
    if (!jrun_enter(r)) return false;
    jbuf buf = {0}, *outer_out = r->out;
    r->out = &buf;
    jstatus s = run_loop(r, loop->node, args->pos[0], loop->outer, loop->depth0 + 1);
    r->out = outer_out;
    jrun_leave(r);
    jtext *t = s == RUN_FAILED ? NULL : jbuf_text(r, &buf);
    if (t) *out = jstring(t);
    return t != NULL;
}

/* ---- macros ---- */

static bool take_kwarg(jargs *args, const jtext *name, jvalue *out) {
    for (int i = 0; i < args->n_kw; i++) {
        if (!jtext_same(args->kw[i].name, name)) continue;
        *out = args->kw[i].value;
        memmove(args->kw + i, args->kw + i + 1, (size_t)(--args->n_kw - i) * sizeof *args->kw);
        return true;
    }
    return false;
}

/* What is left of the arguments after the named ones. */
static bool bind_rest(jrun *r, const jnode *m, jscope *scope, jargs *args) {
    jvalue caller;
    const jtext *name = m->name ? m->name : r->caller_name;
    int n = (int)size_min(name->length, 60);
    if (m->uses & USES_CALLER) {
        if (!take_kwarg(args, r->caller_name, &caller)) {
            caller = jundefined(jtext_literal(r, "no caller defined"));
        }
        if (!jscope_set(r, scope, r->caller_name, caller)) return false;
    }
    if (m->uses & USES_KWARGS) {
        jdict *d = jdict_new(r);
        for (int i = 0; d && i < args->n_kw; i++) {
            if (!jdict_set(r, d, jstring(args->kw[i].name), args->kw[i].value)) return false;
        }
        if (!d || !jscope_set(r, scope, r->kwargs_name, jfrom_dict(d))) return false;
    } else if (args->n_kw) {
        return JFAIL(r, "macro '%.*s' takes no keyword argument '%.*s'", n, name->bytes,
                     (int)size_min(args->kw[0].name->length, 60), args->kw[0].name->bytes);
    }
    if (m->uses & USES_VARARGS) {
        jlist *l = jlist_new(r, 0);
        for (int i = m->n; l && i < args->n; i++) {
            if (!jlist_push(r, l, args->pos[i])) return false;
        }
        return l && jscope_set(r, scope, r->varargs_name, jfrom_tuple(l));
    }
    if (args->n <= m->n) return true;
    return JFAIL(r, "macro '%.*s' takes not more than %d arguments", n, name->bytes, m->n);
}

static bool bind_parameters(jrun *r, const jnode *m, jscope *scope, jargs *args) {
    for (int i = 0; i < m->n; i++) {
        jvalue v = {.type = J_MISSING};
        if (i < args->n) {
            v = args->pos[i];
        } else {
            take_kwarg(args, m->items[i]->name, &v);
        }
        if (!jscope_set(r, scope, m->items[i]->name, v)) return false;
    }
    if (!bind_rest(r, m, scope, args)) return false;
    for (int i = 0; i < m->n; i++) {
        jvalue v = scope->names[i].value;
        if (v.type != J_MISSING) continue;
        if (m->items[i]->a) {
            if (!jeval(r, m->items[i]->a, &v)) return false;
        } else {
            v = jundefined(jtext_literal(r, "a parameter of a macro was not provided"));
            if (!v.text) return false;
        }
        scope->names[i].value = v;
    }
    return true;
}

bool jrun_call_macro(jrun *r, jmacro *macro, const jargs *given, jvalue *out) {
    const jnode *m = macro->node;
    jargs args = *given;
    if (args.n_kw) { /* a copy, because named ones are taken out of it */
        args.kw = jrun_alloc(r, (size_t)args.n_kw, sizeof *args.kw);
        if (!args.kw) return false;
        memcpy(args.kw, given->kw, (size_t)args.n_kw * sizeof *args.kw);
    }
    jscope *scope = open_scope(r, macro->scope), *outer = r->scope;
    if (!scope || !jrun_enter(r)) return false;
    int line = r->line;
    r->scope = scope;
    bool good = bind_parameters(r, m, scope, &args);
    r->scope = outer;
    good = good && capture(r, m->b, scope, out) != RUN_FAILED;
    if (good) r->line = line;
    jrun_leave(r);
    return good;
}

static bool make_macro(jrun *r, const jnode *n, jvalue *out) {
    jmacro *m = jrun_alloc(r, 1, sizeof *m);
    if (!m) return false;
    *m = (jmacro){.node = n, .scope = r->scope};
    *out = (jvalue){.type = J_MACRO, .macro = m};
    return true;
}

/* ---- statements ---- */

static jstatus status_of(bool good) { return good ? RUN_NEXT : RUN_FAILED; }

static jstatus run_if(jrun *r, const jnode *n) {
    for (int i = 0; i < n->n; i += 2) {
        jvalue test;
        if (!jeval(r, n->items[i], &test)) return RUN_FAILED;
        if (jtruth(test)) return run_node(r, n->items[i + 1]);
    }
    return n->c ? run_node(r, n->c) : RUN_NEXT;
}

static jstatus run_for(jrun *r, const jnode *n) {
    jvalue items;
    if (!jeval(r, n->b, &items)) return RUN_FAILED;
    r->line = n->line;
    return run_loop(r, n, items, r->scope, 0);
}

static jstatus run_set(jrun *r, const jnode *n) {
    jvalue v;
    if (!jeval(r, n->b, &v)) return RUN_FAILED;
    r->line = n->line;
    return status_of(assign(r, r->scope, n->a, v));
}

/* Body, then filters: the value of a set block or the output of a filter block. */
static jstatus run_filtered(jrun *r, const jnode *n, jvalue *out) {
    jstatus s = capture(r, n->b, open_scope(r, r->scope), out);
    if (s != RUN_NEXT || !n->c) return s;
    jvalue outer = r->hole;
    r->hole = *out;
    bool good = jeval(r, n->c, out);
    r->hole = outer;
    return status_of(good);
}

static jstatus run_set_block(jrun *r, const jnode *n) {
    jvalue v;
    jstatus s = run_filtered(r, n, &v);
    return s == RUN_NEXT ? status_of(assign(r, r->scope, n->a, v)) : s;
}

/* What a filter or call block writes, which must be a string. */
static jstatus output_text(jrun *r, jvalue v) {
    if (v.type == J_TEXT) return status_of(jbuf_add_text(r, r->out, v.text));
    return status_of(JFAIL(r, "a block gives a %s, not a string", jtype_name(v)));
}

static jstatus run_filter_block(jrun *r, const jnode *n) {
    jvalue v;
    jstatus s = run_filtered(r, n, &v);
    return s == RUN_NEXT ? output_text(r, v) : s;
}

static jstatus run_with(jrun *r, const jnode *n) {
    jscope *scope = open_scope(r, r->scope), *outer = r->scope;
    for (int i = 0; i < n->n; i += 2) {
        jvalue v;
        if (!scope || !jeval(r, n->items[i + 1], &v) || !assign(r, scope, n->items[i], v)) {
            return RUN_FAILED;
        }
    }
    if (!scope) return RUN_FAILED;
    r->scope = scope;
    jstatus s = run_node(r, n->b);
    r->scope = outer;
    return s;
}

static jstatus run_scope(jrun *r, const jnode *n) {
    jscope *scope = open_scope(r, r->scope), *outer = r->scope;
    if (!scope) return RUN_FAILED;
    r->scope = scope;
    jstatus s = run_node(r, n->b);
    r->scope = outer;
    return s;
}

static jstatus run_macro(jrun *r, const jnode *n) {
    jvalue macro;
    return status_of(make_macro(r, n, &macro) && jscope_set(r, r->scope, n->name, macro));
}

static jstatus run_call_block(jrun *r, const jnode *n) {
    jvalue callee, caller, v;
    jargs args;
    if (!make_macro(r, n->c, &caller) || !jeval(r, n->a->a, &callee)) return RUN_FAILED;
    if (!jeval_args(r, n->a, &args)) return RUN_FAILED;
    jkwarg *kw = jrun_alloc(r, (size_t)args.n_kw + 1, sizeof *kw);
    if (!kw) return RUN_FAILED;
    if (args.n_kw) memcpy(kw, args.kw, (size_t)args.n_kw * sizeof *kw);
    kw[args.n_kw++] = (jkwarg){r->caller_name, caller};
    args.kw = kw;
    r->line = n->line;
    return jcall_value(r, callee, &args, &v) ? output_text(r, v) : RUN_FAILED;
}

static jstatus run_body(jrun *r, const jnode *n) {
    jstatus s = RUN_NEXT;
    for (int i = 0; i < n->n && s == RUN_NEXT; i++) s = run_node(r, n->items[i]);
    return s;
}

static jstatus run_output(jrun *r, const jnode *n) {
    jvalue v;
    if (!jeval(r, n->a, &v)) return RUN_FAILED;
    r->line = n->line;
    return status_of(output(r, v));
}

static jstatus run_statement(jrun *r, const jnode *n) {
    switch (n->kind) {
    case K_BODY: return run_body(r, n);
    case K_DATA: return status_of(jbuf_add_text(r, r->out, n->value.text));
    case K_OUTPUT: return run_output(r, n);
    case K_FOR: return run_for(r, n);
    case K_IF: return run_if(r, n);
    case K_SET: return run_set(r, n);
    case K_SET_BLOCK: return run_set_block(r, n);
    case K_WITH: return run_with(r, n);
    case K_MACRO: return run_macro(r, n);
    case K_CALL_BLOCK: return run_call_block(r, n);
    case K_FILTER_BLOCK: return run_filter_block(r, n);
    case K_SCOPE: return run_scope(r, n);
    case K_BREAK: return RUN_BREAK;
    case K_CONTINUE: return RUN_CONTINUE;
    default: return status_of(JFAIL(r, "a statement that is none"));
    }
}

static jstatus run_node(jrun *r, const jnode *n) {
    r->line = n->line;
    if (!jrun_charge(r, 1) || !jrun_enter(r)) return RUN_FAILED;
    jstatus s = run_statement(r, n);
    jrun_leave(r);
    return s;
}

bool jrun_template(jrun *r) {
    r->scope = open_scope(r, NULL);
    r->loop_name = jtext_literal(r, "loop");
    r->varargs_name = jtext_literal(r, "varargs");
    r->kwargs_name = jtext_literal(r, "kwargs");
    r->caller_name = jtext_literal(r, "caller");
    if (!r->scope || !r->caller_name || !r->kwargs_name || !r->varargs_name || !r->loop_name) {
        return false;
    }
    jtext *const names[] = {r->loop_name, r->varargs_name, r->kwargs_name, r->caller_name};
    for (int i = 0; i < 4; i++) names[i]->hash = jtext_hash(names[i]);
    return run_node(r, r->t->body) != RUN_FAILED;
}
