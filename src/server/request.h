/* request.h: one generation request in our own words, whatever API it came through.
 *
 *     body (JSON) --request_parse--> request --> prompt, limits, constraint --> jobs
 *
 * Each API has a table of the fields that it documents. A field is honoured, or is accepted because
 * leaving it out is what it asks for ("store": false), or is refused by name; unknown fields are
 * refused too. Nothing is ignored silently: docs/SERVER.md has the tables in words, and
 * tests/unit/test_request.c walks them.
 *
 * Pure: no I/O, no state. Messages end in OpenAI's chat form, because chat templates expect it:
 * content is one string, arguments of calls are objects, leading system messages are one. */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/sched.h"
#include "flashmoe.h"
#include "text/text_buf.h"

typedef enum request_api {
    API_CHAT,        /* POST /v1/chat/completions */
    API_COMPLETIONS, /* POST /v1/completions */
    API_RESPONSES,   /* POST /v1/responses */
    API_MESSAGES,    /* POST /v1/messages, count_tokens */
    API_TEMPLATE,    /* POST /apply-template: chat without limits */
} request_api;

typedef enum tool_choice { TOOL_AUTO, TOOL_NONE, TOOL_REQUIRED, TOOL_NAMED } tool_choice;
typedef enum answer_format { FORMAT_TEXT, FORMAT_JSON, FORMAT_SCHEMA } answer_format;

/* Which sampling fields the request names; the others are the model's defaults. */
enum {
    SET_TEMPERATURE = 1,
    SET_TOP_P = 2,
    SET_TOP_K = 4,
    SET_MIN_P = 8,
    SET_REPETITION = 16,
    SET_PRESENCE = 32,
    SET_FREQUENCY = 64,
    SET_SEED = 128,
};

#define REQUEST_CHOICES_MAX  16
#define REQUEST_MESSAGES_MAX 100000
#define REQUEST_TOOLS_MAX    1024
#define REQUEST_STOPS_MAX    16
#define REQUEST_BIAS_MAX     1024

typedef struct request {
    request_api api;
    const char *model; /* borrowed from body; NULL: not given */
    json_t *body;      /* owned: what was sent */
    json_t *messages;  /* owned; NULL for completions */
    char *prefill;     /* owned: the answer begins with this text; NULL: with nothing */
    json_t *prompts;   /* owned; completions: a list of strings and lists of ids */
    json_t *tools;     /* owned; OpenAI form; NULL: none */
    json_t *kwargs;    /* owned object: variables for the template */
    tool_choice choice;
    const char *choice_name; /* TOOL_NAMED; borrowed from body */
    bool one_call;           /* parallel_tool_calls: false */
    answer_format format;
    json_t *schema;          /* borrowed from body; FORMAT_SCHEMA */
    const char *schema_name; /* borrowed; may be NULL */
    fm_sampling sampling;
    unsigned set;       /* SET_* */
    int64_t max_tokens; /* -1: as many as fit */
    int64_t n;
    json_t *stop;     /* owned list of strings; NULL: none */
    sched_bias *bias; /* owned */
    int n_bias;
    bool logprobs;
    int64_t top_logprobs;
    bool stream, include_usage, echo;
    int thinking;            /* -1: the template's default; 0 off; 1 on */
    int64_t thinking_budget; /* tokens; -1: no limit */
    const char *effort;      /* borrowed; NULL: not given */
    bool generation_prompt;  /* API_TEMPLATE: end with the opening of an answer */
} request;

/* body is taken over (also on failure). param (of size param_size >= 64) gets the name of the field
 * at fault, or "". On failure *out is empty. ERR_ARG: the client's mistake, in a sentence that
 * names the field. */
err request_parse(request_api api, json_t *body, request *out, char *param) MUST_USE;
void request_free(request *r);
/* The name of the i-th field that the API knows; NULL beyond the last. */
const char *request_field(request_api api, int i);

/* The same request with system messages only at the beginning: later ones become user messages, for
 * templates that refuse them. false: there was none. */
bool request_later_system_to_user(request *r);

/* What a client sent as JSON, with zero characters in strings replaced by U+FFFD. ERR_ARG with line
 * and column. */
err request_json(const char *bytes, size_t length, json_t **out) MUST_USE;

#endif
