/* status.c: see status.h. */
#include "status.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "screen.h"
#include "server_life.h"

/* The server of server.pid while its process lives, else whoever answers at the settings' port. */
static void find_server(product *p, status *out) {
    server_trace t;
    char now[SIGNATURE_MAX];
    const char *host = settings_text(p->c, CONFIG_SERVER_HOST);
    int port = (int)settings_int(p->c, CONFIG_SERVER_PORT);
    bool known = server_trace_read(&t) && trace_alive(&t);
    if (known) host = t.host, port = t.port;
    if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::")) host = "127.0.0.1";
    snprintf(out->server, sizeof out->server,
             strchr(host, ':') ? "%s://[%.200s]:%d" : "%s://%.200s:%d",
             known && t.tls ? "https" : "http", host, port);
    out->server_up = server_healthy(host, port, known && t.tls, 2000);
    out->server_kind = known ? SERVER_OURS : out->server_up ? SERVER_EXTERNAL : SERVER_NONE;
    if (!known) return;
    out->pid = (int)t.pid;
    snprintf(out->serves, sizeof out->serves, "%s", t.model);
    out->outdated =
        t.background && out->model_ready && (!serve_signature(now) || strcmp(now, t.signature));
}

void status_get(product *p, status *out) {
    memset(out, 0, sizeof *out);
    const char *name = settings_text(p->c, CONFIG_MODEL);
    out->model_ready = !model_resolve(p->c, &p->models, name, out->dir, &out->m).code;
    snprintf(out->model, sizeof out->model, "%.199s", out->m ? out->m->name : name);
    out->context = (int)settings_int(p->c, CONFIG_CONTEXT_WINDOW);
    if (out->m) {
        if (!out->context || out->context > out->m->context)
            out->context = out->m->context < 32768 ? out->m->context : 32768;
        model_need_get(out->m, out->context, settings_text(p->c, CONFIG_KV_QUANT), &out->need);
    }
    if (machine_get(p->c, &out->here).code) out->here = (machine){0};
    find_server(p, out);
}

static void field(const char *name, const char *text) {
    char first[24];
    snprintf(first, sizeof first, "%-9s ", name);
    print_wrapped(stdout, first, text);
}

void status_server_text(const status *s, char *out, size_t size) {
    switch (s->server_kind) {
    case SERVER_NONE: snprintf(out, size, "not running"); break;
    case SERVER_EXTERNAL:
        snprintf(out, size, "running at %s, started by somebody else", s->server);
        break;
    case SERVER_OURS:
        snprintf(out, size, "%s at %s (process %d), %s%s",
                 s->server_up ? "running" : "started, but does not answer,", s->server, s->pid,
                 s->serves,
                 s->outdated ? "; its settings are not those of now: it restarts before its next "
                               "use"
                             : "");
        break;
    }
}

static const char *next_step(const status *s) {
    if (s->server_kind == SERVER_NONE) return "flashchat chat, or flashchat serve --background";
    if (s->server_kind == SERVER_EXTERNAL)
        return "flashchat chat; to end that server: flashchat serve --stop --external";
    return s->outdated ? "flashchat serve --background (restarts it), or flashchat serve --stop"
                       : "flashchat chat, or flashchat serve --stop";
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
    status_server_text(s, line, sizeof line);
    field("server", line);
    putchar('\n');
    if (!s->model_ready)
        print_wrapped(stdout, "Next: ",
                      s->m ? "flashchat download NAME (the names: flashchat models)"
                           : "flashchat config set MODEL NAME (the names: flashchat models)");
    else
        print_wrapped(stdout, "Next: ", next_step(s));
}

int command_status(int argc, char **argv) {
    product p;
    status s;
    int rc;
    bool json = take_word(&argc, argv, "--json");
    if (!product_open(&p, "status", &argc, argv, &rc)) return rc;
    status_get(&p, &s);
    if (json) {
        json_t *o = json_pack(
            "{s:s, s:s, s:b, s:s, s:i, s:b, s:s, s:b, s:i, s:b, s:I, s:I}", "model",
            settings_text(p.c, CONFIG_MODEL), "model_name", s.model, "model_ready", s.model_ready,
            "model_dir", s.dir, "context_window", s.context, "server_running", s.server_up,
            "server", s.server, "server_ours", s.server_kind == SERVER_OURS, "server_process",
            s.pid, "server_outdated", s.outdated, "memory_bytes", (json_int_t)s.here.memory,
            "disk_free_bytes", (json_int_t)s.here.disk_free);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else {
        show(&s);
    }
    product_close(&p);
    return 0;
}
