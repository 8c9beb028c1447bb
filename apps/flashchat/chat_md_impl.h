/* chat_md_impl.h: what the two halves of chat_md.h share: text with a style for every byte, and the
 * containers (lists, quotes) that its lines stand in. */
#ifndef FLASHCHAT_CHAT_MD_IMPL_H
#define FLASHCHAT_CHAT_MD_IMPL_H

#include "chat_md.h"

/* A style is flags and a colour. */
enum {
    MD_BOLD = 1,
    MD_ITALIC = 2,
    MD_UNDER = 4,
    MD_STRIKE = 8,
    MD_COLOUR = 16, /* times a md_colour */
};
typedef enum md_colour {
    MD_NONE,
    MD_CYAN,
    MD_MAGENTA,
    MD_GREEN,
    MD_DIM,
    MD_YELLOW,
    MD_RED,
} md_colour;

typedef struct md_text { /* bytes of UTF-8 and a style for each; zero-initialise */
    char *bytes;         /* owned */
    uint8_t *styles;     /* owned */
    size_t length, capacity;
} md_text;

bool md_text_add(md_text *t, const char *bytes, size_t length, uint8_t style);
void md_text_free(md_text *t);

#define MD_DEPTH_MAX 12

typedef struct md_container {
    bool quote;
    bool marked;     /* the marker was written */
    char marker[16]; /* of a list item: "- ", "12. " */
} md_container;

typedef struct md_cell {
    size_t from, to; /* of the table's text */
} md_cell;

typedef struct md_table {
    md_text text;
    md_cell *cells; /* owned; row by row, the first row is the header */
    int n, capacity, columns;
    char align[64]; /* of each column: 0 left, 1 middle, 2 right */
} md_table;

#define MD_COLUMNS_MAX 64

typedef struct md_frame { /* where lines go and what stands before them */
    const md_look *look;
    md_lines *out;
    md_container stack[MD_DEPTH_MAX];
    int depth;
    bool failed;  /* no memory */
    md_text line; /* being built */
} md_frame;

/* The columns that are left for text inside the containers; prose: at most look->prose. */
int md_room(const md_frame *f, bool prose);
/* Wrapped at spaces (and between wide characters); '\n' in the text ends a line. */
void md_put_prose(md_frame *f, const md_text *t);
/* Line for line, wrapped only where it is too wide, behind four spaces. */
void md_put_code(md_frame *f, const md_text *t);
void md_put_table(md_frame *f, const md_table *t);
void md_put_rule(md_frame *f);
void md_put_blank(md_frame *f);

/* The character at i: its bytes, at least 1, and columns. */
size_t md_character(const char *bytes, size_t left, int *columns);

#endif
