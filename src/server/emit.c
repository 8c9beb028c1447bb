/* emit.c: what the emitters share (see emit.h). */
#include "server/emit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

const emit_ops *emit_for(request_api api) {
    static const emit_ops *const all[] = {
        [API_CHAT] = &emit_chat,           [API_COMPLETIONS] = &emit_completions,
        [API_RESPONSES] = &emit_responses, [API_MESSAGES] = &emit_messages,
        [API_TEMPLATE] = &emit_chat,
    };
    return all[api];
}

err emit_open(const request *r, const char *model, reply *replies, int n, emit *m) {
    static const char *const prefixes[] = {
        [API_CHAT] = "chatcmpl-", [API_COMPLETIONS] = "cmpl-",  [API_RESPONSES] = "resp_",
        [API_MESSAGES] = "msg_",  [API_TEMPLATE] = "chatcmpl-",
    };
    memset(m, 0, sizeof *m);
    m->ops = emit_for(r->api);
    m->r = r;
    m->model = model;
    m->replies = replies;
    m->n = n;
    m->created = time(NULL);
    m->kind = -1;
    m->items = json_array();
    reply_id(prefixes[r->api], m->id, sizeof m->id);
    return m->items ? err_none() : err_make(ERR_NOMEM, "no memory for an answer");
}

void emit_close(emit *m) {
    json_decref(m->items);
    json_decref(m->item);
    json_decref(m->tokens);
    text_buf_free(&m->out);
    text_buf_free(&m->text);
    memset(m, 0, sizeof *m);
}

static int dump(const char *bytes, size_t n, void *ctx) {
    return text_buf_add(ctx, bytes, n).code ? -1 : 0;
}

static err dump_json(json_t *data, text_buf *out) {
    int rc = data ? json_dump_callback(data, dump, out, JSON_COMPACT | JSON_ENCODE_ANY) : -1;
    json_decref(data);
    return rc == 0 ? err_none() : err_make(ERR_NOMEM, "no memory for an answer");
}

err emit_json(emit *m, json_t *data) { return dump_json(data, &m->out); }

err emit_event(emit *m, const char *event, json_t *data) {
    if (!m->r->stream) {
        json_decref(data);
        return err_none();
    }
    err e = err_none();
    if (event) {
        e = text_buf_add_text(&m->out, "event: ");
        if (!e.code) e = text_buf_add_text(&m->out, event);
        if (!e.code) e = text_buf_add_text(&m->out, "\n");
    }
    if (!e.code) e = text_buf_add_text(&m->out, "data: ");
    if (e.code) {
        json_decref(data);
        return e;
    }
    TRY(dump_json(data, &m->out));
    return text_buf_add_text(&m->out, "\n\n");
}

int emit_made(const emit *m) {
    int sum = 0;
    for (int i = 0; i < m->n; i++) sum += m->replies[i].tokens;
    return sum;
}

int emit_reasoned(const emit *m) {
    int sum = 0;
    for (int i = 0; i < m->n; i++) sum += m->replies[i].reasoning_tokens;
    return sum;
}

const char *emit_error_type(request_api api, int status) {
    bool anthropic = api == API_MESSAGES;
    switch (status) {
    case 401: return "authentication_error";
    case 403: return anthropic ? "permission_error" : "permission_denied_error";
    case 404: return anthropic ? "not_found_error" : "invalid_request_error";
    case 408: return anthropic ? "timeout_error" : "timeout";
    case 413: return anthropic ? "request_too_large" : "invalid_request_error";
    case 429: return "rate_limit_error";
    case 503: return anthropic ? "overloaded_error" : "service_unavailable_error";
    default: break;
    }
    if (status < 500) return "invalid_request_error";
    return anthropic ? "api_error" : "server_error";
}

err emit_error(request_api api, int status, const char *param, const char *message, text_buf *out) {
    const char *type = emit_error_type(api, status);
    if (api == API_MESSAGES)
        return dump_json(json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", type,
                                   "message", message),
                         out);
    const char *code = NULL;
    if (status == 401) code = "invalid_api_key";
    if (status == 404) code = param && !strcmp(param, "model") ? "model_not_found" : "not_found";
    if (strstr(message, "context window")) code = "context_length_exceeded";
    return dump_json(json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type",
                               type, "param", param && *param ? param : NULL, "code", code),
                     out);
}
