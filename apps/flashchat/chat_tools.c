/* chat_tools.c: see chat_tools.h. */
#include "chat_tools.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/model.h"
#include "chat_jail.h"
#include "screen.h"
#include "text/text_buf.h"

#define ENTRIES_MAX 1000 /* of a folder */
#define SHOWN_LINES 12   /* of what is to be written */

struct chat_tools {
    jail jail;
    char *allowed[TOOL_ALLOWED_MAX]; /* owned: "read_file", "shell ls -l" */
    int n_allowed;
};

static const char definitions[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"shell\",\"description\":\"Run a shell "
    "command in the working directory and return its output and exit "
    "code.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"command\":{\"type\":\"string\"}"
    "},\"required\":[\"command\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"read_file\",\"description\":\"Read a text "
    "file below the working "
    "directory.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":"
    "\"string\"}},\"required\":[\"path\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"write_file\",\"description\":\"Write a whole "
    "text file below the working "
    "directory.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":"
    "\"string\"},\"content\":{\"type\":\"string\"}},\"required\":[\"path\",\"content\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"list_directory\",\"description\":\"List a "
    "folder below the working "
    "directory.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":"
    "\"string\"}},\"required\":[]}}}]";

const char *tools_json(void) { return definitions; }

err tools_open(const char *folder, chat_tools **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return err_make(ERR_NOMEM, "no memory for tools");
    err e = jail_open(folder, &(*out)->jail);
    if (e.code) {
        free(*out);
        *out = NULL;
    }
    return e;
}

void tools_forget(chat_tools *t) {
    while (t->n_allowed) free(t->allowed[--t->n_allowed]);
}

void tools_close(chat_tools *t) {
    if (!t) return;
    tools_forget(t);
    jail_close(&t->jail);
    free(t);
}

/* ---- one call ---- */

typedef struct call {
    const char *name, *path, *command, *content; /* borrowed from json; NULL when not given */
    size_t content_length;
    char *key; /* owned: what the allow-list would say */
} call;

static bool is_tool(const char *name) {
    return !strcmp(name, "shell") || !strcmp(name, "read_file") || !strcmp(name, "write_file") ||
           !strcmp(name, "list_directory");
}

static const char *text_of(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

/* What is missing or wrong; NULL when the call is good. */
static const char *read_call(const char *name, const json_t *o, call *c) {
    *c = (call){.name = name, .path = text_of(o, "path"), .command = text_of(o, "command")};
    c->content = text_of(o, "content");
    c->content_length = c->content ? json_string_length(json_object_get(o, "content")) : 0;
    if (!is_tool(name)) return "there is no such tool";
    if (!json_is_object(o)) return "the arguments are no JSON object";
    if (!strcmp(name, "list_directory") && !c->path) c->path = ".";
    bool shell = !strcmp(name, "shell");
    if (shell && !c->command) return "command is missing";
    if (!shell && !c->path) return "path is missing";
    if (!strcmp(name, "write_file") && !c->content) return "content is missing";
    size_t n = strlen(name) + (shell ? strlen(c->command) + 1 : 0) + 1;
    c->key = malloc(n);
    if (!c->key) return "no memory";
    snprintf(c->key, n, shell ? "%s %s" : "%s", name, shell ? c->command : "");
    return NULL;
}

static bool is_allowed(const chat_tools *t, const char *key) {
    for (int i = 0; i < t->n_allowed; i++)
        if (!strcmp(t->allowed[i], key)) return true;
    return false;
}

void tools_print(const chat_tools *t) {
    print_wrapped(stdout, "working directory: ", t->jail.root);
    if (!t->n_allowed) puts("Every call is shown and asked about.");
    for (int i = 0; i < t->n_allowed; i++)
        print_wrapped(stdout, "not asked about: ", t->allowed[i]);
    print_wrapped(stdout, "",
                  jail_can_confine()
                      ? "Commands can read what you can read, and change files only below the "
                        "working directory and /tmp."
                      : "Commands can do all that you can do: this system cannot confine them.");
}

/* ---- showing and asking ---- */

/* A model's text, without what a terminal would take for commands; lines bounded by `lines`. */
static void print_clean(const char *first, const char *text, size_t length, int lines) {
    char line[2000];
    int shown = 0;
    for (size_t i = 0; i < length;) {
        const char *end = memchr(text + i, '\n', length - i);
        size_t n = end ? (size_t)(end - text) - i : length - i, k = 0;
        if (shown++ == lines) {
            printf("%*s...\n", text_width(first), "");
            return;
        }
        for (size_t j = 0; j < n && k < sizeof line - 8; j++) {
            unsigned char c = (unsigned char)text[i + j];
            bool control = c < 32 || c == 127 ||
                           (c == 0xc2 && j + 1 < n && (unsigned char)text[i + j + 1] < 0xa0);
            line[k++] = control ? '?' : text[i + j];
            if (control && c == 0xc2) j++;
        }
        line[k] = '\0';
        if (k >= sizeof line - 8) snprintf(line + k, 4, "...");
        char indent[40];
        snprintf(indent, sizeof indent, "%*s", text_width(first), "");
        if (k)
            print_wrapped(stdout, shown == 1 ? first : indent, line);
        else
            puts(shown == 1 ? first : "");
        i += n + 1;
    }
    if (!length) printf("%s\n", first);
}

static void show_call(const call *c) {
    char size[16];
    printf("%s", style(STYLE_YELLOW));
    if (c->command)
        print_clean("  shell: ", c->command, strlen(c->command), 40);
    else if (c->content)
        print_clean("  write: ", c->path, strlen(c->path), 1);
    else
        print_clean(!strcmp(c->name, "read_file") ? "  read: " : "  list: ", c->path,
                    strlen(c->path), 1);
    printf("%s", STYLE_END);
    if (!c->content) return;
    printf("%s", style(STYLE_DIM));
    print_clean("    ", c->content, c->content_length, SHOWN_LINES);
    printf("    (%s)%s\n", human_bytes(size, c->content_length), STYLE_END);
}

/* True: it may run. */
static bool consent(chat_tools *t, const call *c, tools_ask ask) {
    if (is_allowed(t, c->key)) return true;
    for (int tries = 0; tries < 5; tries++) {
        int key = ask("  y yes   n no   a always : ");
        if (key == 'y' || key == 'Y') return true;
        if (key == 'a' || key == 'A') {
            char *kept = t->n_allowed < TOOL_ALLOWED_MAX ? strdup(c->key) : NULL;
            if (kept) t->allowed[t->n_allowed++] = kept;
            return true;
        }
        if (key < 0 || key == 'n' || key == 'N') break;
        puts("  Please type y, n or a.");
    }
    puts("  not run\n");
    return false;
}

/* ---- files ---- */

static err append_bounded(text_buf *out, const char *bytes, size_t length, size_t *left_out) {
    size_t room = out->length < TOOL_OUTPUT_MAX ? TOOL_OUTPUT_MAX - out->length : 0;
    size_t n = length < room ? length : room;
    while (n < length && n && ((unsigned char)bytes[n] & 0xc0) == 0x80) n--; /* whole characters */
    *left_out += length - n;
    return text_buf_add_utf8(out, bytes, n);
}

static err say_left_out(text_buf *out, size_t left_out) {
    char text[80];
    if (!left_out) return err_none();
    snprintf(text, sizeof text, "\n[%zu bytes more are not shown]", left_out);
    return text_buf_add_text(out, text);
}

static err read_file(const chat_tools *t, const call *c, text_buf *out) {
    int fd;
    struct stat st;
    size_t left_out = 0, total = 0;
    TRY(jail_open_file(&t->jail, c->path, O_RDONLY | O_NONBLOCK, &fd));
    err e = err_none();
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        e = err_make(ERR_ARG, "%.200s is no regular file", c->path);
    char *buffer = malloc(TOOL_OUTPUT_MAX + 4);
    if (!buffer) e = err_make(ERR_NOMEM, "no memory");
    while (!e.code && total < TOOL_OUTPUT_MAX + 4) {
        ssize_t n = read(fd, buffer + total, TOOL_OUTPUT_MAX + 4 - total);
        if (n < 0) e = err_system(errno, "reading %.200s", c->path);
        if (n <= 0) break;
        total += (size_t)n;
    }
    if (!e.code) e = append_bounded(out, buffer, total, &left_out);
    if (!e.code && st.st_size > (off_t)total) left_out += (size_t)(st.st_size - (off_t)total);
    if (!e.code) e = say_left_out(out, left_out);
    if (!e.code && !out->length) e = text_buf_add_text(out, "(the file is empty)");
    free(buffer);
    close(fd);
    return e;
}

static err write_file(const chat_tools *t, const call *c, text_buf *out) {
    bool existed;
    char text[80];
    TRY(jail_write(&t->jail, c->path, c->content, c->content_length, &existed));
    snprintf(text, sizeof text, "%s, %zu bytes", existed ? "replaced" : "written",
             c->content_length);
    return text_buf_add_text(out, text);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static err list_entries(DIR *d, text_buf *out) {
    char *names[ENTRIES_MAX];
    int n = 0;
    size_t left_out = 0, more = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (n == ENTRIES_MAX || !(names[n] = strdup(e->d_name)))
            more++;
        else
            n++;
    }
    qsort(names, (size_t)n, sizeof *names, by_name);
    err failed = err_none();
    for (int i = 0; i < n; i++) {
        struct stat st;
        char line[400];
        bool there = !fstatat(dirfd(d), names[i], &st, AT_SYMLINK_NOFOLLOW);
        const char *kind = !there                ? " (?)"
                           : S_ISDIR(st.st_mode) ? "/"
                           : S_ISLNK(st.st_mode) ? " (link)"
                                                 : "";
        int k = snprintf(line, sizeof line, "%.300s%s", names[i], kind);
        if (there && S_ISREG(st.st_mode))
            k +=
                snprintf(line + k, sizeof line - (size_t)k, " (%lld bytes)", (long long)st.st_size);
        k += snprintf(line + k, sizeof line - (size_t)k, "\n");
        if (!failed.code) failed = append_bounded(out, line, (size_t)k, &left_out);
        free(names[i]);
    }
    if (!failed.code && more) failed = text_buf_add_text(out, "[there are more]\n");
    if (!failed.code) failed = say_left_out(out, left_out);
    if (!failed.code && !out->length) failed = text_buf_add_text(out, "(the folder is empty)");
    return failed;
}

static err list_directory(const chat_tools *t, const call *c, text_buf *out) {
    int fd;
    TRY(jail_open_file(&t->jail, c->path, O_RDONLY | O_DIRECTORY, &fd));
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return err_system(errno, "%.200s", c->path);
    }
    err e = list_entries(d, out);
    closedir(d);
    return e;
}

/* ---- commands ---- */

static pid_t start(const chat_tools *t, const char *command, int *out) {
    int ends[2];
    if (pipe(ends)) return -1;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(ends[1], 1) < 0 || dup2(ends[1], 2) < 0 ||
            fchdir(t->jail.fd))
            _exit(126);
        if (jail_can_confine() && !jail_confine(&t->jail)) _exit(126);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    if (child > 0) setpgid(child, child); /* whoever comes first */
    close(ends[1]);
    *out = ends[0];
    if (child < 0) close(ends[0]);
    return child;
}

typedef struct running {
    pid_t child;
    int fd, state;
    bool exited;
} running;

static bool has_exited(running *r) {
    if (!r->exited) r->exited = waitpid(r->child, &r->state, WNOHANG) == r->child;
    return r->exited;
}

/* Reads until the command has ended (programs that it left behind are not waited for); why it was
 * ended, or NULL. */
static const char *collect(running *r, text_buf *out, size_t *left_out, err *e) {
    char buffer[8192];
    double end = seconds_now() + TOOL_SECONDS;
    for (bool open = true;;) {
        if (interrupted()) return "stopped by the person";
        if (seconds_now() >= end) return "stopped after its time limit";
        struct pollfd p = {.fd = open ? r->fd : -1, .events = POLLIN};
        if (poll(&p, 1, 50) <= 0) {
            if (has_exited(r)) return NULL;
            continue;
        }
        ssize_t n = read(r->fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) open = false;
        if (n > 0 && !e->code) *e = append_bounded(out, buffer, (size_t)n, left_out);
    }
}

static err run_shell(const chat_tools *t, const call *c, text_buf *out) {
    running r = {0};
    size_t left_out = 0;
    char text[100];
    r.child = start(t, c->command, &r.fd);
    if (r.child < 0) return err_system(errno, "the command cannot be started");
    err e = err_none();
    const char *why = collect(&r, out, &left_out, &e);
    kill(-r.child, SIGKILL); /* also what it left behind */
    close(r.fd);
    while (!r.exited && waitpid(r.child, &r.state, 0) < 0 && errno == EINTR) {
    }
    if (!e.code) e = say_left_out(out, left_out);
    if (why)
        snprintf(text, sizeof text, "\n[%s]", why);
    else if (WIFEXITED(r.state))
        snprintf(text, sizeof text, "\n[exit code %d]", WEXITSTATUS(r.state));
    else
        snprintf(text, sizeof text, "\n[ended by signal %d]", WTERMSIG(r.state));
    return e.code ? e : text_buf_add_text(out, text + (out->length == 0));
}

/* ---- all of it ---- */

static err run_call(chat_tools *t, const call *c, text_buf *out) {
    if (c->command && !strcmp(c->name, "shell")) return run_shell(t, c, out);
    if (!strcmp(c->name, "read_file")) return read_file(t, c, out);
    if (!strcmp(c->name, "write_file")) return write_file(t, c, out);
    return list_directory(t, c, out);
}

static void show_result(const text_buf *out) {
    printf("%s", style(STYLE_DIM));
    print_clean("    ", out->data ? out->data : "", out->length, SHOWN_LINES);
    printf("%s\n", STYLE_END);
    fflush(stdout);
}

char *tools_run(chat_tools *t, const char *name, const char *arguments, tools_ask ask) {
    text_buf out = {0};
    call c;
    json_t *o = json_loads(arguments, 0, NULL);
    const char *wrong = read_call(name, o, &c);
    err e = err_none();
    if (wrong) {
        printf("  ");
        print_clean("a call that makes no sense: ", name, strlen(name), 1);
        e = text_buf_add_text(&out, "error: ");
        if (!e.code) e = text_buf_add_text(&out, wrong);
    } else {
        show_call(&c);
        if (!consent(t, &c, ask)) {
            e = text_buf_add_text(&out, "error: the person did not allow this call");
        } else {
            e = run_call(t, &c, &out);
            if (e.code && e.code != ERR_NOMEM) {
                text_buf_free(&out);
                err said = text_buf_add_text(&out, "error: ");
                if (!said.code) said = text_buf_add_text(&out, e.text);
                e = said;
            }
            show_result(&out);
        }
    }
    free(c.key);
    json_decref(o);
    if (e.code) text_buf_free(&out);
    return out.data;
}
