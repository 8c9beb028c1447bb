/* chat.h: a conversation in the terminal, as its parts see it.
 *
 *     chat.c           options, opening, the loop          chat_line.c   the person's message
 *     chat_turn.c      a question and its answer, tools    chat_view.c   the answer on the screen
 *     chat_commands.c  what begins with /                  chat_md*.c    Markdown to lines
 *     chat_store.c     conversations on the drive          chat_tools.c, chat_jail.c
 *
 * The whole conversation is rendered again for every turn and given to fm_session_sync, which
 * computes only what is new. Replies are remembered by id (fm_chat_remember), so what the model
 * thought and said stays exactly what it is in the engine. One thread. */
#ifndef FLASHCHAT_CHAT_H
#define FLASHCHAT_CHAT_H

#include <jansson.h>

#include "chat_line.h"
#include "chat_store.h"
#include "chat_tools.h"
#include "chat_view.h"
#include "command.h"
#include "flashmoe.h"
#include "generate.h"

typedef struct chat_args {
    answer_args a;
    const char *id, *thinking, *colour, *script;
    int save, tools; /* save -1: not said */
    bool resume;
} chat_args;

typedef struct conversation {
    const command *c;
    const chat_args *args;
    fm_engine *engine;
    fm_session *session;
    fm_chat *chat;
    char dir[MODEL_PATH_MAX]; /* of the model */
    chat_view *view;
    chat_line *line;
    chat_tools *tools; /* NULL until they are switched on for the first time */
    json_t *messages;  /* OpenAI messages */
    json_t *script;    /* test build: answers given beforehand; NULL */
    char *system;      /* owned: instructions for new conversations; NULL */
    char *attached;    /* owned: text of files for the next message; NULL */
    char *unanswered;  /* owned: the last question, when it has no answer; NULL */
    char id[CHAT_ID_MAX];
    kept_mark mark;     /* what the state on the drive covers */
    size_t kept_tokens; /* of the session when the state was written last */
    size_t exact;       /* the session is as after so many messages; 0: not known */
    int32_t pending;    /* and this token, or -1 */
    uint64_t retries;   /* further seeds */
    answer_report last; /* of the last answer; last.engine NULL: none yet */
    generation made;    /* what it points to */
    bool keeps;         /* after every answer, under id */
    bool thinks, tools_on, leaving;
} conversation;

/* ---- chat_turn.c ---- */

/* Asks; the answer is printed and becomes part of the conversation. On failure that is as before.
 */
void chat_ask(conversation *k, const char *text);
/* Lets the chat template know what the session holds, so that it is continued token for token:
 * after resuming, and when variables of the template changed. */
void chat_recall(conversation *k);
/* Back to before the last question; its text is the caller's (free), NULL without one. */
char *chat_take_back(conversation *k);
/* The text of the last answer; borrowed, NULL without one. */
const char *chat_last_answer(const conversation *k);
/* Writes the conversation when it is kept; `state`: also the engine's state. */
void chat_keep(conversation *k, bool state);
/* A new conversation with k->system. */
void chat_begin(conversation *k);
/* Another one takes its place; false after a message. */
bool chat_resume(conversation *k, const char *id);

/* ---- chat.c ---- */

/* Closes the model (memory may hold one only) and opens another, with a session. When that fails
 * the one before is opened again; false after a message. */
bool chat_open_model(conversation *k, const model_args *m);

/* ---- chat_commands.c ---- */

extern const char *const chat_command_names[];
extern const int n_chat_command_names;
/* A line that begins with /: does it. */
void chat_command(conversation *k, const char *line);

#endif
