/* product.c: what the commands of product.h begin and end with. */
#include "product.h"

#include <stdio.h>
#include <string.h>

#include "chat_store.h"
#include "screen.h"

int product_fail(const char *command, err e) {
    char text[ERR_TEXT_MAX + 100];
    snprintf(text, sizeof text, "flashchat %s: %s", command, e.text);
    say_error(text);
    return 1;
}

static void drop(int *argc, char **argv, int i, int words) {
    for (int k = i; k + words <= *argc; k++) argv[k] = argv[k + words];
    *argc -= words;
}

bool take_word(int *argc, char **argv, const char *word) {
    for (int i = 1; i < *argc && strcmp(argv[i], "--"); i++) {
        if (strcmp(argv[i], word)) continue;
        drop(argc, argv, i, 1);
        return true;
    }
    return false;
}

const char *take_value(int *argc, char **argv, const char *name) {
    size_t n = strlen(name);
    for (int i = 1; i < *argc && strcmp(argv[i], "--"); i++) {
        if (!strncmp(argv[i], name, n) && argv[i][n] == '=') {
            const char *value = argv[i] + n + 1;
            drop(argc, argv, i, 1);
            return value;
        }
        if (strcmp(argv[i], name) || i + 1 >= *argc) continue;
        const char *value = argv[i + 1];
        drop(argc, argv, i, 2);
        return value;
    }
    return NULL;
}

static bool refuse_problems(const settings *c, const char *command) {
    if (settings_blocked(c))
        fprintf(stderr, "flashchat %s: the settings do not make sense yet:\n", command);
    for (int i = 0; i < settings_problems(c); i++)
        fprintf(stderr, "  ! %s\n", settings_problem(c, i));
    if (settings_blocked(c))
        fprintf(stderr, "Mend them in a text editor, or with: flashchat config\n");
    return settings_blocked(c);
}

static bool open_all(product *p, const char *command, int *rc) {
    if (refuse_problems(p->c, command)) return product_close(p), false;
    err e = models_load(p->c, &p->models);
    if (e.code) {
        *rc = product_fail(command, e);
        return product_close(p), false;
    }
    if (p->models.problem[0])
        fprintf(stderr, "flashchat %s: left out of your models: %s\n", command, p->models.problem);
    *rc = 0;
    return true;
}

bool product_open_plain(product *p, const char *command, int *argc, char **argv, int *rc) {
    memset(p, 0, sizeof *p);
    *rc = 2;
    const char *file = take_value(argc, argv, "--config");
    err e = settings_open(file, &p->c);
    if (e.code) return product_fail(command, e), false;
    return open_all(p, command, rc);
}

bool product_open(product *p, const char *command, int *argc, char **argv, int *rc) {
    memset(p, 0, sizeof *p);
    *rc = 2;
    err e = settings_open_args(argc, argv, &p->c);
    if (e.code) return product_fail(command, e), false;
    screen_colours(settings_text(p->c, CONFIG_COLOR_OUTPUT));
    if (!open_all(p, command, rc)) return false;
    e = model_apply_profile(p->c, models_find(&p->models, settings_text(p->c, CONFIG_MODEL)));
    if (!e.code) return true;
    *rc = 2;
    product_fail(command, e);
    return product_close(p), false;
}

void product_close(product *p) {
    models_free(&p->models);
    settings_close(p->c);
    p->c = NULL;
}

const product_command product_commands[] = {
    {"config", "[explain|get|set|unset|undo] [KEY] [VALUE]", "look at the settings and change them",
     "Without words: step by step, with what each choice costs on this machine.\n"
     "  explain [KEY]   every value, where it comes from, what it means\n"
     "  get KEY, set KEY VALUE, unset KEY, undo\n"
     "  --reset         all settings as on the first day\n"
     "  --full-reset    also sessions, history, own models, logs (moved aside)\n"
     "  --config FILE   another settings file (any command takes this)\n",
     command_config},
    {"models", "[NAME] [--json]", "which models there are, what they need, what fits", NULL,
     command_models},
    {"add-model", "ORG/REPOSITORY [--name NAME] [--revision REV]",
     "make a model of the hub known by name",
     "Only its description is fetched; models that cannot run are refused with the reason.\n",
     command_add_model},
    {"download", "NAME|ORG/REPOSITORY [--yes]", "get a model from the hub",
     "Asks once, with sizes and times; --yes agrees beforehand. Goes on where it was stopped.\n"
     "  --revision REV, --connections N, --all-files\n"
     "HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_CACHE are obeyed.\n",
     command_download},
    {"manage", "[--list] [--repair NAME] [--delete NAME [--part PART]]", "look after model files",
     "Without words: a menu. What can lose something wants the model's name typed.\n"
     "  --repair NAME   reads all files; damaged ones are fetched again\n"
     "  --delete NAME   with --part runtime|originals|packed|all\n",
     command_manage},
    {"offload", "NAME [--part PART] [--keep]", "put a model into the archive, free it here",
     "The archive is the folder OFFLOAD_DIR. Each file is removed here only after its copy was "
     "read\n"
     "back; --keep removes nothing. --part originals frees the published weights only.\n",
     command_offload},
    {"restore", "NAME [--part PART]", "bring a model back from the archive", NULL, command_restore},
    {"verify", "NAME [--deep] [--archive]", "check a model's files",
     "Quick: all are there. --deep reads every byte. --archive checks the archive's copy.\n",
     product_verify},
    {"sessions", "[--delete ID] [--export ID [FILE]] [--json]", "conversations that were kept",
     "Go on with one: flashchat chat --session ID; with the newest: flashchat chat --resume\n",
     command_sessions},
    {"opencode", "[words for opencode]",
     "the coding agent OpenCode, with the model of this machine",
     "Starts the server if none is running, shows what OpenCode's settings need and writes it if "
     "you\nsay so, then becomes opencode in the folder you are in. All words are passed on: "
     "flashchat\nopencode run \"fix the tests\".\n",
     command_opencode},
    {"status", "[--json]", "server, model, memory at a glance", NULL, command_status},
    {"doctor", "[--json] [--no-measure] [--report]", "check this machine, and what to do about it",
     NULL, command_doctor},
    {"uninstall", "[--yes]", "take flashchat off this machine",
     "Says what goes and what stays, then asks. Models stay unless their names are typed.\n",
     command_uninstall},
    {"version", "", "versions of flashchat and its libraries", NULL, command_version},
    {"completion", "bash|zsh|fish", "command completion for your shell",
     "bash: source <(flashchat completion bash)\n", command_completion},
    {"man", "", "the manual page, for man(1)", "flashchat man | man -l -\n", command_man},
};
const int n_product_commands = (int)(sizeof product_commands / sizeof *product_commands);
