/* chatml.h: a conversation as tokens in the ChatML form of the Qwen models. Content never becomes
 * markup: what people write is tokenised as plain text whatever it spells. */
#ifndef FLASHCHAT_CHATML_H
#define FLASHCHAT_CHATML_H

#include "flashmoe.h"

#define CHAT_MARKS_MAX 64

typedef struct chat_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text; /* borrowed; white space at both ends is not part of the message */
    size_t length;
} chat_message;

typedef struct chatml_prompt { /* zero-initialise; chatml_prompt_free */
    fm_tokens tokens;
    size_t marks[CHAT_MARKS_MAX]; /* borders where the next turn's prompt will still agree */
    int n_marks;
    bool thinking; /* the prompt ends inside a thought: the model goes on thinking */
} chatml_prompt;

/* dir: the model's directory, whose template says whether it thinks at all. think: start with a
 * thought; otherwise with an empty one, or nothing for models that never think. */
fm_error chatml_render(const fm_engine *e, const char *dir, const chat_message *messages, int n,
                       bool think, chatml_prompt *out);
void chatml_prompt_free(chatml_prompt *p);

#endif
