/* toolcall.c: see toolcall.h. This file finds the borders between reasoning, content and calls.
 *
 *     THINK --</think>--> TEXT --<tool_call>--> BODY / JSON --...--> TEXT
 *       ^------<think>------|
 *
 * Whitespace is kept in `held` until something follows: text makes it text, markup makes it markup.
 */
#include "text/toolcall.h"

#include <stdlib.h>
#include <string.h>

#include "text/toolcall_impl.h"

#define THINK_OPEN  "<think>"
#define THINK_CLOSE "</think>"

/* ---- events ---- */

err toolcall_text(toolcall_parser *p, toolcall_event_kind kind, const char *text, size_t length) {
    if (!length) return err_none();
    toolcall_event event = {.kind = kind, .call = -1, .text = text, .length = length};
    return p->opt.sink(p->opt.ctx, &event);
}

err toolcall_begin(toolcall_parser *p, const char *name) {
    p->held.length = 0;
    p->call_open = true;
    p->schema = toolcall_schema(p->opt.tools, name);
    p->stray_close = p->stray_close || p->resume == MODE_THINK;
    toolcall_event event = {
        .kind = TOOLCALL_BEGIN, .call = p->n_calls++, .text = name, .length = strlen(name)};
    return p->opt.sink(p->opt.ctx, &event);
}

err toolcall_arguments(toolcall_parser *p, const char *text, size_t length) {
    if (!length) return err_none();
    toolcall_event event = {
        .kind = TOOLCALL_ARGUMENTS, .call = p->n_calls - 1, .text = text, .length = length};
    return p->opt.sink(p->opt.ctx, &event);
}

/* The text that stood inside the call and was no part of it. */
static err show_junk(toolcall_parser *p) {
    size_t length = p->junk.length;
    while (length && toolcall_is_space(p->junk.data[length - 1])) length--;
    p->junk.length = 0;
    return toolcall_text(p, TOOLCALL_CONTENT, p->junk.data, length);
}

err toolcall_end(toolcall_parser *p, bool cut) {
    p->call_open = false;
    p->skip_space = p->may_think = true;
    p->resume = MODE_TEXT;
    toolcall_event event = {
        .kind = TOOLCALL_END, .call = p->n_calls - 1, .text = "", .length = 0, .cut = cut};
    TRY(p->opt.sink(p->opt.ctx, &event));
    return show_junk(p);
}

/* ---- looking ahead ---- */

bool toolcall_is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

match toolcall_match(const toolcall_parser *p, size_t from, const char *word) {
    size_t left = toolcall_left(p) - from, length = strlen(word);
    if (left >= length) return memcmp(toolcall_here(p) + from, word, length) ? MATCH_NO : MATCH_YES;
    if (p->final || memcmp(toolcall_here(p) + from, word, left)) return MATCH_NO;
    return MATCH_MORE;
}

match toolcall_skip_space(const toolcall_parser *p, size_t from, size_t *next) {
    size_t left = toolcall_left(p), i = from;
    while (i < left && i - from < TOOLCALL_SPACE_MAX && toolcall_is_space(toolcall_here(p)[i])) i++;
    *next = i;
    if (i < left) return toolcall_is_space(toolcall_here(p)[i]) ? MATCH_NO : MATCH_YES;
    return p->final ? MATCH_YES : MATCH_MORE;
}

/* ---- the beginning of a call ---- */

/* What stands behind <tool_call> and whitespace, at `from`. */
static err open_body(toolcall_parser *p, size_t from, match *found) {
    char name[TOOLCALL_NAME_MAX + 1];
    size_t end;
    if (from < toolcall_left(p) && toolcall_here(p)[from] == '{') {
        *found = MATCH_YES;
        p->raw.length = 0;
        TRY(text_buf_add(&p->raw, toolcall_here(p), from));
        p->at += from;
        return toolcall_json_begin(p);
    }
    *found = toolcall_function_tag(p, from, name, &end);
    if (*found != MATCH_YES) return err_none();
    if (p->known_only && !toolcall_known(p->opt.tools, name)) {
        *found = MATCH_NO;
        return err_none();
    }
    p->at += end;
    return toolcall_tags_begin(p, name);
}

/* At a '<' of text or reasoning: opens a call if one begins here. */
static err open_call(toolcall_parser *p, toolcall_mode resume, match *found) {
    *found = MATCH_NO;
    if (!p->opt.format) return err_none();
    const toolcall_tags *tags = p->opt.format->tags;
    p->resume = resume;
    p->known_only = p->opt.tools && resume == MODE_THINK;
    match open = toolcall_match(p, 0, tags->open);
    if (open == MATCH_YES) {
        size_t next;
        *found = toolcall_skip_space(p, strlen(tags->open), &next);
        return *found == MATCH_YES ? open_body(p, next, found) : err_none();
    }
    *found = open;
    if (!p->opt.tools || resume == MODE_THINK) return err_none();
    char name[TOOLCALL_NAME_MAX + 1];
    size_t end;
    match bare = toolcall_function_tag(p, 0, name, &end);
    if (bare == MATCH_MORE) *found = MATCH_MORE;
    if (bare != MATCH_YES || !toolcall_known(p->opt.tools, name)) return err_none();
    *found = MATCH_YES;
    p->at += end;
    return toolcall_tags_begin(p, name);
}

/* ---- text and reasoning ---- */

static toolcall_event_kind kind_of(toolcall_mode mode) {
    return mode == MODE_THINK ? TOOLCALL_REASONING : TOOLCALL_CONTENT;
}

static err show(toolcall_parser *p, size_t length) {
    toolcall_event_kind kind = kind_of(p->mode);
    TRY(toolcall_text(p, kind, p->held.data, p->held.length));
    p->held.length = 0;
    p->skip_space = p->may_think = false;
    const char *text = toolcall_here(p);
    p->at += length;
    return toolcall_text(p, kind, text, length);
}

static void switch_mode(toolcall_parser *p, toolcall_mode mode, size_t tag_length) {
    p->at += tag_length;
    p->held.length = 0;
    p->mode = mode;
    p->skip_space = p->may_think = true;
}

/* A think tag at a '<'? Does what it asks for. */
static match think_tag(toolcall_parser *p) {
    if (p->opt.reasoning == TOOLCALL_THINK_NONE) return MATCH_NO;
    match open = p->may_think ? toolcall_match(p, 0, THINK_OPEN) : MATCH_NO;
    if (open == MATCH_YES) switch_mode(p, MODE_THINK, strlen(THINK_OPEN));
    if (open != MATCH_NO) return open;
    if (p->mode != MODE_THINK && !p->stray_close) return MATCH_NO;
    match close = toolcall_match(p, 0, THINK_CLOSE);
    if (close == MATCH_YES) {
        p->stray_close = false;
        switch_mode(p, MODE_TEXT, strlen(THINK_CLOSE));
    }
    return close;
}

static err at_angle(toolcall_parser *p, step_result *result) {
    match think = think_tag(p);
    if (think == MATCH_YES) return err_none();
    match call;
    TRY(open_call(p, p->mode, &call));
    if (call == MATCH_YES) return err_none();
    if (think == MATCH_MORE || call == MATCH_MORE) {
        *result = STEP_MORE;
        return err_none();
    }
    return show(p, 1);
}

static err text_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p), n = 0;
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    const char *here = toolcall_here(p);
    if (here[0] == '<') return at_angle(p, result);
    while (n < left && toolcall_is_space(here[n])) n++;
    if (n) {
        if (!p->skip_space) TRY(text_buf_add(&p->held, here, n));
        p->at += n;
        return err_none();
    }
    while (n < left && !toolcall_is_space(here[n]) && here[n] != '<') n++;
    return show(p, n);
}

/* ---- the parser ---- */

static err step(toolcall_parser *p, step_result *result) {
    switch (p->mode) {
    case MODE_TEXT:
    case MODE_THINK: return text_step(p, result);
    case MODE_JSON:
    case MODE_TAIL: return toolcall_json_step(p, result);
    default: return toolcall_tags_step(p, result);
    }
}

static err run(toolcall_parser *p) {
    step_result result = STEP_AGAIN;
    while (result == STEP_AGAIN) TRY(step(p, &result));
    text_buf_drop(&p->in, p->at);
    p->at = 0;
    return err_none();
}

err toolcall_open(const toolcall_options *options, toolcall_parser **out) {
    *out = NULL;
    toolcall_parser *p = calloc(1, sizeof *p);
    if (!p) return err_make(ERR_NOMEM, "no memory for a tool-call parser");
    p->opt = *options;
    p->mode = options->reasoning == TOOLCALL_THINK_INSIDE ? MODE_THINK : MODE_TEXT;
    p->may_think = true;
    p->skip_space = p->mode == MODE_THINK;
    *out = p;
    return err_none();
}

void toolcall_close(toolcall_parser *p) {
    if (!p) return;
    text_buf *bufs[] = {&p->in,         &p->held,      &p->junk,      &p->raw,       &p->out,
                        &p->tags.value, &p->tags.keys, &p->json.text, &p->json.name, &p->json.rest};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++) text_buf_free(bufs[i]);
    json_repair_free(&p->repair);
    free(p);
}

static err guarded(toolcall_parser *p, err e) {
    if (e.code) p->failed = true;
    return e;
}

err toolcall_push(toolcall_parser *p, const char *text, size_t length) {
    if (p->failed || p->final) return err_make(ERR_ARG, "text after the end of a message");
    if (!length) return err_none();
    err e = text_buf_add(&p->in, text, length);
    if (!e.code) e = run(p);
    return guarded(p, e);
}

static err finish(toolcall_parser *p) {
    TRY(text_buf_reserve(&p->in, 0));
    TRY(run(p));
    if (p->mode == MODE_JSON) {
        TRY(toolcall_json_finish(p));
        TRY(run(p)); /* a rejected call may leave nothing; text modes settle below */
    } else if (p->call_open) {
        TRY(toolcall_tags_finish(p));
    }
    if (p->mode == MODE_TEXT || p->mode == MODE_THINK) {
        TRY(toolcall_text(p, kind_of(p->mode), p->held.data, p->held.length));
    }
    p->held.length = 0;
    return err_none();
}

err toolcall_finish(toolcall_parser *p) {
    if (p->failed || p->final) return err_make(ERR_ARG, "a message ends once");
    p->final = true;
    return guarded(p, finish(p));
}

int toolcall_count(const toolcall_parser *p) { return p->n_calls; }
bool toolcall_in_call(const toolcall_parser *p) { return p->call_open; }

bool toolcall_reasoning_open(const toolcall_parser *p) {
    return p->mode == MODE_THINK || (p->resume == MODE_THINK && p->mode == MODE_JSON);
}

/* ---- a whole text ---- */

typedef struct collected {
    text_buf reasoning, content, arguments, name;
    json_t *calls; /* owned */
} collected;

/* Valid UTF-8 as a JSON string; null when empty and that is what nothing means. */
static json_t *text_json(const text_buf *text, bool null_if_empty) {
    if (!text->length && null_if_empty) return json_null();
    text_buf clean = {0};
    err e = text_buf_add_utf8(&clean, text->data, text->length);
    json_t *value = e.code ? NULL : json_stringn(clean.data ? clean.data : "", clean.length);
    text_buf_free(&clean);
    return value;
}

static err collect_end(collected *c, bool cut) {
    json_t *call = json_object();
    int bad = json_object_set_new(call, "name", text_json(&c->name, false));
    bad |= json_object_set_new(call, "arguments", text_json(&c->arguments, false));
    bad |= json_object_set_new(call, "cut", json_boolean(cut));
    bad |= json_array_append_new(c->calls, call);
    return bad ? err_make(ERR_NOMEM, "no memory for the calls of a message") : err_none();
}

static err collect(void *ctx, const toolcall_event *event) {
    collected *c = ctx;
    switch (event->kind) {
    case TOOLCALL_REASONING: return text_buf_add(&c->reasoning, event->text, event->length);
    case TOOLCALL_CONTENT: return text_buf_add(&c->content, event->text, event->length);
    case TOOLCALL_BEGIN:
        c->arguments.length = c->name.length = 0;
        return text_buf_add(&c->name, event->text, event->length);
    case TOOLCALL_ARGUMENTS: return text_buf_add(&c->arguments, event->text, event->length);
    default: return collect_end(c, event->cut);
    }
}

err toolcall_parse(const toolcall_options *options, const char *text, size_t length, json_t **out) {
    *out = NULL;
    collected c = {.calls = json_array()};
    toolcall_options opt = *options;
    opt.sink = collect;
    opt.ctx = &c;
    toolcall_parser *p = NULL;
    json_t *result = NULL;
    err e = c.calls ? toolcall_open(&opt, &p) : err_make(ERR_NOMEM, "no memory for a message");
    if (!e.code) e = toolcall_push(p, text, length);
    if (!e.code) e = toolcall_finish(p);
    if (!e.code) {
        result = json_object();
        int bad = json_object_set_new(result, "reasoning_content", text_json(&c.reasoning, true));
        bad |= json_object_set_new(result, "content", text_json(&c.content, true));
        bad |= json_object_set(result, "tool_calls", c.calls);
        if (bad) e = err_make(ERR_NOMEM, "no memory for a message");
    }
    if (e.code) {
        json_decref(result);
    } else {
        *out = result;
    }
    toolcall_close(p);
    json_decref(c.calls);
    text_buf_free(&c.reasoning);
    text_buf_free(&c.content);
    text_buf_free(&c.arguments);
    text_buf_free(&c.name);
    return e;
}
