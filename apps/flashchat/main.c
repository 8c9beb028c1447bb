/* main.c: flashchat, the program. Finds the command, parses its options by its table, runs it.
 *
 * Exit codes: 0 done, 1 it did not work (one message says why), 2 it was not understood, 130
 * stopped by Ctrl-C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "defaults.h"
#include "flashmoe.h"
#include "product.h"
#include "status.h"

const command *const table_commands[] = {&command_prompt,   &command_chat, &command_plan,
                                         &command_serve,    &command_pack, &command_verify,
                                         &command_benchmark};
#define N_COMMANDS ((int)(sizeof table_commands / sizeof table_commands[0]))
const int n_table_commands = N_COMMANDS;

static const command *find(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(table_commands[i]->name, name)) return table_commands[i];
    return NULL;
}

static void print_help(void) {
    printf("flashchat runs Mixture-of-Experts language models that are larger than memory.\n\n");
    printf("usage: flashchat COMMAND [options]\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-12s %s\n", table_commands[i]->name, table_commands[i]->summary);
    for (int i = 0; i < n_product_commands; i++)
        if (!find(product_commands[i].name))
            printf("  %-12s %s\n", product_commands[i].name, product_commands[i].summary);
    printf("  %-12s %s\n", "help", "this text, or that of a command: flashchat help prompt");
    printf("\nA command's options: flashchat COMMAND --help. Without a command: a menu.\n"
           "Without --model the model of the settings answers, at first the bundled one.\n");
}

static void print_command_help(const command *c) {
    arg_table table = {c->program, c->args, c->n_args};
    printf("%s: %s\n\nusage: %s %s\n\n", c->program, c->summary, c->program, c->usage);
    if (c->details) printf("%s\n", c->details);
    args_help(&table);
}

static const product_command *find_product(const char *name) {
    for (int i = 0; i < n_product_commands; i++)
        if (!strcmp(product_commands[i].name, name)) return &product_commands[i];
    return NULL;
}

static void print_product_help(const product_command *c) {
    printf("flashchat %s: %s\n\nusage: flashchat %s %s\n", c->name, c->summary, c->name, c->usage);
    if (c->details) printf("\n%s", c->details);
}

#define NAMES_MAX 64

static int unknown(const char *what, const char *typed) {
    const char *names[NAMES_MAX];
    int n = 0;
    for (int i = 0; i < N_COMMANDS; i++) names[n++] = table_commands[i]->name;
    for (int i = 0; i < n_product_commands && n < NAMES_MAX - 3; i++)
        names[n++] = product_commands[i].name;
    names[n++] = "help";
    names[n++] = "--help";
    names[n++] = "--version";
    const char *near = nearest_name(typed, names, n);
    if (near) return args_wrong("flashchat", "unknown %s %s. Did you mean %s?", what, typed, near);
    return args_wrong("flashchat", "unknown %s %s", what, typed);
}

static int run(const command *c, int argc, char **argv) {
    arg_table table = {c->program, c->args, c->n_args};
    void *values = calloc(1, c->args_bytes);
    if (!values) {
        fprintf(stderr, "%s: no memory\n", c->program);
        return EXIT_FAILED;
    }
    if (c->defaults) memcpy(values, c->defaults, c->args_bytes);
    arg_list rest;
    int code = EXIT_USAGE;
    default_words words;
    if (!default_words_make(c, argc, argv, &words, &code)) {
        free(values);
        return code;
    }
    code = EXIT_USAGE;
    switch (args_parse(&table, words.argc, words.argv, values, &rest)) {
    case ARGS_OK: code = c->run(c, values, &rest); break;
    case ARGS_HELP:
        print_command_help(c);
        code = 0;
        break;
    case ARGS_WRONG: break;
    }
    free(values);
    default_words_free(&words);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write to standard output\n", c->program);
        return EXIT_FAILED;
    }
    return code;
}

static int help(int argc, char **argv) {
    if (argc == 0) {
        print_help();
        return 0;
    }
    const command *c = find(argv[0]);
    const product_command *other = find_product(argv[0]);
    if (!c && !other) return unknown("command", argv[0]);
    if (c) print_command_help(c);
    if (other) print_product_help(other);
    return 0;
}

static int run_product(const product_command *c, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_product_help(c);
            return 0;
        }
    char **words = calloc((size_t)argc + 1, sizeof *words); /* the command takes words out */
    if (!words) return EXIT_FAILED;
    memcpy(words, argv, (size_t)argc * sizeof *words);
    int code = c->run(argc, words);
    free(words);
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    fprintf(stderr, "flashchat %s: cannot write to standard output\n", c->name);
    return EXIT_FAILED;
}

int main(int argc, char **argv) {
    if (argc < 2) return menu_run();
    const char *first = argv[1];
    if (!strcmp(first, "--help") || !strcmp(first, "-h") || !strcmp(first, "help"))
        return help(argc > 2 ? 1 : 0, argv + 2);
    if (!strcmp(first, "--version")) {
        printf("flashchat %s\n", FM_VERSION);
        return 0;
    }
    const command *c = find(first);
    const product_command *other = find_product(first);
    if (other) {
        int code = run_product(other, argc - 1, argv + 1);
        if (code != PRODUCT_GOES_ON || !c) return code;
    }
    if (!c) return unknown(first[0] == '-' ? "option" : "command", first);
    return run(c, argc - 2, argv + 2);
}
