/* pack.c: flashchat pack: writes a model again so that one read brings one expert. */
#include <stdio.h>
#include <string.h>

#include "../common/model.h"
#include "command.h"
#include "screen.h"
#include "work_bar.h"

typedef struct pack_args {
    const char *model, *out;
    int bits, group, threads;
    bool dry;
} pack_args;

static const arg_def defs[] = {
    {"--model", "DIR", "the model (default: the bundled one)", ARG_TEXT, offsetof(pack_args, model),
     0, 0},
    {"--bits", "N", "of the experts: 4 (default) or 8; a quantised model keeps its own", ARG_INT,
     offsetof(pack_args, bits), 4, 8},
    {"--group", "N", "weights that share a scale: 32, 64 (default) or 128", ARG_INT,
     offsetof(pack_args, group), 32, 128},
    {"--out", "DIR", "where to (default: MODEL/flashchat/q<bits>)", ARG_TEXT,
     offsetof(pack_args, out), 0, 0},
    {"--threads", "N", "threads (default: one per processor, at most 8)", ARG_INT,
     offsetof(pack_args, threads), 1, 256},
    {"--dry-run", NULL, "only say what would be written", ARG_FLAG, offsetof(pack_args, dry), 0, 0},
};

static const pack_args defaults = {.bits = 4, .group = 64};

/* What comes next, in the words of the person: a name of the registry is packed for good, a folder
 * is used by its path. */
static void say_next(const fm_pack_report *r) {
    char text[MODEL_PATH_MAX + 300];
    if (strstr(r->out_dir, "/models--") && strstr(r->out_dir, "/flashchat/"))
        snprintf(text, sizeof text,
                 "From now on the model's name stands for these files. The published weights may "
                 "go: flashchat offload NAME --part originals. Check: flashchat verify NAME "
                 "--deep");
    else
        snprintf(text, sizeof text, "Next: flashchat chat --model %s", r->out_dir);
    print_wrapped(stdout, "", text);
}

static void say(const fm_pack_report *r, bool dry) {
    char text[MODEL_PATH_MAX + 300];
    char experts[16], trunk[16];
    size_text((double)r->experts_bytes, experts);
    size_text((double)r->trunk_bytes, trunk);
    const char *how = r->relaid ? "every value as it is" : "quantised";
    if (r->complete_before) {
        snprintf(text, sizeof text, "%s is packed already.", r->out_dir);
        print_wrapped(stdout, "", text);
        say_next(r);
    } else if (dry) {
        snprintf(text, sizeof text, "%s: %s of experts in %d layers, %s of trunk, %s", r->out_dir,
                 experts, r->layers, trunk, how);
        print_wrapped(stdout, "", text);
        puts("Nothing was written. To do it: the same without --dry-run");
    } else {
        if (r->layers_before)
            printf("%d of %d layers were there from before.\n", r->layers_before, r->layers);
        snprintf(text, sizeof text, "Packed into %s: %s of experts, %s of trunk, %s.", r->out_dir,
                 experts, trunk, how);
        print_wrapped(stdout, "", text);
        say_next(r);
    }
}

static int run(const command *c, const void *args, const arg_list *rest) {
    pack_args a = *(const pack_args *)args;
    if (rest->n > 1) return args_wrong(c->program, "one model at a time");
    if (rest->n == 1) a.model = rest->item[0];
    model_args m = {.model = a.model};
    char dir[MODEL_PATH_MAX];
    fm_options unused;
    if (!model_options(c->program, &m, dir, &unused)) return EXIT_FAILED;
    work_bar bar;
    work_bar_begin(&bar);
    fm_pack_options o;
    fm_pack_options_init(&o);
    o.model_dir = dir;
    o.out_dir = a.out;
    o.bits = a.bits;
    o.group = a.group;
    o.threads = a.threads;
    o.dry_run = a.dry;
    o.progress = work_bar_show;
    o.progress_ctx = &bar;
    fm_pack_report report;
    fm_error e = fm_pack(&o, &report);
    work_bar_end(&bar);
    if (e.code) return fail(c->program, &e);
    say(&report, a.dry);
    return 0;
}

const command command_pack = {
    .name = "pack",
    .program = "flashchat pack",
    .usage = "[MODEL] [options]",
    .summary = "write a model again so that one read brings one expert",
    .details =
        "A model in BF16 is quantised on the way; a quantised one keeps every value. When it\n"
        "is interrupted, the same command goes on where it was.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(pack_args),
    .defaults = &defaults,
    .run = run,
};
