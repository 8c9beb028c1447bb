/* The template engine by itself: examples of the language with their output, the origin of each
 * byte, errors that name line and construct, and limits. tests/template compares it with jinja2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/template.h"
#include "text/text_buf.h"

#define DATA                                                                                       \
    "{\"s\": \"Hello\", \"u\": \"\\u00c4\\u00df\\u65e5\", \"n\": 7, \"f\": 2.5, \"t\": true, "     \
    "\"nil\": null, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": [\"x\"]}, "                         \
    "\"m\": [{\"role\": \"user\", \"content\": \"<|end|>\"}]}"

/* Output, or in segments: "0:text 1:text" with a bar between. */
typedef struct output {
    text_buf text, segments;
} output;

static err collect(void *ctx, uint8_t mark, const char *bytes, size_t length) {
    output *o = ctx;
    assert_true(length > 0);
    if (o->segments.length) TRY(text_buf_add_byte(&o->segments, '|'));
    TRY(text_buf_add_byte(&o->segments, (char)('0' + mark)));
    TRY(text_buf_add(&o->segments, bytes, length));
    return text_buf_add(&o->text, bytes, length);
}

static err run(const char *source, template_options o, output *out) {
    json_t *data = json_loads(DATA, 0, NULL);
    assert_non_null(data);
    template_variable variables[16];
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach(data, key, value) {
        variables[n++] = (template_variable){.name = key, .value = value, .mark = TEMPLATE_CONTENT};
    }
    o.variables = variables;
    o.n_variables = n;
    jinja_template *t;
    *out = (output){.text = {0}};
    err e = template_parse("t", source, strlen(source), &t);
    if (!e.code) e = template_render(t, &o, collect, out);
    template_free(t);
    json_decref(data);
    return e;
}

static void free_output(output *o) {
    text_buf_free(&o->text);
    text_buf_free(&o->segments);
}

static void language(void **unused) {
    (void)unused;
    static const char *const cases[][2] = {
        {"", ""},
        {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 ** 2 }} {{ 7 / 2 }}", "3 -4 2 64 3.5"},
        {"{{ true }} {{ none }} {{ 1.0 }} {{ 1e16 }} {{ 0.1 + 0.2 }}",
         "True None 1.0 1e+16 0.30000000000000004"},
        {"{{ d }} {{ l }} {{ (1,) }}", "{'b': 1, 'a': ['x']} [3, 1, 2] (1,)"},
        {"{{ d | tojson }} {{ d | tojson(indent=1) }}",
         "{\"b\": 1, \"a\": [\"x\"]} {\n \"b\": 1,\n \"a\": [\n  \"x\"\n ]\n}"},
        {"{{ u | length }} {{ u[::-1] }} {{ u[1:] }} {{ u | upper }}", "3 日ßÄ ß日 ÄSS日"},
        {"{{ missing }}{{ missing is defined }}{{ d.nope }}", "False"},
        {"{% for x in l if x > 1 %}{{ loop.index }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}",
         "1:3,2:2"},
        {"{% set x = 0 %}{% for i in l %}{% set x = x + i %}{% endfor %}{{ x }}", "0"},
        {"{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ "
         "ns.x }}",
         "6"},
        {"{% macro f(a, b='z') %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
         "{% call f(1) %}body{% endcall %}",
         "1zbody"},
        {"  {% if true %}\n  x\n  {% endif %}\ny\n\n", "  x\ny\n"},
        {"a {{- 1 -}} b", "a1b"},
        {"{# c #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
        {"{% generation %}{{ s }}{% endgeneration %}", "Hello"},
        {"{{ strftime_now('%Y') }}", "1970"},
        {"{{ '%5.1f|%-3s|' % (f, n) }}{{ '{:>4}'.format(n) }}", "  2.5|7  |   7"},
        {"{{ l | sort | join('-') }} {{ l | map('string') | list }}", "1-2-3 ['3', '1', '2']"},
        {"{{ ('<b>' | safe) + '<i>' }}", "<b>&lt;i&gt;"},
        {"{% for x in l %}{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "3"},
        {"{{ 'a' 'b' ~ 1 ~ none }}{{ 1 < 2 < 3 and 'l' in 'Hello' }}", "ab1NoneTrue"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        err e = run(cases[i][0], (template_options){.now = 86400}, &o);
        if (e.code) fail_msg("%s: %s", cases[i][0], e.text);
        assert_string_equal(o.text.data ? o.text.data : "", cases[i][1]);
        free_output(&o);
    }
}

static void origins(void **unused) {
    (void)unused;
    static const char *const cases[][2] = {
        {"<|start|>{{ m[0].role }}: {{ m[0].content }}<|end|>",
         "0<|start|>|1user|0: |1<|end|>|0<|end|>"},
        {"{{ '<' + s[1:3] ~ s | upper + '>' }}", "0<|1elHELLO|0>"},
        {"{{ s | replace('l', '_') }}", "1He|0__|1o"},
        {"{{ ('a' + s + 'b')[::-1] }}", "0b|1olleH|0a"},
        {"{{ {'k': s} | tojson }}", "0{\"k\": \"|1Hello|0\"}"},
        {"{{ [s, 'x'] | join(s[0]) }}{{ n }}", "1HelloH|0x7"},
        {"{{ '%s!' % s }}{{ '{}?'.format(s) }}", "1Hello|0!|1Hello|0?"},
        {"{{ s.split('l') }}{{ s | center(7) }}", "0['|1He|0', '', '|1o|0'] |1Hello|0 "},
        {"{% set x %}[{{ s }}]{% endset %}{{ x | trim | lower }}", "0[|1hello|0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        err e = run(cases[i][0], (template_options){.now = 1}, &o);
        if (e.code) fail_msg("%s: %s", cases[i][0], e.text);
        assert_string_equal(o.segments.data, cases[i][1]);
        free_output(&o);
    }
}

static void errors(void **unused) {
    (void)unused;
    static const struct {
        const char *source;
        err_code code;
        const char *says;
    } cases[] = {
        {"{{ raise_exception('No ' ~ n) }}", ERR_ARG, "No 7"},
        {"\n{% include 'x' %}", ERR_UNSUPPORTED,
         "t: line 2: {% include %}: chat templates have no such statement"},
        {"{% frob x %}", ERR_UNSUPPORTED, "t: line 1: unknown statement {% frob %}"},
        {"a\n\n{{ s | frob }}", ERR_UNSUPPORTED, "t: line 3: unknown filter 'frob'"},
        {"{{ s is frob }}", ERR_UNSUPPORTED, "t: line 1: unknown test 'frob'"},
        {"{{ s.encode() }}", ERR_UNSUPPORTED, "t: line 1: str.encode"},
        {"{{ missing.x }}", ERR_CORRUPT, "t: line 1: 'missing' is undefined"},
        {"{{ d.nope.x }}", ERR_CORRUPT, "t: line 1: 'dict' has no attribute 'nope'"},
        {"{{ s + 1 }}", ERR_CORRUPT, "t: line 1: unsupported operands of '+': 'str' and 'int'"},
        {"{{ l.append(1) }}", ERR_CORRUPT,
         "t: line 1: a method that changes its object is not allowed here"},
        {"{{ nil | length }}", ERR_CORRUPT, "t: line 1: object of type 'NoneType' has no len()"},
        {"{% if x %}", ERR_CORRUPT, "t: line 1: the template ends before {% endif %}"},
        {"{{ (1 }}", ERR_CORRUPT, "t: line 1: a closing bracket does not match"},
        {"{% else %}", ERR_CORRUPT, "t: line 1: unexpected {% else %}"},
        {"{{ 9223372036854775807 + 1 }}", ERR_UNSUPPORTED,
         "t: line 1: a whole number needs more than 64 bits"},
        {"{{ 'a' \x80 }}", ERR_CORRUPT, "t: line 1: the template is not valid UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        err e = run(cases[i].source, (template_options){.now = 1}, &o);
        assert_string_equal(e.text, cases[i].says);
        assert_int_equal(e.code, cases[i].code);
        assert_null(o.text.data);
        free_output(&o);
    }
}

static void limits(void **unused) {
    (void)unused;
    const template_options small = {
        .now = 1, .max_steps = 1000000, .max_memory = (size_t)64 << 20, .max_output = 1 << 20};
    static const char *const cases[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
        "{{ range(1000000) }}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% "
        "endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor "
        "%}"
        "{{ ns.x }}",
        "{{ '%999999d' % 1 }}",
        "{{ 'x'.center(99999999) }}",
        "{% for x in l recursive %}{{ loop(l) }}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        err e = run(cases[i], small, &o);
        if (e.code != ERR_RANGE && e.code != ERR_CORRUPT) fail_msg("%s: %s", cases[i], e.text);
        assert_true(e.code == ERR_RANGE || strstr(e.text, "width"));
        free_output(&o);
    }
}

/* Nesting that a parser without bounds would die of. */
static void deep(void **unused) {
    (void)unused;
    static const char *const parts[] = {"(", "[", "not ", "-", "{% if 1 %}", "x if ", "{1:"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        text_buf b = {0};
        bool tag = parts[i][0] == '{' && parts[i][1] == '%';
        if (!tag) assert_int_equal(text_buf_add_text(&b, "{{ ").code, 0);
        for (int k = 0; k < 100000; k++) assert_int_equal(text_buf_add_text(&b, parts[i]).code, 0);
        jinja_template *t;
        err e = template_parse("t", b.data, b.length, &t);
        assert_true(e.code == ERR_RANGE || e.code == ERR_CORRUPT);
        assert_null(t);
        text_buf_free(&b);
    }
    text_buf b = {0}; /* parsed in a loop, evaluated in depth */
    assert_int_equal(text_buf_add_text(&b, "{{ 1").code, 0);
    for (int k = 0; k < 100000; k++) assert_int_equal(text_buf_add_text(&b, "+1").code, 0);
    assert_int_equal(text_buf_add_text(&b, " }}").code, 0);
    output o;
    assert_int_equal(run(b.data, (template_options){.now = 1}, &o).code, ERR_RANGE);
    free_output(&o);
    text_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(language), cmocka_unit_test(origins), cmocka_unit_test(errors),
        cmocka_unit_test(limits),   cmocka_unit_test(deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
