/* fields.h: tables of request fields, and reading values with errors that name them. */
#ifndef SERVER_FIELDS_H
#define SERVER_FIELDS_H

#include "server/request.h"

typedef enum field_kind {
    FIELD_CALL,      /* read() does it all */
    FIELD_NUMBER,    /* float at offset in request.sampling, within [low, high] */
    FIELD_INT,       /* int64_t at offset in request, within [low, high] */
    FIELD_BOOL,      /* bool at offset in request */
    FIELD_STRING,    /* const char * at offset in request */
    FIELD_NO_EFFECT, /* any value of a JSON type in `why` ("string", "object"): a hint or a label */
    FIELD_ONLY,      /* must be one of the values in `why`, which leave nothing to do */
    FIELD_REFUSED,   /* why says what to do instead */
} field_kind;

typedef struct field {
    const char *name;
    field_kind kind;
    size_t offset;
    double low, high;
    unsigned set; /* SET_* */
    const char *why;
    err (*read)(const char *name, json_t *value, request *r);
    const struct field *more; /* of the last one, which has no name: the table goes on there */
} field;

/* Reads every field of object in the order of the table, null like absent; unknown ones are
 * refused. where is put before the names ("messages[2]: "), or "". */
err fields_read(const field *table, const json_t *object, const char *where, request *r) MUST_USE;

/* ERR_ARG: "name: must be a string, not a list". */
err field_wrong(const char *name, const char *wanted, const json_t *value) MUST_USE;
err field_int(const char *name, const json_t *value, int64_t low, int64_t high,
              int64_t *out) MUST_USE;

/* Text of a string or a list of text parts (type one of the words in types, e.g. "text
 * input_text"), joined. name is for messages. *out is new. Null gives "". */
err field_text(const char *name, const json_t *value, const char *types, json_t **out) MUST_USE;

/* A function tool for the list of tools; parameters may be NULL. */
err tools_add(request *r, const char *name, const json_t *description, const json_t *parameters,
              bool strict) MUST_USE;
/* The name must be one of the tools. */
err tools_choose(request *r, const char *field_name, const char *name) MUST_USE;
/* Only these tools stay: a list of names in `list`, at [i].name or [i].function.name. */
err tools_allow(request *r, const char *field_name, const json_t *list) MUST_USE;

/* messages: one more with this role and content (taken over; NULL for none). The message, borrowed.
 * NULL without memory. */
json_t *message_add(request *r, const char *role, json_t *content);
/* A call of an assistant's message. arguments: its JSON as the client sent it. */
err message_call(json_t *message, const char *id, const char *name, const char *arguments) MUST_USE;
/* "role" of the last message, "" without one. */
const char *message_last_role(const request *r);

/* Readers that several APIs share. */
err read_stop(const char *name, json_t *value, request *r) MUST_USE;
err read_effort(const char *name, json_t *value, request *r) MUST_USE;
err read_format(const char *name, json_t *value, request *r) MUST_USE;
err read_chat_tools(const char *name, json_t *value, request *r) MUST_USE;
err read_bias(const char *name, json_t *value, request *r) MUST_USE;
err read_kwargs(const char *name, json_t *value, request *r) MUST_USE;
err read_top_k(const char *name, json_t *value, request *r) MUST_USE;
err read_stream_options(const char *name, json_t *value, request *r) MUST_USE;
err read_parallel(const char *name, json_t *value, request *r) MUST_USE;
err read_seed(const char *name, json_t *value, request *r) MUST_USE;
err read_schema(const char *name, json_t *holder, request *r) MUST_USE;

/* Each API's table, ended by a field without a name; and what chat and text completions have in
 * common. */
extern const field chat_fields[], template_fields[], completion_fields[], response_fields[],
    message_fields[], openai_fields[];
/* f of a table, or the beginning of what it goes on with; NULL past the last one. */
const field *field_at(const field *f);

/* One parser for each API, called by request_parse. */
err parse_chat(request *r) MUST_USE;
err parse_template(request *r) MUST_USE;
err parse_completions(request *r) MUST_USE;
err parse_responses(request *r) MUST_USE;
err parse_messages(request *r) MUST_USE;

#endif
