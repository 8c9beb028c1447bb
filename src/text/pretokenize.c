/* pretokenize.c: see pretokenize.h.
 *
 * A stage is an expression with a behaviour, or a prefix space. Pieces flow from stage to stage as
 * calls, so nothing is collected:
 *
 *     run_stage(0, text) -> cutter -> run_stage(1, piece) -> cutter -> ... -> piece_fn
 *
 * Expressions are matched by PCRE2 (compiled just in time where the system allows it) on a shadow
 * of the text: the same bytes, with lately assigned characters replaced by stand-ins (unicode.h).
 * Matches and gaps are found exactly as the reference's iterator does, empty matches included. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/buffer.h"
#include "text/pattern.h"
#include "text/unicode.h"

#define STAGES_MAX           16
#define NESTING_MAX          8         /* Sequence within Sequence */
#define MATCH_LIMIT          10000000u /* backtracks; plus MATCH_LIMIT_PER_BYTE for each byte */
#define MATCH_LIMIT_PER_BYTE 16
#define HEAP_LIMIT_KIB       262144u /* of PCRE2's interpreter */

static const char GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef enum behavior {
    KEEP_APART, /* Isolated */
    DROP,       /* Removed */
    JOIN_PREVIOUS,
    JOIN_NEXT,
    JOIN_ALIKE, /* Contiguous */
} behavior;

typedef struct stage {
    pcre2_code *code; /* owned; NULL: the stage puts a space before what does not begin with one */
    behavior behavior;
    bool invert;
} stage;

struct pretokenizer {
    stage stages[STAGES_MAX];
    int n_stages;
    bool byte_level; /* while parsing: nothing may follow */
};

/* ---- parsing ---- */

static err add_stage(pretokenizer *p, const char *where, stage s) {
    if (p->n_stages == STAGES_MAX) {
        pcre2_code_free(s.code);
        return err_make(ERR_UNSUPPORTED, "%s: more than %d stages", where, STAGES_MAX);
    }
    p->stages[p->n_stages++] = s;
    return err_none();
}

static err compile(const char *where, const char *pattern, size_t length, uint32_t options,
                   pcre2_code **out) {
    *out = NULL;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return err_make(ERR_NOMEM, "%s: no memory to compile the expression", where);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)pattern, length, options | PCRE2_UTF, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!*out) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(code, text, sizeof text);
        return err_make(ERR_CORRUPT, "%s: the split expression: %s", where, (const char *)text);
    }
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where it fails, the interpreter serves */
    return err_none();
}

static err add_expression(pretokenizer *p, const char *where, const char *pattern, stage s) {
    text_buffer translated = {0};
    err e = pattern_translate(where, pattern, strlen(pattern), &translated);
    if (!e.code) {
        e = compile(where, translated.data ? translated.data : "", translated.count,
                    PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE, &s.code);
    }
    if (!e.code) e = add_stage(p, where, s);
    text_buffer_free(&translated);
    return e;
}

static err parse_behavior(const char *where, const char *name, behavior *out) {
    static const char *const NAMES[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    *out = KEEP_APART;
    for (int i = 0; name && i < 5; i++) {
        if (strcmp(name, NAMES[i]) == 0) {
            *out = (behavior)i;
            return err_none();
        }
    }
    return err_make(ERR_UNSUPPORTED, "%s: behavior \"%s\" is not supported", where,
                    name ? name : "(none)");
}

static err parse_split(pretokenizer *p, const char *where, const json_t *spec) {
    stage s = {0};
    const char *name = NULL, *regex = NULL, *literal = NULL;
    TRY(json_get_string(spec, where, "behavior", NULL, &name));
    TRY(parse_behavior(where, name, &s.behavior));
    TRY(json_get_bool(spec, where, "invert", false, &s.invert));
    const json_t *pattern = json_object_get(spec, "pattern");
    if (!json_is_object(pattern)) {
        return err_make(ERR_CORRUPT, "%s: pattern: expected an object, found %s", where,
                        json_kind(pattern));
    }
    TRY(json_get_string(pattern, where, "Regex", NULL, &regex));
    TRY(json_get_string(pattern, where, "String", NULL, &literal));
    if (regex) return add_expression(p, where, regex, s);
    if (!literal) return err_make(ERR_CORRUPT, "%s: pattern: neither Regex nor String", where);
    if (strlen(literal) > PATTERN_BYTES_MAX) {
        return err_make(ERR_RANGE, "%s: pattern: longer than %d bytes", where, PATTERN_BYTES_MAX);
    }
    TRY(compile(where, literal, strlen(literal), PCRE2_LITERAL, &s.code));
    return add_stage(p, where, s);
}

static err parse_byte_level(pretokenizer *p, const char *where, const json_t *spec) {
    bool prefix = false, regex = false;
    TRY(json_get_bool(spec, where, "add_prefix_space", true, &prefix));
    TRY(json_get_bool(spec, where, "use_regex", true, &regex));
    p->byte_level = true;
    if (prefix) TRY(add_stage(p, where, (stage){.code = NULL}));
    if (regex) TRY(add_expression(p, where, GPT2_PATTERN, (stage){.behavior = KEEP_APART}));
    return err_none();
}

static err parse_member(pretokenizer *p, const char *where, const json_t *spec, int depth);

static err parse_sequence(pretokenizer *p, const char *where, const json_t *spec, int depth) {
    const json_t *members = json_object_get(spec, "pretokenizers");
    if (!json_is_array(members)) {
        return err_make(ERR_CORRUPT, "%s: pretokenizers: expected a list, found %s", where,
                        json_kind(members));
    }
    if (depth == NESTING_MAX) {
        return err_make(ERR_UNSUPPORTED, "%s: Sequences nested more than %d deep", where,
                        NESTING_MAX);
    }
    for (size_t i = 0; i < json_array_size(members); i++) {
        TRY(parse_member(p, where, json_array_get(members, i), depth + 1));
    }
    return err_none();
}

static err parse_member(pretokenizer *p, const char *where, const json_t *spec, int depth) {
    const char *type = NULL;
    if (!json_is_object(spec)) {
        return err_make(ERR_CORRUPT, "%s: expected an object, found %s", where, json_kind(spec));
    }
    TRY(json_get_string(spec, where, "type", "(none)", &type));
    if (strcmp(type, "Sequence") == 0) return parse_sequence(p, where, spec, depth);
    if (p->byte_level) {
        return err_make(ERR_UNSUPPORTED, "%s: %s after ByteLevel is not supported", where, type);
    }
    if (strcmp(type, "Split") == 0) return parse_split(p, where, spec);
    if (strcmp(type, "ByteLevel") == 0) return parse_byte_level(p, where, spec);
    if (strcmp(type, "Digits") == 0) {
        bool each = false;
        TRY(json_get_bool(spec, where, "individual_digits", false, &each));
        return add_expression(p, where, "\\p{N}",
                              (stage){.behavior = each ? KEEP_APART : JOIN_ALIKE});
    }
    return err_make(ERR_UNSUPPORTED,
                    "%s: type \"%s\" is not supported (only Sequence, Split, "
                    "Digits and ByteLevel are)",
                    where, type);
}

err pretokenizer_parse(const char *where, const json_t *spec, pretokenizer **out) {
    *out = NULL;
    char field[256];
    snprintf(field, sizeof field, "%.200s: pre_tokenizer", where);
    pretokenizer *p = calloc(1, sizeof *p);
    if (!p) return err_make(ERR_NOMEM, "%s: no memory", field);
    err e = parse_member(p, field, spec, 0);
    if (!e.code && !p->byte_level) {
        e = err_make(ERR_UNSUPPORTED,
                     "%s: no ByteLevel in it: only byte-level tokenizers are supported", field);
    }
    if (e.code) {
        pretokenizer_free(p);
        return e;
    }
    *out = p;
    return e;
}

void pretokenizer_free(pretokenizer *p) {
    if (!p) return;
    for (int i = 0; i < p->n_stages; i++) pcre2_code_free(p->stages[i].code);
    free(p);
}

/* ---- running ---- */

typedef struct run {
    const pretokenizer *p;
    piece_fn fn;
    void *ctx;
    pcre2_match_context *limits;           /* owned */
    pcre2_match_data *matches[STAGES_MAX]; /* owned */
} run;

/* A stretch of text, and the same stretch as the expression sees it. */
typedef struct stretch {
    const char *text, *shadow;
    size_t length;
} stretch;

/* Collects the matches and gaps of one stage into pieces, and hands these to the next stage. */
typedef struct cutter {
    run *r;
    int next_stage;
    stretch s;
    behavior behavior;
    bool have_last, last_is_match;
    size_t begin, end; /* the piece that may still grow */
} cutter;

static err run_stage(run *r, int index, stretch s);

static err cutter_flush(cutter *c) {
    bool flush = c->have_last && c->end > c->begin;
    c->have_last = false;
    if (!flush) return err_none();
    stretch piece = {c->s.text + c->begin, c->s.shadow + c->begin, c->end - c->begin};
    return run_stage(c->r, c->next_stage, piece);
}

/* A match or a gap. The rules of joining are those of the reference, odd corners included: of
 * several matches in a row only the one beside a gap joins it. */
static err cutter_add(cutter *c, size_t begin, size_t end, bool is_match) {
    bool join = false;
    switch (c->behavior) {
    case KEEP_APART: break;
    case DROP:
        if (is_match) return err_none();
        break;
    case JOIN_PREVIOUS: join = is_match && !c->last_is_match; break;
    case JOIN_NEXT: join = !is_match && c->last_is_match; break;
    case JOIN_ALIKE: join = is_match == c->last_is_match; break;
    }
    join = join && c->have_last;
    bool joined_next = join && c->behavior == JOIN_NEXT;
    c->last_is_match = is_match && !joined_next;
    if (join) {
        c->end = end;
        return err_none();
    }
    TRY(cutter_flush(c));
    c->have_last = true;
    c->begin = begin;
    c->end = end;
    return err_none();
}

/* One search from `from`; *found false when there is no match. */
static err search(run *r, int index, stretch s, size_t from, bool *found) {
    const stage *st = &r->p->stages[index];
    PCRE2_SPTR subject = (PCRE2_SPTR)s.shadow;
    int rc = pcre2_match(st->code, subject, s.length, from, PCRE2_NO_UTF_CHECK, r->matches[index],
                         r->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(st->code, subject, s.length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         r->matches[index], r->limits);
    }
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return err_none();
    if (rc == PCRE2_ERROR_NOMEMORY) return err_make(ERR_NOMEM, "no memory to split text");
    return err_make(ERR_RANGE,
                    "the tokenizer's split expression needs too much work on a stretch of %zu "
                    "bytes (PCRE2 error %d)",
                    s.length, rc);
}

static size_t character_length(const char *text, size_t length) {
    uint32_t c;
    return length == 0 ? 1 : (size_t)utf8_decode(text, length, &c);
}

static err run_expression(run *r, int index, stretch s) {
    const stage *st = &r->p->stages[index];
    cutter c = {.r = r, .next_stage = index + 1, .s = s, .behavior = st->behavior};
    size_t from = 0, done = 0, last_match_end = SIZE_MAX;
    while (from <= s.length) {
        bool found;
        TRY(search(r, index, s, from, &found));
        if (!found) break;
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(r->matches[index]);
        size_t begin = span[0], end = span[1];
        if (begin == end && end == last_match_end) { /* an empty match right after a match */
            from += character_length(s.text + from, s.length - from);
            continue;
        }
        from = last_match_end = end;
        if (done < begin) TRY(cutter_add(&c, done, begin, st->invert));
        TRY(cutter_add(&c, begin, end, !st->invert));
        done = end;
    }
    if (done < s.length) TRY(cutter_add(&c, done, s.length, st->invert));
    return cutter_flush(&c);
}

static err run_prefix(run *r, int index, stretch s) {
    if (s.text[0] == ' ') return run_stage(r, index + 1, s);
    char *copy = malloc(2 * (s.length + 1));
    if (!copy) return err_make(ERR_NOMEM, "no memory to split text");
    stretch longer = {copy, copy + s.length + 1, s.length + 1};
    copy[0] = copy[s.length + 1] = ' ';
    memcpy(copy + 1, s.text, s.length);
    memcpy(copy + s.length + 2, s.shadow, s.length);
    err e = run_stage(r, index + 1, longer);
    free(copy);
    return e;
}

static err run_stage(run *r, int index, stretch s) {
    if (index == r->p->n_stages) return r->fn(r->ctx, s.text, s.length);
    if (r->p->stages[index].code) return run_expression(r, index, s);
    return run_prefix(r, index, s);
}

/* The text with stand-ins, or NULL in *shadow when that is the text itself. */
static err make_shadow(const char *text, size_t length, char **shadow) {
    *shadow = NULL;
    size_t at = 0;
    while (at < length) {
        if ((unsigned char)text[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t c;
        size_t n = (size_t)utf8_decode(text + at, length - at, &c);
        uint32_t standin = unicode_standin(c);
        if (standin != c) {
            if (!*shadow) {
                *shadow = malloc(length);
                if (!*shadow) return err_make(ERR_NOMEM, "no memory to split text");
                memcpy(*shadow, text, length);
            }
            utf8_encode(standin, *shadow + at);
        }
        at += n;
    }
    return err_none();
}

static err run_open(run *r, size_t length) {
    uint64_t limit = MATCH_LIMIT + (uint64_t)length * MATCH_LIMIT_PER_BYTE;
    r->limits = pcre2_match_context_create(NULL);
    bool ok = r->limits != NULL;
    for (int i = 0; ok && i < r->p->n_stages; i++) {
        if (!r->p->stages[i].code) continue;
        r->matches[i] = pcre2_match_data_create(1, NULL);
        ok = r->matches[i] != NULL;
    }
    if (!ok) return err_make(ERR_NOMEM, "no memory to split text");
    pcre2_set_match_limit(r->limits, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    pcre2_set_heap_limit(r->limits, HEAP_LIMIT_KIB);
    return err_none();
}

err pretokenizer_run(const pretokenizer *p, const char *text, size_t length, piece_fn fn,
                     void *ctx) {
    if (length == 0) return err_none();
    run r = {.p = p, .fn = fn, .ctx = ctx};
    char *shadow = NULL;
    err e = run_open(&r, length);
    if (!e.code) e = make_shadow(text, length, &shadow);
    if (!e.code) e = run_stage(&r, 0, (stretch){text, shadow ? shadow : text, length});
    free(shadow);
    for (int i = 0; i < p->n_stages; i++) pcre2_match_data_free(r.matches[i]);
    pcre2_match_context_free(r.limits);
    return e;
}
