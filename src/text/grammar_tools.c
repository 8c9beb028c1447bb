/* grammar_tools.c: grammars of tool calls, in the two forms that models of these families write. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

#define NAME_BYTES_MAX 128
#define TOOLS_MAX      128

/* {"function": {...}} or the function itself. */
static const json_t *function_of(const json_t *tool) {
    const json_t *function = json_object_get(tool, "function");
    return json_is_object(function) ? function : tool;
}

static bool is_strict(const json_t *tool) {
    return json_is_true(json_object_get(tool, "strict")) ||
           json_is_true(json_object_get(function_of(tool), "strict"));
}

/* Parameters of a tool whose schema is not followed: any of its properties, of any text. */
static json_t *loose_schema(const json_t *whole) {
    json_t *properties = json_object(), *loose = NULL;
    const char *name;
    json_t *unused;
    json_object_foreach(json_object_get(whole, "properties"), name, unused) {
        if (*name && !strpbrk(name, ">\n")) json_object_set_new(properties, name, json_object());
    }
    if (properties) loose = json_pack("{s:s, s:o}", "type", "object", "properties", properties);
    return loose;
}

/* The arguments, and `end` after them. */
static int arguments(grammar *g, const json_t *document, bool tagged, int end) {
    schema s;
    err e = schema_open(document, g->name, &s);
    if (e.code) {
        grammar_fail(g, e);
        return 0;
    }
    int node;
    if (tagged) {
        node = grammar_schema_parameters(g, &s, end);
    } else {
        int parts[2] = {grammar_schema_value(g, &s), end};
        node = grammar_sequence(g, parts, 2);
    }
    schema_close(&s);
    return node;
}

/* What comes before and after the arguments. The opening tag is not part of it. */
static err call_texts(const char *name, bool tagged, text_buf *head) {
    if (tagged) {
        TRY(text_buf_add_text(head, "\n<function="));
        TRY(text_buf_add_text(head, name));
        return text_buf_add_text(head, ">\n");
    }
    TRY(text_buf_add_text(head, "\n{\"name\": \""));
    TRY(text_buf_add_escaped(head, name, strlen(name)));
    return text_buf_add_text(head, "\", \"arguments\": ");
}

static int call_of(grammar *g, const grammar_spec *spec, const json_t *tool, bool tagged) {
    const char *name = json_string_value(json_object_get(function_of(tool), "name"));
    bool bad = !name || !*name || strlen(name) > NAME_BYTES_MAX || (tagged && strpbrk(name, ">\n"));
    if (bad) {
        grammar_fail(g, err_make(ERR_ARG, "%s: a tool without a name that can be called", g->name));
        return 0;
    }
    const json_t *whole = toolcall_schema(spec->tools, name);
    bool strict = spec->strict || is_strict(tool);
    json_t *document = strict && whole ? json_incref((json_t *)whole)
                       : tagged        ? loose_schema(whole)
                                       : json_pack("{s:s}", "type", "object");
    if (!document) {
        grammar_fail(g, err_make(ERR_NOMEM, "%s: no memory", g->name));
        return 0;
    }
    text_buf head = {0};
    char label[NAME_BYTES_MAX + 64];
    const char *outer = g->name;
    err e = err_make(ERR_NONE, "%s: %s", outer, name); /* made printable */
    memcpy(label, e.text, sizeof label - 1);
    label[sizeof label - 1] = '\0';
    g->name = label;
    e = call_texts(name, tagged, &head);
    if (e.code) grammar_fail(g, e);
    int end = grammar_markup(g, tagged ? "</function>\n</tool_call>" : "}\n</tool_call>");
    int parts[2] = {grammar_literal(g, head.data, head.length, true),
                    arguments(g, document, tagged, end)};
    g->name = outer;
    text_buf_free(&head);
    json_decref(document);
    return grammar_sequence(g, parts, 2);
}

/* Any of the tools, or the one that is asked for. */
static int any_call(grammar *g, const grammar_spec *spec, bool tagged) {
    int ways[TOOLS_MAX], n = 0;
    size_t total = json_array_size(spec->tools);
    if (total > TOOLS_MAX)
        grammar_fail(g, err_make(ERR_RANGE, "%s: more than %d tools", g->name, TOOLS_MAX));
    for (size_t i = 0; i < total && !g->e.code; i++) {
        const json_t *tool = json_array_get(spec->tools, i);
        const char *name = json_string_value(json_object_get(function_of(tool), "name"));
        if (!spec->tool || (name && strcmp(name, spec->tool) == 0))
            ways[n++] = call_of(g, spec, tool, tagged);
    }
    if (!n && spec->tool)
        grammar_fail(g, err_make(ERR_ARG, "%s: there is no tool \"%.100s\"", g->name, spec->tool));
    else if (!n)
        grammar_fail(g, err_make(ERR_ARG, "%s: there are no tools to call", g->name));
    return grammar_choice(g, ways, n);
}

int grammar_tools(grammar *g, const grammar_spec *spec) {
    const char *format = spec->format ? toolcall_format_name(spec->format) : "none";
    bool tagged = strcmp(format, "qwen3-coder") == 0;
    if (!tagged && strcmp(format, "hermes") != 0) {
        grammar_fail(g, err_make(ERR_UNSUPPORTED,
                                 "%s: calls cannot be enforced for this model (its form of tool "
                                 "calls: %s)",
                                 g->name, format));
        return 0;
    }
    int call = any_call(g, spec, tagged);
    int opened[2] = {grammar_markup(g, "<tool_call>"), call};
    int first = spec->after_opening ? call : grammar_sequence(g, opened, 2);
    int next[2] = {grammar_literal(g, "\n", 1, true), grammar_sequence(g, opened, 2)};
    int other = grammar_sequence(g, next, 2);
    return grammar_repeat(g, &first, 1, other, 1, spec->parallel ? -1 : 1);
}
