/* chat.h: conversations to prompts, by the model's own chat template.
 *
 *     messages, tools --template--> text with marks --tokenizer--> ids
 *
 *     <|im_start|>user\n Ends a turn: <|im_end|> <|im_end|>\n ...
 *     `---- markup ---´ `------ content -------´ `- markup -´
 *
 * Content never becomes markup: special tokens are recognised in the template's own text only; the
 * rest is encoded in one go, so for ordinary conversations the ids are those of the reference
 * (transformers: render, then encode the whole).
 *
 * Replies are replayed by id. What a model samples is not always what encoding its text would give,
 * and templates drop the reasoning of earlier turns; both would change the tokens of a prefix that
 * the engine has already computed. chat_remember keeps the ids of a finished turn under a hash of
 * the conversation up to there; when a later request begins with that conversation, chat_render
 * takes them and encodes only what follows:
 *
 *     remembered   [prompt][sampled ... <|im_end|>]
 *     later        [------- same ids -------------]\n<|im_start|>user\n ... <|im_start|>assistant\n
 *
 * That is done only if the later rendering says the same as the earlier one outside of assistant
 * turns (white space and think tags aside), so a template that changes earlier text (a tool list
 * that moves to the last question) is followed, not the memory.
 *
 * A chat is fixed after open but for its memory, which has a lock: any thread may use it. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer.h"
#include "text/toolcall.h"

typedef struct chat chat;

typedef struct chat_options {
    const char *dir; /* chat_template.jinja, additional_chat_templates, tokenizer_config.json */
    const tokenizer *tokens; /* borrowed until close; NULL: text only */
    const int32_t *stop_ids; /* copied: tokens that end a turn (generation_config.json) */
    int n_stop_ids;
    size_t memory_bytes; /* for replies; 0: 64 MiB */
} chat_options;

/* ERR_NOT_FOUND when the model has no template; errors of the template name its file and line. */
err chat_open(const chat_options *options, chat **out) MUST_USE;
void chat_close(chat *c);

typedef struct chat_request { /* everything borrowed during the call */
    const json_t *messages; /* list of OpenAI messages; arguments of calls as JSON text or object */
    const json_t *tools;    /* list or NULL */
    const json_t *kwargs;   /* further variables (enable_thinking ...), or NULL */
    bool add_generation_prompt;
    int64_t now; /* for strftime_now; 0: the clock */
} chat_request;

typedef struct chat_prompt { /* zero-initialise; chat_prompt_free */
    token_list tokens;
    char *text; /* owned, zero-terminated: what the template wrote */
    size_t length;
    uint8_t *marks; /* owned, [length]: 0 is markup */
    size_t
        *borders; /* owned: token counts at which a turn ends, ascending, the whole prompt last */
    int n_borders;
    size_t replayed;              /* of the tokens, how many come from memory */
    toolcall_reasoning reasoning; /* what the reply begins with */
} chat_prompt;

void chat_prompt_free(chat_prompt *p);

/* ERR_ARG: the template refuses the conversation, or a field of the request has the wrong type. */
err chat_render(chat *c, const chat_request *r, chat_prompt *out) MUST_USE;

/* A reply is complete: ids [count] are the tokens of the prompt (as chat_render gave them for r)
 * and of the reply, with its end token if it was sampled. p has text, marks and length as
 * chat_render gave them for r; NULL: rendered anew. message is the assistant message as the client
 * got it; reasoning in it does not matter. ERR_NOMEM. */
err chat_remember(chat *c, const chat_request *r, const chat_prompt *p, const json_t *message,
                  const int32_t *ids, size_t count) MUST_USE;

/* What is remembered as bytes (of malloc), the newest of it that fit `most`; and back, into a chat
 * of the same model. ERR_CORRUPT: they contradict themselves, or have ids outside of vocab; what
 * was read before that point is kept. */
err chat_memory_save(chat *c, size_t most, uint8_t **out, size_t *bytes) MUST_USE;
err chat_memory_load(chat *c, int vocab, const uint8_t *bytes, size_t n) MUST_USE;

/* The way in which the template teaches calls, NULL for none that we know. */
const toolcall_format *chat_format(const chat *c);
/* The template that a request without tools uses. */
const char *chat_source(const chat *c);
/* The template names this variable: enable_thinking, reasoning_effort ... */
bool chat_knows(const chat *c, const char *variable);

#endif
