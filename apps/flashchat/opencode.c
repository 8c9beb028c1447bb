/* opencode.c: flashchat opencode: the coding agent OpenCode in the folder you are in, with the
 * model of this machine.
 *
 *     opencode on PATH? -> server there and well? (else started in the background) -> which model?
 *       -> does OpenCode know it? (else the entry is shown, and written if the person says so)
 *       -> becomes opencode
 *
 * Whatever the answer about the file is, this run of OpenCode gets the entry and the model in its
 * environment (OPENCODE_CONFIG_CONTENT), so that "no" means "write nothing", not "go away". */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opencode_config.h"
#include "product.h"
#include "run_self.h"
#include "screen.h"
#include "server_files.h"

#define NAME          "opencode"
#define CONTEXT_LEAST 16384 /* its first request alone has about 11,000 tokens */
#define CONTEXT_GOOD  "65536"
#define ANSWER_MAX    (1 << 20)

/* ---- the program ---- */

static bool on_path(const char *program) {
    const char *path = getenv("PATH");
    char one[PATH_TEXT_MAX];
    for (const char *at = path ? path : ""; *at;) {
        size_t n = strcspn(at, ":");
        snprintf(one, sizeof one, "%.*s/%s", (int)n, at, program);
        if (n && n < sizeof one - 32 && access(one, X_OK) == 0 && file_exists(one)) return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static int not_installed(void) {
    fputs(
        "flashchat opencode: OpenCode is not installed: no program \"opencode\" is on your PATH.\n"
        "It is free. Install it:  npm install -g opencode-ai\n"
        "Then type flashchat opencode again.\n",
        stderr);
    return 1;
}

/* ---- the server ---- */

static void address(const char *host, int port, char out[300]) {
    const char *h = !*host || !strcmp(host, "0.0.0.0") ? "127.0.0.1" : host;
    if (!strcmp(h, "::")) h = "::1";
    snprintf(out, 300, strchr(h, ':') ? "http://[%.250s]:%d" : "http://%.250s:%d", h, port);
}

/* The server that left its trace, else the one where the settings say. */
static bool find_server(const product *p, char out[300]) {
    server_trace t;
    if (server_trace_read(&t) && trace_alive(&t) && server_healthy(t.host, t.port, false, 3000)) {
        address(t.host, t.port, out);
        return true;
    }
    const char *host = settings_text(p->c, CONFIG_SERVER_HOST);
    int port = (int)settings_int(p->c, CONFIG_SERVER_PORT);
    address(host, port, out);
    return server_healthy(host, port, false, 3000);
}

static bool start_server(const product *p, char out[300]) {
    puts("No server is running yet; one is started now and goes on in the background\n"
         "(flashchat serve --stop ends it).");
    char *words[] = {"flashchat", "serve", "--background", "--context", CONTEXT_GOOD, NULL};
    if (settings_int(p->c, CONFIG_CONTEXT_WINDOW) > 0) words[3] = NULL; /* as the settings say */
    return run_self_words(words) == 0 && find_server(p, out);
}

typedef struct answer {
    char *bytes;
    size_t length;
} answer;

static size_t take(char *data, size_t one, size_t n, void *ctx) {
    answer *a = ctx;
    if (n * one > ANSWER_MAX - a->length) return 0;
    memcpy(a->bytes + a->length, data, n * one);
    a->length += n * one;
    return n * one;
}

/* GET url; the status, or 0 when there was no answer. */
static long fetch(const char *url, const char *key, answer *a) {
    CURL *c = curl_easy_init();
    if (!c) return 0;
    char header[600];
    snprintf(header, sizeof header, "Authorization: Bearer %.500s", key ? key : "none");
    struct curl_slist *headers = curl_slist_append(NULL, header);
    long code = 0;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 10000L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    if (curl_easy_perform(c) == CURLE_OK) curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    return code;
}

static err read_models(const answer *a, const char *url, opencode_server *s) {
    json_t *all = json_loadb(a->bytes, a->length, 0, NULL);
    const json_t *m = json_array_get(json_object_get(all, "data"), 0);
    const char *id = json_string_value(json_object_get(m, "id"));
    s->context = (int)json_integer_value(json_object_get(m, "context_window"));
    snprintf(s->model, sizeof s->model, "%s", id ? id : "");
    json_decref(all);
    if (!s->model[0] || s->context <= 0)
        return err_make(ERR_CORRUPT,
                        "%s/v1/models does not answer as flashchat does: is another "
                        "program listening there?",
                        url);
    return err_none();
}

/* What is served there. Also proves that the server answers with the key that OpenCode will send.
 */
static err ask_server(const char *url, opencode_server *s) {
    char models[400];
    const char *key = getenv("FLASHCHAT_API_KEY");
    answer a = {malloc(ANSWER_MAX), 0};
    if (!a.bytes) return err_make(ERR_NOMEM, "no memory");
    snprintf(s->base_url, sizeof s->base_url, "%.300s/v1", url);
    snprintf(models, sizeof models, "%.300s/v1/models", url);
    s->key = key && *key;
    long code = fetch(models, s->key ? key : NULL, &a);
    err e = err_none();
    if (code == 401) {
        e = err_make(ERR_ARG,
                     "the server at %s wants its API key: put it into the environment "
                     "variable FLASHCHAT_API_KEY and try again",
                     url);
    } else if (code != 200) {
        e = err_make(ERR_IO, "the server at %s does not answer; flashchat status says more", url);
    } else {
        e = read_models(&a, url, s);
    }
    free(a.bytes);
    if (!e.code && s->context < CONTEXT_LEAST)
        e = err_make(ERR_RANGE,
                     "the server at %s has a context window of %d tokens, and OpenCode's first "
                     "request alone has about 11,000. End it with flashchat serve --stop, then "
                     "start it with flashchat serve --context %s",
                     url, s->context, CONTEXT_GOOD);
    return e;
}

/* ---- the settings of OpenCode ---- */

static void show_entry(const opencode_server *s) {
    json_t *entry = opencode_entry(s);
    char *text = entry ? json_dumps(entry, JSON_INDENT(2)) : NULL;
    if (text) printf("\n%s\n\n", text);
    free(text);
    json_decref(entry);
}

static void offer(const opencode_server *s, const opencode_config *c) {
    char line[PATH_TEXT_MAX + 200];
    snprintf(line, sizeof line,
             c->state == OPENCODE_OTHER ? "OpenCode's settings have another address or model for "
                                          "flashchat (%s). This would be right:"
                                        : "OpenCode does not know this server yet. This belongs "
                                          "into %s:",
             c->path);
    print_wrapped(stdout, "", line);
    show_entry(s);
    if (!c->plain) {
        print_wrapped(stdout, "",
                      "The file has comments, so it is not written from here: add this by hand. "
                      "For this run it is passed on without a file.");
        return;
    }
    if (c->exists) puts("Everything else in the file stays as it is.");
    if (!ask_consent(c->exists ? "write it into the file" : "make the file")) {
        puts("Nothing was written; it is passed on for this run only.");
        return;
    }
    err e = opencode_write(s, c);
    if (e.code) {
        product_fail(NAME, e);
        puts("Nothing was written; it is passed on for this run only.");
    } else {
        printf("Written: %s\n", c->path);
    }
}

static void check_settings(const opencode_server *s) {
    opencode_config c;
    err e = opencode_look(s, &c);
    if (e.code) {
        fprintf(stderr, "flashchat opencode: OpenCode's settings: %s (left alone)\n", e.text);
    } else if (c.state != OPENCODE_READY) {
        offer(s, &c);
    }
}

/* ---- becoming OpenCode ---- */

/* The entry and the model, unless somebody else already passes settings that way. */
static err pass_on(const opencode_server *s) {
    if (getenv("OPENCODE_CONFIG_CONTENT")) return err_none();
    char model[300];
    snprintf(model, sizeof model, "flashchat/%s", s->model);
    json_t *entry = opencode_entry(s);
    json_object_set_new(entry, "model", json_string(model));
    json_object_set_new(entry, "small_model", json_string(model));
    char *text = entry ? json_dumps(entry, JSON_COMPACT) : NULL;
    json_decref(entry);
    bool ok = text && setenv("OPENCODE_CONFIG_CONTENT", text, 1) == 0;
    free(text);
    return ok ? err_none() : err_make(ERR_NOMEM, "no memory for its settings");
}

static err ready_server(const product *p, opencode_server *s) {
    char url[300];
    if (!find_server(p, url) && !start_server(p, url))
        return err_make(ERR_IO, "there is no server to use; flashchat serve shows why it does not "
                                "start");
    return ask_server(url, s);
}

int command_opencode(int argc, char **argv) {
    if (!on_path("opencode")) return not_installed();
    product p;
    int rc, none = 1; /* every word is OpenCode's */
    char *own[] = {argv[0], NULL};
    if (!product_open_plain(&p, NAME, &none, own, &rc)) return rc;
    opencode_server s = {0};
    err e = ready_server(&p, &s);
    product_close(&p);
    if (!e.code) {
        check_settings(&s);
        e = pass_on(&s);
    }
    if (e.code) {
        char first[] = "flashchat opencode: ";
        print_wrapped(stderr, first, e.text);
        return 1;
    }
    printf("OpenCode with %s at %s\n", s.model, s.base_url);
    fflush(stdout);
    (void)argc;
    argv[0] = (char *)"opencode";
    execvp("opencode", argv);
    fprintf(stderr, "flashchat opencode: opencode cannot be started: %s\n", strerror(errno));
    return 1;
}
