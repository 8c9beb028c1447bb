/* Measuring the machine: figures of a possible size, refusals that name the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "flashmoe.h"
#include "scratch.h"

static void memory_only(void **unused) {
    (void)unused;
    fm_machine m;
    fm_error e = fm_machine_measure(NULL, 2, 0.05, &m);
    if (e.code) fail_msg("%s", e.text);
    assert_int_equal(m.threads, 2);
    assert_true(m.memory_read > 1e7 && m.memory_read < 1e13); /* 1e7: under a sanitizer */
    assert_true(m.disk_read == 0);
}

static void blocks(void **unused) {
    (void)unused;
    double rate = 0;
    static const size_t sizes[] = {64, 100, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fm_error e = fm_machine_measure_blocks(2, sizes[i], 0.02, &rate);
        if (e.code) fail_msg("%s", e.text);
        assert_true(rate > 1e5 && rate < 1e13);
    }
    assert_int_equal(fm_machine_measure_blocks(2, 63, 0.02, &rate).code, FM_ERR_ARG);
    assert_true(rate == 0);
    assert_int_equal(fm_machine_measure_blocks(2, 1 << 20, 61, &rate).code, FM_ERR_ARG);
    assert_int_equal(fm_machine_measure_blocks(2, (size_t)1 << 45, 0.02, &rate).code, FM_ERR_NOMEM);
}

static void with_disk(void **unused) {
    (void)unused;
    char path[SCRATCH_PATH];
    static char block[100000];
    scratch_path(path, "a.safetensors");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(block, 1, sizeof block, f), sizeof block);
    assert_int_equal(fclose(f), 0);
    fm_machine m;
    fm_error e = fm_machine_measure(scratch_dir(), 1, 0.05, &m);
    if (e.code) fail_msg("%s", e.text);
    assert_true(m.disk_read > 1e5);
}

static void refusals(void **unused) {
    (void)unused;
    fm_machine m;
    assert_int_equal(fm_machine_measure(NULL, 1, 0, &m).code, FM_ERR_ARG);
    fm_error e = fm_machine_measure("/nowhere/at/all", 1, 0.01, &m);
    assert_int_equal(e.code, FM_ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/at/all"));
    e = fm_machine_measure(scratch_dir(), 1, 0.01, &m);
    assert_int_equal(e.code, FM_ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "no weight files"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_only),
        cmocka_unit_test(blocks),
        cmocka_unit_test_setup_teardown(with_disk, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(refusals, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
