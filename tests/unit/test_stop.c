/* Stop strings: the matcher against a twin that looks at the whole text after every byte, on random
 * texts over a tiny alphabet (so that borders overlap) cut at random places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "text/stop.h"

/* The twin: for each end position, in order, does the text up to there end with a stop? */
static int twin(const stop_string *stops, int n, const char *text, size_t length, size_t *shown) {
    for (size_t end = 1; end <= length; end++) {
        int best = -1;
        for (int k = 0; k < n; k++) {
            size_t l = stops[k].length;
            if (l <= end && !memcmp(text + end - l, stops[k].bytes, l) &&
                (best < 0 || l > stops[best].length)) {
                best = k;
            }
        }
        if (best >= 0) {
            *shown = end - stops[best].length;
            return best;
        }
    }
    *shown = length;
    return -1;
}

static void against_twin(void **unused) {
    (void)unused;
    rng r;
    rng_seed(&r, 7);
    int matches = 0;
    for (int round = 0; round < 20000; round++) {
        char words[4][8], text[64];
        stop_string stops[4];
        int n = (int)(rng_next(&r) % 5);
        for (int k = 0; k < n; k++) {
            size_t l = 1 + rng_next(&r) % 7;
            for (size_t i = 0; i < l; i++) words[k][i] = (char)('a' + rng_next(&r) % 2);
            stops[k] = (stop_string){words[k], l};
        }
        size_t length = rng_next(&r) % sizeof text;
        for (size_t i = 0; i < length; i++) text[i] = (char)('a' + rng_next(&r) % 3 % 2);
        stop_matcher *m;
        assert_int_equal(stop_matcher_open(stops, n, &m).code, ERR_NONE);
        text_buf shown = {0};
        for (size_t at = 0; at < length;) {
            size_t piece = size_min(1 + rng_next(&r) % 5, length - at);
            assert_int_equal(stop_matcher_push(m, text + at, piece, &shown).code, ERR_NONE);
            at += piece;
        }
        assert_int_equal(stop_matcher_end(m, &shown).code, ERR_NONE);
        size_t want;
        int found = twin(stops, n, text, length, &want);
        matches += found >= 0;
        /* Two equal stop strings may be told apart by index; the text must agree. */
        assert_int_equal(found >= 0, stop_matcher_found(m) >= 0);
        assert_int_equal(shown.length, want);
        if (want) assert_memory_equal(shown.data, text, want);
        text_buf_free(&shown);
        stop_matcher_close(m);
    }
    assert_true(matches > 5000 && matches < 19000);
}

static void holds_only_what_it_must(void **unused) {
    (void)unused;
    stop_string stops[] = {{"\n\nUser:", 7}, {"###", 3}};
    stop_matcher *m;
    assert_int_equal(stop_matcher_open(stops, 2, &m).code, ERR_NONE);
    text_buf shown = {0};
    assert_int_equal(stop_matcher_push(m, "a\n", 2, &shown).code, ERR_NONE);
    assert_string_equal(shown.data, "a");
    assert_int_equal(stop_matcher_push(m, "b##", 3, &shown).code, ERR_NONE);
    assert_string_equal(shown.data, "a\nb");
    assert_int_equal(stop_matcher_push(m, "x\n\nUs", 5, &shown).code, ERR_NONE);
    assert_string_equal(shown.data, "a\nb##x");
    assert_int_equal(stop_matcher_push(m, "er:tail", 7, &shown).code, ERR_NONE);
    assert_int_equal(stop_matcher_end(m, &shown).code, ERR_NONE);
    assert_string_equal(shown.data, "a\nb##x");
    assert_int_equal(stop_matcher_found(m), 0);
    stop_matcher_reset(m);
    assert_int_equal(stop_matcher_push(m, "##", 2, &shown).code, ERR_NONE);
    assert_int_equal(stop_matcher_end(m, &shown).code, ERR_NONE);
    assert_string_equal(shown.data, "a\nb##x##");
    assert_int_equal(stop_matcher_found(m), -1);
    text_buf_free(&shown);
    stop_matcher_close(m);
}

static void refuses(void **unused) {
    (void)unused;
    stop_matcher *m;
    stop_string empty = {"", 0}, many[STOP_STRINGS_MAX + 1];
    for (int i = 0; i <= STOP_STRINGS_MAX; i++) many[i] = (stop_string){"x", 1};
    assert_int_equal(stop_matcher_open(&empty, 1, &m).code, ERR_ARG);
    assert_null(m);
    assert_int_equal(stop_matcher_open(many, STOP_STRINGS_MAX + 1, &m).code, ERR_ARG);
    static char big[STOP_LENGTH_MAX + 1];
    stop_string too_long = {big, sizeof big}, longest = {big, STOP_LENGTH_MAX};
    assert_int_equal(stop_matcher_open(&too_long, 1, &m).code, ERR_ARG);
    assert_int_equal(stop_matcher_open(&longest, 1, &m).code, ERR_NONE);
    stop_matcher_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_twin),
        cmocka_unit_test(holds_only_what_it_must),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
