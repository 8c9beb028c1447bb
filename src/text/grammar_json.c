/* grammar_json.c: the nodes of a schema's values, as JSON and as tagged parameters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"
#include "text/grammar_regex.h"

#define OPTIONAL_MAX    200 /* optional properties in a row: each is a configuration */
#define WHOLE_DIGITS    15
#define FRACTION_DIGITS 16

typedef struct builder {
    grammar *g;
    const schema *s;
    int *node_of; /* owned, [schema nodes]: made already, or -1 */
} builder;

static int value_node(builder *b, int node);

static int punctuation(grammar *g, const char *text) {
    return grammar_literal(g, text, strlen(text), true);
}

/* One automaton as a node; takes d over. */
static int machine(grammar *g, err e, dfa *d) {
    if (e.code) {
        grammar_fail(g, e);
        return 0;
    }
    return grammar_machine_node(g, grammar_add_machine(g, d), 0, -1, false);
}

static int compiled(grammar *g, nfa *a, int start, int accept) {
    dfa d;
    err e = nfa_compile(a, start, accept, g->name, &d);
    nfa_free(a);
    return machine(g, e, &d);
}

/* ---- numbers ---- */

/* . and 1 to FRACTION_DIGITS digits, then on to `to`. positive: not all of them are 0. */
static void fraction(nfa *a, int from, bool positive, int to) {
    int zeros = nfa_literal(a, from, ".", 1), others = -1;
    for (int i = 0; i < FRACTION_DIGITS; i++) {
        int next_zeros = nfa_state(a), next_others = nfa_state(a);
        nfa_range(a, zeros, '0', '0', false, next_zeros);
        nfa_range(a, zeros, '1', '9', false, next_others);
        if (others >= 0) nfa_range(a, others, '0', '9', false, next_others);
        if (!positive) nfa_empty(a, next_zeros, to);
        nfa_empty(a, next_others, to);
        zeros = next_zeros;
        others = next_others;
    }
}

static void exponent(nfa *a, int from, int to) {
    int sign = nfa_state(a), first = nfa_state(a), second = nfa_state(a);
    nfa_range(a, from, 'e', 'e', false, sign);
    nfa_range(a, from, 'E', 'E', false, sign);
    nfa_empty(a, sign, first);
    nfa_range(a, sign, '+', '+', false, first);
    nfa_range(a, sign, '-', '-', false, first);
    nfa_range(a, first, '0', '9', false, second);
    nfa_range(a, second, '0', '9', false, to);
    nfa_empty(a, second, to);
}

static int any_number(grammar *g) {
    if (g->number >= 0) return g->number;
    nfa a = {0};
    int start = nfa_state(&a), whole = nfa_state(&a), part = nfa_state(&a), out = nfa_state(&a);
    nfa_integers(&a, start, 0, SCHEMA_INTEGER_MAX, whole);
    nfa_integers(&a, nfa_literal(&a, start, "-", 1), 0, SCHEMA_INTEGER_MAX, whole);
    fraction(&a, whole, false, part);
    nfa_empty(&a, whole, part);
    nfa_empty(&a, part, out);
    int end = nfa_state(&a);
    exponent(&a, part, end);
    nfa_empty(&a, end, out);
    return g->number = compiled(g, &a, start, out);
}

/* The integers within the bounds; false: none. */
static bool integers_within(const schema_form *f, int64_t *low, int64_t *high) {
    double least = ceil(f->low), most = floor(f->high);
    if (f->low_exclusive && least == f->low) least++;
    if (f->high_exclusive && most == f->high) most--;
    if (least < -(double)SCHEMA_INTEGER_MAX) least = -(double)SCHEMA_INTEGER_MAX;
    if (most > (double)SCHEMA_INTEGER_MAX) most = (double)SCHEMA_INTEGER_MAX;
    if (!(least <= most)) return false;
    *low = (int64_t)least;
    *high = (int64_t)most;
    return true;
}

static int integer_node(grammar *g, const schema_form *f) {
    bool free_range = f->low == -INFINITY && f->high == INFINITY;
    if (free_range && g->integer >= 0) return g->integer;
    nfa a = {0};
    int64_t low, high;
    int start = nfa_state(&a), out = nfa_state(&a);
    if (integers_within(f, &low, &high)) nfa_integers(&a, start, low, high, out);
    int node = compiled(g, &a, start, out);
    if (free_range) g->integer = node;
    return node;
}

/* Decimals n.ddd for the whole numbers n in [first, last]; where n is `edge`, which the value must
 * not be, ddd is not all zeros. */
static void decimals(nfa *a, int from, const int64_t range[2], int64_t edge, int to) {
    int64_t first = range[0];
    if (first == edge && first <= range[1]) {
        int whole = nfa_state(a);
        nfa_integers(a, from, first, first, whole);
        fraction(a, whole, true, to);
        first++;
    }
    if (first > range[1]) return;
    int whole = nfa_state(a);
    nfa_integers(a, from, first, range[1], whole);
    fraction(a, whole, false, to);
}

/* With bounds: the integers within them, and decimals between two neighbouring integers that the
 * bounds enclose (an exclusive bound itself is one of them, but for the value). */
static int number_node(grammar *g, const schema_form *f) {
    if (f->low == -INFINITY && f->high == INFINITY) return any_number(g);
    nfa a = {0};
    int64_t low, high;
    int start = nfa_state(&a), out = nfa_state(&a);
    schema_form closed = {.low = ceil(f->low), .high = floor(f->high)}; /* bounds as if inclusive */
    if (integers_within(f, &low, &high)) nfa_integers(&a, start, low, high, out);
    if (integers_within(&closed, &low, &high)) {
        int64_t above[2] = {low > 0 ? low : 0, high - 1};
        int64_t below[2] = {high < 0 ? -high : 0, -low - 1}; /* without their sign */
        decimals(&a, start, above, f->low_exclusive && f->low >= 0 ? low : -1, out);
        decimals(&a, nfa_literal(&a, start, "-", 1), below,
                 f->high_exclusive && f->high <= 0 ? -high : -1, out);
    }
    return compiled(g, &a, start, out);
}

/* ---- strings and constants ---- */

/* The rest of a string after what opens it; close ends it. */
static int pattern_node(grammar *g, const schema_form *f, nfa_spelling spelling,
                        const char *close) {
    dfa d;
    err e = regex_compile(f->pattern, spelling, g->name, &d);
    if (!e.code && (f->least > 0 || f->most >= 0))
        e = dfa_limit_length(&d, f->least, f->most, g->name);
    if (!e.code) e = dfa_append(&d, close, strlen(close), g->name);
    if (e.code) dfa_free(&d);
    return machine(g, e, &d);
}

static int string_node(grammar *g, const schema_form *f) {
    int rest = f->pattern ? pattern_node(g, f, NFA_JSON, "\"")
                          : grammar_machine_node(g, SHARED_STRING, f->least, f->most, false);
    int parts[2] = {punctuation(g, "\""), rest};
    return grammar_sequence(g, parts, 2);
}

/* A value's text; strings as JSON, or as they are. */
static err value_text(const json_t *value, bool plain, text_buf *out) {
    if (plain && json_is_string(value))
        return text_buf_add(out, json_string_value(value), json_string_length(value));
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text) return err_make(ERR_NOMEM, "no memory for a value of enum");
    err e = text_buf_add_text(out, text);
    free(text);
    return e;
}

/* A string that a reader of parameters would take for a value of another type. */
static bool looks_typed(const json_t *value) {
    const char *text = json_string_value(value);
    json_t *read = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    bool typed = read && !json_is_string(read);
    json_decref(read);
    return typed;
}

/* mixed: of a parameter that may have values of other types too. */
static int values_node(grammar *g, const json_t *values, grammar_style style, bool mixed) {
    size_t n = json_array_size(values);
    bool plain = style == STYLE_PARAMETER;
    text_buf *texts = calloc(n + 1, sizeof *texts);
    err e = texts ? err_none() : err_make(ERR_NOMEM, "%s: no memory", g->name);
    int count = 0;
    for (size_t i = 0; i < n && !e.code; i++) {
        const json_t *value = json_array_get(values, i);
        if (plain && mixed && looks_typed(value)) continue;
        e = value_text(value, plain, &texts[count++]);
    }
    if (e.code) grammar_fail(g, e);
    int node = grammar_one_of(g, texts, count, plain ? PARAMETER_CLOSE : "", false);
    for (int i = 0; i < count; i++) text_buf_free(&texts[i]);
    free(texts);
    return node;
}

static int word_node(grammar *g, const char *const *words, int n) {
    text_buf texts[3] = {{0}};
    err e = err_none();
    for (int i = 0; i < n && !e.code; i++) e = text_buf_add_text(&texts[i], words[i]);
    if (e.code) grammar_fail(g, e);
    int node = grammar_one_of(g, texts, n, "", false);
    for (int i = 0; i < n; i++) text_buf_free(&texts[i]);
    return node;
}

static int boolean_node(grammar *g) {
    static const char *const words[] = {"true", "false"};
    return word_node(g, words, 2);
}

/* ---- arrays ---- */

/* items: nodes of the first ones and of the others. */
static int array_node(grammar *g, const int *prefix, int n_prefix, int items, const int range[2]) {
    int *first = malloc(((size_t)n_prefix + 1) * sizeof *first);
    if (!first) {
        grammar_fail(g, err_make(ERR_NOMEM, "%s: no memory", g->name));
        return 0;
    }
    int space = grammar_whitespace(g), comma = punctuation(g, ",");
    int next[3] = {comma, space, items};
    int other = grammar_sequence(g, next, 3), n = 0;
    for (int i = 0; i < n_prefix || i < 1; i++) {
        int one[3] = {comma, space, i < n_prefix ? prefix[i] : items};
        first[n++] = i ? grammar_sequence(g, one, 3) : one[2];
    }
    int least = range[0] > 1 ? range[0] : 1;
    int filled[4] = {space, grammar_repeat(g, first, n, other, least, range[1]), space,
                     punctuation(g, "]")};
    free(first);
    int ways[2], n_ways = 0;
    if (range[0] == 0) ways[n_ways++] = punctuation(g, "]");
    if (range[1] != 0) ways[n_ways++] = grammar_sequence(g, filled, 4);
    int parts[2] = {punctuation(g, "["), grammar_choice(g, ways, n_ways)};
    return grammar_sequence(g, parts, 2);
}

static int array_form(builder *b, const schema_form *f) {
    int *prefix = malloc(((size_t)f->n_prefix + 1) * sizeof *prefix);
    if (!prefix) {
        grammar_fail(b->g, err_make(ERR_NOMEM, "%s: no memory", b->g->name));
        return 0;
    }
    for (int i = 0; i < f->n_prefix; i++) prefix[i] = value_node(b, f->prefix[i]);
    int range[2] = {f->least, f->most};
    int node = array_node(b->g, prefix, f->n_prefix, value_node(b, f->items), range);
    free(prefix);
    return node;
}

/* ---- objects ---- */

/* "NAME": after a separator (a node, or -1), then the value. */
static int member(grammar *g, int separator, int key, int value) {
    int parts[5], n = 0;
    if (separator >= 0) parts[n++] = separator;
    parts[n++] = grammar_whitespace(g);
    parts[n++] = key;
    parts[n++] = grammar_whitespace(g);
    parts[n++] = value;
    return grammar_sequence(g, parts, n);
}

static int key_literal(grammar *g, const char *name) {
    text_buf text = {0};
    err e = text_buf_add_byte(&text, '"');
    if (!e.code) e = text_buf_add_escaped(&text, name, strlen(name));
    if (!e.code) e = text_buf_add_text(&text, "\":");
    if (e.code) grammar_fail(g, e);
    int node = grammar_literal(g, text.data, text.length, true);
    text_buf_free(&text);
    return node;
}

/* A key that is none of the listed names: `"`, the rest of it, `:`. */
static int other_key(grammar *g, const schema_form *f) {
    int rest = SHARED_KEY;
    if (f && f->n_properties) {
        nfa names = {0}, keys = {0};
        int start = nfa_state(&names), accept = nfa_state(&names);
        for (int i = 0; i < f->n_properties; i++) {
            const char *name = f->properties[i].name;
            int state = nfa_literal(&names, start, name, strlen(name));
            nfa_range(&names, state, '"', '"', false, accept);
        }
        dfa listed = {0}, d = {0};
        int begin = nfa_state(&keys);
        nfa_points(&keys, begin, 0x20, '"' - 1, NFA_RAW, begin);
        nfa_points(&keys, begin, '"' + 1, '\\' - 1, NFA_RAW, begin);
        nfa_points(&keys, begin, '\\' + 1, 0x10ffff, NFA_RAW, begin);
        int end = nfa_literal(&keys, begin, "\"", 1);
        err e = nfa_compile(&names, start, accept, g->name, &listed);
        if (!e.code) e = nfa_compile(&keys, begin, end, g->name, &d);
        if (!e.code) e = dfa_subtract(&d, &listed, g->name);
        nfa_free(&names);
        nfa_free(&keys);
        dfa_free(&listed);
        if (e.code) {
            dfa_free(&d);
            grammar_fail(g, e);
            return 0;
        }
        rest = grammar_add_machine(g, &d);
    }
    int parts[3] = {punctuation(g, "\""), grammar_machine_node(g, rest, 0, -1, false),
                    punctuation(g, ":")};
    return grammar_sequence(g, parts, 3);
}

static void check_optional(grammar *g, const schema_form *f) {
    int run = 0;
    for (int i = 0; i < f->n_properties; i++) {
        run = f->properties[i].required ? 0 : run + 1;
        if (run > OPTIONAL_MAX)
            grammar_fail(g, err_make(ERR_RANGE,
                                     "%s: more than %d optional properties in one object (at "
                                     "\"%.100s\")",
                                     g->name, OPTIONAL_MAX, f->properties[i].name));
    }
}

/* Whatever closes an object, and other members of it (other < 0: none). */
static int object_of(grammar *g, const int *properties, int n, int key, int other) {
    int comma = punctuation(g, ",");
    int ends[OBJECT_INTS] = {-1, -1, punctuation(g, "}"), 0};
    int end[2] = {grammar_whitespace(g), punctuation(g, "}")};
    ends[OBJECT_END] = grammar_sequence(g, end, 2);
    if (other >= 0) {
        ends[OBJECT_MORE_FIRST] = member(g, -1, key, other);
        ends[OBJECT_MORE_NEXT] = member(g, comma, key, other);
    }
    int parts[2] = {punctuation(g, "{"), grammar_object(g, properties, n, ends)};
    return grammar_sequence(g, parts, 2);
}

static int object_form(builder *b, const schema_form *f) {
    grammar *g = b->g;
    check_optional(g, f);
    int *list = malloc(((size_t)f->n_properties + 1) * PROPERTY_INTS * sizeof *list);
    if (!list) {
        grammar_fail(g, err_make(ERR_NOMEM, "%s: no memory", g->name));
        return 0;
    }
    int comma = punctuation(g, ",");
    for (int i = 0; i < f->n_properties && !g->e.code; i++) {
        const schema_property *p = &f->properties[i];
        int key = key_literal(g, p->name), value = value_node(b, p->node);
        list[i * PROPERTY_INTS + PROPERTY_FIRST] = member(g, -1, key, value);
        list[i * PROPERTY_INTS + PROPERTY_NEXT] = member(g, comma, key, value);
        list[i * PROPERTY_INTS + PROPERTY_REQUIRED] = p->required;
    }
    int other = f->additional == SCHEMA_NEVER ? -1 : value_node(b, f->additional);
    int key = other >= 0 ? other_key(g, f) : -1;
    int node = g->e.code ? 0 : object_of(g, list, f->n_properties, key, other);
    free(list);
    return node;
}

/* ---- any value ---- */

static int any_value(grammar *g) {
    if (g->any_value >= 0) return g->any_value;
    static const char *const words[] = {"true", "false", "null"};
    static const schema_form text = {.most = -1};
    static const int range[2] = {0, -1};
    g->any_value = grammar_reserve(g);
    int ways[5] = {grammar_any_object(g), array_node(g, NULL, 0, g->any_value, range),
                   string_node(g, &text), any_number(g), word_node(g, words, 3)};
    grammar_become(g, g->any_value, grammar_choice(g, ways, 5));
    return g->any_value;
}

int grammar_any_object(grammar *g) {
    if (g->any_object >= 0) return g->any_object;
    g->any_object = grammar_reserve(g);
    int value = any_value(g);
    grammar_become(g, g->any_object, object_of(g, NULL, 0, other_key(g, NULL), value));
    return g->any_object;
}

/* ---- forms ---- */

static int form_node(builder *b, const schema_form *f) {
    grammar *g = b->g;
    switch (f->kind) {
    case SCHEMA_VALUES: return values_node(g, f->values, STYLE_JSON, false);
    case SCHEMA_NULL: return grammar_literal(g, "null", 4, false);
    case SCHEMA_BOOLEAN: return boolean_node(g);
    case SCHEMA_INTEGER: return integer_node(g, f);
    case SCHEMA_NUMBER: return number_node(g, f);
    case SCHEMA_STRING: return string_node(g, f);
    case SCHEMA_ARRAY: return array_form(b, f);
    default: return object_form(b, f);
    }
}

static int value_node(builder *b, int node) {
    grammar *g = b->g;
    if (node == SCHEMA_ANY) return any_value(g);
    if (b->node_of[node] >= 0 || g->e.code) return b->node_of[node];
    int reserved = b->node_of[node] = grammar_reserve(g);
    int ways[SCHEMA_ALTERNATIVES_MAX];
    const schema_node *n = &b->s->nodes[node];
    for (int i = 0; i < n->n_forms; i++) ways[i] = form_node(b, &n->forms[i]);
    grammar_become(g, reserved, grammar_choice(g, ways, n->n_forms));
    return reserved;
}

static bool builder_open(builder *b, grammar *g, const schema *s) {
    *b = (builder){.g = g, .s = s};
    b->node_of = malloc(((size_t)s->n_nodes + 1) * sizeof *b->node_of);
    if (!b->node_of) grammar_fail(g, err_make(ERR_NOMEM, "%s: no memory", g->name));
    for (int i = 0; i < s->n_nodes && b->node_of; i++) b->node_of[i] = -1;
    return b->node_of != NULL;
}

int grammar_schema_value(grammar *g, const schema *s) {
    builder b;
    if (!builder_open(&b, g, s)) return 0;
    int node = value_node(&b, s->root);
    free(b.node_of);
    return node;
}

/* ---- parameters ---- */

/* Bounds that a text which merely looks like a value of this form could break. */
static bool is_strict(const schema_form *f) {
    return f->kind == SCHEMA_OBJECT || f->kind == SCHEMA_ARRAY || f->low > -INFINITY ||
           f->high < INFINITY;
}

/* A text that no reader takes for a number, list or object. */
static int untyped_text(grammar *g, const schema_form *f) {
    nfa a = {0};
    int start = nfa_state(&a), loop = nfa_state(&a);
    static const uint32_t first[][2] = {{'!', ','},  {'.', '/'}, {':', ';'},      {'=', 'Z'},
                                        {'\\', 'z'}, {'|', '~'}, {0xa1, 0x10ffff}};
    for (int i = 0; i < 7; i++) nfa_points(&a, start, first[i][0], first[i][1], NFA_RAW, loop);
    nfa_points(&a, loop, 1, '<' - 1, NFA_RAW, loop);
    nfa_points(&a, loop, '<' + 1, 0x10ffff, NFA_RAW, loop);
    dfa d;
    err e = nfa_compile(&a, start, loop, g->name, &d);
    nfa_free(&a);
    if (!e.code && (f->least > 1 || f->most >= 0))
        e = dfa_limit_length(&d, f->least, f->most, g->name);
    if (!e.code) e = dfa_append(&d, PARAMETER_CLOSE, strlen(PARAMETER_CLOSE), g->name);
    if (e.code) dfa_free(&d);
    return machine(g, e, &d);
}

static int parameter_string(grammar *g, const schema_form *f, bool strict) {
    if (f->pattern) return pattern_node(g, f, NFA_RAW, PARAMETER_CLOSE);
    if (strict) return untyped_text(g, f);
    bool limited = f->least > 0 || f->most >= 0;
    return grammar_machine_node(g, limited ? SHARED_SHORT : SHARED_TEXT, f->least, f->most, false);
}

/* The value of a parameter and its closing tag. */
static int parameter_value(builder *b, int node) {
    grammar *g = b->g;
    if (node == SCHEMA_ANY) return grammar_machine_node(g, SHARED_TEXT, 0, -1, false);
    const schema_node *n = &b->s->nodes[node];
    int close = punctuation(g, PARAMETER_CLOSE), ways[SCHEMA_ALTERNATIVES_MAX];
    bool strict = false;
    for (int i = 0; i < n->n_forms; i++) {
        const schema_form *f = &n->forms[i];
        bool number = f->kind == SCHEMA_INTEGER || f->kind == SCHEMA_NUMBER;
        strict = strict || f->kind == SCHEMA_OBJECT || f->kind == SCHEMA_ARRAY ||
                 (number && is_strict(f));
    }
    for (int i = 0; i < n->n_forms; i++) {
        const schema_form *f = &n->forms[i];
        int parts[2] = {0, close};
        if (f->kind == SCHEMA_STRING) {
            ways[i] = parameter_string(g, f, strict);
        } else if (f->kind == SCHEMA_VALUES) {
            ways[i] = values_node(g, f->values, STYLE_PARAMETER, true);
        } else {
            parts[0] = form_node(b, f);
            ways[i] = grammar_sequence(g, parts, 2);
        }
    }
    return grammar_choice(g, ways, n->n_forms);
}

static int parameter(builder *b, const schema_property *p) {
    grammar *g = b->g;
    if (strpbrk(p->name, ">\n") || !*p->name)
        grammar_fail(g, err_make(ERR_UNSUPPORTED,
                                 "%s: the parameter name \"%.100s\" cannot be "
                                 "written in this model's tool calls",
                                 g->name, p->name));
    text_buf open = {0};
    err e = text_buf_add_text(&open, "<parameter=");
    if (!e.code) e = text_buf_add_text(&open, p->name);
    if (!e.code) e = text_buf_add_text(&open, ">\n");
    if (e.code) grammar_fail(g, e);
    int parts[3] = {grammar_literal(g, open.data, open.length, true), parameter_value(b, p->node),
                    punctuation(g, "\n")};
    text_buf_free(&open);
    return grammar_sequence(g, parts, 3);
}

static int parameters_form(builder *b, const schema_form *f, int end) {
    grammar *g = b->g;
    check_optional(g, f);
    int *list = malloc(((size_t)f->n_properties + 1) * PROPERTY_INTS * sizeof *list);
    if (!list) {
        grammar_fail(g, err_make(ERR_NOMEM, "%s: no memory", g->name));
        return 0;
    }
    for (int i = 0; i < f->n_properties && !g->e.code; i++) {
        int node = parameter(b, &f->properties[i]);
        list[i * PROPERTY_INTS + PROPERTY_FIRST] = list[i * PROPERTY_INTS + PROPERTY_NEXT] = node;
        list[i * PROPERTY_INTS + PROPERTY_REQUIRED] = f->properties[i].required;
    }
    int ends[OBJECT_INTS] = {-1, -1, end, end};
    int node = g->e.code ? 0 : grammar_object(g, list, f->n_properties, ends);
    free(list);
    return node;
}

int grammar_schema_parameters(grammar *g, const schema *s, int end) {
    builder b;
    if (!builder_open(&b, g, s)) return 0;
    int ways[SCHEMA_ALTERNATIVES_MAX], n = 0;
    const schema_node *root = &s->nodes[s->root];
    for (int i = 0; i < root->n_forms; i++)
        if (root->forms[i].kind == SCHEMA_OBJECT)
            ways[n++] = parameters_form(&b, &root->forms[i], end);
    if (s->root == SCHEMA_ANY) ways[n++] = end; /* no parameters are known */
    free(b.node_of);
    if (!n)
        grammar_fail(g,
                     err_make(ERR_ARG, "%s: the parameters of a tool must be an object", g->name));
    return grammar_choice(g, ways, n);
}
