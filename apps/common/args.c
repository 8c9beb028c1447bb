/* args.c: see args.h. One pass over argv; each value is converted by the kind in its table entry.
 */
#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LENGTH 40 /* longer words have no suggestion */

/* ---- suggestions -------------------------------------------------------- */

static int min_3(int a, int b, int c) {
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b; both at most NAME_MAX_LENGTH. */
static int edit_distance(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b);
    int d[NAME_MAX_LENGTH + 1][NAME_MAX_LENGTH + 1];
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            int differ = a[i - 1] != b[j - 1];
            d[i][j] = min_3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + differ);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *nearest_name(const char *typed, const char *const *names, int n) {
    const char *best = NULL;
    size_t length = strlen(typed);
    if (length > NAME_MAX_LENGTH) return NULL;
    int least = 1 + (int)length / 3; /* a third of the letters may be wrong */
    for (int i = 0; i < n; i++) {
        if (strlen(names[i]) > NAME_MAX_LENGTH) continue;
        int distance = edit_distance(typed, names[i]);
        bool begins = length >= 3 && strncmp(names[i], typed, length) == 0;
        if (begins && distance > 1) distance = 1;
        if (distance < least || (distance == least && !best)) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}

/* ---- messages ----------------------------------------------------------- */

static int wrong_v(const char *program, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static int wrong_v(const char *program, const char *format, va_list args) {
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry: %s --help\n", program);
    return EXIT_USAGE;
}

int args_wrong(const char *program, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int code = wrong_v(program, format, args);
    va_end(args);
    return code;
}

static arg_result wrong(const arg_table *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static arg_result wrong(const arg_table *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    wrong_v(t->program, format, args);
    va_end(args);
    return ARGS_WRONG;
}

static arg_result unknown(const arg_table *t, const char *typed) {
    const char *names[128];
    char negated[64][NAME_MAX_LENGTH + 1];
    int n = 0, n_negated = 0;
    names[n++] = "--help";
    for (int i = 0; i < t->n && n < 126; i++) {
        const arg_def *d = &t->defs[i];
        if (d->kind == ARG_HEADING) continue;
        names[n++] = d->name;
        if (d->kind == ARG_SWITCH && n_negated < 64) {
            snprintf(negated[n_negated], sizeof negated[0], "--no-%s", d->name + 2);
            names[n++] = negated[n_negated++];
        }
    }
    const char *near = nearest_name(typed, names, n);
    if (near) return wrong(t, "unknown option %s. Did you mean %s?", typed, near);
    return wrong(t, "unknown option %s", typed);
}

/* ---- values ------------------------------------------------------------- */

bool size_parse(const char *text, size_t *out) {
    *out = 0;
    if (!isdigit((unsigned char)text[0])) return false;
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || !isfinite(value)) return false;
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        for (const char *u = units; u <= unit; u++) value *= 1024;
        end++;
        if (*end == 'i') end++;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end || value < 1 || value >= 0x1p60) return false;
    *out = (size_t)value;
    return true;
}

const char *size_text(double bytes, char out[16]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 16, u > 0 && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}

static bool integer_parse(const char *text, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return !errno && end != text && !*end && !isspace((unsigned char)text[0]);
}

static arg_result set_int(const arg_table *t, const arg_def *d, const char *text, void *field) {
    long long v;
    if (!integer_parse(text, &v) || (double)v < d->low || (double)v > d->high)
        return wrong(t, "%s is \"%s\"; it must be a whole number from %.0f to %.0f", d->name, text,
                     d->low, d->high);
    *(int *)field = (int)v;
    return ARGS_OK;
}

static arg_result set_u64(const arg_table *t, const arg_def *d, const char *text, void *field) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || !isdigit((unsigned char)text[0]) || *end)
        return wrong(t, "%s is \"%s\"; it must be a whole number, 0 or more", d->name, text);
    *(uint64_t *)field = v;
    return ARGS_OK;
}

static arg_result set_float(const arg_table *t, const arg_def *d, const char *text, void *field) {
    char *end;
    double v = strtod(text, &end);
    bool number = end != text && !*end && !isspace((unsigned char)text[0]);
    if (!number || !(v >= d->low && v <= d->high))
        return wrong(t, "%s is \"%s\"; it must be a number from %g to %g", d->name, text, d->low,
                     d->high);
    *(float *)field = (float)v;
    return ARGS_OK;
}

static arg_result set_size(const arg_table *t, const arg_def *d, const char *text, void *field) {
    size_t v;
    if (!size_parse(text, &v) || (double)v < d->low)
        return wrong(t, "%s is \"%s\"; it must be a size such as 800M or 12G", d->name, text);
    *(size_t *)field = v;
    return ARGS_OK;
}

static arg_result set_value(const arg_table *t, const arg_def *d, const char *text, void *out) {
    void *field = (char *)out + d->offset;
    switch (d->kind) {
    case ARG_TEXT: *(const char **)field = text; return ARGS_OK;
    case ARG_INT: return set_int(t, d, text, field);
    case ARG_U64: return set_u64(t, d, text, field);
    case ARG_FLOAT: return set_float(t, d, text, field);
    case ARG_SIZE: return set_size(t, d, text, field);
    case ARG_FLAG:
    case ARG_SWITCH:
    case ARG_HEADING: break;
    }
    return ARGS_WRONG;
}

/* ---- parsing ------------------------------------------------------------ */

/* The entry that `typed` (length bytes) names; *negated for --no-NAME. */
static const arg_def *find(const arg_table *t, const char *typed, size_t length, bool *negated) {
    *negated = false;
    for (int i = 0; i < t->n; i++) {
        const arg_def *d = &t->defs[i];
        if (d->kind == ARG_HEADING) continue;
        if (strlen(d->name) == length && !strncmp(d->name, typed, length)) return d;
        bool no = d->kind == ARG_SWITCH && length > 5 && !strncmp(typed, "--no-", 5);
        if (no && strlen(d->name) == length - 3 && !strncmp(d->name + 2, typed + 5, length - 5)) {
            *negated = true;
            return d;
        }
    }
    return NULL;
}

/* argv[*i] is an option; takes its value too where it has one. */
static arg_result parse_option(const arg_table *t, int argc, char **argv, int *i, void *out) {
    const char *typed = argv[*i];
    const char *equals = strchr(typed, '=');
    size_t length = equals ? (size_t)(equals - typed) : strlen(typed);
    bool negated;
    const arg_def *d = find(t, typed, length, &negated);
    if (!d) return unknown(t, typed);
    if (d->kind == ARG_FLAG || d->kind == ARG_SWITCH) {
        if (equals) return wrong(t, "%.*s takes no value", (int)length, typed);
        if (d->kind == ARG_FLAG) *(bool *)((char *)out + d->offset) = true;
        if (d->kind == ARG_SWITCH) *(int *)((char *)out + d->offset) = !negated;
        return ARGS_OK;
    }
    if (equals) return set_value(t, d, equals + 1, out);
    if (*i + 1 >= argc || !strncmp(argv[*i + 1], "--", 2))
        return wrong(t, "%s needs a value: %s %s", d->name, d->name, d->value);
    return set_value(t, d, argv[++*i], out);
}

arg_result args_parse(const arg_table *t, int argc, char **argv, void *out, arg_list *rest) {
    bool options_end = false;
    rest->n = 0;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (options_end || a[0] != '-' || !a[1]) {
            if (rest->n == ARGS_REST_MAX)
                return wrong(t, "more than %d words; put quotes around the text", ARGS_REST_MAX);
            rest->item[rest->n++] = a;
        } else if (!strcmp(a, "--")) {
            options_end = true;
        } else if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
            return ARGS_HELP;
        } else {
            arg_result r = parse_option(t, argc, argv, &i, out);
            if (r != ARGS_OK) return r;
        }
    }
    return ARGS_OK;
}

void args_help(const arg_table *t) {
    for (int i = 0; i < t->n; i++) {
        const arg_def *d = &t->defs[i];
        char left[64];
        if (!d->help) continue;
        if (d->kind == ARG_HEADING) {
            printf("\n%s\n", d->help);
            continue;
        }
        if (d->kind == ARG_SWITCH)
            snprintf(left, sizeof left, "%s, --no-%s", d->name, d->name + 2);
        else
            snprintf(left, sizeof left, "%s%s%s", d->name, d->value ? " " : "",
                     d->value ? d->value : "");
        printf("  %-28s %s\n", left, d->help);
    }
    printf("  %-28s %s\n", "--help", "this text");
}
