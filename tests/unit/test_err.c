/* test_err.c: sentences survive formatting, nesting, cutting and hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "scratch.h"

static void test_success(void **state) {
    (void)state;
    err e = err_none();
    assert_int_equal(e.code, ERR_NONE);
    assert_string_equal(e.text, "");
}

static void test_make_and_within(void **state) {
    (void)state;
    err e = err_make(ERR_RANGE, "position %d", 7);
    assert_err(e, ERR_RANGE, "position 7");
    e = err_within(e, "layer %d", 3);
    assert_int_equal(e.code, ERR_RANGE);
    assert_string_equal(e.text, "layer 3: position 7");
}

static void test_system(void **state) {
    (void)state;
    assert_err(err_system(ENOENT, "%s", "f"), ERR_NOT_FOUND, "f: No such file");
    assert_err(err_system(ENOMEM, "%s", "f"), ERR_NOMEM, "f: ");
    assert_err(err_system(EIO, "%s", "f"), ERR_IO, "f: Input/output error");
    assert_err(err_system(EACCES, "%s", "f"), ERR_IO, "f: Permission denied");
}

/* Both ends of a long sentence stay, and the cut shows. */
static void test_cut(void **state) {
    (void)state;
    char long_text[3000];
    for (size_t length = ERR_TEXT_MAX - 3; length < 2900;
         length += length < ERR_TEXT_MAX + 3 ? 1 : 97) {
        memset(long_text, 'x', length);
        memcpy(long_text, "begin", 5);
        memcpy(long_text + length - 3, "end", 4);
        err e = err_make(ERR_IO, "%s", long_text);
        bool fits = length < ERR_TEXT_MAX;
        assert_int_equal(strlen(e.text), fits ? length : ERR_TEXT_MAX - 1);
        assert_memory_equal(e.text, "begin", 5);
        assert_string_equal(e.text + strlen(e.text) - 3, "end");
        assert_true(!strstr(e.text, " ... ") == fits);
    }
    /* The same twice over, and beyond the inner buffer: no overflow. */
    memset(long_text, 'y', sizeof long_text);
    long_text[sizeof long_text - 1] = '\0';
    err e = err_make(ERR_IO, "%s%s%s%s", long_text, long_text, long_text, long_text);
    e = err_within(e, "%s", long_text);
    assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
}

/* A cut never splits a character: every length of a prefix before two-, three- and four-byte ones.
 */
static void test_cut_keeps_utf8(void **state) {
    (void)state;
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    for (int k = 0; k < 3; k++) {
        for (size_t shift = 0; shift < 5; shift++) {
            char text[2400] = "abcd";
            text[shift] = '\0';
            while (strlen(text) < 2000)
                memcpy(text + strlen(text), characters[k], strlen(characters[k]) + 1);
            err e = err_make(ERR_IO, "%s", text);
            json_t *value = json_string(e.text);
            assert_non_null(value); /* jansson takes valid UTF-8 only */
            json_decref(value);
            assert_null(strchr(e.text, '?'));
        }
    }
}

static void test_hostile_bytes(void **state) {
    (void)state;
    assert_string_equal(err_make(ERR_IO, "a\nb\x1b[2J\x7f\xc2\x9b!\xc2\xa0").text, "a?b?[2J??"
                                                                                   "?!\xc2\xa0");
    assert_string_equal(err_make(ERR_IO, "\xff\xc3(\xe2\x82").text, "?"
                                                                    "?(??");
    assert_string_equal(err_make(ERR_IO, "\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80").text, "?? ??"
                                                                                         "? ???"
                                                                                         "?");
    rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < 20000; i++) {
        char bytes[40];
        for (size_t k = 0; k + 1 < sizeof bytes; k++)
            bytes[k] = (char)(rng_next(&r) | (rng_next(&r) & 128));
        bytes[sizeof bytes - 1] = '\0';
        err e = err_make(ERR_IO, "%s", bytes);
        json_t *value = json_string(e.text);
        assert_non_null(value);
        json_decref(value);
        for (const char *c = e.text; *c; c++) assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
}

static void test_names(void **state) {
    (void)state;
    for (int i = ERR_NONE; i <= ERR_CANCELLED; i++) {
        assert_non_null(err_code_name((err_code)i));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(err_code_name((err_code)i), err_code_name((err_code)k));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),        cmocka_unit_test(test_make_and_within),
        cmocka_unit_test(test_system),         cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_keeps_utf8), cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
