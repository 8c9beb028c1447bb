/* emit_chat.c: answers of POST /v1/chat/completions. Reasoning is delta.reasoning_content, as the
 * servers of open models name it. */
#include "server/emit.h"

static json_t *usage(const emit *m) {
    int made = emit_made(m);
    return json_pack("{s:I, s:i, s:I, s:{s:I}, s:{s:i}}", "prompt_tokens",
                     (json_int_t)m->prompt_tokens, "completion_tokens", made, "total_tokens",
                     (json_int_t)m->prompt_tokens + made, "prompt_tokens_details", "cached_tokens",
                     (json_int_t)m->cached_tokens, "completion_tokens_details", "reasoning_tokens",
                     emit_reasoned(m));
}

static json_t *head(const emit *m, const char *object) {
    return json_pack("{s:s, s:s, s:I, s:s}", "id", m->id, "object", object, "created",
                     (json_int_t)m->created, "model", m->model);
}

static const char *reason(const reply *y) {
    switch (y->finish) {
    case FINISH_LENGTH: return "length";
    case FINISH_CALLS: return "tool_calls";
    case FINISH_STOP:
    case FINISH_STOP_STRING:
    case FINISH_CANCELLED:
    case FINISH_ERROR: break;
    }
    return "stop";
}

/* One chunk with this delta (taken). */
static err chunk(emit *m, int choice, json_t *delta, const char *why, json_t *logprobs) {
    json_t *c =
        json_pack("{s:i, s:o, s:s?}", "index", choice, "delta", delta, "finish_reason", why);
    if (logprobs)
        json_object_set_new(c, "logprobs", json_pack("{s:O, s:n}", "content", logprobs, "refusal"));
    json_t *all = head(m, "chat.completion.chunk");
    json_object_set_new(all, "choices", json_pack("[o]", c));
    if (m->r->include_usage) json_object_set_new(all, "usage", json_null());
    return emit_event(m, NULL, all);
}

static err begin(emit *m) {
    for (int i = 0; i < m->n && m->r->stream; i++)
        TRY(chunk(m, i, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL, NULL));
    return err_none();
}

static err put(emit *m, int choice, const piece *p) {
    if (!m->r->stream) return err_none();
    json_t *delta = NULL;
    switch (p->kind) {
    case PIECE_REASONING:
        delta = json_pack("{s:s%}", "reasoning_content", p->text, p->length);
        break;
    case PIECE_CONTENT: delta = json_pack("{s:s%}", "content", p->text, p->length); break;
    case PIECE_CALL:
        delta = json_pack("{s:[{s:i, s:s, s:s, s:{s:s%, s:s}}]}", "tool_calls", "index", p->call,
                          "id", m->replies[choice].calls[p->call].id, "type", "function",
                          "function", "name", p->text, p->length, "arguments", "");
        break;
    case PIECE_ARGUMENTS:
        delta = json_pack("{s:[{s:i, s:{s:s%}}]}", "tool_calls", "index", p->call, "function",
                          "arguments", p->text, p->length);
        break;
    case PIECE_CALL_END: return err_none();
    }
    return chunk(m, choice, delta, NULL, p->logprobs);
}

static err choice_end(emit *m, int choice) {
    if (!m->r->stream) return err_none();
    return chunk(m, choice, json_object(), reason(&m->replies[choice]), NULL);
}

static json_t *whole(emit *m) {
    json_t *choices = json_array();
    for (int i = 0; i < m->n; i++) {
        reply *y = &m->replies[i];
        json_t *message = reply_message(y);
        json_object_set_new(message, "refusal", json_null());
        json_t *c = json_pack("{s:i, s:o, s:s, s:n}", "index", i, "message", message,
                              "finish_reason", reason(y), "logprobs");
        if (y->logprobs)
            json_object_set_new(c, "logprobs",
                                json_pack("{s:O, s:n}", "content", y->logprobs, "refusal"));
        json_array_append_new(choices, c);
    }
    json_t *all = head(m, "chat.completion");
    json_object_set_new(all, "choices", choices);
    json_object_set_new(all, "usage", usage(m));
    return all;
}

static err end(emit *m) {
    if (!m->r->stream) return emit_json(m, whole(m));
    if (m->r->include_usage) {
        json_t *last = head(m, "chat.completion.chunk");
        json_object_set_new(last, "choices", json_array());
        json_object_set_new(last, "usage", usage(m));
        TRY(emit_event(m, NULL, last));
    }
    return text_buf_add_text(&m->out, "data: [DONE]\n\n");
}

static err fail(emit *m, const char *type, const char *message) {
    return emit_event(m, NULL,
                      json_pack("{s:{s:s, s:s, s:n, s:n}}", "error", "message", message, "type",
                                type, "param", "code"));
}

const emit_ops emit_chat = {": keep-alive\n\n", begin, put, choice_end, end, fail};
