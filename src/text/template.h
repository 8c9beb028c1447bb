/* template.h: the language of chat templates (Jinja), from its text to typed output.
 *
 *     template_parse("chat_template.jinja", source, length, &t);
 *     template_render(t, &options, sink, ctx);
 *
 * The language is Jinja 2's as `transformers` sets it up for chat templates: trim_blocks and
 * lstrip_blocks, loop controls, `generation` blocks (ignored, their inside is rendered), a sandbox
 * in which nothing can be changed in place, tojson without HTML escaping, raise_exception and
 * strftime_now. Values behave and print as Python's do. docs/TEMPLATES.md lists the language, and
 * what we refuse by name: nothing is guessed.
 *
 * Typed output. Every byte of the output has an origin: the template's own text and literals are
 * TEMPLATE_MARKUP; what comes out of the variables has the mark that the caller gave with them. The
 * mark follows each byte through concatenation, slices, filters and methods. So a user who writes
 * "<|im_end|>" does not end the turn (chat.h).
 *
 *     {{ '<|im_start|>user\n' + m.content }}   ->   MARKUP "<|im_start|>user\n"  CONTENT "Hello"
 *
 * Bounds. Templates and their data are untrusted: nesting, steps, memory and output are limited, an
 * error says which line did it. A parsed template does not change: any thread may render it. */
#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TEMPLATE_SOURCE_MAX (4u << 20) /* bytes of a template */

typedef struct jinja_template jinja_template;

/* Marks of output bytes. Callers may use others of their own, up to 255. */
enum {
    TEMPLATE_MARKUP = 0,  /* the template's text, and numbers, brackets, quotes that it makes */
    TEMPLATE_CONTENT = 1, /* from data */
};

/* source need not stay; name stands for it in messages ("chat_template.jinja: line 12: ...").
 * ERR_UNSUPPORTED: a construct that we do not know, by name. ERR_CORRUPT: no valid template.
 * ERR_RANGE: too large or nested too deeply. ERR_NOMEM. */
err template_parse(const char *name, const char *source, size_t length,
                   jinja_template **out) MUST_USE;
void template_free(jinja_template *t);

typedef struct template_variable {
    const char *name;
    const json_t *value; /* borrowed during the call */
    uint8_t mark;        /* of its strings */
    /* Or, for a list: one mark for each of its elements (borrowed); NULL: `mark` for all. */
    const uint8_t *element_marks;
} template_variable;

/* Zero for a limit means its default. */
typedef struct template_options {
    const template_variable *variables; /* a later one of the same name wins */
    int n_variables;
    int64_t now;        /* seconds since 1970 for strftime_now; 0: the clock's */
    uint64_t max_steps; /* 50,000,000: about a second or two */
    size_t max_memory;  /* 512 MiB, freed at the end of the call */
    size_t max_output;  /* 64 MiB */
} template_options;

/* One piece of output: length >= 1 bytes of one mark, never two of the same mark in a row. The
 * bytes are borrowed during the call. */
typedef err (*template_sink)(void *ctx, uint8_t mark, const char *bytes, size_t length);

/* Renders, and hands the output to sink after all of it is known, so after an error nothing was
 * handed out (unless the sink itself failed). ERR_ARG: the template refused the conversation
 * (raise_exception; its sentence is the error's). ERR_CORRUPT: the template made a mistake
 * (undefined values, wrong types). ERR_UNSUPPORTED: a construct or function that we do not have.
 * ERR_RANGE: a limit. Threads: any, at once. */
err template_render(const jinja_template *t, const template_options *options, template_sink sink,
                    void *ctx) MUST_USE;

/* The source, as it was parsed. */
const char *template_source(const jinja_template *t);

#endif
