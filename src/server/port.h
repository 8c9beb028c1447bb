/* port.h: what the server needs of a model. port_engine.c fills it from an open engine; tests fill
 * it with a script, so that everything above it can be tested without weights. */
#ifndef SERVER_PORT_H
#define SERVER_PORT_H

#include "server/request.h"
#include "text/toolcall.h"

/* A prompt, ready to run. Zero-initialise; port_prompt_free. */
typedef struct port_prompt {
    fm_tokens tokens;
    size_t *marks; /* owned: message borders, ascending */
    int n_marks;
    char *text; /* owned: for people (/apply-template, logs); not what is tokenised */
    size_t length;
    uint8_t *text_marks; /* owned, [length] as chat.h has them; for remember; may be NULL */
    size_t replayed;     /* of the tokens, how many are those of an earlier answer and its prompt */
    toolcall_reasoning reasoning;
} port_prompt;

void port_prompt_free(port_prompt *p);

/* Where the model is, as of opening. Fixed, so that any thread may read it: that the card was lost
 * since then is told by fm_stats. */
typedef struct port_place {
    char layers[640]; /* a sentence; "": nobody knows */
    char card[128];   /* its name; "": the processor computes alone */
    size_t memory_limit, vram_limit, vram_taken;
} port_place;

typedef struct port {
    void *ctx;
    const char *id; /* the model's name in the API; borrowed */
    sched_model engine;
    const toolcall_format *format; /* NULL: the model knows no calls */
    fm_sampling sampling;          /* what a request that says nothing gets */
    int trained_context;
    port_place place;
    /* Any thread: the conversation as tokens, with the model's own template (errors of the template
     * are ERR_ARG: the client's conversation does not fit it). */
    err (*render)(void *ctx, const request *r, port_prompt *out);
    /* Any thread: what the answer must look like; out->ctx NULL: anything. ERR_ARG names a keyword
     * that is not supported. */
    err (*constrain)(void *ctx, const request *r, const port_prompt *p, sched_constraint *out);
    err (*tokenize)(void *ctx, fm_text_mode mode, const char *text, size_t length, fm_tokens *out);
    const char *(*token_bytes)(void *ctx, int32_t id, size_t *length); /* NULL: no such token */
    /* Engine thread: the answer to r is complete. ids are the tokens of its prompt p and all that
     * was sampled, so that they can be replayed exactly when message comes back. May be NULL. */
    void (*remember)(void *ctx, const request *r, const port_prompt *p, const json_t *message,
                     const fm_tokens *ids);
} port;

#endif
