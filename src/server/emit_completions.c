/* emit_completions.c: answers of POST /v1/completions. */
#include <string.h>

#include "server/emit.h"

static json_t *usage(const emit *m) {
    int made = emit_made(m);
    return json_pack("{s:I, s:i, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)m->prompt_tokens,
                     "completion_tokens", made, "total_tokens", (json_int_t)m->prompt_tokens + made,
                     "prompt_tokens_details", "cached_tokens", (json_int_t)m->cached_tokens);
}

static json_t *head(const emit *m) {
    return json_pack("{s:s, s:s, s:I, s:s}", "id", m->id, "object", "text_completion", "created",
                     (json_int_t)m->created, "model", m->model);
}

/* The older form: parallel lists. at: where in the text the first token begins. */
static json_t *old_logprobs(const json_t *tokens, size_t at) {
    json_t *texts = json_array(), *values = json_array(), *tops = json_array();
    json_t *offsets = json_array();
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *t = json_array_get(tokens, i), *alternatives;
        json_t *top = json_object();
        json_array_append(texts, json_object_get(t, "token"));
        json_array_append(values, json_object_get(t, "logprob"));
        json_array_append_new(offsets, json_integer((json_int_t)at));
        at += json_string_length(json_object_get(t, "token"));
        alternatives = json_object_get(t, "top_logprobs");
        for (size_t k = 0; k < json_array_size(alternatives); k++) {
            const json_t *a = json_array_get(alternatives, k);
            json_object_set(top, json_string_value(json_object_get(a, "token")),
                            json_object_get(a, "logprob"));
        }
        json_array_append_new(tops, top);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", texts, "token_logprobs", values,
                     "top_logprobs", tops, "text_offset", offsets);
}

static const char *reason(const reply *y) { return y->finish == FINISH_LENGTH ? "length" : "stop"; }

static err chunk(emit *m, int choice, json_t *text, const char *why, json_t *logprobs) {
    json_t *all = head(m);
    json_t *lp = json_null();
    if (logprobs) {
        const reply *y = &m->replies[choice];
        size_t before = y->content.length - json_string_length(text);
        lp = old_logprobs(logprobs, before);
    }
    json_object_set_new(all, "choices",
                        json_pack("[{s:i, s:o, s:o, s:s?}]", "index", choice, "text", text,
                                  "logprobs", lp, "finish_reason", why));
    if (m->r->include_usage) json_object_set_new(all, "usage", json_null());
    return emit_event(m, NULL, all);
}

static err begin(emit *m) {
    for (int i = 0; i < m->n && m->r->stream && m->r->echo; i++)
        TRY(chunk(m, i, json_string(m->echo[i]), NULL, NULL));
    return err_none();
}

static err put(emit *m, int choice, const piece *p) {
    if (!m->r->stream || p->kind != PIECE_CONTENT) return err_none();
    return chunk(m, choice, json_stringn(p->text, p->length), NULL, p->logprobs);
}

static err choice_end(emit *m, int choice) {
    if (!m->r->stream) return err_none();
    return chunk(m, choice, json_string(""), reason(&m->replies[choice]), NULL);
}

static err end(emit *m) {
    json_t *all = head(m);
    json_t *choices = json_array();
    json_object_set_new(all, "choices", choices);
    if (m->r->stream) {
        json_object_set_new(all, "usage", usage(m));
        if (m->r->include_usage) {
            TRY(emit_event(m, NULL, all));
        } else {
            json_decref(all);
        }
        return text_buf_add_text(&m->out, "data: [DONE]\n\n");
    }
    for (int i = 0; i < m->n; i++) {
        reply *y = &m->replies[i];
        const char *before = m->r->echo ? m->echo[i] : "";
        json_t *text = json_sprintf("%s%s", before, y->content.data ? y->content.data : "");
        if (!text) text = json_string("");
        json_array_append_new(
            choices,
            json_pack("{s:i, s:o, s:s, s:o}", "index", i, "text", text, "finish_reason", reason(y),
                      "logprobs",
                      y->logprobs ? old_logprobs(y->logprobs, strlen(before)) : json_null()));
    }
    json_object_set_new(all, "usage", usage(m));
    return emit_json(m, all);
}

static err fail(emit *m, const char *type, const char *message) {
    return emit_chat.fail(m, type, message);
}

const emit_ops emit_completions = {": keep-alive\n\n", begin, put, choice_end, end, fail};
