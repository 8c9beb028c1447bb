/* chat_store.h: conversations on the drive: what was said (ID.json) and the engine's state after it
 * (ID.state), so that a resumed conversation goes on at once, without being read again.
 *
 * ~/.config/flashchat/sessions, both files written whole and renamed, readable by their owner only.
 * A state that does not fit any more (another model, build or option) is left aside: the
 * conversation is then read again, which costs time and changes nothing else. */
#ifndef CHAT_STORE_H
#define CHAT_STORE_H

#include "base/err.h"
#include "chatml.h"
#include "flashmoe.h"

#define CHAT_ID_MAX     32
#define CHAT_STATE_MAX  ((size_t)2 << 30) /* larger states are not kept */
#define CHAT_STORED_MAX 10000             /* messages */

/* A new id: the time. */
void chat_new_id(char out[CHAT_ID_MAX]);
/* session may be NULL: no state is kept. */
err chat_save(const char *id, const char *model, const chat_message *m, int n,
              const fm_session *session) MUST_USE;
/* id "" is the newest one and is filled in. *messages (each text and the list) is the caller's. The
 * state goes into session where it fits; *restored says whether it did. */
err chat_load(char id[CHAT_ID_MAX], fm_session *session, chat_message **messages, int *n,
              bool *restored) MUST_USE;

/* `flashchat sessions`. */
int command_sessions(int argc, char **argv);
/* The list, newest first, for people. */
int sessions_show(void);
/* The conversation as Markdown. */
err chat_export(const char *path, const chat_message *m, int n) MUST_USE;

#endif
