/* reply.h: one answer as it grows: tokens in, pieces out.
 *
 *     token -> bytes -> whole characters -> reasoning | content | call
 *                                                          |
 *                                              stop strings (content only)
 *
 * Everything is kept as well, for answers in one piece and for the closing events of streams. Stop
 * strings are looked for in what the user sees: not in reasoning, not in calls.
 *
 * Engine thread only. */
#ifndef SERVER_REPLY_H
#define SERVER_REPLY_H

#include "server/port.h"
#include "text/stop.h"
#include "text/tokenizer.h"

typedef enum piece_kind {
    PIECE_REASONING, /* text */
    PIECE_CONTENT,   /* text, logprobs */
    PIECE_CALL,      /* call begins: its name */
    PIECE_ARGUMENTS, /* text */
    PIECE_CALL_END,
} piece_kind;

typedef struct piece {
    piece_kind kind;
    const char *text; /* borrowed during the callback */
    size_t length;
    int call;
    json_t *logprobs; /* borrowed; the tokens that content is made of; NULL when not asked for */
} piece;

typedef enum finish {
    FINISH_STOP,
    FINISH_STOP_STRING,
    FINISH_LENGTH,
    FINISH_CALLS,
    FINISH_CANCELLED,
    FINISH_ERROR,
} finish;

typedef struct reply_call {
    char id[40]; /* "call_" and 24 letters */
    char *name;  /* owned */
    text_buf arguments;
    bool ended;
} reply_call;

#define REPLY_CALLS_MAX 256

typedef struct reply {
    const port *port; /* borrowed */
    const request *r; /* borrowed */
    text_buf raw, reasoning, content;
    fm_tokens ids;     /* all that was sampled, but for the token that ended it */
    reply_call *calls; /* owned */
    int n_calls;
    json_t *logprobs; /* owned list, one entry a token of the content */
    finish finish;
    int stop; /* FINISH_STOP_STRING: which one */
    int tokens, reasoning_tokens;
    bool ended;
    /* inside */
    utf8_stream utf8;
    stop_matcher *stops;
    toolcall_parser *parser; /* NULL: all is content */
    json_t *pending;         /* logprobs of tokens whose text is not out yet */
    bool enough, budget_spent;
    err (*sink)(void *ctx, struct reply *y, const piece *p);
    void *ctx;
} reply;

/* r, port and ctx must stay until reply_close. plain: no chat (completions): all is content.
 * reasoning: how the prompt ended. */
err reply_open(const port *p, const request *r, bool plain, toolcall_reasoning reasoning,
               reply *out) MUST_USE;
void reply_close(reply *y);

/* One token. *more is false when the answer is complete (stop string, its only call). */
err reply_token(reply *y, const sched_token *t, bool *more) MUST_USE;
/* The model is done: settles everything and sets finish. */
err reply_end(reply *y, sched_end why) MUST_USE;
/* The thinking budget is used up and the thinking still open: the tokens that close it should be
 * forced now (asked for once). */
bool reply_thought_enough(reply *y);
/* The answer as an OpenAI chat message; new. NULL without memory. */
json_t *reply_message(const reply *y);
/* prefix and 24 random letters and digits. size >= strlen(prefix) + 25. */
void reply_id(const char *prefix, char *out, size_t size);

#endif
