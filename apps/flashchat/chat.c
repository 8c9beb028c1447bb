/* chat.c: flashchat chat: a conversation, line by line.
 *
 * The whole conversation is rendered again for every turn and given to fm_session_sync, which
 * computes only what is new: it goes on from the last border between messages that still agrees.
 * Ctrl-C stops the answer that is being made; what there is of it stays in the conversation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/model.h"
#include "base/json.h"
#include "chat_store.h"
#include "chatml.h"
#include "command.h"
#include "files.h"
#include "generate.h"

#define MESSAGES_MAX 10000

typedef struct chat_args {
    model_args m;
    sampling_args s;
    const char *system;
    const char *id;
    int tokens, think, save; /* save -1: not said */
    bool timing, quiet, resume;
} chat_args;

static const chat_args defaults = {.m = MODEL_DEFAULTS, .s = SAMPLING_DEFAULTS, .save = -1};

static const arg_def defs[] = {
    {NULL, NULL, "The answers", ARG_HEADING, 0, 0, 0},
    {"--tokens", "N", "at most N tokens an answer", ARG_INT, offsetof(chat_args, tokens), 1,
     1 << 24},
    {"--system", "TEXT", "instructions for the whole conversation", ARG_TEXT,
     offsetof(chat_args, system), 0, 0},
    {"--think", NULL, "let the model think before it answers", ARG_SWITCH,
     offsetof(chat_args, think), 0, 0},
    {"--resume", NULL, "go on with the newest conversation", ARG_FLAG, offsetof(chat_args, resume),
     0, 0},
    {"--session", "ID", "go on with this one (flashchat sessions lists them)", ARG_TEXT,
     offsetof(chat_args, id), 0, 0},
    {"--save", NULL, "keep the conversation (usual on a terminal)", ARG_SWITCH,
     offsetof(chat_args, save), 0, 0},
    SAMPLING_ARGS(chat_args),
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},
    MODEL_ARGS(chat_args),
    STREAM_ARGS(chat_args),
    {NULL, NULL, "What is reported", ARG_HEADING, 0, 0, 0},
    {"--timing", NULL, "where the time went, after each answer", ARG_FLAG,
     offsetof(chat_args, timing), 0, 0},
    {"--quiet", NULL, "no figures after the answers", ARG_FLAG, offsetof(chat_args, quiet), 0, 0},
};

/* ---- the conversation --------------------------------------------------- */

typedef struct conversation {
    const command *c;
    const chat_args *a;
    fm_engine *engine;
    fm_session *session;
    chatml_prompt prompt;
    chat_message *messages; /* owned, and each text is */
    int n, capacity;
    /* the answer being made */
    char *answer; /* owned */
    size_t length, room;
    bool terminal, thought_open, no_memory;
    bool keeps; /* after every answer, under id */
    char id[CHAT_ID_MAX];
    int think;
} conversation;

static bool add(conversation *k, const char *role, const char *bytes, size_t length) {
    if (k->n == k->capacity) {
        int wanted = k->capacity ? 2 * k->capacity : 16;
        chat_message *grown = realloc(k->messages, sizeof *grown * (size_t)wanted);
        if (!grown) return false;
        k->messages = grown;
        k->capacity = wanted;
    }
    char *copy = malloc(length + 1);
    if (!copy) return false;
    memcpy(copy, bytes, length);
    k->messages[k->n++] = (chat_message){role, copy, length};
    return true;
}

static void drop_to(conversation *k, int n) {
    while (k->n > n) free((char *)k->messages[--k->n].text);
}

static void keep(conversation *k) {
    fm_model m;
    fm_model_get(k->engine, &m);
    err e = k->keeps ? chat_save(k->id, m.dir, k->messages, k->n, k->session) : err_none();
    if (!e.code) return;
    fprintf(stderr, "%s: the conversation is not kept: %s\n", k->c->program, e.text);
    k->keeps = false;
}

static bool begin(conversation *k) {
    chat_new_id(k->id);
    drop_to(k, 0);
    fm_session_clear(k->session);
    return !k->a->system || add(k, "system", k->a->system, strlen(k->a->system));
}

static void show(void *ctx, bool thought, const char *bytes, size_t length) {
    conversation *k = ctx;
    if (thought && !k->thought_open && k->terminal) fputs("\033[2m", stdout);
    if (!thought && k->thought_open) fputs(k->terminal ? "\033[0m\n" : "\n", stdout);
    k->thought_open = thought;
    fwrite(bytes, 1, length, stdout);
    fflush(stdout);
    if (thought) return;
    if (k->length + length > k->room) {
        size_t wanted = 2 * (k->room + length);
        char *grown = realloc(k->answer, wanted);
        if (!grown) {
            k->no_memory = true;
            return;
        }
        k->answer = grown;
        k->room = wanted;
    }
    memcpy(k->answer + k->length, bytes, length);
    k->length += length;
}

/* Answers the last message. On failure the conversation is as before it. */
static fm_error answer(conversation *k, generation *g, answer_report *r) {
    fm_model m;
    fm_model_get(k->engine, &m);
    fm_stats_reset(k->engine);
    fm_sampler *sampler = NULL;
    fm_error e = chatml_render(k->engine, m.dir, k->messages, k->n, k->think == 1, &k->prompt);
    if (!e.code) e = sampling_open(k->engine, &k->a->s, &sampler);
    fm_sync sync = {.marks = k->prompt.marks, .n_marks = k->prompt.n_marks};
    double start = seconds_now();
    const fm_tokens *t = &k->prompt.tokens;
    if (!e.code) e = fm_session_sync(k->session, t->ids, t->count, &sync, &r->reused);
    r->seconds_to_first = seconds_now() - start;
    r->prompt_tokens = t->count;
    k->length = 0;
    if (!e.code) {
        g->session = k->session;
        g->sampler = sampler;
        g->limit = (size_t)k->a->tokens;
        g->thinking = k->prompt.thinking;
        e = generate(g);
        r->seconds_to_first += g->seconds_first;
    }
    if (k->thought_open) fputs(k->terminal ? "\033[0m\n" : "\n", stdout);
    k->thought_open = false;
    fm_sampler_close(sampler);
    return e;
}

/* One turn; false when the conversation cannot go on. */
static bool turn(conversation *k, const char *line, size_t length) {
    int before = k->n;
    generation g = {.engine = k->engine, .show = show, .ctx = k};
    answer_report r = {.g = &g, .engine = k->engine};
    if (before >= MESSAGES_MAX || !add(k, "user", line, length)) {
        fprintf(stderr, "%s: this conversation is too long; /clear starts a new one\n",
                k->c->program);
        return true;
    }
    interrupt_clear(k->engine);
    fm_error e = answer(k, &g, &r);
    puts("");
    if (e.code == FM_ERR_CANCELLED) { /* while reading the question */
        drop_to(k, before);
        puts("(stopped; the question was not answered)");
    } else if (e.code) {
        drop_to(k, before);
        fail(k->c->program, &e);
        if (e.code == FM_ERR_RANGE) puts("(/clear starts a new conversation)");
    } else {
        if (k->no_memory || !add(k, "assistant", k->length ? k->answer : "", k->length))
            return false;
        if (!strcmp(g.finish, "interrupted")) puts("(stopped)");
        keep(k);
        if (!k->a->quiet) report_print(&r);
        if (k->a->timing) report_timing(k->engine);
    }
    fflush(stdout);
    return true;
}

/* ---- lines -------------------------------------------------------------- */

typedef enum line_kind { LINE_TEXT, LINE_QUIT, LINE_DONE } line_kind;

static const char *const slash_names[] = {"/help",     "/new",    "/clear", "/resume",
                                          "/sessions", "/system", "/think", "/retry",
                                          "/undo",     "/file",   "/save",  "/quit"};

static void slash_help(void) {
    puts("/new            begin a new conversation (so does /clear)\n"
         "/resume [ID]    go on with the newest one, or with this one\n"
         "/sessions       the conversations that were kept\n"
         "/system TEXT    instructions for a new conversation\n"
         "/think on|off   let the model think first\n"
         "/retry          another answer to the last question\n"
         "/undo           take the last question and its answer back\n"
         "/file PATH      ask about the text of a file\n"
         "/save FILE      write the conversation to a file\n"
         "/quit           leave (so does Ctrl-D)\n"
         "Ctrl-C stops an answer. Everything else is said to the model.");
}

/* Replaces the conversation by a kept one. */
static bool resume(conversation *k, const char *id) {
    chat_message *messages;
    int n;
    bool restored;
    char wanted[CHAT_ID_MAX];
    snprintf(wanted, sizeof wanted, "%s", id);
    err e = chat_load(wanted, k->session, &messages, &n, &restored);
    if (e.code) {
        printf("%s\n", e.text);
        return false;
    }
    drop_to(k, 0);
    free(k->messages);
    k->messages = messages;
    k->n = n;
    k->capacity = n + 1;
    snprintf(k->id, sizeof k->id, "%s", wanted);
    if (!restored) fm_session_clear(k->session);
    k->keeps = true;
    printf("Going on with %s, %d messages%s.\n", k->id, n,
           restored ? "" : " (read again at your next question)");
    return true;
}

/* Back to before the last question; its text is the caller's (free), NULL without one. */
static char *take_back(conversation *k) {
    int at = k->n - 1;
    while (at >= 0 && strcmp(k->messages[at].role, "user")) at--;
    if (at < 0) return NULL;
    char *text = malloc(k->messages[at].length + 1);
    if (!text) return NULL;
    memcpy(text, k->messages[at].text, k->messages[at].length);
    text[k->messages[at].length] = '\0';
    drop_to(k, at);
    return text;
}

static void retry(conversation *k) {
    char *text = take_back(k);
    if (!text) {
        puts("Nothing was asked yet.");
        return;
    }
    turn(k, text, strlen(text));
    free(text);
}

static void undo(conversation *k) {
    char *text = take_back(k);
    puts(text ? "The last question and its answer are forgotten." : "Nothing was asked yet.");
    if (text) keep(k);
    free(text);
}

#define FILE_BYTES_MAX ((size_t)4 << 20)

static void ask_about_file(conversation *k, const char *path) {
    char full[PATH_TEXT_MAX], *bytes, line[PATH_TEXT_MAX + 200];
    size_t length;
    err e = path_expand(full, path);
    if (!e.code) e = json_read_text(full, FILE_BYTES_MAX, &bytes, &length);
    if (e.code) {
        printf("%s\n", e.text);
        return;
    }
    printf("What about it? ");
    fflush(stdout);
    char question[2000] = "";
    if (!fgets(question, sizeof question, stdin)) question[0] = '\0';
    int n = snprintf(line, sizeof line, "%s\nThe file %s:\n\n", question, path);
    char *text = malloc((size_t)n + length);
    if (text) {
        memcpy(text, line, (size_t)n);
        memcpy(text + n, bytes, length);
        turn(k, text, (size_t)n + length);
    }
    free(text);
    free(bytes);
}

static void set_system(conversation *k, const char *text) {
    if (!begin(k)) return;
    drop_to(k, 0);
    bool good = !*text || add(k, "system", text, strlen(text));
    puts(good ? "A new conversation with these instructions." : "No memory for that.");
}

static void save_as(conversation *k, const char *path) {
    err e = chat_export(path, k->messages, k->n);
    printf("%s%s\n", e.code ? "" : "Written to ", e.code ? e.text : path);
}

static void unknown_slash(const char *line) {
    const char *near = nearest_name(line, slash_names, sizeof slash_names / sizeof *slash_names);
    if (near) printf("There is no %s. Did you mean %s?\n", line, near);
    if (!near) printf("There is no %s. /help lists what there is.\n", line);
}

/* Lines that begin with / are for us. */
static line_kind slash_command(conversation *k, const char *line) {
    char word[16];
    if (line[0] != '/') return LINE_TEXT;
    size_t n = strcspn(line, " ");
    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), line);
    const char *rest = line + n + strspn(line + n, " ");
    if (!strcmp(word, "/quit") || !strcmp(word, "/exit")) return LINE_QUIT;
    if (!strcmp(word, "/clear") || !strcmp(word, "/new")) {
        if (!begin(k)) return LINE_QUIT;
        puts("A new conversation.");
    } else if (!strcmp(word, "/help")) {
        slash_help();
    } else if (!strcmp(word, "/resume")) {
        resume(k, rest);
    } else if (!strcmp(word, "/sessions")) {
        sessions_show();
    } else if (!strcmp(word, "/system")) {
        set_system(k, rest);
    } else if (!strcmp(word, "/think") && (!strcmp(rest, "on") || !strcmp(rest, "off"))) {
        k->think = !strcmp(rest, "on");
        printf("Thinking is %s from the next answer on.\n", rest);
    } else if (!strcmp(word, "/retry")) {
        retry(k);
    } else if (!strcmp(word, "/undo")) {
        undo(k);
    } else if (!strcmp(word, "/file") && *rest) {
        ask_about_file(k, rest);
    } else if (!strcmp(word, "/save") && *rest) {
        save_as(k, rest);
    } else {
        unknown_slash(line);
    }
    return LINE_DONE;
}

/* The next line without its end; -1 at the end of the input. */
static ssize_t next_line(conversation *k, char **line, size_t *capacity, bool ask) {
    for (;;) {
        interrupt_clear(k->engine);
        if (ask) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        if (ask && interrupt_wait_input()) {
            puts("\n(/quit or Ctrl-D leaves)");
            continue;
        }
        ssize_t n = getline(line, capacity, stdin);
        while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r')) (*line)[--n] = '\0';
        return n;
    }
}

static void converse(conversation *k) {
    bool ask = isatty(0);
    char *line = NULL;
    size_t capacity = 0;
    if (ask) puts("Say something. /help lists the commands, Ctrl-C stops an answer.");
    for (ssize_t n; (n = next_line(k, &line, &capacity, ask)) >= 0;) {
        if (strspn(line, " \t") == strlen(line)) continue;
        line_kind kind = slash_command(k, line);
        if (kind == LINE_QUIT) break;
        if (kind == LINE_TEXT && !turn(k, line, (size_t)n)) {
            fprintf(stderr, "%s: no memory for the conversation\n", k->c->program);
            break;
        }
    }
    free(line);
}

static int run(const command *c, const void *args, const arg_list *rest) {
    const chat_args *a = args;
    if (rest->n)
        return args_wrong(c->program, "\"%s\": chat takes no text; say it in the conversation",
                          rest->item[0]);
    conversation k = {.c = c, .a = a, .terminal = isatty(1), .think = a->think};
    k.keeps = a->save == 1 || (a->save < 0 && isatty(0));
    k.engine = model_open(c->program, &a->m, 1);
    if (!k.engine) return EXIT_FAILED;
    if (a->timing) fm_timing_enable(k.engine, true);
    fm_error e = fm_session_open(k.engine, &k.session);
    int code = e.code ? fail(c->program, &e) : 0;
    if (!code && begin(&k)) {
        interrupt_watch(k.engine);
        bool wanted = a->resume || a->id;
        if (!wanted || resume(&k, a->id ? a->id : ""))
            converse(&k);
        else
            code = EXIT_FAILED;
        interrupt_watch(NULL);
    }
    drop_to(&k, 0);
    free(k.messages);
    free(k.answer);
    chatml_prompt_free(&k.prompt);
    fm_engine_close(k.engine);
    return code;
}

const command command_chat = {
    .name = "chat",
    .program = "flashchat chat",
    .usage = "[options]",
    .summary = "a conversation",
    .details = "Lines are answered one after the other, with the whole conversation in mind.\n"
               "/help inside lists what else can be said. Ctrl-C stops an answer.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(chat_args),
    .defaults = &defaults,
    .run = run,
};
