/* reply.c: from tokens to pieces (see reply.h). */
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

void port_prompt_free(port_prompt *p) {
    fm_tokens_free(&p->tokens);
    free(p->marks);
    free(p->text);
    free(p->text_marks);
    memset(p, 0, sizeof *p);
}

void reply_id(const char *prefix, char *out, size_t size) {
    static const char letters[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZab";
    unsigned char random[24];
    if (!os_random(random, sizeof random))
        memset(random, 0, sizeof random); /* cannot happen for 24 bytes once the system is up */
    size_t n = (size_t)snprintf(out, size, "%s", prefix);
    for (size_t i = 0; i < sizeof random && n + 1 < size; i++) out[n++] = letters[random[i] & 63];
    out[n] = '\0';
}

/* ---- pieces ---- */

static err put(reply *y, const piece *p) { return y->sink ? y->sink(y->ctx, y, p) : err_none(); }

/* Content that may be shown, with the tokens that it came from. */
static err show(reply *y, const char *text, size_t length) {
    if (!length) return err_none();
    TRY(text_buf_add(&y->content, text, length));
    json_t *tokens = y->pending;
    piece p = {.kind = PIECE_CONTENT, .text = text, .length = length, .logprobs = tokens};
    y->pending = tokens ? json_array() : NULL;
    if (tokens) json_array_extend(y->logprobs, tokens);
    err e = put(y, &p);
    json_decref(tokens);
    return e;
}

static err content(reply *y, const char *text, size_t length) {
    if (y->enough) return err_none();
    if (!y->stops) return show(y, text, length);
    text_buf shown = {0};
    err e = stop_matcher_push(y->stops, text, length, &shown);
    y->stop = stop_matcher_found(y->stops);
    if (y->stop >= 0) y->enough = true;
    if (!e.code) e = show(y, shown.data, shown.length);
    text_buf_free(&shown);
    return e;
}

static err call_begin(reply *y, const char *name, size_t length) {
    if (y->n_calls >= REPLY_CALLS_MAX)
        return err_make(ERR_RANGE, "the model made more than %d calls", REPLY_CALLS_MAX);
    reply_call *grown = realloc(y->calls, (size_t)(y->n_calls + 1) * sizeof *grown);
    if (!grown) return err_make(ERR_NOMEM, "no memory for a call");
    y->calls = grown;
    reply_call *c = &y->calls[y->n_calls];
    memset(c, 0, sizeof *c);
    reply_id(y->r->api == API_MESSAGES ? "toolu_" : "call_", c->id, sizeof c->id);
    c->name = strndup(name, length);
    if (!c->name) return err_make(ERR_NOMEM, "no memory for a call");
    y->n_calls++;
    if (y->pending) json_array_clear(y->pending); /* they were markup */
    return put(
        y, &(piece){.kind = PIECE_CALL, .text = c->name, .length = length, .call = y->n_calls - 1});
}

static err parsed(void *ctx, const toolcall_event *e) {
    reply *y = ctx;
    if (y->enough) return err_none();
    piece p = {.text = e->text, .length = e->length, .call = y->n_calls - 1};
    switch (e->kind) {
    case TOOLCALL_CONTENT: return content(y, e->text, e->length);
    case TOOLCALL_BEGIN: return call_begin(y, e->text, e->length);
    case TOOLCALL_REASONING:
        p.kind = PIECE_REASONING;
        TRY(text_buf_add(&y->reasoning, e->text, e->length));
        break;
    case TOOLCALL_ARGUMENTS:
        p.kind = PIECE_ARGUMENTS;
        TRY(text_buf_add(&y->calls[y->n_calls - 1].arguments, e->text, e->length));
        break;
    case TOOLCALL_END:
        p.kind = PIECE_CALL_END;
        p.text = "";
        p.length = 0;
        y->calls[y->n_calls - 1].ended = true;
        if (y->r->one_call) y->enough = true;
        break;
    }
    return put(y, &p);
}

/* ---- log-probabilities ---- */

static json_t *token_entry(const reply *y, int32_t id, float logprob) {
    size_t n = 0;
    const char *bytes = y->port->token_bytes(y->port->ctx, id, &n);
    if (!bytes) n = 0;
    text_buf text = {0};
    json_t *list = json_array();
    err e = text_buf_add_utf8(&text, bytes, n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    json_t *entry = json_object();
    json_object_set_new(entry, "token",
                        json_stringn(!e.code && text.data ? text.data : "", text.length));
    json_object_set_new(entry, "logprob", json_real((double)logprob));
    json_object_set_new(entry, "bytes", list);
    text_buf_free(&text);
    return entry;
}

static void note_logprob(reply *y, const sched_token *t) {
    json_t *entry = token_entry(y, t->id, t->logprob), *top = json_array();
    for (int i = 0; i < t->n_top; i++)
        json_array_append_new(top, token_entry(y, t->top[i].id, t->top[i].logprob));
    json_object_set_new(entry, "top_logprobs", top);
    json_array_append_new(y->pending, entry);
}

/* ---- the whole ---- */

static err open_stops(const request *r, reply *y) {
    stop_string list[REQUEST_STOPS_MAX];
    int n = (int)json_array_size(r->stop);
    for (int i = 0; i < n; i++) {
        const json_t *s = json_array_get(r->stop, (size_t)i);
        list[i] = (stop_string){json_string_value(s), json_string_length(s)};
    }
    return n ? stop_matcher_open(list, n, &y->stops) : err_none();
}

err reply_open(const port *p, const request *r, bool plain, toolcall_reasoning reasoning,
               reply *y) {
    memset(y, 0, sizeof *y);
    y->port = p;
    y->r = r;
    y->stop = -1;
    if (r->logprobs) {
        y->pending = json_array();
        y->logprobs = json_array();
    }
    toolcall_options o = {.format = r->tools && r->choice != TOOL_NONE ? p->format : NULL,
                          .tools = r->tools,
                          .reasoning = reasoning,
                          .sink = parsed,
                          .ctx = y};
    err e = open_stops(r, y);
    if (!e.code && !plain) e = toolcall_open(&o, &y->parser);
    if (e.code) reply_close(y);
    return e;
}

void reply_close(reply *y) {
    stop_matcher_close(y->stops);
    toolcall_close(y->parser);
    fm_tokens_free(&y->ids);
    text_buf_free(&y->raw);
    text_buf_free(&y->reasoning);
    text_buf_free(&y->content);
    for (int i = 0; i < y->n_calls; i++) {
        free(y->calls[i].name);
        text_buf_free(&y->calls[i].arguments);
    }
    free(y->calls);
    json_decref(y->logprobs);
    json_decref(y->pending);
    memset(y, 0, sizeof *y);
}

static err push(reply *y, const char *text, size_t n) {
    TRY(text_buf_add(&y->raw, text, n));
    return y->parser ? toolcall_push(y->parser, text, n) : content(y, text, n);
}

#define TOKEN_BYTES_MAX 1024

err reply_token(reply *y, const sched_token *t, bool *more) {
    size_t n = 0;
    const char *bytes = y->port->token_bytes(y->port->ctx, t->id, &n);
    bool thinking = y->parser && toolcall_reasoning_open(y->parser);
    y->tokens++;
    if (fm_tokens_push(&y->ids, t->id).code) return err_make(ERR_NOMEM, "no memory for an answer");
    if (thinking) y->reasoning_tokens++;
    if (y->pending && !thinking && !(y->parser && toolcall_in_call(y->parser))) note_logprob(y, t);
    for (size_t at = 0; bytes && at < n; at += TOKEN_BYTES_MAX) {
        char text[3 * TOKEN_BYTES_MAX + 9];
        size_t some = n - at < TOKEN_BYTES_MAX ? n - at : TOKEN_BYTES_MAX;
        size_t length = utf8_stream_push(&y->utf8, bytes + at, some, text);
        if (length) TRY(push(y, text, length));
    }
    *more = !y->enough;
    return err_none();
}

bool reply_thought_enough(reply *y) {
    if (y->budget_spent || y->r->thinking_budget < 0 || !y->parser ||
        !toolcall_reasoning_open(y->parser) || y->reasoning_tokens < y->r->thinking_budget)
        return false;
    y->budget_spent = true;
    return true;
}

err reply_end(reply *y, sched_end why) {
    char rest[16];
    size_t n = utf8_stream_end(&y->utf8, rest);
    err e = n && !y->enough ? push(y, rest, n) : err_none();
    if (!e.code && y->parser) e = toolcall_finish(y->parser);
    if (!e.code && y->stops && !y->enough) {
        text_buf shown = {0};
        e = stop_matcher_end(y->stops, &shown);
        if (!e.code) e = show(y, shown.data, shown.length);
        text_buf_free(&shown);
    }
    y->ended = true;
    if (e.code || why == SCHED_FAILED) {
        y->finish = FINISH_ERROR;
    } else if (why == SCHED_CANCELLED) {
        y->finish = FINISH_CANCELLED;
    } else if (y->stop >= 0) {
        y->finish = FINISH_STOP_STRING;
    } else if (why == SCHED_LENGTH) {
        y->finish = FINISH_LENGTH;
    } else {
        y->finish = y->n_calls ? FINISH_CALLS : FINISH_STOP;
    }
    return e;
}

json_t *reply_message(const reply *y) {
    json_t *m = json_pack("{s:s}", "role", "assistant");
    bool text = y->content.length || !y->n_calls;
    json_object_set_new(
        m, "content",
        text ? json_stringn(y->content.data ? y->content.data : "", y->content.length)
             : json_null());
    if (y->reasoning.length)
        json_object_set_new(m, "reasoning_content",
                            json_stringn(y->reasoning.data, y->reasoning.length));
    json_t *calls = y->n_calls ? json_array() : NULL;
    for (int i = 0; i < y->n_calls; i++) {
        const reply_call *c = &y->calls[i];
        json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", c->id, "type",
                                               "function", "function", "name", c->name, "arguments",
                                               c->arguments.data ? c->arguments.data : "{}"));
    }
    if (calls) json_object_set_new(m, "tool_calls", calls);
    return m;
}
