/* chat_md.h: Markdown as it is being written, to lines of a terminal.
 *
 *     text ----> segments ----> lines
 *     # Title\n       [heading]      "Title"
 *     Some *text*\n   [paragraph,    "Some text"
 *     \n               ends at the
 *     - a              blank line]
 *     - b             [list, open]   "• a"  "• b"     drawn again while it grows
 *
 * A segment is what stands between two places where a new block begins for certain: its lines never
 * change by what follows. Places are found in whole lines only, from the top, so a text gives the
 * same segments however it was cut into pieces. Each segment is parsed by itself (md4c); of a whole
 * document only link definitions are lost by that.
 *
 * Pure: no terminal, no clock, no globals. Lines are never wider than the width asked for, as long
 * as that is at least MD_WIDTH_MIN. Control characters never come out. One thread. */
#ifndef FLASHCHAT_CHAT_MD_H
#define FLASHCHAT_CHAT_MD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MD_WIDTH_MIN 12

typedef struct md_look {
    int width;    /* columns of a line, at least MD_WIDTH_MIN */
    int prose;    /* the same for running text; 0: width */
    bool styled;  /* escape sequences for bold, colours ...; without, marks such as `code` stay */
    bool unicode; /* bullets and rules as Unicode, else ASCII */
} md_look;

typedef struct md_line {
    char *text; /* owned, zero-terminated; styles are closed at its end */
    int width;  /* columns */
} md_line;

typedef struct md_lines { /* zero-initialise; md_lines_free */
    md_line *items;
    int n, capacity;
} md_lines;

void md_lines_free(md_lines *l);
/* Takes the lines away, keeps the memory. */
void md_lines_clear(md_lines *l);

/* Appends the lines of one segment. open: more may follow; emphasis and code that are not closed
 * yet are shown as if they were. False without memory (l has some of the lines then). */
bool md_render(const char *text, size_t length, const md_look *look, bool open, md_lines *l);

/* Finds the ends of segments. Zero-initialise. */
typedef struct md_splitter {
    size_t line;      /* offset of the first line that was not looked at */
    bool ends;        /* the segment ends there */
    bool begun;       /* it has a line that is not blank */
    bool list, blank; /* it is a list; the line before was blank */
    char fence;       /* in a fence of this character ... */
    int fence_length; /* ... of at least so many */
} md_splitter;

/* text [length]: all that came since the end of the last segment. Returns the length of the first
 * segment when its end is known, else 0; the caller takes that off the front of text before the
 * next call. Each byte is looked at once. */
size_t md_next_segment(md_splitter *s, const char *text, size_t length);

/* Columns of UTF-8 text of `length` bytes. */
int md_columns(const char *text, size_t length);

/* ---- chat_code.c ---- */

/* Classes of code, one byte for each of source. */
typedef enum md_class {
    MD_PLAIN,
    MD_KEYWORD,
    MD_STRING,
    MD_COMMENT,
    MD_NUMBER,
    MD_ADDED, /* of a diff */
    MD_REMOVED,
} md_class;

/* classes [length]. Unknown languages are all MD_PLAIN. */
void md_highlight(const char *language, size_t language_length, const char *code, size_t length,
                  uint8_t *classes);

#endif
