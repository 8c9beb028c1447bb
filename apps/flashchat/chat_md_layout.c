/* chat_md_layout.c: styled text to lines of limited width. See chat_md_impl.h.
 *
 *     | quote bar | item marker or as many spaces | text ...            |
 *     `------------- prefix ---------------------´`------ room --------´
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "chat_md_impl.h"

/* ---- characters and text ---- */

size_t md_character(const char *bytes, size_t left, int *columns) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)left, &c);
    if (n <= 0) {
        *columns = 1;
        return 1;
    }
    *columns = utf8proc_charwidth(c);
    if (*columns < 0) *columns = 0;
    return (size_t)n;
}

int md_columns(const char *text, size_t length) {
    int total = 0, columns;
    for (size_t i = 0; i < length; total += columns)
        i += md_character(text + i, length - i, &columns);
    return total;
}

bool md_text_add(md_text *t, const char *bytes, size_t length, uint8_t style) {
    if (t->length + length + 1 > t->capacity) {
        size_t wanted = 2 * (t->capacity + length + 64);
        char *grown = realloc(t->bytes, wanted);
        if (grown) t->bytes = grown;
        uint8_t *styles = grown ? realloc(t->styles, wanted) : NULL;
        if (!styles) return false;
        t->styles = styles;
        t->capacity = wanted;
    }
    if (length) memcpy(t->bytes + t->length, bytes, length);
    memset(t->styles + t->length, style, length);
    t->length += length;
    return true;
}

void md_text_free(md_text *t) {
    free(t->bytes);
    free(t->styles);
    *t = (md_text){0};
}

/* ---- lines ---- */

void md_lines_clear(md_lines *l) {
    while (l->n) free(l->items[--l->n].text);
}

void md_lines_free(md_lines *l) {
    md_lines_clear(l);
    free(l->items);
    *l = (md_lines){0};
}

static bool add_line(md_lines *l, char *text, int width) {
    if (l->n == l->capacity) {
        int wanted = l->capacity ? 2 * l->capacity : 32;
        md_line *grown = realloc(l->items, sizeof *grown * (size_t)wanted);
        if (!grown) return false;
        l->items = grown;
        l->capacity = wanted;
    }
    l->items[l->n++] = (md_line){text, width};
    return true;
}

static size_t escape(char *out, uint8_t style) {
    static const char *const colours[] = {"", ";36", ";35", ";32", ";2", ";33", ";31"};
    return (size_t)snprintf(out, 32, "\033[0%s%s%s%s%sm", style & MD_BOLD ? ";1" : "",
                            style & MD_ITALIC ? ";3" : "", style & MD_UNDER ? ";4" : "",
                            style & MD_STRIKE ? ";9" : "", colours[style / MD_COLOUR]);
}

/* Bytes of t with the escape sequences between them; owned by the caller. */
static char *with_styles(const md_text *t, bool styled) {
    char *out = malloc(t->length * (styled ? 33 : 1) + 40);
    size_t n = 0;
    uint8_t now = 0;
    for (size_t i = 0; out && i < t->length; i++) {
        if (styled && t->styles[i] != now) n += escape(out + n, now = t->styles[i]);
        out[n++] = t->bytes[i];
    }
    if (out && now) n += (size_t)snprintf(out + n, 8, "\033[0m");
    if (!out) return NULL;
    out[n] = '\0';
    char *tight = realloc(out, n + 1);
    return tight ? tight : out;
}

/* f->line is complete. */
static void end_line(md_frame *f) {
    md_text *t = &f->line;
    while (t->length && t->bytes[t->length - 1] == ' ') t->length--;
    char *text = f->failed ? NULL : with_styles(t, f->look->styled);
    if (!text || !add_line(f->out, text, md_columns(t->bytes, t->length))) {
        free(text);
        f->failed = true;
    }
    t->length = 0;
}

static void add(md_frame *f, const char *bytes, size_t length, uint8_t style) {
    if (!md_text_add(&f->line, bytes, length, style)) f->failed = true;
}

static void add_spaces(md_frame *f, int n) {
    for (int i = 0; i < n; i++) add(f, " ", 1, 0);
}

/* ---- prefixes ---- */

#define ROOM_LEAST 8 /* < MD_WIDTH_MIN */

/* Containers that the stack holds: those deeper than it are counted only. */
static int held(const md_frame *f) { return f->depth < MD_DEPTH_MAX ? f->depth : MD_DEPTH_MAX; }

/* Deep nesting must leave room for text: containers that would not are not drawn. */
static int drawn(const md_frame *f, int *columns) {
    int i = 0;
    *columns = 0;
    for (; i < held(f); i++) {
        int wide =
            f->stack[i].quote ? 2 : md_columns(f->stack[i].marker, strlen(f->stack[i].marker));
        if (*columns + wide > f->look->width - ROOM_LEAST) break;
        *columns += wide;
    }
    return i;
}

int md_room(const md_frame *f, bool prose) {
    int columns, width = f->look->width;
    if (prose && f->look->prose && f->look->prose < width) width = f->look->prose;
    drawn(f, &columns);
    return width - columns < ROOM_LEAST ? ROOM_LEAST : width - columns;
}

static void add_prefix(md_frame *f) {
    int columns, n = drawn(f, &columns);
    const char *bar = f->look->unicode ? "│ " : "> ";
    for (int i = 0; i < n; i++) {
        md_container *c = &f->stack[i];
        if (c->quote) {
            add(f, bar, strlen(bar), MD_DIM * MD_COLOUR);
        } else if (c->marked) {
            add_spaces(f, md_columns(c->marker, strlen(c->marker)));
        } else {
            add(f, c->marker, strlen(c->marker), MD_DIM * MD_COLOUR);
            c->marked = true;
        }
    }
}

void md_put_blank(md_frame *f) {
    bool marked[MD_DEPTH_MAX];
    for (int i = 0; i < held(f); i++) marked[i] = f->stack[i].marked, f->stack[i].marked = true;
    add_prefix(f);
    for (int i = 0; i < held(f); i++) f->stack[i].marked = marked[i];
    end_line(f);
}

void md_put_rule(md_frame *f) {
    add_prefix(f);
    const char *dash = f->look->unicode ? "─" : "-";
    int n = md_room(f, true);
    for (int i = 0; i < n && i < 40; i++) add(f, dash, strlen(dash), MD_DIM * MD_COLOUR);
    end_line(f);
}

/* ---- wrapping ---- */

/* Where a line that begins at `from` ends (*end) and the next one begins, within `room` columns. A
 * line has at least one character. Combining characters stay with theirs. */
static size_t break_line(const md_text *t, size_t from, size_t to, int room, size_t *end) {
    size_t i = from, last = 0, next = 0; /* the last good place */
    int columns = 0, wide, before = 0;
    while (i < to) {
        if (t->bytes[i] == '\n') return *end = i, i + 1;
        size_t n = md_character(t->bytes + i, to - i, &wide);
        if (t->bytes[i] == ' ') {
            last = i;
            next = i + 1;
        } else if (i > from && (wide == 2 || before == 2) && wide) {
            last = next = i; /* between ideographs; or between one and a word */
        }
        if (columns + wide > room && i > from) break;
        columns += wide;
        before = wide ? wide : before;
        i += n;
    }
    if (i >= to) return *end = to, to;
    if (last > from) {
        while (next < to && t->bytes[next] == ' ') next++;
        return *end = last, next;
    }
    return *end = i, i;
}

void md_put_prose(md_frame *f, const md_text *t) {
    size_t at = 0;
    do {
        size_t end, next = break_line(t, at, t->length, md_room(f, true), &end);
        add_prefix(f);
        for (size_t i = at; i < end; i++) add(f, t->bytes + i, 1, t->styles[i]);
        end_line(f);
        at = next;
    } while (at < t->length && !f->failed);
}

#define CODE_INDENT 4

void md_put_code(md_frame *f, const md_text *t) {
    int room = md_room(f, false);
    int indent = room > 2 * CODE_INDENT ? CODE_INDENT : 0;
    for (size_t i = 0; i < t->length && !f->failed;) {
        int columns = 0, wide;
        add_prefix(f);
        add_spaces(f, indent);
        while (i < t->length && t->bytes[i] != '\n') {
            size_t n = md_character(t->bytes + i, t->length - i, &wide);
            if (t->bytes[i] == '\t') wide = 4 - columns % 4;
            if (columns && columns + wide > room - indent) break;
            if (t->bytes[i] == '\t')
                add_spaces(f, wide < room - indent ? wide : 1);
            else
                add(f, t->bytes + i, n, t->styles[i]);
            columns += wide;
            i += n;
        }
        end_line(f);
        if (i < t->length && t->bytes[i] == '\n') i++;
    }
}

/* ---- tables ---- */

#define COLUMN_LEAST 4

static const md_cell *cell(const md_table *t, int row, int column) {
    static const md_cell empty = {0, 0};
    int i = row * t->columns + column;
    return i < t->n ? &t->cells[i] : &empty;
}

static int cell_columns(const md_table *t, const md_cell *c) {
    return md_columns(t->text.bytes + c->from, c->to - c->from);
}

/* The widest columns give until all fit; false: they cannot. */
static bool fit_columns(const md_table *t, int rows, int room, int *widths) {
    int total = 3 * (t->columns - 1);
    for (int c = 0; c < t->columns; c++) {
        widths[c] = 1;
        for (int r = 0; r < rows; r++) {
            int w = cell_columns(t, cell(t, r, c));
            if (w > widths[c]) widths[c] = w;
        }
        total += widths[c];
    }
    while (total > room) {
        int widest = 0, second = COLUMN_LEAST;
        for (int c = 1; c < t->columns; c++)
            if (widths[c] > widths[widest]) widest = c;
        for (int c = 0; c < t->columns; c++)
            if (widths[c] < widths[widest] && widths[c] > second) second = widths[c];
        if (widths[widest] <= COLUMN_LEAST) return false;
        int less = widths[widest] - second;
        if (less > total - room) less = total - room;
        if (less < 1) less = 1;
        widths[widest] -= less;
        total -= less;
    }
    return true;
}

static void put_row(md_frame *f, const md_table *t, int row, const int *widths) {
    size_t at[MD_COLUMNS_MAX];
    bool more = true;
    for (int c = 0; c < t->columns; c++) at[c] = cell(t, row, c)->from;
    const char *bar = f->look->unicode ? " │ " : " | ";
    for (bool first = true; (more || first) && !f->failed; first = false) {
        more = false;
        add_prefix(f);
        for (int c = 0; c < t->columns; c++) {
            size_t to = cell(t, row, c)->to, end = at[c], next = at[c];
            if (at[c] < to) next = break_line(&t->text, at[c], to, widths[c], &end);
            int free = widths[c] - md_columns(t->text.bytes + at[c], end - at[c]);
            if (free < 0) free = 0;
            int left = t->align[c] == 2 ? free : t->align[c] == 1 ? free / 2 : 0;
            if (c) add(f, bar, strlen(bar), MD_DIM * MD_COLOUR);
            add_spaces(f, left);
            for (size_t i = at[c]; i < end; i++)
                add(f, t->text.bytes + i, 1,
                    (uint8_t)(t->text.styles[i] | (row == 0 ? MD_BOLD : 0)));
            add_spaces(f, free - left);
            at[c] = next;
            more = more || next < to;
        }
        end_line(f);
    }
}

static void put_separator(md_frame *f, const md_table *t, const int *widths) {
    const char *dash = f->look->unicode ? "─" : "-", *cross = f->look->unicode ? "─┼─" : "-+-";
    add_prefix(f);
    for (int c = 0; c < t->columns; c++) {
        if (c) add(f, cross, strlen(cross), MD_DIM * MD_COLOUR);
        for (int i = 0; i < widths[c]; i++) add(f, dash, strlen(dash), MD_DIM * MD_COLOUR);
    }
    end_line(f);
}

/* Too narrow for columns: every row as lines "header: value". */
static void put_records(md_frame *f, const md_table *t, int rows) {
    for (int r = 1; r < rows && !f->failed; r++) {
        if (r > 1) md_put_blank(f);
        for (int c = 0; c < t->columns; c++) {
            md_text line = {0};
            const md_cell *head = cell(t, 0, c), *value = cell(t, r, c);
            bool good =
                md_text_add(&line, t->text.bytes + head->from, head->to - head->from, MD_BOLD) &&
                md_text_add(&line, ": ", 2, 0);
            for (size_t i = value->from; good && i < value->to; i++)
                good = md_text_add(&line, t->text.bytes + i, 1, t->text.styles[i]);
            if (good) md_put_prose(f, &line);
            if (!good) f->failed = true;
            md_text_free(&line);
        }
    }
}

void md_put_table(md_frame *f, const md_table *t) {
    int widths[MD_COLUMNS_MAX];
    if (t->columns < 1 || !t->text.bytes) return;
    int rows = t->n / t->columns;
    if (!fit_columns(t, rows, md_room(f, false), widths)) {
        put_records(f, t, rows);
        return;
    }
    for (int r = 0; r < rows; r++) {
        put_row(f, t, r, widths);
        if (r == 0) put_separator(f, t, widths);
    }
}
