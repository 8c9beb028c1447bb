/* test_tokenizer.c: the tokenizer against a twin that is too simple to be wrong.
 *
 * The twin keeps symbols as strings, cuts ASCII text by a hand-written reading of the Qwen
 * expression, and merges by trying every pair again and again. Small tokenizers are written out
 * here, with every byte's value as its id and 256 + i for the result of merge i. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/os.h"
#include "text/tokenizer.h"

/* ---- small tokenizers ---- */

typedef struct parts {
    const char *merges[24];    /* "left\1right" */
    const char *added;         /* JSON of the list's inside, or NULL */
    const char *normalizer;    /* JSON, or NULL */
    const char *pre_tokenizer; /* JSON, or NULL for Qwen's */
    const char *model_extra;   /* JSON members with a comma behind, or NULL */
} parts;

static const char SPLIT_QWEN[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":"
    "false,"
    "\"use_regex\":false}]}";

/* A byte as tokenizer.json spells it, escaped. */
static void put_spelled(FILE *f, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        int byte = (unsigned char)bytes[i], moved = 0;
        for (int b = 0; b < byte; b++) moved += b < 33 || (b > 126 && b < 161) || b == 173;
        bool moves = byte < 33 || (byte > 126 && byte < 161) || byte == 173;
        fprintf(f, "\\u%04x", (unsigned)(moves ? 256 + moved : byte));
    }
}

/* The file's text; the caller frees it. */
static char *make_json(const parts *p, size_t *length) {
    char *json = NULL;
    FILE *f = open_memstream(&json, length);
    assert_non_null(f);
    fprintf(f, "{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,",
            p->added ? p->added : "", p->normalizer ? p->normalizer : "null",
            p->pre_tokenizer ? p->pre_tokenizer : SPLIT_QWEN);
    fprintf(f, "\"model\":{\"type\":\"BPE\",%s\"vocab\":{", p->model_extra ? p->model_extra : "");
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        fputs(byte ? ",\"" : "\"", f);
        put_spelled(f, &c, 1);
        fprintf(f, "\":%d", byte);
    }
    for (int i = 0; p->merges[i]; i++) {
        const char *middle = strchr(p->merges[i], 1);
        fputs(",\"", f);
        put_spelled(f, p->merges[i], (size_t)(middle - p->merges[i]));
        put_spelled(f, middle + 1, strlen(middle + 1));
        fprintf(f, "\":%d", 256 + i);
    }
    fputs("},\"merges\":[", f);
    for (int i = 0; p->merges[i]; i++) {
        const char *middle = strchr(p->merges[i], 1);
        fputs(i ? ",[\"" : "[\"", f);
        put_spelled(f, p->merges[i], (size_t)(middle - p->merges[i]));
        fputs("\",\"", f);
        put_spelled(f, middle + 1, strlen(middle + 1));
        fputs("\"]", f);
    }
    fputs("]}}", f);
    fclose(f);
    return json;
}

static tokenizer *open_parts(const parts *p) {
    size_t length;
    char *json = make_json(p, &length);
    tokenizer *t = NULL;
    err e = tokenizer_parse("test.json", json, length, &t);
    if (e.code) print_error("%s\n", e.text);
    assert_int_equal(e.code, ERR_NONE);
    free(json);
    return t;
}

static void expect_ids(const tokenizer *t, token_mode mode, const char *text, size_t length,
                       const char *expected) {
    token_list ids = {0};
    char found[4096] = "";
    err e = tokenizer_encode(t, mode, text, length, &ids);
    assert_int_equal(e.code, ERR_NONE);
    for (size_t i = 0; i < ids.count; i++) {
        size_t n = strlen(found);
        snprintf(found + n, sizeof found - n, "%s%d", i ? " " : "", ids.ids[i]);
    }
    assert_string_equal(found, expected);
    token_list_free(&ids);
}

#define CONTENT(t, text, expected) expect_ids(t, TOKEN_CONTENT, text, sizeof text - 1, expected)
#define MARKUP(t, text, expected)  expect_ids(t, TOKEN_MARKUP, text, sizeof text - 1, expected)

/* ---- the twin ---- */

typedef struct twin {
    char text[128][64]; /* symbols; no zero bytes in twin tests */
    int count;
} twin;

static void twin_init(twin *w, const char *text, size_t length) {
    w->count = (int)length;
    for (size_t i = 0; i < length; i++) {
        w->text[i][0] = text[i];
        w->text[i][1] = '\0';
    }
}

/* The rank of a pair among p->merges, -1 when it has none. */
static int twin_rank(const parts *p, const char *left, const char *right) {
    char pair[130];
    snprintf(pair, sizeof pair, "%s\1%s", left, right);
    for (int i = 0; p->merges[i]; i++) {
        if (strcmp(p->merges[i], pair) == 0) return i;
    }
    return -1;
}

static void twin_merge(const parts *p, twin *w) {
    for (;;) {
        int best = -1, at = -1;
        for (int i = 0; i + 1 < w->count; i++) {
            int rank = twin_rank(p, w->text[i], w->text[i + 1]);
            if (rank >= 0 && (best < 0 || rank < best)) {
                best = rank;
                at = i;
            }
        }
        if (at < 0) return;
        strncat(w->text[at], w->text[at + 1], 31);
        for (int i = at + 1; i + 1 < w->count; i++) memcpy(w->text[i], w->text[i + 1], 64);
        w->count--;
    }
}

static int twin_id(const parts *p, const char *symbol) {
    if (!symbol[1]) return (unsigned char)symbol[0];
    for (int i = 0; p->merges[i]; i++) {
        const char *middle = strchr(p->merges[i], 1);
        size_t left = (size_t)(middle - p->merges[i]);
        if (strncmp(symbol, p->merges[i], left) == 0 && strcmp(symbol + left, middle + 1) == 0) {
            return 256 + i;
        }
    }
    return -1;
}

static const parts MERGING = {.merges = {"a\1b", "b\1a", "ab\1ab", "a\1a", "aa\1aa", "c\1ab",
                                         "ba\1c", "abab\1c", "b\1b", "bb\1ba", "cab\1cab", "aa\1b",
                                         "bbba\1c", "c\1c", "aaaa\1aaaa", "abab\1abab"}};

static void test_merges_like_the_twin(void **state) {
    (void)state;
    tokenizer *t = open_parts(&MERGING);
    rng r;
    rng_seed(&r, 7);
    for (int round = 0; round < 4000; round++) {
        char text[64];
        twin w;
        size_t length = (size_t)(rng_next(&r) % 40);
        for (size_t i = 0; i < length; i++) text[i] = "abcaab"[rng_next(&r) % 6];
        twin_init(&w, text, length);
        twin_merge(&MERGING, &w);
        token_list ids = {0};
        err e = tokenizer_encode(t, TOKEN_CONTENT, text, length, &ids);
        assert_int_equal(e.code, ERR_NONE);
        assert_int_equal(ids.count, w.count);
        for (int i = 0; i < w.count; i++) {
            assert_int_equal(ids.ids[i], twin_id(&MERGING, w.text[i]));
        }
        token_list_free(&ids);
    }
    tokenizer_close(t);
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_space(char c) { return c == ' ' || (c >= 9 && c <= 13); }
static bool is_break(char c) { return c == '\r' || c == '\n'; }
static bool is_other(char c) { return c && !is_letter(c) && !is_digit(c) && !is_space(c); }

/* The length of the first piece that the Qwen expression cuts from ASCII text. */
static size_t twin_piece(const char *s) {
    static const char *const ENDINGS[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < 7; i++) {
        if (strncasecmp(s, ENDINGS[i], strlen(ENDINGS[i])) == 0) return strlen(ENDINGS[i]);
    }
    size_t n = !is_letter(s[0]) && !is_digit(s[0]) && !is_break(s[0]) && is_letter(s[1]);
    if (is_letter(s[n])) {
        while (is_letter(s[n])) n++;
        return n;
    }
    if (is_digit(s[0])) return 1;
    n = s[0] == ' ';
    if (is_other(s[n])) {
        while (is_other(s[n])) n++;
        while (is_break(s[n])) n++;
        return n;
    }
    size_t spaces = 0, through_break = 0;
    for (; is_space(s[spaces]); spaces++) {
        if (is_break(s[spaces])) through_break = spaces + 1;
    }
    if (through_break) return through_break;
    return s[spaces] && spaces > 1 ? spaces - 1 : spaces;
}

/* Merges that would cross the borders of pieces, so that a wrong cut shows. */
static const parts SPLITTING = {.merges = {"a\1b",   " \1 ",  "\n\1\n", "!\1!", " \1a",   "!\1\n",
                                           "  \1  ", " \1!",  "'\1s",   "1\1s", "b\1!",   "\n\1 ",
                                           " \1\n",  "\t\1a", "s\1a",   "!\1a", "\r\1\n", "a\1 ",
                                           "b\1 ",   "\n\1a", " \1\t",  "s\1!", " a\1b"}};

static void test_splits_like_the_twin(void **state) {
    (void)state;
    tokenizer *t = open_parts(&SPLITTING);
    rng r;
    rng_seed(&r, 11);
    for (int round = 0; round < 6000; round++) {
        char text[64];
        size_t length = (size_t)(rng_next(&r) % 24), next = 0;
        for (size_t i = 0; i < length; i++) text[i] = "ab  \n\r\t!'s1SR"[rng_next(&r) % 13];
        text[length] = '\0';
        token_list ids = {0};
        err e = tokenizer_encode(t, TOKEN_CONTENT, text, length, &ids);
        assert_int_equal(e.code, ERR_NONE);
        for (size_t at = 0, n; at < length; at += n) {
            twin w;
            n = twin_piece(text + at);
            assert_in_range(n, 1, length - at);
            twin_init(&w, text + at, n);
            twin_merge(&SPLITTING, &w);
            for (int i = 0; i < w.count; i++, next++) {
                assert_true(next < ids.count);
                assert_int_equal(ids.ids[next], twin_id(&SPLITTING, w.text[i]));
            }
        }
        assert_int_equal(next, ids.count);
        token_list_free(&ids);
    }
    tokenizer_close(t);
}

/* ---- markup and content ---- */

#define ADDED(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\"," flags "}"
#define PLAIN                     "\"normalized\":false"
#define SPECIAL                   PLAIN ",\"special\":true"

static void test_markup_and_content(void **state) {
    (void)state;
    const parts p = {.merges = {"<\1|", "|\1>"},
                     .added = ADDED(300, "<|e|>", SPECIAL) "," ADDED(
                         301, "<|e|>x", SPECIAL) "," ADDED(302, "<t>", PLAIN)};
    tokenizer *t = open_parts(&p);
    MARKUP(t, "a<|e|>b", "97 300 98");
    MARKUP(t, "<|e|>x<|e|>y", "301 300 121"); /* the longest */
    MARKUP(t, "<|e|", "256 101 124");
    MARKUP(t, "<<t><t", "60 302 60 116");
    MARKUP(t, "\xff<t>\xff", "255 302 255");
    MARKUP(t, "", "");
    CONTENT(t, "a<|e|>b", "97 256 101 257 98");
    CONTENT(t, "<t>", "60 116 62");
    CONTENT(t, "", "");
    tokenizer_close(t);
}

static void test_what_one_may_ask(void **state) {
    (void)state;
    const parts p = {.merges = {"<\1|", "|\1>"},
                     .added = ADDED(300, "<|e|>", SPECIAL) "," ADDED(302, "<t>", PLAIN)};
    tokenizer *t = open_parts(&p);
    size_t n;
    assert_true(tokenizer_is_special(t, 300));
    assert_false(tokenizer_is_special(t, 302));
    assert_false(tokenizer_is_special(t, -1));
    assert_false(tokenizer_is_special(t, 303));
    assert_int_equal(tokenizer_size(t), 303);
    assert_int_equal(tokenizer_find(t, "<|e|>", 5), 300);
    assert_int_equal(tokenizer_find(t, "<t>", 3), 302);
    assert_int_equal(tokenizer_find(t, "<|", 2), 256);
    assert_int_equal(tokenizer_find(t, " ", 1), 32);
    assert_int_equal(tokenizer_find(t, "<|e|", 4), -1);
    assert_int_equal(tokenizer_find(t, "", 0), -1);
    assert_memory_equal(tokenizer_bytes(t, 300, &n), "<|e|>", 5);
    assert_int_equal(n, 5);
    assert_memory_equal(tokenizer_bytes(t, 0xc3, &n), "\xc3", 1);
    assert_int_equal(n, 1);
    assert_null(tokenizer_bytes(t, 301, &n)); /* a gap */
    assert_null(tokenizer_bytes(t, 303, &n));
    assert_null(tokenizer_bytes(t, -1, &n));
    assert_true(tokenizer_memory(t) > 256);
    tokenizer_close(t);
}

/* A rule, or a whole word under ignore_merges, must not spell an added token in content. */
static void test_merges_never_make_markup(void **state) {
    (void)state;
    const parts p = {.merges = {"b\1o", "bo\1s", "bos\1x"},
                     .added = ADDED(257, "bos", SPECIAL) "," ADDED(33, "!", SPECIAL),
                     .model_extra = "\"ignore_merges\":true,"};
    tokenizer *t = open_parts(&p);
    CONTENT(t, "bos", "256 115");
    CONTENT(t, "bo", "256");
    CONTENT(t, "bosx", "258"); /* a whole word, and a token of its own */
    CONTENT(t, "xbosx", "120 256 115 120");
    CONTENT(t, "!", "33"); /* the only token for this byte */
    MARKUP(t, "xbos", "120 257");
    tokenizer_close(t);
}

static void test_added_token_flags(void **state) {
    (void)state;
    const parts p = {.added = ADDED(300, "<l>", SPECIAL ",\"lstrip\":true") "," ADDED(
                         301, "<r>",
                         SPECIAL
                         ",\"rstrip\":true") "," ADDED(302, "word", PLAIN ",\"single_word\":true")};
    tokenizer *t = open_parts(&p);
    MARKUP(t, "a \n <l> b", "97 300 32 98");
    MARKUP(t, "a <r>\xe3\x80\x80\xc2\x85 b", "97 32 301 98");
    MARKUP(t, "<r>  <l>", "301 300"); /* taken once */
    MARKUP(t, "a word.", "97 32 302 46");
    MARKUP(t, "words", "119 111 114 100 115");
    MARKUP(t, "\xc3\xa9word", "195 169 119 111 114 100");
    tokenizer_close(t);
}

/* ---- Unicode ---- */

static void test_nfc(void **state) {
    (void)state;
    const parts p = {
        .normalizer = "{\"type\":\"NFC\"}",
        .added = ADDED(300, "e\\u0301!", "\"normalized\":true") "," ADDED(301, "\\u212b", SPECIAL)};
    tokenizer *t = open_parts(&p);
    CONTENT(t, "e\xcc\x81", "195 169");
    CONTENT(t, "xe\xcc\x81\xcc\xa7z", "120 200 169 204 129 122");      /* U+0229 U+0301 */
    CONTENT(t, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "237 149 156"); /* jamo: U+D55C */
    CONTENT(t, "\xcc\x81\x65", "204 129 101");
    CONTENT(t, "\xff\x65\xcc\x81\xff", "255 195 169 255");
    CONTENT(t, "\xe2\x84\xab", "195 133"); /* the angstrom sign */
    /* U+0897 is newer than the reference's tables: nothing moves across it. */
    CONTENT(t, "a\xe0\xa2\x97\xcc\xa7", "97 224 162 151 204 167");
    MARKUP(t, "e\xcc\x81!", "300");
    MARKUP(t, "\xc3\xa9!", "300");
    MARKUP(t, "\xe2\x84\xab", "301");
    tokenizer_close(t);
    t = open_parts(&(parts){.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[]}"});
    CONTENT(t, "e\xcc\x81", "101 204 129");
    tokenizer_close(t);
}

/* Marks in any order and number: as the rule says it, by a simple stable sort. */
static void test_nfc_orders_marks(void **state) {
    (void)state;
    static const char *const MARKS[] = {"\xcc\xb4", "\xcc\xa7", "\xcc\x96", "\xcc\xa3", "\xcc\x95"};
    static const int CLASSES[] = {1, 202, 220, 220, 232};
    tokenizer *t = open_parts(&(parts){.normalizer = "{\"type\":\"NFC\"}"});
    rng r;
    rng_seed(&r, 2);
    for (int round = 0; round < 300; round++) {
        char text[256] = "?", expected[256] = "?";
        int chosen[60], n = (int)(rng_next(&r) % 60);
        for (int i = 0; i < n; i++) {
            chosen[i] = (int)(rng_next(&r) % 5);
            memcpy(text + 1 + 2 * i, MARKS[chosen[i]], 2);
        }
        for (int c = 0, made = 0; c < 256; c++) {
            for (int i = 0; i < n; i++) {
                if (CLASSES[chosen[i]] == c) memcpy(expected + 1 + 2 * made++, MARKS[chosen[i]], 2);
            }
        }
        token_list ids = {0};
        err e = tokenizer_encode(t, TOKEN_CONTENT, text, 1 + 2 * (size_t)n, &ids);
        assert_int_equal(e.code, ERR_NONE);
        assert_int_equal(ids.count, 1 + 2 * n);
        for (size_t i = 0; i < ids.count; i++) {
            assert_int_equal(ids.ids[i], (unsigned char)expected[i]);
        }
        token_list_free(&ids);
    }
    tokenizer_close(t);
}

/* decode(encode(x)) == x for any bytes, where nothing is normalised. */
static void test_any_bytes_round_trip(void **state) {
    (void)state;
    tokenizer *t = open_parts(&MERGING);
    rng r;
    rng_seed(&r, 3);
    for (int round = 0; round < 3000; round++) {
        char text[80];
        size_t length = (size_t)(rng_next(&r) % sizeof text), at = 0, n;
        for (size_t i = 0; i < length; i++) {
            uint64_t k = rng_next(&r);
            text[i] = k % 3 ? "ab \xc3\xa9\xe2\x82\xac\xf0\x9f"[(k >> 32) % 10] : (char)(k >> 32);
        }
        token_list ids = {0};
        err e = tokenizer_encode(t, round % 2 ? TOKEN_MARKUP : TOKEN_CONTENT, text, length, &ids);
        assert_int_equal(e.code, ERR_NONE);
        for (size_t i = 0; i < ids.count; i++, at += n) {
            const char *bytes = tokenizer_bytes(t, ids.ids[i], &n);
            assert_non_null(bytes);
            assert_true(n <= length - at);
            assert_memory_equal(bytes, text + at, n);
        }
        assert_int_equal(at, length);
        token_list_free(&ids);
    }
    tokenizer_close(t);
}

/* ---- what is refused ---- */

static void expect_bad(const char *json, size_t length, err_code code, const char *says) {
    tokenizer *t = NULL;
    err e = tokenizer_parse("bad.json", json, length, &t);
    if (!strstr(e.text, says)) print_error("\"%s\" does not say \"%s\"\n", e.text, says);
    assert_null(t);
    assert_int_equal(e.code, code);
    assert_non_null(strstr(e.text, says));
    assert_non_null(strstr(e.text, "bad.json"));
}

static void expect_refused(parts p, err_code code, const char *says) {
    size_t length;
    char *json = make_json(&p, &length);
    expect_bad(json, length, code, says);
    free(json);
}

static void test_refused_by_name(void **state) {
    (void)state;
#define REFUSE(field, text, says) expect_refused((parts){.field = text}, ERR_UNSUPPORTED, says)
    REFUSE(normalizer, "{\"type\":\"NFKC\"}", "\"NFKC\"");
    REFUSE(normalizer, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}",
           "\"Lowercase\"");
    REFUSE(pre_tokenizer, "{\"type\":\"Metaspace\"}", "\"Metaspace\"");
    REFUSE(pre_tokenizer, "{\"type\":\"Digits\"}", "no ByteLevel");
    REFUSE(pre_tokenizer,
           "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},"
           "{\"type\":\"Digits\"}]}",
           "Digits after ByteLevel");
    REFUSE(model_extra, "\"byte_fallback\":true,", "byte_fallback");
    REFUSE(model_extra, "\"dropout\":0.1,", "dropout");
    REFUSE(model_extra, "\"end_of_word_suffix\":\"</w>\",", "</w>");
    expect_refused((parts){.added = ADDED(300, "b", PLAIN)}, ERR_CORRUPT, "has id 98, but 300");
    expect_refused((parts){.added = ADDED(97, "zz", PLAIN)}, ERR_CORRUPT, "id 97 is used twice");
    expect_refused((parts){.added = ADDED(-1, "zz", PLAIN)}, ERR_CORRUPT, "id");
    expect_refused((parts){.added = ADDED(4194304, "zz", PLAIN)}, ERR_CORRUPT, "id");
    expect_refused((parts){.added = ADDED(300, "", PLAIN)}, ERR_RANGE, "content");
    expect_refused((parts){.added = ADDED(300, "x", PLAIN) "," ADDED(300, "y", PLAIN)}, ERR_CORRUPT,
                   "token id 300 is used twice");
    expect_refused((parts){.added = "7"}, ERR_CORRUPT, "added_tokens[0]");
}

static void test_refused_expressions(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *says;
        err_code code;
    } CASES[] = {{"\\\\w+", "\\w", ERR_UNSUPPORTED},
                 {"\\\\h", "\\h", ERR_UNSUPPORTED},
                 {"\\\\1", "\\1", ERR_UNSUPPORTED},
                 {"a$", "byte 2", ERR_UNSUPPORTED},
                 {"^a", "an anchor", ERR_UNSUPPORTED},
                 {"[a[b]]", "a class within a class", ERR_UNSUPPORTED},
                 {"[a&&b]", "an intersection", ERR_UNSUPPORTED},
                 {"[]a]", "a class that is empty", ERR_UNSUPPORTED},
                 {"[a", "a class without an end", ERR_UNSUPPORTED},
                 {"\\\\p{Han}", "a property", ERR_UNSUPPORTED},
                 {"\\\\pL", "a property without braces", ERR_UNSUPPORTED},
                 {"\\\\u12", "four hexadecimal digits", ERR_UNSUPPORTED},
                 {"a{1,3}+", "a quantifier after", ERR_UNSUPPORTED},
                 {"a*+*", "a quantifier after", ERR_UNSUPPORTED},
                 {"a{,2}", "a { that is not", ERR_UNSUPPORTED},
                 {"(?<=a)b", "a group other than", ERR_UNSUPPORTED},
                 {"a\\\\", "a final backslash", ERR_UNSUPPORTED},
                 {"(a", "parenthes", ERR_CORRUPT}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *spec = NULL;
        assert_true(asprintf(&spec,
                             "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                             "\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\"},"
                             "{\"type\":\"ByteLevel\"}]}",
                             CASES[i].pattern) > 0);
        expect_refused((parts){.pre_tokenizer = spec}, CASES[i].code, CASES[i].says);
        free(spec);
    }
    REFUSE(pre_tokenizer,
           "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Sideways\"}",
           "Sideways");
}

static void test_bad_files(void **state) {
    (void)state;
/* clang-format off */
#define HEAD "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
#define BAD(json, says) expect_bad(json, sizeof json - 1, ERR_CORRUPT, says)
#define BAD_VOCAB(text, says) BAD(HEAD "\"vocab\":{" text "},\"merges\":[]}}", says)
    /* clang-format on */
    BAD("", "bad.json");
    BAD("[]", "an object");
    BAD("{", "bad.json");
    BAD("{}", "model");
    BAD(HEAD "\"vocab\":{}}}", "merges is missing");
    BAD(HEAD "\"merges\":[]}}", "vocab is missing");
    BAD(HEAD "\"vocab\":[],\"merges\":[]}}", "expected an object, found a list");
    BAD(HEAD "\"vocab\":{},\"merges\":7}}", "expected a list");
    BAD(HEAD "\"vocab\":{\"a\":1", "without an end");
    BAD(HEAD "\"vocab\":{},\"merges\":[]},\"model\":{}}", "uplicate");
    BAD_VOCAB("\"a\":1,", "a comma before the end");
    BAD_VOCAB("\"a\":-1", "a token id");
    BAD_VOCAB("\"a\":1.5", "a token id");
    BAD_VOCAB("\"a\":01", "a token id");
    BAD_VOCAB("\"a\":99999999999999999999", "a token id");
    BAD_VOCAB("\"a\":1,\"a\":2", "the same");
    BAD_VOCAB("\"a\":1,\"b\":1", "used twice");
    BAD_VOCAB("\"\\ud800\":1", "surrogate");
    BAD_VOCAB("\"\\q\":1", "escape");
    BAD_VOCAB("\"\\u0000\":1", "zero byte");
    BAD_VOCAB("\"\xff\":1", "UTF-8");
    BAD_VOCAB("\"a\n\":1", "control");
    static const char ALIEN[] = "{\"model\":{\"type\":\"Unigram\"}}";
    static const char EMPTY[] = HEAD "\"vocab\":{},\"merges\":[]}}";
    static const char HUGE_ID[] = HEAD "\"vocab\":{\"a\":2000000000},\"merges\":[]}}";
    expect_bad(ALIEN, sizeof ALIEN - 1, ERR_UNSUPPORTED, "\"Unigram\"");
    expect_bad(EMPTY, sizeof EMPTY - 1, ERR_UNSUPPORTED, "byte 0x00");
    expect_bad(HUGE_ID, sizeof HUGE_ID - 1, ERR_RANGE, "2000000000");
    tokenizer *t = NULL;
    err e = tokenizer_open("/nowhere/at/all", &t);
    assert_null(t);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/at/all/tokenizer.json"));
}

static void test_bad_merges(void **state) {
    (void)state;
    static const struct {
        const char *merge, *says;
    } CASES[] = {{"\"a\"", "not two tokens"},
                 {"\"a b c\"", "not two tokens"},
                 {"\"a c\"", "\"ac\" is not in model.vocab"},
                 {"[\"zz\",\"a\"]", "\"zz\" is not in model.vocab"},
                 {"[\"\",\"a\"]", "is not in model.vocab"},
                 {"[\"a\"]", "expected ','"},
                 {"[\"a\",\"b\",\"c\"]", "expected ']'"},
                 {"7", "expected '\"'"},
                 {"[\"a\",\"\\u2581\"]", "is not in model.vocab"}};
    size_t length;
    char *good = make_json(&(parts){.merges = {"a\1b"}}, &length);
    const char *at = strstr(good, "\"merges\":[");
    assert_non_null(at);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *json = NULL;
        int n = asprintf(&json, "%.*s\"merges\":[%s]}}", (int)(at - good), good, CASES[i].merge);
        assert_true(n > 0);
        expect_bad(json, (size_t)n, ERR_CORRUPT, CASES[i].says);
        free(json);
    }
    free(good);
}

/* Every beginning of a good file is refused, and no changed byte does harm. */
static void test_cut_and_changed_files(void **state) {
    (void)state;
    size_t length;
    char *json = make_json(
        &(parts){.merges = {"a\1b", "ab\1c"}, .added = ADDED(300, "<x>", SPECIAL)}, &length);
    rng r;
    rng_seed(&r, 5);
    for (size_t n = 0; n < length; n += 1 + n % 7) {
        tokenizer *t = NULL;
        err e = tokenizer_parse("cut.json", json, n, &t);
        assert_int_not_equal(e.code, ERR_NONE);
        assert_null(t);
    }
    for (int round = 0; round < 3000; round++) {
        size_t at = (size_t)(rng_next(&r) % length);
        char was = json[at];
        json[at] = round % 2 ? "{}[]\",:0\\ "[rng_next(&r) % 10] : (char)rng_next(&r);
        tokenizer *t = NULL;
        err e = tokenizer_parse("changed.json", json, length, &t);
        assert_true((e.code == ERR_NONE) == (t != NULL));
        token_list ids = {0};
        if (t) e = tokenizer_encode(t, TOKEN_MARKUP, "abc <x> \xff", 9, &ids);
        token_list_free(&ids);
        tokenizer_close(t);
        json[at] = was;
    }
    free(json);
}

/* ---- size ---- */

/* A megabyte of each awkward thing takes well under a second (tests/tokenizer measures it);
 * anything quadratic takes minutes. The bound here leaves room for sanitizers and emulators. */
static void test_long_runs(void **state) {
    (void)state;
    static const char *const THINGS[] = {
        "a",    " ",   "\n",           " \n",         "\xf0\x9f\x98\x80",
        "1",    "<|e", "ab",           "\xff",        "\xcc\x95\xcc\x96",
        "\r\n", "'s",  "\xe6\xbc\xa2", "\xe2\x80\x80"};
    parts p = MERGING;
    p.normalizer = "{\"type\":\"NFC\"}";
    p.added = ADDED(300, "<|e|>", SPECIAL);
    tokenizer *t = open_parts(&p);
    const size_t size = 1 << 20;
    char *text = malloc(size);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof THINGS / sizeof *THINGS; i++) {
        size_t n = strlen(THINGS[i]), length = size / n * n, bytes = 0;
        for (size_t at = 0; at < length; at += n) memcpy(text + at, THINGS[i], n);
        token_list ids = {0};
        uint64_t start = os_now_ns();
        err e = tokenizer_encode(t, TOKEN_MARKUP, text, length, &ids);
        assert_int_equal(e.code, ERR_NONE);
        assert_true(os_now_ns() - start < 30000000000u);
        for (size_t k = 0; k < ids.count; k++, bytes += n) {
            assert_non_null(tokenizer_bytes(t, ids.ids[k], &n));
        }
        assert_int_equal(bytes, length);
        token_list_free(&ids);
    }
    free(text);
    tokenizer_close(t);
}

/* An expression that would take for ever is stopped by an error, and out stays as it was. */
static void test_expensive_expression(void **state) {
    (void)state;
    tokenizer *t = open_parts(
        &(parts){.pre_tokenizer =
                     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                     "{\"Regex\":\"(?:a|a)*[0-9]\"},\"behavior\":\"Isolated\"},"
                     "{\"type\":\"ByteLevel\",\"use_regex\":false,\"add_prefix_space\":false}]}"});
    char text[64];
    memset(text, 'a', sizeof text);
    token_list ids = {0};
    err e = token_list_push(&ids, 5);
    assert_int_equal(e.code, ERR_NONE);
    e = tokenizer_encode(t, TOKEN_CONTENT, "bbbaa7", 6, &ids);
    assert_int_equal(e.code, ERR_NONE);
    assert_int_equal(ids.count, 7);
    ids.count = 1;
    e = tokenizer_encode(t, TOKEN_CONTENT, text, sizeof text, &ids);
    assert_int_equal(e.code, ERR_RANGE);
    assert_non_null(strstr(e.text, "too much work"));
    assert_int_equal(ids.count, 1);
    token_list_free(&ids);
    tokenizer_close(t);
}

/* ---- the incremental detokeniser ---- */

static void expect_stream(const char *bytes, size_t step, const char *expected) {
    utf8_stream s = {0};
    char out[256];
    size_t made = 0, length = strlen(bytes);
    for (size_t at = 0; at < length; at += step) {
        size_t n = size_min(step, length - at);
        size_t now = utf8_stream_push(&s, bytes + at, n, out + made);
        assert_true(now <= 3 * n + 9);
        made += now;
    }
    made += utf8_stream_end(&s, out + made);
    assert_int_equal(utf8_stream_end(&s, out + made), 0);
    assert_int_equal(made, strlen(expected));
    assert_memory_equal(out, expected, made);
}

static void test_stream(void **state) {
    (void)state;
#define U "\xef\xbf\xbd"
    static const struct {
        const char *bytes, *expected;
    } CASES[] = {{"", ""},
                 {"abc", "abc"},
                 {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
                 {"\xff", U},
                 {"a\x80!", "a" U "!"},
                 {"\xe2\x82x", U "x"},
                 {"\xe2\x82", U},
                 {"\xf0\x9f\x98", U},
                 {"\xf0\x9f\x98\xc3\xa9", U "\xc3\xa9"},
                 {"\xf0\x9f\xf0\x9f\x98\x80", U "\xf0\x9f\x98\x80"},
                 {"\xc0\xaf", U U},
                 {"\xed\xa0\x80", U U U},
                 {"\xf4\x90\x80\x80", U U U U},
                 {"\xe0\x80\xaf", U U U},
                 {"\xf1\x80\x80\x80\xf1\x80\x80z", "\xf1\x80\x80\x80" U "z"},
                 {"\xe2\xe2\xe2\x82\xac", U U "\xe2\x82\xac"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        for (size_t step = 1; step < 6; step++) {
            expect_stream(CASES[i].bytes, step, CASES[i].expected);
        }
    }
}

static void test_stream_holds_half_characters(void **state) {
    (void)state;
    utf8_stream s = {0};
    char out[16];
    assert_int_equal(utf8_stream_push(&s, "a\xf0", 2, out), 1);
    assert_int_equal(utf8_stream_push(&s, "\x9f\x98", 2, out), 0);
    assert_int_equal(utf8_stream_push(&s, "\x80", 1, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(utf8_stream_push(&s, "", 0, out), 0);
    assert_int_equal(utf8_stream_end(&s, out), 0);
}

/* ---- the bundled model's tokenizer ---- */

static void test_bundled(void **state) {
    (void)state;
    tokenizer *t = NULL;
    err e = tokenizer_open("assets/ember", &t);
    if (e.code) print_error("%s\n", e.text);
    assert_int_equal(e.code, ERR_NONE);
    static const char TEXT[] = "<|im_start|>user\nHello, it's 42 na\xc3\xafve \xe6\xbc\xa2 tests!\n"
                               "<|im_end|>\n<think>\n\n</think>";
    for (int mode = TOKEN_CONTENT; mode <= TOKEN_MARKUP; mode++) {
        token_list ids = {0};
        char text[256];
        size_t made = 0, n, n_added = 0;
        e = tokenizer_encode(t, (token_mode)mode, TEXT, sizeof TEXT - 1, &ids);
        assert_int_equal(e.code, ERR_NONE);
        for (size_t i = 0; i < ids.count; i++, made += n) {
            const char *bytes = tokenizer_bytes(t, ids.ids[i], &n);
            assert_true(bytes && made + n <= sizeof text);
            memcpy(text + made, bytes, n);
            n_added += ids.ids[i] >= 6135;
        }
        assert_int_equal(made, sizeof TEXT - 1);
        assert_memory_equal(text, TEXT, made);
        assert_int_equal(n_added, mode == TOKEN_MARKUP ? 4 : 0);
        token_list_free(&ids);
    }
    assert_int_equal(tokenizer_size(t), 6144);
    assert_int_equal(tokenizer_find(t, "<|im_end|>", 10), 6137);
    assert_true(tokenizer_is_special(t, 6137));
    assert_true(tokenizer_memory(t) < 4 << 20);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_like_the_twin),
        cmocka_unit_test(test_splits_like_the_twin),
        cmocka_unit_test(test_markup_and_content),
        cmocka_unit_test(test_what_one_may_ask),
        cmocka_unit_test(test_merges_never_make_markup),
        cmocka_unit_test(test_added_token_flags),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_nfc_orders_marks),
        cmocka_unit_test(test_any_bytes_round_trip),
        cmocka_unit_test(test_refused_by_name),
        cmocka_unit_test(test_refused_expressions),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_merges),
        cmocka_unit_test(test_cut_and_changed_files),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_expensive_expression),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_holds_half_characters),
        cmocka_unit_test(test_bundled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
