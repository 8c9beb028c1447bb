/* chat_md.c: see chat_md.h. Segments, and md4c's events to text, containers and tables; the layout
 * is in chat_md_layout.c. */
#include "chat_md.h"

#include <ctype.h>
#include <md4c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "chat_md_impl.h"

/* ---- segments ---- */

static size_t run_of(const char *line, size_t length, char c) {
    size_t n = 0;
    while (n < length && line[n] == c) n++;
    return n;
}

static bool is_blank(const char *line, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!isspace((unsigned char)line[i])) return false;
    return true;
}

static bool is_list_item(const char *line, size_t length) {
    size_t digits = 0;
    if (!length) return false;
    if (strchr("-*+", line[0])) return length == 1 || line[1] == ' ' || line[1] == '\t';
    while (digits < length && digits < 9 && isdigit((unsigned char)line[digits])) digits++;
    return digits && digits + 1 < length && (line[digits] == '.' || line[digits] == ')') &&
           line[digits + 1] == ' ';
}

static bool is_heading(const char *line, size_t length) {
    size_t n = run_of(line, length, '#');
    return n >= 1 && n <= 6 && (n == length || line[n] == ' ');
}

/* The line opens a fence; a fence of backticks has none behind it. */
static bool opens_fence(md_splitter *s, const char *line, size_t length) {
    if (!length || (line[0] != '`' && line[0] != '~')) return false;
    size_t n = run_of(line, length, line[0]);
    if (n < 3 || (line[0] == '`' && memchr(line + n, '`', length - n))) return false;
    s->fence = line[0];
    s->fence_length = n < 1000 ? (int)n : 1000;
    return true;
}

static bool closes_fence(const md_splitter *s, const char *line, size_t length) {
    size_t n = run_of(line, length, s->fence);
    return n >= (size_t)s->fence_length && is_blank(line + n, length - n);
}

static void restart(md_splitter *s) { *s = (md_splitter){.line = s->line}; }

#define ENDS_BEFORE 1
#define ENDS_AFTER  2

/* The next whole line, without its end. 0: the segment goes on. */
static int split(md_splitter *s, const char *line, size_t length) {
    size_t indent = run_of(line, length, ' ');
    const char *text = line + indent;
    size_t left = length - indent;
    if (s->fence) {
        if (indent > 3 || !closes_fence(s, text, left)) return 0;
        restart(s);
        return ENDS_AFTER;
    }
    if (is_blank(line, length)) {
        s->blank = true;
        return 0;
    }
    bool item = is_list_item(text, left);
    bool inside = s->list && (indent > 1 || item); /* what a list may go on with */
    int ends = s->begun && s->blank && !inside ? ENDS_BEFORE : 0;
    bool top = s->list && !ends ? indent == 0 : indent < 4;
    bool heading = top && is_heading(text, left);
    bool fence = top && opens_fence(s, text, left);
    if (s->begun && (heading || fence)) ends = ENDS_BEFORE;
    if (!s->begun || ends) s->list = false;
    if (item && indent < 4) s->list = true;
    s->begun = true;
    s->blank = false;
    if (!heading) return ends;
    restart(s);
    return ends | ENDS_AFTER;
}

size_t md_next_segment(md_splitter *s, const char *text, size_t length) {
    size_t at = s->line;
    const char *end;
    while (!s->ends && at < length && (end = memchr(text + at, '\n', length - at))) {
        size_t next = (size_t)(end - text) + 1;
        int ends = split(s, text + at, next - 1 - at);
        s->line = next;
        if (ends & ENDS_BEFORE) {
            s->ends = ends & ENDS_AFTER;
            s->line -= at;
            return at;
        }
        s->ends = ends & ENDS_AFTER;
        at = next;
    }
    if (!s->ends) return 0;
    s->ends = false;
    s->line = 0;
    return at;
}

/* ---- one segment ---- */

#define PADDING 64 /* zeros behind the text, for what md4c reads too far */

typedef struct parse {
    md_frame frame;
    const char *begin, *end; /* of the source */
    md_text text;            /* of the leaf block being read */
    md_table table;          /* and of the table */
    int bold, italic, strike, link, image;
    bool in_code, in_head, in_table, put; /* put: something was put, a blank line may follow */
    bool tight[MD_DEPTH_MAX + 2];
    int lists, quotes; /* depth */
    unsigned number[MD_DEPTH_MAX + 2];
    bool ordered[MD_DEPTH_MAX + 2];
    int level;         /* of a heading */
    char language[32]; /* of a code block */
    char target[512];  /* of a link */
    size_t link_begin;
    bool span_code;
} parse;

static md_text *target_text(parse *p) { return p->in_table ? &p->table.text : &p->text; }

static uint8_t style_now(const parse *p) {
    unsigned s = 0, colour = MD_NONE;
    if (p->bold || p->level) s |= MD_BOLD;
    if (p->italic) s |= MD_ITALIC;
    if (p->strike) s |= MD_STRIKE;
    if (p->link || p->level == 1) s |= MD_UNDER;
    if (p->span_code) colour = MD_CYAN;
    return (uint8_t)(s + colour * MD_COLOUR);
}

static void put(parse *p, const char *bytes, size_t length, uint8_t style) {
    if (!md_text_add(target_text(p), bytes, length, style)) p->frame.failed = true;
}

/* Control characters of a terminal must not come from a model. */
static void put_clean(parse *p, const char *bytes, size_t length, uint8_t style) {
    size_t i = 0;
    while (i < length) {
        unsigned char c = (unsigned char)bytes[i];
        utf8proc_int32_t point = c;
        utf8proc_ssize_t n = 1;
        if (c >= 0x80)
            n = utf8proc_iterate((const utf8proc_uint8_t *)bytes + i,
                                 (utf8proc_ssize_t)(length - i), &point);
        if (n <= 0)
            put(p, "\xef\xbf\xbd", 3, style);
        else if (c == '\n' || c == '\t')
            put(p, p->in_code ? bytes + i : " ", 1, style);
        else if (point >= 32 && (point < 0x7f || point > 0x9f))
            put(p, bytes + i, (size_t)n, style);
        i += n > 0 ? (size_t)n : 1;
    }
}

/* Without styles marks stay as they were written. */
static void mark(parse *p, const char *text) {
    if (!p->frame.look->styled) put(p, text, strlen(text), style_now(p));
}

static int list_slot(const parse *p) {
    return p->lists < MD_DEPTH_MAX + 1 ? p->lists : MD_DEPTH_MAX + 1;
}

static void between_blocks(parse *p) {
    bool tight = p->lists && p->tight[list_slot(p)];
    if (p->put && !tight) md_put_blank(&p->frame);
    p->put = true;
}

static void copy_attribute(const MD_ATTRIBUTE *a, char *out, size_t size) {
    size_t n = a->size < size - 1 ? a->size : size - 1, to = 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)a->text[i] > 32 && a->text[i] != 127) out[to++] = a->text[i];
    out[to] = '\0';
}

static void finish_code(parse *p) {
    static const uint8_t colours[] = {MD_NONE, MD_MAGENTA, MD_GREEN, MD_DIM,
                                      MD_CYAN, MD_GREEN,   MD_RED};
    md_text *t = &p->text;
    uint8_t *classes = malloc(t->length + 1);
    if (!classes) p->frame.failed = true;
    if (classes && t->bytes) {
        md_highlight(p->language, strlen(p->language), t->bytes, t->length, classes);
        for (size_t i = 0; i < t->length; i++)
            t->styles[i] = (uint8_t)(colours[classes[i]] * MD_COLOUR);
    }
    free(classes);
    p->in_code = false;
    if (t->length) md_put_code(&p->frame, t);
}

static void finish_text(parse *p) {
    if (p->text.length) between_blocks(p);
    if (p->in_code)
        finish_code(p);
    else if (p->text.length)
        md_put_prose(&p->frame, &p->text);
    p->text.length = 0;
}

static void push_container(parse *p, bool quote, const char *marker) {
    md_frame *f = &p->frame;
    if (f->depth < MD_DEPTH_MAX) {
        f->stack[f->depth].quote = quote;
        f->stack[f->depth].marked = false;
        snprintf(f->stack[f->depth].marker, sizeof f->stack[f->depth].marker, "%s", marker);
    }
    f->depth++;
}

static void enter_item(parse *p, const MD_BLOCK_LI_DETAIL *d) {
    char marker[16];
    int at = list_slot(p);
    const char *bullet = p->frame.look->unicode ? "• " : "- ";
    if (p->ordered[at])
        snprintf(marker, sizeof marker, "%u. ", p->number[at]++);
    else if (d->is_task)
        snprintf(marker, sizeof marker, "[%c] ", d->task_mark == ' ' ? ' ' : 'x');
    else
        snprintf(marker, sizeof marker, "%s", bullet);
    if (p->put && !p->tight[at]) md_put_blank(&p->frame);
    p->put = false;
    push_container(p, false, marker);
}

static void enter_list(parse *p, bool ordered, unsigned start, bool tight) {
    if (!p->lists) between_blocks(p);
    p->lists++;
    int at = list_slot(p);
    p->ordered[at] = ordered;
    p->number[at] = start;
    p->tight[at] = tight;
    if (p->lists == 1) p->put = false;
}

static int enter_block(MD_BLOCKTYPE type, void *detail, void *ctx) {
    parse *p = ctx;
    if (p->text.length) finish_text(p); /* of a tight item, which is no paragraph */
    switch (type) {
    case MD_BLOCK_QUOTE:
        between_blocks(p);
        p->put = false;
        push_container(p, true, "");
        break;
    case MD_BLOCK_UL: enter_list(p, false, 0, ((MD_BLOCK_UL_DETAIL *)detail)->is_tight); break;
    case MD_BLOCK_OL: {
        const MD_BLOCK_OL_DETAIL *d = detail;
        enter_list(p, true, d->start, d->is_tight);
        break;
    }
    case MD_BLOCK_LI: enter_item(p, detail); break;
    case MD_BLOCK_H:
        p->level = (int)((MD_BLOCK_H_DETAIL *)detail)->level;
        for (int i = 0; i < p->level; i++) mark(p, "#");
        mark(p, " ");
        break;
    case MD_BLOCK_CODE:
        p->in_code = true;
        copy_attribute(&((MD_BLOCK_CODE_DETAIL *)detail)->lang, p->language, sizeof p->language);
        break;
    case MD_BLOCK_TABLE: {
        unsigned n = ((MD_BLOCK_TABLE_DETAIL *)detail)->col_count;
        p->in_table = true;
        p->table.columns = n < MD_COLUMNS_MAX ? (int)n : 0; /* 0: too many, nothing is kept */
        break;
    }
    default: break;
    }
    return p->frame.failed;
}

static void finish_cell(parse *p, MD_ALIGN align) {
    md_table *t = &p->table;
    if (!t->columns) return;
    if (t->n == t->capacity) {
        int wanted = t->capacity ? 2 * t->capacity : 64;
        md_cell *grown = realloc(t->cells, sizeof *grown * (size_t)wanted);
        if (!grown) {
            p->frame.failed = true;
            return;
        }
        t->cells = grown;
        t->capacity = wanted;
    }
    t->align[t->n % t->columns] = align == MD_ALIGN_RIGHT ? 2 : align == MD_ALIGN_CENTER;
    size_t from = t->n ? t->cells[t->n - 1].to : 0;
    t->cells[t->n++] = (md_cell){from, t->text.length};
}

/* A tight item's text comes without a paragraph around it. */
static void pop_container(parse *p) {
    finish_text(p);
    if (p->frame.depth) p->frame.depth--;
}

/* An empty item is its marker. */
static void leave_item(parse *p) {
    md_frame *f = &p->frame;
    bool shown = p->put || p->text.length || !f->depth || f->depth > MD_DEPTH_MAX;
    if (!shown && !f->stack[f->depth - 1].marked) md_put_prose(f, &p->text);
    pop_container(p);
}

static int leave_block(MD_BLOCKTYPE type, void *detail, void *ctx) {
    parse *p = ctx;
    switch (type) {
    case MD_BLOCK_QUOTE: pop_container(p); break;
    case MD_BLOCK_LI:
        leave_item(p);
        p->put = true;
        break;
    case MD_BLOCK_UL:
    case MD_BLOCK_OL: p->lists--; break;
    case MD_BLOCK_HR:
        between_blocks(p);
        md_put_rule(&p->frame);
        break;
    case MD_BLOCK_H:
    case MD_BLOCK_P:
    case MD_BLOCK_CODE:
    case MD_BLOCK_HTML:
        finish_text(p);
        p->level = 0;
        break;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD: finish_cell(p, ((MD_BLOCK_TD_DETAIL *)detail)->align); break;
    case MD_BLOCK_TABLE:
        between_blocks(p);
        md_put_table(&p->frame, &p->table);
        p->in_table = false;
        p->table.text.length = 0;
        p->table.n = 0;
        break;
    default: break;
    }
    return p->frame.failed;
}

static int enter_span(MD_SPANTYPE type, void *detail, void *ctx) {
    parse *p = ctx;
    switch (type) {
    case MD_SPAN_EM: mark(p, "*"), p->italic++; break;
    case MD_SPAN_STRONG: mark(p, "**"), p->bold++; break;
    case MD_SPAN_DEL: mark(p, "~~"), p->strike++; break;
    case MD_SPAN_CODE: mark(p, "`"), p->span_code = true; break;
    case MD_SPAN_A:
        copy_attribute(&((MD_SPAN_A_DETAIL *)detail)->href, p->target, sizeof p->target);
        p->link++;
        p->link_begin = target_text(p)->length;
        break;
    case MD_SPAN_IMG:
        copy_attribute(&((MD_SPAN_IMG_DETAIL *)detail)->src, p->target, sizeof p->target);
        p->image++;
        p->link_begin = target_text(p)->length;
        break;
    default: break;
    }
    return p->frame.failed;
}

/* The address behind the words, unless it is what the words say. */
static void put_target(parse *p) {
    const md_text *t = target_text(p);
    size_t n = t->length - p->link_begin, length = strlen(p->target);
    const char *words = n ? t->bytes + p->link_begin : ""; /* no bytes yet: NULL */
    if (n && n <= length && n + 8 >= length && !memcmp(p->target + length - n, words, n)) return;
    put(p, n ? " (" : "(", n ? 2 : 1, MD_DIM * MD_COLOUR);
    put_clean(p, p->target, length, MD_DIM * MD_COLOUR);
    put(p, ")", 1, MD_DIM * MD_COLOUR);
}

static int leave_span(MD_SPANTYPE type, void *detail, void *ctx) {
    parse *p = ctx;
    (void)detail;
    switch (type) {
    case MD_SPAN_EM: p->italic--, mark(p, "*"); break;
    case MD_SPAN_STRONG: p->bold--, mark(p, "**"); break;
    case MD_SPAN_DEL: p->strike--, mark(p, "~~"); break;
    case MD_SPAN_CODE: p->span_code = false, mark(p, "`"); break;
    case MD_SPAN_A:
        p->link--;
        put_target(p);
        break;
    case MD_SPAN_IMG:
        p->image--;
        put_target(p);
        break;
    default: break;
    }
    return p->frame.failed;
}

/* "&amp;" and its like, and numbers. */
static void put_entity(parse *p, const char *text, size_t length, uint8_t style) {
    static const char *const named[][2] = {
        {"&amp;", "&"},    {"&lt;", "<"},   {"&gt;", ">"},    {"&quot;", "\""},
        {"&apos;", "'"},   {"&nbsp;", " "}, {"&mdash;", "—"}, {"&ndash;", "–"},
        {"&hellip;", "…"}, {"&copy;", "©"}, {"&times;", "×"}, {"&deg;", "°"},
        {"&rarr;", "→"},   {"&larr;", "←"}, {"&euro;", "€"},  {"&middot;", "·"},
    };
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strlen(named[i][0]) == length && !memcmp(named[i][0], text, length)) {
            put(p, named[i][1], strlen(named[i][1]), style);
            return;
        }
    if (length > 3 && text[1] == '#' && length < 12) {
        char digits[16];
        bool hex = text[2] == 'x' || text[2] == 'X';
        snprintf(digits, sizeof digits, "%.*s", (int)(length - 3), text + 2 + hex);
        unsigned long point = strtoul(digits, NULL, hex ? 16 : 10);
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t n = point >= 32 && point < 0x110000
                                 ? utf8proc_encode_char((utf8proc_int32_t)point, bytes)
                                 : 0;
        if (n > 0) {
            put_clean(p, (const char *)bytes, (size_t)n, style);
            return;
        }
    }
    put_clean(p, text, length, style);
}

static int on_text(MD_TEXTTYPE type, const MD_CHAR *text, MD_SIZE size, void *ctx) {
    parse *p = ctx;
    uint8_t style = style_now(p);
    /* md4c 0.4.8 looks beyond the end of its input at times, and may name text from there. */
    bool within = text >= p->begin && text < p->end + PADDING;
    if (within && text + size > p->end) size = text < p->end ? (MD_SIZE)(p->end - text) : 0;
    switch (type) {
    case MD_TEXT_BR: put(p, p->in_table ? " " : "\n", 1, 0); break;
    case MD_TEXT_SOFTBR: put(p, " ", 1, style); break;
    case MD_TEXT_NULLCHAR: put(p, "\xef\xbf\xbd", 3, style); break;
    case MD_TEXT_ENTITY: put_entity(p, text, size, style); break;
    default: put_clean(p, text, size, style); break;
    }
    return p->frame.failed;
}

/* ---- what is not closed yet ---- */

/* Is the end of the text inside a fence? There nothing is open. */
static bool ends_in_fence(const char *text, size_t length) {
    bool fence = false;
    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t n = end ? (size_t)(end - text) - at : length - at;
        size_t indent = run_of(text + at, n, ' ');
        if (run_of(text + at + indent, n - indent, '`') >= 3) fence = !fence;
        at += n + 1;
    }
    return fence;
}

/* Closes the `code` and **strong** that are open at the end of text[length], which has room for 4
 * more bytes; the new length. Single stars are left: they are as often bullets and products. */
static size_t close_spans(char *text, size_t length) {
    bool code = false, strong = false;
    if (ends_in_fence(text, length)) return length;
    size_t from = length;
    while (from && !(text[from - 1] == '\n' && (from == length || text[from] == '\n'))) from--;
    for (size_t i = from; i < length; i++) {
        if (text[i] == '`')
            code = !code;
        else if (!code && text[i] == '*' && i + 1 < length && text[i + 1] == '*')
            strong = !strong, i++;
    }
    if (!code && !strong) return length;
    while (length > from && strchr(code ? " \n" : " \n*", text[length - 1])) {
        if (text[length - 1] == '*' && length - 1 > from && text[length - 2] == '*') strong = false;
        length--;
    }
    if (length == from) return length;
    if (code) text[length++] = '`';
    if (strong) text[length++] = '*', text[length++] = '*';
    return length;
}

bool md_render(const char *text, size_t length, const md_look *look, bool open, md_lines *l) {
    static const MD_PARSER parser = {
        .flags = MD_DIALECT_GITHUB | MD_FLAG_NOHTML | MD_FLAG_NOINDENTEDCODEBLOCKS,
        .enter_block = enter_block,
        .leave_block = leave_block,
        .enter_span = enter_span,
        .leave_span = leave_span,
        .text = on_text,
    };
    if (length > (size_t)1 << 30) return false;
    char *copy = calloc(1, length + PADDING);
    if (!copy) return false;
    memcpy(copy, text, length);
    if (open) length = close_spans(copy, length);
    parse *p = calloc(1, sizeof *p);
    bool good = p != NULL;
    if (good) {
        p->frame.look = look;
        p->frame.out = l;
        p->begin = copy;
        p->end = copy + length;
        int rc = md_parse(copy, (MD_SIZE)length, &parser, p);
        good = rc == 0 && !p->frame.failed;
        md_text_free(&p->frame.line);
        md_text_free(&p->text);
        md_text_free(&p->table.text);
        free(p->table.cells);
    }
    free(p);
    free(copy);
    return good;
}
