/* test_request.c: what each API's fields become, and what is refused, by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>

#include "base/json.h"
#include "scratch.h"
#include "server/request.h"

#define USER "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"

static err parse(request_api api, const char *text, request *r, char *param) {
    json_t *body;
    err e = request_json(text, strlen(text), &body);
    if (e.code) return e;
    return request_parse(api, body, r, param);
}

static request good(request_api api, const char *text) {
    request r;
    char param[64];
    assert_ok(parse(api, text, &r, param));
    return r;
}

static void bad(request_api api, const char *text, const char *param, const char *needle) {
    request r;
    char found[64] = "";
    assert_err(parse(api, text, &r, found), ERR_ARG, needle);
    assert_string_equal(found, param);
}

static void same(const json_t *value, const char *want) {
    json_t *w = json_loads(want, JSON_DECODE_ANY, NULL);
    assert_non_null(w);
    if (!json_equal((json_t *)(uintptr_t)value, w)) {
        char *found = json_dumps(value, JSON_ENCODE_ANY);
        fail_msg("expected %s, found %s", want, found);
    }
    json_decref(w);
}

static void test_chat(void **state) {
    (void)state;
    request r = good(
        API_CHAT,
        "{\"model\": \"m\", \"max_completion_tokens\": 9, \"temperature\": 0.5, \"seed\": 7, "
        "\"top_k\": -1, \"stop\": \"x\", \"n\": 2, \"logprobs\": true, \"top_logprobs\": 3, "
        "\"logit_bias\": {\"5\": -100}, \"stream\": true, \"stream_options\": {\"include_usage\": "
        "true}, \"reasoning_effort\": \"low\", \"user\": \"u\", \"store\": false, "
        "\"parallel_tool_calls\": false, \"tools\": [{\"type\": \"function\", \"function\": "
        "{\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}], \"tool_choice\": "
        "\"required\", \"messages\": [{\"role\": \"developer\", \"content\": \"a\"}, {\"role\": "
        "\"system\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", "
        "\"text\": \"c\"}, {\"type\": \"text\", \"text\": \"d\"}]}, {\"role\": \"assistant\", "
        "\"content\": null, \"reasoning_content\": \"r\", \"tool_calls\": [{\"id\": \"1\", "
        "\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\": "
        "[1]}\"}}]}, {\"role\": \"tool\", \"tool_call_id\": \"1\", \"content\": \"z\"}]}");
    assert_string_equal(r.model, "m");
    assert_int_equal(r.max_tokens, 9);
    assert_true(r.sampling.temperature == 0.5f && r.sampling.seed == 7 && r.sampling.top_k == 0);
    assert_int_equal(r.set, SET_TEMPERATURE | SET_SEED | SET_TOP_K);
    assert_int_equal(r.n, 2);
    assert_true(r.logprobs && r.stream && r.include_usage && r.one_call);
    assert_int_equal(r.n_bias, 1);
    assert_int_equal(r.bias[0].id, 5);
    assert_int_equal(r.thinking, 1);
    assert_int_equal(r.thinking_budget, 1024);
    assert_int_equal(r.choice, TOOL_REQUIRED);
    same(r.stop, "[\"x\"]");
    same(r.messages,
         "[{\"role\": \"system\", \"content\": \"a\\n\\nb\"}, {\"role\": \"user\", \"content\": "
         "\"cd\"}, {\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"r\", "
         "\"tool_calls\": [{\"id\": \"1\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
         "\"arguments\": {\"x\": [1]}}}]}, {\"role\": \"tool\", \"tool_call_id\": \"1\", "
         "\"content\": \"z\"}]");
    same(r.kwargs, "{\"enable_thinking\": true, \"reasoning_effort\": \"low\"}");
    request_free(&r);
}

static void test_chat_refusals(void **state) {
    (void)state;
    static const struct {
        const char *field, *param, *needle;
    } list[] = {
        {"\"foo\": 1", "foo", "unknown field"},
        {"\"temperature\": \"hot\"", "temperature", "must be a number"},
        {"\"temperature\": 2.5", "temperature", "not within 0 and 2"},
        {"\"max_tokens\": 0", "max_tokens", "not within"},
        {"\"max_tokens\": 1.5", "max_tokens", "whole number"},
        {"\"n\": 17", "n", "not within"},
        {"\"stop\": [1]", "stop[0]", "string"},
        {"\"stop\": \"\"", "stop[0]", "1 to 1024"},
        {"\"logit_bias\": {\"x\": 1}", "logit_bias", "not a token id"},
        {"\"logit_bias\": {\"1\": 101}", "logit_bias", "within -100 and 100"},
        {"\"top_logprobs\": 2", "top_logprobs", "needs logprobs"},
        {"\"store\": true", "store", "only false"},
        {"\"modalities\": [\"audio\"]", "modalities", "only"},
        {"\"audio\": {}", "audio", "writes text"},
        {"\"functions\": []", "functions", "send tools"},
        {"\"stream\": 1", "stream", "true or false"},
        {"\"tools\": {}", "tools", "a list"},
        {"\"tools\": [{\"type\": \"web\"}]", "tools[0].type", "function"},
        {"\"tool_choice\": \"required\"", "tool_choice", "needs tools"},
        {"\"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": \"q\"}}",
         "tool_choice", "no tool q"},
        {"\"response_format\": {\"type\": \"xml\"}", "response_format.type", "must be"},
        {"\"response_format\": {\"type\": \"json_schema\"}", "response_format.schema", "Schema"},
        {"\"reasoning_effort\": \"huge\"", "reasoning_effort", "must be"},
        {"\"chat_template_kwargs\": {\"messages\": []}", "chat_template_kwargs.messages", "server"},
        {"\"user\": 5", "user", "a string"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char text[512];
        snprintf(text, sizeof text, "{" USER ", %s}", list[i].field);
        bad(API_CHAT, text, list[i].param, list[i].needle);
    }
    bad(API_CHAT, "{}", "messages", "is missing");
    bad(API_CHAT, "{\"messages\": []}", "messages", "is empty");
    bad(API_CHAT, "{\"messages\": [{\"role\": \"user\"}]}", "messages[0].content", "missing");
    bad(API_CHAT, "{\"messages\": [{\"role\": \"boss\", \"content\": \"\"}]}", "messages[0].role",
        "must be");
    bad(API_CHAT,
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}",
        "messages[0].content[0].type", "image_url");
}

static void test_json(void **state) {
    (void)state;
    json_t *v;
    assert_err(request_json("{\"a\":", 5, &v), ERR_ARG, "line 1");
    assert_err(request_json("[]", 2, &v), ERR_ARG, "object");
    assert_err(request_json("{\"a\": \"\xff\"}", 10, &v), ERR_ARG, "JSON");
    assert_err(request_json("{\"a\": 1, \"a\": 2}", 16, &v), ERR_ARG, "duplicate");
    const char *zero = "{\"a\": [\"x\\u0000y\"], \"b\": \"\\u0000\"}";
    assert_ok(request_json(zero, strlen(zero), &v));
    same(v, "{\"a\": [\"x\\ufffdy\"], \"b\": \"\\ufffd\"}");
    json_decref(v);
    size_t n = 100000;
    char *deep = malloc(n + 8);
    memset(deep, '[', n);
    memcpy(deep, "{\"a\":", 5);
    assert_err(request_json(deep, n, &v), ERR_ARG, "depth");
    free(deep);
}

static void test_completions(void **state) {
    (void)state;
    request r = good(API_COMPLETIONS, "{\"prompt\": [[1, 2], \"x\"], \"logprobs\": 2}");
    assert_int_equal(json_array_size(r.prompts), 2);
    assert_int_equal(r.max_tokens, 16);
    assert_int_equal(r.top_logprobs, 2);
    request_free(&r);
    r = good(API_COMPLETIONS, "{\"prompt\": [1, 2, 3]}");
    assert_int_equal(json_array_size(r.prompts), 1);
    request_free(&r);
    bad(API_COMPLETIONS, "{}", "prompt", "missing");
    bad(API_COMPLETIONS, "{\"prompt\": \"x\", \"suffix\": \"y\"}", "suffix", "continued");
    bad(API_COMPLETIONS, "{\"prompt\": \"x\", \"best_of\": 3}", "best_of", "only 1");
    bad(API_COMPLETIONS, "{\"prompt\": [{}]}", "prompt[0]", "string or a list");
    bad(API_COMPLETIONS, "{\"prompt\": [\"a\", \"b\"], \"n\": 9}", "n", "at most 16");
}

/* The form in which Codex asks. */
static void test_responses(void **state) {
    (void)state;
    request r = good(
        API_RESPONSES,
        "{\"model\": \"m\", \"instructions\": \"I\", \"input\": [{\"type\": \"message\", \"role\": "
        "\"developer\", \"content\": [{\"type\": \"input_text\", \"text\": \"D\"}]}, {\"role\": "
        "\"user\", \"content\": \"U\"}, {\"type\": \"reasoning\", \"summary\": [], \"content\": "
        "[{\"type\": \"reasoning_text\", \"text\": \"T\"}], \"encrypted_content\": null}, "
        "{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"arguments\": "
        "\"{}\"}, {\"type\": \"function_call_output\", \"call_id\": \"c\", \"output\": \"O\"}], "
        "\"tools\": [{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"type\": "
        "\"object\"}, \"strict\": false}, {\"type\": \"web_search\"}, {\"type\": \"namespace\", "
        "\"name\": \"n\", \"tools\": []}], \"include\": [\"reasoning.encrypted_content\"], "
        "\"store\": false, \"stream\": true, \"prompt_cache_key\": \"k\", \"client_metadata\": {}, "
        "\"reasoning\": {\"summary\": \"auto\"}, \"parallel_tool_calls\": true}");
    assert_int_equal(json_array_size(r.tools), 1);
    same(r.messages,
         "[{\"role\": \"system\", \"content\": \"I\\n\\nD\"}, {\"role\": \"user\", \"content\": "
         "\"U\"}, {\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"T\", "
         "\"tool_calls\": [{\"id\": \"c\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
         "\"arguments\": {}}}]}, {\"role\": \"tool\", \"content\": \"O\", \"tool_call_id\": "
         "\"c\"}]");
    request_free(&r);
    bad(API_RESPONSES, "{\"input\": \"x\", \"previous_response_id\": \"r\"}",
        "previous_response_id", "nothing is stored");
    bad(API_RESPONSES, "{\"input\": [{\"type\": \"item_reference\", \"id\": \"i\"}]}",
        "input[0].type", "nothing is stored");
    bad(API_RESPONSES, "{}", "input", "missing");
    bad(API_RESPONSES, "{\"input\": \"x\", \"text\": {\"verbosity\": \"low\"}}", "text.verbosity",
        "medium");
}

/* The form in which Claude Code asks. */
static void test_messages(void **state) {
    (void)state;
    request r = good(
        API_MESSAGES,
        "{\"model\": \"m\", \"max_tokens\": 32000, \"system\": [{\"type\": \"text\", \"text\": "
        "\"x-anthropic-billing-header: cch=123;\\nYou\"}, {\"type\": \"text\", \"text\": \"B\", "
        "\"cache_control\": {\"type\": \"ephemeral\"}}], \"messages\": [{\"role\": \"user\", "
        "\"content\": \"U\"}, {\"role\": \"assistant\", \"content\": [{\"type\": \"thinking\", "
        "\"thinking\": \"T\", \"signature\": \"s\"}, {\"type\": \"text\", \"text\": \"A\"}, "
        "{\"type\": \"tool_use\", \"id\": \"t\", \"name\": \"f\", \"input\": {\"x\": 1}}]}, "
        "{\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", \"tool_use_id\": \"t\", "
        "\"content\": [{\"type\": \"text\", \"text\": \"R\"}]}, {\"type\": \"text\", \"text\": "
        "\"V\"}]}, {\"role\": \"system\", \"content\": \"S\"}], \"thinking\": {\"type\": "
        "\"adaptive\"}, \"output_config\": {\"effort\": \"medium\"}, \"context_management\": "
        "{\"edits\": [{\"type\": \"clear_thinking_20251015\", \"keep\": \"all\"}]}, \"metadata\": "
        "{}, \"tools\": [{\"name\": \"f\", \"input_schema\": {\"type\": \"object\"}}]}");
    assert_int_equal(r.max_tokens, 32000);
    assert_int_equal(r.thinking, 1);
    same(r.messages,
         "[{\"role\": \"system\", \"content\": \"You\\n\\nB\"}, {\"role\": \"user\", \"content\": "
         "\"U\"}, {\"role\": \"assistant\", \"content\": \"A\", \"reasoning_content\": \"T\", "
         "\"tool_calls\": [{\"id\": \"t\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
         "\"arguments\": {\"x\": 1}}}]}, {\"role\": \"tool\", \"content\": \"R\", "
         "\"tool_call_id\": \"t\"}, {\"role\": \"user\", \"content\": \"V\"}, {\"role\": "
         "\"system\", \"content\": \"S\"}]");
    assert_true(request_later_system_to_user(&r));
    assert_false(request_later_system_to_user(&r));
    request_free(&r);
    r = good(API_MESSAGES, "{\"max_tokens\": 1, \"messages\": [{\"role\": \"user\", \"content\": "
                           "\"U\"}, {\"role\": \"assistant\", \"content\": \"Pre\"}]}");
    assert_string_equal(r.prefill, "Pre");
    assert_int_equal(json_array_size(r.messages), 1);
    assert_int_equal(r.thinking, 0);
    request_free(&r);
    bad(API_MESSAGES,
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
        "\"image\"}]}]}",
        "messages[0].content[0].type", "image");
    bad(API_MESSAGES, "{" USER ", \"temperature\": 1.5}", "temperature", "within 0 and 1");
    bad(API_MESSAGES, "{" USER ", \"mcp_servers\": []}", "mcp_servers", "no other servers");
}

static const char *const any_names[] = {"model",
                                        "messages",
                                        "tools",
                                        "tool_choice",
                                        "parallel_tool_calls",
                                        "max_tokens",
                                        "max_completion_tokens",
                                        "temperature",
                                        "top_p",
                                        "min_p",
                                        "top_k",
                                        "seed",
                                        "stop",
                                        "n",
                                        "logit_bias",
                                        "logprobs",
                                        "top_logprobs",
                                        "response_format",
                                        "stream",
                                        "stream_options",
                                        "reasoning_effort",
                                        "thinking_budget",
                                        "chat_template_kwargs",
                                        "prompt",
                                        "suffix",
                                        "echo",
                                        "input",
                                        "instructions",
                                        "text",
                                        "reasoning",
                                        "include",
                                        "system",
                                        "stop_sequences",
                                        "thinking",
                                        "output_config",
                                        "context_management",
                                        "metadata",
                                        "store",
                                        "truncation"};
static const char *const any_values[] = {
    "null",
    "true",
    "0",
    "-1",
    "1e300",
    "1.5",
    "\"\"",
    "\"x\"",
    "[]",
    "[null]",
    "[[]]",
    "[{}]",
    "[\"x\"]",
    "{}",
    "{\"type\": 1}",
    "{\"type\": \"x\", \"name\": []}",
    "[{\"type\": []}]",
    "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": {}}]}]",
    "[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [null, {}]}]"};

/* Every kind of value in every field of every API: an answer, never a crash. */
static void test_wrong_types(void **state) {
    (void)state;
    for (int api = 0; api <= API_TEMPLATE; api++)
        for (size_t i = 0; i < sizeof any_names / sizeof *any_names; i++)
            for (size_t k = 0; k < sizeof any_values / sizeof *any_values; k++) {
                char text[512], param[64];
                request r;
                bool own = !strcmp(any_names[i], "messages");
                snprintf(text, sizeof text, "{%s\"%s\": %s}", own ? "" : USER ", ", any_names[i],
                         any_values[k]);
                err e = parse((request_api)api, text, &r, param);
                if (!e.code) request_free(&r);
                assert_true(e.code == ERR_NONE || e.code == ERR_ARG);
            }
}

/* docs/SERVER.md: the sections of an API, and those for all of them, name every field that the
 * tables know. */
static bool documented(const char *section, const char *name) {
    size_t n = strlen(name);
    for (const char *at = section; (at = strstr(at, name)); at += n)
        if (at[-1] == '`' && strchr("`.", at[n])) return true;
    return false;
}

static void test_documentation(void **state) {
    (void)state;
    static const char *const headings[] = {
        [API_CHAT] = "\n## Chat completions",        [API_COMPLETIONS] = "\n## Completions",
        [API_RESPONSES] = "\n## Responses",          [API_MESSAGES] = "\n## Messages",
        [API_TEMPLATE] = "| `POST /apply-template`",
    };
    char *text;
    size_t length;
    assert_ok(json_read_text("docs/SERVER.md", 1 << 20, &text, &length));
    const char *common = strstr(text, "\n## Sampling");
    assert_non_null(common);
    char *shared = strndup(common, strcspn(common + 4, "#") + 4);
    for (int api = 0; api <= API_TEMPLATE; api++) {
        const char *from = strstr(text, headings[api]);
        assert_non_null(from);
        const char *end = strstr(from + 4, api == API_TEMPLATE ? "\n" : "\n## ");
        assert_non_null(end);
        char *section = strndup(from, (size_t)(end - from));
        int n = 0;
        for (const char *name; (name = request_field((request_api)api, n)); n++) {
            bool known = !strcmp(name, "model") || documented(section, name) ||
                         (api != API_TEMPLATE && documented(shared, name));
            if (!known) fail_msg("docs/SERVER.md: %s has no %s", headings[api] + 1, name);
        }
        assert_true(n > 5);
        free(section);
    }
    free(shared);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),        cmocka_unit_test(test_chat_refusals),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_responses),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_wrong_types), cmocka_unit_test(test_documentation),
    };
    return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
