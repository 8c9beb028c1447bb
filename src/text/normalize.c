/* normalize.c: see normalize.h.
 *
 * Only code points from U+0300 on can change a text (nothing below combines, and what is below is
 * composed already). So a text is a row of
 *
 *     unchanged .. | one character, then code points >= U+0300 | unchanged .. | ...
 *
 * and only those runs are decomposed, ordered and composed. utf8proc knows the characters; the
 * order of the marks is ours, because utf8proc's bubble sort takes quadratic time on a megabyte of
 * marks. Barriers (unicode.h) end a run and stand alone. */
#include "text/normalize.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/bits.h"
#include "text/unicode.h"

#define FIRST_CHANGING 0x300u
#define SORT_SIMPLE    16 /* marks; longer rows are ordered by counting */

typedef struct code_points {
    int32_t *data; /* owned */
    size_t count, capacity;
} code_points;

static err code_points_reserve(code_points *c, size_t more) {
    size_t needed, bytes;
    if (!size_add(c->count, more, &needed)) return err_make(ERR_NOMEM, "text is too long");
    if (needed <= c->capacity) return err_none();
    needed += needed / 2 + 64;
    if (!size_mul(needed, sizeof *c->data, &bytes)) return err_make(ERR_NOMEM, "text is too long");
    int32_t *data = realloc(c->data, bytes);
    if (!data) return err_make(ERR_NOMEM, "no memory to normalise %zu characters", needed);
    c->data = data;
    c->capacity = needed;
    return err_none();
}

static int mark_class(int32_t code_point) {
    return (int)utf8proc_get_property(code_point)->combining_class;
}

/* Stable insertion sort by class. */
static void order_few(int32_t *marks, size_t count) {
    for (size_t i = 1; i < count; i++) {
        int32_t mark = marks[i];
        int rank = mark_class(mark);
        size_t j = i;
        while (j > 0 && mark_class(marks[j - 1]) > rank) {
            marks[j] = marks[j - 1];
            j--;
        }
        marks[j] = mark;
    }
}

/* Stable counting sort by class (1 .. 254). */
static err order_many(int32_t *marks, size_t count) {
    size_t start[257] = {0};
    int32_t *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return err_make(ERR_NOMEM, "no memory to order %zu combining marks", count);
    for (size_t i = 0; i < count; i++) start[mark_class(marks[i]) + 1]++;
    for (int c = 0; c < 256; c++) start[c + 1] += start[c];
    for (size_t i = 0; i < count; i++) sorted[start[mark_class(marks[i])]++] = marks[i];
    memcpy(marks, sorted, count * sizeof *sorted);
    free(sorted);
    return err_none();
}

/* Canonical order: between two characters of class 0, marks stand by ascending class. */
static err order_marks(code_points *run) {
    size_t i = 0;
    while (i < run->count) {
        if (mark_class(run->data[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < run->count && mark_class(run->data[end]) != 0) end++;
        if (end - i > SORT_SIMPLE) {
            TRY(order_many(run->data + i, end - i));
        } else {
            order_few(run->data + i, end - i);
        }
        i = end;
    }
    return err_none();
}

/* Decomposes text[0 .. length) into run. */
static err decompose(const char *text, size_t length, code_points *run) {
    run->count = 0;
    size_t at = 0;
    while (at < length) {
        uint32_t c;
        at += (size_t)utf8_decode(text + at, length - at, &c);
        TRY(code_points_reserve(run, 8)); /* no canonical decomposition has more than 4 */
        int boundary = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char(
            (int32_t)c, run->data + run->count, 8, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
        if (n < 0 || n > 8) return err_make(ERR_CORRUPT, "U+%04X: %s", c, utf8proc_errmsg(n));
        run->count += (size_t)n;
    }
    return err_none();
}

/* Appends the composed form of a run that holds no barrier. */
static err add_composed(const char *text, size_t length, code_points *run, text_buffer *out) {
    TRY(decompose(text, length, run));
    TRY(order_marks(run));
    utf8proc_ssize_t n = utf8proc_normalize_utf32(run->data, (utf8proc_ssize_t)run->count,
                                                  UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0) return err_make(ERR_CORRUPT, "normalising: %s", utf8proc_errmsg(n));
    TRY(text_buffer_reserve(out, 4 * (size_t)n));
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        out->count += (size_t)utf8_encode((uint32_t)run->data[i], out->data + out->count);
    }
    return err_none();
}

/* The next run at or after `from`: begins with the character before the first changing one, ends
 * before the next unchanging character or barrier. False when there is none. */
static bool next_run(const char *text, size_t length, size_t from, size_t *begin, size_t *end) {
    size_t at = from, before = from; /* before: where the preceding character begins */
    bool inside = false;
    while (at < length) {
        if (!inside && (unsigned char)text[at] < 0xcc) { /* below U+0300 */
            before = at++;
            while (at < length && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
            continue;
        }
        uint32_t c;
        size_t n = (size_t)utf8_decode(text + at, length - at, &c);
        bool changing = c >= FIRST_CHANGING && !unicode_is_barrier(c);
        if (inside && !changing) break;
        if (!inside && changing) {
            inside = true;
            *begin = before;
        }
        if (!inside) before = at + n; /* a barrier combines with nothing */
        at += n;
    }
    *end = at;
    return inside;
}

err text_nfc(const char *text, size_t length, text_buffer *out, bool *changed) {
    *changed = false;
    code_points run = {0};
    size_t old_count = out->count, done = 0, begin = 0, end = 0;
    err e = err_none();
    while (!e.code && next_run(text, length, done, &begin, &end)) {
        e = text_buffer_add(out, text + done, begin - done);
        size_t made_at = out->count;
        if (!e.code) e = add_composed(text + begin, end - begin, &run, out);
        if (e.code) break;
        size_t made = out->count - made_at;
        if (made != end - begin || memcmp(out->data + made_at, text + begin, made) != 0) {
            *changed = true;
        }
        done = end;
    }
    if (!e.code) e = text_buffer_add(out, text + done, length - done);
    if (e.code || !*changed) out->count = old_count;
    if (e.code) *changed = false;
    free(run.data);
    return e;
}
