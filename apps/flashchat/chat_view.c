/* chat_view.c: see chat_view.h. */
#include "chat_view.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../common/model.h"
#include "chat_md.h"
#include "screen.h"

#define PROSE_COLUMNS 96
#define DRAW_SHARE    4   /* drawing takes at most one part in so many of the time */
#define BAR_SECONDS   0.4 /* shorter work shows no bar */

typedef struct bytes {
    char *data; /* owned */
    size_t length, capacity;
} bytes;

struct chat_view {
    view_mode mode;
    view_thinking thinking;
    /* the answer */
    md_splitter splitter;
    bytes segment;    /* text of the open one */
    md_lines drawn;   /* its lines on the screen; the cursor stands behind the last */
    int columns;      /* of the terminal when they were drawn */
    bool gap;         /* something of this answer stands above */
    double next_draw; /* seconds */
    bytes out;        /* what is written at once */
    /* the thought */
    bool thought;
    double thought_begin;
    int words, column;
    bool in_word;
    bytes word;
    /* the bar */
    double bar_begin, bar_next;
    bool bar_shown;
};

/* ---- bytes ---- */

static void append(bytes *b, const char *data, size_t length) {
    if (b->length + length + 1 > b->capacity) {
        size_t wanted = 2 * (b->capacity + length) + 256;
        char *grown = realloc(b->data, wanted);
        if (!grown) return; /* the screen misses something; the conversation does not */
        b->data = grown;
        b->capacity = wanted;
    }
    memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = '\0';
}

static void append_text(bytes *b, const char *text) { append(b, text, strlen(text)); }

static void append_move(bytes *b, int up) {
    char text[32];
    if (up > 0) append(b, text, (size_t)snprintf(text, sizeof text, "\033[%dA", up));
    append(b, "\r", 1);
}

/* In one write, so that no half of a drawing is seen. */
static void write_out(bytes *b) {
    fwrite(b->data ? b->data : "", 1, b->length, stdout);
    fflush(stdout);
    b->length = 0;
}

/* ---- the terminal ---- */

static int terminal_rows(void) {
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 2 ? w.ws_row : 24;
}

static bool unicode_on; /* fixed by view_open at the start */

bool view_unicode(void) { return unicode_on; }

/* Text is UTF-8 here whatever the locale says; what we draw with is kept to ASCII where the person
 * asks for another character set. A bare system says nothing. */
static void choose_locale(void) {
    const char *names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    bool said = false;
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        said = said || (value && *value);
    }
    bool utf8 = setlocale(LC_CTYPE, "") && !strcmp(nl_langinfo(CODESET), "UTF-8");
    unicode_on = utf8 || !said;
    if (!utf8 && !setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "en_US.UTF-8");
}

/* One column less: a terminal that has just filled its last column is of two minds. */
static md_look look_now(int columns) {
    return (md_look){.width = columns - 1 < MD_WIDTH_MIN ? MD_WIDTH_MIN : columns - 1,
                     .prose = PROSE_COLUMNS,
                     .styled = screen_has_colours(),
                     .unicode = view_unicode()};
}

chat_view *view_open(void) {
    const char *term = getenv("TERM");
    chat_view *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    choose_locale();
    v->mode = !isatty(STDOUT_FILENO)                     ? VIEW_RAW
              : !term || !*term || !strcmp(term, "dumb") ? VIEW_BLOCKS
                                                         : VIEW_LIVE;
    return v;
}

void view_close(chat_view *v) {
    if (!v) return;
    md_lines_free(&v->drawn);
    free(v->segment.data);
    free(v->out.data);
    free(v->word.data);
    free(v);
}

view_mode view_mode_of(const chat_view *v) { return v->mode; }
void view_thinking_set(chat_view *v, view_thinking t) { v->thinking = t; }
view_thinking view_thinking_of(const chat_view *v) { return v->thinking; }

bool view_thinking_parse(const char *text, view_thinking *out) {
    static const char *const names[] = {"dim", "fold", "hide"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, names[i])) return *out = (view_thinking)i, true;
    return false;
}

/* ---- the bar ---- */

static void bar_end(chat_view *v) {
    if (v->bar_shown) fputs("\r\033[K", stdout);
    v->bar_shown = false;
    v->bar_begin = 0;
}

void view_progress(void *ctx, const char *what, uint64_t done, uint64_t total) {
    chat_view *v = ctx;
    double now = seconds_now();
    if (v->mode != VIEW_LIVE || !total) return;
    if (v->bar_begin <= 0) v->bar_begin = now;
    if (done >= total) {
        bar_end(v);
        return;
    }
    if (now - v->bar_begin < BAR_SECONDS || now < v->bar_next) return;
    v->bar_next = now + 0.1;
    const char *full = view_unicode() ? "━" : "#", *rest = view_unicode() ? "─" : ".";
    double part = (double)done / (double)total;
    const char *label = !strcmp(what, "prefill") ? "reading" : what;
    int room = screen_width() - (int)strlen(label) - 20, cells = room > 30 ? 30 : room;
    printf("\r%s%s ", style(STYLE_DIM), label);
    for (int i = 0; i < cells; i++) fputs(i < (int)(part * cells) ? full : rest, stdout);
    char left[24];
    double seconds = part > 0 ? (now - v->bar_begin) * (1 - part) / part : -1;
    printf(" %2d%%", (int)(100 * part));
    if (cells > 10 && part > 0.02) printf(" %s", human_time(left, seconds));
    printf("%s\033[K", STYLE_END);
    fflush(stdout);
    v->bar_shown = true;
}

/* ---- drawing ---- */

/* Rows that a line takes which was made for a wider screen. */
static int rows_of(const md_line *l, int columns) {
    return l->width > columns ? (l->width + columns - 1) / columns : 1;
}

/* Rows between the first column of line `first` and the cursor behind the last line. */
static int rows_above(const md_lines *l, int first, int columns) {
    int rows = 0;
    for (int i = first; i < l->n; i++) rows += rows_of(&l->items[i], columns);
    return rows - 1;
}

/* The first line that has to be written again. */
static int first_change(const chat_view *v, const md_lines *now, int columns) {
    int first = 0, frozen = v->drawn.n, rows = terminal_rows() - 1;
    while (frozen > 0 && rows_above(&v->drawn, frozen - 1, columns) < rows) frozen--;
    if (columns == v->columns)
        while (first < now->n && first < v->drawn.n &&
               !strcmp(now->items[first].text, v->drawn.items[first].text))
            first++;
    if (first < frozen) first = frozen;
    if (first >= now->n && now->n) first = now->n - 1; /* fewer lines: end behind the last */
    return first;
}

static void replace_drawn(chat_view *v, md_lines *now, int columns) {
    md_lines_free(&v->drawn);
    v->drawn = *now;
    *now = (md_lines){0};
    v->columns = columns;
}

/* The open segment's lines become `now`, which is taken. */
static void draw(chat_view *v, md_lines *now) {
    int columns = screen_width(), first = first_change(v, now, columns);
    bytes *out = &v->out;
    bool same = first == now->n - 1 && v->drawn.n == now->n && columns == v->columns &&
                !strcmp(now->items[first].text, v->drawn.items[first].text);
    if (now->n == 0 && v->drawn.n == 0) same = true;
    if (same) {
        md_lines_free(now);
        return;
    }
    if (v->drawn.n == 0) {
        append_text(out, v->gap ? "\n\n" : "");
    } else if (first >= v->drawn.n) {
        append_text(out, "\n");
    } else {
        append_move(out, rows_above(&v->drawn, first, columns));
        if (columns != v->columns || v->drawn.n > now->n) append_text(out, "\033[J");
    }
    for (int i = first; i < now->n; i++) {
        append_text(out, now->items[i].text);
        append_text(out, i < v->drawn.n ? "\033[K" : "");
        append_text(out, i + 1 < now->n ? "\n" : "");
    }
    write_out(out);
    replace_drawn(v, now, columns);
}

/* ---- segments ---- */

static void render(chat_view *v, bool open) {
    md_lines now = {0};
    md_look look = look_now(screen_width());
    double begin = seconds_now();
    if (!md_render(v->segment.data ? v->segment.data : "", v->segment.length, &look, open, &now)) {
        md_lines_free(&now); /* no memory: what is drawn stays */
        return;
    }
    if (v->mode == VIEW_LIVE) {
        draw(v, &now);
        double took = seconds_now() - begin;
        v->next_draw = begin + DRAW_SHARE * took;
        return;
    }
    if (now.n && v->gap) append_text(&v->out, "\n");
    for (int i = 0; i < now.n; i++) {
        append_text(&v->out, now.items[i].text);
        append_text(&v->out, "\n");
    }
    if (now.n) v->gap = true;
    write_out(&v->out);
    md_lines_free(&now);
}

/* The first `length` bytes of the text are a whole segment. */
static void end_segment(chat_view *v, size_t length) {
    bytes *s = &v->segment;
    size_t whole = s->length;
    s->length = length;
    render(v, false);
    if (v->drawn.n) v->gap = true;
    md_lines_clear(&v->drawn);
    memmove(s->data, s->data + length, whole - length);
    s->length = whole - length;
}

static void take_lines(chat_view *v) {
    size_t n;
    while ((n = md_next_segment(&v->splitter, v->segment.data, v->segment.length)))
        end_segment(v, n);
}

/* ---- thoughts ---- */

static void end_word(chat_view *v) {
    int wide = md_columns(v->word.data ? v->word.data : "", v->word.length);
    if (!v->word.length) return;
    if (v->column && v->column + 1 + wide > screen_width() - 1) {
        append_text(&v->out, "\n");
        v->column = 0;
    }
    if (v->column) append_text(&v->out, " ");
    v->column += (v->column ? 1 : 0) + wide;
    append(&v->out, v->word.data, v->word.length);
    v->word.length = 0;
}

static void show_thought(chat_view *v, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0xc2 && i + 1 < length && (unsigned char)text[i + 1] < 0xa0) { /* controls, too */
            i++;
            continue;
        }
        if (c > ' ' && c != 127) {
            append(&v->word, text + i, 1);
            if (v->word.length < 4 * 20) continue; /* long ones are cut at a character's end */
            if (i + 1 < length && ((unsigned char)text[i + 1] & 0xc0) == 0x80) continue;
        }
        end_word(v);
        if (c != '\n') continue;
        append_text(&v->out, "\n");
        v->column = 0;
    }
}

static void count_words(chat_view *v, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool in = (unsigned char)text[i] > ' ';
        if (in && !v->in_word) v->words++;
        v->in_word = in;
    }
}

static void begin_thought(chat_view *v) {
    v->thought = true;
    v->thought_begin = seconds_now();
    v->words = v->column = 0;
    v->in_word = false;
    v->word.length = 0;
    if (v->mode == VIEW_BLOCKS && v->thinking == THINKING_FOLD) puts("(thinking)");
}

static void thought_text(chat_view *v, const char *text, size_t length) {
    if (v->mode == VIEW_RAW) {
        if (v->thinking == THINKING_DIM) fwrite(text, 1, length, stderr);
        return;
    }
    count_words(v, text, length);
    if (v->thinking == THINKING_DIM) {
        append_text(&v->out, style(STYLE_DIM)); /* anew: what is printed between must not end it */
        size_t before = v->out.length;
        show_thought(v, text, length);
        append_text(&v->out, STYLE_END);
        if (v->out.length == before + strlen(STYLE_END)) v->out.length = 0; /* half a word */
        write_out(&v->out);
    } else if (v->thinking == THINKING_FOLD && v->mode == VIEW_LIVE) {
        double now = seconds_now();
        if (now < v->next_draw) return;
        v->next_draw = now + 0.1;
        printf("\r%sthinking: %d words%s\033[K", style(STYLE_DIM), v->words, STYLE_END);
        fflush(stdout);
    }
}

static void end_thought(chat_view *v) {
    char took[24];
    v->thought = false;
    if (v->mode == VIEW_RAW) {
        if (v->thinking == THINKING_DIM) fputc('\n', stderr);
        return;
    }
    if (v->thinking == THINKING_DIM) {
        append_text(&v->out, style(STYLE_DIM));
        end_word(v);
        append_text(&v->out, STYLE_END);
        append_text(&v->out, v->column ? "\n\n" : "\n");
        write_out(&v->out);
    } else if (v->thinking == THINKING_FOLD) {
        printf("%s%sthought for %s, %d words%s%s\n\n", v->mode == VIEW_LIVE ? "\r" : "",
               style(STYLE_DIM), human_time(took, seconds_now() - v->thought_begin), v->words,
               STYLE_END, v->mode == VIEW_LIVE ? "\033[K" : "");
    }
    v->next_draw = 0;
}

/* ---- the answer ---- */

void view_text(void *ctx, bool thought, const char *text, size_t length) {
    chat_view *v = ctx;
    bar_end(v);
    if (thought && !v->thought) begin_thought(v);
    if (!thought && v->thought) end_thought(v);
    if (thought) {
        thought_text(v, text, length);
        return;
    }
    if (v->mode == VIEW_RAW) {
        fwrite(text, 1, length, stdout);
        fflush(stdout);
        v->gap = text[length - 1] != '\n'; /* the line is not ended yet */
        return;
    }
    append(&v->segment, text, length);
    take_lines(v);
    if (v->mode == VIEW_LIVE && v->segment.length && seconds_now() >= v->next_draw) render(v, true);
}

void view_end(chat_view *v) {
    bar_end(v);
    if (v->thought) end_thought(v);
    if (v->mode != VIEW_RAW && v->segment.length) end_segment(v, v->segment.length);
    if (v->mode != VIEW_BLOCKS && v->gap) putchar('\n');
    fflush(stdout);
    v->splitter = (md_splitter){0};
    v->gap = false;
    v->next_draw = 0;
}

void view_markdown(chat_view *v, const char *text, size_t length) {
    if (!length) return;
    v->next_draw = 1e300; /* only whole blocks */
    view_text(v, false, text, length);
    view_end(v);
}

void view_note(const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    FILE *to = isatty(STDOUT_FILENO) ? stdout : stderr; /* a pipe gets answers only */
    fflush(stdout);
    fputs(style(STYLE_DIM), to);
    print_wrapped(to, "", text);
    fputs(STYLE_END, to);
    fflush(to);
}
