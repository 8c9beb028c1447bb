/* config_command.c: `flashchat config`: look at the settings, change them, take a change back.
 *
 * Every change goes through the same steps: check the value, show what the file will say, write it
 * atomically, keep the version before for `config undo`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "config_wizard.h"
#include "files.h"
#include "product.h"
#include "screen.h"

static int fail(err e) {
    fprintf(stderr, "flashchat config: %s\n", e.text);
    return 1;
}

static int usage(const char *what) {
    fprintf(stderr,
            "flashchat config: %s\n"
            "Try: flashchat config                   look and change, step by step\n"
            "     flashchat config explain [KEY]     every value and where it comes from\n"
            "     flashchat config get KEY\n"
            "     flashchat config set KEY VALUE\n"
            "     flashchat config unset KEY         back to what it is by itself\n"
            "     flashchat config undo              take the last change back\n"
            "     flashchat config --reset           all settings as on the first day\n"
            "     flashchat config --full-reset      also sessions, history, own models, logs\n",
            what);
    return 2;
}

static int show_problems(const settings *c) {
    for (int i = 0; i < settings_problems(c); i++)
        print_wrapped(stderr, "  ! ", settings_problem(c, i));
    return settings_problems(c);
}

/* ---- explain ---- */

static void explain_one(const settings *c, config_id id) {
    const config_row *row = &config_rows[id];
    char origin[PATH_TEXT_MAX + 64], accepts[256], line[512];
    settings_origin_text(c, id, origin, sizeof origin);
    printf("%s%s%s = \"%s\"\n", style(STYLE_BOLD), row->name, STYLE_END, settings_text(c, id));
    print_wrapped(stdout, "  from     ", origin);
    print_wrapped(stdout, "  what     ", row->meaning);
    config_accepts(row, accepts, sizeof accepts);
    print_wrapped(stdout, "  accepts  ", accepts);
    print_wrapped(stdout, "  affects  ", row->affects);
    if (row->flag)
        snprintf(line, sizeof line, "flashchat config set %s VALUE, FLASHCHAT_%s, or %s", row->name,
                 row->name, row->flag);
    else
        snprintf(line, sizeof line, "flashchat config set %s VALUE, or FLASHCHAT_%s", row->name,
                 row->name);
    print_wrapped(stdout, "  change   ", line);
    if (row->marks & CONFIG_RESTART)
        print_wrapped(stdout, "  note     ", "a running server restarts before its next use");
}

static int explain_all(const settings *c) {
    for (int g = 0; g < GROUP_COUNT; g++) {
        printf("%s%s%s\n", style(STYLE_BOLD), config_group_names[g], STYLE_END);
        for (int i = 0; i < CONFIG_COUNT; i++) {
            if ((int)config_rows[i].group != g) continue;
            char origin[PATH_TEXT_MAX + 64], first[200], text[PATH_TEXT_MAX + 300];
            settings_origin_text(c, (config_id)i, origin, sizeof origin);
            snprintf(first, sizeof first, "  %s = \"%.100s\"  ", config_rows[i].name,
                     settings_text(c, (config_id)i));
            bool wide = text_width(first) + 20 <= screen_width();
            snprintf(text, sizeof text, "%s (%s)", config_rows[i].title, origin);
            if (!wide) printf("%.*s\n", (int)strlen(first) - 2, first);
            print_wrapped(stdout, wide ? first : "      ", text);
        }
    }
    printf("\n");
    print_wrapped(stdout, "",
                  "One setting in full: flashchat config explain KEY. Change one: flashchat "
                  "config set KEY VALUE. Step by step: flashchat config.");
    return settings_problems(c) ? 1 : 0;
}

static int explain(const settings *c, const char *key) {
    if (!key) return explain_all(c);
    int id = config_find(key);
    if (id < 0) {
        const char *near = config_nearest(key);
        fprintf(stderr, "flashchat config: there is no setting %s%s%s\n", key,
                near ? "; did you mean " : "; see `flashchat config explain`", near ? near : "");
        return 2;
    }
    explain_one(c, (config_id)id);
    return 0;
}

/* ---- get, set, unset, undo ---- */

static int find_or_complain(const char *key) {
    int id = config_find(key);
    if (id >= 0) return id;
    const char *near = config_nearest(key);
    fprintf(stderr, "flashchat config: there is no setting %s%s%s\n", key,
            near ? "; did you mean " : "; see `flashchat config explain`", near ? near : "");
    return -1;
}

static int change(settings *c, const char *key, const char *value) {
    int id = find_or_complain(key);
    if (id < 0) return 2;
    const char *before = settings_layer(c, ORIGIN_FILE, (config_id)id);
    settings_change one = {(config_id)id, value};
    err e = settings_save(settings_file(c), &one, 1);
    if (e.code) return fail(e);
    char said[2 * PATH_TEXT_MAX + 200];
    snprintf(said, sizeof said, "%s: was %s%s%s, is now %s%s%s in %s", config_rows[id].name,
             before ? "\"" : "", before ? before : "not set", before ? "\"" : "", value ? "\"" : "",
             value ? value : "not set", value ? "\"" : "", settings_file(c));
    print_wrapped(stdout, "", said);
    if (settings_origin_of(c, (config_id)id) > ORIGIN_FILE) {
        char origin[PATH_TEXT_MAX + 64], text[PATH_TEXT_MAX + 200];
        settings_origin_text(c, (config_id)id, origin, sizeof origin);
        snprintf(text, sizeof text, "%s still wins over the file: \"%s\".", origin,
                 settings_text(c, (config_id)id));
        print_wrapped(stdout, "Note: ", text);
    }
    printf("To take it back: flashchat config undo\n");
    return 0;
}

/* ---- reset ---- */

static int reset(settings *c) {
    err e = settings_clear(settings_file(c));
    if (e.code) return fail(e);
    printf("All settings are as on the first day. To take it back: flashchat config undo\n");
    return 0;
}

/* Nothing is deleted: the whole folder moves aside. */
static int full_reset(settings *c, bool yes) {
    const char *dir = settings_dir(c);
    char aside[PATH_TEXT_MAX + 40], when[32], answer[64];
    if (!dir_exists(dir)) {
        printf("There is nothing to reset: %s does not exist.\n", dir);
        return 0;
    }
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(when, sizeof when, "%Y%m%d-%H%M%S", &local);
    snprintf(aside, sizeof aside, "%s.before-%s", dir, when);
    print_wrapped(stdout, "",
                  "This starts flashchat anew: settings, sessions, history, your own models "
                  "list and logs. Downloaded models stay where they are.");
    printf("  %s\n  moves to %s\n", dir, aside);
    if (!yes) {
        if (!ask_line("Type reset to go on: ", answer, sizeof answer) || strcmp(answer, "reset")) {
            printf("User cancelled: nothing was changed.\n");
            return 1;
        }
    }
    if (rename(dir, aside) != 0) return fail(err_system(2, "cannot move %s", dir));
    printf("Done. Delete %s when you are sure that you do not need it.\n", aside);
    return 0;
}

/* ---- documentation ---- */

static void markdown_row(const config_row *row) {
    char accepts[256];
    config_accepts(row, accepts, sizeof accepts);
    printf("### %s\n\n%s. %s\n\n", row->name, row->title, row->meaning);
    printf(
        "| accepts | built in | affects | flag | environment |\n| --- | --- | --- | --- | --- |\n");
    printf("| %s | `\"%s\"` | %s | %s%s%s | `FLASHCHAT_%s` |\n\n", accepts, row->fallback,
           row->affects, row->flag ? "`" : "", row->flag ? row->flag : "-", row->flag ? "`" : "",
           row->name);
    if (row->marks & CONFIG_RESTART)
        printf("A running server restarts before its next use when this changes.\n\n");
}

static int markdown(void) {
    printf(
        "<!-- Generated by `flashchat config docs` from apps/flashchat/config_table.c. -->\n"
        "# Settings\n\n"
        "The settings file is `~/.config/flashchat/config` (`$XDG_CONFIG_HOME/flashchat/config` "
        "where "
        "that is set):\nlines `KEY=\"value\"` and `#` comments, read and never executed. A line "
        "that "
        "makes no sense is reported with its\nnumber and stops every command but `flashchat "
        "config`.\n\n"
        "Which value counts: a flag on the command line, else the variable `FLASHCHAT_KEY`, else "
        "the "
        "file, else what the\nmodel's registry entry recommends, else what is built in. `flashchat "
        "config explain` shows each value and where\nit comes from; `--config FILE` uses another "
        "file.\n\n");
    for (int g = 0; g < GROUP_COUNT; g++) {
        printf("## %s\n\n", config_group_names[g]);
        for (int i = 0; i < CONFIG_COUNT; i++)
            if ((int)config_rows[i].group == g) markdown_row(&config_rows[i]);
    }
    return 0;
}

/* ---- the command ---- */

static int run(settings *c, int argc, char **argv) {
    bool yes = take_word(&argc, argv, "--yes");
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return config_wizard(c);
    if (!strcmp(word, "--reset") && argc == 2) return reset(c);
    if (!strcmp(word, "--full-reset") && argc == 2) return full_reset(c, yes);
    if (!strcmp(word, "explain") && argc <= 3) return explain(c, argc == 3 ? argv[2] : NULL);
    if (!strcmp(word, "path") && argc == 2) return printf("%s\n", settings_file(c)) < 0;
    if (!strcmp(word, "docs") && argc == 2) return markdown();
    if (!strcmp(word, "get") && argc == 3) {
        int id = find_or_complain(argv[2]);
        if (id >= 0) printf("%s\n", settings_text(c, (config_id)id));
        return id < 0 ? 2 : 0;
    }
    if (!strcmp(word, "set") && argc == 4) return change(c, argv[2], argv[3]);
    if (!strcmp(word, "unset") && argc == 3) return change(c, argv[2], NULL);
    if (!strcmp(word, "undo") && argc == 2) {
        err e = settings_undo(settings_file(c));
        if (e.code) return fail(e);
        printf("The last change is taken back. Once more: flashchat config undo\n");
        return 0;
    }
    char what[200];
    snprintf(what, sizeof what, "\"%.60s\" is not something it does, or has too few or many words",
             word);
    return usage(what);
}

/* The values that the model recommends, for `explain`. Not worth failing for: `config` must work.
 */
static void apply_registry(settings *c) {
    model_list models;
    err e = models_load(c, &models);
    if (!e.code) e = model_apply_profile(c, models_find(&models, settings_text(c, CONFIG_MODEL)));
    if (e.code) print_wrapped(stderr, "  ! ", e.text);
    models_free(&models);
}

int command_config(int argc, char **argv) {
    settings *c;
    err e = settings_open_args(&argc, argv, &c);
    if (e.code) return fail(e);
    screen_colours(settings_text(c, CONFIG_COLOR_OUTPUT));
    if (show_problems(c)) fprintf(stderr, "\n");
    apply_registry(c);
    int rc = run(c, argc, argv);
    settings_close(c);
    return rc;
}
