/* toolcall.h: from what a model writes to reasoning, content and tool calls, while it writes.
 *
 *     in                                    out
 *     <think>\nHm.\n</think>\n\n            REASONING "Hm."
 *     Let me look.\n\n                      CONTENT   "Let me look."
 *     <tool_call>\n<function=weather>\n     BEGIN     weather
 *     <parameter=city>\nOslo                ARGUMENTS {"city": "Oslo
 *     \n</parameter>\n</function>\n         ARGUMENTS "}   END
 *     </tool_call>
 *
 * Text goes in as it is detokenised (whole UTF-8 characters, in any pieces), events come out at
 * once, as far as they are certain. What the events say, joined, does not depend on where the
 * pieces were cut. The arguments of every call, joined, are one valid JSON text, whatever the model
 * wrote.
 *
 * Formats. A format is one way to write calls; which one a model uses is read off its chat template
 * (toolcall_format_detect). Both common bodies of <tool_call> are understood under either name:
 *
 *     qwen3-coder   <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n
 *                   </function>\n</tool_call>
 *     hermes        <tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>
 *     minimax       <minimax:tool_call>\n<invoke name="NAME"><parameter name="KEY">VALUE
 *                   </parameter></invoke>\n</minimax:tool_call>
 *
 * Values of tagged parameters are typed by the tool's JSON Schema. Only a string: as it is, one
 * newline after the opening and one before the closing tag belong to the tags. No string allowed:
 * JSON (or Python's True, False, None), repaired where it begins like the list or object that is
 * wanted, else kept as a string. Both: JSON if it is valid and of an allowed type, else a string.
 * Without a schema every type is allowed. A parameter that is given twice keeps its first value.
 *
 * Where a value ends. </parameter> closes a value only when a new parameter, a closing or opening
 * tag of a call, or the end of the text follows (after whitespace), so "</parameter>" inside a
 * value is kept. Missing closing tags: at the start of a line, <parameter=KEY> of a parameter that
 * the tool has and that is not given yet, </function> before </tool_call>, another call or the end,
 * and </tool_call> before another call or the end close a value too. In the JSON form, </tool_call>
 * inside a string closes the call before another call or the end, or on a line of its own. A string
 * that contains one of these sequences cannot be told from markup; everything else comes back as it
 * was (tests/unit/test_toolcall.c states and tests this).
 *
 * Nothing is lost: what looks like a call and is none is content, with its tags; stray text inside
 * a call becomes content after it. Whitespace between content, reasoning and calls is markup and
 * dropped. A call counts as one when it has a name. <function=NAME> without <tool_call> counts when
 * NAME is one of the tools. While reasoning, a complete opening of a call of a known tool ends the
 * reasoning.
 *
 * <think> is recognised at the beginning (after whitespace) and directly after a call. Reasoning
 * that is never closed stays reasoning; toolcall_reasoning_open then says so.
 *
 * Owner thread only. Memory: what is held back, plus one call's JSON in the hermes form. */
#ifndef TEXT_TOOLCALL_H
#define TEXT_TOOLCALL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct toolcall_format toolcall_format;
typedef struct toolcall_parser toolcall_parser;

/* The format that a chat template teaches, NULL when it knows no calls in a form that we parse.
 * template_source may be NULL. The result is static. */
const toolcall_format *toolcall_format_detect(const char *template_source);
/* By name ("qwen3-coder", "hermes", "minimax"); NULL for an unknown one. */
const toolcall_format *toolcall_format_find(const char *name);
const char *toolcall_format_name(const toolcall_format *format);

typedef enum toolcall_event_kind {
    TOOLCALL_REASONING, /* text */
    TOOLCALL_CONTENT,   /* text */
    TOOLCALL_BEGIN,     /* call; text is the function's name */
    TOOLCALL_ARGUMENTS, /* call; text is the next piece of the arguments' JSON */
    TOOLCALL_END,       /* call; cut */
} toolcall_event_kind;

typedef struct toolcall_event {
    toolcall_event_kind kind;
    int call;         /* 0, 1 ...: which call of this message; -1 for text */
    const char *text; /* borrowed during the callback, not zero-terminated; never empty for text */
    size_t length;
    bool cut; /* END: the text ended inside this call, its arguments were completed by us */
} toolcall_event;

/* An error stops the parser: the call that fed it returns that error. */
typedef err (*toolcall_sink)(void *ctx, const toolcall_event *event);

typedef enum toolcall_reasoning {
    TOOLCALL_THINK_NONE,    /* the model has no think blocks: <think> is content */
    TOOLCALL_THINK_OUTSIDE, /* it may open one */
    TOOLCALL_THINK_INSIDE,  /* the prompt ended with an open <think> */
} toolcall_reasoning;

typedef struct toolcall_options {
    const toolcall_format *format; /* NULL: there are no calls, everything is text */
    /* The request's tools, borrowed until close; NULL when unknown (then any name is a tool). A
     * list of OpenAI {"type", "function": {"name", "parameters"}}, of {"name", "parameters"}
     * (Responses) or of {"name", "input_schema"} (Anthropic). */
    const json_t *tools;
    toolcall_reasoning reasoning;
    toolcall_sink sink;
    void *ctx;
} toolcall_options;

err toolcall_open(const toolcall_options *options, toolcall_parser **out) MUST_USE;
void toolcall_close(toolcall_parser *p);
/* The next text. After an error only toolcall_close may follow. */
err toolcall_push(toolcall_parser *p, const char *text, size_t length) MUST_USE;
/* The text is over: settles what is held back and ends an open call. */
err toolcall_finish(toolcall_parser *p) MUST_USE;

/* Calls begun so far. */
int toolcall_count(const toolcall_parser *p);
/* The text so far is (or ended) inside a think block. */
bool toolcall_reasoning_open(const toolcall_parser *p);
/* Now inside a call, after its name: markup is not shown, values are. */
bool toolcall_in_call(const toolcall_parser *p);

/* A whole text at once; options->sink and ctx are not used. *out, owned by the caller, is
 *     {"reasoning_content": text or null, "content": text or null,
 *      "tool_calls": [{"name": ..., "arguments": JSON text, "cut": bool} ...]} */
err toolcall_parse(const toolcall_options *options, const char *text, size_t length,
                   json_t **out) MUST_USE;

/* The parameters' schema of tools[name], in any of the three list forms; NULL when there is none.
 */
const json_t *toolcall_schema(const json_t *tools, const char *name);
/* The tool is in the list. */
bool toolcall_known(const json_t *tools, const char *name);

#endif
