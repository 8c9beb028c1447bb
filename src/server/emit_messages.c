/* emit_messages.c: answers of POST /v1/messages.
 *
 *     message_start
 *       content_block_start, content_block_delta ..., content_block_stop     (thinking, text,
 *       ...                                                                   tool_use)
 *     message_delta (stop_reason, usage), message_stop
 *
 * One block is open at a time. Thinking ends with a signature_delta, as clients expect; ours says
 * only who wrote it. Without streaming the same code only collects the blocks. */
#include <stdlib.h>
#include <string.h>

#include "server/emit.h"

#define SIGNATURE "flashchat"

static json_t *usage(const emit *m, int made) {
    return json_pack("{s:I, s:i, s:I, s:i}", "input_tokens",
                     (json_int_t)(m->prompt_tokens - m->cached_tokens),
                     "cache_creation_input_tokens", 0, "cache_read_input_tokens",
                     (json_int_t)m->cached_tokens, "output_tokens", made);
}

static err begin(emit *m) {
    TRY(emit_event(m, "message_start",
                   json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:[], s:n, s:n, s:o}}", "type",
                             "message_start", "message", "id", m->id, "type", "message", "role",
                             "assistant", "model", m->model, "content", "stop_reason",
                             "stop_sequence", "usage", usage(m, 0))));
    return emit_event(m, "ping", json_pack("{s:s}", "type", "ping"));
}

static int index_now(const emit *m) { return (int)json_array_size(m->items); }

static err delta(emit *m, json_t *what) {
    return emit_event(m, "content_block_delta",
                      json_pack("{s:s, s:i, s:o}", "type", "content_block_delta", "index",
                                index_now(m), "delta", what));
}

static err open_block(emit *m, int kind, const piece *p, int choice) {
    json_decref(m->item);
    m->kind = kind;
    m->text.length = 0;
    if (kind == PIECE_REASONING) {
        m->item = json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", "");
    } else if (kind == PIECE_CONTENT) {
        m->item = json_pack("{s:s, s:s}", "type", "text", "text", "");
    } else {
        const reply_call *c = &m->replies[choice].calls[p->call];
        m->item = json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", c->id, "name",
                            c->name, "input");
    }
    if (!m->item) return err_make(ERR_NOMEM, "no memory for an answer");
    return emit_event(m, "content_block_start",
                      json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index",
                                index_now(m), "content_block", json_deep_copy(m->item)));
}

static err close_block(emit *m) {
    if (m->kind < 0) return err_none();
    json_t *text = json_stringn(m->text.data ? m->text.data : "", m->text.length);
    if (m->kind == PIECE_CALL) {
        json_t *input = json_loadb(m->text.data ? m->text.data : "{}",
                                   m->text.data ? m->text.length : 2, JSON_ALLOW_NUL, NULL);
        json_object_set_new(m->item, "input", input ? input : json_object());
        json_decref(text);
    } else if (m->kind == PIECE_CONTENT) {
        json_object_set_new(m->item, "text", text);
    } else {
        TRY(delta(m, json_pack("{s:s, s:s}", "type", "signature_delta", "signature", SIGNATURE)));
        json_object_set_new(m->item, "thinking", text);
        json_object_set_new(m->item, "signature", json_string(SIGNATURE));
    }
    TRY(emit_event(m, "content_block_stop",
                   json_pack("{s:s, s:i}", "type", "content_block_stop", "index", index_now(m))));
    json_array_append(m->items, m->item);
    m->kind = -1;
    return err_none();
}

static err put(emit *m, int choice, const piece *p) {
    if (p->kind == PIECE_CALL_END) return close_block(m);
    int kind = p->kind == PIECE_ARGUMENTS ? PIECE_CALL : (int)p->kind;
    if (m->kind != kind || p->kind == PIECE_CALL) {
        TRY(close_block(m));
        TRY(open_block(m, kind, p, choice));
        if (p->kind == PIECE_CALL) return err_none();
    }
    TRY(text_buf_add(&m->text, p->text, p->length));
    static const char *const names[][2] = {[PIECE_REASONING] = {"thinking_delta", "thinking"},
                                           [PIECE_CONTENT] = {"text_delta", "text"},
                                           [PIECE_CALL] = {"input_json_delta", "partial_json"}};
    return delta(
        m, json_pack("{s:s, s:s%}", "type", names[kind][0], names[kind][1], p->text, p->length));
}

static err choice_end(emit *m, int choice) {
    (void)choice;
    return close_block(m);
}

static const char *reason(const reply *y) {
    switch (y->finish) {
    case FINISH_LENGTH: return "max_tokens";
    case FINISH_CALLS: return "tool_use";
    case FINISH_STOP_STRING: return "stop_sequence";
    case FINISH_STOP:
    case FINISH_CANCELLED:
    case FINISH_ERROR: break;
    }
    return "end_turn";
}

static json_t *stop_text(const emit *m) {
    const reply *y = &m->replies[0];
    return y->finish == FINISH_STOP_STRING
               ? json_incref(json_array_get(m->r->stop, (size_t)y->stop))
               : json_null();
}

static err end(emit *m) {
    const reply *y = &m->replies[0];
    if (!m->r->stream)
        return emit_json(m, json_pack("{s:s, s:s, s:s, s:s, s:O, s:s, s:o, s:o}", "id", m->id,
                                      "type", "message", "role", "assistant", "model", m->model,
                                      "content", m->items, "stop_reason", reason(y),
                                      "stop_sequence", stop_text(m), "usage", usage(m, y->tokens)));
    TRY(emit_event(m, "message_delta",
                   json_pack("{s:s, s:{s:s, s:o}, s:o}", "type", "message_delta", "delta",
                             "stop_reason", reason(y), "stop_sequence", stop_text(m), "usage",
                             usage(m, y->tokens))));
    return emit_event(m, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static err fail(emit *m, const char *type, const char *message) {
    return emit_event(m, "error",
                      json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", type,
                                "message", message));
}

const emit_ops emit_messages = {
    "event: ping\ndata: {\"type\":\"ping\"}\n\n", begin, put, choice_end, end, fail};
