/* chat_tools.h: what a model may do in a chat when the person switches tools on: run a shell
 * command, read a file, write a file, list a folder.
 *
 * Every call is shown and needs a yes. "always" puts it on the allow-list of this conversation: a
 * file tool as such, a shell command word for word. Files are those below the folder in which the
 * chat was started (chat_jail.h); a command runs there, changes files only there where the system
 * can see to that (Landlock), has a time limit, and ends with Ctrl-C. What the model gets to read
 * is bounded. One thread. */
#ifndef FLASHCHAT_CHAT_TOOLS_H
#define FLASHCHAT_CHAT_TOOLS_H

#include <stdbool.h>

#include "base/err.h"

typedef struct chat_tools chat_tools;

#define TOOL_OUTPUT_MAX  16000 /* bytes of a result that the model gets */
#define TOOL_SECONDS     60    /* a command's time */
#define TOOL_ALLOWED_MAX 64

err tools_open(const char *folder, chat_tools **out) MUST_USE;
void tools_close(chat_tools *t);
/* The list for fm_chat_request. Static. */
const char *tools_json(void);

/* Shows the call, asks, runs it. The result is the caller's (free): what the tool said, or why it
 * did not run; NULL without memory. ask [prompt]: the key that was pressed, -1 at the end of the
 * input; `arguments` is JSON as the model wrote it. */
typedef int (*tools_ask)(const char *prompt);
char *tools_run(chat_tools *t, const char *name, const char *arguments, tools_ask ask);

/* What is allowed without asking, printed; and forgotten. */
void tools_print(const chat_tools *t);
void tools_forget(chat_tools *t);

#endif
