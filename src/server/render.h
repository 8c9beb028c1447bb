/* render.h: a conversation as the tokens of a model, by the model's own chat template.
 *
 * The tokens are those of the whole rendered text, with one exception that this module is for: what
 * people and tools say never becomes markup, whatever it spells.
 *
 * An answer of this server that comes back in a later request is replayed as it was sampled: its
 * text in the template's output is replaced by what the model wrote, so that the prompt's tokens
 * agree with the session's timeline (render_remember).
 *
 * Any thread. */
#ifndef SERVER_RENDER_H
#define SERVER_RENDER_H

#include "server/port.h"

typedef struct render render;

/* Finds the template in dir. ERR_NOT_FOUND: there is none. */
err render_open(const char *dir, fm_engine *engine, render **out) MUST_USE;
void render_close(render *r);
const char *render_source(const render *r);
err render_chat(render *r, const request *q, port_prompt *out) MUST_USE;
/* message: an answer as an OpenAI chat message; raw: what the model wrote for it. */
void render_remember(render *r, const json_t *message, const char *raw, size_t length);

#endif
