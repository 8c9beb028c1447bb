/* server.c: routes, keys, small endpoints, opening and closing (see server.h).
 *
 * What runs on the front thread (health, metrics, models, refusals) touches only counters. Keys are
 * compared in constant time and never written anywhere.
 *
 * A browser must not become somebody's hands: a page of another origin gets 403 unless that origin
 * was allowed, and without an API key a server on the loopback interface answers only requests for
 * a loopback name (a foreign name that points to 127.0.0.1 is refused). */
#include "server/server.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "server/server_impl.h"

/* ---- answers ---- */

void server_fail_api(web_exchange *x, request_api api, int status, const char *param,
                     const char *message) {
    text_buf out = {0};
    if (emit_error(api, status, param, message, &out).code) out.length = 0;
    web_answer(x, status, NULL, out.data, out.length);
    text_buf_free(&out);
}

static request_api api_of(const web_exchange *x) {
    return strncmp(web_path(x), "/v1/messages", 12) == 0 ? API_MESSAGES : API_CHAT;
}

void server_fail(server *s, web_exchange *x, int status, const char *param, const char *message) {
    (void)s;
    server_fail_api(x, api_of(x), status, param, message);
}

void server_json(web_exchange *x, json_t *data) {
    char *text = data ? json_dumps(data, JSON_COMPACT) : NULL;
    json_decref(data);
    if (text) {
        web_answer(x, 200, NULL, text, strlen(text));
    } else {
        server_fail_api(x, API_CHAT, 500, NULL, "no memory for an answer");
    }
    free(text);
}

/* ---- small endpoints ---- */

static void get_root(server *s, web_exchange *x) {
    server_json(x, json_pack("{s:s, s:s, s:s, s:[s,s,s,s,s,s,s,s,s,s,s]}", "name", "flashchat",
                             "version", FM_VERSION, "model", s->port->id, "endpoints",
                             "/v1/chat/completions", "/v1/completions", "/v1/responses",
                             "/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/tokenize",
                             "/detokenize", "/apply-template", "/health", "/metrics"));
}

static void set_bytes(json_t *o, const char *name, size_t bytes) {
    json_object_set_new(o, name, json_integer((json_int_t)bytes));
}

/* NULL: nobody knows. A name that is no UTF-8 is left out. */
static json_t *placement(const port_place *p, bool lost) {
    if (!p->layers[0]) return NULL;
    json_t *o = json_object();
    const char *gone = "the graphics card was lost: all layers on the processor";
    json_object_set_new(o, "layers", json_string(lost ? gone : p->layers));
    set_bytes(o, "memory_limit", p->memory_limit);
    if (lost || !p->card[0]) return o;
    json_object_set_new(o, "card", json_string(p->card));
    set_bytes(o, "vram_limit", p->vram_limit);
    set_bytes(o, "vram_taken", p->vram_taken);
    return o;
}

static void get_health(server *s, web_exchange *x) {
    sched_counters c;
    sched_counters_get(s->sched, &c);
    bool draining = atomic_load(&s->draining);
    json_t *data = json_pack("{s:s, s:s, s:i, s:i, s:I}", "status", draining ? "draining" : "ok",
                             "model", s->port->id, "running", c.running, "waiting", c.waiting,
                             "uptime", (json_int_t)(time(NULL) - s->begun));
    json_t *place = placement(&s->port->place, c.engine.gpu_lost);
    if (place) json_object_set_new(data, "placement", place);
    char *text = json_dumps(data, JSON_COMPACT);
    json_decref(data);
    web_answer(x, draining ? 503 : 200, NULL, text ? text : "{}", text ? strlen(text) : 2);
    free(text);
}

static void get_metrics(server *s, web_exchange *x) {
    text_buf out = {0};
    if (metrics_text(s, &out).code) {
        server_fail(s, x, 500, NULL, "no memory for an answer");
    } else {
        web_answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.length);
    }
    text_buf_free(&out);
}

/* One entry that OpenAI's and Anthropic's clients both read. */
static json_t *model_entry(const server *s, const char *id) {
    char when[32];
    struct tm t;
    gmtime_r(&s->begun, &t);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &t);
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:i, s:i}", "id", id, "object", "model",
                     "type", "model", "created", (json_int_t)s->begun, "owned_by", "flashchat",
                     "display_name", id, "created_at", when, "max_model_len",
                     s->port->engine.context, "context_window", s->port->engine.context);
}

#define CODEX_PROMPT                                                                               \
    "You are a coding agent that runs in the Codex CLI on the user's computer. Work in the "       \
    "user's "                                                                                      \
    "current folder with the tools that you are given: read before you change, make the smallest " \
    "change that does what was asked, run what you changed, and keep to the style of the code "    \
    "around it. Never undo what you did not do. When you are done, say in a few sentences what "   \
    "you changed and what you could not do."

/* The entry that Codex CLI reads: above all how long a conversation may get before it is shortened.
 * Every key is one that some version asks for. */
static json_t *codex_entry(const server *s, const char *id) {
    json_t *e = json_pack(
        "{s:s, s:s, s:s, s:[], s:s, s:s, s:b, s:i, s:n, s:s, s:b, s:s, s:b, s:n}", "slug", id,
        "display_name", id, "description", "served by flashchat", "supported_reasoning_levels",
        "shell_type", "shell_command", "visibility", "list", "supported_in_api", 1, "priority", 1,
        "upgrade", "base_instructions", CODEX_PROMPT, "supports_reasoning_summaries", 0,
        "default_reasoning_summary", "auto", "support_verbosity", 0, "default_verbosity");
    json_t *more = json_pack(
        "{s:n, s:s, s:{s:s, s:i}, s:b, s:i, s:i, s:[], s:[s], s:n, s:b, s:b, s:[], s:[], s:n}",
        "apply_patch_tool_type", "web_search_tool_type", "text", "truncation_policy", "mode",
        "tokens", "limit", 10000, "supports_parallel_tool_calls", 1, "context_window",
        s->port->engine.context, "max_context_window", s->port->engine.context,
        "experimental_supported_tools", "input_modalities", "text", "availability_nux",
        "supports_image_detail_original", 0, "supports_search_tool", 0, "additional_speed_tiers",
        "service_tiers", "default_reasoning_level");
    if (e && more) json_object_update(e, more);
    json_decref(more);
    return e;
}

static void get_models(server *s, web_exchange *x) {
    json_t *data = json_array(), *codex = json_array();
    json_array_append_new(data, model_entry(s, s->port->id));
    json_array_append_new(codex, codex_entry(s, s->port->id));
    for (const char *const *a = s->o.aliases; a && *a; a++) {
        if (strcmp(*a, "*") == 0) continue;
        json_array_append_new(data, model_entry(s, *a));
        json_array_append_new(codex, codex_entry(s, *a));
    }
    server_json(x, json_pack("{s:s, s:o, s:o, s:b, s:s, s:s}", "object", "list", "data", data,
                             "models", codex, "has_more", 0, "first_id", s->port->id, "last_id",
                             s->port->id));
}

static void get_model(server *s, web_exchange *x) {
    const char *id = web_path(x) + strlen("/v1/models/");
    bool known = strcasecmp(id, s->port->id) == 0;
    for (const char *const *a = s->o.aliases; a && *a && !known; a++)
        known = strcasecmp(id, *a) == 0;
    if (known) {
        server_json(x, model_entry(s, id));
    } else {
        server_fail(s, x, 404, "model", "model: there is no model of this name; GET /v1/models");
    }
}

static bool small_body(server *s, web_exchange *x, json_t **out) {
    (void)s;
    size_t length;
    const char *bytes = web_body(x, &length);
    err e = request_json(bytes, length, out);
    if (!e.code) return true;
    server_fail_api(x, API_CHAT, 400, NULL, e.text);
    return false;
}

static void tokenize(server *s, web_exchange *x) {
    json_t *body;
    if (!small_body(s, x, &body)) return;
    json_t *content = json_object_get(body, "content");
    if (!content) content = json_object_get(body, "prompt");
    const json_t *special = json_object_get(body, "parse_special");
    const json_t *pieces = json_object_get(body, "with_pieces");
    fm_tokens ids = {0};
    err e = err_none();
    if (!json_is_string(content)) {
        e = err_make(ERR_ARG, "content: must be a string");
    } else {
        e = s->port->tokenize(s->port->ctx, json_is_true(special) ? FM_MARKUP : FM_CONTENT,
                              json_string_value(content), json_string_length(content), &ids);
    }
    if (e.code) {
        server_fail_api(x, API_CHAT, e.code == ERR_ARG ? 400 : 500, NULL, e.text);
    } else {
        json_t *list = json_array();
        for (size_t i = 0; i < ids.count; i++) {
            size_t n = 0;
            const char *b = s->port->token_bytes(s->port->ctx, ids.ids[i], &n);
            json_t *text = json_is_true(pieces) && b ? json_stringn(b, n) : NULL;
            json_array_append_new(list, json_is_true(pieces)
                                            ? json_pack("{s:i, s:o}", "id", ids.ids[i], "piece",
                                                        text ? text : json_null())
                                            : json_integer(ids.ids[i]));
        }
        server_json(x, json_pack("{s:o, s:I}", "tokens", list, "count", (json_int_t)ids.count));
    }
    fm_tokens_free(&ids);
    json_decref(body);
}

static err join_tokens(server *s, const json_t *list, text_buf *out) {
    if (!json_is_array(list)) return err_make(ERR_ARG, "tokens: must be a list of token ids");
    text_buf bytes = {0};
    err e = err_none();
    for (size_t i = 0; i < json_array_size(list) && !e.code; i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        size_t n = 0;
        const char *b =
            v >= 0 && v <= INT32_MAX ? s->port->token_bytes(s->port->ctx, (int32_t)v, &n) : NULL;
        e = b ? text_buf_add(&bytes, b, n) : err_make(ERR_ARG, "tokens[%zu]: is no token", i);
    }
    if (!e.code) e = text_buf_add_utf8(out, bytes.data ? bytes.data : "", bytes.length);
    text_buf_free(&bytes);
    return e;
}

static void detokenize(server *s, web_exchange *x) {
    json_t *body;
    if (!small_body(s, x, &body)) return;
    text_buf text = {0};
    err e = join_tokens(s, json_object_get(body, "tokens"), &text);
    if (e.code) {
        server_fail_api(x, API_CHAT, e.code == ERR_ARG ? 400 : 500, NULL, e.text);
    } else {
        server_json(x, json_pack("{s:o}", "content",
                                 json_stringn(text.data ? text.data : "", text.length)));
    }
    text_buf_free(&text);
    json_decref(body);
}

static void chat(server *s, web_exchange *x) { server_generate(s, x, API_CHAT); }
static void completions(server *s, web_exchange *x) { server_generate(s, x, API_COMPLETIONS); }
static void responses(server *s, web_exchange *x) { server_generate(s, x, API_RESPONSES); }
static void messages(server *s, web_exchange *x) { server_generate(s, x, API_MESSAGES); }

/* ---- routes ---- */

typedef struct route {
    const char *method, *path; /* a path that ends in "/" matches what begins with it */
    bool fast, open;           /* on the front thread; without a key */
    void (*run)(server *s, web_exchange *x);
} route;

static const route routes[] = {
    {"GET", "/", true, true, get_root},
    {"GET", "/v1", true, true, get_root},
    {"GET", "/health", true, true, get_health},
    {"GET", "/metrics", true, false, get_metrics},
    {"GET", "/v1/models", true, false, get_models},
    {"GET", "/v1/models/", true, false, get_model},
    {"POST", "/v1/chat/completions", false, false, chat},
    {"POST", "/v1/completions", false, false, completions},
    {"POST", "/v1/responses", false, false, responses},
    {"POST", "/v1/messages", false, false, messages},
    {"POST", "/v1/messages/count_tokens", false, false, server_count_tokens},
    {"POST", "/tokenize", false, false, tokenize},
    {"POST", "/detokenize", false, false, detokenize},
    {"POST", "/apply-template", false, false, server_apply_template},
};
#define N_ROUTES (sizeof routes / sizeof *routes)

static bool path_matches(const route *r, const char *path) {
    size_t n = strlen(r->path);
    if (n > 1 && r->path[n - 1] == '/') return strncmp(path, r->path, n) == 0 && path[n];
    return strcmp(path, r->path) == 0;
}

/* HEAD is GET without a body. *known: some method exists for the path. */
static const route *find_route(const char *method, const char *path, bool *known) {
    *known = false;
    if (strcmp(method, "HEAD") == 0) method = "GET";
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!path_matches(&routes[i], path)) continue;
        *known = true;
        if (strcmp(routes[i].method, method) == 0) return &routes[i];
    }
    return NULL;
}

static bool inline_route(void *ctx, const char *method, const char *path) {
    (void)ctx;
    bool known;
    const route *r = find_route(method, path, &known);
    return !r || r->fast;
}

static void handle(void *ctx, web_exchange *x) {
    server *s = ctx;
    bool known;
    const route *r = find_route(web_method(x), web_path(x), &known);
    if (!r) {
        server_fail(s, x, 404, NULL, "there is no such endpoint");
    } else if (atomic_load(&s->draining) && !r->fast) {
        server_fail(s, x, 503, NULL, "the server is shutting down");
    } else {
        r->run(s, x);
    }
}

/* ---- who may ask ---- */

static bool same_secret(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    unsigned char different = n != m;
    for (size_t i = 0; i < m; i++)
        different |= (unsigned char)((unsigned char)a[n ? i % n : 0] ^ (unsigned char)b[i]);
    return !different;
}

static bool key_ok(const server *s, const web_exchange *x) {
    if (!s->o.api_key) return true;
    const char *bearer = web_header(x, "Authorization"), *key = web_header(x, "x-api-key");
    if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0 && same_secret(bearer + 7, s->o.api_key))
        return true;
    return key && same_secret(key, s->o.api_key);
}

static bool loopback_name(const char *host) {
    char name[256];
    snprintf(name, sizeof name, "%s", host);
    char *end = name[0] == '[' ? strchr(name, ']') : strrchr(name, ':');
    if (end) *end = '\0';
    const char *n = name[0] == '[' ? name + 1 : name;
    size_t length = strlen(n);
    struct in_addr four;
    if (strcasecmp(n, "localhost") == 0 || strcmp(n, "::1") == 0) return true;
    if (length > 10 && strcasecmp(n + length - 10, ".localhost") == 0) return true;
    return inet_pton(AF_INET, n, &four) == 1 && (ntohl(four.s_addr) >> 24) == 127;
}

/* The page that asks comes from this server itself. */
static bool same_origin(const char *origin, const char *host) {
    const char *at = strstr(origin, "://");
    return at && host && strcasecmp(at + 3, host) == 0;
}

static bool origin_ok(const server *s, web_exchange *x) {
    const char *origin = web_header(x, "Origin"), *host = web_header(x, "Host");
    if (s->loopback && !s->o.api_key && host && !loopback_name(host)) return false;
    if (!origin || same_origin(origin, host)) return true;
    const char *allowed = s->o.cors;
    if (!allowed || (strcmp(allowed, "*") != 0 && strcmp(allowed, origin) != 0)) return false;
    web_set_header(x, "Access-Control-Allow-Origin", allowed);
    web_set_header(x, "Vary", "Origin");
    return true;
}

static void preflight(web_exchange *x) {
    web_set_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    web_set_header(x, "Access-Control-Allow-Headers",
                   "authorization, content-type, x-api-key, anthropic-version, anthropic-beta");
    web_set_header(x, "Access-Control-Max-Age", "600");
    web_answer(x, 204, "text/plain", "", 0);
}

/* The headers are there. true: refused (or otherwise answered) without reading the body. */
static bool early(void *ctx, web_exchange *x) {
    server *s = ctx;
    char id[32];
    snprintf(id, sizeof id, "req_%08llx", (unsigned long long)web_serial(x));
    web_set_header(x, "x-request-id", id);
    bool known;
    const char *method = web_method(x);
    const route *r = find_route(method, web_path(x), &known);
    if (!origin_ok(s, x)) {
        server_fail(s, x, 403, NULL,
                    "requests of other origins are not accepted (flashchat serve --cors ORIGIN)");
    } else if (s->o.cors && known && strcmp(method, "OPTIONS") == 0) {
        preflight(x);
    } else if (!known && strcmp(web_path(x), "/v1/embeddings") == 0) {
        server_fail(s, x, 404, NULL, "this model makes no embeddings");
    } else if (!known) {
        server_fail(s, x, 404, NULL, "there is no such endpoint (GET / lists them)");
    } else if (!r) {
        web_set_header(x, "Allow", strncmp(web_path(x), "/v1/models", 10) ? "POST" : "GET");
        server_fail(s, x, 405, NULL, "this endpoint has another method");
    } else if (!r->open && !key_ok(s, x)) {
        web_set_header(x, "WWW-Authenticate", "Bearer");
        server_fail(s, x, 401, NULL,
                    "the API key is missing or wrong (Authorization: Bearer KEY, or x-api-key)");
    } else {
        return false;
    }
    return true;
}

static void refused(void *ctx, web_exchange *x, int status, const char *message) {
    server_fail(ctx, x, status, NULL, message);
}

static void log_request(void *ctx, const web_exchange *x, int status, uint64_t ns, size_t bytes) {
    server *s = ctx;
    pthread_mutex_lock(&s->m.lock);
    if (status >= 100 && status < 600) s->m.answers[status / 100]++;
    pthread_mutex_unlock(&s->m.lock);
    slog_http(s->log, "%s %s %.200s %d %zu bytes %.1f ms request %llu", web_peer(x), web_method(x),
              web_path(x), status, bytes, (double)ns * 1e-6, (unsigned long long)web_serial(x));
}

/* ---- opening and closing ---- */

static err open_front(server *s) {
    const server_options *o = &s->o;
    web_options h = {.host = o->host,
                     .port = o->listen_port,
                     .tls_cert = o->tls_cert,
                     .tls_key = o->tls_key,
                     .body_max = o->body_max,
                     .connections = o->connections,
                     .workers = o->workers,
                     .send_seconds = o->send_seconds,
                     .ping_ms = o->ping_ms,
                     .handler = handle,
                     .inline_route = inline_route,
                     .early = early,
                     .refuse = refused,
                     .log = log_request,
                     .ctx = s};
    s->loopback = !o->host || loopback_name(o->host);
    return web_open(&h, &s->http);
}

err server_open(const server_options *o, server **out) {
    *out = NULL;
    server *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for the server");
    s->o = *o;
    s->port = o->port;
    s->log = o->log;
    s->begun = time(NULL);
    pthread_mutex_init(&s->m.lock, NULL);
    const char *close_thought = "\n</think>\n\n";
    sched_options so = {.model = o->port->engine, .queue_max = o->queue_max};
    err e = o->port->tokenize(o->port->ctx, FM_MARKUP, close_thought, strlen(close_thought),
                              &s->close_thought);
    if (!e.code) e = sched_open(&so, &s->sched);
    if (!e.code) e = open_front(s);
    if (e.code) {
        server_close(s);
        return e;
    }
    slog_line(s->log, "serving %s on %s port %d, context %d, %d sessions", s->port->id,
              o->host ? o->host : "127.0.0.1", web_port(s->http), s->port->engine.context,
              s->port->engine.n_sessions);
    *out = s;
    return e;
}

int server_port(const server *s) { return web_port(s->http); }

bool server_drain(server *s, int timeout_ms) {
    slog_line(s->log, "shutting down: waiting for what runs");
    atomic_store(&s->draining, true);
    web_quiesce(s->http);
    bool clean = sched_drain(s->sched, timeout_ms);
    slog_line(s->log, clean ? "all requests are done" : "cancelling what still runs");
    return clean;
}

void server_close(server *s) {
    if (!s) return;
    web_close(s->http); /* cancels what runs: the scheduler must still be there to end it */
    sched_close(s->sched);
    fm_tokens_free(&s->close_thought);
    pthread_mutex_destroy(&s->m.lock);
    free(s);
}
