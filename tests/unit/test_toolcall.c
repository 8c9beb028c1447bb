/* Tool-call parsing: examples of what models write, well and badly; any call rendered as the chat
 * templates do and parsed again; any text cut anywhere. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pcre2.h>

#include "base/bits.h"
#include "text/text_buf.h"
#include "text/toolcall.h"

#define TOOLS                                                                                      \
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {"        \
    "\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": "          \
    "{\"type\": "                                                                                  \
    "\"integer\"}, \"exact\": {\"type\": \"boolean\"}, \"note\": {\"anyOf\": [{\"type\": "         \
    "\"string\"}, {\"type\": \"null\"}]}, \"tags\": {\"type\": \"array\"}, \"opt\": {\"$ref\": "   \
    "\"#/$defs/o\"}, \"any\": {}}, \"$defs\": {\"o\": {\"type\": [\"object\", \"null\"]}}}}}, "    \
    "{\"name\": \"now\", \"input_schema\": {\"type\": \"object\"}}]"

static json_t *tools;

static int load_tools(void **unused) {
    (void)unused;
    tools = json_loads(TOOLS, 0, NULL);
    return tools ? 0 : -1;
}

static int drop_tools(void **unused) {
    (void)unused;
    json_decref(tools);
    return 0;
}

/* ---- feeding in pieces ---- */

typedef struct seen {
    text_buf log; /* R(...) C(...) B0(name) A0(...) E0 with neighbours of one kind joined */
    int last, last_call;
} seen;

static err see(void *ctx, const toolcall_event *e) {
    seen *s = ctx;
    static const char letter[] = "RCBAE";
    bool join = s->last == (int)e->kind + 1 && s->last_call == e->call &&
                e->kind != TOOLCALL_BEGIN && e->kind != TOOLCALL_END;
    if (e->kind != TOOLCALL_END && e->kind != TOOLCALL_BEGIN) assert_true(e->length > 0);
    if (!join) {
        char head[32];
        snprintf(head, sizeof head, "\x1e%c%d%s:", letter[e->kind], e->call, e->cut ? "cut" : "");
        TRY(text_buf_add_text(&s->log, head));
    }
    s->last = (int)e->kind + 1;
    s->last_call = e->call;
    return text_buf_add(&s->log, e->text, e->length);
}

static void feed(toolcall_options opt, const char *text, size_t length, rng *r, seen *s) {
    toolcall_parser *p;
    s->log.length = 0;
    s->last = 0;
    opt.sink = see;
    opt.ctx = s;
    assert_int_equal(toolcall_open(&opt, &p).code, ERR_NONE);
    for (size_t at = 0; at < length;) {
        size_t n = r ? size_min(1 + rng_next(r) % (rng_next(r) % 2 ? 3 : 20), length - at) : length;
        assert_int_equal(toolcall_push(p, text + at, n).code, ERR_NONE);
        at += n;
    }
    assert_int_equal(toolcall_finish(p).code, ERR_NONE);
    toolcall_close(p);
}

static json_t *parse(const char *format, bool with_tools, toolcall_reasoning reasoning,
                     const char *text, size_t length) {
    toolcall_options opt = {.format = format ? toolcall_format_find(format) : NULL,
                            .tools = with_tools ? tools : NULL,
                            .reasoning = reasoning};
    json_t *out;
    assert_int_equal(toolcall_parse(&opt, text, length, &out).code, ERR_NONE);
    return out;
}

/* ---- examples ---- */

#define CALL(body)       "<tool_call>\n<function=get_weather>\n" body "</function>\n</tool_call>"
#define PARAM(key, text) "<parameter=" key ">\n" text "\n</parameter>\n"

typedef struct example {
    const char *text;
    toolcall_reasoning reasoning;
    const char *want; /* reasoning | content | name(arguments) | ... */
} example;

static const example examples[] = {
    /* as it should be */
    {"Hello there.\n", TOOLCALL_THINK_OUTSIDE, "-|Hello there.\n"},
    {CALL(PARAM("city", "Oslo")), TOOLCALL_THINK_OUTSIDE, "-|-|get_weather({\"city\": \"Oslo\"})"},
    {"Two calls.\n</think>\n\nLet me see.\n\n" CALL(PARAM("city", "Oslo")) "\n" CALL(
         PARAM("city", "Rome") PARAM("days", "3")) "\n",
     TOOLCALL_THINK_INSIDE,
     "Two calls.|Let me see.|get_weather({\"city\": \"Oslo\"})|get_weather({\"city\": \"Rome\", "
     "\"days\": 3})"},
    {"<think>\n\n</think>\n\nUnhappy.", TOOLCALL_THINK_OUTSIDE, "-|Unhappy."},
    {"<think>\nA b.\n\nC\n</think>\n\nYes.", TOOLCALL_THINK_OUTSIDE, "A b.\n\nC|Yes."},
    {"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Oslo\"}}\n</tool_call>",
     TOOLCALL_THINK_OUTSIDE, "-|-|get_weather({\"city\": \"Oslo\"})"},
    {"<tool_call>\n<function=now>\n</function>\n</tool_call>", TOOLCALL_THINK_OUTSIDE,
     "-|-|now({})"},
    /* types */
    {CALL(PARAM("days", "x") PARAM("exact", "True") PARAM("tags", "[1, 'a',]") PARAM("opt", "None")
              PARAM("note", "null") PARAM("any", "7") PARAM("city", "5")),
     TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"days\": \"x\", \"exact\": true, \"tags\": [1, \"a\"], \"opt\": null, "
     "\"note\": null, \"any\": 7, \"city\": \"5\"})"},
    {CALL(PARAM("note", "nullable") PARAM("days", "12345678901234567890") PARAM("any", "{oops")
              PARAM("new", "007")),
     TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"note\": \"nullable\", \"days\": 12345678901234567890, \"any\": "
     "\"{oops\", \"new\": \"007\"})"},
    /* values that look like markup */
    {CALL(PARAM("city", "a</parameter>b\n</parameter>\n\"<parameter=x>\" <tool_call>")),
     TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"city\": \"a</parameter>b\\n</parameter>\\n\\\"<parameter=x>\\\" "
     "<tool_call>\"})"},
    {CALL(PARAM("city", "") PARAM("note", "\n")), TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"city\": \"\", \"note\": \"\\n\"})"},
    /* missing tags */
    {"<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n<parameter=days>\n3\n</"
     "tool_call>",
     TOOLCALL_THINK_NONE, "-|-|get_weather({\"city\": \"Oslo\", \"days\": 3})"},
    {"<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</function>\n</tool_call>Bye",
     TOOLCALL_THINK_NONE, "-|Bye|get_weather({\"city\": \"Oslo\"})"},
    {"<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo", TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"city\": \"Oslo\"})cut"},
    {"<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</para", TOOLCALL_THINK_NONE,
     "-|-|get_weather({\"city\": \"Oslo\"})cut"},
    {"<tool_call>\n<function=get_weather>\n<parameter=city>Oslo</parameter></function>", 0,
     "-|-|get_weather({\"city\": \"Oslo\"})"},
    {"Sure.\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</"
     "tool_call>",
     0, "-|Sure.|get_weather({\"city\": \"Oslo\"})"},
    {"<tool_call>\n<function=now>\n</function>\n<function=now>\n</function>\n</tool_call>", 0,
     "-|-|now({})|now({})"},
    {"<tool_call>\n<function=now>\n<tool_call>\n<function=now>\n</tool_call>", 0,
     "-|-|now({})|now({})"},
    {"<tool_call>\n<function=get_weather>\n{\"city\": \"Oslo\"}\n</function>\n</tool_call>", 0,
     "-|-|get_weather({\"city\": \"Oslo\"})"},
    {"<tool_call>\n<function=now>\nhello <b>\n</function>\n</tool_call>", 0, "-|hello <b>|now({})"},
    {CALL(PARAM("city", "Oslo") PARAM("city", "Rome")), 0, "-|-|get_weather({\"city\": \"Oslo\"})"},
    /* JSON, badly written */
    {"<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": [1, 2}\n</tool_call>", 0,
     "-|-|now({\"a\": [1, 2]})"},
    {"<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}}}\n</tool_call>ok", 0,
     "-|ok|now({\"a\": 1})"},
    {"<tool_call>{'name': 'now', 'arguments': {'a': True,}}</tool_call>", 0,
     "-|-|now({\"a\": true})"},
    {"<tool_call>{\"arguments\": {\"a\": 0.1}, \"name\": \"now\"}</tool_call>", 0,
     "-|-|now({\"a\": 0.1})"},
    {"<tool_call>{\"name\": \"now\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", 0,
     "-|-|now({\"a\": 1})"},
    {"<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"now\", \"parameters\": "
     "{\"a\": "
     "1}}}</tool_call>",
     0, "-|-|now({\"a\": 1})"},
    {"<tool_call>{\"function\": {\"name\": \"now\", \"a\": 1}, \"b\": [1, {\"c\": 2}]}</tool_call>",
     0, "-|-|now({\"a\": 1})"},
    {"<tool_call>{\"name\": \"now\", \"a\": {\"b\": 1}, \"c\": 2}</tool_call>", 0,
     "-|-|now({\"a\": {\"b\": 1}, \"c\": 2})"},
    {"<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"</tool_call> is a "
     "tag\"}}</tool_call>",
     0, "-|-|now({\"a\": \"</tool_call> is a tag\"})"},
    {"<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"open}}\n</tool_call>", 0,
     "-|-|now({\"a\": \"open}}\\n\"})"},
    {"<tool_call>{\"name\": \"now\"}</tool_call>", 0, "-|-|now({})"},
    {"<tool_call>{\"name\": \"now\", \"arguments\": null}</tool_call>", 0, "-|-|now({})"},
    {"<tool_call>{\"name\": \"now\", \"argu", 0, "-|-|now({\"argu\": null})cut"},
    /* no calls: nothing is lost */
    {"a <tool_call> b </tool_call>", 0, "-|a <tool_call> b </tool_call>"},
    {"a\n<tool_call>\n{\"city\": 1}\n</tool_call> b", 0,
     "-|a\n<tool_call>\n{\"city\": 1}\n</tool_call> b"},
    {"Use <function=foo> here", 0, "-|Use <function=foo> here"},
    {"x < y <tool_ca", 0, "-|x < y <tool_ca"},
    {"<tool_call>\n<function=\n>", 0, "-|<tool_call>\n<function=\n>"},
    {"</think> is a tag, <think> too", TOOLCALL_THINK_OUTSIDE, "-|</think> is a tag, <think> too"},
    {"<think>x</think>", TOOLCALL_THINK_NONE, "-|<think>x</think>"},
    /* reasoning that does not end */
    {"still thinking", TOOLCALL_THINK_INSIDE, "still thinking|-"},
    {"<think>\nagain\n</think>\nok", TOOLCALL_THINK_INSIDE, "again|ok"},
    {"I call it.\n" CALL(PARAM("city", "Oslo")) "\n</think>\nDone", TOOLCALL_THINK_INSIDE,
     "I call it.|Done|get_weather({\"city\": \"Oslo\"})"},
    {"Should I write <tool_call>\n<function=foo> or not?\n</think>No", TOOLCALL_THINK_INSIDE,
     "Should I write <tool_call>\n<function=foo> or not?|No"},
    {"{\"x\"} <tool_call>{\"a\": 1}</tool_call> hm</think>No", TOOLCALL_THINK_INSIDE,
     "{\"x\"} <tool_call>{\"a\": 1}</tool_call> hm|No"},
};

/* The parsed message in the notation of the table. */
static char *summary(const json_t *message) {
    text_buf b = {0};
    const char *keys[] = {"reasoning_content", "content"};
    for (int i = 0; i < 2; i++) {
        const char *text = json_string_value(json_object_get(message, keys[i]));
        if (i) assert_int_equal(text_buf_add_text(&b, "|").code, 0);
        assert_int_equal(text_buf_add_text(&b, text ? text : "-").code, 0);
    }
    size_t i;
    const json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        char *part;
        if (asprintf(&part, "|%s(%s)%s", json_string_value(json_object_get(call, "name")),
                     json_string_value(json_object_get(call, "arguments")),
                     json_is_true(json_object_get(call, "cut")) ? "cut" : "") < 0) {
            abort();
        }
        assert_int_equal(text_buf_add_text(&b, part).code, 0);
        free(part);
    }
    return b.data;
}

static void examples_parse(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const example *e = &examples[i];
        json_t *message = parse("qwen3-coder", true, e->reasoning, e->text, strlen(e->text));
        char *got = summary(message);
        assert_string_equal(got, e->want);
        free(got);
        json_decref(message);
    }
}

static void minimax(void **unused) {
    (void)unused;
    const char *text = "Ok.\n<minimax:tool_call>\n<invoke name=\"get_weather\"><parameter "
                       "name=\"city\">Oslo\n</parameter><parameter name=\"days\">3</parameter>"
                       "</invoke>\n<invoke name=\"now\"></invoke>\n</minimax:tool_call>\n";
    json_t *message = parse("minimax", true, TOOLCALL_THINK_OUTSIDE, text, strlen(text));
    char *got = summary(message);
    assert_string_equal(got, "-|Ok.|get_weather({\"city\": \"Oslo\\n\", \"days\": 3})|now({})");
    free(got);
    json_decref(message);
}

static void formats(void **unused) {
    (void)unused;
    assert_null(toolcall_format_detect(NULL));
    assert_null(toolcall_format_detect("{{ messages[0].content }}"));
    assert_null(toolcall_format_detect("<tool_call>{{ name }}<arg_key>{{ arguments }}"));
    assert_null(toolcall_format_find("nobody"));
    const toolcall_format *f = toolcall_format_detect(
        "'<tool_call>\\n<function=' + name + '>\\n' <parameter=' + k + '>' arguments");
    assert_string_equal(toolcall_format_name(f), "qwen3-coder");
    f = toolcall_format_detect("<tool_call>\\n{\"name\": \"' + name '\", \"arguments\": ");
    assert_string_equal(toolcall_format_name(f), "hermes");
    f = toolcall_format_detect("'<minimax:tool_call>' '<invoke name=\"' '<parameter name=\"'");
    assert_string_equal(toolcall_format_name(f), "minimax");
    json_t *message = parse(NULL, true, TOOLCALL_THINK_NONE, "<tool_call>{", 12);
    assert_string_equal(json_string_value(json_object_get(message, "content")), "<tool_call>{");
    json_decref(message);
}

/* ---- any text, cut anywhere ---- */

static const char *const scraps[] = {"<tool_call>",
                                     "</tool_call>",
                                     "<function=",
                                     "get_weather",
                                     ">",
                                     "</function>",
                                     "<parameter=",
                                     "city",
                                     "days",
                                     "note",
                                     "</parameter>",
                                     "\n",
                                     "\n",
                                     " ",
                                     "<think>",
                                     "</think>",
                                     "<",
                                     "</",
                                     "{",
                                     "}",
                                     "\"",
                                     ":",
                                     ",",
                                     "\"name\"",
                                     "\"arguments\"",
                                     "now",
                                     "[",
                                     "null",
                                     "12",
                                     "text",
                                     "é😀",
                                     "\\",
                                     "<tool_call>\n<function=get_weather>\n<parameter=city>\n",
                                     "\n</parameter>\n</function>\n",
                                     "<tool_call>\n{\"name\": \"now\", \"arguments\": {",
                                     "<parameter=days>\n",
                                     "<parameter=note>\n",
                                     "\n<",
                                     "\n</parameter>\n<parameter=any>\n",
                                     "</par",
                                     "\n</tool_call>",
                                     "<function=now>"};

static void random_text(rng *r, text_buf *text) {
    text->length = 0;
    for (uint64_t n = rng_next(r) % 24; n; n--) {
        const char *scrap = scraps[rng_next(r) % (sizeof scraps / sizeof scraps[0])];
        assert_int_equal(text_buf_add_text(text, scrap).code, ERR_NONE);
    }
}

/* Every byte of content and reasoning is there, in order, in the text. */
static void assert_no_invention(const text_buf *text, const json_t *message) {
    const char *keys[] = {"reasoning_content", "content"};
    for (int i = 0; i < 2; i++) {
        const char *shown = json_string_value(json_object_get(message, keys[i]));
        const char *at = text->data;
        for (; shown && *shown; shown++) {
            at = strchr(at, *shown);
            assert_non_null(at);
            at++;
        }
    }
}

static void pieces_do_not_matter(void **unused) {
    (void)unused;
    rng r;
    rng_seed(&r, 11);
    text_buf text = {0};
    seen whole = {0}, pieces = {0};
    size_t calls = 0;
    for (int round = 0; round < 40000; round++) {
        random_text(&r, &text);
        if (!text.length) continue;
        toolcall_options opt = {
            .format = toolcall_format_find("qwen3-coder"),
            .tools = rng_next(&r) % 4 ? tools : NULL,
            .reasoning = (toolcall_reasoning)(rng_next(&r) % 3),
        };
        feed(opt, text.data, text.length, NULL, &whole);
        feed(opt, text.data, text.length, &r, &pieces);
        assert_int_equal(whole.log.length, pieces.log.length);
        if (whole.log.length) {
            assert_memory_equal(whole.log.data, pieces.log.data, whole.log.length);
        }
        json_t *message;
        assert_int_equal(toolcall_parse(&opt, text.data, text.length, &message).code, ERR_NONE);
        assert_no_invention(&text, message);
        size_t i;
        const json_t *call;
        json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
            const json_t *arguments = json_object_get(call, "arguments");
            json_t *value = json_loadb(json_string_value(arguments), json_string_length(arguments),
                                       JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
            assert_non_null(value);
            json_decref(value);
            calls++;
        }
        json_decref(message);
    }
    assert_true(calls > 10000);
    text_buf_free(&text);
    text_buf_free(&whole.log);
    text_buf_free(&pieces.log);
}

/* ---- render, parse ---- */

static bool matches(const char *pattern, const char *text, size_t length) {
    int code;
    size_t at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
    assert_non_null(re);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(re, NULL);
    int found = pcre2_match(re, (PCRE2_SPTR)text, length, 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return found >= 0;
}

/* The strings that the form cannot carry: they contain what ends a value. Parameters p0 .. p7. */
static bool is_markup(const char *value) {
    char *text;
    int n = asprintf(&text, "\n%s\n", value);
    assert_true(n > 0);
    bool bad = matches(
        "</parameter>[ \\n\\t\\r]*(<parameter=|</function>|</tool_call>|<tool_call>|<function=)"
        "|\\n<parameter=p[0-7]>"
        "|\\n</function>[ \\n\\t\\r]*(</tool_call>|<tool_call>|<function=)"
        "|</tool_call>[ \\n\\t\\r]*<tool_call>",
        text, (size_t)n);
    free(text);
    return bad;
}

/* The strings that are read as something else where other types are allowed too. */
static bool is_other_type(const char *value) {
    char *copy = strdup(value), *at = copy, *end = copy + strlen(copy);
    while (*at && strchr(" \n\t\r", *at)) at++;
    while (end > at && strchr(" \n\t\r", end[-1])) *--end = 0;
    json_t *json = json_loads(at, JSON_DECODE_ANY, NULL);
    bool other = (json && !json_is_string(json)) || !strcmp(at, "True") || !strcmp(at, "False") ||
                 !strcmp(at, "None");
    json_decref(json);
    free(copy);
    return other;
}

static json_t *random_string(rng *r) {
    static const char *const bits[] = {"</parameter>",
                                       "<parameter=",
                                       "<parameter=p1>",
                                       "\n",
                                       "\n\n",
                                       "</function>",
                                       "</tool_call>",
                                       "<tool_call>",
                                       "<",
                                       ">",
                                       "é",
                                       "😀",
                                       "null",
                                       "5",
                                       "\"",
                                       "\\",
                                       " ",
                                       "a",
                                       "</",
                                       "<think>",
                                       "{",
                                       "</think>",
                                       "\r",
                                       "\t",
                                       "\x01",
                                       "[1]",
                                       "word",
                                       "</parameter",
                                       "True",
                                       "<function=f>"};
    text_buf b = {0};
    assert_int_equal(text_buf_add_text(&b, "").code, 0);
    for (uint64_t n = rng_next(r) % 6; n; n--) {
        const char *bit = bits[rng_next(r) % (sizeof bits / sizeof bits[0])];
        assert_int_equal(text_buf_add_text(&b, bit).code, 0);
    }
    json_t *s = json_stringn(b.data, b.length);
    text_buf_free(&b);
    return s;
}

static json_t *random_value(rng *r, int depth) {
    json_t *value;
    switch (rng_next(r) % (depth < 3 ? 7 : 5)) {
    case 0: return random_string(r);
    case 1: return json_integer((json_int_t)(rng_next(r) >> (rng_next(r) % 60 + 2)) - 50);
    case 2: return json_real((double)(int64_t)(rng_next(r) % 2000) / 16.0 - 20);
    case 3: return json_boolean(rng_next(r) % 2);
    case 4: return json_null();
    case 5:
        value = json_array();
        for (uint64_t n = rng_next(r) % 4; n; n--) {
            json_array_append_new(value, random_value(r, depth + 1));
        }
        return value;
    default:
        value = json_object();
        for (uint64_t n = rng_next(r) % 4; n; n--) {
            json_t *key = random_string(r);
            json_object_set_new(value, json_string_value(key), random_value(r, depth + 1));
            json_decref(key);
        }
        return value;
    }
}

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING: return "string";
    case JSON_INTEGER: return "integer";
    case JSON_REAL: return "number";
    case JSON_NULL: return "null";
    case JSON_ARRAY: return "array";
    case JSON_OBJECT: return "object";
    default: return "boolean";
    }
}

/* A schema that allows the value: alone, in a union, or anything. */
static json_t *schema_for(rng *r, const json_t *value) {
    const char *name = type_name(value);
    switch (rng_next(r) % 4) {
    case 0: return json_pack("{s:[s,s]}", "type", name, rng_next(r) % 2 ? "null" : "string");
    case 1: return json_pack("{s:[{s:s},{s:s}]}", "anyOf", "type", name, "type", "null");
    case 2: return rng_next(r) % 2 ? json_object() : json_true();
    default: return json_pack("{s:s}", "type", name);
    }
}

static bool only_string(const json_t *schema) {
    const char *type = json_string_value(json_object_get(schema, "type"));
    return type && !strcmp(type, "string");
}

/* As the template does: strings as they are, lists and objects by tojson, the rest by `string`,
 * which is Python's in one engine and JavaScript's in another. */
static void render_value(text_buf *out, const json_t *value, bool python) {
    char *json = json_dumps(value, JSON_ENCODE_ANY);
    const char *text = json_is_string(value) ? json_string_value(value) : json;
    if (python && json_is_boolean(value)) text = json_is_true(value) ? "True" : "False";
    if (python && json_is_null(value)) text = "None";
    assert_int_equal(text_buf_add_text(out, text).code, 0);
    free(json);
}

static void add(text_buf *out, const char *text) {
    assert_int_equal(text_buf_add_text(out, text).code, ERR_NONE);
}

static void render_call(text_buf *out, const json_t *call, bool python) {
    add(out, "<tool_call>\n<function=");
    add(out, json_string_value(json_object_get(call, "name")));
    add(out, ">\n");
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(call, "arguments"), key, value) {
        add(out, "<parameter=");
        add(out, key);
        add(out, ">\n");
        render_value(out, value, python);
        add(out, "\n</parameter>\n");
    }
    add(out, "</function>\n</tool_call>");
}

static void render_json_call(text_buf *out, const json_t *call, size_t flags) {
    add(out, "<tool_call>\n");
    char *json = json_dumps(call, flags);
    add(out, json);
    add(out, "\n</tool_call>");
    free(json);
}

/* One random call whose arguments the form can carry, and its tool. */
static json_t *random_call(rng *r, int index, json_t *list) {
    char name[32];
    snprintf(name, sizeof name, "%s_%d", rng_next(r) % 2 ? "do.it-now" : "f", index);
    json_t *arguments = json_object(), *properties = json_object();
    for (uint64_t n = rng_next(r) % 6; n; n--) {
        char key[8];
        snprintf(key, sizeof key, "p%d", (int)(rng_next(r) % 8));
        json_t *value = random_value(r, 0), *schema = schema_for(r, value);
        const char *text = json_string_value(value);
        char *json = json_dumps(value, JSON_ENCODE_ANY);
        bool fits = !json_object_get(arguments, key) && !is_markup(text ? text : json) &&
                    (!text || only_string(schema) || !is_other_type(text));
        free(json);
        if (fits) json_object_set(arguments, key, value);
        if (fits) json_object_set(properties, key, schema);
        json_decref(value);
        json_decref(schema);
    }
    json_array_append_new(list, json_pack("{s:s,s:{s:s,s:{s:s,s:o}}}", "type", "function",
                                          "function", "name", name, "parameters", "type", "object",
                                          "properties", properties));
    return json_pack("{s:s,s:o}", "name", name, "arguments", arguments);
}

static void assert_calls(const json_t *message, const json_t *calls, const char *text) {
    const json_t *got = json_object_get(message, "tool_calls");
    assert_int_equal(json_array_size(got), json_array_size(calls));
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *want = json_array_get(calls, i), *one = json_array_get(got, i);
        assert_true(json_equal(json_object_get(want, "name"), json_object_get(one, "name")));
        const char *arguments = json_string_value(json_object_get(one, "arguments"));
        json_t *value = json_loads(arguments, JSON_REJECT_DUPLICATES, NULL);
        if (!json_equal(value, json_object_get(want, "arguments"))) {
            fail_msg("%s\n--- parsed as ---\n%s", text, arguments);
        }
        assert_false(json_is_true(json_object_get(one, "cut")));
        json_decref(value);
    }
}

static void round_trip(void **unused) {
    (void)unused;
    rng r;
    rng_seed(&r, 5);
    text_buf text = {0};
    size_t parameters = 0;
    for (int round = 0; round < 20000; round++) {
        json_t *list = json_array(), *calls = json_array();
        bool think = rng_next(&r) % 2, say = rng_next(&r) % 2, json = rng_next(&r) % 3 == 0;
        text.length = 0;
        add(&text, think ? "Why <not>?\n</think>\n\n" : "");
        add(&text, say ? "Here & now < then.\n\n" : "");
        uint64_t n = 1 + rng_next(&r) % 3;
        for (uint64_t i = 0; i < n; i++) {
            json_t *call = random_call(&r, (int)i, list);
            if (i) add(&text, "\n");
            if (json) {
                size_t flags[] = {0, JSON_COMPACT, JSON_INDENT(2), JSON_ENSURE_ASCII};
                render_json_call(&text, call, flags[rng_next(&r) % 4]);
            } else {
                render_call(&text, call, rng_next(&r) % 2);
            }
            parameters += json_object_size(json_object_get(call, "arguments"));
            json_array_append_new(calls, call);
        }
        toolcall_options opt = {
            .format = toolcall_format_find(json ? "hermes" : "qwen3-coder"),
            .tools = list,
            .reasoning = think ? TOOLCALL_THINK_INSIDE : TOOLCALL_THINK_OUTSIDE,
        };
        json_t *message;
        assert_int_equal(toolcall_parse(&opt, text.data, text.length, &message).code, ERR_NONE);
        assert_calls(message, calls, text.data);
        const char *content = json_string_value(json_object_get(message, "content"));
        const char *why = json_string_value(json_object_get(message, "reasoning_content"));
        assert_string_equal(content ? content : "", say ? "Here & now < then." : "");
        assert_string_equal(why ? why : "", think ? "Why <not>?" : "");
        json_decref(message);
        json_decref(list);
        json_decref(calls);
    }
    assert_true(parameters > 30000);
    text_buf_free(&text);
}

/* ---- streaming ---- */

static void strings_stream(void **unused) {
    (void)unused;
    toolcall_parser *p;
    seen s = {0};
    toolcall_options opt = {.format = toolcall_format_find("qwen3-coder"), .tools = tools};
    opt.sink = see;
    opt.ctx = &s;
    assert_int_equal(toolcall_open(&opt, &p).code, ERR_NONE);
    const char *head = "<tool_call>\n<function=get_weather>\n<parameter=city>\nFirst line\nsec";
    assert_int_equal(toolcall_push(p, head, strlen(head)).code, ERR_NONE);
    assert_string_equal(s.log.data, "\x1e"
                                    "B0:get_weather\x1e"
                                    "A0:{\"city\": \"First line\\nsec");
    assert_true(toolcall_in_call(p));
    head = "\n</parameter>\n<parameter=note>\nnumb";
    assert_int_equal(toolcall_push(p, head, strlen(head)).code, ERR_NONE);
    assert_non_null(strstr(s.log.data, "sec\", \"note\": \"numb"));
    toolcall_close(p);
    s.log.length = 0;
    s.last = 0;
    assert_int_equal(toolcall_open(&opt, &p).code, ERR_NONE);
    head = "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"text\": \"abc";
    assert_int_equal(toolcall_push(p, head, strlen(head)).code, ERR_NONE);
    assert_string_equal(s.log.data, "\x1e"
                                    "B0:now\x1e"
                                    "A0:{\"text\": \"abc");
    assert_int_equal(toolcall_count(p), 1);
    toolcall_close(p);
    text_buf_free(&s.log);
}

static err refuse(void *ctx, const toolcall_event *event) {
    (void)event;
    *(int *)ctx += 1;
    return err_make(ERR_CANCELLED, "no");
}

static void sink_errors_stop(void **unused) {
    (void)unused;
    toolcall_parser *p;
    int n = 0;
    toolcall_options opt = {.sink = refuse, .ctx = &n};
    assert_int_equal(toolcall_open(&opt, &p).code, ERR_NONE);
    assert_int_equal(toolcall_push(p, "hi", 2).code, ERR_CANCELLED);
    assert_int_equal(toolcall_push(p, "hi", 2).code, ERR_ARG);
    assert_int_equal(toolcall_finish(p).code, ERR_ARG);
    assert_int_equal(n, 1);
    toolcall_close(p);
}

/* A megabyte of what makes a careless scanner quadratic, byte by byte. */
static void linear(void **unused) {
    (void)unused;
    static const char *const repeated[] = {"\n", "<", "</parameter>", "\n</",
                                           "1",  " ", "</tool_call>"};
    for (size_t k = 0; k < sizeof repeated / sizeof repeated[0]; k++) {
        toolcall_parser *p;
        seen s = {0};
        toolcall_options opt = {
            .format = toolcall_format_find("qwen3-coder"), .tools = tools, .sink = see, .ctx = &s};
        assert_int_equal(toolcall_open(&opt, &p).code, ERR_NONE);
        const char *head = "<tool_call>\n<function=get_weather>\n<parameter=any>\n";
        assert_int_equal(toolcall_push(p, head, strlen(head)).code, ERR_NONE);
        size_t n = strlen(repeated[k]);
        for (size_t i = 0; i < 1000000; i++) {
            assert_int_equal(toolcall_push(p, repeated[k] + i % n, 1).code, ERR_NONE);
        }
        assert_int_equal(toolcall_finish(p).code, ERR_NONE);
        assert_true(s.log.length > 100000);
        toolcall_close(p);
        text_buf_free(&s.log);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_parse),   cmocka_unit_test(minimax),
        cmocka_unit_test(formats),          cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(round_trip),       cmocka_unit_test(strings_stream),
        cmocka_unit_test(sink_errors_stop), cmocka_unit_test(linear),
    };
    return cmocka_run_group_tests(tests, load_tools, drop_tools);
}
