/* screen.h: what the commands show and ask. Everything works on a terminal of 40 columns, without
 * colours, and in a pipe: there a line is a line and the end of the input is never consent. */
#ifndef SCREEN_H
#define SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Columns of standard output: the terminal's, else FLASHCHAT_WIDTH, else 80; at least 20. */
int screen_width(void);
/* Columns that UTF-8 text takes; what is not UTF-8 counts one a byte. */
int text_width(const char *text);
/* Bytes of text that fit into columns, never cutting a character. */
size_t text_fit(const char *text, int columns);

/* Prints text in lines of the screen's width: the first behind `first`, the others indented as
 * far. */
void print_wrapped(FILE *f, const char *first, const char *text);
/* The same with `lead` columns already on the line. */
void print_wrapped_after(FILE *f, int lead, const char *first, const char *text);
/* A message on standard error: wrapped on a terminal, one line in a pipe. */
void say_error(const char *text);
/* Printed in columns [text, padded to width] and cut with "..." where it is longer. */
void print_cell(FILE *f, const char *text, int width);

/* "20.4 GB", "512 MB", "35 kB" (decimal units) into out[16]; returns out. */
char *human_bytes(char *out, uint64_t bytes);
/* "12.0 GiB" (binary units), as memory is sold. */
char *human_memory(char *out, uint64_t bytes);
/* "3 h 20 min", "45 s" into out[24]; returns out. */
char *human_time(char *out, double seconds);

typedef enum screen_style {
    STYLE_NONE,
    STYLE_BOLD,
    STYLE_DIM,
    STYLE_GREEN,
    STYLE_YELLOW,
    STYLE_RED
} screen_style;

/* Colours as COLOR_OUTPUT says ("auto", "on", "off"); auto also obeys NO_COLOR and TERM=dumb. Call
 * once, before printing. */
void screen_colours(const char *setting);
bool screen_has_colours(void);
/* The escape sequence, or "" without colours. */
const char *style(screen_style s);
#define STYLE_END style(STYLE_NONE)

/* A line from the person, without its newline; false at the end of the input. */
bool ask_line(const char *prompt, char *out, size_t size);
enum { KEY_UP = 1000, KEY_DOWN };

/* One key: on a terminal at once, in a pipe the first character of a line ('\n' for an empty one).
 * -1 at the end of the input or at Ctrl-C. KEY_UP, KEY_DOWN; other function keys are 27. */
int ask_key(const char *prompt);
/* A list to choose from with the arrow keys and Enter, each item one line: its number from 0, -1
 * for back (q, x, Esc, an empty line), -2 at the end of the input. In a pipe and on a dumb terminal
 * the number is typed. at: the item that is marked first. */
int ask_list(const char *const *items, int n, int at);
/* Asks until Y or x (five times at most); the end of the input is no. */
bool ask_consent(const char *yes_label);

#endif
