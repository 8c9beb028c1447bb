/* scratch.h: what several unit tests share: a directory that lives for one test, checks of an err,
 * and where the golden checkpoints were unpacked. Include after cmocka.h. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

#define SCRATCH_PATH 1024

/* The directory of this test; empty at its start, removed with all its files at its end. */
static char scratch_name[64];

static inline const char *scratch_dir(void) { return scratch_name; }

static inline void scratch_path(char out[SCRATCH_PATH], const char *name) {
    snprintf(out, SCRATCH_PATH, "%s/%s", scratch_name, name);
}

static inline int scratch_open(void **state) {
    (void)state;
    strcpy(scratch_name, "/tmp/flashchat-test-XXXXXX");
    return mkdtemp(scratch_name) ? 0 : -1;
}

static inline int scratch_close(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_name);
    return system(command);
}

static inline void assert_ok(err e) {
    if (e.code) fail_msg("%s: %s", err_code_name(e.code), e.text);
}

/* e has this code and its sentence contains needle. */
static inline void assert_err(err e, err_code code, const char *needle) {
    if (e.code != code || !strstr(e.text, needle))
        fail_msg("expected %s \"%s\", found %s \"%s\"", err_code_name(code), needle,
                 err_code_name(e.code), e.text);
}

/* Where `make goldens` unpacked: BUILD/golden beside BUILD/tests/PROGRAM, or one level up, where a
 * sanitizer's build finds that of the plain one. Empty when it is not there. */
static char golden_dir[SCRATCH_PATH / 2];

static inline void golden_from(const char *program) {
    const char *slash = strrchr(program, '/');
    int n = slash ? (int)(slash - program) : 1;
    for (int up = 0; up < 2; up++) {
        char probe[SCRATCH_PATH];
        snprintf(golden_dir, sizeof golden_dir, "%.*s%s/golden", n, slash ? program : ".",
                 up ? "/../.." : "/..");
        snprintf(probe, sizeof probe, "%s/qwen3_5_moe/config.json", golden_dir);
        if (access(probe, F_OK) == 0) return;
    }
    golden_dir[0] = '\0';
}

static inline const char *golden_root(void) { return golden_dir[0] ? golden_dir : NULL; }

/* NAME or NAME/FILE below it. */
static inline void golden_path(char out[SCRATCH_PATH], const char *name, const char *file) {
    snprintf(out, SCRATCH_PATH, "%s/%.100s%s%.100s", golden_dir, name, file ? "/" : "",
             file ? file : "");
}

#endif
