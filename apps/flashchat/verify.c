/* verify.c: flashchat verify: are a model's files what they were? */
#include <stdio.h>

#include "../common/model.h"
#include "command.h"
#include "screen.h"
#include "work_bar.h"

typedef struct verify_args {
    const char *model;
    bool deep;
} verify_args;

static const arg_def defs[] = {
    {"--model", "DIR", "the model (default: the bundled one)", ARG_TEXT,
     offsetof(verify_args, model), 0, 0},
    {"--deep", NULL, "read everything and compare every checksum", ARG_FLAG,
     offsetof(verify_args, deep), 0, 0},
};

static int run(const command *c, const void *args, const arg_list *rest) {
    verify_args a = *(const verify_args *)args;
    if (rest->n > 1) return args_wrong(c->program, "one model at a time");
    if (rest->n == 1) a.model = rest->item[0];
    model_args m = {.model = a.model};
    char dir[MODEL_PATH_MAX];
    fm_options unused;
    if (!model_options(c->program, &m, dir, &unused)) return EXIT_FAILED;
    work_bar bar;
    work_bar_begin(&bar);
    bool packed;
    fm_error e = fm_verify(dir, a.deep, work_bar_show, &bar, &packed);
    work_bar_end(&bar);
    if (e.code) return fail(c->program, &e);
    char text[MODEL_PATH_MAX + 300];
    snprintf(text, sizeof text, "%s: %s", dir,
             !packed  ? "headers and sizes are right"
             : a.deep ? "every expert and tensor fits its checksum"
                      : "sizes and headers are right; --deep reads everything");
    print_wrapped(stdout, "", text);
    puts("Next: flashchat chat");
    return 0;
}

const command command_verify = {
    .name = "verify",
    .program = "flashchat verify",
    .usage = "[MODEL] [options]",
    .summary = "check a model's files",
    .details = "Names the first file that is damaged, and what in it.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(verify_args),
    .run = run,
};
