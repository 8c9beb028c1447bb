/* chat.c: flashchat chat: its options, opening the model, the loop over messages. See chat.h. */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "files.h"
#include "screen.h"

static const chat_args defaults = {.a = ANSWER_DEFAULTS, .save = -1};

#ifdef FM_TEST_BUILD
#define SCRIPT_OPTION                                                                              \
    {                                                                                              \
        "--scripted-reply", "FILE", "test build: answers given beforehand", ARG_TEXT,              \
            offsetof(chat_args, script), 0, 0                                                      \
    }
#else
#define SCRIPT_OPTION                                                                              \
    { NULL, NULL, NULL, ARG_HEADING, 0, 0, 0 }
#endif

static const arg_def defs[] = {
    {NULL, NULL, "The conversation", ARG_HEADING, 0, 0, 0},
    {"--resume", NULL, "go on with the newest conversation", ARG_FLAG, offsetof(chat_args, resume),
     0, 0},
    {"--session", "ID", "go on with this one (flashchat sessions lists them)", ARG_TEXT,
     offsetof(chat_args, id), 0, 0},
    {"--save", NULL, "keep the conversation (usual on a terminal)", ARG_SWITCH,
     offsetof(chat_args, save), 0, 0},
    {"--tools", NULL, "let the model ask for commands and files (off)", ARG_SWITCH,
     offsetof(chat_args, tools), 0, 0},
    {"--thinking", "HOW", "what is shown of thoughts: dim, fold, hide", ARG_TEXT,
     offsetof(chat_args, thinking), 0, 0},
    {"--color", "WHEN", "auto, on, off", ARG_TEXT, offsetof(chat_args, colour), 0, 0},
    {NULL, NULL, "The answers", ARG_HEADING, 0, 0, 0},
    ANSWER_ARGS,
    SCRIPT_OPTION,
};

/* ---- the model ---- */

static fm_error open_parts(conversation *k, const fm_options *o) {
    fm_error e = fm_chat_open(o->model_dir, &k->chat);
    if (e.code == FM_ERR_NOT_FOUND) {
        size_t n = strlen(e.text);
        snprintf(e.text + n, sizeof e.text - n,
                 "; flashchat prompt --raw continues text with such a model");
    }
    if (!e.code) e = fm_engine_open(o, &k->engine);
    if (!e.code) e = fm_session_open(k->engine, &k->session);
    return e;
}

static void close_model(conversation *k) {
    interrupt_watch(NULL);
    fm_engine_close(k->engine);
    fm_chat_close(k->chat);
    k->engine = NULL;
    k->chat = NULL;
    k->session = NULL;
}

static bool open_dir(conversation *k, const model_args *m) {
    fm_options o;
    char dir[MODEL_PATH_MAX];
    if (!model_options(k->c->program, m, dir, &o)) return false;
    o.sessions = 1;
    o.progress = view_progress;
    o.progress_ctx = k->view;
    fm_error e = open_parts(k, &o);
    view_end(k->view);
    if (e.code) {
        fail(k->c->program, &e);
        close_model(k);
        return false;
    }
    snprintf(k->dir, sizeof k->dir, "%s", dir);
    if (k->args->a.timing) fm_timing_enable(k->engine, true);
    interrupt_watch(k->engine);
    return true;
}

bool chat_open_model(conversation *k, const model_args *m) {
    char before[MODEL_PATH_MAX];
    snprintf(before, sizeof before, "%s", k->dir);
    close_model(k);
    k->exact = 0;
    k->mark = (kept_mark){.pending = -1};
    k->last = (answer_report){0};
    if (open_dir(k, m)) return true;
    model_args old = k->args->a.m;
    old.model = before;
    if (open_dir(k, &old)) return false;
    k->leaving = true;
    return false;
}

/* ---- the loop ---- */

static const char *prompt_of(const conversation *k) {
    if (!screen_has_colours()) return k->attached ? "[file] > " : "> ";
    return k->attached ? "\1\033[2m\1[file]\1\033[0m\1 \1\033[1m\1>\1\033[0m\1 "
                       : "\1\033[1m\1>\1\033[0m\1 ";
}

static bool is_empty(const char *text) { return strspn(text, " \t\n") == strlen(text); }

static void converse(conversation *k) {
    bool pressed = false; /* Ctrl-C, once */
    interrupt_clear(k->engine);
    while (!k->leaving) {
        char *text;
        line_result got = line_read(k->line, prompt_of(k), &text);
        if (got == LINE_END || (got == LINE_INTERRUPT && pressed)) break;
        interrupt_clear(k->engine); /* one that comes from here on is seen by the next line_read */
        if (got == LINE_INTERRUPT) view_note("(Ctrl-C again, /quit or Ctrl-D leaves)");
        pressed = got == LINE_INTERRUPT;
        if (got != LINE_OK) continue;
        if (text[0] == '/') {
            chat_command(k, text);
        } else if (!is_empty(text)) {
            chat_ask(k, text);
            pressed = interrupted();
        }
        interrupt_clear(k->engine);
        free(text);
        if (view_mode_of(k->view) != VIEW_RAW) puts("");
    }
}

static void greet(const conversation *k) {
    fm_model m;
    fm_model_get(k->engine, &m);
    const char *slash = strrchr(k->dir, '/');
    if (!isatty(STDIN_FILENO)) return;
    view_note("%s, %d tokens of context. /help lists the commands, Ctrl-C stops an answer.",
              slash && slash[1] ? slash + 1 : k->dir, m.context);
    puts("");
}

/* ---- opening ---- */

static bool open_screen(conversation *k) {
    char path[PATH_TEXT_MAX] = "";
    settings *c;
    const char *term = getenv("TERM");
    k->view = view_open();
    screen_colours(k->args->colour ? k->args->colour : "auto");
    view_thinking t;
    if (k->view && k->args->thinking && view_thinking_parse(k->args->thinking, &t))
        view_thinking_set(k->view, t);
    err e = settings_open(NULL, &c);
    if (!e.code) {
        e = dir_make(settings_dir(c), 0700);
        if (!e.code) e = path_join(path, settings_dir(c), "history");
        settings_close(c);
    }
    bool plain = !isatty(STDOUT_FILENO) || !term || !*term || !strcmp(term, "dumb");
    k->line = line_open(e.code ? NULL : path, chat_command_names, n_chat_command_names, plain);
    k->messages = json_array();
    return k->view && k->line && k->messages;
}

static bool read_script(conversation *k) {
    json_error_t where;
    if (!k->args->script) return true;
    k->script = json_load_file(k->args->script, 0, &where);
    if (!k->script) fprintf(stderr, "%s: line %d: %s\n", k->args->script, where.line, where.text);
    return k->script != NULL;
}

static int check_words(const command *c, const chat_args *a, const arg_list *rest) {
    view_thinking t;
    if (rest->n)
        return args_wrong(c->program, "\"%s\": chat takes no text; say it in the conversation",
                          rest->item[0]);
    if (a->thinking && !view_thinking_parse(a->thinking, &t))
        return args_wrong(c->program, "--thinking must be dim, fold or hide");
    if (a->colour && strcmp(a->colour, "auto") && strcmp(a->colour, "on") &&
        strcmp(a->colour, "off"))
        return args_wrong(c->program, "--color must be auto, on or off");
    return 0;
}

static void close_all(conversation *k) {
    if (k->engine) close_model(k);
    line_close(k->line);
    view_close(k->view);
    tools_close(k->tools);
    json_decref(k->messages);
    json_decref(k->script);
    free(k->system);
    free(k->attached);
    free(k->unanswered);
    free(k->made.message);
}

static int run(const command *c, const void *args, const arg_list *rest) {
    const chat_args *a = args;
    conversation k = {.c = c, .args = a, .thinks = a->a.think == 1};
    int code = check_words(c, a, rest);
    if (code) return code;
    k.keeps = a->save == 1 || (a->save < 0 && isatty(STDIN_FILENO));
    if (!open_screen(&k) || !read_script(&k) || !open_dir(&k, &a->a.m)) {
        close_all(&k);
        return EXIT_FAILED;
    }
    if (a->a.system) k.system = strdup(a->a.system);
    chat_begin(&k);
    bool good = true;
    if (a->tools == 1) {
        err e = tools_open(".", &k.tools);
        k.tools_on = good = !e.code;
        if (e.code) fprintf(stderr, "%s: %s\n", c->program, e.text);
    }
    if (good && (a->resume || a->id)) good = chat_resume(&k, a->id ? a->id : "");
    if (good) {
        if (!a->resume && !a->id) greet(&k);
        converse(&k);
        if (k.engine) chat_keep(&k, true);
    }
    close_all(&k);
    return good ? 0 : EXIT_FAILED;
}

const command command_chat = {
    .name = "chat",
    .program = "flashchat chat",
    .usage = "[options]",
    .summary = "a conversation",
    .details =
        "Every message is answered with the whole conversation in mind. /help inside lists\n"
        "what else there is. Ctrl-C stops an answer, twice leaves. In a pipe every line is a\n"
        "message and standard output is the answers as the model writes them.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(chat_args),
    .defaults = &defaults,
    .run = run,
};
