/* status.c: see status.h. */
#include "status.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "screen.h"
#include "server_life.h"

/* Text of another process, without what a terminal would obey. */
static void copy_text(const json_t *o, const char *name, char *out, size_t size) {
    const char *text = json_string_value(json_object_get(o, name));
    snprintf(out, size, "%s", text ? text : "");
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
}

static uint64_t bytes_of(const json_t *o, const char *name) {
    json_int_t n = json_integer_value(json_object_get(o, name));
    return n > 0 ? (uint64_t)n : 0;
}

static void read_placement(const char *health, placement *out) {
    json_t *said = json_loads(health, JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *o = json_object_get(said, "placement");
    copy_text(o, "layers", out->layers, sizeof out->layers);
    copy_text(o, "card", out->card, sizeof out->card);
    out->memory_limit = bytes_of(o, "memory_limit");
    out->vram_limit = bytes_of(o, "vram_limit");
    out->vram_taken = bytes_of(o, "vram_taken");
    json_decref(said);
}

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
    char health[4096] = "";
    out->server_up = known && t.tls ? server_healthy(host, port, true, 2000)
                                    : server_health(host, port, 2000, health, sizeof health);
    if (out->server_up) read_placement(health, &out->placed);
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

/* "layers 0-3 on the processor, ...; memory at most 64 MiB; card NAME: at most 9 MiB, 8 MiB taken"
 */
static void show_placement(const placement *p) {
    char line[1200], a[16], b[16];
    if (!p->layers[0]) return;
    int n = snprintf(line, sizeof line, "%s; memory at most %s", p->layers,
                     human_memory(a, p->memory_limit));
    if (p->card[0] && p->vram_limit)
        snprintf(line + n, sizeof line - (size_t)n, "; card %s: at most %s, %s taken", p->card,
                 human_memory(a, p->vram_limit), human_memory(b, p->vram_taken));
    else if (p->card[0])
        snprintf(line + n, sizeof line - (size_t)n, "; card %s", p->card);
    field("placed", line);
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
    show_placement(&s->placed);
    putchar('\n');
    if (!s->model_ready)
        print_wrapped(stdout, "Next: ",
                      s->m ? "flashchat download NAME (the names: flashchat models)"
                           : "flashchat config set MODEL NAME (the names: flashchat models)");
    else
        print_wrapped(stdout, "Next: ", next_step(s));
}

static json_t *placement_json(const placement *p) {
    if (!p->layers[0]) return json_null();
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "layers", p->layers, "card", p->card,
                     "memory_limit", (json_int_t)p->memory_limit, "vram_limit",
                     (json_int_t)p->vram_limit, "vram_taken", (json_int_t)p->vram_taken);
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
        json_object_set_new(o, "server_placement", placement_json(&s.placed));
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else {
        show(&s);
    }
    product_close(&p);
    return 0;
}
