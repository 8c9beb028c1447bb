/* emit.h: answers in the words of each API: as events while they grow, or in one piece.
 *
 * One emitter for each API (emit_chat.c, emit_completions.c, emit_responses.c, emit_messages.c)
 * with the same six functions. They append bytes to emit->out; whoever drives them sends those.
 * Pure: the same calls give the same bytes, apart from the ids that are set at the start.
 *
 *     begin   piece piece piece ...   choice_end (each choice)   end
 *                                     or at any point: fail
 *
 * Without request.stream nothing is written until end, which writes the whole answer. */
#ifndef SERVER_EMIT_H
#define SERVER_EMIT_H

#include "server/reply.h"

typedef struct emit emit;

typedef struct emit_ops {
    const char *ping; /* what goes into silence */
    err (*begin)(emit *m);
    err (*piece)(emit *m, int choice, const piece *p);
    err (*choice_end)(emit *m, int choice);
    err (*end)(emit *m);
    /* After begin, in a stream: the answer breaks off. */
    err (*fail)(emit *m, const char *type, const char *message);
} emit_ops;

struct emit {
    const emit_ops *ops;
    const request *r;  /* borrowed */
    const char *model; /* borrowed */
    char id[48];
    int64_t created; /* seconds since 1970 */
    reply *replies;  /* borrowed; [n] */
    int n;
    char **echo; /* completions with echo: the prompt's text of each choice; borrowed */
    size_t prompt_tokens, cached_tokens;
    text_buf out; /* owned */
    /* Responses, Messages */
    json_t *items;  /* owned: finished output items, content blocks */
    json_t *item;   /* owned: the open one */
    int kind;       /* piece_kind of the open one, -1: none */
    text_buf text;  /* of the open one */
    json_t *tokens; /* owned: its logprobs */
    int sequence;
};

const emit_ops *emit_for(request_api api);
/* n choices; ids are made here. */
err emit_open(const request *r, const char *model, reply *replies, int n, emit *out) MUST_USE;
void emit_close(emit *m);

/* The error object of an API as bytes. type: OpenAI's ("invalid_request_error"); code and param may
 * be NULL. */
err emit_error(request_api api, int status, const char *param, const char *message,
               text_buf *out) MUST_USE;
/* The words for a status: "invalid_request_error", "rate_limit_error" ... */
const char *emit_error_type(request_api api, int status);

/* For the emitters: one server-sent event (event may be NULL); takes data. Nothing unless
 * streaming.
 */
err emit_event(emit *m, const char *event, json_t *data) MUST_USE;
/* data as compact JSON at the end of out; takes data. */
err emit_json(emit *m, json_t *data) MUST_USE;
int emit_made(const emit *m);
int emit_reasoned(const emit *m);

extern const emit_ops emit_chat, emit_completions, emit_responses, emit_messages;

#endif
