/* toolcall_json.c: a call whose body is a JSON object, {"name": ..., "arguments": {...}}.
 *
 * The object goes through json_repair, so that `text` is always a prefix of valid JSON; a small
 * scanner walks over it and notes the pairs of the outermost object. Arguments stream as soon as
 * the name is known in front of them; in any other order they wait for the end. Also understood:
 * "parameters" for "arguments", arguments as a string that contains JSON, the pair inside
 * {"function": {...}}, and arguments written beside the name. An object without a name is no call:
 * it goes out as text, exactly as it was written. */
#include <stdlib.h>
#include <string.h>

#include "text/toolcall_impl.h"

static void reset(json_state *j) {
    json_state fresh = {.text = j->text, .name = j->name, .rest = j->rest};
    fresh.text.length = fresh.name.length = fresh.rest.length = 0;
    *j = fresh;
}

static bool key_is(const json_state *j, const char *key) {
    size_t n = j->key_end - j->key_start;
    return n == strlen(key) && !memcmp(j->text.data + j->key_start, key, n);
}

static bool is_arguments_key(const json_state *j) {
    return key_is(j, "arguments") || key_is(j, "parameters");
}

/* The text of a JSON string literal; empty when it is none or holds a zero byte. */
static err unquote(const char *literal, size_t length, text_buf *out) {
    out->length = 0;
    json_error_t why;
    json_t *value = json_loadb(literal, length, JSON_DECODE_ANY, &why);
    err e = err_none();
    if (json_is_string(value)) e = text_buf_add_text(out, json_string_value(value));
    json_decref(value);
    return e;
}

/* One pair of the outermost object is complete; its value is text[value_start .. end). */
static err end_pair(json_state *j, size_t end) {
    if (!j->has_value) return err_none();
    j->has_value = false;
    const char *value = j->text.data + j->value_start;
    size_t length = end - j->value_start;
    if (key_is(j, "name")) return j->name.length ? err_none() : unquote(value, length, &j->name);
    if (is_arguments_key(j)) {
        if (!j->has_arguments) {
            j->has_arguments = true;
            j->arguments = j->value_start;
        }
        if (!j->arguments_end) j->arguments_end = end;
        return err_none();
    }
    if (key_is(j, "id") || key_is(j, "type") || key_is(j, "index")) return err_none();
    TRY(text_buf_add_text(&j->rest, j->rest.length ? ", " : "{"));
    TRY(text_buf_add(&j->rest, j->text.data + j->key_start - 1, end - j->key_start + 1));
    if (!j->first_rest) j->first_rest = j->rest.length;
    return err_none();
}

static err scan_plain(json_state *j, size_t i, char c) {
    bool outermost = j->depth == 1;
    bool starts = c != '}' && c != ']' && c != ',' && c != ':' && !toolcall_is_space(c);
    if (outermost && j->want_key && c == '"') {
        j->key_start = j->key_end = i + 1;
    } else if (outermost && starts && !j->has_value) {
        j->has_value = true;
        j->value_start = i;
    }
    j->in_string = c == '"';
    if (c == '{' || c == '[') {
        if (!j->depth) j->want_key = true;
        j->depth++;
    }
    if (outermost && c == ':') j->want_key = false;
    if (outermost && (c == ',' || c == '}')) TRY(end_pair(j, i));
    if (outermost && c == ',') j->want_key = true;
    if (c == '}' || c == ']') j->depth--;
    return err_none();
}

/* Is the value that begins at the scanner the arguments, ready to stream? */
static bool may_stream(const toolcall_parser *p) {
    const json_state *j = &p->json;
    if (!j->name.length || j->has_arguments || !is_arguments_key(j)) return false;
    return !p->known_only || toolcall_known(p->opt.tools, j->name.data);
}

static err begin_stream(toolcall_parser *p, size_t at) {
    json_state *j = &p->json;
    j->streaming = j->has_arguments = true;
    j->arguments = j->sent = at;
    return toolcall_begin(p, j->name.data);
}

static err scan(toolcall_parser *p) {
    json_state *j = &p->json;
    for (; j->scanned < j->text.length; j->scanned++) {
        size_t i = j->scanned;
        char c = j->text.data[i];
        if (j->in_string) {
            bool ends = c == '"' && !j->escape;
            j->escape = c == '\\' && !j->escape;
            if (ends) j->in_string = false;
            if (ends && j->depth == 1 && j->want_key) j->key_end = i;
            continue;
        }
        bool opens = c == '{' && j->depth == 1 && !j->want_key && !j->has_value;
        TRY(scan_plain(j, i, c));
        if (opens && may_stream(p)) TRY(begin_stream(p, i));
        if (c == '}' && j->depth == 1 && j->streaming && !j->arguments_end) {
            j->arguments_end = i + 1;
        }
    }
    if (!j->streaming) return err_none();
    size_t end = j->arguments_end ? j->arguments_end : j->text.length, from = j->sent;
    j->sent = end;
    return toolcall_arguments(p, j->text.data + from, end - from);
}

/* ---- the end of the object ---- */

/* {"function": {"name": ..., "arguments": ...}}: the inner object takes the place of the outer.
 * What stands behind it is no part of the call. */
static err unwrap(toolcall_parser *p) {
    json_state *j = &p->json;
    static const char wrapped[] = "{\"function\": {";
    size_t skip = sizeof wrapped - 2;
    if (j->name.length || j->rest.length <= skip || memcmp(j->rest.data, wrapped, skip + 1)) {
        return err_none();
    }
    text_buf inner = {0};
    err e = text_buf_add(&inner, j->rest.data + skip, j->first_rest - skip);
    reset(j);
    if (!e.code) e = text_buf_add(&j->text, inner.data, inner.length);
    bool known_only = p->known_only;
    text_buf_free(&inner);
    if (!e.code) e = scan(p);
    p->known_only = known_only;
    return e;
}

static err send_arguments(toolcall_parser *p) {
    json_state *j = &p->json;
    if (!j->has_arguments) {
        if (!j->rest.length) return toolcall_arguments(p, "{}", 2);
        TRY(text_buf_add_byte(&j->rest, '}'));
        return toolcall_arguments(p, j->rest.data, j->rest.length);
    }
    const char *value = j->text.data + j->arguments;
    size_t length = j->arguments_end - j->arguments, used;
    if (length == 4 && !memcmp(value, "null", 4)) return toolcall_arguments(p, "{}", 2);
    if (*value != '"') return toolcall_arguments(p, value, length);
    text_buf inner = {0}, json = {0};
    err e = unquote(value, length, &inner);
    size_t space = 0;
    while (space < inner.length && toolcall_is_space(inner.data[space])) space++;
    if (!e.code && space < inner.length && inner.data[space] == '{') {
        json_repair_reset(&p->repair);
        e = json_repair_push(&p->repair, inner.data, inner.length, &json, &used);
        if (!e.code) e = json_repair_end(&p->repair, &json);
        value = json.data;
        length = json.length;
    }
    if (!e.code) e = toolcall_arguments(p, value, length);
    text_buf_free(&inner);
    text_buf_free(&json);
    return e;
}

static err reject(toolcall_parser *p) {
    toolcall_event_kind kind = p->resume == MODE_THINK ? TOOLCALL_REASONING : TOOLCALL_CONTENT;
    p->mode = p->resume;
    p->skip_space = p->may_think = false;
    TRY(toolcall_text(p, kind, p->held.data, p->held.length));
    p->held.length = 0;
    return toolcall_text(p, kind, p->raw.data, p->raw.length);
}

static err end_object(toolcall_parser *p, toolcall_mode next, bool cut) {
    json_state *j = &p->json;
    TRY(json_repair_end(&p->repair, &j->text));
    TRY(scan(p));
    if (!j->streaming) {
        TRY(unwrap(p));
        bool good = j->name.length && j->name.length <= TOOLCALL_NAME_MAX;
        if (good && p->known_only) good = toolcall_known(p->opt.tools, j->name.data);
        if (!good && !j->streaming) return reject(p);
        if (!j->streaming) {
            TRY(toolcall_begin(p, j->name.data));
            TRY(send_arguments(p));
        }
    }
    p->mode = next;
    return toolcall_end(p, cut);
}

/* ---- steps ---- */

/* Does </tool_call> at the '<' here end the call? Inside a string only on a line of its own or
 * before another call or the end. */
static match closes(const toolcall_parser *p) {
    const toolcall_tags *t = p->opt.format->tags;
    match m = toolcall_match(p, 0, t->close);
    if (m != MATCH_YES || !json_repair_in_string(&p->repair) || p->json.newline) return m;
    size_t next;
    m = toolcall_skip_space(p, strlen(t->close), &next);
    if (m != MATCH_YES) return m;
    return next == toolcall_left(p) ? MATCH_YES : toolcall_match(p, next, t->open);
}

static err object_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p), n = 0, used;
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    const char *here = toolcall_here(p);
    if (here[0] == '<') {
        match m = closes(p);
        if (m == MATCH_MORE) {
            *result = STEP_MORE;
            return err_none();
        }
        if (m == MATCH_YES) {
            n = strlen(p->opt.format->tags->close);
            TRY(text_buf_add(&p->raw, here, n));
            p->at += n;
            return end_object(p, MODE_TEXT, false);
        }
        n = 1;
    }
    while (n < left && here[n] != '<') n++;
    TRY(json_repair_push(&p->repair, here, n, &p->json.text, &used));
    if (!p->json.streaming) TRY(text_buf_add(&p->raw, here, used));
    if (used) p->json.newline = here[used - 1] == '\n';
    p->at += used;
    TRY(scan(p));
    return json_repair_done(&p->repair) ? end_object(p, MODE_TAIL, false) : err_none();
}

static err tail_step(toolcall_parser *p, step_result *result) {
    if (!toolcall_left(p)) {
        *result = STEP_MORE;
        return err_none();
    }
    char c = toolcall_here(p)[0];
    match close = toolcall_match(p, 0, p->opt.format->tags->close);
    if (close == MATCH_YES) {
        p->at += strlen(p->opt.format->tags->close);
        p->mode = MODE_TEXT;
    } else if (close == MATCH_MORE) {
        *result = STEP_MORE;
    } else if (toolcall_is_space(c) || c == '}' || c == ']') {
        p->at++; /* one closer too many is as common as one too few */
    } else {
        p->mode = MODE_TEXT;
    }
    return err_none();
}

err toolcall_json_begin(toolcall_parser *p) {
    p->mode = MODE_JSON;
    reset(&p->json);
    json_repair_reset(&p->repair);
    return err_none();
}

err toolcall_json_step(toolcall_parser *p, step_result *result) {
    return p->mode == MODE_JSON ? object_step(p, result) : tail_step(p, result);
}

err toolcall_json_finish(toolcall_parser *p) { return end_object(p, MODE_TEXT, true); }
