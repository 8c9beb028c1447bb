/* chat_api.c: the public face of conversations (text/chat.h). */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/fm_error.h"
#include "format/config.h"
#include "text/chat.h"
#include "text/text_buf.h"

struct fm_chat {
    tokenizer *tokens; /* owned */
    chat *chat;        /* owned */
};

static err open_parts(const char *dir, fm_chat *c) {
    model_config config;
    TRY(config_open(dir, &config));
    int32_t stops[CONFIG_EOS_MAX];
    for (int i = 0; i < config.n_eos; i++) stops[i] = config.eos[i];
    int n = config.n_eos;
    config_close(&config);
    TRY(tokenizer_open(dir, &c->tokens));
    const chat_options o = {.dir = dir, .tokens = c->tokens, .stop_ids = stops, .n_stop_ids = n};
    return chat_open(&o, &c->chat);
}

fm_error fm_chat_open(const char *model_dir, fm_chat **out) {
    *out = NULL;
    fm_chat *c = calloc(1, sizeof *c);
    if (!c) return FM_WRAP(err_make(ERR_NOMEM, "no memory for a chat"));
    err e = open_parts(model_dir, c);
    if (e.code) {
        fm_chat_close(c);
        return fm_error_from(&e);
    }
    *out = c;
    return FM_WRAP(err_none());
}

void fm_chat_close(fm_chat *c) {
    if (!c) return;
    chat_close(c->chat);
    tokenizer_close(c->tokens);
    free(c);
}

/* ---- requests ---- */

typedef struct parsed {
    json_t *messages, *tools, *kwargs;
} parsed;

/* NULL stays NULL. What comes from a client is a client's mistake: ERR_ARG. */
static err parse_json(const char *what, const char *text, json_t **out) {
    *out = NULL;
    if (!text) return err_none();
    err e = json_read_bytes(what, text, strlen(text), out);
    if (e.code == ERR_CORRUPT) e.code = ERR_ARG;
    return e;
}

static void parsed_free(parsed *p) {
    json_decref(p->messages);
    json_decref(p->tools);
    json_decref(p->kwargs);
}

static err parse_request(const fm_chat_request *r, parsed *p, chat_request *out) {
    *p = (parsed){0};
    TRY(parse_json("messages", r->messages ? r->messages : "null", &p->messages));
    TRY(parse_json("tools", r->tools, &p->tools));
    TRY(parse_json("chat_template_kwargs", r->kwargs, &p->kwargs));
    if (p->tools && !json_is_array(p->tools) && !json_is_null(p->tools)) {
        return err_make(ERR_ARG, "tools: expected a list, found %s", json_kind(p->tools));
    }
    *out = (chat_request){.messages = p->messages,
                          .tools = p->tools,
                          .kwargs = p->kwargs,
                          .add_generation_prompt = !r->no_generation_prompt};
    return err_none();
}

_Static_assert((int)FM_THINK_NONE == (int)TOOLCALL_THINK_NONE &&
                   (int)FM_THINK_OUTSIDE == (int)TOOLCALL_THINK_OUTSIDE &&
                   (int)FM_THINK_INSIDE == (int)TOOLCALL_THINK_INSIDE,
               "fm_thinking and toolcall_reasoning are the same list");

void fm_prompt_free(fm_prompt *p) {
    free(p->tokens.ids);
    free(p->text);
    free(p->borders);
    *p = (fm_prompt){0};
}

fm_error fm_chat_render(fm_chat *c, const fm_chat_request *r, fm_prompt *out) {
    parsed p;
    chat_request request;
    chat_prompt prompt = {.text = NULL};
    fm_prompt_free(out);
    err e = parse_request(r, &p, &request);
    if (!e.code) e = chat_render(c->chat, &request, &prompt);
    parsed_free(&p);
    if (e.code) return fm_error_from(&e);
    *out = (fm_prompt){.tokens = {prompt.tokens.ids, prompt.tokens.count, prompt.tokens.capacity},
                       .text = prompt.text,
                       .text_length = prompt.length,
                       .borders = prompt.borders,
                       .n_borders = prompt.n_borders,
                       .replayed = prompt.replayed,
                       .thinking = (fm_thinking)prompt.reasoning};
    free(prompt.marks);
    return fm_error_from(&e);
}

fm_error fm_chat_remember(fm_chat *c, const fm_chat_request *r, const char *message,
                          const int32_t *ids, size_t count) {
    parsed p;
    chat_request request;
    json_t *reply = NULL;
    err e = parse_request(r, &p, &request);
    if (!e.code) e = parse_json("message", message, &reply);
    if (!e.code) e = chat_remember(c->chat, &request, NULL, reply, ids, count);
    json_decref(reply);
    parsed_free(&p);
    return fm_error_from(&e);
}

bool fm_chat_knows(const fm_chat *c, const char *variable) { return chat_knows(c->chat, variable); }

static err parse_reply(const fm_chat *c, toolcall_options *o, const char *format, const char *reply,
                       json_t **out) {
    *out = NULL;
    o->format = format ? toolcall_format_find(format) : chat_format(c->chat);
    if (format && !o->format) return err_make(ERR_ARG, "no format of calls is named %s", format);
    return toolcall_parse(o, reply, strlen(reply), out);
}

fm_error fm_chat_parse(const fm_chat *c, const char *format, const char *tools,
                       fm_thinking thinking, const char *reply, char **out) {
    json_t *list = NULL, *result = NULL;
    *out = NULL;
    err e = parse_json("tools", tools, &list);
    toolcall_options o = {.tools = list, .reasoning = (toolcall_reasoning)thinking};
    if (!e.code) e = parse_reply(c, &o, format, reply, &result);
    if (!e.code) {
        *out = json_dumps(result, JSON_INDENT(2));
        if (!*out) e = err_make(ERR_NOMEM, "no memory for a reply");
    }
    json_decref(result);
    json_decref(list);
    return fm_error_from(&e);
}

/* ---- replies ---- */

struct fm_reply {
    const fm_chat *chat;
    json_t *tools; /* owned; NULL */
    toolcall_options options;
    toolcall_parser *parser;
    text_buf raw; /* all that came */
    fm_reply_show show;
    void *ctx;
};

static err show_event(void *ctx, const toolcall_event *event) {
    fm_reply *r = ctx;
    if (event->kind == TOOLCALL_REASONING || event->kind == TOOLCALL_CONTENT)
        r->show(r->ctx, event->kind == TOOLCALL_REASONING, event->text, event->length);
    return err_none();
}

fm_error fm_reply_open(const fm_chat *c, const char *tools, fm_thinking thinking,
                       fm_reply_show show, void *ctx, fm_reply **out) {
    *out = NULL;
    fm_reply *r = calloc(1, sizeof *r);
    if (!r) return FM_WRAP(err_make(ERR_NOMEM, "no memory for a reply"));
    r->chat = c;
    r->show = show;
    r->ctx = ctx;
    err e = parse_json("tools", tools, &r->tools);
    r->options = (toolcall_options){.format = chat_format(c->chat),
                                    .tools = r->tools,
                                    .reasoning = (toolcall_reasoning)thinking,
                                    .sink = show_event,
                                    .ctx = r};
    if (!e.code) e = toolcall_open(&r->options, &r->parser);
    if (e.code) {
        fm_reply_close(r);
        return fm_error_from(&e);
    }
    *out = r;
    return FM_WRAP(err_none());
}

fm_error fm_reply_push(fm_reply *r, const char *text, size_t length) {
    err e = text_buf_add(&r->raw, text, length);
    if (!e.code) e = toolcall_push(r->parser, text, length);
    return fm_error_from(&e);
}

fm_error fm_reply_end(fm_reply *r, char **message) {
    json_t *result = NULL;
    *message = NULL;
    err e = toolcall_finish(r->parser);
    if (!e.code)
        e = toolcall_parse(&r->options, r->raw.data ? r->raw.data : "", r->raw.length, &result);
    if (!e.code && !(*message = json_dumps(result, JSON_COMPACT)))
        e = err_make(ERR_NOMEM, "no memory for a reply");
    json_decref(result);
    return fm_error_from(&e);
}

void fm_reply_close(fm_reply *r) {
    if (!r) return;
    toolcall_close(r->parser);
    json_decref(r->tools);
    text_buf_free(&r->raw);
    free(r);
}
