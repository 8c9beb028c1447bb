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
#include "chatml.h"
#include "command.h"
#include "generate.h"

#define MESSAGES_MAX 10000

typedef struct chat_args {
    model_args m;
    sampling_args s;
    const char *system;
    int tokens, think;
    bool timing, quiet;
} chat_args;

static const chat_args defaults = {.s = SAMPLING_DEFAULTS};

static const arg_def defs[] = {
    {NULL, NULL, "The answers", ARG_HEADING, 0, 0, 0},
    {"--tokens", "N", "at most N tokens an answer", ARG_INT, offsetof(chat_args, tokens), 1,
     1 << 24},
    {"--system", "TEXT", "instructions for the whole conversation", ARG_TEXT,
     offsetof(chat_args, system), 0, 0},
    {"--think", NULL, "let the model think before it answers", ARG_SWITCH,
     offsetof(chat_args, think), 0, 0},
    SAMPLING_ARGS(chat_args),
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},
    MODEL_ARGS(chat_args),
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

static bool begin(conversation *k) {
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
    fm_error e = chatml_render(k->engine, m.dir, k->messages, k->n, k->a->think == 1, &k->prompt);
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
        if (!k->a->quiet) report_print(&r);
        if (k->a->timing) report_timing(k->engine);
    }
    fflush(stdout);
    return true;
}

/* ---- lines -------------------------------------------------------------- */

typedef enum line_kind { LINE_TEXT, LINE_QUIT, LINE_DONE } line_kind;

/* Lines that begin with / are for us. */
static line_kind slash_command(conversation *k, const char *line) {
    static const char *const names[] = {"/quit", "/clear", "/help"};
    if (line[0] != '/') return LINE_TEXT;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) return LINE_QUIT;
    if (!strcmp(line, "/clear")) {
        if (!begin(k)) return LINE_QUIT;
        puts("A new conversation.");
    } else if (!strcmp(line, "/help")) {
        puts("/clear  forget this conversation and begin a new one\n"
             "/quit   leave (so does Ctrl-D)\n"
             "/help   this list\n"
             "Ctrl-C  stops an answer\n"
             "Everything else is said to the model.");
    } else {
        const char *near = nearest_name(line, names, 3);
        if (near) printf("There is no %s. Did you mean %s?\n", line, near);
        if (!near) printf("There is no %s. /help lists what there is.\n", line);
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
    conversation k = {.c = c, .a = a, .terminal = isatty(1)};
    k.engine = model_open(c->program, &a->m, 1);
    if (!k.engine) return EXIT_FAILED;
    if (a->timing) fm_timing_enable(k.engine, true);
    fm_error e = fm_session_open(k.engine, &k.session);
    int code = e.code ? fail(c->program, &e) : 0;
    if (!code && begin(&k)) {
        interrupt_watch(k.engine);
        converse(&k);
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
