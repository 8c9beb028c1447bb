/* status.c: see status.h. */
#include "status.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "screen.h"

static size_t ignore(char *bytes, size_t size, size_t n, void *ctx) {
    (void)bytes, (void)ctx;
    return size * n;
}

/* GET /health, for half a second at most. */
static bool healthy(const char *address) {
    char url[400];
    long code = 0;
    CURL *c = curl_easy_init();
    if (!c) return false;
    snprintf(url, sizeof url, "%s/health", address);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 500L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, ignore);
    bool good = curl_easy_perform(c) == CURLE_OK &&
                curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code) == CURLE_OK && code == 200;
    curl_easy_cleanup(c);
    return good;
}

void status_get(product *p, status *out) {
    memset(out, 0, sizeof *out);
    const char *host = settings_text(p->c, CONFIG_SERVER_HOST);
    if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::")) host = "127.0.0.1";
    snprintf(out->server, sizeof out->server,
             strchr(host, ':') ? "http://[%.200s]:%d" : "http://%.200s:%d", host,
             (int)settings_int(p->c, CONFIG_SERVER_PORT));
    out->server_up = healthy(out->server);
    const char *name = settings_text(p->c, CONFIG_MODEL);
    out->model_ready = !model_resolve(p->c, &p->models, name, out->dir, &out->m).code;
    snprintf(out->model, sizeof out->model, "%.199s", out->m ? out->m->name : name);
    out->context = (int)settings_int(p->c, CONFIG_CONTEXT_WINDOW);
    if (out->m) {
        if (!out->context || out->context > out->m->context)
            out->context = out->m->context < 32768 ? out->m->context : 32768;
        model_need_get(out->m, out->context, &out->need);
    }
    if (machine_get(p->c, &out->here).code) out->here = (machine){0};
}

static void field(const char *name, const char *text) {
    char first[24];
    snprintf(first, sizeof first, "%-9s ", name);
    print_wrapped(stdout, first, text);
}

static void show(const status *s) {
    char line[PATH_TEXT_MAX + 300], a[16], b[16], fits[120];
    snprintf(line, sizeof line, "%s%s", s->model,
             s->model_ready ? "" : ", not on this machine yet");
    field("model", line);
    if (s->model_ready) field("", s->dir);
    if (s->m) {
        model_outlook_text(&s->need, &s->here, fits, sizeof fits);
        snprintf(line, sizeof line, "%s; needs at least %s of memory", fits,
                 human_memory(a, s->need.least));
        field("fits", line);
    }
    if (s->context) {
        snprintf(line, sizeof line, "%d tokens", s->context);
        field("context", line);
    }
    snprintf(line, sizeof line, "%s for flashchat; %s free on the drive of the models",
             human_memory(a, s->here.memory), human_bytes(b, s->here.disk_free));
    field("machine", line);
    snprintf(line, sizeof line, "%s %s", s->server_up ? "running at" : "not running at", s->server);
    field("server", line);
    putchar('\n');
    if (!s->model_ready)
        print_wrapped(stdout, "Next: ",
                      s->m ? "flashchat download NAME (the names: flashchat models)"
                           : "flashchat config set MODEL NAME (the names: flashchat models)");
    else
        print_wrapped(stdout, "Next: ",
                      s->server_up ? "flashchat chat, or flashchat serve --stop"
                                   : "flashchat chat, or flashchat serve");
}

int command_status(int argc, char **argv) {
    product p;
    status s;
    int rc;
    bool json = take_word(&argc, argv, "--json");
    if (!product_open(&p, "status", &argc, argv, &rc)) return rc;
    status_get(&p, &s);
    if (json) {
        json_t *o =
            json_pack("{s:s, s:s, s:b, s:s, s:i, s:b, s:s, s:I, s:I}", "model",
                      settings_text(p.c, CONFIG_MODEL), "model_name", s.model, "model_ready",
                      s.model_ready, "model_dir", s.dir, "context_window", s.context,
                      "server_running", s.server_up, "server", s.server, "memory_bytes",
                      (json_int_t)s.here.memory, "disk_free_bytes", (json_int_t)s.here.disk_free);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else {
        show(&s);
    }
    product_close(&p);
    return 0;
}
