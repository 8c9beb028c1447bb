/* chat_line.c: see chat_line.h.
 *
 * libedit reads through get_char, which decodes UTF-8, waits for signals and input at once, and
 * takes pastes out (the terminal puts ESC[200~ and ESC[201~ around them). A key that no terminal
 * sends (KEY_PASTE) then tells libedit to insert what was pasted. */
#include "chat_line.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "../common/model.h"
#include "screen.h"

#define HISTORY_LINES 1000
#define QUEUE_MAX     16
#define PASTES_MAX    32
#define PASTE_MAX     ((size_t)16 << 20)
#define PASTE_SHOWN   400 /* bytes and ... */
#define PASTE_LINES   8   /* ... lines that are shown as they are */
#define KEY_PASTE     0x1c
#define KEY_SUBMIT    0x1d

typedef struct paste {
    char *text;     /* owned */
    char label[64]; /* what stands in the line instead; "" when the text itself does */
} paste;

struct chat_line {
    EditLine *el; /* NULL: plain lines */
    History *history;
    const char *history_path; /* owned */
    const char *const *words;
    int n_words;
    const char *prompt;
    bool terminal; /* standard input is one */
    struct termios usual;
    unsigned char queue[QUEUE_MAX]; /* bytes that were read ahead */
    int n_queue;
    paste pastes[PASTES_MAX]; /* of the line being edited */
    int n_pastes;
    bool ended;
};

static volatile sig_atomic_t resized;
static struct termios usual_terminal; /* for last_words, fixed by line_open */

static void on_resize(int signal_number) {
    (void)signal_number;
    resized = 1;
}

/* In a signal handler: only what may be called there. */
static void last_words(void) {
    static const char end[] = "\033[0m\n";
    tcsetattr(STDIN_FILENO, TCSANOW, &usual_terminal);
    ssize_t ignored = write(STDOUT_FILENO, end, sizeof end - 1);
    (void)ignored;
}

/* ---- bytes from the terminal ---- */

/* 1: there is something to read; 0: Ctrl-C. Signals arrive only while waiting. */
static int wait_byte(EditLine *el) {
    sigset_t three, before;
    sigemptyset(&three);
    sigaddset(&three, SIGINT);
    sigaddset(&three, SIGTERM);
    sigaddset(&three, SIGWINCH);
    sigprocmask(SIG_BLOCK, &three, &before);
    int ready = 0;
    while (!interrupted() && !ready) {
        if (resized) {
            resized = 0;
            el_resize(el);
            fputs("\r\033[J", stdout); /* the line as it was drawn for the other width */
            fflush(stdout);
            el_set(el, EL_REFRESH);
        }
        fd_set set;
        FD_ZERO(&set);
        FD_SET(STDIN_FILENO, &set);
        if (pselect(STDIN_FILENO + 1, &set, NULL, NULL, NULL, &before) > 0) ready = 1;
    }
    sigprocmask(SIG_SETMASK, &before, NULL); /* a Ctrl-C that came together with input counts */
    return !interrupted() && ready;
}

/* 1: a byte; 0: the end; -1: Ctrl-C. */
static int read_byte(chat_line *l, EditLine *el, unsigned char *out) {
    if (l->n_queue) {
        *out = l->queue[0];
        memmove(l->queue, l->queue + 1, (size_t)--l->n_queue);
        return 1;
    }
    for (;;) {
        if (!wait_byte(el)) return -1;
        ssize_t n = read(STDIN_FILENO, out, 1);
        if (n == 1) return 1;
        if (n == 0 || (errno != EINTR && errno != EAGAIN)) return 0;
    }
}

/* The next byte if it comes at once: the keys of an escape sequence do. */
static bool soon_byte(chat_line *l, unsigned char *out) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    if (l->n_queue || poll(&p, 1, 50) <= 0) return false;
    return read(STDIN_FILENO, out, 1) == 1;
}

/* ---- pastes ---- */

static void forget_pastes(chat_line *l) {
    while (l->n_pastes) free(l->pastes[--l->n_pastes].text);
}

/* Reads up to the end of the paste. What is no text is left out. NULL without memory. */
static char *read_paste(chat_line *l, EditLine *el) {
    static const char end[] = "\033[201~";
    size_t n = 0, room = 0, matched = 0;
    char *text = NULL;
    unsigned char c, last = 0;
    while (matched < sizeof end - 1 && read_byte(l, el, &c) == 1) {
        matched = c == (unsigned char)end[matched] ? matched + 1 : c == 27;
        bool again = c == '\n' && last == '\r';
        last = c;
        if (matched || again || n >= PASTE_MAX) continue;
        if (c == '\r') c = '\n';
        if (c == '\t' || c == '\n' || (c >= 32 && c != 127)) {
            if (n + 2 > room) {
                char *grown = realloc(text, room = 2 * room + 4096);
                if (!grown) break;
                text = grown;
            }
            text[n++] = (char)c;
        }
    }
    while (n && text[n - 1] == '\n') n--; /* a copied line ends with one: that is no Enter */
    if (!text) text = malloc(1);
    if (text) text[n] = '\0';
    return text;
}

static void take_paste(chat_line *l, EditLine *el) {
    char *text = read_paste(l, el);
    if (!text || l->n_pastes == PASTES_MAX) {
        free(text);
        return;
    }
    int lines = 1;
    for (const char *p = text; (p = strchr(p, '\n')); p++) lines++;
    paste *p = &l->pastes[l->n_pastes++];
    *p = (paste){.text = text};
    if (strlen(text) <= PASTE_SHOWN && lines <= PASTE_LINES) return;
    char number[16] = "";
    if (l->n_pastes > 1) snprintf(number, sizeof number, " (%d)", l->n_pastes);
    if (lines > 1)
        snprintf(p->label, sizeof p->label, "[pasted %d lines%s]", lines, number);
    else
        snprintf(p->label, sizeof p->label, "[pasted %zu characters%s]", strlen(text), number);
}

static unsigned char on_paste(EditLine *el, int key) {
    chat_line *l;
    (void)key;
    el_get(el, EL_CLIENTDATA, &l);
    if (!l->n_pastes) return CC_ERROR;
    paste *p = &l->pastes[l->n_pastes - 1];
    return el_insertstr(el, p->label[0] ? p->label : p->text) ? CC_ERROR : CC_REFRESH;
}

/* The line with the labels replaced by what was pasted. */
static char *expand(const chat_line *l, const char *line) {
    char *text = strdup(line);
    for (int i = 0; text && i < l->n_pastes; i++) {
        const paste *p = &l->pastes[i];
        char *at = p->label[0] ? strstr(text, p->label) : NULL;
        if (!at) continue;
        size_t before = (size_t)(at - text), size = strlen(text) + strlen(p->text) + 1;
        char *longer = malloc(size);
        if (longer)
            snprintf(longer, size, "%.*s%s%s", (int)before, text, p->text, at + strlen(p->label));
        free(text);
        text = longer;
    }
    return text;
}

/* ---- keys ---- */

/* After ESC: a paste, or what libedit should see of the sequence. */
static int after_escape(chat_line *l, EditLine *el, wchar_t *out) {
    static const char begin[] = "[200~";
    unsigned char seen[8];
    int n = 0;
    *out = 27;
    while (n < 5 && soon_byte(l, &seen[n])) {
        n++;
        if (seen[n - 1] != (unsigned char)begin[n - 1]) break;
    }
    if (n == 5 && !memcmp(seen, begin, 5)) {
        take_paste(l, el);
        *out = KEY_PASTE;
        return 1;
    }
    memcpy(l->queue, seen, (size_t)n);
    l->n_queue = n;
    return 1;
}

static int get_char(EditLine *el, wchar_t *out) {
    chat_line *l;
    unsigned char c, next;
    el_get(el, EL_CLIENTDATA, &l);
    int got = read_byte(l, el, &c);
    if (got < 0) errno = EINTR;
    if (got <= 0) {
        l->ended = got == 0;
        return got;
    }
    if (c == 27 && !l->n_queue) return after_escape(l, el, out);
    int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
    unsigned long point = more == 3 ? c & 7u : more == 2 ? c & 15u : more == 1 ? c & 31u : c;
    for (int i = 0; i < more; i++) {
        got = read_byte(l, el, &next);
        if (got <= 0) return got;
        point = point << 6 | (next & 63u);
    }
    *out = point < 0x110000 && (c < 0x80 || more) ? (wchar_t)point : L'?';
    return 1;
}

static bool fence_open(const char *text, size_t length) {
    bool open = false;
    for (size_t i = 0; i < length;) {
        const char *end = memchr(text + i, '\n', length - i);
        size_t n = end ? (size_t)(end - text) - i : length - i;
        if (n >= 3 && !memcmp(text + i, "```", 3)) open = !open;
        i += n + 1;
    }
    return open;
}

static unsigned char on_newline(EditLine *el, int key) {
    (void)key;
    return el_insertstr(el, "\n") ? CC_ERROR : CC_REFRESH;
}

static unsigned char on_enter(EditLine *el, int key) {
    const LineInfo *i = el_line(el);
    size_t length = (size_t)(i->lastchar - i->buffer);
    bool at_end = i->cursor == i->lastchar;
    if (at_end && length && i->lastchar[-1] == '\\') {
        el_deletestr(el, 1);
        return on_newline(el, key);
    }
    if (fence_open(i->buffer, length)) return on_newline(el, key);
    static const char submit[] = {KEY_SUBMIT, '\0'};
    el_push(el, submit); /* libedit's own Enter, which also moves below the last line */
    return CC_NORM;
}

static unsigned char on_tab(EditLine *el, int key) {
    chat_line *l;
    (void)key;
    el_get(el, EL_CLIENTDATA, &l);
    const LineInfo *i = el_line(el);
    size_t n = (size_t)(i->cursor - i->buffer), common = 0;
    const char *found = NULL;
    if (!n || i->buffer[0] != '/') return CC_REFRESH_BEEP;
    for (int w = 0; w < l->n_words; w++) {
        if (strncmp(l->words[w], i->buffer, n)) continue;
        size_t k = 0;
        while (found && found[k] && found[k] == l->words[w][k]) k++;
        common = found ? (k < common ? k : common) : strlen(l->words[w]);
        if (!found) found = l->words[w];
    }
    if (!found || common < n) return CC_REFRESH_BEEP;
    char rest[64];
    bool whole = found[common] == '\0' && common > n;
    snprintf(rest, sizeof rest, "%.*s%s", (int)(common - n), found + n, whole ? " " : "");
    return rest[0] && !el_insertstr(el, rest) ? CC_REFRESH : CC_REFRESH_BEEP;
}

static char *show_prompt(EditLine *el) {
    chat_line *l;
    el_get(el, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

/* ---- life ---- */

static void open_history(chat_line *l) {
    HistEvent e;
    l->history = history_init();
    if (!l->history) return;
    history(l->history, &e, H_SETSIZE, HISTORY_LINES);
    history(l->history, &e, H_SETUNIQUE, 1);
    if (l->history_path) history(l->history, &e, H_LOAD, l->history_path);
    el_set(l->el, EL_HIST, history, l->history);
}

static void save_history(chat_line *l, const char *text) {
    HistEvent e;
    if (!l->history || strlen(text) > 8192) return;
    history(l->history, &e, H_ENTER, text);
    int fd = l->history_path ? open(l->history_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    fchmod(fd, 0600);
    close(fd);
    history(l->history, &e, H_SAVE, l->history_path);
}

static void open_editor(chat_line *l) {
    static const char *const keys[][2] = {
        {"^M", "fc-enter"},      {"^J", "fc-enter"},
        {"\\e^M", "fc-newline"}, {"\\e^J", "fc-newline"},
        {"^I", "fc-tab"},        {"\\034", "fc-paste"},
        {"\\035", "ed-newline"}, {"^R", "em-inc-search-prev"},
    };
    l->el = el_init("flashchat", stdin, stdout, stderr);
    if (!l->el) return;
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_SIGNAL, 0);
    el_set(l->el, EL_PROMPT_ESC, show_prompt, '\1');
    el_set(l->el, EL_ADDFN, "fc-enter", "send, or a new line in an open block", on_enter);
    el_set(l->el, EL_ADDFN, "fc-newline", "a new line", on_newline);
    el_set(l->el, EL_ADDFN, "fc-tab", "complete a command", on_tab);
    el_set(l->el, EL_ADDFN, "fc-paste", "insert what was pasted", on_paste);
    el_source(l->el, NULL);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        el_set(l->el, EL_BIND, keys[i][0], keys[i][1], NULL);
    el_set(l->el, EL_GETCFN, get_char);
    open_history(l);
    struct sigaction action = {.sa_handler = on_resize, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
}

chat_line *line_open(const char *history, const char *const *words, int n, bool plain) {
    chat_line *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->history_path = history ? strdup(history) : NULL;
    l->words = words;
    l->n_words = n;
    l->terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &l->usual) == 0;
    if (l->terminal) {
        usual_terminal = l->usual;
        interrupt_last_words(last_words);
    }
    if (l->terminal && !plain) open_editor(l);
    return l;
}

void line_close(chat_line *l) {
    if (!l) return;
    line_quiet(l, false);
    interrupt_last_words(NULL);
    if (l->el) el_end(l->el);
    if (l->history) history_end(l->history);
    if (l->el) signal(SIGWINCH, SIG_DFL);
    forget_pastes(l);
    free((char *)(uintptr_t)l->history_path);
    free(l);
}

void line_quiet(chat_line *l, bool on) {
    if (!l->terminal) return;
    struct termios t = l->usual;
    if (on) t.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &t);
}

/* ---- reading ---- */

static line_result read_edited(chat_line *l, char **text) {
    int n = 0;
    l->ended = false;
    forget_pastes(l);
    resized = 0;
    el_resize(l->el);             /* the window may have changed during the answer */
    fputs("\033[?2004h", stdout); /* pastes are marked as such */
    fflush(stdout);
    const char *line = el_gets(l->el, &n);
    line_quiet(l, true); /* until the next line: no key of those typed meanwhile is lost */
    const LineInfo *i = el_line(l->el);
    bool typed = i->lastchar > i->buffer;
    fputs("\033[?2004l", stdout);
    fflush(stdout);
    if (!line || n <= 0) {
        if (!l->ended && interrupted()) {
            fputs("\n", stdout);
            el_reset(l->el);
            return typed ? LINE_DROPPED : LINE_INTERRUPT;
        }
        fputs("\n", stdout);
        return LINE_END;
    }
    char *copy = strdup(line);
    if (!copy) return LINE_END;
    size_t length = strlen(copy);
    while (length && copy[length - 1] == '\n') copy[--length] = '\0';
    *text = expand(l, copy);
    if (*text && **text) save_history(l, *text);
    free(copy);
    return *text ? LINE_OK : LINE_END;
}

static ssize_t plain_line(chat_line *l, const char *prompt, char **line, size_t *capacity) {
    if (l->terminal) {
        fputs(prompt, stdout);
        fflush(stdout);
        if (interrupt_wait_input()) {
            fputs("\n", stdout);
            return -2;
        }
    }
    ssize_t n = getline(line, capacity, stdin);
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r')) (*line)[--n] = '\0';
    return n;
}

static line_result read_plain(chat_line *l, char **text) {
    char *line = NULL, *all = NULL;
    size_t capacity = 0, length = 0;
    line_result result = LINE_OK;
    for (bool more = true; more;) {
        ssize_t n = plain_line(l, all ? "  " : l->prompt, &line, &capacity);
        if (n < 0 && all && n != -2) break; /* the end closes what is open */
        if (n < 0) result = n == -2 ? (all ? LINE_DROPPED : LINE_INTERRUPT) : LINE_END;
        char *grown = n < 0 ? NULL : realloc(all, length + (size_t)n + 2);
        if (!grown) {
            if (n >= 0) result = LINE_END;
            break;
        }
        all = grown;
        if (length) all[length++] = '\n';
        memcpy(all + length, line, (size_t)n + 1);
        length += (size_t)n;
        more = n > 0 && all[length - 1] == '\\';
        if (more) all[--length] = '\0';
        more = more || fence_open(all, length);
    }
    free(line);
    if (result != LINE_OK) {
        free(all);
        all = NULL;
    }
    *text = all;
    return result;
}

line_result line_read(chat_line *l, const char *prompt, char **text) {
    *text = NULL;
    l->prompt = prompt;
    if (l->el) return read_edited(l, text); /* goes from quiet to its own mode: no key is lost */
    line_quiet(l, false);
    return read_plain(l, text);
}
