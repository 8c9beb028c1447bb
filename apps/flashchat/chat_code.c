/* chat_code.c: which bytes of a piece of code are keywords, strings, comments and numbers.
 *
 * One scanner for all languages; a row of the table says what they differ in. Nothing is parsed: a
 * wrong colour is the worst that can happen. */
#include <ctype.h>
#include <string.h>

#include "chat_md.h"

typedef struct language {
    const char *names;      /* " c h cpp " */
    const char *keywords;   /* " if else " */
    const char *line;       /* begins a comment up to the end of the line; or NULL */
    const char *block[2];   /* begin and end of other comments */
    const char *quotes;     /* characters around strings */
    const char *long_quote; /* a quote that may hold line breaks, e.g. ` */
    bool triple;            /* """ and ''' as in Python */
    bool any_case;          /* keywords in any case */
} language;

#define C_WORDS                                                                                    \
    " if else for while do switch case default break continue return goto sizeof struct union "    \
    "enum typedef static const extern inline volatile register void int char long short unsigned " \
    "signed float double bool true false NULL size_t "

static const language languages[] = {
    {.names = " c h ",
     .keywords = C_WORDS "uint8_t uint16_t uint32_t uint64_t int8_t int16_t int32_t int64_t "
                         "restrict _Bool _Atomic _Static_assert ",
     .line = "//",
     .block = {"/*", "*/"},
     .quotes = "\"'"},
    {.names = " cpp c++ cc hpp cxx cuda java kotlin kt swift csharp cs c# php dart scala ",
     .keywords = C_WORDS
     "class public private protected virtual override final new delete this namespace using "
     "template typename try catch throw throws finally auto nullptr constexpr import package "
     "extends implements interface abstract var val let fun func null nil self super async await "
     "in is as foreach string String boolean guard where when def trait object ",
     .line = "//",
     .block = {"/*", "*/"},
     .quotes = "\"'"},
    {.names = " python py python3 ",
     .keywords = " and as assert async await break class continue def del elif else except finally "
                 "for from global if import in is lambda nonlocal not or pass raise return try "
                 "while with yield match case None True False self ",
     .line = "#",
     .quotes = "\"'",
     .triple = true},
    {.names = " javascript js jsx typescript ts tsx mjs node ",
     .keywords = " async await break case catch class const continue debugger default delete do "
                 "else export extends finally for from function if import in instanceof let new of "
                 "return static super switch this throw try typeof var void while yield true false "
                 "null undefined interface type enum implements readonly private public protected "
                 "abstract as keyof namespace declare string number boolean any unknown never ",
     .line = "//",
     .block = {"/*", "*/"},
     .quotes = "\"'",
     .long_quote = "`"},
    {.names = " sh bash shell zsh console fish dockerfile ",
     .keywords = " if then else elif fi for while until do done case esac in function return "
                 "local export readonly set unset shift exit source echo cd printf read test trap "
                 "eval exec sudo FROM RUN COPY CMD ENV WORKDIR ENTRYPOINT ",
     .line = "#",
     .quotes = "\"",
     .long_quote = "'"},
    {.names = " json json5 jsonc ", .keywords = " true false null ", .line = "//", .quotes = "\""},
    {.names = " go golang ",
     .keywords = " break case chan const continue default defer else fallthrough for func go goto "
                 "if import interface map package range return select struct switch type var true "
                 "false nil string int int32 int64 uint8 uint32 uint64 byte rune float64 error "
                 "bool any make new len cap append ",
     .line = "//",
     .block = {"/*", "*/"},
     .quotes = "\"'",
     .long_quote = "`"},
    {.names = " rust rs ",
     .keywords = " as async await break const continue crate dyn else enum extern false fn for if "
                 "impl in let loop match mod move mut pub ref return self Self static struct super "
                 "trait true type unsafe use where while i8 i16 i32 i64 u8 u16 u32 u64 usize isize "
                 "f32 f64 bool str String Vec Option Result Some None Ok Err Box ",
     .line = "//",
     .block = {"/*", "*/"},
     .quotes = "\""},
    {.names = " sql sqlite postgresql mysql ",
     .keywords = " select from where and or not insert into values update set delete create table "
                 "index view drop alter add column primary key foreign references join left right "
                 "inner outer on group by order having limit offset as distinct union all null is "
                 "in like between exists case when then else end begin commit rollback with ",
     .line = "--",
     .block = {"/*", "*/"},
     .quotes = "\"'",
     .any_case = true},
    {.names = " yaml yml toml ini conf makefile make cmake ruby rb perl pl r julia nix elixir ",
     .keywords = " true false yes no null on off if else elsif elif end def do class module "
                 "require return unless while for in function my sub nil self include endif ifeq "
                 "then begin rescue ensure ",
     .line = "#",
     .quotes = "\"'"},
    {.names = " lua haskell hs ",
     .keywords = " and break do else elseif end false for function if in local nil not or repeat "
                 "return then true until while module where import data type let of case instance ",
     .line = "--",
     .quotes = "\"'"},
    {.names = " css scss less ",
     .keywords = " important media import inherit none auto ",
     .block = {"/*", "*/"},
     .quotes = "\"'"},
    {.names = " html xml svg vue ", .keywords = " ", .block = {"<!--", "-->"}, .quotes = "\""},
};

static bool listed(const char *list, const char *word, size_t length, bool any_case) {
    if (!length || length > 30) return false;
    for (const char *p = list; (p = strchr(p, ' ')) && p[1];) {
        p++;
        size_t n = strcspn(p, " ");
        if (n != length) continue;
        size_t i = 0;
        while (i < n && (any_case ? tolower((unsigned char)word[i]) == p[i] : word[i] == p[i])) i++;
        if (i == n) return true;
    }
    return false;
}

static const language *find_language(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
        if (listed(languages[i].names, name, length, true)) return &languages[i];
    return NULL;
}

typedef struct scan {
    const language *l;
    const char *code;
    size_t length;
    uint8_t *classes;
} scan;

static bool at(const scan *s, size_t i, const char *text) {
    size_t n = text ? strlen(text) : 0;
    return n && n <= s->length - i && !memcmp(s->code + i, text, n);
}

static size_t line_end(const scan *s, size_t i) {
    while (i < s->length && s->code[i] != '\n') i++;
    return i;
}

/* The end of the string that begins at i; `many`: line breaks belong to it. */
static size_t string_end(const scan *s, size_t i, bool many) {
    char quote = s->code[i++];
    while (i < s->length && s->code[i] != quote) {
        if (s->code[i] == '\n' && !many) return i;
        i += s->code[i] == '\\' && i + 1 < s->length ? 2 : 1;
    }
    return i < s->length ? i + 1 : s->length;
}

static size_t until(const scan *s, size_t i, const char *end) {
    while (i < s->length && !at(s, i, end)) i++;
    return i < s->length ? i + strlen(end) : s->length;
}

static bool starts_word(unsigned char c) { return isalpha(c) || c == '_' || c >= 0x80; }
static bool in_word(unsigned char c) { return starts_word(c) || isdigit(c); }

/* What begins at i: its class, and where it ends. */
static md_class piece(const scan *s, size_t i, size_t *end) {
    const language *l = s->l;
    unsigned char c = (unsigned char)s->code[i];
    bool spaced =
        i == 0 || isspace((unsigned char)s->code[i - 1]) || c != '#' || l->triple; /* $# */
    if (spaced && at(s, i, l->line)) return *end = line_end(s, i), MD_COMMENT;
    if (at(s, i, l->block[0]))
        return *end = until(s, i + strlen(l->block[0]), l->block[1]), MD_COMMENT;
    if (l->triple && (at(s, i, "\"\"\"") || at(s, i, "'''")))
        return *end = until(s, i + 3, c == '"' ? "\"\"\"" : "'''"), MD_STRING;
    if (c && strchr(l->quotes, c)) return *end = string_end(s, i, false), MD_STRING;
    if (c && l->long_quote && strchr(l->long_quote, c))
        return *end = string_end(s, i, true), MD_STRING;
    size_t e = i + 1;
    if (isdigit(c)) {
        while (e < s->length && (isalnum((unsigned char)s->code[e]) || s->code[e] == '.')) e++;
        return *end = e, MD_NUMBER;
    }
    if (!starts_word(c)) return *end = e, MD_PLAIN;
    while (e < s->length && in_word((unsigned char)s->code[e])) e++;
    *end = e;
    return listed(l->keywords, s->code + i, e - i, l->any_case) ? MD_KEYWORD : MD_PLAIN;
}

static void mark_diff(const scan *s) {
    for (size_t i = 0; i < s->length;) {
        size_t end = line_end(s, i);
        md_class c = s->code[i] == '+'   ? MD_ADDED
                     : s->code[i] == '-' ? MD_REMOVED
                     : s->code[i] == '@' ? MD_COMMENT
                                         : MD_PLAIN;
        memset(s->classes + i, (int)c, end - i);
        i = end + 1;
    }
}

void md_highlight(const char *name, size_t name_length, const char *code, size_t length,
                  uint8_t *classes) {
    scan s = {find_language(name, name_length), code, length, classes};
    memset(classes, MD_PLAIN, length);
    if (listed(" diff patch ", name, name_length, true)) mark_diff(&s);
    for (size_t i = 0, end; s.l && i < length; i = end) {
        md_class c = piece(&s, i, &end);
        memset(classes + i, (int)c, end - i);
    }
}
