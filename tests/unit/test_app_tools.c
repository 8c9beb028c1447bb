/* test_app_tools.c: what a model may do in a chat: nothing outside of the folder, by whatever path;
 * nothing without a yes; bounded results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../apps/flashchat/chat_jail.h"
#include "../../apps/flashchat/chat_tools.h"

static char top[256], root[300], outside[300];

static void put(const char *dir, const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static char *get(const char *dir, const char *name) {
    static char text[4096];
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

static void link_to(const char *target, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(symlink(target, path), 0);
}

static int set_up(void **state) {
    (void)state;
    char path[700];
    snprintf(top, sizeof top, "%s", "build/chat-tools-XXXXXX");
    mkdir("build", 0755);
    assert_non_null(mkdtemp(top));
    char *real = realpath(top, NULL);
    assert_non_null(real);
    assert_true(strlen(real) < sizeof top);
    snprintf(top, sizeof top, "%.255s", real);
    free(real);
    snprintf(root, sizeof root, "%s/root", top);
    snprintf(outside, sizeof outside, "%s/outside", top);
    assert_int_equal(mkdir(root, 0755) || mkdir(outside, 0755), 0);
    snprintf(path, sizeof path, "%s/dir", root);
    assert_int_equal(mkdir(path, 0755), 0);
    put(root, "in.txt", "inside");
    put(root, "dir/deep.txt", "deep");
    put(outside, "secret.txt", "secret");
    link_to("../outside/secret.txt", "link");
    link_to("../outside", "linkdir");
    link_to(outside, "absolute");
    link_to("in.txt", "good-link");
    link_to("loop", "loop");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", top, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
    return 0;
}

static void stays_inside(void **state) {
    (void)state;
    char inside[700];
    for (int walk = 0; walk < 2; walk++) {
        jail j;
        int fd;
        assert_int_equal(jail_open(root, &j).code, 0);
        j.walk = walk;
        const char *good[] = {"in.txt", "./in.txt", "dir/deep.txt", "dir//deep.txt", inside, "dir"};
        snprintf(inside, sizeof inside, "%s/in.txt", root);
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
            err e = jail_open_file(&j, good[i], O_RDONLY, &fd);
            if (e.code) fprintf(stderr, "%s: %s\n", good[i], e.text);
            assert_int_equal(e.code, 0);
            close(fd);
        }
        char far[700], prefix[700];
        snprintf(far, sizeof far, "%s/secret.txt", outside);
        snprintf(prefix, sizeof prefix, "%s-other/x", root);
        const char *bad[] = {"../outside/secret.txt",
                             "dir/../../outside/secret.txt",
                             "link",
                             "linkdir/secret.txt",
                             "absolute/secret.txt",
                             "loop",
                             "/etc/passwd",
                             "..",
                             far,
                             prefix,
                             ""};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            err e = jail_open_file(&j, bad[i], O_RDONLY, &fd);
            if (!e.code) fprintf(stderr, "%s was opened\n", bad[i]);
            assert_int_equal(e.code, ERR_ARG);
            assert_int_equal(fd, -1);
        }
        assert_int_equal(jail_open_file(&j, "none", O_RDONLY, &fd).code, ERR_NOT_FOUND);
        assert_int_equal(jail_open_file(&j, "in.txt/x", O_RDONLY, &fd).code, ERR_NOT_FOUND);
        jail_close(&j);
    }
}

static void writes_inside(void **state) {
    (void)state;
    char path[700];
    struct stat st;
    for (int walk = 0; walk < 2; walk++) {
        jail j;
        bool existed;
        assert_int_equal(jail_open(root, &j).code, 0);
        j.walk = walk;
        assert_int_equal(jail_write(&j, "dir/new.txt", "one", 3, &existed).code, 0);
        assert_int_equal(existed, walk);
        snprintf(path, sizeof path, "%s/dir/new.txt", root);
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(jail_write(&j, "dir/new.txt", "two", 3, &existed).code, 0);
        assert_true(existed);
        assert_string_equal(get(root, "dir/new.txt"), "two");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        const char *bad[] = {"../outside/x", "linkdir/x", "absolute/x", "/tmp/flashchat-no",
                             "..",           "dir",       "dir/",       "."};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            assert_int_not_equal(jail_write(&j, bad[i], "x", 1, &existed).code, 0);
        assert_int_equal(jail_write(&j, "no/x", "x", 1, &existed).code, ERR_NOT_FOUND);
        assert_null(get(outside, "x"));
        jail_close(&j);
    }
    /* A link is replaced, what it points to is not touched. */
    jail j;
    bool existed;
    assert_int_equal(jail_open(root, &j).code, 0);
    assert_int_equal(jail_write(&j, "link", "mine", 4, &existed).code, 0);
    assert_string_equal(get(outside, "secret.txt"), "secret");
    assert_string_equal(get(root, "link"), "mine");
    jail_close(&j);
}

static int asked, next_key;

static int ask(const char *prompt) {
    assert_non_null(strstr(prompt, "always"));
    asked++;
    return next_key;
}

static char *call(chat_tools *t, const char *name, const char *arguments) {
    static char kept[TOOL_OUTPUT_MAX * 2];
    char *text = tools_run(t, name, arguments, ask);
    assert_non_null(text);
    snprintf(kept, sizeof kept, "%s", text);
    free(text);
    return kept;
}

static void consent(void **state) {
    (void)state;
    chat_tools *t;
    assert_int_equal(tools_open(root, &t).code, 0);
    const char *read = "{\"path\": \"in.txt\"}";
    const int no[] = {-1, 'n'};
    for (int i = 0; i < 2; i++) {
        next_key = no[i];
        assert_non_null(strstr(call(t, "read_file", read), "did not allow"));
        call(t, "write_file", "{\"path\": \"never\", \"content\": \"x\"}");
        call(t, "shell", "{\"command\": \"touch never\"}");
        assert_null(get(root, "never"));
    }
    asked = 0;
    next_key = '?'; /* something else is no yes */
    assert_non_null(strstr(call(t, "read_file", read), "did not allow"));
    assert_true(asked > 1);
    next_key = 'y';
    assert_string_equal(call(t, "read_file", read), "inside");
    asked = 0;
    next_key = 'a';
    call(t, "read_file", read);
    next_key = -1;
    assert_string_equal(call(t, "read_file", "{\"path\": \"dir/deep.txt\"}"), "deep");
    assert_int_equal(asked, 1);
    next_key = 'a'; /* a command is allowed word for word */
    assert_string_equal(call(t, "shell", "{\"command\": \"echo a\"}"), "a\n\n[exit code 0]");
    next_key = 'n';
    assert_string_equal(call(t, "shell", "{\"command\": \"echo a\"}"), "a\n\n[exit code 0]");
    assert_non_null(strstr(call(t, "shell", "{\"command\": \"echo ab\"}"), "did not allow"));
    tools_forget(t);
    assert_non_null(strstr(call(t, "read_file", read), "did not allow"));
    tools_close(t);
}

static void results(void **state) {
    (void)state;
    chat_tools *t;
    assert_int_equal(tools_open(root, &t).code, 0);
    next_key = 'y';
    const char *list = call(t, "list_directory", "{}");
    assert_non_null(strstr(list, "dir/\n"));
    assert_non_null(strstr(list, "in.txt (6 bytes)\n"));
    assert_non_null(strstr(list, "linkdir (link)\n"));
    assert_non_null(
        strstr(call(t, "list_directory", "{\"path\": \"..\"}"), "error: .. is outside"));
    assert_non_null(
        strstr(call(t, "read_file", "{\"path\": \"none\"}"), "error: there is no none"));
    assert_non_null(strstr(call(t, "read_file", "{\"path\": \"dir\"}"), "error: "));
    assert_non_null(
        strstr(call(t, "write_file", "{\"path\": \"w\", \"content\": \"a\\nb\"}"), "3 bytes"));
    assert_string_equal(get(root, "w"), "a\nb");
    assert_string_equal(call(t, "shell", "{\"command\": \"pwd; exit 3\"}") + strlen(root),
                        "\n\n[exit code 3]");
    assert_non_null(strstr(call(t, "shell", "{\"command\": \"kill -9 $$\"}"), "signal 9"));
    assert_non_null(strstr(call(t, "shell", "{\"command\": \"sleep 1000 & echo x\"}"), "x\n"));
    char *much = call(t, "shell", "{\"command\": \"yes | head -c 100000\"}");
    assert_true(strlen(much) < TOOL_OUTPUT_MAX + 200);
    assert_non_null(strstr(much, "bytes more are not shown"));
    call(t, "shell", "{\"command\": \"printf '\\\\377\\\\033x'\"}"); /* not UTF-8 */
    assert_non_null(strstr(call(t, "rm", "{}"), "error: there is no such tool"));
    assert_non_null(strstr(call(t, "read_file", "{}"), "error: path is missing"));
    assert_non_null(strstr(call(t, "read_file", "not json"), "error: "));
    assert_non_null(strstr(call(t, "shell", "[]"), "error: "));
    tools_close(t);
}

static void commands_are_confined(void **state) {
    (void)state;
    if (!jail_can_confine()) skip();
    chat_tools *t;
    char arguments[1000];
    assert_int_equal(tools_open(root, &t).code, 0);
    next_key = 'y';
    snprintf(
        arguments, sizeof arguments,
        "{\"command\": \"echo x > %s/made; rm %s/secret.txt; echo y > made; echo > /dev/null\"}",
        outside, outside);
    call(t, "shell", arguments);
    if (strncmp(root, "/tmp/", 5)) { /* /tmp is where temporary files may go */
        assert_null(get(outside, "made"));
        assert_non_null(get(outside, "secret.txt"));
    }
    assert_string_equal(get(root, "made"), "y\n");
    tools_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stays_inside),
        cmocka_unit_test(writes_inside),
        cmocka_unit_test(consent),
        cmocka_unit_test(results),
        cmocka_unit_test(commands_are_confined),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
