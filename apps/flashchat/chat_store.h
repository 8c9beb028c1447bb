/* chat_store.h: conversations on the drive: what was said (ID.json) and the engine's state after it
 * (ID.state), so that a resumed conversation goes on at once, without being read again.
 *
 * ~/.config/flashchat/sessions, both files written whole and renamed, readable by their owner only.
 * The messages are written after every answer; the state, which is large, when the conversation is
 * left. ID.json says what the state covers (kept_mark), so an older state still serves for the
 * beginning. A state that does not fit any more (another model, build or option, or a file that is
 * not the one that the mark means) is left aside: the conversation is then read again, which costs
 * time and changes nothing else. */
#ifndef CHAT_STORE_H
#define CHAT_STORE_H

#include <jansson.h>

#include "base/err.h"
#include "flashmoe.h"

#define CHAT_ID_MAX     32
#define CHAT_STATE_MAX  ((size_t)2 << 30) /* larger states are not kept */
#define CHAT_STORED_MAX 10000             /* messages */

typedef struct kept_mark {
    size_t messages; /* the state is that after so many of them; 0: there is none */
    uint64_t hash;   /* of its tokens */
    int32_t pending; /* a token that follows them, or -1 */
} kept_mark;

/* A new id: the time. */
void kept_new_id(char out[CHAT_ID_MAX]);
/* messages: a list of OpenAI messages. */
err kept_save(const char *id, const char *model, const json_t *messages,
              const kept_mark *mark) MUST_USE;
/* Keeps the session's state, and says so in *mark: hash, and messages 0 when nothing was kept. */
err kept_save_state(const char *id, const fm_session *session, kept_mark *mark) MUST_USE;
/* id "" is the newest one and is filled in. *messages is the caller's (json_decref). */
err kept_load(char id[CHAT_ID_MAX], json_t **messages, kept_mark *mark) MUST_USE;
/* True: the session is as the mark says. Otherwise it is cleared. */
bool kept_load_state(const char *id, const kept_mark *mark, fm_session *session);

/* `flashchat sessions`. */
int command_sessions(int argc, char **argv);
/* The list, newest first, for people. */
int sessions_show(void);
/* The conversation as Markdown, into a new file. */
err kept_export(const char *path, const json_t *messages) MUST_USE;

#endif
