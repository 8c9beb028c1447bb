/* trace.c: see trace.h. */
#include "store/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/json.h"

#define TOKENS_MAX (1 << 24)

typedef struct reading {
    const char *path;
    int line;     /* from 1 */
    int declared; /* experts that the first line names; 0 without one */
    int capacity; /* tokens that the arrays hold */
    trace *t;
} reading;

static err bad(const reading *r, const char *what) {
    return err_make(ERR_CORRUPT, "%s: line %d: %s", r->path, r->line, what);
}

/* Room for another token of n_layers lists of n_picks: the first token decides, a longer list later
 * widens everything. */
static err make_room(reading *r, int n_picks) {
    trace *t = r->t;
    bool full = t->n_tokens == r->capacity, wider = n_picks > t->n_picks;
    if (!full && !wider) return err_none();
    if (t->n_tokens >= TOKENS_MAX) return bad(r, "too many tokens");
    int capacity = full ? int_max(256, r->capacity * 2) : r->capacity;
    int picks = int_max(n_picks, t->n_picks);
    size_t lists = (size_t)capacity * (size_t)t->n_layers;
    int32_t *ids = malloc(lists * (size_t)picks * sizeof *ids);
    int32_t *tokens = realloc(t->tokens, (size_t)capacity * sizeof *tokens);
    if (tokens) t->tokens = tokens;
    if (!ids || !tokens) {
        free(ids);
        return err_make(ERR_NOMEM, "no memory for the routing trace %s", r->path);
    }
    memset(ids, 0xff, lists * (size_t)picks * sizeof *ids); /* -1 */
    for (size_t i = 0; i < (size_t)t->n_tokens * (size_t)t->n_layers; i++) {
        memcpy(ids + i * (size_t)picks, t->ids + i * (size_t)t->n_picks,
               (size_t)t->n_picks * sizeof *ids);
    }
    free(t->ids);
    t->ids = ids;
    t->n_picks = picks;
    r->capacity = capacity;
    return err_none();
}

static err read_list(reading *r, const json_t *list, int32_t *ids) {
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= TRACE_EXPERTS_MAX)
            return bad(r, "an expert is not a number from 0 to 65535");
        if (r->declared && id >= r->declared)
            return bad(r, "an expert beyond the number that the first line names");
        for (size_t k = 0; k < i; k++)
            if (ids[k] == id) return bad(r, "an expert occurs twice in one list");
        ids[i] = (int32_t)id;
        r->t->n_experts = int_max(r->t->n_experts, (int)id + 1);
    }
    return err_none();
}

static err read_token(reading *r, const json_t *object) {
    trace *t = r->t;
    const json_t *layers = json_object_get(object, "layers");
    size_t n = json_array_size(layers);
    if (n < 1 || n > TRACE_LAYERS_MAX) return bad(r, "\"layers\" is no list of 1 to 1024 lists");
    if (t->n_layers == 0) t->n_layers = (int)n;
    if ((int)n != t->n_layers) return bad(r, "another number of layers than the lines before");
    size_t longest = 1;
    for (size_t l = 0; l < n; l++) {
        const json_t *list = json_array_get(layers, l);
        if (!json_is_array(list) || json_array_size(list) > TRACE_PICKS_MAX)
            return bad(r, "a layer is no list of at most 64 experts");
        if (json_array_size(list) > longest) longest = json_array_size(list);
    }
    TRY(make_room(r, (int)longest));
    int32_t *row = t->ids + (size_t)t->n_tokens * n * (size_t)t->n_picks;
    for (size_t l = 0; l < n; l++)
        TRY(read_list(r, json_array_get(layers, l), row + l * (size_t)t->n_picks));
    const json_t *tok = json_object_get(object, "tok");
    bool known = json_is_integer(tok) && json_integer_value(tok) >= 0 &&
                 json_integer_value(tok) <= INT32_MAX;
    t->tokens[t->n_tokens++] = known ? (int32_t)json_integer_value(tok) : -1;
    return err_none();
}

static err read_line(reading *r, const char *line, size_t length) {
    if (strspn(line, " \t\r") >= length) return err_none();
    char name[512];
    snprintf(name, sizeof name, "%.400s: line %d", r->path, r->line);
    json_t *object;
    TRY(json_read_bytes(name, line, length, &object));
    err e;
    if (!json_is_object(object)) {
        e = bad(r, "not a JSON object");
    } else if (r->t->n_tokens == 0 && json_object_get(object, "flashchat")) {
        json_range range = {.low = 1, .high = TRACE_EXPERTS_MAX};
        int64_t n;
        e = json_get_int(object, name, "experts", range, &n);
        r->declared = (int)n;
    } else {
        e = read_token(r, object);
    }
    json_decref(object);
    return e;
}

err trace_read(const char *path, trace *out) {
    memset(out, 0, sizeof *out);
    char *text;
    size_t length;
    TRY(json_read_text(path, TRACE_BYTES_MAX, &text, &length));
    reading r = {.path = path, .t = out};
    err e = err_none();
    for (size_t at = 0; at < length && !e.code;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - text) : length;
        if (newline) text[end] = '\0';
        r.line++;
        e = read_line(&r, text + at, end - at);
        at = end + 1;
    }
    free(text);
    if (!e.code && out->n_tokens == 0) e = err_make(ERR_CORRUPT, "%s: no tokens", path);
    if (r.declared) out->n_experts = r.declared;
    if (e.code) trace_close(out);
    return e;
}

void trace_close(trace *t) {
    free(t->ids);
    free(t->tokens);
    memset(t, 0, sizeof *t);
}

int trace_picks(const trace *t, int token, int layer, const int32_t **ids) {
    size_t list = (size_t)token * (size_t)t->n_layers + (size_t)layer;
    *ids = t->ids + list * (size_t)t->n_picks;
    int n = 0;
    while (n < t->n_picks && (*ids)[n] >= 0) n++;
    return n;
}

void trace_sort(trace *t) {
    for (int i = 0; i < t->n_tokens * t->n_layers; i++) {
        int32_t *list = t->ids + (size_t)i * (size_t)t->n_picks;
        for (int k = 1; k < t->n_picks && list[k] >= 0; k++) {
            int32_t id = list[k];
            int at = k;
            for (; at > 0 && list[at - 1] > id; at--) list[at] = list[at - 1];
            list[at] = id;
        }
    }
}

/* Appends to a line being built; what does not fit cannot happen, as the buffer is sized for it. */
static size_t add_number(char *line, size_t at, const char *before, int value) {
    return at + (size_t)snprintf(line + at, 32, "%s%d", before, value);
}

err trace_write_first(FILE *f, int n_experts) {
    char line[96];
    int n = snprintf(line, sizeof line, "{\"flashchat\": \"routing trace\", \"experts\": %d}\n",
                     n_experts);
    if (fwrite(line, 1, (size_t)n, f) != (size_t)n)
        return err_system(errno, "cannot write the routing trace");
    return err_none();
}

err trace_write(FILE *f, int32_t token, const int32_t *ids, int n_layers, int n_picks) {
    if (n_layers > TRACE_LAYERS_MAX || n_picks > TRACE_PICKS_MAX)
        return err_make(ERR_RANGE, "%d layers of %d experts are too many for a routing trace",
                        n_layers, n_picks);
    size_t numbers = (size_t)n_layers * (size_t)n_picks;
    char *line = malloc(64 + numbers * 14 + (size_t)n_layers * 4);
    if (!line) return err_make(ERR_NOMEM, "no memory for a line of the routing trace");
    size_t at = add_number(line, 0, "{\"tok\": ", token);
    at += (size_t)snprintf(line + at, 16, ", \"layers\": [");
    for (int l = 0; l < n_layers; l++) {
        const int32_t *list = ids + (size_t)l * (size_t)n_picks;
        at += (size_t)snprintf(line + at, 4, l ? ", [" : "[");
        for (int i = 0; i < n_picks && list[i] >= 0; i++)
            at = add_number(line, at, i ? ", " : "", list[i]);
        line[at++] = ']';
    }
    at += (size_t)snprintf(line + at, 4, "]}\n");
    bool written = fwrite(line, 1, at, f) == at;
    int failed = errno;
    free(line);
    if (!written) return err_system(failed, "cannot write the routing trace");
    return err_none();
}
