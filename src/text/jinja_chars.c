/* jinja_chars.c: methods of strings that look at characters one by one: case, kinds, padding. */
#include <utf8proc.h>

#include "base/bits.h"
#include "text/jinja_impl.h"

static bool give(jtext *t, jvalue *out) {
    if (t) *out = jstring(t);
    return t != NULL;
}

/* ---- case ---- */

static bool str_upper(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "upper", args, "", NULL) && give(jtext_upper(r, self.text), out);
}

static bool str_lower(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "lower", args, "", NULL) && give(jtext_lower(r, self.text), out);
}

static bool str_capitalize(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "capitalize", args, "", NULL) && give(jtext_capitalize(r, self.text), out);
}

static bool is_lower(uint32_t c) {
    return utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba;
}

static bool is_upper(uint32_t c) { return utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_LU; }

static bool is_title(uint32_t c) { return utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_LT; }

static bool str_title(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jbuf b = {0};
    bool inside = false;
    if (!jargs_bind(r, "title", args, "", NULL)) return false;
    for (size_t at = 0, n; at < self.text->length; at += n) {
        uint32_t c = jtext_char(self.text, at, &n), to[3];
        int count = inside ? jcase_lower_at(self.text, at, c, to) : jcase_title(c, to);
        for (int i = 0; i < count; i++) {
            if (!jbuf_add_char(r, &b, to[i], jtext_mark(self.text, at))) return false;
        }
        inside = jcase_is_cased(c);
    }
    return jrun_charge(r, self.text->length / 4) && give(jbuf_text(r, &b), out);
}

static bool str_swapcase(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jbuf b = {0};
    if (!jargs_bind(r, "swapcase", args, "", NULL)) return false;
    for (size_t at = 0, n; at < self.text->length; at += n) {
        uint32_t c = jtext_char(self.text, at, &n), to[3] = {c};
        int count = is_upper(c)   ? jcase_lower_at(self.text, at, c, to)
                    : is_lower(c) ? jcase_upper(c, to)
                                  : 1;
        for (int i = 0; i < count; i++) {
            if (!jbuf_add_char(r, &b, to[i], jtext_mark(self.text, at))) return false;
        }
    }
    return jrun_charge(r, self.text->length / 4) && give(jbuf_text(r, &b), out);
}

static bool str_casefold(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jbuf b = {0};
    if (!jargs_bind(r, "casefold", args, "", NULL)) return false;
    for (size_t at = 0, n; at < self.text->length; at += n) {
        uint32_t c = jtext_char(self.text, at, &n);
        int32_t to[8];
        int last = 0;
        utf8proc_ssize_t count =
            utf8proc_decompose_char((int32_t)c, to, 8, UTF8PROC_CASEFOLD, &last);
        for (utf8proc_ssize_t i = 0; i < count && i < 8; i++) {
            if (!jbuf_add_char(r, &b, (uint32_t)to[i], jtext_mark(self.text, at))) return false;
        }
    }
    return jrun_charge(r, self.text->length / 4) && give(jbuf_text(r, &b), out);
}

/* ---- kinds of characters ---- */

static bool is_alpha(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t c) { return utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_ND; }

/* Numbers that are digits by themselves: superscripts, circled ones ... */
static bool is_digit(uint32_t c) {
    static const uint32_t runs[][2] = {
        {0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
        {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
        {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
        {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
        {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
    };
    if (is_decimal(c)) return true;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (c >= runs[i][0] && c <= runs[i][1]) return true;
    }
    return false;
}

static bool is_numeric(uint32_t c) {
    static const uint32_t han[] = {
        0x3405,  0x3483,  0x382a,  0x3b4d,  0x4e00,  0x4e03,  0x4e07,  0x4e09,  0x4e5d,
        0x4e8c,  0x4e94,  0x4e96,  0x4ebf,  0x4ec0,  0x4edf,  0x4ee8,  0x4f0d,  0x4f70,
        0x5104,  0x5146,  0x5169,  0x516b,  0x516d,  0x5341,  0x5343,  0x5344,  0x5345,
        0x534c,  0x53c1,  0x53c2,  0x53c3,  0x53c4,  0x56db,  0x58f1,  0x58f9,  0x5e7a,
        0x5efe,  0x5eff,  0x5f0c,  0x5f0d,  0x5f0e,  0x5f10,  0x62fe,  0x634c,  0x67d2,
        0x6f06,  0x7396,  0x767e,  0x8086,  0x842c,  0x8cae,  0x8cb3,  0x8d30,  0x9621,
        0x9646,  0x964c,  0x9678,  0x96f6,  0xf96b,  0xf973,  0xf978,  0xf9b2,  0xf9d1,
        0xf9d3,  0xf9fd,  0x20001, 0x20064, 0x200e2, 0x20121, 0x2092a, 0x20983, 0x2098c,
        0x2099c, 0x20aea, 0x20afd, 0x20b19, 0x22390, 0x22998, 0x23b1b, 0x2626d, 0x2f890};
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    if (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) return true;
    for (size_t i = 0; i < sizeof han / sizeof *han; i++) {
        if (c == han[i]) return true;
    }
    return false;
}

static bool is_alnum(uint32_t c) { return is_alpha(c) || is_numeric(c); }

static bool is_ascii(uint32_t c) { return c < 0x80; }

static bool is_printable(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((int32_t)c);
    return c == ' ' || (k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS);
}

/* All characters are of the kind; an empty string gives `empty`. */
static bool all_of(jrun *r, jvalue self, const jargs *args, bool (*kind)(uint32_t), bool empty,
                   jvalue *out) {
    if (!jargs_bind(r, "a method of strings", args, "", NULL)) return false;
    const jtext *t = self.text;
    bool yes = t->length > 0 || empty;
    size_t n = 0;
    for (size_t at = 0; at < t->length && yes; at += n) yes = kind(jtext_char(t, at, &n));
    *out = jbool(yes);
    return jrun_charge(r, t->length / 8);
}

static bool str_isalpha(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_alpha, false, out);
}

static bool str_isalnum(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_alnum, false, out);
}

static bool str_isdecimal(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_decimal, false, out);
}

static bool str_isdigit(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_digit, false, out);
}

static bool str_isnumeric(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_numeric, false, out);
}

static bool str_isspace(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, junicode_is_space, false, out);
}

static bool str_isascii(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_ascii, true, out);
}

static bool str_isprintable(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return all_of(r, self, args, is_printable, true, out);
}

/* No character of the other case, and at least one of this. */
bool jtext_is_case(const jtext *t, bool upper) {
    bool any = false;
    for (size_t at = 0, n; at < t->length; at += n) {
        uint32_t c = jtext_char(t, at, &n);
        if ((upper ? is_lower(c) : is_upper(c)) || is_title(c)) return false;
        any = any || (upper ? is_upper(c) : is_lower(c));
    }
    return any;
}

static bool str_islower(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "islower", args, "", NULL)) return false;
    *out = jbool(jtext_is_case(self.text, false));
    return jrun_charge(r, self.text->length / 8);
}

static bool str_isupper(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "isupper", args, "", NULL)) return false;
    *out = jbool(jtext_is_case(self.text, true));
    return jrun_charge(r, self.text->length / 8);
}

static bool str_istitle(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "istitle", args, "", NULL)) return false;
    bool any = false, inside = false, good = true;
    for (size_t at = 0, n; at < self.text->length && good; at += n) {
        uint32_t c = jtext_char(self.text, at, &n);
        bool capital = is_upper(c) || is_title(c), small = is_lower(c);
        if ((capital && inside) || (small && !inside)) good = false;
        any = any || capital || small;
        inside = capital || small;
    }
    *out = jbool(good && any);
    return jrun_charge(r, self.text->length / 8);
}

static bool str_isidentifier(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    if (!jargs_bind(r, "isidentifier", args, "", NULL)) return false;
    bool good = self.text->length > 0;
    for (size_t at = 0, n; at < self.text->length && good; at += n) {
        uint32_t c = jtext_char(self.text, at, &n);
        utf8proc_category_t k = utf8proc_category((int32_t)c);
        bool begins = c == '_' || is_alpha(c) || k == UTF8PROC_CATEGORY_NL;
        bool follows = k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
                       k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_PC;
        good = begins || (at > 0 && follows);
    }
    *out = jbool(good);
    return jrun_charge(r, self.text->length / 8);
}

/* ---- padding ---- */

static bool pad(jrun *r, jvalue self, const jargs *args, char where, jvalue *out) {
    jvalue a[2];
    size_t n = 1;
    if (!jargs_bind(r, "padding", args, "width! fillchar", a)) return false;
    if (!jis_integer(a[0])) return JFAIL(r, "a width is a whole number, not %s", jtype_name(a[0]));
    bool filled = a[1].type != J_MISSING;
    if (filled && (a[1].type != J_TEXT || a[1].text->chars != 1)) {
        return JFAIL(r, "the fill character is not one character");
    }
    uint32_t fill = filled ? jtext_char(a[1].text, 0, &n) : ' ';
    int64_t width = jinteger(a[0]), chars = (int64_t)self.text->chars;
    if (width > (int64_t)r->max_output) return jrun_fail(r, ERR_RANGE, "a width is too large");
    int64_t all = width > chars ? width - chars : 0;
    int64_t left = where == '<' ? 0 : where == '>' ? all : all / 2 + (all & width & 1);
    uint8_t mark = filled ? jtext_mark(a[1].text, 0) : TEMPLATE_MARKUP;
    jbuf b = {0};
    for (int64_t i = 0; i < all + 1; i++) {
        if (i == left && !jbuf_add_text(r, &b, self.text)) return false;
        if (i < all && !jbuf_add_char(r, &b, fill, mark)) return false;
    }
    return jrun_charge(r, (size_t)all) && give(jbuf_text(r, &b), out);
}

static bool str_center(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return pad(r, self, args, '^', out);
}

static bool str_ljust(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return pad(r, self, args, '<', out);
}

static bool str_rjust(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return pad(r, self, args, '>', out);
}

static bool str_zfill(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[1];
    if (!jargs_bind(r, "zfill", args, "width!", a)) return false;
    if (!jis_integer(a[0])) return JFAIL(r, "a width is a whole number, not %s", jtype_name(a[0]));
    int64_t width = jinteger(a[0]);
    if (width > (int64_t)r->max_output) return jrun_fail(r, ERR_RANGE, "a width is too large");
    const jtext *t = self.text;
    jbuf b = {0};
    size_t head = t->length && (t->bytes[0] == '+' || t->bytes[0] == '-');
    if (!jbuf_add_slice(r, &b, t, 0, head)) return false;
    for (int64_t i = (int64_t)t->chars; i < width; i++) {
        if (!jbuf_add_literal(r, &b, "0") || !jrun_charge(r, 1)) return false;
    }
    return jbuf_add_slice(r, &b, t, head, t->length) && give(jbuf_text(r, &b), out);
}

const jnamed jinja_text_methods_2[] = {
    {"upper", str_upper},
    {"lower", str_lower},
    {"title", str_title},
    {"capitalize", str_capitalize},
    {"swapcase", str_swapcase},
    {"casefold", str_casefold},
    {"isalpha", str_isalpha},
    {"isalnum", str_isalnum},
    {"isdecimal", str_isdecimal},
    {"isdigit", str_isdigit},
    {"isnumeric", str_isnumeric},
    {"isspace", str_isspace},
    {"isascii", str_isascii},
    {"isprintable", str_isprintable},
    {"islower", str_islower},
    {"isupper", str_isupper},
    {"istitle", str_istitle},
    {"isidentifier", str_isidentifier},
    {"center", str_center},
    {"ljust", str_ljust},
    {"rjust", str_rjust},
    {"zfill", str_zfill},
    {NULL, NULL},
};
