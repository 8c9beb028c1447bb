/* sample_driver.c (build/grammar-sample): writes random text under grammars.
 *
 *   grammar-sample DIR            reads jobs as lines of JSON, writes a line of JSON for each
 *   grammar-sample DIR time       measures masks: prints microseconds
 *
 * A job is {"seed": N, "schema": ...} -> {"text": ...} or {"seed": N, "tools": [...], "format":
 * "..."} -> {"text": ..., "calls": [...]} (as toolcall_parse gives them), or {"error": ...} when
 * the grammar is refused. DIR holds a tokenizer.json.
 *
 * Sampling: logits are random numbers of standard deviation 3, temperature 2; in effect any allowed
 * token. After STEPS_FREE tokens, pieces that close something are mixed in, so that texts end. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "text/grammar.h"
#include "text/text_buf.h"

#define STEPS_FREE 250
#define STEPS_MOST 6000

typedef struct driver {
    tokenizer *t;
    grammar_vocab *v;
    int ids;
    int32_t end;
    uint64_t *mask;
} driver;

static bool is_allowed(const driver *d, int id) { return d->mask[id >> 6] >> (id & 63) & 1; }

static int32_t sample(const driver *d, rng *r) {
    int32_t best = -1;
    double most = -INFINITY;
    for (int id = 0; id < d->ids; id++) {
        if (!is_allowed(d, id)) continue;
        double normal = sqrt(-2 * log(1 - rng_unit(r))) * cos(6.283185307179586 * rng_unit(r));
        double score = 3 * normal / 2 - log(-log(1 - rng_unit(r) * 0.9999999)); /* Gumbel */
        if (score > most) most = score, best = id;
    }
    return best;
}

static err add_token(const driver *d, int32_t id, text_buf *out) {
    size_t length;
    const char *bytes = tokenizer_bytes(d->t, id, &length);
    return text_buf_add(out, bytes, length);
}

/* Something that may bring the end nearer, byte by byte, as far as it is allowed. */
static err write_closing(driver *d, grammar_state *s, rng *r, text_buf *out) {
    static const char *const list[] = {"\"",
                                       "]",
                                       "}",
                                       "\n</parameter>",
                                       "\n</function>",
                                       "\xc3\xa0\"",
                                       "@a.com\"",
                                       "foo\"",
                                       "0",
                                       "null",
                                       "d\"",
                                       "@a.com\n</parameter>",
                                       "foo\n</parameter>",
                                       "\xc3\xa0\n</parameter>",
                                       "d\n</parameter>"};
    const char *text = list[rng_next(r) % (sizeof list / sizeof *list)];
    for (; *text; text++) {
        int id = tokenizer_find(d->t, text, 1);
        if (id < 0 || !grammar_accept(s, id)) break;
        TRY(add_token(d, id, out));
    }
    return err_none();
}

/* The text up to the end token: "text", else "stuck", or "long" after STEPS_MOST tokens. */
static const char *write_state(driver *d, grammar_state *s, rng *r, text_buf *out) {
    for (int step = 0; step < STEPS_MOST; step++) {
        bool close = step > STEPS_FREE && rng_next(r) % 8;
        if (close && write_closing(d, s, r, out).code) break;
        if (!grammar_mask(s, d->mask)) return "stuck";
        int32_t id = close && is_allowed(d, d->end) ? d->end : sample(d, r);
        if (!grammar_accept(s, id)) return "stuck";
        if (id == d->end) return grammar_done(s) ? "text" : "stuck";
        if (add_token(d, id, out).code) break;
    }
    return "long";
}

static const char *write_text(driver *d, grammar *g, rng *r, text_buf *out) {
    grammar_state *s;
    if (grammar_state_open(g, &s).code) return "stuck";
    const char *outcome = write_state(d, s, r, out);
    grammar_state_close(s);
    return outcome;
}

static json_t *calls_of(const json_t *job, const toolcall_format *format, const text_buf *text) {
    json_t *message = NULL, *calls = NULL;
    toolcall_options o = {.format = format, .tools = json_object_get(job, "tools")};
    err e = toolcall_parse(&o, text->data, text->length, &message);
    if (!e.code) calls = json_incref(json_object_get(message, "tool_calls"));
    json_decref(message);
    return calls ? calls : json_array();
}

static json_t *run_job(driver *d, const json_t *job) {
    const json_t *tools = json_object_get(job, "tools");
    const char *format = json_string_value(json_object_get(job, "format"));
    grammar_spec spec = {.kind = tools ? GRAMMAR_TOOLS : GRAMMAR_JSON_SCHEMA,
                         .name = "job",
                         .schema = json_object_get(job, "schema"),
                         .tools = tools,
                         .strict = true,
                         .parallel = true,
                         .format = format ? toolcall_format_find(format) : NULL};
    grammar *g;
    err e = grammar_compile(d->v, &spec, &g);
    if (e.code) return json_pack("{s:s, s:s}", "error", e.text, "code", err_code_name(e.code));
    rng r;
    rng_seed(&r, (uint64_t)json_integer_value(json_object_get(job, "seed")));
    text_buf text = {0};
    const char *outcome = write_text(d, g, &r, &text);
    json_t *result = json_pack("{s:s%}", outcome, text.data ? text.data : "", text.length);
    if (!result) result = json_pack("{s:s}", "stuck", "not UTF-8");
    if (strcmp(outcome, "text") == 0 && tools)
        json_object_set_new(result, "calls", calls_of(job, spec.format, &text));
    text_buf_free(&text);
    grammar_close(g);
    return result;
}

static int run_jobs(driver *d) {
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        json_t *job = json_loads(line, 0, NULL);
        json_t *result = job ? run_job(d, job) : json_pack("{s:s}", "error", "not JSON");
        char *text = json_dumps(result, JSON_COMPACT);
        puts(text ? text : "{\"error\": \"no memory\"}");
        free(text);
        json_decref(result);
        json_decref(job);
    }
    free(line);
    return 0;
}

/* ---- time ---- */

/* Any allowed token, cheaply. */
static int32_t any_allowed(const driver *d, rng *r) {
    int id = (int)(rng_next(r) % (uint64_t)d->ids);
    while (!is_allowed(d, id)) id = id + 1 < d->ids ? id + 1 : 0;
    return id;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_schema(driver *d, const char *name, const char *schema) {
    enum { MOST = 20000 };
    static double us[MOST];
    json_t *document = json_loads(schema, 0, NULL);
    grammar_spec spec = {.kind = GRAMMAR_JSON_SCHEMA, .name = "schema", .schema = document};
    grammar *g;
    uint64_t begin = os_now_ns();
    err e = grammar_compile(d->v, &spec, &g);
    double compile_ms = (double)(os_now_ns() - begin) / 1e6;
    json_decref(document);
    if (e.code) {
        printf("%s: %s\n", name, e.text);
        return;
    }
    rng r;
    rng_seed(&r, 1);
    int n = 0;
    double accepts = 0;
    grammar_state *s;
    if (grammar_state_open(g, &s).code) return;
    for (int round = 0; round < 200 && n < MOST; round++) {
        grammar_state_reset(s);
        for (int step = 0; step < 150 && n < MOST; step++) {
            begin = os_now_ns();
            bool any = grammar_mask(s, d->mask);
            us[n++] = (double)(os_now_ns() - begin) / 1e3;
            int32_t id = any ? any_allowed(d, &r) : d->end;
            if (id == d->end) break;
            begin = os_now_ns();
            grammar_accept(s, id);
            accepts += (double)(os_now_ns() - begin) / 1e3;
        }
    }
    double sum = 0;
    for (int i = 0; i < n; i++) sum += us[i];
    qsort(us, (size_t)n, sizeof *us, by_value);
    printf("%-8s compile %6.2f ms; mask: mean %6.1f, median %6.1f, 99 %% %7.1f, most %7.1f us; "
           "accept: mean %5.2f us (%d masks)\n",
           name, compile_ms, sum / n, us[n / 2], us[n * 99 / 100], us[n - 1], accepts / n, n);
    grammar_state_close(s);
    grammar_close(g);
}

static void run_time(driver *d) {
    time_schema(d, "text",
                "{\"type\": \"object\", \"properties\": {\"title\": {\"type\": "
                "\"string\"}, \"body\": {\"type\": \"string\"}}, \"required\": "
                "[\"title\", \"body\"]}");
    time_schema(d, "limits",
                "{\"type\": \"object\", \"properties\": {\"title\": {\"type\": "
                "\"string\", \"maxLength\": 40}, \"tags\": {\"type\": \"array\", "
                "\"items\": {\"type\": \"string\", \"minLength\": 3, \"maxLength\": "
                "12}}}, \"required\": [\"title\", \"tags\"]}");
    time_schema(d, "pattern",
                "{\"type\": \"array\", \"items\": {\"type\": \"string\", "
                "\"pattern\": \"^[a-z]+(-[a-z]+)*$\"}}");
    time_schema(d, "mixed",
                "{\"type\": \"array\", \"items\": {\"anyOf\": [{\"type\": \"object\", "
                "\"properties\": {\"kind\": {\"enum\": [\"a\", \"b\"]}, \"n\": {\"type\": "
                "\"integer\"}, \"x\": {\"type\": \"number\"}}, \"required\": [\"kind\", \"n\"]}, "
                "{\"type\": \"string\"}, {\"type\": \"null\"}]}}");
    time_schema(d, "any", "{}");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: grammar-sample DIR [time] < jobs\n");
        return 2;
    }
    driver d = {0};
    uint64_t begin = os_now_ns();
    err e = tokenizer_open(argv[1], &d.t);
    uint64_t opened = os_now_ns();
    if (!e.code) {
        d.ids = tokenizer_size(d.t);
        d.end = tokenizer_find(d.t, "<|im_end|>", 10);
        if (d.end < 0) d.end = d.ids - 1;
        e = grammar_vocab_open(d.t, d.ids, &d.end, 1, &d.v);
    }
    if (!e.code) d.mask = calloc(grammar_vocab_words(d.v), sizeof *d.mask);
    if (e.code || !d.mask) {
        fprintf(stderr, "grammar-sample: %s\n", e.code ? e.text : "no memory");
        return 1;
    }
    if (argc > 2) {
        printf("%d ids: vocabulary opened in %.1f ms (tokenizer %.1f ms), %.1f MB\n", d.ids,
               (double)(os_now_ns() - opened) / 1e6, (double)(opened - begin) / 1e6,
               (double)grammar_vocab_memory(d.v) / 1e6);
        run_time(&d);
    } else {
        run_jobs(&d);
    }
    free(d.mask);
    grammar_vocab_close(d.v);
    tokenizer_close(d.t);
    return 0;
}
