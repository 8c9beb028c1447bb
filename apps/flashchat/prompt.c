/* prompt.c: flashchat prompt: one question, one answer, streamed to standard output as it is made.
 * What is not the answer (thoughts, the footer, messages) goes to standard error, so that the
 * answer can be piped. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/model.h"
#include "command.h"
#include "generate.h"

#define TEXT_MAX ((size_t)256 << 20) /* bytes of one question */

typedef struct prompt_args {
    answer_args a;
    bool raw, json;
} prompt_args;

static const prompt_args defaults = {.a = ANSWER_DEFAULTS};

static const arg_def defs[] = {
    {NULL, NULL, "The answer", ARG_HEADING, 0, 0, 0},
    ANSWER_ARGS,
    {"--json", NULL, "one JSON object with the answer and all figures", ARG_FLAG,
     offsetof(prompt_args, json), 0, 0},
    {NULL, NULL, "The question", ARG_HEADING, 0, 0, 0},
    {"--raw", NULL, "continue the text as it is: no chat template", ARG_FLAG,
     offsetof(prompt_args, raw), 0, 0},
};

/* ---- the question ------------------------------------------------------- */

typedef struct text {
    char *bytes; /* owned */
    size_t length;
} text;

static int text_reserve(text *t, size_t *capacity, size_t more) {
    if (t->length + more <= *capacity) return 0;
    size_t wanted = (*capacity + more) * 2;
    char *grown = realloc(t->bytes, wanted);
    if (!grown) return -1;
    t->bytes = grown;
    *capacity = wanted;
    return 0;
}

/* All of standard input; an exit code. */
static int read_input(const char *program, text *t) {
    size_t capacity = 0;
    for (;;) {
        if (t->length > TEXT_MAX) {
            fprintf(stderr, "%s: the text on standard input is longer than %zu MB\n", program,
                    TEXT_MAX >> 20);
            return EXIT_FAILED;
        }
        if (text_reserve(t, &capacity, 65536)) {
            fprintf(stderr, "%s: no memory for the text\n", program);
            return EXIT_FAILED;
        }
        size_t got = fread(t->bytes + t->length, 1, 65536, stdin);
        t->length += got;
        if (got == 0) break;
    }
    if (ferror(stdin)) {
        fprintf(stderr, "%s: standard input: %s\n", program, strerror(errno));
        return EXIT_FAILED;
    }
    return 0;
}

/* Words without quotes around them are one text. */
static int join_words(const char *program, const arg_list *rest, text *t) {
    size_t capacity = 0;
    for (int i = 0; i < rest->n; i++) {
        size_t length = strlen(rest->item[i]);
        if (text_reserve(t, &capacity, length + 1)) {
            fprintf(stderr, "%s: no memory for the text\n", program);
            return EXIT_FAILED;
        }
        if (i > 0) t->bytes[t->length++] = ' ';
        memcpy(t->bytes + t->length, rest->item[i], length);
        t->length += length;
    }
    return 0;
}

static int read_text(const char *program, const arg_list *rest, text *t) {
    if (rest->n == 0)
        return args_wrong(program,
                          "what is the question? %s \"TEXT\", or - to read it from "
                          "standard input",
                          program);
    bool input = rest->n == 1 && !strcmp(rest->item[0], "-");
    int code = input ? read_input(program, t) : join_words(program, rest, t);
    if (code) return code;
    for (size_t i = 0; i < t->length; i++)
        if (!strchr(" \t\r\n", t->bytes[i])) return 0;
    return args_wrong(program, input ? "the text on standard input is empty" : "the text is empty");
}

/* ---- the answer --------------------------------------------------------- */

typedef struct answer {
    bool json, terminal; /* terminal: standard error is one, thoughts may be dim */
    bool thought_open, any;
    char last;
    text kept[2]; /* for --json: answer, thoughts */
    size_t capacity[2];
    bool no_memory;
} answer;

static void keep(answer *a, bool thought, const char *bytes, size_t length) {
    text *t = &a->kept[thought];
    if (text_reserve(t, &a->capacity[thought], length)) {
        a->no_memory = true;
        return;
    }
    memcpy(t->bytes + t->length, bytes, length);
    t->length += length;
}

static void show(void *ctx, bool thought, const char *bytes, size_t length) {
    answer *a = ctx;
    if (a->json) {
        keep(a, thought, bytes, length);
        return;
    }
    FILE *to = thought ? stderr : stdout;
    if (thought && !a->thought_open && a->terminal) fputs("\033[2m", stderr);
    if (!thought && a->thought_open) fputs(a->terminal ? "\033[0m\n" : "\n", stderr);
    a->thought_open = thought;
    fwrite(bytes, 1, length, to);
    fflush(to);
    if (!thought) {
        a->any = true;
        a->last = bytes[length - 1];
    }
}

static void finish_show(answer *a) {
    if (a->json) return;
    if (a->thought_open) fputs(a->terminal ? "\033[0m\n" : "\n", stderr);
    if (a->any && a->last != '\n') putchar('\n');
    fflush(stdout);
}

static int print_json(const char *program, answer *a, const answer_report *r) {
    json_t *o = json_object();
    fm_model m;
    fm_model_get(r->engine, &m);
    json_object_set_new(o, "text",
                        json_stringn(a->kept[0].length ? a->kept[0].bytes : "", a->kept[0].length));
    if (a->kept[1].length)
        json_object_set_new(o, "thought", json_stringn(a->kept[1].bytes, a->kept[1].length));
    json_object_set_new(o, "model", json_string(m.dir));
    report_json(r, o);
    char *line = a->no_memory ? NULL : json_dumps(o, JSON_REAL_PRECISION(6));
    json_decref(o);
    if (!line) {
        fprintf(stderr, "%s: no memory for the answer\n", program);
        return EXIT_FAILED;
    }
    puts(line);
    free(line);
    return 0;
}

/* ---- the command -------------------------------------------------------- */

/* The question as the model's template writes it. */
static fm_error render(const prompt_args *a, fm_chat *chat, const text *t, fm_prompt *p) {
    json_t *list = json_array(), *said = json_stringn(t->bytes, t->length);
    if (a->a.system)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "role", "system", "content", a->a.system));
    if (said) json_array_append_new(list, json_pack("{s:s, s:o}", "role", "user", "content", said));
    char *messages = said ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    if (!messages) return (fm_error){FM_ERR_ARG, "the text is not valid UTF-8"};
    fm_chat_request r = {.messages = messages, .kwargs = think_kwargs(chat, a->a.think == 1)};
    fm_error e = fm_chat_render(chat, &r, p);
    free(messages);
    return e;
}

static fm_error run_session(const prompt_args *a, fm_engine *engine, const fm_prompt *p,
                            generation *g, answer_report *r) {
    fm_session *session;
    fm_error e = fm_session_open(engine, &session);
    if (!e.code) e = sampling_open(engine, &a->a.s, &g->sampler);
    double begin = seconds_now();
    r->prompt_tokens = p->tokens.count;
    if (!e.code) e = fm_session_sync(session, p->tokens.ids, p->tokens.count, NULL, &r->reused);
    double synced = seconds_now() - begin;
    if (!e.code) {
        g->session = session;
        g->limit = (size_t)a->a.tokens;
        g->thinking = p->thinking;
        e = generate(g);
    }
    r->seconds_to_first = synced + g->seconds_first;
    fm_sampler_close(g->sampler);
    return e;
}

static fm_error open_chat(const fm_engine *engine, fm_chat **chat) {
    fm_model m;
    fm_model_get(engine, &m);
    fm_error e = fm_chat_open(m.dir, chat);
    if (e.code == FM_ERR_NOT_FOUND) {
        size_t n = strlen(e.text);
        snprintf(e.text + n, sizeof e.text - n, "; --raw continues the text without one");
    }
    return e;
}

static int answer_text(const command *c, const prompt_args *a, fm_engine *engine, const text *t) {
    fm_prompt p = {0};
    fm_chat *chat = NULL;
    answer shown = {.json = a->json, .terminal = isatty(2)};
    generation g = {.engine = engine, .show = show, .ctx = &shown};
    answer_report r = {.g = &g, .engine = engine};
    if (a->a.timing) fm_timing_enable(engine, true);
    fm_error e = a->raw ? fm_tokenize(engine, FM_CONTENT, t->bytes, t->length, &p.tokens)
                        : open_chat(engine, &chat);
    if (!e.code && chat) e = render(a, chat, t, &p);
    g.chat = chat;
    if (!e.code) e = run_session(a, engine, &p, &g, &r);
    finish_show(&shown);
    int code = 0;
    if (e.code) {
        code = fail(c->program, &e);
    } else {
        if (a->json) code = print_json(c->program, &shown, &r);
        if (!a->a.quiet && !a->json) report_print(&r);
        if (a->a.timing && !a->json) report_timing(engine);
        if (!code && !strcmp(g.finish, "interrupted")) code = EXIT_INTERRUPTED;
    }
    free(shown.kept[0].bytes);
    free(shown.kept[1].bytes);
    free(g.message);
    fm_chat_close(chat);
    fm_prompt_free(&p);
    return code;
}

static int run(const command *c, const void *args, const arg_list *rest) {
    const prompt_args *a = args;
    text t = {0};
    int code = read_text(c->program, rest, &t);
    fm_engine *engine = code ? NULL : model_open(c->program, &a->a.m, 1);
    if (!code && !engine) code = EXIT_FAILED;
    if (engine) {
        interrupt_watch(engine);
        code = answer_text(c, a, engine, &t);
        interrupt_watch(NULL);
        fm_engine_close(engine);
    }
    free(t.bytes);
    return code;
}

const command command_prompt = {
    .name = "prompt",
    .program = "flashchat prompt",
    .usage = "TEXT|- [options]",
    .summary = "answer one question",
    .details = "The answer is printed as it is made. With - the text comes from standard input.\n"
               "A line about speed, experts and memory follows on standard error.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(prompt_args),
    .defaults = &defaults,
    .run = run,
};
