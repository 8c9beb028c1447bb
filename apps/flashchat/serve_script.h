/* serve_script.h: answers given beforehand, for tests of clients: a tiny model rarely calls the
 * right tool by itself. Exists in the test build only (FM_TEST_BUILD): flashchat serve
 * --scripted-reply FILE. The product has neither the option nor the code. */
#ifndef FLASHCHAT_SERVE_SCRIPT_H
#define FLASHCHAT_SERVE_SCRIPT_H

#include "server/server.h"

#ifdef FM_TEST_BUILD
#define SCRIPT_ARGS(type)                                                                          \
    {                                                                                              \
        "--scripted-reply", "FILE", "test build: answers given beforehand", ARG_TEXT,              \
            offsetof(type, script), 0, 0                                                           \
    }
#else
#define SCRIPT_ARGS(type)                                                                          \
    { NULL, NULL, NULL, ARG_HEADING, 0, 0, 0 }
#endif

/* FILE: a list of rules; the first that fits a request counts.
 *
 *     {"match": TEXT, "role": ROLE, "tools": BOOL,     its last message contains TEXT and is of
 * ROLE; it has tools, or none "reply": TEXT, "more": N}                       the answer: TEXT as
 * the model would write it, then N tokens that the model really makes
 *
 * role, tools and more may be left out. False after a message. */
bool script_open(const char *program, const char *file, server_options *o);
void script_close(server_options *o);

#endif
