/* toolcall_impl.h: what the files of the tool-call parser share. Not for others.
 *
 *     toolcall.c        events, text and think blocks; finds the beginning of a call
 *     toolcall_tags.c   a body of tags (qwen3-coder, minimax)
 *     toolcall_json.c   a body of JSON (hermes)
 *     toolcall_types.c  formats, tools, value types
 *
 * All of them read `in` from `at`. A decision depends only on the bytes there and on whether the
 * text is over (`final`), never on where pieces were cut; where the bytes do not suffice, the step
 * says STEP_MORE and is called again with more. Look-ahead is bounded (SPACE_MAX, NAME_MAX), so the
 * work is linear. */
#ifndef TEXT_TOOLCALL_IMPL_H
#define TEXT_TOOLCALL_IMPL_H

#include "text/json_repair.h"
#include "text/text_buf.h"
#include "text/toolcall.h"

#define TOOLCALL_NAME_MAX  256 /* bytes of a function or parameter name in a tag */
#define TOOLCALL_SPACE_MAX 64  /* whitespace that look-ahead skips between two tags */

/* Tags of a format; every one begins with '<'. */
typedef struct toolcall_tags {
    const char *open, *close;              /* <tool_call> */
    const char *function, *function_end;   /* <function=  > */
    const char *function_close;            /* </function> */
    const char *parameter, *parameter_end; /* <parameter=  > */
    const char *parameter_close;           /* </parameter> */
    bool lines;                            /* values stand on lines of their own */
} toolcall_tags;

struct toolcall_format {
    const char *name;
    const char *signs[3]; /* the template has all of these */
    const toolcall_tags *tags;
};

typedef enum match { MATCH_NO, MATCH_YES, MATCH_MORE } match;

typedef enum step_result { STEP_AGAIN, STEP_MORE } step_result;

typedef enum toolcall_mode {
    MODE_TEXT,
    MODE_THINK,
    MODE_BODY,  /* tags: between parameters */
    MODE_VALUE, /* tags: inside a value */
    MODE_LOOSE, /* tags: JSON instead of parameters */
    MODE_AFTER, /* tags: behind </function> */
    MODE_JSON,  /* JSON: inside the object */
    MODE_TAIL,  /* JSON: behind it */
} toolcall_mode;

/* Which JSON types a value may have. */
enum {
    TYPE_STRING = 1,
    TYPE_NUMBER = 2,
    TYPE_BOOLEAN = 4,
    TYPE_NULL = 8,
    TYPE_OBJECT = 16,
    TYPE_ARRAY = 32,
    TYPE_ANY = 63
};

typedef enum value_form {
    VALUE_STRING,  /* streams as a string */
    VALUE_PENDING, /* kept until its type is clear */
} value_form;

/* The tagged body being read. */
typedef struct tags_state {
    bool any;        /* a parameter was written */
    bool loose;      /* the body was JSON: nothing may follow */
    bool first;      /* the value's first byte is still to come */
    bool line_start; /* the value's next byte follows a newline that belongs to the tag */
    bool skip;       /* a value that is not wanted (given twice) */
    unsigned types;
    value_form form;
    text_buf value; /* VALUE_PENDING: the text so far */
    text_buf keys;  /* parameters given */
} tags_state;

/* The JSON body being read: `text` is the repaired object, scanned as it grows. */
typedef struct json_state {
    text_buf text, name, rest;
    size_t first_rest; /* bytes of rest's first pair */
    size_t scanned;
    int depth;
    bool in_string, escape, want_key;
    bool has_value, has_arguments;
    bool newline; /* the last raw byte was a newline */
    size_t key_start, key_end, value_start;
    size_t arguments, arguments_end; /* slice of text; end 0 while open */
    size_t sent;
    bool streaming;
} json_state;

struct toolcall_parser {
    toolcall_options opt;
    text_buf in;
    size_t at;
    bool final, failed;
    toolcall_mode mode, resume; /* resume: where a rejected call's text belongs */
    text_buf held;              /* whitespace that is shown only if text follows */
    bool skip_space;            /* whitespace here is markup */
    bool may_think;             /* <think> here opens a block */
    bool stray_close;           /* a call ended the reasoning: its late </think> is dropped */
    bool call_open, known_only;
    int n_calls;
    const json_t *schema; /* of the open call; NULL without */
    text_buf junk;        /* text inside a call that is no part of it */
    text_buf raw;         /* the call so far as written, until it is certain to be one */
    text_buf out;         /* scratch of one event */
    json_repair repair;
    tags_state tags;
    json_state json;
};

/* toolcall.c */
err toolcall_text(toolcall_parser *p, toolcall_event_kind kind, const char *text, size_t length);
err toolcall_begin(toolcall_parser *p, const char *name);
err toolcall_arguments(toolcall_parser *p, const char *text, size_t length);
err toolcall_end(toolcall_parser *p, bool cut);
/* Does the input from offset `from` (relative to p->at) begin with word? */
match toolcall_match(const toolcall_parser *p, size_t from, const char *word);
/* Steps over whitespace from `from`, at most TOOLCALL_SPACE_MAX; MATCH_MORE when the input ends in
 * it and is not over. */
match toolcall_skip_space(const toolcall_parser *p, size_t from, size_t *next);
bool toolcall_is_space(char c);
static inline size_t toolcall_left(const toolcall_parser *p) { return p->in.length - p->at; }
static inline const char *toolcall_here(const toolcall_parser *p) { return p->in.data + p->at; }

/* toolcall_tags.c. A function tag with a usable name at `from`: *end is behind it, name filled. */
match toolcall_function_tag(const toolcall_parser *p, size_t from, char *name, size_t *end);
err toolcall_tags_begin(toolcall_parser *p, const char *name);
err toolcall_tags_step(toolcall_parser *p, step_result *result);
err toolcall_tags_finish(toolcall_parser *p);

/* toolcall_json.c */
err toolcall_json_begin(toolcall_parser *p);
err toolcall_json_step(toolcall_parser *p, step_result *result);
err toolcall_json_finish(toolcall_parser *p);

/* toolcall_types.c. Types that the schema allows for its property key; TYPE_ANY when it does not
 * say. *known: the property is declared. */
unsigned toolcall_types(const json_t *schema, const char *key, bool *known);
/* Could `text` still become a JSON value of one of these types (no strings)? */
bool toolcall_could_be(unsigned types, const char *text, size_t length);
/* The JSON text of a whole value, typed as toolcall.h says, appended to out. */
err toolcall_type_value(unsigned types, const char *text, size_t length, text_buf *out);

#endif
