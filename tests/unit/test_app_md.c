/* test_app_md.c: Markdown to lines: what it looks like, that it does not depend on how the text was
 * cut, that no line is ever too wide and nothing that a terminal would obey comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../apps/flashchat/chat_md.h"

/* Segments of `text`, given in pieces of `piece` bytes, rendered one after the other. */
static void render(const char *text, size_t length, size_t piece, const md_look *look,
                   md_lines *out) {
    md_splitter s = {0};
    char *held = malloc(length + 1);
    size_t n = 0, whole;
    assert_non_null(held);
    for (size_t at = 0; at < length; at += piece) {
        size_t more = length - at < piece ? length - at : piece;
        memcpy(held + n, text + at, more);
        n += more;
        while ((whole = md_next_segment(&s, held, n))) {
            assert_true(whole <= n);
            assert_true(md_render(held, whole, look, false, out));
            memmove(held, held + whole, n - whole);
            n -= whole;
        }
        md_lines open = {0}; /* what is shown meanwhile is never too wide either */
        assert_true(md_render(held, n, look, true, &open));
        for (int i = 0; i < open.n; i++) assert_true(open.items[i].width <= look->width);
        md_lines_free(&open);
    }
    assert_true(md_render(held, n, look, false, out));
    free(held);
}

static char *joined(const md_lines *l) {
    size_t n = 1;
    for (int i = 0; i < l->n; i++) n += strlen(l->items[i].text) + 1;
    char *text = calloc(n, 1);
    assert_non_null(text);
    for (int i = 0; i < l->n; i++) {
        memcpy(text + strlen(text), l->items[i].text, strlen(l->items[i].text));
        text[strlen(text)] = '\n';
    }
    return text;
}

static void looks(const char *text, int width, bool styled, const char *wanted) {
    md_look look = {.width = width, .styled = styled, .unicode = true};
    md_lines l = {0};
    render(text, strlen(text), strlen(text) ? strlen(text) : 1, &look, &l);
    char *got = joined(&l);
    assert_string_equal(got, wanted);
    free(got);
    md_lines_free(&l);
}

static void plain(const char *text, int width, const char *wanted) {
    looks(text, width, false, wanted);
}

static void paragraphs(void **state) {
    (void)state;
    plain("", 40, "");
    plain("one two three four", 12, "one two\nthree four\n");
    plain("a\nb", 40, "a b\n");
    plain("a  \nb", 40, "a\nb\n");
    plain("abcdefghijklmnop", 12, "abcdefghijkl\nmnop\n");
    plain("**b** and *i* and `c` ~~s~~", 40, "**b** and *i* and `c` ~~s~~\n");
    looks("**b** x", 40, true, "\033[0;1mb\033[0m x\n");
    plain("&amp; &lt;x&gt; &#65; &#x42; &unknown; <b>html</b>", 60,
          "& <x> A B &unknown; <b>html</b>\n");
    plain("日本語日本語日本語", 12, "日本語日本語\n日本語\n");
    plain("# Title\ntext\n## Two\n", 40, "# Title\ntext\n## Two\n");
    looks("## T", 40, true, "\033[0;1mT\033[0m\n");
}

static void links(void **state) {
    (void)state;
    plain("[here](https://a.example/b)", 60, "here (https://a.example/b)\n");
    plain("<https://a.example/b> https://c.example", 60, "https://a.example/b https://c.example\n");
    plain("![alt](x.png)", 60, "alt (x.png)\n");
}

static void lists(void **state) {
    (void)state;
    plain("- a\n- b\n  - c\n", 40, "• a\n• b\n  • c\n");
    plain("1. one two three\n2. x\n", 12, "1. one two\n   three\n2. x\n");
    plain("7) a\n8) b", 40, "7. a\n8. b\n");
    plain("- a\n\n- b\n\n  more\n", 40, "• a\n\n• b\n\n  more\n");
    plain("- [ ] a\n- [x] b", 40, "[ ] a\n[x] b\n");
    plain("-\n- b", 40, "•\n• b\n");
    plain("> a\n> b\n>\n> c", 40, "│ a b\n│\n│ c\n");
    plain("> - a\n>   b", 40, "│ • a b\n");
}

static void code(void **state) {
    (void)state;
    plain("```c\nint x;\n\n  y\n```\nafter", 40, "    int x;\n\n      y\nafter\n");
    plain("```\nopen", 40, "    open\n");
    plain("~~~\n```\n~~~", 40, "    ```\n");
    plain("```\n12345678901234567890\n```", 14, "    1234567890\n    1234567890\n");
    plain("```\na\tb\n```", 40, "    a   b\n");
    plain("- a\n\n  ```sh\n  # no title\n\n  x\n  ```\n- b", 40,
          "• a\n\n      # no title\n\n      x\n\n• b\n");
    looks("```py\ndef f(): # c\n```", 40, true,
          "    \033[0;35mdef\033[0m f(): \033[0;2m# c\033[0m\n");
    looks("```diff\n+a\n-b\n```", 40, true, "    \033[0;32m+a\033[0m\n    \033[0;31m-b\033[0m\n");
}

static void tables(void **state) {
    (void)state;
    plain("| a | 日本 |\n|---|---:|\n| long cell | x |\n", 40,
          "a         │ 日本\n──────────┼─────\nlong cell │    x\n");
    plain("| a | b |\n|---|---|\n| one two three four | x |\n", 18,
          "a              │ b\n───────────────┼──\none two three  │ x\nfour           │\n");
    plain("|a|b|c|\n|---|---|---|\n|1|2|3|\n|long words|5555|6666|\n", 12,
          "a: 1\nb: 2\nc: 3\n\na: long\nwords\nb: 5555\nc: 6666\n");
}

static void classes(void **state) {
    (void)state;
    static const struct {
        const char *language, *code, *wanted; /* a letter a byte */
    } cases[] = {
        {"c", "int a=1;/*x*/", "kkkpppnpccccc"},
        {"python", "'a' \"b\"#", "ssspsssc"},
        {"python", "'''a\nb'''", "sssssssss"},
        {"js", "let a=`x\n`", "kkkpppssss"},
        {"json", "{\"a\":null}", "pssspkkkkp"},
        {"sh", "if a$#", "kkpppp"},
        {"go", "func", "kkkk"},
        {"rust", "let", "kkk"},
        {"SQL", "SELECT 'a'", "kkkkkkpsss"},
        {"nothing", "if 1", "pppp"},
        {"", "if", "pp"},
        {"c", "\"open", "sssss"},
        {"c", "\"a\\", "sss"},
        {"html", "<!--", "cccc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t got[64];
        size_t n = strlen(cases[i].code);
        md_highlight(cases[i].language, strlen(cases[i].language), cases[i].code, n, got);
        char letters[64] = "";
        for (size_t k = 0; k < n; k++) letters[k] = "pkscnad"[got[k]];
        assert_string_equal(letters, cases[i].wanted);
    }
}

static const char document[] =
    "# Title with `code`\nIntro **bold\nacross** lines, *it* and 日本語テキスト and "
    "averyveryveryveryverylongwordthatisnotbroken.\n\n- item\n- item two\n\n  par\n\n  ```c\n  int "
    "x;\n\n  # define\n  ```\n- three\n\nText\n===\n> quote\n> - in quote\n\n```python\ndef "
    "f():\n\n    return 1 # \xf0\x9f\x8e\x89\n```\n| a | b | c |\n|:--|:-:|--:|\n| 1 | two words "
    "here | `x` |\n| 日本 | | \xc3\xa9 |\n\n1. x\n2. y\n   1. z\n\n***\nlast [link](http://x.y) "
    "line "
    "\xff\xfe bad\x1b[31m bytes\n```\nunclosed\n";

static void cut_anywhere(void **state) {
    (void)state;
    static const int widths[] = {12, 20, 40, 79};
    for (int w = 0; w < 4; w++) {
        md_look look = {.width = widths[w], .prose = 60, .styled = w & 1, .unicode = true};
        md_lines whole = {0};
        render(document, sizeof document - 1, sizeof document, &look, &whole);
        char *wanted = joined(&whole);
        assert_true(whole.n > 20);
        for (int i = 0; i < whole.n; i++) assert_true(whole.items[i].width <= look.width);
        for (size_t piece = 1; piece < 40; piece += piece < 8 ? 1 : 7) {
            md_lines l = {0};
            render(document, sizeof document - 1, piece, &look, &l);
            char *got = joined(&l);
            assert_string_equal(got, wanted);
            free(got);
            md_lines_free(&l);
        }
        free(wanted);
        md_lines_free(&whole);
    }
}

/* Texts made of what has a meaning in Markdown: always valid, never too wide, never control. */
static void anything(void **state) {
    (void)state;
    static const char *const parts[] = {
        "*",       "**",       "`",    "```",       "\n",   "\n\n",      "- ",
        "1. ",     "> ",       "| ",   "|---|---|", "#",    " ",         "word",
        "日本",    "[a](",     ")",    "\t",        "    ", "~~~",       "<b>",
        "\x1b[2J", "\xc2\x9b", "\xff", "&#27;",     "---",  "e\xcc\x81", "\r"};
    uint32_t seed = 1;
    for (int round = 0; round < 1500; round++) {
        char text[600] = "";
        size_t n = 0;
        for (int i = 0; i < 60; i++) {
            seed = seed * 1664525 + 1013904223;
            const char *part = parts[(seed >> 16) % (sizeof parts / sizeof *parts)];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
        md_look look = {.width = 12 + round % 50, .styled = false, .unicode = round & 1};
        md_lines l = {0};
        render(text, n, round % 7 == 0 ? 3 : n, &look, &l);
        for (int i = 0; i < l.n; i++) {
            const char *line = l.items[i].text;
            assert_true(l.items[i].width <= look.width);
            assert_int_equal(l.items[i].width, md_columns(line, strlen(line)));
            for (const char *p = line; *p; p++) {
                assert_true((unsigned char)*p >= 32 && *p != 127);
                assert_false((unsigned char)*p == 0xc2 && (unsigned char)p[1] < 0xa0);
            }
        }
        md_lines_free(&l);
    }
}

static void open_spans(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a **bo", "a **bo**\n"},     {"a **", "a\n"},
        {"a `co", "a `co`\n"},        {"a **b*", "a **b**\n"},
        {"a **b** c", "a **b** c\n"}, {"2 * 3", "2 * 3\n"},
        {"```\n**", "    **\n"},
    };
    md_look look = {.width = 40};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        md_lines l = {0};
        assert_true(md_render(cases[i][0], strlen(cases[i][0]), &look, true, &l));
        char *got = joined(&l);
        assert_string_equal(got, cases[i][1]);
        free(got);
        md_lines_free(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paragraphs), cmocka_unit_test(links),        cmocka_unit_test(lists),
        cmocka_unit_test(code),       cmocka_unit_test(tables),       cmocka_unit_test(classes),
        cmocka_unit_test(open_spans), cmocka_unit_test(cut_anywhere), cmocka_unit_test(anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
