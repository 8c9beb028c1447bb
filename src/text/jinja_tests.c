/* jinja_tests.c: what may stand behind "is". */
#include <math.h>

#include "text/jinja_impl.h"

static bool say(bool yes, jvalue *out) {
    *out = jbool(yes);
    return true;
}

#define NO_ARGUMENTS(name)                                                                         \
    if (!jargs_bind(r, name, args, "", NULL)) return false

static bool test_defined(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("defined");
    return say(v.type != J_UNDEFINED, out);
}

static bool test_undefined(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("undefined");
    return say(v.type == J_UNDEFINED, out);
}

static bool test_none(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("none");
    return say(v.type == J_NONE, out);
}

static bool test_boolean(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("boolean");
    return say(v.type == J_BOOL, out);
}

static bool test_true(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("true");
    return say(v.type == J_BOOL && v.b, out);
}

static bool test_false(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("false");
    return say(v.type == J_BOOL && !v.b, out);
}

static bool test_integer(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("integer");
    return say(v.type == J_INT, out);
}

static bool test_float(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("float");
    return say(v.type == J_FLOAT, out);
}

static bool test_number(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("number");
    return say(jis_number(v), out);
}

static bool test_string(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("string");
    return say(v.type == J_TEXT, out);
}

static bool test_mapping(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("mapping");
    return say(v.type == J_DICT, out);
}

static bool test_sequence(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("sequence");
    return say(v.type == J_TEXT || jis_sequence(v) || v.type == J_DICT || v.type == J_RANGE ||
                   v.type == J_UNDEFINED,
               out);
}

static bool test_iterable(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("iterable");
    return say(jcan_iterate(v), out);
}

static bool test_callable(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("callable");
    return say(v.type == J_FUNCTION || v.type == J_MACRO || v.type == J_LOOP ||
                   v.type == J_JOINER || v.type == J_UNDEFINED,
               out);
}

static bool test_escaped(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("escaped");
    return say(v.type == J_TEXT && v.text->safe, out);
}

static bool test_case(jrun *r, jvalue v, const jargs *args, bool upper, jvalue *out) {
    NO_ARGUMENTS("lower or upper");
    jtext *t = jstr(r, v);
    return t && jrun_charge(r, t->length / 8) && say(jtext_is_case(t, upper), out);
}

static bool test_lower(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return test_case(r, v, args, false, out);
}

static bool test_upper(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return test_case(r, v, args, true, out);
}

/* v % divisor == rest; of a string that is formatting, as in Python */
static bool remainder_is(jrun *r, jvalue v, jvalue divisor, int64_t rest, jvalue *out) {
    jvalue m;
    bool same;
    if (!jbinary(r, OP_MOD, v, divisor, &m) || !jequal(r, m, jint(rest), &same)) return false;
    return say(same, out);
}

static bool test_odd(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("odd");
    return remainder_is(r, v, jint(2), 1, out);
}

static bool test_even(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    NO_ARGUMENTS("even");
    return remainder_is(r, v, jint(2), 0, out);
}

static bool test_divisibleby(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    jvalue a[1];
    return jargs_bind(r, "divisibleby", args, "num!", a) && remainder_is(r, v, a[0], 0, out);
}

/* The same object: small values are, lists and dicts by address. Strings and numbers have no
 * identity that a template could rely on. */
static bool test_sameas(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "sameas", args, "other!", a)) return false;
    if (v.type != a[0].type) return say(false, out);
    if (v.type == J_NONE) return say(true, out);
    if (v.type == J_BOOL) return say(v.b == a[0].b, out);
    if (v.type == J_INT || v.type == J_FLOAT || v.type == J_TEXT || v.type == J_UNDEFINED) {
        bool same;
        if (!jequal(r, v, a[0], &same)) return false;
        if (!same) return say(false, out);
        if (v.type == J_INT && v.i >= -5 && v.i <= 256) return say(true, out);
        return jrun_fail(r, ERR_UNSUPPORTED, "'sameas' of two equal %ss", jtype_name(v));
    }
    return say(v.list == a[0].list, out);
}

static bool test_in(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    jvalue a[1];
    bool yes;
    return jargs_bind(r, "in", args, "seq!", a) && jcontains(r, a[0], v, &yes) && say(yes, out);
}

static bool test_eq(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    jvalue a[1];
    bool yes;
    return jargs_bind(r, "eq", args, "other!", a) && jequal(r, v, a[0], &yes) && say(yes, out);
}

static bool test_ne(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return test_eq(r, v, args, out) && say(!out->b, out);
}

static bool order(jrun *r, jvalue v, const jargs *args, const char *op, jvalue *out) {
    jvalue a[1];
    int c;
    if (!jargs_bind(r, op, args, "other!", a) || !jcompare(r, v, a[0], op, &c)) return false;
    bool nan = (v.type == J_FLOAT && isnan(v.f)) || (a[0].type == J_FLOAT && isnan(a[0].f));
    bool equal = op[1] == '=' && c == 0;
    return say(!nan && (equal || (op[0] == '<' ? c < 0 : c > 0)), out);
}

static bool test_gt(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return order(r, v, args, ">", out);
}

static bool test_ge(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return order(r, v, args, ">=", out);
}

static bool test_lt(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return order(r, v, args, "<", out);
}

static bool test_le(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    return order(r, v, args, "<=", out);
}

static bool test_filter(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    uint32_t hash;
    NO_ARGUMENTS("filter");
    if (!jhash(r, v, &hash)) return false;
    return say(v.type == J_TEXT && jfind_filter(v.text), out);
}

static bool test_test(jrun *r, jvalue v, const jargs *args, jvalue *out) {
    uint32_t hash;
    NO_ARGUMENTS("test");
    if (!jhash(r, v, &hash)) return false;
    return say(v.type == J_TEXT && jfind(jinja_tests, v.text), out);
}

const jnamed jinja_tests[] = {
    {"defined", test_defined},
    {"undefined", test_undefined},
    {"none", test_none},
    {"string", test_string},
    {"mapping", test_mapping},
    {"iterable", test_iterable},
    {"sequence", test_sequence},
    {"boolean", test_boolean},
    {"true", test_true},
    {"false", test_false},
    {"integer", test_integer},
    {"float", test_float},
    {"number", test_number},
    {"in", test_in},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"==", test_eq},
    {"ne", test_ne},
    {"!=", test_ne},
    {"gt", test_gt},
    {"greaterthan", test_gt},
    {">", test_gt},
    {"ge", test_ge},
    {">=", test_ge},
    {"lt", test_lt},
    {"lessthan", test_lt},
    {"<", test_lt},
    {"le", test_le},
    {"<=", test_le},
    {"odd", test_odd},
    {"even", test_even},
    {"divisibleby", test_divisibleby},
    {"lower", test_lower},
    {"upper", test_upper},
    {"callable", test_callable},
    {"sameas", test_sameas},
    {"escaped", test_escaped},
    {"filter", test_filter},
    {"test", test_test},
    {NULL, NULL},
};
