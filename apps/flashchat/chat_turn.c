/* chat_turn.c: a question and its answer.
 *
 *     messages --template--> tokens --sync--> logits --generate--> text, calls
 *         ^                                                          |
 *         `------------- tool results <-- tools_run <----------------´   until there are no calls
 *
 * An answer that was stopped stays as far as it came; one that was stopped before its first word
 * takes the question with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "screen.h"

#define ROUNDS_MAX   24   /* of tools in one turn */
#define STATE_TOKENS 4096 /* that many further tokens are worth writing the state for */

/* ---- keeping ---- */

void chat_keep(conversation *k, bool state) {
    if (!k->keeps || !json_array_size(k->messages)) return;
    err e = err_none();
    if (state && k->exact) {
        kept_mark mark = {.messages = k->exact, .pending = k->pending};
        e = kept_save_state(k->id, k->session, &mark);
        k->mark = mark;
        k->kept_tokens = fm_session_length(k->session);
    }
    if (!e.code) e = kept_save(k->id, k->dir, k->messages, &k->mark);
    if (!e.code) return;
    fprintf(stderr, "%s: the conversation is not kept: %s\n", k->c->program, e.text);
    k->keeps = false;
}

void chat_begin(conversation *k) {
    kept_new_id(k->id);
    json_array_clear(k->messages);
    fm_session_clear(k->session);
    k->mark = (kept_mark){.pending = -1};
    k->exact = k->kept_tokens = 0;
    k->pending = -1;
    free(k->attached);
    free(k->unanswered);
    k->attached = k->unanswered = NULL;
    if (k->system)
        json_array_append_new(k->messages,
                              json_pack("{s:s, s:s}", "role", "system", "content", k->system));
}

/* ---- requests ---- */

static fm_chat_request request_of(const conversation *k, const char *messages) {
    return (fm_chat_request){.messages = messages,
                             .tools = k->tools_on ? tools_json() : NULL,
                             .kwargs = think_kwargs(k->chat, k->thinks)};
}

/* The first n messages as JSON; NULL without memory. */
static char *first_messages(const conversation *k, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append(list, json_array_get(k->messages, i));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

void chat_recall(conversation *k) {
    size_t n = k->exact, count = fm_session_length(k->session);
    if (!n || n > json_array_size(k->messages) || !count) return;
    const json_t *message = json_array_get(k->messages, n - 1);
    const char *role = json_string_value(json_object_get(message, "role"));
    if (!role || strcmp(role, "assistant")) return;
    char *before = first_messages(k, n - 1), *last = json_dumps(message, JSON_COMPACT);
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    if (before && last && ids) {
        memcpy(ids, fm_session_tokens(k->session), count * sizeof *ids);
        if (k->pending >= 0) ids[count++] = k->pending;
        fm_chat_request r = request_of(k, before);
        fm_error e = fm_chat_remember(k->chat, &r, last, ids, count);
        (void)e; /* it is then read again */
    }
    free(ids);
    free(before);
    free(last);
}

bool chat_resume(conversation *k, const char *id) {
    json_t *messages;
    kept_mark mark;
    char wanted[CHAT_ID_MAX];
    snprintf(wanted, sizeof wanted, "%s", id);
    err e = kept_load(wanted, &messages, &mark);
    if (e.code) {
        printf("%s\n", e.text);
        return false;
    }
    chat_keep(k, true);
    chat_begin(k);
    json_decref(k->messages);
    k->messages = messages;
    snprintf(k->id, sizeof k->id, "%s", wanted);
    bool restored = kept_load_state(k->id, &mark, k->session);
    if (restored) {
        k->mark = mark;
        k->exact = mark.messages;
        k->pending = mark.pending;
        k->kept_tokens = fm_session_length(k->session);
        chat_recall(k);
    }
    k->keeps = true;
    view_note("Going on with %s, %zu messages%s.", k->id, json_array_size(messages),
              restored ? "" : " (read again at your next question)");
    return true;
}

/* ---- going back ---- */

static const char *role_at(const conversation *k, size_t i) {
    const char *role = json_string_value(json_object_get(json_array_get(k->messages, i), "role"));
    return role ? role : "";
}

static void drop_to(conversation *k, size_t n) {
    while (json_array_size(k->messages) > n)
        json_array_remove(k->messages, json_array_size(k->messages) - 1);
    if (k->exact > n) k->exact = 0; /* the session has more than that */
    if (k->mark.messages > n) k->mark = (kept_mark){.pending = -1};
}

char *chat_take_back(conversation *k) {
    size_t at = json_array_size(k->messages);
    while (at > 0 && strcmp(role_at(k, at - 1), "user")) at--;
    if (!at) return NULL;
    const char *text =
        json_string_value(json_object_get(json_array_get(k->messages, at - 1), "content"));
    char *copy = strdup(text ? text : "");
    drop_to(k, at - 1);
    return copy;
}

const char *chat_last_answer(const conversation *k) {
    for (size_t i = json_array_size(k->messages); i-- > 0;) {
        const char *text =
            json_string_value(json_object_get(json_array_get(k->messages, i), "content"));
        if (!strcmp(role_at(k, i), "assistant") && text && *text) return text;
    }
    return NULL;
}

/* ---- test build: answers given beforehand ---- */

/* The first rule that fits the last message. */
static const json_t *script_rule(const conversation *k) {
    size_t i, n = json_array_size(k->messages);
    const json_t *last = n ? json_array_get(k->messages, n - 1) : NULL;
    const char *text = json_string_value(json_object_get(last, "content"));
    json_t *rule;
    json_array_foreach(k->script, i, rule) {
        const char *match = json_string_value(json_object_get(rule, "match"));
        const char *role = json_string_value(json_object_get(rule, "role"));
        if (!text || !match || !strstr(text, match)) continue;
        if (role && strcmp(role, role_at(k, n - 1))) continue;
        return rule;
    }
    return NULL;
}

/* ---- answering ---- */

/* Prompt and its state; g and r get what is known of them. */
static fm_error read_prompt(conversation *k, fm_prompt *p, generation *g, answer_report *r) {
    char *messages = json_dumps(k->messages, JSON_COMPACT);
    if (!messages) return (fm_error){FM_ERR_NOMEM, "no memory for the conversation"};
    fm_chat_request request = request_of(k, messages);
    fm_error e = fm_chat_render(k->chat, &request, p);
    free(messages);
    if (e.code) return e;
    fm_sync sync = {.marks = p->borders,
                    .n_marks = p->n_borders,
                    .progress = view_progress,
                    .progress_ctx = k->view};
    double start = seconds_now();
    k->exact = 0;
    e = fm_session_sync(k->session, p->tokens.ids, p->tokens.count, &sync, &r->reused);
    r->seconds_to_first = seconds_now() - start;
    r->prompt_tokens = p->tokens.count;
    g->thinking = p->thinking;
    return e;
}

static fm_error answer(conversation *k, generation *g, answer_report *r) {
    sampling_args sampling = k->args->a.s;
    sampling.seed += k->retries;
    fm_prompt p = {0};
    fm_sampler *sampler = NULL;
    const json_t *rule = script_rule(k);
    *g = (generation){.engine = k->engine,
                      .session = k->session,
                      .limit = (size_t)k->args->a.tokens,
                      .chat = k->chat,
                      .tools = k->tools_on ? tools_json() : NULL,
                      .show = view_text,
                      .ctx = k->view,
                      .script = json_string_value(json_object_get(rule, "reply")),
                      .hold = json_string_value(json_object_get(rule, "hold")),
                      .finish = "",
                      .pending = -1};
    *r = (answer_report){.g = g, .engine = k->engine};
    fm_stats_reset(k->engine);
    fm_error e = sampling_open(k->engine, &sampling, &sampler);
    if (!e.code) e = read_prompt(k, &p, g, r);
    g->sampler = sampler;
    if (!e.code) e = generate(g);
    g->sampler = NULL;
    r->seconds_to_first += g->seconds_first;
    view_end(k->view);
    fm_sampler_close(sampler);
    fm_prompt_free(&p);
    return e;
}

/* {"reasoning_content", "content", "tool_calls"} as an assistant message. Calls that were cut off
 * are left out; *n_calls counts the others. */
static json_t *assistant_message(const char *parsed, size_t serial, int *n_calls) {
    json_t *o = json_loads(parsed ? parsed : "null", JSON_DECODE_ANY, NULL);
    json_t *calls = json_array(), *call;
    size_t i;
    *n_calls = 0;
    json_array_foreach(json_object_get(o, "tool_calls"), i, call) {
        char id[40];
        if (json_is_true(json_object_get(call, "cut"))) continue;
        snprintf(id, sizeof id, "call_%zu_%zu", serial, i);
        json_array_append_new(calls,
                              json_pack("{s:s, s:s, s:{s:O, s:O}}", "id", id, "type", "function",
                                        "function", "name", json_object_get(call, "name"),
                                        "arguments", json_object_get(call, "arguments")));
        ++*n_calls;
    }
    const json_t *content = json_object_get(o, "content");
    const char *text = json_string_value(content);
    json_t *m = json_pack("{s:s, s:s}", "role", "assistant", "content", text ? text : "");
    json_t *thought = json_object_get(o, "reasoning_content");
    if (m && json_is_string(thought)) json_object_set(m, "reasoning_content", thought);
    if (m && *n_calls) json_object_set(m, "tool_calls", calls);
    json_decref(calls);
    json_decref(o);
    return m;
}

static void footer(conversation *k, const answer_report *r) {
    char line[300];
    if (k->args->a.quiet) return;
    if (view_mode_of(k->view) == VIEW_RAW) {
        fflush(stdout);
        report_print(r);
    } else {
        report_line(r, screen_width() - 1, line, sizeof line);
        printf("\n%s%s%s\n", style(STYLE_DIM), line, STYLE_END);
    }
    if (k->args->a.timing) report_timing(k->engine);
}

static void say_why(const generation *g) {
    if (!strcmp(g->finish, "interrupted")) view_note("(stopped)");
    if (!strcmp(g->finish, "length")) view_note("(cut off at the limit of --tokens)");
    if (!strcmp(g->finish, "context"))
        view_note("(the context window is full: /new begins another conversation, --context "
                  "makes the window larger)");
}

/* Shows calls, asks, runs them; their results follow in the conversation. */
static bool run_tools(conversation *k, const json_t *message) {
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        const json_t *f = json_object_get(call, "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        const char *arguments = json_string_value(json_object_get(f, "arguments"));
        interrupt_clear(k->engine);
        char *result = tools_run(k->tools, name ? name : "", arguments ? arguments : "", ask_key);
        json_t *said = result ? json_string(result) : NULL;
        free(result);
        if (!said) return false;
        json_array_append_new(k->messages, json_pack("{s:s, s:O, s:s, s:o}", "role", "tool",
                                                     "tool_call_id", json_object_get(call, "id"),
                                                     "name", name ? name : "", "content", said));
    }
    return true;
}

typedef enum round_end { ROUND_DONE, ROUND_AGAIN, ROUND_LOST } round_end;

static void failed(conversation *k, const fm_error *e) {
    if (e->code == FM_ERR_CANCELLED) {
        view_note("(stopped before an answer; /retry asks again)");
        return;
    }
    fail(k->c->program, e);
    if (e->code == FM_ERR_RANGE) view_note("(/new begins another conversation)");
}

/* One answer of the model, and what it calls for. */
static round_end one_round(conversation *k, bool last) {
    int n_calls = 0;
    free(k->made.message);
    fm_error e = answer(k, &k->made, &k->last);
    if (e.code) {
        failed(k, &e);
        return ROUND_LOST;
    }
    json_t *m = assistant_message(k->made.message, json_array_size(k->messages), &n_calls);
    const char *content = json_string_value(json_object_get(m, "content"));
    bool stopped = strcmp(k->made.finish, "stop") != 0;
    if (!m || (stopped && !n_calls && (!content || !*content))) {
        json_decref(m);
        say_why(&k->made);
        view_note("(there is no answer yet; /retry asks again)");
        return ROUND_LOST;
    }
    json_array_append_new(k->messages, m);
    k->exact = json_array_size(k->messages);
    k->pending = k->made.pending;
    chat_recall(k);
    say_why(&k->made);
    if (!n_calls || !k->tools_on) return ROUND_DONE;
    if (last) view_note("(that is enough for one question: %d rounds of tools)", ROUNDS_MAX);
    if (last || !run_tools(k, m)) return ROUND_LOST;
    return ROUND_AGAIN;
}

/* What the person says, with the files that go with it. */
static char *whole_question(conversation *k, const char *text) {
    size_t n = strlen(text) + (k->attached ? strlen(k->attached) : 0) + 3;
    char *all = malloc(n);
    if (all)
        snprintf(all, n, "%s%s%s", text, k->attached ? "\n\n" : "", k->attached ? k->attached : "");
    free(k->attached);
    k->attached = NULL;
    return all;
}

void chat_ask(conversation *k, const char *said) {
    size_t before = json_array_size(k->messages);
    char *text = whole_question(k, said);
    json_t *m = text ? json_pack("{s:s, s:s}", "role", "user", "content", text) : NULL;
    free(k->unanswered);
    k->unanswered = text;
    if (!m || before >= CHAT_STORED_MAX) {
        puts(m ? "This conversation is too long; /new begins another one."
               : "That is not UTF-8 text, so it cannot be asked.");
        json_decref(m);
        return;
    }
    json_array_append_new(k->messages, m);
    if (view_mode_of(k->view) != VIEW_RAW) puts("");
    line_quiet(k->line, true);
    round_end end = ROUND_AGAIN;
    for (int i = 0; end == ROUND_AGAIN; i++) {
        interrupt_clear(k->engine);
        end = one_round(k, i + 1 == ROUNDS_MAX);
    }
    if (end == ROUND_LOST) {
        drop_to(k, before);
        return;
    }
    free(k->unanswered);
    k->unanswered = NULL;
    footer(k, &k->last);
    chat_keep(k, fm_session_length(k->session) > k->kept_tokens + STATE_TOKENS);
    fflush(stdout);
}
