/* jinja_impl.h: what the files of the template engine share. Not for others (template.h is).
 *
 *     template.c            the face
 *     jinja_lex.c           text to tokens; white space control
 *     jinja_parse.c         tokens to statements      jinja_parse_expr.c   and expressions
 *     jinja_run.c           runs statements: output, loops, scopes, macros
 *     jinja_eval.c          evaluates expressions
 *     jinja_ops.c           operators                 jinja_attr.c   attributes, items, slices
 *     jinja_value.c         memory, lists, dicts, equality, order, hashes, truth, iteration
 *     jinja_text.c          strings and the builder of strings
 *     jinja_repr.c          str(), repr() and JSON    jinja_format.c   % and str.format
 *     jinja_strings.c, jinja_chars.c  methods of strings
 *     jinja_case.c          upper and lower case      jinja_methods.c  of lists, dicts, cyclers
 *     jinja_filters*.c      filters                   jinja_tests.c    tests
 *     jinja_globals.c       range, namespace, cycler ...
 *
 * Errors: inside, a function that can fail returns false (or NULL) after jrun_fail() has put the
 * sentence into the run; nobody overwrites it. template_render returns it as an err.
 *
 * Memory: everything belongs to a pool that is freed as a whole: the template's or the run's. So
 * nothing here is freed one by one and every pointer is good until the end of the run.
 *
 * Values are Python's. Strings never change; lists and dicts do not either once they are built (the
 * language has no way to). Only namespaces, iterators, cyclers and loops have state. */
#ifndef TEXT_JINJA_IMPL_H
#define TEXT_JINJA_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "text/template.h"

enum {
    JINJA_PARSE_DEPTH = 150, /* nested brackets and statements */
    JINJA_EVAL_DEPTH = 2000, /* nested evaluations, macro calls, data structures */
    JINJA_RANGE_MAX = 100000,
};

/* ---- memory ---- */

typedef struct jchunk {
    struct jchunk *next;
    size_t size;
} jchunk;

typedef struct jpool {
    jchunk *chunks; /* owned */
    char *at, *end; /* free part of the newest one */
    size_t total, limit;
} jpool;

/* Zeroed, 16-byte aligned; NULL when the limit or the system's memory is reached. */
void *jpool_alloc(jpool *p, size_t bytes);
void jpool_free(jpool *p);

/* ---- values ---- */

typedef enum jtype {
    J_MISSING,   /* an argument that was not given; never seen by templates */
    J_UNDEFINED, /* text: its name or how it came about */
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_TEXT,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_VIEW,  /* dict.keys(), .values(), .items() */
    J_RANGE, /* range(...) */
    J_ITER,  /* a generator: can be walked once */
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_FUNCTION, /* a global or a bound method */
    J_CYCLER,
    J_JOINER,
} jtype;

typedef struct jtext {
    const char *bytes;    /* [length] valid UTF-8, not zero-terminated */
    const uint8_t *marks; /* [length], NULL: every byte has `mark` */
    size_t length, chars; /* bytes, code points */
    uint32_t hash;        /* 0: not known yet */
    uint8_t mark;
    bool safe; /* Python's Markup: strings that are joined to it get HTML-escaped */
} jtext;

typedef struct jlist jlist;
typedef struct jdict jdict;
typedef struct jview jview;
typedef struct jrange jrange;
typedef struct jiter jiter;
typedef struct jloop jloop;
typedef struct jmacro jmacro;
typedef struct jcall jcall;
typedef struct jcycler jcycler;
typedef struct jrun jrun;
typedef struct jnode jnode;
typedef struct jscope jscope;

typedef struct jvalue {
    jtype type;
    union {
        bool b;
        int64_t i;
        double f;
        jtext *text; /* J_TEXT; J_UNDEFINED (may be NULL) */
        jlist *list; /* J_LIST, J_TUPLE */
        jdict *dict; /* J_DICT, J_NAMESPACE */
        jview *view;
        jrange *range;
        jiter *iter;
        jloop *loop;
        jmacro *macro;
        jcall *call;
        jcycler *cycler; /* J_CYCLER, J_JOINER */
    };
} jvalue;

struct jlist {
    jvalue *items;
    size_t count, capacity;
    bool group; /* a tuple of groupby: has .grouper and .list */
};

typedef struct jentry {
    jvalue key, value;
    uint32_t hash;
} jentry;

struct jdict {
    jentry *entries; /* in the order of insertion */
    uint32_t count, capacity;
    uint32_t *slots; /* entry + 1, 0 is empty; NULL while there are few */
    uint32_t mask;
};

typedef enum jview_kind { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS } jview_kind;
struct jview {
    jdict *dict;
    jview_kind kind;
};

struct jrange {
    int64_t start, stop, step;
    size_t count;
};

struct jiter { /* what is left of a sequence */
    jlist *list;
    size_t at;
    const char *kind; /* Python's name of the type */
    err *failure;     /* what happens to who walks to its end, or NULL */
};

struct jcycler {
    jlist *items; /* cycler */
    size_t at;
    jtext *separator; /* joiner */
    bool used;
};

typedef struct jkwarg {
    jtext *name;
    jvalue value;
} jkwarg;

typedef struct jargs {
    jvalue *pos;
    jkwarg *kw;
    int n, n_kw;
} jargs;

/* self: what stands before the dot or the bar. */
typedef bool (*jfunction)(jrun *r, jvalue self, const jargs *args, jvalue *out);

struct jcall {
    const char *name;
    jfunction fn;
    jvalue self;
};

struct jmacro {
    const jnode *node;
    jscope *scope; /* where it was defined */
};

typedef struct jnamed {
    const char *name;
    jfunction fn;
} jnamed;

static inline jvalue jnone(void) { return (jvalue){.type = J_NONE}; }
static inline jvalue jbool(bool b) { return (jvalue){.type = J_BOOL, .b = b}; }
static inline jvalue jint(int64_t i) { return (jvalue){.type = J_INT, .i = i}; }
static inline jvalue jfloat(double f) { return (jvalue){.type = J_FLOAT, .f = f}; }
static inline jvalue jstring(jtext *t) { return (jvalue){.type = J_TEXT, .text = t}; }
static inline jvalue jfrom_list(jlist *l) { return (jvalue){.type = J_LIST, .list = l}; }
static inline jvalue jfrom_tuple(jlist *l) { return (jvalue){.type = J_TUPLE, .list = l}; }
static inline jvalue jfrom_dict(jdict *d) { return (jvalue){.type = J_DICT, .dict = d}; }
static inline bool jis_number(jvalue v) {
    return v.type == J_INT || v.type == J_BOOL || v.type == J_FLOAT;
}
static inline bool jis_integer(jvalue v) { return v.type == J_INT || v.type == J_BOOL; }
static inline int64_t jinteger(jvalue v) { return v.type == J_BOOL ? v.b : v.i; }
static inline double jnumber(jvalue v) { return v.type == J_FLOAT ? v.f : (double)jinteger(v); }
static inline bool jis_sequence(jvalue v) { return v.type == J_LIST || v.type == J_TUPLE; }

/* ---- tokens and nodes ---- */

typedef enum jop {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_TILDE,
    OP_LBRACKET,
    OP_RBRACKET,
    OP_LPAREN,
    OP_RPAREN,
    OP_LBRACE,
    OP_RBRACE,
    OP_EQ,
    OP_NE,
    OP_GT,
    OP_GE,
    OP_LT,
    OP_LE,
    OP_ASSIGN,
    OP_DOT,
    OP_COLON,
    OP_PIPE,
    OP_COMMA,
    OP_SEMICOLON,
    OP_IN, /* from here on: no tokens of their own */
    OP_NOT_IN,
} jop;

typedef enum jtoken_type {
    TOK_DATA,
    TOK_VARIABLE_BEGIN,
    TOK_VARIABLE_END,
    TOK_BLOCK_BEGIN,
    TOK_BLOCK_END,
    TOK_NAME,
    TOK_CONST, /* string or number */
    TOK_OP,
    TOK_END,
} jtoken_type;

typedef struct jtoken {
    jtoken_type type;
    jop op;
    int line;
    jvalue value; /* DATA, NAME, CONST */
} jtoken;

typedef enum jkind {
    /* expressions */
    K_CONST,   /* value */
    K_NAME,    /* name */
    K_TUPLE,   /* items */
    K_LIST,    /* items */
    K_DICT,    /* items: key, value, key ... */
    K_NEG,     /* a */
    K_POS,     /* a */
    K_NOT,     /* a */
    K_AND,     /* a b */
    K_OR,      /* a b */
    K_BINARY,  /* op a b */
    K_COMPARE, /* a, items: K_OPERAND */
    K_OPERAND, /* op a */
    K_CONCAT,  /* items */
    K_IF_ELSE, /* b if a else c */
    K_FILTER,  /* a | name(items) */
    K_TEST,    /* a is name(items) */
    K_ATTR,    /* a.name */
    K_ITEM,    /* a[b] */
    K_SLICE,   /* a:b:c, each may be NULL */
    K_CALL,    /* a(items) */
    K_HOLE,    /* the text that a filter block filters */
    K_KWARG,   /* name=a, in items of a call */
    K_STAR,    /* *a */
    K_STARSTAR,
    K_NSREF, /* value.name as a target: `value` holds the namespace's name */
    /* statements */
    K_BODY,         /* items */
    K_DATA,         /* value */
    K_OUTPUT,       /* a */
    K_FOR,          /* for a in b if c: d else e */
    K_IF,           /* items: test, body, test, body ...; c: else */
    K_SET,          /* a = b */
    K_SET_BLOCK,    /* a, body b, filters c (may be NULL) */
    K_WITH,         /* items: target, value ...; b body */
    K_MACRO,        /* name, items: K_PARAM, b body */
    K_PARAM,        /* name, default a (may be NULL) */
    K_CALL_BLOCK,   /* call a, macro c */
    K_FILTER_BLOCK, /* body b, filters c */
    K_SCOPE,        /* body b in a scope of its own */
    K_BREAK,
    K_CONTINUE,
} jkind;

enum { USES_VARARGS = 1, USES_KWARGS = 2, USES_CALLER = 4 };

struct jnode {
    jkind kind;
    jop op;
    int line;
    uint8_t uses;   /* K_MACRO */
    bool recursive; /* K_FOR */
    jtext *name;
    jfunction fn; /* K_FILTER, K_TEST: NULL when there is none of that name */
    jvalue value;
    jnode *a, *b, *c, *d, *e;
    jnode **items;
    int n;
};

struct jinja_template {
    jpool pool;
    char *name;
    char *source; /* zero-terminated */
    jnode *body;
};

/* jinja_lex.c. *tokens ends with TOK_END. */
err jinja_lex(jinja_template *t, const char *source, size_t length, jtoken **tokens) MUST_USE;
/* jinja_parse.c: fills t->body. */
err jinja_parse(jinja_template *t, const jtoken *tokens) MUST_USE;

/* What the two files of the parser share. */
typedef struct jparser {
    jinja_template *t;
    const jtoken *at;
    err error;
    int depth, loops;
    jnode *macros[JINJA_PARSE_DEPTH]; /* open ones, innermost last */
    int n_macros;
} jparser;

jnode *jparse_fail(jparser *p, err_code code, const char *format, ...) PRINTF_LIKE(3, 4);
jnode *jparse_node(jparser *p, jkind kind);
bool jparse_push(jparser *p, jnode *parent, jnode *child); /* false: no memory, or child is NULL */
bool jparse_is_op(const jparser *p, jop op);
bool jparse_is_name(const jparser *p, const char *name);
bool jparse_skip_op(jparser *p, jop op);
bool jparse_skip_name(jparser *p, const char *name);
bool jparse_expect_op(jparser *p, jop op);
jtext *jparse_expect_name(jparser *p);
bool jparse_enter(jparser *p);
/* What a token is, for messages. */
const char *jparse_token(const jtoken *token, char room[64]);
const char *jop_text(jop op);

jnode *jparse_expression(jparser *p, bool with_condition);
/* One expression, or a tuple of them when a comma follows. */
typedef struct jtuple_rule {
    bool simplified;     /* names only: a target */
    bool with_condition; /* x if y else z allowed */
    bool explicit_parentheses;
    const char *end; /* a name that ends it, or NULL */
} jtuple_rule;
jnode *jparse_tuple(jparser *p, jtuple_rule rule);
jnode *jparse_target(jparser *p, bool name_only, bool with_namespace, const char *end);
bool jparse_call_arguments(jparser *p, jnode *call);
jnode *jparse_filters(jparser *p, jnode *input, bool inline_start);

/* ---- a run ---- */

struct jscope {
    jscope *outer;
    struct {
        jtext *name;
        jvalue value;
    } * names;
    int count, capacity;
};

typedef struct jbuf {
    char *bytes;
    uint8_t *marks; /* NULL while all have `mark` */
    size_t count, capacity;
    uint8_t mark;
} jbuf;

struct jrun {
    const jinja_template *t;
    jpool pool;
    err error;
    int line, depth;
    uint64_t steps; /* left */
    size_t max_output;
    jscope *scope; /* innermost */
    jdict *context;
    jbuf *out;
    jvalue hole; /* K_HOLE */
    jtext *loop_name, *varargs_name, *kwargs_name, *caller_name;
    int64_t now;
};

struct jloop {
    const jnode *node;
    jscope *outer;
    jlist *source; /* walked lazily, because a filter may look at what the body has done */
    size_t at;
    int64_t index0;
    int depth0;
    bool filtered;                 /* what is left has passed the loop's filter */
    jvalue current, before, after; /* J_MISSING: none */
    jvalue changed;                /* what loop.changed() saw last, or J_MISSING */
};

bool jrun_fail(jrun *r, err_code code, const char *format, ...) PRINTF_LIKE(3, 4);
#define JFAIL(r, ...) jrun_fail(r, ERR_CORRUPT, __VA_ARGS__)
/* Counts work in units of about 50 ns. */
bool jrun_charge(jrun *r, size_t units);
bool jrun_enter(jrun *r); /* one level deeper; jrun_leave when it was true */
static inline void jrun_leave(jrun *r) { r->depth--; }
void *jrun_alloc(jrun *r, size_t count, size_t size); /* fails the run when NULL */

/* jinja_run.c */
bool jrun_template(jrun *r);
bool jrun_call_macro(jrun *r, jmacro *m, const jargs *args, jvalue *out);
bool jrun_call_loop(jrun *r, jloop *loop, const jargs *args, jvalue *out);
bool jloop_attr(jrun *r, jloop *loop, const jtext *name, jvalue *out, bool *found);
bool jrun_lookup(jrun *r, const jtext *name, jvalue *out);
bool jscope_set(jrun *r, jscope *s, jtext *name, jvalue value);

/* jinja_eval.c */
bool jeval(jrun *r, const jnode *n, jvalue *out);
bool jeval_args(jrun *r, const jnode *call, jargs *out);
bool jcall_value(jrun *r, jvalue callee, const jargs *args, jvalue *out);
/* Puts arguments to their names: "d! width first", a "!" after those that must be given. Others are
 * J_MISSING. */
bool jargs_bind(jrun *r, const char *what, const jargs *args, const char *names, jvalue *out);

/* jinja_value.c */
const char *jtype_name(jvalue v);
bool jtruth(jvalue v);
jlist *jlist_new(jrun *r, size_t capacity);
bool jlist_push(jrun *r, jlist *l, jvalue v);
jdict *jdict_new(jrun *r);
bool jdict_set(jrun *r, jdict *d, jvalue key, jvalue value);
/* *found is NULL when it is not there. Fails for a key that cannot be one. */
bool jdict_get(jrun *r, const jdict *d, jvalue key, jvalue **found);
/* By a string; never fails. */
jvalue *jdict_find(const jdict *d, const jtext *key);
bool jhash(jrun *r, jvalue v, uint32_t *out);
bool jequal(jrun *r, jvalue a, jvalue b, bool *out);
/* -1, 0, 1. Fails for what Python does not order. */
bool jcompare(jrun *r, jvalue a, jvalue b, const char *op, int *out);
bool jcontains(jrun *r, jvalue container, jvalue item, bool *out);
bool jlength(jrun *r, jvalue v, size_t *out);
bool jcan_iterate(jvalue v);
/* Everything that iterating gives, in a list that may be shared: do not change it. Generators are
 * used up. */
bool jiterate(jrun *r, jvalue v, jlist **out);
bool jiter_new(jrun *r, jlist *list, const char *kind, jvalue *out);
bool jfrom_json(jrun *r, const json_t *json, uint8_t mark, jvalue *out);
jvalue jundefined(jtext *why); /* why: the sentence of the error, if somebody uses it */
bool jfail_undefined(jrun *r, jvalue v);

/* jinja_text.c */
jtext *jtext_new(jrun *r, const char *bytes, size_t length, uint8_t mark); /* bytes are borrowed */
jtext *jtext_literal(jrun *r, const char *zero_terminated);
jtext *jtext_slice(jrun *r, const jtext *t, size_t from, size_t to); /* bytes */
bool jtext_is(const jtext *t, const char *zero_terminated);
bool jtext_same(const jtext *a, const jtext *b);
int jtext_order(const jtext *a, const jtext *b);
uint32_t jtext_hash(const jtext *t);
size_t jtext_offset(const jtext *t, size_t chars); /* byte where that code point begins */
size_t jtext_count(const char *bytes, size_t length);
static inline uint8_t jtext_mark(const jtext *t, size_t at) {
    return t->marks ? t->marks[at] : t->mark;
}
/* Byte offset of `what` in t at or after from; SIZE_MAX. */
size_t jtext_find(const jtext *t, const jtext *what, size_t from);
size_t jtext_find_last(const jtext *t, const jtext *what, size_t to);
uint32_t jtext_char(const jtext *t, size_t at, size_t *length);        /* at < t->length */
uint32_t jtext_char_before(const jtext *t, size_t at, size_t *length); /* at > 0 */
bool junicode_is_space(uint32_t c);
bool junicode_is_line_end(uint32_t c);

bool jbuf_add(jrun *r, jbuf *b, const char *bytes, size_t length, uint8_t mark);
bool jbuf_add_text(jrun *r, jbuf *b, const jtext *t);
bool jbuf_add_slice(jrun *r, jbuf *b, const jtext *t, size_t from, size_t to);
bool jbuf_add_literal(jrun *r, jbuf *b, const char *zero_terminated);
bool jbuf_add_char(jrun *r, jbuf *b, uint32_t code_point, uint8_t mark);
bool jbuf_fill(jrun *r, jbuf *b, size_t count, const char *bytes, uint8_t mark);
jtext *jbuf_text(jrun *r, const jbuf *b);     /* shares the bytes: add nothing afterwards */
jtext *jtext_escape(jrun *r, const jtext *t); /* HTML; the result is safe */

/* jinja_repr.c */
jtext *jstr(jrun *r, jvalue v); /* str(v) */
bool jrepr(jrun *r, jbuf *b, jvalue v);
bool jrepr_text(jrun *r, jbuf *b, const jtext *t, bool ascii);
size_t jfloat_repr(double f, char out[40]);
bool jtojson(jrun *r, jvalue self, const jargs *args, jvalue *out);

/* jinja_ops.c */
bool jbinary(jrun *r, jop op, jvalue a, jvalue b, jvalue *out);
bool jconcat(jrun *r, const jvalue *parts, int n, jvalue *out);

/* jinja_attr.c */
bool jget_attr(jrun *r, jvalue object, jtext *name, jvalue *out);
bool jget_item(jrun *r, jvalue object, jvalue key, jvalue *out);
bool jslice(jrun *r, jvalue object, const jvalue part[3], jvalue *out);
/* "a.b.0": the attribute argument of map, sort ...; otherwise replaces undefined (J_MISSING: not)
 */
bool jget_path(jrun *r, jvalue object, jvalue path, jvalue otherwise, jvalue *out);

/* jinja_format.c */
bool jformat_percent(jrun *r, const jtext *format, jvalue args, jvalue *out);
bool jformat_method(jrun *r, jvalue self, const jargs *args, jvalue *out);

/* Tables that end with a NULL name. */
extern const jnamed jinja_text_methods[], jinja_text_methods_2[];
extern const jnamed jinja_list_methods[], jinja_dict_methods[], jinja_cycler_methods[];
extern const jnamed jinja_filters[], jinja_filters_text[], jinja_filters_2[];
extern const jnamed jinja_tests[];
extern const jnamed jinja_globals[];
jfunction jfind(const jnamed *table, const jtext *name);
jfunction jfind_filter(const jtext *name);

/* jinja_case.c */
/* Writes the upper, lower or title form of c (1 to 3 code points) and returns how many. */
int jcase_upper(uint32_t c, uint32_t out[3]);
int jcase_lower(uint32_t c, uint32_t out[3]);
int jcase_title(uint32_t c, uint32_t out[3]);
/* The lower form of c, which stands at `at` in t: a sigma depends on what is around it. */
int jcase_lower_at(const jtext *t, size_t at, uint32_t c, uint32_t out[3]);
bool jcase_is_cased(uint32_t c);
bool jtext_is_case(const jtext *t, bool upper);
jtext *jtext_upper(jrun *r, const jtext *t);
jtext *jtext_lower(jrun *r, const jtext *t);
jtext *jtext_capitalize(jrun *r, const jtext *t);

#endif
