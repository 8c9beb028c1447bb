/* screen.c: see screen.h. */
#include "screen.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

#include "config_table.h"

static bool colours_on; /* fixed by screen_colours at the start */

int screen_width(void) {
    struct winsize w;
    int columns = 80;
    int64_t given;
    const char *set = getenv("FLASHCHAT_WIDTH");
    if (set && value_int(set, &given) && given > 0 && given < 1000)
        columns = (int)given;
    else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        columns = w.ws_col;
    return columns < 20 ? 20 : columns;
}

/* The character at p: its bytes (at least 1) and columns. */
static size_t character(const char *p, size_t left, int *columns) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)left, &c);
    if (n <= 0) {
        *columns = 1;
        return 1;
    }
    *columns = utf8proc_charwidth(c);
    return (size_t)n;
}

int text_width(const char *text) {
    int total = 0, columns;
    for (size_t left = strlen(text); left;) {
        size_t n = character(text, left, &columns);
        total += columns;
        text += n;
        left -= n;
    }
    return total;
}

size_t text_fit(const char *text, int columns) {
    size_t done = 0, length = strlen(text);
    int wide;
    while (done < length) {
        size_t n = character(text + done, length - done, &wide);
        if (wide > columns) break;
        columns -= wide;
        done += n;
    }
    return done;
}

void print_wrapped(FILE *f, const char *first, const char *text) {
    print_wrapped_after(f, 0, first, text);
}

void print_wrapped_after(FILE *f, int lead, const char *first, const char *text) {
    int indent = lead + text_width(first), room = screen_width() - indent;
    if (room < 10) room = 10;
    fputs(first, f);
    while (*text) {
        size_t n = strcspn(text, "\n"), fit = text_fit(text, room);
        bool ends = fit >= n;
        if (ends) fit = n;
        size_t cut = fit;
        if (!ends) {
            while (cut > 0 && text[cut] != ' ') cut--;
            if (cut == 0) cut = fit ? fit : 1;
        }
        fprintf(f, "%.*s\n", (int)cut, text);
        text += cut;
        if (ends && *text == '\n')
            text++;
        else
            while (*text == ' ') text++;
        if (*text) fprintf(f, "%*s", indent, "");
    }
}

void say_error(const char *text) {
    fflush(stdout);
    if (isatty(STDERR_FILENO))
        print_wrapped(stderr, "", text);
    else
        fprintf(stderr, "%s\n", text);
}

void print_cell(FILE *f, const char *text, int width) {
    int wide = text_width(text);
    if (wide <= width) {
        fprintf(f, "%s%*s", text, width - wide, "");
        return;
    }
    size_t n = text_fit(text, width - 3);
    fprintf(f, "%.*s...", (int)n, text);
}

char *human_bytes(char *out, uint64_t bytes) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 999.5 && u < 5) v /= 1000, u++;
    snprintf(out, 16, u > 1 && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

char *human_memory(char *out, uint64_t bytes) {
    double gib = (double)bytes / (1024.0 * 1024 * 1024);
    if (gib >= 0.95)
        snprintf(out, 16, gib < 99.95 ? "%.1f GiB" : "%.0f GiB", gib);
    else
        snprintf(out, 16, "%.0f MiB", gib * 1024);
    return out;
}

char *human_time(char *out, double seconds) {
    if (!(seconds >= 0) || seconds > 1e7)
        snprintf(out, 24, "unknown");
    else if (seconds < 90)
        snprintf(out, 24, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(out, 24, "%.0f min", seconds / 60);
    else
        snprintf(out, 24, "%d h %d min", (int)(seconds / 3600), (int)(seconds / 60) % 60);
    return out;
}

void screen_colours(const char *setting) {
    const char *term = getenv("TERM"), *none = getenv("NO_COLOR");
    if (!strcmp(setting, "on"))
        colours_on = true;
    else if (!strcmp(setting, "off"))
        colours_on = false;
    else
        colours_on = isatty(STDOUT_FILENO) && !(none && *none) && term && strcmp(term, "dumb");
}

bool screen_has_colours(void) { return colours_on; }

const char *style(screen_style s) {
    static const char *const codes[] = {"\033[0m",  "\033[1m",  "\033[2m",
                                        "\033[32m", "\033[33m", "\033[31m"};
    return colours_on ? codes[s] : "";
}

/* ---- asking ---- */

bool ask_line(const char *prompt, char *out, size_t size) {
    out[0] = '\0';
    fputs(prompt, stdout);
    fflush(stdout);
    if (!fgets(out, (int)size, stdin)) {
        fputc('\n', stdout);
        return false;
    }
    size_t n = strlen(out);
    if (n && out[n - 1] == '\n') {
        out[--n] = '\0';
    } else { /* longer than asked for: the rest of the line is not an answer */
        for (int c = getchar(); c != EOF && c != '\n';) c = getchar();
    }
    while (n && (out[n - 1] == '\r' || out[n - 1] == ' ')) out[--n] = '\0';
    if (!isatty(STDIN_FILENO)) printf("%s\n", out); /* so that a transcript reads like a screen */
    return true;
}

/* Single keys: the terminal's line editing is off for the time of one read, from before the prompt
 * is seen, so that what is typed at once is not echoed by the terminal as well. */
static int terminal_key(const char *prompt) {
    struct termios before, raw;
    if (tcgetattr(STDIN_FILENO, &before) != 0) return -1;
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    fputs(prompt, stdout);
    fflush(stdout);
    unsigned char bytes[16];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes); /* a function key comes as several bytes */
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    if (n <= 0 || bytes[0] == 3 || bytes[0] == 4) return -1;
    if (n == 3 && bytes[0] == 27 && (bytes[1] == '[' || bytes[1] == 'O')) {
        if (bytes[2] == 'A') return KEY_UP;
        if (bytes[2] == 'B') return KEY_DOWN;
    }
    return n > 1 && bytes[0] == 27 ? 27 : bytes[0];
}

int ask_key(const char *prompt) {
    if (isatty(STDIN_FILENO)) {
        int key = terminal_key(prompt);
        if (key >= 32 && key < 127) putchar(key);
        putchar('\n');
        return key == '\r' ? '\n' : key;
    }
    char line[256];
    if (!ask_line(prompt, line, sizeof line)) return -1;
    return line[0] ? (unsigned char)line[0] : '\n';
}

static void draw_list(const char *const *items, int n, int at) {
    for (int i = 0; i < n; i++) {
        int fit = (int)text_fit(items[i], screen_width() - 9);
        printf("\r\033[K %s %2d  %.*s\n", i == at ? ">" : " ", i + 1, fit, items[i]);
    }
}

static int typed_list(const char *const *items, int n) {
    char typed[64];
    int64_t pick;
    for (int i = 0; i < n; i++) {
        char first[16];
        snprintf(first, sizeof first, "  %2d  ", i + 1);
        print_wrapped(stdout, first, items[i]);
    }
    for (int tries = 0; tries < 5; tries++) {
        if (!ask_line("  number, or empty line to go back: ", typed, sizeof typed)) return -2;
        if (!typed[0]) return -1;
        if (value_int(typed, &pick) && pick >= 1 && pick <= n) return (int)pick - 1;
        printf("  Please type a number from 1 to %d.\n", n);
    }
    return -1;
}

int ask_list(const char *const *items, int n, int at) {
    const char *term = getenv("TERM");
    bool draws = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb");
    if (!draws || n > 40) return typed_list(items, n);
    for (;;) {
        draw_list(items, n, at);
        int key = ask_key("  up and down choose, Enter opens, q goes back : ");
        if (key == '\n') return at;
        if (key < 0) return -2;
        if (key == 'q' || key == 'x' || key == 27) return -1;
        if (key == KEY_UP) at = at > 0 ? at - 1 : n - 1;
        if (key == KEY_DOWN) at = at + 1 < n ? at + 1 : 0;
        if (key >= '1' && key <= '9' && key - '1' < n) at = key - '1';
        printf("\033[%dA", n + 1);
    }
}

bool ask_consent(const char *yes_label) {
    char prompt[160];
    snprintf(prompt, sizeof prompt, "  Y  %s      x  cancel : ", yes_label);
    for (int tries = 0; tries < 5; tries++) {
        int key = ask_key(prompt);
        if (key == 'y' || key == 'Y') return true;
        if (key < 0 || key == 'x' || key == 'X' || key == 'n' || key == 'N' || key == 'q')
            return false;
        puts("  Please type Y or x.");
    }
    return false;
}
