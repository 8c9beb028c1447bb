/* json_repair: valid JSON comes out with the same values and without a repair; anything else comes
 * out as some valid JSON; pieces do not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/bits.h"
#include "text/json_repair.h"

static unsigned repair(const char *in, size_t length, size_t piece, text_buf *out) {
    json_repair r = {0};
    out->length = 0;
    for (size_t at = 0; at < length;) {
        size_t used, n = size_min(piece, length - at);
        assert_int_equal(json_repair_push(&r, in + at, n, out, &used).code, ERR_NONE);
        if (json_repair_done(&r)) break;
        assert_int_equal(used, n);
        at += n;
    }
    assert_int_equal(json_repair_end(&r, out).code, ERR_NONE);
    unsigned repairs = r.repairs;
    json_repair_free(&r);
    return repairs;
}

static void examples(void **unused) {
    (void)unused;
    static const struct {
        const char *in, *out;
        bool valid;
    } table[] = {
        {"{}", "{}", true},
        {"{\"a\":1}", "{\"a\": 1}", true},
        {" [1,\n2 , {\"b\" :[ ]}] ", "[1, 2, {\"b\": []}]", true},
        {"\"\\ud83d\\ude00 \\u00e9\"", "\"\\ud83d\\ude00 \\u00e9\"", true},
        {"-0.50e+3", "-0.50e+3", true},
        {"12345678901234567890123", "12345678901234567890123", true},
        {"{'city': 'Oslo', \"days\": [1, 2,], ok: True",
         "{\"city\": \"Oslo\", \"days\": [1, 2], \"ok\": true}", false},
        {"{\"a\": {\"b\": [1, {\"c\": \"d", "{\"a\": {\"b\": [1, {\"c\": \"d\"}]}}", false},
        {"{\"a\": [1}", "{\"a\": [1]}", false},
        {"{\"a\"}", "{\"a\": null}", false},
        {"{\"a\":}", "{\"a\": null}", false},
        {"{\"a\":,\"b\":2}", "{\"a\": null, \"b\": 2}", false},
        {"{\"a\":1 \"b\":2}", "{\"a\": 1, \"b\": 2}", false},
        {"{\"a\" 1}", "{\"a\": 1}", false},
        {"[1,,2]", "[1, 2]", false},
        {"[01, .5, +1, 1., NaN]", "[\"01\", \".5\", \"+1\", \"1.\", \"NaN\"]", false},
        {"\"line\nbreak\"", "\"line\\nbreak\"", false},
        {"\"\\d\\u12x\"", "\"\\\\d\\\\u12x\"", false},
        {"\"\\ud83d!\"", "\"\\ufffd!\"", false},
        {"\"\\ude00\"", "\"\\ufffd\"", false},
        {"\"open\\", "\"open\\\\\"", false},
        {"{\"a\": None", "{\"a\": null}", false},
        {"hello", "\"hello\"", false},
        {"", "", true},
        {"  ", "", true},
        {"}", "", false},
    };
    text_buf out = {0};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (size_t piece = 1; piece < 9; piece += 7) {
            unsigned repairs = repair(table[i].in, strlen(table[i].in), piece, &out);
            assert_string_equal(out.data ? out.data : "", table[i].out);
            out.length = 0;
            if (out.data) out.data[0] = 0;
            assert_int_equal(repairs == 0, table[i].valid);
        }
    }
    text_buf_free(&out);
}

static void always_valid(void **unused) {
    (void)unused;
    static const char *const parts[] = {
        "{",    "}",    "[",   "]",    "\"",     "'",       ":",   ",",     "\\", "\\u", "d83d",
        "de00", "\\n",  " ",   "\n",   "true",   "1",       "-",   ".5",    "e",  "a",   "é",
        "😀",    "None", "nul", "\x01", "\"a\":", "{\"k\":", "[1,", "\"s\"", "}}"};
    rng r;
    rng_seed(&r, 3);
    text_buf in = {0}, out = {0}, again = {0};
    int valid_inputs = 0;
    for (int round = 0; round < 60000; round++) {
        in.length = 0;
        for (uint64_t n = rng_next(&r) % 14; n; n--) {
            const char *part = parts[rng_next(&r) % (sizeof parts / sizeof parts[0])];
            assert_int_equal(text_buf_add_text(&in, part).code, ERR_NONE);
        }
        unsigned repairs = repair(in.data ? in.data : "", in.length, 1 + rng_next(&r) % 6, &out);
        assert_int_equal(repair(in.data ? in.data : "", in.length, in.length + 1, &again), repairs);
        assert_int_equal(out.length, again.length);
        if (out.length) assert_memory_equal(out.data, again.data, out.length);
        json_t *input = json_loadb(in.data ? in.data : "", in.length, JSON_DECODE_ANY, NULL);
        json_t *output = json_loadb(out.data ? out.data : "", out.length, JSON_DECODE_ANY, NULL);
        if (out.length) assert_non_null(output);
        if (input) {
            assert_int_equal(repairs, 0);
            assert_true(json_equal(input, output));
            valid_inputs++;
        }
        json_decref(input);
        json_decref(output);
    }
    assert_true(valid_inputs > 500);
    text_buf_free(&in);
    text_buf_free(&out);
    text_buf_free(&again);
}

static void deep(void **unused) {
    (void)unused;
    text_buf in = {0}, out = {0};
    for (int i = 0; i < 5000; i++) assert_int_equal(text_buf_add_text(&in, "[{\"a\":").code, 0);
    assert_true(repair(in.data, in.length, 7, &out) > 0);
    json_t *value = json_loadb(out.data, out.length, 0, NULL);
    assert_non_null(value);
    json_decref(value);
    text_buf_free(&in);
    text_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples),
        cmocka_unit_test(always_valid),
        cmocka_unit_test(deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
