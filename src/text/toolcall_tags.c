/* toolcall_tags.c: a call whose body is tags. See toolcall.h for the rules, toolcall_impl.h for how
 * steps work.
 *
 *     BODY --<parameter=K>--> VALUE --</parameter>--> BODY
 *     BODY --{--> LOOSE (a JSON body) --}--> BODY
 *     BODY --</function>--> AFTER --</tool_call>--> TEXT
 */
#include <string.h>

#include "text/toolcall_impl.h"

static const toolcall_tags *tags_of(const toolcall_parser *p) { return p->opt.format->tags; }

static match more_or_no(const toolcall_parser *p) { return p->final ? MATCH_NO : MATCH_MORE; }

/* opener NAME end: the name without whitespace around it. */
static match named_tag(const toolcall_parser *p, size_t from, const char *const opener_end[2],
                       char *name, size_t *end) {
    const char *opener = opener_end[0], *closer = opener_end[1];
    match m = toolcall_match(p, from, opener);
    if (m != MATCH_YES) return m;
    const char *text = toolcall_here(p);
    size_t left = toolcall_left(p), begin = from + strlen(opener), i = begin;
    while (i < left && i - begin <= TOOLCALL_NAME_MAX && text[i] && !strchr("\n<>\"", text[i])) i++;
    if (i - begin > TOOLCALL_NAME_MAX) return MATCH_NO;
    if (i == left) return more_or_no(p);
    m = toolcall_match(p, i, closer);
    if (m != MATCH_YES) return m;
    *end = i + strlen(closer);
    while (begin < i && toolcall_is_space(text[begin])) begin++;
    while (i > begin && toolcall_is_space(text[i - 1])) i--;
    if (i == begin) return MATCH_NO;
    memcpy(name, text + begin, i - begin);
    name[i - begin] = '\0';
    return MATCH_YES;
}

match toolcall_function_tag(const toolcall_parser *p, size_t from, char *name, size_t *end) {
    const char *const around[2] = {tags_of(p)->function, tags_of(p)->function_end};
    return named_tag(p, from, around, name, end);
}

static match parameter_tag(const toolcall_parser *p, size_t from, char *name, size_t *end) {
    const char *const around[2] = {tags_of(p)->parameter, tags_of(p)->parameter_end};
    return named_tag(p, from, around, name, end);
}

/* Does one of these (NULL: the end of the text) follow at `from`, after whitespace? */
static match followed_by(const toolcall_parser *p, size_t from, const char *const *words, int n) {
    size_t next;
    match m = toolcall_skip_space(p, from, &next);
    if (m != MATCH_YES) return m;
    match best = MATCH_NO;
    for (int i = 0; i < n; i++) {
        match one = words[i]                   ? toolcall_match(p, next, words[i])
                    : next == toolcall_left(p) ? MATCH_YES
                                               : MATCH_NO;
        if (one == MATCH_YES) return one;
        if (one == MATCH_MORE) best = one;
    }
    return best;
}

/* ---- parameters ---- */

/* keys is "\nfirst\nsecond\n": names have no newline. */
static bool given(const toolcall_parser *p, const char *key) {
    char line[TOOLCALL_NAME_MAX + 3];
    size_t n = strlen(key);
    line[0] = line[n + 1] = '\n';
    memcpy(line + 1, key, n);
    const text_buf *keys = &p->tags.keys;
    return keys->length && memmem(keys->data, keys->length, line, n + 2);
}

static err note_given(toolcall_parser *p, const char *key) {
    if (!p->tags.keys.length) TRY(text_buf_add_byte(&p->tags.keys, '\n'));
    TRY(text_buf_add_text(&p->tags.keys, key));
    return text_buf_add_byte(&p->tags.keys, '\n');
}

static err send_out(toolcall_parser *p) {
    err e = toolcall_arguments(p, p->out.data, p->out.length);
    p->out.length = 0;
    return e;
}

static err begin_parameter(toolcall_parser *p, const char *key) {
    tags_state *t = &p->tags;
    bool known;
    p->mode = MODE_VALUE;
    t->value.length = 0;
    t->first = true;
    t->skip = t->loose || given(p, key);
    if (t->skip) return err_none();
    TRY(note_given(p, key));
    t->types = toolcall_types(p->schema, key, &known);
    t->form = t->types == TYPE_STRING ? VALUE_STRING : VALUE_PENDING;
    TRY(text_buf_add_text(&p->out, t->any ? ", \"" : "{\""));
    TRY(text_buf_add_escaped(&p->out, key, strlen(key)));
    TRY(text_buf_add_text(&p->out, t->form == VALUE_STRING ? "\": \"" : "\": "));
    t->any = true;
    return send_out(p);
}

static err value_bytes(toolcall_parser *p, const char *text, size_t length) {
    tags_state *t = &p->tags;
    if (t->skip || !length) return err_none();
    if (t->form == VALUE_PENDING) {
        TRY(text_buf_add(&t->value, text, length));
        if (!(t->types & TYPE_STRING)) return err_none();
        if (toolcall_could_be(t->types, t->value.data, t->value.length)) return err_none();
        t->form = VALUE_STRING;
        TRY(text_buf_add_byte(&p->out, '"'));
        text = t->value.data;
        length = t->value.length;
    }
    TRY(text_buf_add_escaped(&p->out, text, length));
    return send_out(p);
}

static err end_value(toolcall_parser *p) {
    tags_state *t = &p->tags;
    p->mode = MODE_BODY;
    if (t->skip) return err_none();
    if (t->form == VALUE_STRING) {
        TRY(text_buf_add_byte(&p->out, '"'));
    } else {
        const char *text = t->value.data ? t->value.data : "";
        TRY(toolcall_type_value(t->types, text, t->value.length, &p->out));
    }
    return send_out(p);
}

/* ---- where a value ends ---- */

/* <parameter=KEY> at a line start, of a parameter that may come now: the closing tag was left out.
 */
static match next_parameter(toolcall_parser *p, size_t from) {
    char key[TOOLCALL_NAME_MAX + 1];
    size_t end;
    match m = parameter_tag(p, from, key, &end);
    if (m != MATCH_YES) return m;
    bool known;
    toolcall_types(p->schema, key, &known);
    return (known || !p->schema) && !given(p, key) ? MATCH_YES : MATCH_NO;
}

/* The text was cut inside the closing tag: its visible part is no value. */
static bool cut_close(const toolcall_parser *p, size_t from) {
    size_t left = toolcall_left(p) - from;
    const char *close = tags_of(p)->parameter_close;
    return p->final && left >= 2 && left < strlen(close) &&
           !memcmp(toolcall_here(p) + from, close, left);
}

/* Does the value end at the '<' at `from`? line: it stands at the start of a line. *taken is how
 * much of the input belongs to the closing tag. */
static match value_ends(toolcall_parser *p, size_t from, bool line, size_t *taken) {
    const toolcall_tags *t = tags_of(p);
    const char *after_parameter[] = {NULL,     t->parameter, t->function_close,
                                     t->close, t->open,      t->function};
    const char *after_function[] = {NULL, t->close, t->open, t->function};
    const char *after_call[] = {NULL, t->open};
    *taken = from;
    if (cut_close(p, from)) {
        *taken = toolcall_left(p);
        return MATCH_YES;
    }
    match m = toolcall_match(p, from, t->parameter_close);
    if (m == MATCH_YES) {
        *taken = from + strlen(t->parameter_close);
        return followed_by(p, *taken, after_parameter, 6);
    }
    if (t->lines && !line) return m;
    match others[3] = {next_parameter(p, from), toolcall_match(p, from, t->function_close),
                       toolcall_match(p, from, t->close)};
    if (others[1] == MATCH_YES) {
        others[1] = followed_by(p, from + strlen(t->function_close), after_function, 4);
    }
    if (others[2] == MATCH_YES) {
        others[2] = followed_by(p, from + strlen(t->close), after_call, 2);
    }
    for (int i = 0; i < 3; i++) {
        if (others[i] == MATCH_YES) return MATCH_YES;
        if (others[i] == MATCH_MORE) m = MATCH_MORE;
    }
    return m;
}

/* At a '<', or at a newline that may belong to a tag behind it. */
static err at_border(toolcall_parser *p, step_result *result) {
    bool newline = toolcall_here(p)[0] == '\n';
    size_t left = toolcall_left(p), taken = 0;
    match m = MATCH_NO;
    if (newline && left == 1) {
        m = more_or_no(p);
    } else if (!newline || toolcall_here(p)[1] == '<') {
        m = value_ends(p, newline, newline || p->tags.line_start, &taken);
    }
    if (m == MATCH_MORE) {
        *result = STEP_MORE;
        return err_none();
    }
    if (m == MATCH_YES) {
        p->at += taken;
        return end_value(p);
    }
    /* Not the end; the newline's '<' is no border either. */
    size_t n = newline && left > 1 && toolcall_here(p)[1] == '<' ? 2 : 1;
    const char *text = toolcall_here(p);
    p->at += n;
    p->tags.line_start = false;
    return value_bytes(p, text, n);
}

static err value_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p), n = 0;
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    const char *here = toolcall_here(p);
    bool lines = tags_of(p)->lines;
    if (p->tags.first) {
        p->tags.first = false;
        p->tags.line_start = lines && here[0] == '\n';
        if (p->tags.line_start) {
            p->at++;
            return err_none();
        }
    }
    if (here[0] == '<' || (here[0] == '\n' && lines)) return at_border(p, result);
    while (n < left && here[n] != '<' && (here[n] != '\n' || !lines)) n++;
    p->at += n;
    p->tags.line_start = false;
    return value_bytes(p, here, n);
}

/* ---- between parameters ---- */

static err close_arguments(toolcall_parser *p) {
    if (p->tags.loose) return err_none();
    return p->tags.any ? toolcall_arguments(p, "}", 1) : toolcall_arguments(p, "{}", 2);
}

static err end_call(toolcall_parser *p, toolcall_mode next, bool cut) {
    TRY(close_arguments(p));
    p->mode = next;
    return toolcall_end(p, cut);
}

static err body_tag(toolcall_parser *p, match *found) {
    const toolcall_tags *t = tags_of(p);
    char name[TOOLCALL_NAME_MAX + 1];
    size_t end;
    *found = parameter_tag(p, 0, name, &end);
    if (*found == MATCH_YES) {
        p->at += end;
        return begin_parameter(p, name);
    }
    struct {
        const char *tag;
        bool take;
        toolcall_mode next;
    } ends[] = {{t->function_close, true, MODE_AFTER},
                {t->close, true, MODE_TEXT},
                {t->open, false, MODE_AFTER},
                {t->function, false, MODE_AFTER}};
    for (int i = 0; i < 4; i++) {
        match m = toolcall_match(p, 0, ends[i].tag);
        if (m == MATCH_MORE) *found = MATCH_MORE;
        if (m != MATCH_YES) continue;
        *found = MATCH_YES;
        if (ends[i].take) p->at += strlen(ends[i].tag);
        return end_call(p, ends[i].next, false);
    }
    return err_none();
}

static err body_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p), n = 0;
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    const char *here = toolcall_here(p);
    if (here[0] == '<') {
        match found;
        TRY(body_tag(p, &found));
        if (found == MATCH_YES) return err_none();
        if (found == MATCH_MORE) {
            *result = STEP_MORE;
            return err_none();
        }
        n = 1;
    } else if (here[0] == '{' && !p->tags.any && !p->tags.loose && !p->junk.length) {
        p->mode = MODE_LOOSE;
        json_repair_reset(&p->repair);
        return err_none();
    }
    if (toolcall_is_space(here[0]) && !p->junk.length) {
        p->at++;
        return err_none();
    }
    while (n < left && here[n] != '<' && (p->junk.length || n || !toolcall_is_space(here[n]))) n++;
    p->at += n;
    return text_buf_add(&p->junk, here, n);
}

static err loose_bytes(toolcall_parser *p, size_t n, size_t *used) {
    TRY(json_repair_push(&p->repair, toolcall_here(p), n, &p->out, used));
    p->at += *used;
    return send_out(p);
}

static err end_loose(toolcall_parser *p) {
    TRY(json_repair_end(&p->repair, &p->out));
    p->tags.loose = true;
    p->mode = MODE_BODY;
    return send_out(p);
}

static err loose_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p), n = 0, used;
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    const toolcall_tags *t = tags_of(p);
    if (toolcall_here(p)[0] == '<') {
        const char *after[] = {NULL, t->close};
        match m = toolcall_match(p, 0, t->function_close);
        if (m == MATCH_YES && json_repair_in_string(&p->repair)) {
            m = followed_by(p, strlen(t->function_close), after, 2);
        }
        if (m == MATCH_YES) return end_loose(p);
        if (m == MATCH_MORE) {
            *result = STEP_MORE;
            return err_none();
        }
        n = 1;
    }
    while (n < left && toolcall_here(p)[n] != '<') n++;
    TRY(loose_bytes(p, n, &used));
    return json_repair_done(&p->repair) ? end_loose(p) : err_none();
}

static err after_step(toolcall_parser *p, step_result *result) {
    size_t left = toolcall_left(p);
    if (!left) {
        *result = STEP_MORE;
        return err_none();
    }
    if (toolcall_is_space(toolcall_here(p)[0])) {
        p->at++;
        return err_none();
    }
    char name[TOOLCALL_NAME_MAX + 1];
    size_t end;
    match close = toolcall_match(p, 0, tags_of(p)->close);
    match function = toolcall_function_tag(p, 0, name, &end);
    if (close == MATCH_YES) {
        p->at += strlen(tags_of(p)->close);
        p->mode = MODE_TEXT;
    } else if (function == MATCH_YES) {
        p->at += end;
        return toolcall_tags_begin(p, name);
    } else if (close == MATCH_MORE || function == MATCH_MORE) {
        *result = STEP_MORE;
    } else {
        p->mode = MODE_TEXT;
    }
    return err_none();
}

/* ---- the face of this file ---- */

err toolcall_tags_begin(toolcall_parser *p, const char *name) {
    p->mode = MODE_BODY;
    p->tags.any = p->tags.loose = false;
    p->tags.keys.length = 0;
    return toolcall_begin(p, name);
}

err toolcall_tags_step(toolcall_parser *p, step_result *result) {
    switch (p->mode) {
    case MODE_VALUE: return value_step(p, result);
    case MODE_LOOSE: return loose_step(p, result);
    case MODE_AFTER: return after_step(p, result);
    default: return body_step(p, result);
    }
}

err toolcall_tags_finish(toolcall_parser *p) {
    if (p->mode == MODE_VALUE) TRY(end_value(p));
    if (p->mode == MODE_LOOSE) TRY(end_loose(p));
    return end_call(p, MODE_TEXT, true);
}
