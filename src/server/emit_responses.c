/* emit_responses.c: answers of POST /v1/responses: a list of items that open, grow and close.
 *
 *     response.created, response.in_progress
 *       response.output_item.added
 *         response.content_part.added, response.output_text.delta ..., .done, content_part.done
 *       | response.content_part.added, response.reasoning_text.delta ..., .done, content_part.done
 *       | response.function_call_arguments.delta ..., .done
 *       response.output_item.done
 *     response.completed | response.incomplete | response.failed
 *
 * One item is open at a time. Without streaming the same code only collects the items. */
#include <stdlib.h>
#include <string.h>

#include "server/emit.h"

static json_t *usage(const emit *m) {
    int made = emit_made(m);
    return json_pack("{s:I, s:{s:I}, s:i, s:{s:i}, s:I}", "input_tokens",
                     (json_int_t)m->prompt_tokens, "input_tokens_details", "cached_tokens",
                     (json_int_t)m->cached_tokens, "output_tokens", made, "output_tokens_details",
                     "reasoning_tokens", emit_reasoned(m), "total_tokens",
                     (json_int_t)m->prompt_tokens + made);
}

/* What the request said comes back; "otherwise" is JSON text. */
static void echo(json_t *to, const emit *m, const char *key, const char *otherwise) {
    json_t *v = json_object_get(m->r->body, key);
    if (v && !json_is_null(v)) {
        json_object_set(to, key, v);
    } else {
        json_object_set_new(to, key, json_loads(otherwise, JSON_DECODE_ANY, NULL));
    }
}

static json_t *response(emit *m, const char *status, bool over) {
    static const char *const fields[][2] = {
        {"background", "false"},
        {"instructions", "null"},
        {"max_output_tokens", "null"},
        {"max_tool_calls", "null"},
        {"parallel_tool_calls", "true"},
        {"previous_response_id", "null"},
        {"prompt_cache_key", "null"},
        {"reasoning", "{\"effort\": null, \"summary\": null}"},
        {"safety_identifier", "null"},
        {"text", "{\"format\": {\"type\": \"text\"}}"},
        {"tool_choice", "\"auto\""},
        {"tools", "[]"},
        {"top_logprobs", "0"},
        {"truncation", "\"disabled\""},
        {"user", "null"},
        {"metadata", "{}"},
    };
    json_t *all = json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:n, s:O, s:b, s:s}", "id", m->id,
                            "object", "response", "created_at", (json_int_t)m->created, "status",
                            status, "model", m->model, "error", "incomplete_details", "output",
                            m->items, "store", 0, "service_tier", "default");
    for (size_t i = 0; all && i < sizeof fields / sizeof *fields; i++)
        echo(all, m, fields[i][0], fields[i][1]);
    json_object_set_new(all, "temperature", json_real((double)m->r->sampling.temperature));
    json_object_set_new(all, "top_p", json_real((double)m->r->sampling.top_p));
    json_object_set_new(all, "usage", over ? usage(m) : json_null());
    return all;
}

/* An event with its type and number in front (data is taken and completed). */
static err event(emit *m, const char *type, json_t *data) {
    json_t *all = json_pack("{s:s, s:i}", "type", type, "sequence_number", m->sequence++);
    if (!all || !data || json_object_update(all, data) != 0) {
        json_decref(all);
        all = NULL;
    }
    json_decref(data);
    return emit_event(m, type, all);
}

static err begin(emit *m) {
    TRY(event(m, "response.created",
              json_pack("{s:o}", "response", response(m, "in_progress", false))));
    return event(m, "response.in_progress",
                 json_pack("{s:o}", "response", response(m, "in_progress", false)));
}

/* ---- items ---- */

static int index_now(const emit *m) { return (int)json_array_size(m->items); }
static const char *item_id(const emit *m) {
    return json_string_value(json_object_get(m->item, "id"));
}

static json_t *text_part(emit *m, bool filled) {
    const char *text = filled && m->text.data ? m->text.data : "";
    size_t n = filled ? m->text.length : 0;
    if (m->kind == PIECE_REASONING)
        return json_pack("{s:s, s:s%}", "type", "reasoning_text", "text", text, n);
    json_t *tokens = filled && m->tokens ? json_incref(m->tokens) : json_array();
    return json_pack("{s:s, s:s%, s:[], s:o}", "type", "output_text", "text", text, n,
                     "annotations", "logprobs", tokens);
}

static err part_event(emit *m, const char *type, bool filled) {
    return event(m, type,
                 json_pack("{s:s, s:i, s:i, s:o}", "item_id", item_id(m), "output_index",
                           index_now(m), "content_index", 0, "part", text_part(m, filled)));
}

static err open_item(emit *m, int kind, const piece *p, int choice) {
    char id[40];
    json_decref(m->item);
    m->kind = kind;
    m->text.length = 0;
    if (kind == PIECE_REASONING) {
        reply_id("rs_", id, sizeof id);
        m->item = json_pack("{s:s, s:s, s:[], s:[], s:n, s:s}", "id", id, "type", "reasoning",
                            "summary", "content", "encrypted_content", "status", "in_progress");
    } else if (kind == PIECE_CONTENT) {
        reply_id("msg_", id, sizeof id);
        m->item = json_pack("{s:s, s:s, s:s, s:s, s:[]}", "id", id, "type", "message", "status",
                            "in_progress", "role", "assistant", "content");
        json_decref(m->tokens);
        m->tokens = json_array();
    } else {
        reply_id("fc_", id, sizeof id);
        const reply_call *c = &m->replies[choice].calls[p->call];
        m->item =
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "id", id, "type", "function_call", "status",
                      "in_progress", "call_id", c->id, "name", c->name, "arguments", "");
    }
    if (!m->item) return err_make(ERR_NOMEM, "no memory for an answer");
    TRY(event(
        m, "response.output_item.added",
        json_pack("{s:i, s:o}", "output_index", index_now(m), "item", json_deep_copy(m->item))));
    return kind == PIECE_CALL ? err_none() : part_event(m, "response.content_part.added", false);
}

static err text_done(emit *m) {
    bool thought = m->kind == PIECE_REASONING;
    json_t *done =
        json_pack("{s:s, s:i, s:i, s:s%}", "item_id", item_id(m), "output_index", index_now(m),
                  "content_index", 0, "text", m->text.data ? m->text.data : "", m->text.length);
    if (!thought) json_object_set(done, "logprobs", m->tokens);
    TRY(event(m, thought ? "response.reasoning_text.done" : "response.output_text.done", done));
    json_object_set_new(m->item, "content", json_pack("[o]", text_part(m, true)));
    return part_event(m, "response.content_part.done", true);
}

static err call_done(emit *m) {
    const char *text = m->text.data ? m->text.data : "{}";
    json_object_set_new(m->item, "arguments", json_string(text));
    return event(m, "response.function_call_arguments.done",
                 json_pack("{s:s, s:i, s:s, s:O}", "item_id", item_id(m), "output_index",
                           index_now(m), "arguments", text, "name",
                           json_object_get(m->item, "name")));
}

static err close_item(emit *m, const char *status) {
    if (m->kind < 0) return err_none();
    TRY(m->kind == PIECE_CALL ? call_done(m) : text_done(m));
    json_object_set_new(m->item, "status", json_string(status));
    TRY(event(m, "response.output_item.done",
              json_pack("{s:i, s:O}", "output_index", index_now(m), "item", m->item)));
    json_array_append(m->items, m->item);
    m->kind = -1;
    return err_none();
}

static err put(emit *m, int choice, const piece *p) {
    int kind = p->kind == PIECE_ARGUMENTS || p->kind == PIECE_CALL_END ? PIECE_CALL : (int)p->kind;
    if (p->kind == PIECE_CALL_END) return close_item(m, "completed");
    if (m->kind != kind || p->kind == PIECE_CALL) {
        TRY(close_item(m, "completed"));
        TRY(open_item(m, kind, p, choice));
        if (p->kind == PIECE_CALL) return err_none();
    }
    TRY(text_buf_add(&m->text, p->text, p->length));
    json_t *delta = json_pack("{s:s, s:i, s:s%}", "item_id", item_id(m), "output_index",
                              index_now(m), "delta", p->text, p->length);
    if (kind == PIECE_CALL) return event(m, "response.function_call_arguments.delta", delta);
    json_object_set_new(delta, "content_index", json_integer(0));
    if (kind == PIECE_REASONING) return event(m, "response.reasoning_text.delta", delta);
    if (p->logprobs) json_array_extend(m->tokens, p->logprobs);
    json_object_set_new(delta, "logprobs", p->logprobs ? json_incref(p->logprobs) : json_array());
    return event(m, "response.output_text.delta", delta);
}

static err choice_end(emit *m, int choice) {
    bool cut = m->replies[choice].finish == FINISH_LENGTH;
    if (m->kind < 0 && !json_array_size(m->items) && !cut)
        TRY(open_item(m, PIECE_CONTENT, NULL, choice)); /* an empty answer is a message too */
    return close_item(m, cut ? "incomplete" : "completed");
}

static err end(emit *m) {
    bool cut = m->replies[0].finish == FINISH_LENGTH;
    json_t *all = response(m, cut ? "incomplete" : "completed", true);
    if (cut)
        json_object_set_new(all, "incomplete_details",
                            json_pack("{s:s}", "reason", "max_output_tokens"));
    if (!m->r->stream) return emit_json(m, all);
    return event(m, cut ? "response.incomplete" : "response.completed",
                 json_pack("{s:o}", "response", all));
}

static err fail(emit *m, const char *type, const char *message) {
    (void)type;
    json_t *all = response(m, "failed", true);
    json_object_set_new(all, "error",
                        json_pack("{s:s, s:s}", "code", "server_error", "message", message));
    return event(m, "response.failed", json_pack("{s:o}", "response", all));
}

const emit_ops emit_responses = {": keep-alive\n\n", begin, put, choice_end, end, fail};
