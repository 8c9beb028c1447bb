/* chat_line.h: the next message from the person.
 *
 * On a terminal: libedit, with history and search (Ctrl-R), the person's ~/.editrc, Tab for
 * commands. A message may have many lines: Alt-Enter, Enter behind a backslash, and Enter inside an
 * open ``` begin a new one, and all of it can still be edited. What is pasted is one message; long
 * pastes stand in the line as "[pasted 120 lines]". In a pipe and on a dumb terminal: plain lines,
 * with the same backslash and ```.
 *
 * The history is a file of its owner only (0600). One object a process, one thread. */
#ifndef FLASHCHAT_CHAT_LINE_H
#define FLASHCHAT_CHAT_LINE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct chat_line chat_line;

typedef enum line_result {
    LINE_OK,
    LINE_END,       /* end of the input */
    LINE_INTERRUPT, /* Ctrl-C, and nothing was typed before it */
    LINE_DROPPED,   /* Ctrl-C: what was typed is forgotten */
} line_result;

/* words [n]: what Tab completes at the beginning; borrowed until line_close. history: a path, or
 * NULL for none. plain: no editing even on a terminal. NULL without memory. */
chat_line *line_open(const char *history, const char *const *words, int n, bool plain);
void line_close(chat_line *l);

/* *text is the caller's (free), without its last line break; NULL unless LINE_OK. */
line_result line_read(chat_line *l, const char *prompt, char **text);

/* Between two lines, as an edited line_read leaves it: what is typed is not echoed into an answer,
 * but kept for the next line_read, which ends it. Ctrl-C works. Off for a program that shall have
 * the terminal as it was. Nothing in a pipe. */
void line_quiet(chat_line *l, bool on);

#endif
