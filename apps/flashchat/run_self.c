/* run_self.c: see run_self.h. */
#include "run_self.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "files.h"

int run_self_words(char *const words[]) {
    char program[PATH_TEXT_MAX];
    if (!os_program_path(program, sizeof program)) {
        puts("flashchat cannot find its own program file; start it by its path.");
        return -1;
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execv(program, words);
        _exit(127);
    }
    if (child < 0) {
        puts("The system cannot start another program now; try again in a moment.");
        return -1;
    }
    struct sigaction keep = {.sa_handler = SIG_IGN}, before;
    sigemptyset(&keep.sa_mask);
    sigaction(SIGINT, &keep, &before);
    int state;
    while (waitpid(child, &state, 0) < 0) {
    }
    sigaction(SIGINT, &before, NULL);
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

int run_self(const char *word, const char *second) {
    char *const words[] = {(char *)(uintptr_t) "flashchat", (char *)(uintptr_t)word,
                           (char *)(uintptr_t)second, NULL};
    return run_self_words(words);
}
