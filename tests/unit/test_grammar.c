/* Constrained decoding: what schemas accept and refuse, masks against a twin that tries every
 * token, tool calls, hostile schemas. That whole outputs are valid for an independent validator is
 * tested in tests/grammar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/os.h"
#include "scratch.h"
#include "text/grammar.h"

static tokenizer *tok;
static grammar_vocab *vocab;
static const int32_t ends[] = {6137, 6135};

static int open_vocab(void **unused) {
    (void)unused;
    err e = tokenizer_open("assets/ember", &tok);
    if (!e.code) e = grammar_vocab_open(tok, 6144, ends, 2, &vocab);
    if (e.code) fprintf(stderr, "%s\n", e.text);
    return e.code ? -1 : 0;
}

static int close_vocab(void **unused) {
    (void)unused;
    grammar_vocab_close(vocab);
    tokenizer_close(tok);
    return 0;
}

/* ---- helpers ---- */

static err compile_schema(const char *text, grammar **out) {
    json_t *schema = json_loads(text, JSON_DECODE_ANY, NULL);
    if (!schema) fail_msg("not JSON: %s", text);
    grammar_spec spec = {.kind = GRAMMAR_JSON_SCHEMA, .name = "schema", .schema = schema};
    err e = grammar_compile(vocab, &spec, out);
    json_decref(schema);
    return e;
}

static grammar *must_compile(const char *text) {
    grammar *g;
    err e = compile_schema(text, &g);
    if (e.code) fail_msg("%s\n%s", text, e.text);
    return g;
}

/* Reads text token by token; how many tokens went in, *all: all of them. */
static size_t feed(grammar_state *s, token_mode mode, const char *text, bool *all) {
    token_list ids = {0};
    assert_ok(tokenizer_encode(tok, mode, text, strlen(text), &ids));
    size_t n = 0;
    while (n < ids.count && grammar_accept(s, ids.ids[n])) n++;
    *all = n == ids.count;
    token_list_free(&ids);
    return n;
}

static bool takes(grammar *g, const char *text) {
    grammar_state *s;
    bool all;
    assert_ok(grammar_state_open(g, &s));
    feed(s, TOKEN_MARKUP, text, &all);
    bool ok = all && grammar_done(s);
    grammar_state_close(s);
    return ok;
}

typedef struct example {
    const char *schema;
    const char *good[8], *bad[10];
} example;

static const example examples[] = {
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
     "\"string\"}}, \"required\": [\"a\"], \"additionalProperties\": false}",
     {"{\"a\":1}", "{\"a\": -20, \"b\": \"x\"}", "{\n  \"a\": 0,\n  \"b\": \"\\n\\u00e9\"\n}"},
     {"{}", "{\"b\":\"x\"}", "{\"a\":1,}", "{\"a\":1.5}", "{\"a\":01}", "{ \"a\":1} ",
      "{\"a\":1,\"c\":1}", "{\"a\":1,\"a\":2}", "[1]"}},
    {"{\"type\": [\"string\", \"null\"], \"minLength\": 2, \"maxLength\": 3}",
     {"\"ab\"", "\"abc\"", "null", "\"\xc3\xa9\xc3\xa9\"", "\"\\n\\n\"", "\"\xf0\x9f\x98\x80-\""},
     {"\"a\"", "\"abcd\"", "\"\xc3\xa9\"", "\"\\u0041\"", "\"a\nb\"", "nul", "\"\\ud83d\\ude00\""}},
    {"{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1, \"maxItems\": 3}",
     {"[true]", "[true, false]", "[\n true,\n false,\n true\n]"},
     {"[]", "[true,true,true,true]", "[true,]", "[1]", "[true false]"}},
    {"{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}, {\"enum\": [\"x\", null]}], "
     "\"items\": false}",
     {"[]", "[1]", "[1,\"x\"]", "[1, null]"},
     {"[\"x\"]", "[1,1]", "[1,\"x\",1]"}},
    {"{\"type\": \"integer\", \"minimum\": -12, \"exclusiveMaximum\": 105}",
     {"-12", "-9", "0", "7", "99", "100", "104"},
     {"-13", "105", "110", "1000", "-0", "007", "1.0", "-"}},
    {"{\"type\": \"integer\", \"minimum\": 98, \"maximum\": 1203}",
     {"98", "99", "100", "999", "1000", "1203", "1199"},
     {"97", "1204", "9", "2000", "10000", "-98"}},
    {"{\"type\": \"number\", \"exclusiveMinimum\": 0, \"maximum\": 1}",
     {"1", "0.5", "0.0001"},
     {"0", "1.5", "-0.5", "1.01", "2"}},
    {"{\"type\": \"number\"}",
     {"0", "-1.5", "12e3", "1.25E-7", "-0.0"},
     {"1.", ".5", "1e", "1e999", "+1", "NaN"}},
    {"{\"type\": \"string\", \"pattern\": \"^[a-c]{2,}\\\\d?$\"}",
     {"\"ab\"", "\"abc1\"", "\"ccc\""},
     {"\"a\"", "\"ab12\"", "\"abd\"", "\"xab\""}},
    {"{\"type\": \"string\", \"pattern\": \"b\\\"|^\\\\\\\\n$\", \"maxLength\": 4}",
     {"\"b\\\"\"", "\"ab\\\"c\"", "\"\\\\n\""},
     {"\"b\"", "\"abcb\\\"\"", "\"\\n\""}},
    {"{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"a\"}, \"v\": "
     "{\"type\": \"integer\"}}, \"required\": [\"k\", \"v\"]}, {\"type\": \"object\", "
     "\"properties\": {\"k\": {\"const\": \"b\"}, \"v\": {\"type\": \"string\"}}, \"required\": "
     "[\"k\", \"v\"]}]}",
     {"{\"k\":\"a\",\"v\":1}", "{\"k\":\"b\",\"v\":\"1\"}"},
     {"{\"k\":\"a\",\"v\":\"1\"}", "{\"k\":\"c\",\"v\":1}"}},
    {"{\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": "
     "\"integer\"}, \"kids\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/tree\"}}}, "
     "\"required\": [\"v\", \"kids\"]}}, \"$ref\": \"#/$defs/tree\"}",
     {"{\"v\":1,\"kids\":[]}", "{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[{\"v\":3,\"kids\":[]}]}]}"},
     {"{\"v\":1}", "{\"v\":1,\"kids\":[1]}"}},
    {"{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": [\"integer\", "
     "\"string\"]}}}, {\"properties\": {\"a\": {\"type\": [\"string\", \"null\"]}, \"b\": {}}, "
     "\"required\": [\"a\"]}]}",
     {"{\"a\":\"x\"}", "{\"a\":\"x\",\"b\":[1,{\"z\":null}]}"},
     {"{\"a\":1}", "{\"a\":null}", "{}"}},
    {"{\"type\": \"object\", \"properties\": {\"ab\": {\"const\": 1}}, \"additionalProperties\": "
     "{\"type\": \"boolean\"}}",
     {"{}", "{\"ab\":1}", "{\"ab\":1,\"a\":true,\"abc\":false}", "{\"\":true}", "{\"b\":true}"},
     {"{\"a\":1}", "{\"ab\":true}", "{\"x\":true,\"ab\":1}", "{\"\\u0061b\":true}",
      "{\"a\\n\":true}"}},
    {"{\"oneOf\": [{\"type\": \"integer\", \"maximum\": 3}, {\"type\": \"integer\", \"minimum\": "
     "5}, {\"type\": \"string\"}]}",
     {"3", "5", "\"4\""},
     {"4"}},
    {"{\"enum\": [\"a\\\"b\", {\"x\": [1, 2.5]}, 3, null], \"type\": [\"string\", \"object\", "
     "\"number\"]}",
     {"\"a\\\"b\"", "{\"x\":[1,2.5]}", "3"},
     {"null", "\"a\"", "{\"x\":[1]}"}},
    {"{}",
     {"{}", "[]", "null", "[1, \"a\", {\"b\": [{}]}]", "\"\"", "-2.5"},
     {"", "{", "[1,]", "tru", "{\"a\"}", " 1"}},
    {"{\"minimum\": 3}", {"3", "4.5"}, {"\"x\"", "2"}},
};

static void schemas_accept(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const example *x = &examples[i];
        grammar *g = must_compile(x->schema);
        for (int k = 0; k < 8 && x->good[k]; k++)
            if (!takes(g, x->good[k])) fail_msg("%s\nrefused %s", x->schema, x->good[k]);
        for (int k = 0; k < 10 && x->bad[k]; k++)
            if (takes(g, x->bad[k])) fail_msg("%s\ntook %s", x->schema, x->bad[k]);
        grammar_close(g);
    }
}

static void schemas_refused(void **unused) {
    (void)unused;
    static const struct {
        const char *schema;
        err_code code;
        const char *needle;
    } list[] = {
        {"{\"type\": \"array\", \"uniqueItems\": true}", ERR_UNSUPPORTED, "#: uniqueItems"},
        {"{\"properties\": {\"a\": {\"not\": {}}}}", ERR_UNSUPPORTED, "#/a: not"},
        {"{\"multipleOf\": 3}", ERR_UNSUPPORTED, "multipleOf"},
        {"{\"patternProperties\": {}}", ERR_UNSUPPORTED, "patternProperties"},
        {"{\"$ref\": \"#/$defs/x\"}", ERR_NOT_FOUND, "#/$defs/x"},
        {"{\"$ref\": \"other.json\"}", ERR_UNSUPPORTED, "other.json"},
        {"{\"$ref\": \"#\"}", ERR_UNSUPPORTED, "refers to itself"},
        {"{\"anyOf\": [{\"type\": \"null\"}, {\"anyOf\": [{\"$ref\": \"#\"}]}]}", ERR_UNSUPPORTED,
         "refers to itself"},
        {"{\"type\": \"text\"}", ERR_CORRUPT, "type"},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": "
         "[\"a\"]}",
         ERR_ARG, "no value fits"},
        {"false", ERR_ARG, "no value fits"},
        {"{\"type\": \"string\", \"enum\": [1]}", ERR_ARG, "no value fits"},
        {"{\"oneOf\": [{\"type\": \"string\"}, {\"maxLength\": 3}]}", ERR_UNSUPPORTED, "oneOf"},
        {"{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"number\"}]}", ERR_UNSUPPORTED,
         "oneOf"},
        {"{\"type\": \"string\", \"pattern\": \"(?=a)\"}", ERR_UNSUPPORTED, "(?="},
        {"{\"type\": \"string\", \"pattern\": \"\\\\bx\"}", ERR_UNSUPPORTED, "escape"},
        {"{\"type\": \"string\", \"pattern\": \"^(a{900}){900}$\"}", ERR_RANGE, "too large"},
        {"{\"type\": \"string\", \"pattern\": \"(a\"}", ERR_UNSUPPORTED, "without its )"},
        {"{\"type\": \"number\", \"minimum\": 0.1, \"maximum\": 0.9}", ERR_ARG, "no value fits"},
        {"3", ERR_CORRUPT, "expected a schema"},
        {"{\"items\": [{}]}", ERR_UNSUPPORTED, "prefixItems"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        grammar *g;
        err e = compile_schema(list[i].schema, &g);
        if (e.code != list[i].code || !strstr(e.text, list[i].needle) || g)
            fail_msg("%s\nexpected %s \"%s\", found %s \"%s\"", list[i].schema,
                     err_code_name(list[i].code), list[i].needle, err_code_name(e.code), e.text);
    }
}

/* ---- the twin: a token is allowed if a copy of the state accepts it ---- */

static void compare_mask(grammar_state *s, grammar_state *copy, const char *what) {
    uint64_t mask[96];
    assert_int_equal(grammar_vocab_words(vocab), 96);
    bool any = grammar_mask(s, mask), found = false;
    for (int id = 0; id < 6144; id++) {
        grammar_state_copy(copy, s);
        bool twin = grammar_accept(copy, id), said = mask[id >> 6] >> (id & 63) & 1;
        found = found || said;
        if (twin == said) continue;
        size_t length;
        const char *bytes = tokenizer_bytes(tok, id, &length);
        fail_msg("%s: token %d \"%.*s\": the mask says %d, reading it says %d", what, id,
                 (int)length, bytes, said, twin);
    }
    assert_int_equal(any, found);
}

static int32_t random_allowed(grammar_state *s, rng *r) {
    uint64_t mask[96];
    if (!grammar_mask(s, mask)) return -1;
    int n = 0;
    for (int i = 0; i < 96; i++) n += __builtin_popcountll(mask[i]);
    int pick = (int)(rng_next(r) % (uint64_t)n);
    for (int id = 0;; id++)
        if (mask[id >> 6] >> (id & 63) & 1 && pick-- == 0) return id;
}

/* Walks at random, compares now and then; the walk never gets stuck. */
static void walk_and_compare(grammar *g, const char *what, rng *r, int steps, int every) {
    grammar_state *s, *copy;
    assert_ok(grammar_state_open(g, &s));
    assert_ok(grammar_state_open(g, &copy));
    for (int i = 0; i < steps; i++) {
        if (i % every == 0) compare_mask(s, copy, what);
        int32_t id = random_allowed(s, r);
        if (id < 0) fail_msg("%s: stuck after %d tokens", what, i);
        assert_true(grammar_accept(s, id));
        if (id == ends[0] || id == ends[1]) break;
    }
    grammar_state_close(copy);
    grammar_state_close(s);
}

static void masks_are_right(void **unused) {
    (void)unused;
    rng r;
    rng_seed(&r, 7);
    bool fast = getenv("FM_TEST_FAST") != NULL;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        grammar *g = must_compile(examples[i].schema);
        for (int k = 0; k < (fast ? 2 : 12); k++)
            walk_and_compare(g, examples[i].schema, &r, 40, fast ? 5 : 3);
        grammar_close(g);
    }
}

/* ---- tools ---- */

#define TOOLS                                                                                      \
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"strict\": true, "       \
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, "   \
    "\"days\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 14}, \"note\": {\"type\": "    \
    "[\"string\", \"null\"], \"maxLength\": 5}, \"unit\": {\"enum\": [\"C\", \"F\"]}}, "           \
    "\"required\": [\"city\"]}}}, {\"name\": \"run\", \"input_schema\": {\"type\": \"object\", "   \
    "\"properties\": {\"command\": {\"type\": \"string\", \"not\": {}}}}}, {\"name\": \"now\"}]"

static grammar *compile_tools(const char *format, const char *tool, bool parallel, bool opened) {
    json_t *tools = json_loads(TOOLS, 0, NULL);
    grammar_spec spec = {.kind = GRAMMAR_TOOLS,
                         .name = "tools",
                         .tools = tools,
                         .tool = tool,
                         .format = toolcall_format_find(format),
                         .parallel = parallel,
                         .after_opening = opened};
    grammar *g;
    assert_ok(grammar_compile(vocab, &spec, &g));
    json_decref(tools);
    return g;
}

#define XML(name, inner)      "<tool_call>\n<function=" name ">\n" inner "</function>\n</tool_call>"
#define PARAMETER(key, value) "<parameter=" key ">\n" value "\n</parameter>\n"
#define JSON(name, inner)                                                                          \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " inner "}\n</tool_call>"

static void tools_tagged(void **unused) {
    (void)unused;
    grammar *g = compile_tools("qwen3-coder", NULL, true, false);
    assert_true(takes(g, XML("get_weather", PARAMETER("city", "Oslo"))));
    assert_true(takes(g, XML("get_weather", PARAMETER("city", "a < b\n\n</parameter >\n")
                                                PARAMETER("days", "14"))));
    assert_true(takes(g, XML("get_weather", PARAMETER("city", "x") PARAMETER("note", "null")
                                                PARAMETER("unit", "F"))));
    assert_true(takes(g, XML("get_weather", PARAMETER("city", "x") PARAMETER("note", "12345"))));
    assert_true(takes(
        g, XML("now", "") "\n" XML("run", PARAMETER("command", "ls\n\tx")) "\n" XML("now", "")));
    static const char *const bad[] = {
        "",
        "hello",
        XML("get_weather", ""),
        XML("get_weather", PARAMETER("city", "x") PARAMETER("days", "15")),
        XML("get_weather", PARAMETER("city", "x") PARAMETER("note", "123456")),
        XML("get_weather", PARAMETER("city", "x") PARAMETER("note", "1<3")),
        XML("get_weather", PARAMETER("city", "x") PARAMETER("unit", "K")),
        XML("get_weather", PARAMETER("town", "x")),
        XML("other", ""),
        XML("now", "") XML("now", ""),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (takes(g, bad[i])) fail_msg("took %s", bad[i]);
    rng r;
    rng_seed(&r, 8);
    for (int i = 0; i < 6; i++) walk_and_compare(g, "tagged tools", &r, 60, 7);
    grammar_close(g);
}

static void tools_json(void **unused) {
    (void)unused;
    grammar *g = compile_tools("hermes", NULL, true, false);
    assert_true(takes(g, JSON("get_weather", "{\"city\": \"Oslo\", \"days\": 3}")));
    assert_true(takes(g, JSON("now", "{}") "\n" JSON("run", "{\"any\": [1]}")));
    assert_false(takes(g, JSON("get_weather", "{\"days\": 3}")));
    assert_false(takes(g, JSON("get_weather", "{\"city\": \"<tool_call>\"}")));
    assert_false(takes(g, "{}"));
    rng r;
    rng_seed(&r, 9);
    for (int i = 0; i < 6; i++) walk_and_compare(g, "JSON tools", &r, 60, 7);
    grammar_close(g);

    g = compile_tools("hermes", "now", false, false);
    assert_true(takes(g, JSON("now", "{}")));
    assert_false(takes(g, JSON("run", "{}")));
    assert_false(takes(g, JSON("now", "{}") "\n" JSON("now", "{}")));
    grammar_close(g);

    g = compile_tools("qwen3-coder", NULL, false, true);
    assert_true(takes(g, "\n<function=now>\n</function>\n</tool_call>"));
    assert_false(takes(g, XML("now", "")));
    grammar_close(g);
}

static void tools_refused(void **unused) {
    (void)unused;
    json_t *tools = json_loads(TOOLS, 0, NULL);
    grammar_spec spec = {.kind = GRAMMAR_TOOLS,
                         .name = "tools",
                         .tools = tools,
                         .format = toolcall_format_find("hermes"),
                         .tool = "fly"};
    grammar *g;
    assert_err(grammar_compile(vocab, &spec, &g), ERR_ARG, "no tool \"fly\"");
    spec.tool = NULL;
    spec.strict = true;
    assert_err(grammar_compile(vocab, &spec, &g), ERR_UNSUPPORTED, "tools: run: #/command: not");
    spec.format = NULL;
    assert_err(grammar_compile(vocab, &spec, &g), ERR_UNSUPPORTED, "cannot be enforced");
    json_decref(tools);
}

/* Syntax is greedy, values are not. */
static void greedy_hint(void **unused) {
    (void)unused;
    static const struct {
        const char *text;
        bool greedy;
    } steps[] = {
        {"<tool_call>", true}, {"\n<function=get_", true},  {"weather>\n<parameter=city>\n", false},
        {"Oslo", false},       {"\n</parameter>", true},    {"\n<parameter=", true},
        {"unit>\n", false},    {"C\n</parameter>\n", true}, {"</function>\n", true}};
    grammar *g = compile_tools("qwen3-coder", NULL, true, false);
    grammar_state *s;
    bool all;
    assert_ok(grammar_state_open(g, &s));
    assert_true(grammar_greedy(s));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        feed(s, TOKEN_MARKUP, steps[i].text, &all);
        assert_true(all);
        if (grammar_greedy(s) != steps[i].greedy) fail_msg("after \"%s\"", steps[i].text);
    }
    grammar_state_close(s);
    grammar_close(g);
}

/* ---- the others ---- */

static void choice_and_object(void **unused) {
    (void)unused;
    static const char *const words[] = {"yes", "yesterday", "no", "\xc3\xa9t\xc3\xa9"};
    grammar_spec spec = {
        .kind = GRAMMAR_CHOICE, .name = "choice", .choices = words, .n_choices = 4};
    grammar *g;
    assert_ok(grammar_compile(vocab, &spec, &g));
    for (int i = 0; i < 4; i++) assert_true(takes(g, words[i]));
    assert_false(takes(g, "ye"));
    assert_false(takes(g, "maybe"));
    rng r;
    rng_seed(&r, 10);
    for (int i = 0; i < 4; i++) walk_and_compare(g, "choice", &r, 10, 1);
    grammar_close(g);
    spec = (grammar_spec){.kind = GRAMMAR_REGEX, .name = "regex", .pattern = "^a+(b|c)$"};
    assert_ok(grammar_compile(vocab, &spec, &g));
    assert_true(takes(g, "aaac"));
    assert_false(takes(g, "ad"));
    grammar_close(g);
    spec = (grammar_spec){.kind = GRAMMAR_JSON_OBJECT, .name = "json_object", .reasoning = true};
    assert_ok(grammar_compile(vocab, &spec, &g));
    assert_true(takes(g, "Hm, { \"x\".\n</think>\n\n{\"a\": [1]}"));
    assert_false(takes(g, "</think>\n\n[]"));
    for (int i = 0; i < 4; i++) walk_and_compare(g, "reasoning", &r, 20, 4);
    grammar_close(g);
}

/* The end is allowed when the text is complete, then nothing is. */
static void the_end(void **unused) {
    (void)unused;
    grammar *g = must_compile("{\"const\": 12}");
    grammar_state *s;
    bool all;
    uint64_t mask[96];
    assert_ok(grammar_state_open(g, &s));
    assert_false(grammar_accept(s, ends[0]));
    assert_false(grammar_done(s));
    feed(s, TOKEN_CONTENT, "12", &all);
    assert_true(all && grammar_done(s) && grammar_mask(s, mask));
    int n = 0;
    for (int i = 0; i < 96; i++) n += __builtin_popcountll(mask[i]);
    assert_int_equal(n, 2);
    assert_true(grammar_accept(s, ends[1]));
    assert_true(grammar_done(s));
    assert_false(grammar_mask(s, mask));
    assert_false(grammar_accept(s, ends[1]));
    grammar_state_reset(s);
    assert_false(grammar_done(s));
    assert_false(grammar_accept(s, -1));
    assert_false(grammar_accept(s, 6144));
    grammar_state_close(s);
    grammar_close(g);
}

/* Recursion ends: at the depth limit only what can be finished is offered. */
static void depth_is_bounded(void **unused) {
    (void)unused;
    grammar *g = must_compile("{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}, \"minItems\": "
                              "0}");
    grammar_state *s;
    bool all = true;
    assert_ok(grammar_state_open(g, &s));
    int depth = 0;
    while (all && depth < 10000) feed(s, TOKEN_CONTENT, "[", &all), depth += all;
    assert_in_range(depth, 50, 500);
    for (int i = 0; i < depth; i++) {
        feed(s, TOKEN_CONTENT, "]", &all);
        assert_true(all);
    }
    assert_true(grammar_done(s));
    grammar_state_close(s);
    grammar_close(g);
}

/* However the schema is made, an answer comes soon. */
static void hostile_schemas(void **unused) {
    (void)unused;
    char *deep = malloc(400000);
    char *at = deep;
    for (int i = 0; i < 1000; i++) at += sprintf(at, "{\"items\":");
    at += sprintf(at, "{}");
    for (int i = 0; i < 1000; i++) at += sprintf(at, "}");
    static const char *const list[] = {
        /* 4^12 combinations */
        "{\"$defs\": {\"a\": {\"anyOf\": [{\"type\": \"string\", \"maxLength\": 1}, {\"type\": "
        "\"string\", \"maxLength\": 2}, {\"type\": \"string\", \"maxLength\": 3}, {\"type\": "
        "\"string\", \"maxLength\": 4}]}}, \"allOf\": [{\"anyOf\": [{}, {\"minLength\": 1}, "
        "{\"minLength\": 2}, {\"minLength\": 3}]}, {\"anyOf\": [{}, {\"minLength\": 4}, "
        "{\"minLength\": 5}, {\"minLength\": 6}]}, {\"anyOf\": [{}, {\"minLength\": 7}, "
        "{\"minLength\": 8}, {\"minLength\": 9}]}, {\"anyOf\": [{}, {\"minLength\": 10}, "
        "{\"minLength\": 11}, {\"minLength\": 12}]}, {\"anyOf\": [{}, {\"minLength\": 13}, "
        "{\"minLength\": 14}, {\"minLength\": 15}]}]}",
        "{\"type\": \"string\", \"pattern\": \"^(a|a)*(a|a)*(a|a)*[ab]{500}(a|b)*a[ab]{14}$\"}",
        "{\"type\": \"string\", \"pattern\": \"((((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9})"
        "\"}",
        "{\"type\": \"string\", \"pattern\": \"[\\\\w\\\\W]{1000}[\\\\d\\\\D]{1000}\", "
        "\"maxLength\": 100000}",
    };
    uint64_t begin = os_now_ns();
    grammar *g;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        err e = compile_schema(list[i], &g);
        if (!e.code)
            grammar_close(g);
        else
            assert_true(e.code == ERR_RANGE || e.code == ERR_UNSUPPORTED);
    }
    assert_err(compile_schema(deep, &g), ERR_RANGE, "nested too deeply");
    free(deep);
    double seconds = (double)(os_now_ns() - begin) / 1e9;
    if (seconds > 20) fail_msg("took %.1f s", seconds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_accept),  cmocka_unit_test(schemas_refused),
        cmocka_unit_test(masks_are_right), cmocka_unit_test(tools_tagged),
        cmocka_unit_test(tools_json),      cmocka_unit_test(tools_refused),
        cmocka_unit_test(greedy_hint),     cmocka_unit_test(choice_and_object),
        cmocka_unit_test(the_end),         cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(hostile_schemas),
    };
    return cmocka_run_group_tests(tests, open_vocab, close_vocab);
}
