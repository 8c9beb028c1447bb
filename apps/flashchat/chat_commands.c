/* chat_commands.c: what begins with / in a chat. One table; /help and Tab read it too. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "chat.h"
#include "files.h"
#include "models.h"
#include "product.h"
#include "screen.h"

#define FILE_BYTES_MAX ((size_t)4 << 20)

typedef struct chat_word {
    const char *name, *rest, *help;
    void (*run)(conversation *k, const char *rest);
} chat_word;

/* ---- the conversation ---- */

static void run_new(conversation *k, const char *rest) {
    (void)rest;
    chat_keep(k, true);
    chat_begin(k);
    view_note("A new conversation.");
}

static void run_resume(conversation *k, const char *rest) {
    const char *text;
    if (!chat_resume(k, rest) || !(text = chat_last_answer(k))) return;
    if (view_mode_of(k->view) != VIEW_RAW) view_markdown(k->view, text, strlen(text));
}

static void run_sessions(conversation *k, const char *rest) {
    (void)k, (void)rest;
    sessions_show();
}

static void run_system(conversation *k, const char *rest) {
    if (!*rest) {
        print_wrapped(stdout, "", k->system ? k->system : "There are no instructions.");
        if (k->system) puts("");
        view_note("/system TEXT begins a new conversation with other instructions, /system off "
                  "one without.");
        return;
    }
    chat_keep(k, true);
    free(k->system);
    k->system = strcmp(rest, "off") ? strdup(rest) : NULL;
    chat_begin(k);
    view_note(k->system ? "A new conversation with these instructions."
                        : "A new conversation without instructions.");
}

static void run_retry(conversation *k, const char *rest) {
    (void)rest;
    char *text = k->unanswered ? strdup(k->unanswered) : chat_take_back(k);
    if (!text) {
        puts("Nothing was asked yet.");
        return;
    }
    k->retries++;
    if (k->args->a.s.temperature == 0 && k->retries == 1)
        view_note("(with temperature 0 the answer is likely the same; --temperature 0.7 varies)");
    chat_ask(k, text);
    free(text);
}

static void run_undo(conversation *k, const char *rest) {
    (void)rest;
    char *text = chat_take_back(k);
    puts(text ? "The last question and its answer are forgotten." : "Nothing was asked yet.");
    if (text) chat_keep(k, false);
    free(text);
}

static void run_save(conversation *k, const char *rest) {
    if (!*rest) {
        view_note("Where to? /save FILE writes the conversation as Markdown.");
        return;
    }
    err e = kept_export(rest, k->messages);
    printf("%s%s\n", e.code ? "" : "Written to ", e.code ? e.text : rest);
}

static void run_quit(conversation *k, const char *rest) {
    (void)rest;
    k->leaving = true;
}

/* ---- thinking, models ---- */

static void run_think(conversation *k, const char *rest) {
    view_thinking t = view_thinking_of(k->view);
    static const char *const shown[] = {"shown", "folded", "hidden"};
    bool known = fm_chat_knows(k->chat, "enable_thinking");
    if (!strcmp(rest, "on") || !strcmp(rest, "off")) {
        k->thinks = !strcmp(rest, "on");
        chat_recall(k);
        if (!known) view_note("(this model cannot choose whether to think)");
    } else if (!strcmp(rest, "show")) {
        view_thinking_set(k->view, THINKING_DIM);
    } else if (!strcmp(rest, "fold")) {
        view_thinking_set(k->view, THINKING_FOLD);
    } else if (!strcmp(rest, "hide")) {
        view_thinking_set(k->view, THINKING_HIDE);
    } else if (*rest) {
        view_note("/think takes on, off, show, fold or hide.");
        return;
    }
    t = view_thinking_of(k->view);
    printf("Thinking is %s, and %s.\n", k->thinks ? "on" : "off", shown[t]);
}

static void run_model(conversation *k, const char *rest) {
    fm_model m;
    fm_model_get(k->engine, &m);
    if (!*rest) {
        char line[MODEL_PATH_MAX + 100];
        snprintf(line, sizeof line, "%s (%s, %d layers, %d of %d experts, window %d tokens)",
                 k->dir, m.architecture, m.layers, m.experts_per_token, m.experts, m.context);
        print_wrapped(stdout, "", line);
        view_note("/model NAME goes on with another one; `flashchat models` lists them.");
        return;
    }
    char word[] = "chat", *words[] = {word, NULL}, dir[PATH_TEXT_MAX] = "";
    const model_entry *entry;
    product p;
    int argc = 1, rc;
    if (!product_open_plain(&p, "chat", &argc, words, &rc)) return;
    err e = model_resolve(p.c, &p.models, rest, dir, &entry);
    product_close(&p);
    if (e.code) {
        printf("%s\n", e.text);
        return;
    }
    model_args wanted = k->args->a.m;
    wanted.model = dir;
    chat_keep(k, true);
    if (chat_open_model(k, &wanted))
        view_note("Going on with %s. What was said so far is read at your next question.", rest);
}

/* ---- files, clipboard, editor ---- */

/* The first word, which may stand in quotes; *rest is what follows. */
static void first_word(const char *text, char *out, size_t size, const char **rest) {
    char quote = *text == '"' || *text == '\'' ? *text++ : ' ';
    size_t n = 0;
    while (text[n] && text[n] != quote) n++;
    snprintf(out, size, "%.*s", (int)n, text);
    text += n;
    if (*text == quote) text++;
    *rest = text + strspn(text, " ");
}

static void run_file(conversation *k, const char *rest) {
    char path[PATH_TEXT_MAX], full[PATH_TEXT_MAX], *bytes, size[16];
    size_t length;
    const char *question;
    first_word(rest, path, sizeof path, &question);
    if (!*path) {
        view_note("Which one? /file PATH, and what to ask about it, now or in your next message.");
        return;
    }
    err e = path_expand(full, path);
    if (!e.code) e = json_read_text(full, FILE_BYTES_MAX, &bytes, &length);
    if (e.code) {
        printf("%s\n", e.text);
        return;
    }
    json_t *text = json_stringn(bytes, length);
    const char *fence = strstr(bytes, "```") ? "~~~~" : "```";
    size_t before = k->attached ? strlen(k->attached) : 0, n = before + length + strlen(path) + 64;
    char *all = text && strlen(bytes) == length ? malloc(n) : NULL;
    if (all) {
        snprintf(all, n, "%s%sThe file %s:\n%s\n%s\n%s", before ? k->attached : "",
                 before ? "\n\n" : "", path, fence, bytes, fence);
        free(k->attached);
        k->attached = all;
    } else {
        printf("%s is no text file (UTF-8).\n", path);
    }
    json_decref(text);
    free(bytes);
    if (all && *question)
        chat_ask(k, question);
    else if (all)
        view_note("%s (%s) goes with your next message.", path, human_bytes(size, length));
}

/* Runs a program with the file at fd 0 (-1: our own); true when it ended well. */
static bool run_program(char *const *argv, int input) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (input >= 0) dup2(input, 0);
        execvp(argv[0], argv);
        _exit(127);
    }
    int state = 0;
    if (child < 0) return false;
    while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

/* A file of its owner only with this text, open for reading at its start; -1 when that fails. path
 * gets its name. */
static int temporary(const char *text, char *path, size_t size) {
    const char *dir = getenv("TMPDIR");
    snprintf(path, size, "%s/flashchat-XXXXXX.md", dir && *dir ? dir : "/tmp");
    int fd = mkstemps(path, 3);
    size_t n = strlen(text);
    if (fd >= 0 && (write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        unlink(path);
        fd = -1;
    }
    return fd;
}

static bool is_set(const char *name) {
    const char *value = getenv(name);
    return value && *value;
}

static bool copy_by_program(const char *text) {
    char sh[] = "/bin/sh", c[] = "-c", path[PATH_TEXT_MAX];
    char wayland[] = "exec wl-copy 2>/dev/null", mac[] = "exec pbcopy";
    char x11[] = "xclip -selection clipboard 2>/dev/null || xsel --clipboard --input 2>/dev/null";
    char *which = is_set("WAYLAND_DISPLAY")          ? wayland
                  : is_set("DISPLAY")                ? x11
                  : !access("/usr/bin/pbcopy", X_OK) ? mac
                                                     : NULL;
    int fd = which ? temporary(text, path, sizeof path) : -1;
    if (fd < 0) return false;
    char *argv[] = {sh, c, which, NULL};
    bool good = run_program(argv, fd);
    close(fd);
    unlink(path);
    return good;
}

/* OSC 52: the terminal itself puts it into the clipboard, also through ssh. */
static bool copy_by_terminal(const char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = strlen(text);
    if (!isatty(STDOUT_FILENO)) return false;
    fputs("\033]52;c;", stdout);
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = 0;
        for (size_t j = 0; j < 3; j++) v = v << 8 | (i + j < n ? (unsigned char)text[i + j] : 0u);
        for (size_t j = 0; j < 4; j++) putchar(i + j <= n ? digits[v >> (18 - 6 * j) & 63] : '=');
    }
    fputs("\a", stdout);
    fflush(stdout);
    return true;
}

static void run_copy(conversation *k, const char *rest) {
    (void)rest;
    const char *text = chat_last_answer(k);
    if (!text)
        puts("There is no answer to copy yet.");
    else if (copy_by_program(text))
        view_note("The last answer is in the clipboard.");
    else if (copy_by_terminal(text))
        view_note("The last answer was given to the terminal's clipboard.");
    else
        view_note("There is no clipboard here; /save FILE writes the conversation to a file.");
}

/* What is in the file after the editor; NULL after a message. */
static char *edited(conversation *k, const char *text) {
    const char *editor = getenv("VISUAL");
    if (!editor || !*editor) editor = getenv("EDITOR");
    if (!editor || !*editor) editor = "vi";
    char path[PATH_TEXT_MAX], line[PATH_TEXT_MAX], *bytes = NULL;
    char sh[] = "/bin/sh", c[] = "-c";
    size_t length;
    snprintf(line, sizeof line, "%.4000s \"$1\"", editor);
    int fd = temporary(text, path, sizeof path);
    if (fd < 0) {
        view_note("The temporary file for the editor cannot be written.");
        return NULL;
    }
    close(fd);
    char *argv[] = {sh, c, line, sh, path, NULL};
    line_quiet(k->line, false);
    bool good = run_program(argv, -1);
    line_quiet(k->line, true);
    err e = good ? json_read_text(path, FILE_BYTES_MAX, &bytes, &length) : err_none();
    if (!good)
        printf("The editor (%s) did not end well; nothing was changed. $EDITOR names another.\n",
               editor);
    else if (e.code)
        printf("%s\n", e.text);
    unlink(path);
    for (size_t n = bytes ? strlen(bytes) : 0; n && strchr(" \n\r\t", bytes[n - 1]);)
        bytes[--n] = '\0';
    return bytes;
}

static void run_edit(conversation *k, const char *rest) {
    (void)rest;
    const json_t *messages = k->messages;
    const char *last = k->unanswered;
    for (size_t i = json_array_size(messages); !last && i-- > 0;) {
        const json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        if (role && !strcmp(role, "user")) last = json_string_value(json_object_get(m, "content"));
    }
    char *text = edited(k, last ? last : "");
    if (text && !*text) {
        puts("An empty message: nothing was asked.");
    } else if (text) {
        if (last && !k->unanswered) free(chat_take_back(k));
        print_wrapped(stdout, "> ", text);
        chat_ask(k, text);
    }
    free(text);
}

/* ---- tools, figures, help ---- */

static void run_tools_word(conversation *k, const char *rest) {
    bool on = !strcmp(rest, "on");
    if (on && !k->tools) {
        err e = tools_open(".", &k->tools);
        if (e.code) {
            printf("%s\n", e.text);
            return;
        }
    }
    if (on || !strcmp(rest, "off")) {
        k->tools_on = on;
    } else if (!strcmp(rest, "forget") && k->tools) {
        tools_forget(k->tools);
    } else if (*rest) {
        view_note("/tools takes on, off or forget (what is not asked about).");
        return;
    }
    print_wrapped(
        stdout, "",
        k->tools_on ? "The model can ask for: shell, read_file, write_file, list_directory."
                    : "Tools are off. /tools on lets the model ask for shell commands and files.");
    if (k->tools_on) tools_print(k->tools);
}

static void run_stats(conversation *k, const char *rest) {
    (void)rest;
    fm_model m;
    fm_stats s;
    char a[16];
    fm_model_get(k->engine, &m);
    fm_stats_get(k->engine, &s);
    printf("%-11s%zu of %d tokens, %zu messages\n", "context", fm_session_length(k->session),
           m.context, json_array_size(k->messages));
    if (k->last.engine) {
        printf("%-11s%zu tokens, %zu of them known already\n", "question", k->last.prompt_tokens,
               k->last.reused);
        printf("%-11s%zu tokens, first after %.2f s\n", "answer", k->made.n,
               k->last.seconds_to_first);
    }
    if (s.seconds_prefill > 0)
        printf("%-11s%.1f tok/s\n", "reading", (double)s.tokens_prefill / s.seconds_prefill);
    if (s.seconds_decode > 0)
        printf("%-11s%.1f tok/s\n", "writing", (double)s.tokens_decode / s.seconds_decode);
    if (s.expert_requests)
        printf("%-11s%.1f%% in memory, %s read\n", "experts",
               100 * (double)s.expert_hits / (double)s.expert_requests,
               human_bytes(a, s.expert_read_bytes));
    printf("%-11s%s\n", "memory", human_memory(a, s.memory_peak));
    printf("%-11s%s, %d threads\n", "computes", m.gpu ? m.gpu : m.cpu, m.threads);
    if (m.places) printf("%-11s%s\n", "layers", m.places);
}

static void run_help(conversation *k, const char *rest);

static const chat_word words[] = {
    {"/help", "", "this list", run_help},
    {"/new", "", "begin a new conversation (so does /clear)", run_new},
    {"/resume", "[ID]", "go on with the newest one, or with this one", run_resume},
    {"/sessions", "", "the conversations that were kept", run_sessions},
    {"/model", "[NAME]", "which model answers; go on with another", run_model},
    {"/system", "[TEXT]", "instructions for a new conversation", run_system},
    {"/think", "on|off|show|fold|hide", "whether the model thinks first, and what you see of it",
     run_think},
    {"/retry", "", "another answer to the last question", run_retry},
    {"/edit", "", "change the last question in $EDITOR and ask again", run_edit},
    {"/undo", "", "take the last question and its answer back", run_undo},
    {"/save", "FILE", "write the conversation to a file", run_save},
    {"/copy", "", "the last answer to the clipboard", run_copy},
    {"/file", "PATH [TEXT]", "ask about the text of a file", run_file},
    {"/tools", "on|off|forget", "let the model ask for commands and files", run_tools_word},
    {"/stats", "", "tokens, speed, experts, memory", run_stats},
    {"/clear", "", NULL, run_new},
    {"/quit", "", "leave (so does Ctrl-D)", run_quit},
    {"/exit", "", NULL, run_quit},
};
#define N_WORDS (int)(sizeof words / sizeof *words)

const char *const chat_command_names[] = {
    "/help", "/new",  "/resume", "/sessions", "/model", "/system", "/think", "/retry", "/edit",
    "/undo", "/save", "/copy",   "/file",     "/tools", "/stats",  "/clear", "/quit",  "/exit"};
const int n_chat_command_names = N_WORDS;
_Static_assert(sizeof chat_command_names / sizeof *chat_command_names ==
                   sizeof words / sizeof *words,
               "every command has its name in the list");

static void run_help(conversation *k, const char *rest) {
    (void)k, (void)rest;
    for (int i = 0; i < N_WORDS; i++) {
        char first[64];
        if (!words[i].help) continue;
        snprintf(first, sizeof first, "%s%s%s", words[i].name, *words[i].rest ? " " : "",
                 words[i].rest);
        if (screen_width() < 60 || strlen(first) > 20) {
            printf("%s%s%s\n", style(STYLE_BOLD), first, STYLE_END);
            print_wrapped(stdout, "    ", words[i].help);
        } else {
            printf("%s%-20s%s", style(STYLE_BOLD), first, STYLE_END);
            print_wrapped_after(stdout, 20, " ", words[i].help);
        }
    }
    puts("");
    view_note("A new line in your message: Alt-Enter, or \\ and Enter; after a line that begins "
              "with ``` Enter does not send until the next such line. What you paste is one "
              "message.");
    view_note("Arrow keys and Ctrl-R find what you said before, Tab completes commands. Ctrl-C "
              "stops an answer, twice leaves.");
}

void chat_command(conversation *k, const char *line) {
    char word[24];
    size_t n = strcspn(line, " ");
    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), line);
    char *rest = strdup(line + n + strspn(line + n, " "));
    for (size_t m = rest ? strlen(rest) : 0; m && rest[m - 1] == ' ';) rest[--m] = '\0';
    for (int i = 0; rest && i < N_WORDS; i++) {
        if (strcmp(word, words[i].name)) continue;
        words[i].run(k, rest);
        free(rest);
        fflush(stdout);
        return;
    }
    free(rest);
    const char *near = nearest_name(word, chat_command_names, N_WORDS);
    if (near) printf("There is no %s. Did you mean %s?\n", word, near);
    if (!near) printf("There is no %s. /help lists what there is.\n", word);
}
