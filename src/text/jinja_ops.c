/* jinja_ops.c: the operators + - * / // % ** ~, as Python defines them. Whole numbers have 64 bits
 * here: what does not fit is refused, never wrapped. */
#include <math.h>

#include "text/jinja_impl.h"

static bool too_large(jrun *r) {
    return jrun_fail(r, ERR_UNSUPPORTED, "a whole number needs more than 64 bits");
}

static bool power(int64_t base, int64_t exponent, int64_t *out) {
    *out = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(*out, base, out)) return false;
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) return false;
    }
    return true;
}

static int64_t floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static bool float_binary(jrun *r, jop op, double a, double b, jvalue *out) {
    double v = 0;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) {
        return JFAIL(r, "division by zero");
    }
    switch (op) {
    case OP_ADD: v = a + b; break;
    case OP_SUB: v = a - b; break;
    case OP_MUL: v = a * b; break;
    case OP_DIV: v = a / b; break;
    case OP_MOD:
    case OP_FLOORDIV: {
        double rest = fmod(a, b);
        double quotient = (a - rest) / b;
        if (rest != 0 && (b < 0) != (rest < 0)) {
            rest += b;
            quotient -= 1;
        }
        if (rest == 0) rest = copysign(0, b);
        double whole = floor(quotient);
        if (quotient != 0 && quotient - whole > 0.5) whole += 1;
        v = op == OP_MOD ? rest : quotient != 0 ? whole : copysign(0, a / b);
        break;
    }
    default:
        if (a == 0 && b < 0) return JFAIL(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
            return jrun_fail(r, ERR_UNSUPPORTED, "a complex number");
        }
        v = pow(a, b);
        if (isinf(v) && isfinite(a) && isfinite(b))
            return JFAIL(r, "numerical result out of range");
        break;
    }
    *out = jfloat(v);
    return true;
}

static bool int_binary(jrun *r, jop op, int64_t a, int64_t b, jvalue *out) {
    int64_t v = 0;
    bool over = false;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) {
        return JFAIL(r, "division by zero");
    }
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &v); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &v); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &v); break;
    case OP_DIV: *out = jfloat((double)a / (double)b); return true;
    case OP_FLOORDIV:
        over = a == INT64_MIN && b == -1;
        if (!over) v = floor_div(a, b);
        break;
    case OP_MOD: v = b == -1 ? 0 : a - floor_div(a, b) * b; break;
    default:
        if (b < 0) return float_binary(r, op, (double)a, (double)b, out);
        over = !power(a, b, &v);
        break;
    }
    if (over) return too_large(r);
    *out = jint(v);
    return true;
}

static bool repeat_text(jrun *r, const jtext *t, int64_t times, jvalue *out) {
    jbuf b = {0};
    for (int64_t i = 0; i < times && t->length; i++) {
        if (!jbuf_add_text(r, &b, t) || !jrun_charge(r, 1)) return false;
    }
    jtext *made = jbuf_text(r, &b);
    if (!made) return false;
    made->safe = t->safe;
    *out = jstring(made);
    return true;
}

static bool repeat_list(jrun *r, jvalue v, int64_t times, jvalue *out) {
    jlist *made = jlist_new(r, 0);
    if (!made) return false;
    for (int64_t i = 0; i < times && v.list->count; i++) {
        if (!jrun_charge(r, v.list->count)) return false;
        for (size_t k = 0; k < v.list->count; k++) {
            if (!jlist_push(r, made, v.list->items[k])) return false;
        }
    }
    *out = (jvalue){.type = v.type, .list = made};
    return true;
}

static bool add_lists(jrun *r, jvalue a, jvalue b, jvalue *out) {
    jlist *made = jlist_new(r, a.list->count + b.list->count);
    if (!made || !jrun_charge(r, (a.list->count + b.list->count) / 8)) return false;
    for (size_t i = 0; i < a.list->count; i++) made->items[made->count++] = a.list->items[i];
    for (size_t i = 0; i < b.list->count; i++) made->items[made->count++] = b.list->items[i];
    *out = (jvalue){.type = a.type, .list = made};
    return true;
}

static bool add_texts(jrun *r, const jtext *a, const jtext *b, jvalue *out) {
    bool safe = a->safe || b->safe;
    if (safe && !a->safe && !(a = jtext_escape(r, a))) return false;
    if (safe && !b->safe && !(b = jtext_escape(r, b))) return false;
    jbuf buf = {0};
    if (!jbuf_add_text(r, &buf, a) || !jbuf_add_text(r, &buf, b)) return false;
    jtext *made = jbuf_text(r, &buf);
    if (!made) return false;
    made->safe = safe;
    *out = jstring(made);
    return true;
}

bool jbinary(jrun *r, jop op, jvalue a, jvalue b, jvalue *out) {
    if (op == OP_MOD && a.type == J_TEXT) return jformat_percent(r, a.text, b, out);
    if (jis_integer(a) && jis_integer(b)) {
        return int_binary(r, op, jinteger(a), jinteger(b), out);
    }
    if (jis_number(a) && jis_number(b)) return float_binary(r, op, jnumber(a), jnumber(b), out);
    if (op == OP_ADD && a.type == J_TEXT && b.type == J_TEXT) {
        return add_texts(r, a.text, b.text, out);
    }
    if (op == OP_ADD && a.type == b.type && jis_sequence(a)) return add_lists(r, a, b, out);
    if (op == OP_MUL && jis_integer(b) && a.type == J_TEXT) {
        return repeat_text(r, a.text, jinteger(b), out);
    }
    if (op == OP_MUL && jis_integer(a) && b.type == J_TEXT) {
        return repeat_text(r, b.text, jinteger(a), out);
    }
    if (op == OP_MUL && jis_integer(b) && jis_sequence(a)) {
        return repeat_list(r, a, jinteger(b), out);
    }
    if (op == OP_MUL && jis_integer(a) && jis_sequence(b)) {
        return repeat_list(r, b, jinteger(a), out);
    }
    if (a.type == J_UNDEFINED) return jfail_undefined(r, a);
    if (b.type == J_UNDEFINED) return jfail_undefined(r, b);
    bool dicts = a.type == J_DICT && b.type == J_DICT;
    return JFAIL(r, "unsupported operands of '%s': '%s' and '%s'%s", jop_text(op), jtype_name(a),
                 jtype_name(b), dicts ? " (two dicts cannot be joined)" : "");
}

bool jconcat(jrun *r, const jvalue *parts, int n, jvalue *out) {
    jbuf b = {0};
    for (int i = 0; i < n; i++) {
        jtext *t = jstr(r, parts[i]);
        if (!t || !jbuf_add_text(r, &b, t)) return false;
    }
    jtext *made = jbuf_text(r, &b);
    if (made) *out = jstring(made);
    return made != NULL;
}
