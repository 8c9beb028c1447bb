/* toolcall_types.c: the formats and how a template shows them; tools and the types of their
 * parameters; a value's text to JSON. See toolcall.h for the rules. */
#include <stdlib.h>
#include <string.h>

#include "text/json_pointer.h"
#include "text/toolcall_impl.h"

#define SCHEMA_DEPTH_MAX 16
#define SCALAR_MAX       512 /* a longer number with its whitespace is a string, if it may */

static const toolcall_tags qwen_tags = {
    .open = "<tool_call>",
    .close = "</tool_call>",
    .function = "<function=",
    .function_end = ">",
    .function_close = "</function>",
    .parameter = "<parameter=",
    .parameter_end = ">",
    .parameter_close = "</parameter>",
    .lines = true,
};

static const toolcall_tags minimax_tags = {
    .open = "<minimax:tool_call>",
    .close = "</minimax:tool_call>",
    .function = "<invoke name=\"",
    .function_end = "\">",
    .function_close = "</invoke>",
    .parameter = "<parameter name=\"",
    .parameter_end = "\">",
    .parameter_close = "</parameter>",
    .lines = false,
};

/* First fit wins: the most particular first. */
static const toolcall_format formats[] = {
    {"minimax", {"minimax:tool_call", "<invoke name=", "<parameter name="}, &minimax_tags},
    {"qwen3-coder", {"<tool_call>", "<function=", "<parameter="}, &qwen_tags},
    {"hermes", {"<tool_call>", "name", "arguments"}, &qwen_tags},
};
#define N_FORMATS (sizeof formats / sizeof formats[0])

const toolcall_format *toolcall_format_detect(const char *source) {
    /* Another language between the same tags: reading it as ours would garble it. */
    if (!source || strstr(source, "<arg_key>")) return NULL;
    for (size_t i = 0; i < N_FORMATS; i++) {
        bool all = true;
        for (int k = 0; k < 3; k++) all = all && strstr(source, formats[i].signs[k]);
        if (all) return &formats[i];
    }
    return NULL;
}

const toolcall_format *toolcall_format_find(const char *name) {
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (!strcmp(formats[i].name, name)) return &formats[i];
    }
    return NULL;
}

const char *toolcall_format_name(const toolcall_format *format) { return format->name; }

static const json_t *find_tool(const json_t *tools, const char *name) {
    size_t i;
    const json_t *tool;
    json_array_foreach((json_t *)tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        if (!json_is_object(function)) function = tool;
        const char *its = json_string_value(json_object_get(function, "name"));
        if (its && !strcmp(its, name)) return function;
    }
    return NULL;
}

bool toolcall_known(const json_t *tools, const char *name) {
    return find_tool(tools, name) != NULL;
}

const json_t *toolcall_schema(const json_t *tools, const char *name) {
    const json_t *tool = find_tool(tools, name);
    const json_t *schema = json_object_get(tool, "parameters");
    if (!schema) schema = json_object_get(tool, "input_schema");
    return json_is_object(schema) ? schema : NULL;
}

static unsigned type_named(const char *name) {
    static const struct {
        const char *name;
        unsigned type;
    } table[] = {{"string", TYPE_STRING},   {"integer", TYPE_NUMBER}, {"number", TYPE_NUMBER},
                 {"boolean", TYPE_BOOLEAN}, {"null", TYPE_NULL},      {"object", TYPE_OBJECT},
                 {"array", TYPE_ARRAY}};
    for (size_t i = 0; name && i < sizeof table / sizeof table[0]; i++) {
        if (!strcmp(table[i].name, name)) return table[i].type;
    }
    return 0;
}

static unsigned type_of_value(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING: return TYPE_STRING;
    case JSON_INTEGER:
    case JSON_REAL: return TYPE_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE: return TYPE_BOOLEAN;
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_ARRAY: return TYPE_ARRAY;
    default: return TYPE_NULL;
    }
}

static unsigned types_of(const json_t *root, const json_t *schema, int depth);

/* The union of a list of schemas; TYPE_ANY when there is no list. */
static unsigned types_of_any(const json_t *root, const json_t *list, int depth) {
    if (!json_is_array(list) || !json_array_size(list)) return TYPE_ANY;
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        types |= types_of(root, json_array_get(list, i), depth + 1);
    }
    return types;
}

static unsigned types_of(const json_t *root, const json_t *schema, int depth) {
    if (depth > SCHEMA_DEPTH_MAX || !json_is_object(schema)) return TYPE_ANY;
    unsigned types = TYPE_ANY;
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference) types &= types_of(root, json_pointer_get(root, reference), depth + 1);
    const json_t *type = json_object_get(schema, "type");
    unsigned named = type_named(json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) {
        named |= type_named(json_string_value(json_array_get(type, i)));
    }
    if (named && json_is_true(json_object_get(schema, "nullable"))) named |= TYPE_NULL;
    if (named) types &= named;
    const json_t *list = json_object_get(schema, "enum");
    unsigned listed = json_array_size(list) ? 0 : TYPE_ANY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        listed |= type_of_value(json_array_get(list, i));
    }
    types &= listed;
    const json_t *constant = json_object_get(schema, "const");
    if (constant) types &= type_of_value(constant);
    types &= types_of_any(root, json_object_get(schema, "anyOf"), depth);
    types &= types_of_any(root, json_object_get(schema, "oneOf"), depth);
    const json_t *all = json_object_get(schema, "allOf");
    for (size_t i = 0; i < json_array_size(all); i++) {
        types &= types_of(root, json_array_get(all, i), depth + 1);
    }
    return types ? types : TYPE_ANY; /* a contradiction says nothing */
}

unsigned toolcall_types(const json_t *schema, const char *key, bool *known) {
    const json_t *property = json_object_get(json_object_get(schema, "properties"), key);
    *known = property != NULL;
    if (!property) property = json_object_get(schema, "additionalProperties");
    return types_of(schema, property, 0);
}

/* Is text the beginning of word? */
static bool begins(const char *word, const char *text, size_t length) {
    return length <= strlen(word) && !memcmp(word, text, length);
}

static void trim(const char **text, size_t *length) {
    while (*length && toolcall_is_space(**text)) ++*text, --*length;
    while (*length && toolcall_is_space((*text)[*length - 1])) --*length;
}

bool toolcall_could_be(unsigned types, const char *text, size_t length) {
    size_t space = 0;
    while (space < length && space <= TOOLCALL_SPACE_MAX && toolcall_is_space(text[space])) space++;
    bool container = space < length && (text[space] == '{' || text[space] == '[');
    if (space > TOOLCALL_SPACE_MAX || (length > SCALAR_MAX && !container)) return false;
    if (!container)
        trim(&text, &length);
    else
        text += space;
    if (!length) return (types & (TYPE_ANY & ~(unsigned)TYPE_STRING)) != 0;
    if ((types & TYPE_OBJECT) && *text == '{') return true;
    if ((types & TYPE_ARRAY) && *text == '[') return true;
    if ((types & TYPE_NULL) && (begins("null", text, length) || begins("None", text, length))) {
        return true;
    }
    if ((types & TYPE_BOOLEAN) && (begins("true", text, length) || begins("false", text, length) ||
                                   begins("True", text, length) || begins("False", text, length))) {
        return true;
    }
    if (!(types & TYPE_NUMBER)) return false;
    for (size_t i = 0; i < length; i++) {
        if (!text[i] || !strchr("0123456789+-.eE", text[i])) return false;
    }
    return true;
}

/* text as one JSON value, repaired where it must be. *type 0 when it is none. */
static err read_value(const char *text, size_t length, text_buf *json, unsigned *repairs,
                      unsigned *type) {
    json_repair r = {0};
    size_t used;
    *type = 0;
    err e = json_repair_push(&r, text, length, json, &used);
    if (!e.code) e = json_repair_end(&r, json);
    *repairs = r.repairs + (used < length);
    json_repair_free(&r);
    if (e.code || !json->length) return e;
    char c = json->data[0];
    *type = c == '{'               ? TYPE_OBJECT
            : c == '['             ? TYPE_ARRAY
            : c == '"'             ? TYPE_STRING
            : c == 'n'             ? TYPE_NULL
            : c == 't' || c == 'f' ? TYPE_BOOLEAN
                                   : TYPE_NUMBER;
    return err_none();
}

static bool is_python_word(const char *text, size_t length) {
    return (length == 4 && (!memcmp(text, "True", 4) || !memcmp(text, "None", 4))) ||
           (length == 5 && !memcmp(text, "False", 5));
}

static err add_string(const char *text, size_t length, text_buf *out) {
    TRY(text_buf_add_byte(out, '"'));
    TRY(text_buf_add_escaped(out, text, length));
    return text_buf_add_byte(out, '"');
}

err toolcall_type_value(unsigned types, const char *text, size_t length, text_buf *out) {
    if (types == TYPE_STRING) return add_string(text, length, out);
    const char *inner = text;
    size_t inner_length = length;
    trim(&inner, &inner_length);
    text_buf json = {0};
    unsigned repairs, type;
    err e = read_value(inner, inner_length, &json, &repairs, &type);
    bool good;
    if (is_python_word(inner, inner_length)) {
        good = (types & type) != 0;
    } else if (types & TYPE_STRING) {
        good = !repairs && type != TYPE_STRING && (types & type);
    } else {
        good =
            !repairs || ((type & (TYPE_OBJECT | TYPE_ARRAY)) && (types & type) && inner_length > 1);
    }
    if (!e.code) {
        e = good && type ? text_buf_add(out, json.data, json.length)
                         : add_string(text, length, out);
    }
    text_buf_free(&json);
    return e;
}
