/* manual.c: what is made from the tables of commands and settings: the manual page and the
 * completions of shells. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "flashmoe.h"
#include "product.h"

/* ---- manual page ---- */

/* roff takes a leading dot or quote for a command and backslashes for escapes. */
static void roff(const char *text) {
    bool at_start = true;
    for (const char *p = text; *p; p++) {
        if (at_start && (*p == '.' || *p == '\'')) printf("\\&");
        if (*p == '\\')
            printf("\\e");
        else if (*p == '-')
            printf("\\-");
        else
            putchar(*p);
        at_start = *p == '\n';
    }
}

static void roff_command(const char *name, const char *usage, const char *summary,
                         const char *details) {
    printf(".SS \"");
    roff(name);
    printf(" ");
    for (const char *p = usage; *p; p++) printf(*p == '"' ? "\\(dq" : "%c", *p);
    printf("\"\n");
    roff(summary);
    printf(".\n");
    if (details) {
        printf(".PP\n.nf\n");
        roff(details);
        printf(".fi\n");
    }
}

static void roff_options(const command *c) {
    for (int i = 0; i < c->n_args; i++) {
        const arg_def *a = &c->args[i];
        if (!a->name || !a->help) continue;
        printf(".TP\n\\fB");
        roff(a->name);
        printf("\\fR %s\n", a->value ? a->value : "");
        roff(a->help);
        printf("\n");
    }
}

static void roff_settings(void) {
    printf(".SH SETTINGS\n");
    for (int i = 0; i < CONFIG_COUNT; i++) {
        char accepts[256];
        const config_row *row = &config_rows[i];
        config_accepts(row, accepts, sizeof accepts);
        printf(".TP\n\\fB%s\\fR (", row->name);
        roff(accepts);
        printf("; built in: \\(dq%s\\(dq)\n", row->fallback);
        roff(row->meaning);
        printf("\n");
    }
}

int command_man(int argc, char **argv) {
    (void)argc, (void)argv;
    printf(".TH FLASHCHAT 1 \"\" \"flashchat %s\" \"\"\n.SH NAME\nflashchat \\- talk with language "
           "models larger than "
           "memory\n.SH SYNOPSIS\n.B flashchat\n[COMMAND [options]]\n.SH DESCRIPTION\nRuns "
           "Mixture-of-Experts models "
           "whose experts stay on the drive and are read as they are needed. Without a command: a "
           "menu.\n"
           ".SH COMMANDS\n",
           FM_VERSION);
    for (int i = 0; i < n_table_commands; i++) {
        const command *c = table_commands[i];
        roff_command(c->name, c->usage, c->summary, c->details);
        roff_options(c);
    }
    for (int i = 0; i < n_product_commands; i++) {
        const product_command *c = &product_commands[i];
        roff_command(c->name, c->usage, c->summary, c->details);
    }
    roff_settings();
    printf(".SH FILES\n.TP\n~/.config/flashchat/config\nSettings: KEY=\\(dqvalue\\(dq lines, read "
           "and never executed.\n"
           ".TP\n~/.config/flashchat/models.d\nModels of your "
           "own.\n.TP\n~/.cache/huggingface/hub\nDownloaded models.\n"
           ".SH EXIT STATUS\n0 done, 1 it did not work, 2 it was not understood, 130 stopped by "
           "Ctrl\\-C.\n");
    return 0;
}

/* ---- completions ---- */

static void command_names(const char *between) {
    for (int i = 0; i < n_table_commands; i++)
        printf("%s%s", i ? between : "", table_commands[i]->name);
    for (int i = 0; i < n_product_commands; i++) printf("%s%s", between, product_commands[i].name);
}

static void flags(void) {
    for (int i = 0; i < CONFIG_COUNT; i++)
        if (config_rows[i].flag) printf(" %s", config_rows[i].flag);
}

static void keys(void) {
    for (int i = 0; i < CONFIG_COUNT; i++) printf(" %s", config_rows[i].name);
}

#define TAKES_MODEL "download|offload|restore|verify|models|plan"

static void bash(void) {
    printf("_flashchat() {\n    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} "
           "before=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    COMPREPLY=()\n    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen "
           "-W '");
    command_names(" ");
    printf("' -- \"$word\"))\n        return\n    fi\n    case $before in\n    --model)\n"
           "        COMPREPLY=($(compgen -W \"$(flashchat models --json 2>/dev/null | sed -n "
           "'s/.*\"id\": \"\\(.*\\)\",/\\1/p')\""
           " -- \"$word\") $(compgen -d -- \"$word\"))\n        return ;;\n    "
           "get|set|unset|explain)\n"
           "        [ \"$command\" = config ] && COMPREPLY=($(compgen -W '");
    keys();
    printf("' -- \"$word\")) && return ;;\n    esac\n    case $word in\n    -*) "
           "COMPREPLY=($(compgen -W '--help --config");
    flags();
    printf("' -- \"$word\")); return ;;\n    esac\n    case $command in\n    config) "
           "COMPREPLY=($(compgen -W 'explain get set "
           "unset undo --reset --full-reset' -- \"$word\")) ;;\n    completion) "
           "COMPREPLY=($(compgen -W 'bash zsh fish' -- "
           "\"$word\")) ;;\n    " TAKES_MODEL
           ") COMPREPLY=($(compgen -W \"$(flashchat models --json 2>/dev/null | sed -n "
           "'s/.*\"id\": \"\\(.*\\)\",/\\1/p')\" -- \"$word\")) ;;\n    esac\n}\ncomplete -F "
           "_flashchat flashchat\n");
}

static void zsh(void) {
    printf("#compdef flashchat\n_flashchat() {\n    local -a commands\n    commands=(\n");
    for (int i = 0; i < n_table_commands; i++)
        printf("        '%s:%s'\n", table_commands[i]->name, table_commands[i]->summary);
    for (int i = 0; i < n_product_commands; i++)
        printf("        '%s:%s'\n", product_commands[i].name, product_commands[i].summary);
    printf("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n    elif "
           "[[ $words[2] == config ]]; "
           "then\n        compadd explain get set unset undo --reset --full-reset");
    keys();
    printf("\n    else\n        compadd -- --help --config");
    flags();
    printf("\n        [[ $words[2] == (" TAKES_MODEL
           ") ]] && compadd $(flashchat models --json 2>/dev/null | sed -n "
           "'s/.*\"id\": \"\\(.*\\)\",/\\1/p')\n        _files\n    fi\n}\ncompdef _flashchat "
           "flashchat\n");
}

static void fish(void) {
    for (int i = 0; i < n_table_commands; i++)
        printf("complete -c flashchat -f -n __fish_use_subcommand -a %s -d '%s'\n",
               table_commands[i]->name, table_commands[i]->summary);
    for (int i = 0; i < n_product_commands; i++)
        printf("complete -c flashchat -f -n __fish_use_subcommand -a %s -d '%s'\n",
               product_commands[i].name, product_commands[i].summary);
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const config_row *row = &config_rows[i];
        if (row->flag) printf("complete -c flashchat -l %s -d '%s'\n", row->flag + 2, row->title);
        printf("complete -c flashchat -f -n '__fish_seen_subcommand_from config' -a %s -d '%s'\n",
               row->name, row->title);
    }
}

int command_completion(int argc, char **argv) {
    const char *shell = argc == 2 ? argv[1] : "";
    if (!strcmp(shell, "bash")) return bash(), 0;
    if (!strcmp(shell, "zsh")) return zsh(), 0;
    if (!strcmp(shell, "fish")) return fish(), 0;
    fprintf(
        stderr,
        "flashchat completion: for which shell? Try: flashchat completion bash (or zsh, fish)\n");
    return 2;
}
