/* chat_view.h: an answer on the screen while it is being made.
 *
 *     VIEW_RAW     a pipe: the text as it comes, nothing else; thoughts go to standard error
 *     VIEW_BLOCKS  a terminal that can only print (TERM=dumb): every block when it is complete
 *     VIEW_LIVE    any other: the open block is drawn again in place while it grows
 *
 * Live, only lines that changed are written, in one write, and never lines that have left the
 * screen. The width is looked up at every drawing, so a window may change while text comes; lines
 * that were drawn wider are taken to be wrapped by the terminal, as most do today. One thread. */
#ifndef FLASHCHAT_CHAT_VIEW_H
#define FLASHCHAT_CHAT_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum view_mode { VIEW_RAW, VIEW_BLOCKS, VIEW_LIVE } view_mode;
typedef enum view_thinking { THINKING_DIM, THINKING_FOLD, THINKING_HIDE } view_thinking;

typedef struct chat_view chat_view;

/* The mode by what standard output is. NULL without memory. */
chat_view *view_open(void);
void view_close(chat_view *v);
view_mode view_mode_of(const chat_view *v);

void view_thinking_set(chat_view *v, view_thinking t);
view_thinking view_thinking_of(const chat_view *v);
/* "dim", "fold", "hide"; false for another word. */
bool view_thinking_parse(const char *text, view_thinking *out);

/* An fm_reply_show: ctx is the view. */
void view_text(void *ctx, bool thought, const char *text, size_t length);
/* The answer, or the part of it before something else is printed, is over; leaves the cursor at the
 * beginning of a line. */
void view_end(chat_view *v);

/* An fm_progress: a bar on the present line, once it takes longer than a moment. Gone with the next
 * text or view_end. Only live. */
void view_progress(void *ctx, const char *what, uint64_t done, uint64_t total);

/* A finished text as Markdown, as VIEW_LIVE leaves it; raw in a pipe. */
void view_markdown(chat_view *v, const char *text, size_t length);
/* A line that is not part of the conversation, dim; wrapped. On standard error beside a pipe. */
void view_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The characters beyond ASCII that we draw with can be shown. */
bool view_unicode(void);

#endif
