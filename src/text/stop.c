/* stop.c: see stop.h. One Knuth-Morris-Pratt automaton for each stop string, all stepped by
 * each byte.
 *
 *     state[k] = how many bytes of stop k the text so far ends with
 *     held     = the last max over k of state[k] bytes: exactly what can still become a stop
 */
#include "text/stop.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct stop {
    char *bytes;    /* owned */
    uint16_t *fall; /* owned; [length]: longest border of bytes[0 .. i] */
    size_t length, state;
} stop;

struct stop_matcher {
    stop stops[STOP_STRINGS_MAX];
    int n, found;
    text_buf held;
};

static void fill_fall(stop *s) {
    s->fall[0] = 0;
    size_t k = 0;
    for (size_t i = 1; i < s->length; i++) {
        while (k && s->bytes[i] != s->bytes[k]) k = s->fall[k - 1];
        if (s->bytes[i] == s->bytes[k]) k++;
        s->fall[i] = (uint16_t)k;
    }
}

err stop_matcher_open(const stop_string *stops, int n, stop_matcher **out) {
    *out = NULL;
    if (n < 0 || n > STOP_STRINGS_MAX) {
        return err_make(ERR_ARG, "stop: %d strings; at most %d are possible", n, STOP_STRINGS_MAX);
    }
    stop_matcher *m = calloc(1, sizeof *m);
    if (!m) return err_make(ERR_NOMEM, "no memory for stop strings");
    m->found = -1;
    for (int i = 0; i < n; i++) {
        size_t length = stops[i].length;
        if (!length || length > STOP_LENGTH_MAX) {
            stop_matcher_close(m);
            return err_make(ERR_ARG, "stop: string %d has %zu bytes; 1 to %d are possible", i,
                            length, STOP_LENGTH_MAX);
        }
        stop *s = &m->stops[m->n++];
        s->length = length;
        s->bytes = malloc(length);
        s->fall = malloc(length * sizeof *s->fall);
        if (!s->bytes || !s->fall) {
            stop_matcher_close(m);
            return err_make(ERR_NOMEM, "no memory for stop strings");
        }
        memcpy(s->bytes, stops[i].bytes, length);
        fill_fall(s);
    }
    *out = m;
    return err_none();
}

void stop_matcher_close(stop_matcher *m) {
    if (!m) return;
    for (int i = 0; i < m->n; i++) {
        free(m->stops[i].bytes);
        free(m->stops[i].fall);
    }
    text_buf_free(&m->held);
    free(m);
}

void stop_matcher_reset(stop_matcher *m) {
    m->found = -1;
    m->held.length = 0;
    for (int i = 0; i < m->n; i++) m->stops[i].state = 0;
}

/* Steps one automaton; true when the byte completes the stop string. */
static bool step(stop *s, char c) {
    while (s->state && s->bytes[s->state] != c) s->state = s->fall[s->state - 1];
    if (s->bytes[s->state] == c) s->state++;
    return s->state == s->length;
}

err stop_matcher_push(stop_matcher *m, const char *bytes, size_t length, text_buf *shown) {
    for (size_t i = 0; i < length && m->found < 0; i++) {
        TRY(text_buf_add_byte(&m->held, bytes[i]));
        size_t keep = 0;
        for (int k = 0; k < m->n; k++) {
            stop *s = &m->stops[k];
            bool whole = step(s, bytes[i]);
            if (whole && (m->found < 0 || s->length > m->stops[m->found].length)) m->found = k;
            if (s->state > keep) keep = s->state;
        }
        if (m->found >= 0) keep = m->stops[m->found].length;
        size_t show = m->held.length - keep;
        if (!show) continue;
        TRY(text_buf_add(shown, m->held.data, show));
        text_buf_drop(&m->held, show);
    }
    return err_none();
}

err stop_matcher_end(stop_matcher *m, text_buf *shown) {
    if (m->found < 0) TRY(text_buf_add(shown, m->held.data, m->held.length));
    m->held.length = 0;
    return err_none();
}

int stop_matcher_found(const stop_matcher *m) { return m->found; }
