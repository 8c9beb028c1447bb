/* http.c: see http.h. */
#include "hub/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/bits.h"

bool hub_cancelled(const hub_options *o) { return o->cancel && atomic_load(o->cancel); }

/* ---- headers ---- */

void http_reply_clear(http_reply *r) {
    memset(r, 0, sizeof *r);
    r->range_start = r->range_total = r->length = -1;
    r->wait = -1;
}

/* The value of "Name: value" when the line has that name. */
static const char *value_of(const char *line, const char *name) {
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) || line[n] != ':') return NULL;
    for (line += n + 1; *line == ' ' || *line == '\t';) line++;
    return line;
}

static void take_etag(http_reply *r, const char *v) {
    size_t n = 0;
    if (r->etag[0]) return;
    if (!strncmp(v, "W/", 2)) v += 2;
    for (; *v && *v != ' '; v++)
        if (*v != '"' && n + 1 < sizeof r->etag) r->etag[n++] = *v;
    r->etag[n] = '\0';
}

/* Link: <https://...>; rel="next" */
static void take_link(http_reply *r, const char *v) {
    const char *end = v[0] == '<' ? strchr(v, '>') : NULL;
    if (!end || !strstr(end, "rel=\"next\"")) return;
    size_t n = (size_t)(end - v - 1);
    if (n >= sizeof r->next) return;
    memcpy(r->next, v + 1, n);
    r->next[n] = '\0';
}

/* RateLimit: "api";r=0;t=120 says that nothing is left for 120 seconds. */
static void take_rate_limit(http_reply *r, const char *v) {
    const char *left = strstr(v, ";r="), *seconds = strstr(v, ";t=");
    if (left && seconds && strtol(left + 3, NULL, 10) == 0)
        r->wait = (double)strtol(seconds + 3, NULL, 10);
}

static void take_message(http_reply *r, const char *v) {
    snprintf(r->message, sizeof r->message, "%.190s", v);
    for (char *p = r->message; *p; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126) *p = '?';
}

static void take_range(http_reply *r, const char *v) {
    char *end;
    if (strncasecmp(v, "bytes ", 6)) return;
    long long start = strtoll(v + 6, &end, 10);
    const char *slash = strchr(v, '/');
    if (*end != '-' || !slash) return;
    r->range_start = start;
    r->range_total = slash[1] == '*' ? -1 : strtoll(slash + 1, NULL, 10);
}

void http_reply_line(http_reply *r, const char *bytes, size_t length) {
    char line[HTTP_URL_MAX + 64];
    const char *v;
    size_t n = size_min(length, sizeof line - 1);
    memcpy(line, bytes, n);
    while (n && (line[n - 1] == '\r' || line[n - 1] == '\n')) n--;
    line[n] = '\0';
    if (!strncmp(line, "HTTP/", 5)) { /* a new hop: what the last one said counts no more */
        const char *space = strchr(line, ' ');
        r->hops++;
        r->status = space ? strtol(space + 1, NULL, 10) : 0;
        r->range_start = r->range_total = r->length = -1;
        r->wait = -1;
        r->next[0] = '\0';
        return;
    }
    if ((v = value_of(line, "X-Linked-Etag"))) r->etag[0] = '\0', take_etag(r, v);
    /* Where a redirect leads, ETag is the storage's own and says nothing about the file. */
    if (r->hops == 1 && (v = value_of(line, "ETag"))) take_etag(r, v);
    if ((v = value_of(line, "Link"))) take_link(r, v);
    if ((v = value_of(line, "Content-Range"))) take_range(r, v);
    if ((v = value_of(line, "Content-Length"))) r->length = strtoll(v, NULL, 10);
    if ((v = value_of(line, "RateLimit"))) take_rate_limit(r, v);
    if ((v = value_of(line, "Retry-After")) && *v >= '0' && *v <= '9')
        r->wait = (double)strtol(v, NULL, 10);
    if ((v = value_of(line, "X-Error-Message"))) take_message(r, v);
}

/* ---- one request ---- */

err http_url(char *out, const char *base, const char *path) {
    static const char hex[] = "0123456789ABCDEF";
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~/";
    size_t n = strlen(base);
    if (n + 3 * strlen(path) + 1 > HTTP_URL_MAX)
        return err_make(ERR_RANGE, "the address is too long");
    memcpy(out, base, n);
    for (const char *p = path; *p; p++) {
        if (strchr(plain, *p)) {
            out[n++] = *p;
            continue;
        }
        out[n++] = '%';
        out[n++] = hex[(unsigned char)*p >> 4];
        out[n++] = hex[(unsigned char)*p & 15];
    }
    out[n] = '\0';
    return err_none();
}

static size_t on_header(char *line, size_t size, size_t n, void *reply) {
    http_reply_line(reply, line, size * n);
    return size * n;
}

static int on_time(void *o, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return hub_cancelled(o);
}

/* A custom Authorization header stays with its host: libcurl drops it at a redirect to another. */
static err add_token(const hub_options *o, http_request *r) {
    char line[1024];
    if (!o->token || !o->token[0]) return err_none();
    for (const char *p = o->token; *p; p++)
        if (*p <= 32 || *p > 126)
            return err_make(ERR_ARG,
                            "the hub token has a character that no token has; check HF_TOKEN");
    int n = snprintf(line, sizeof line, "Authorization: Bearer %s", o->token);
    if (n >= (int)sizeof line)
        return err_make(ERR_ARG, "the hub token is too long; check HF_TOKEN");
    r->headers = curl_slist_append(NULL, line);
    return r->headers ? err_none() : err_make(ERR_NOMEM, "no memory for a request");
}

err http_open(const hub_options *o, const char *url, http_reply *reply, http_request *out) {
    *out = (http_request){curl_easy_init(), NULL};
    if (!out->easy) return err_make(ERR_NOMEM, "no memory for a request");
    err e = add_token(o, out);
    if (e.code) return http_close(out), e;
    CURL *c = out->easy;
    long stall = o->stall > 0 ? (long)(o->stall + 0.5) : 30;
    bool plain_http = !strncasecmp(o->endpoint, "http://", 7);
    http_reply_clear(reply);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, out->headers);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "flashchat");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, 10L);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, plain_http ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, plain_http ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, stall < 1 ? 1L : stall);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, reply);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_time);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, (void *)o);
    return e;
}

void http_close(http_request *r) {
    curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    *r = (http_request){NULL, NULL};
}

/* ---- verdicts ---- */

static err refusal(const http_reply *r, const char *what) {
    const char *said = r->message[0] ? r->message : NULL, *open = said ? " (" : "",
               *close = said ? ")" : "";
    if (!said) said = "";
    switch (r->status) {
    case 401:
        return err_make(ERR_ARG,
                        "%s: the hub does not know you, or there is no such model%s%s%s. Check "
                        "the name; for a private or gated model set HF_TOKEN to a token of "
                        "yours with read access",
                        what, open, said, close);
    case 403:
        return err_make(ERR_ARG,
                        "%s: the hub says that you may not have it%s%s%s. Open the model's page "
                        "on the hub, accept its conditions, and set HF_TOKEN",
                        what, open, said, close);
    case 404:
        return err_make(ERR_NOT_FOUND,
                        "%s: the hub does not have it%s%s%s. Check the name and the "
                        "revision",
                        what, open, said, close);
    case 416: return err_make(ERR_CORRUPT, "%s: the hub has fewer bytes of it than we have", what);
    default:
        return err_make(ERR_IO, "%s: the hub answered %ld%s%s%s", what, r->status, open, said,
                        close);
    }
}

http_verdict http_judge(CURLcode code, const http_reply *r, const char *what, err *why) {
    *why = err_none();
    if (code == CURLE_OK && (r->status == 200 || r->status == 206)) return HTTP_DONE;
    if (code == CURLE_OK) {
        *why = refusal(r, what);
        bool again = r->status == 408 || r->status == 429 || r->status >= 500;
        return again ? HTTP_RETRY : HTTP_FATAL;
    }
    *why = err_make(ERR_IO, "%s: %s", what, curl_easy_strerror(code));
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_OUT_OF_MEMORY: return HTTP_FATAL;
    default: return HTTP_RETRY;
    }
}

double http_wait(const hub_options *o, const http_reply *r, int attempt) {
    double most = o->wait_max > 0 ? o->wait_max : 300, first = o->backoff > 0 ? o->backoff : 0.5;
    if (r->wait >= 0) return r->wait < most ? r->wait : most;
    double wait = first;
    for (int i = 1; i < attempt && wait < 30; i++) wait *= 2;
    if (wait > 30) wait = 30;
    return wait < most ? wait : most;
}

/* ---- a body in memory ---- */

typedef struct body {
    char *bytes; /* owned */
    size_t length, capacity, max;
    bool too_long;
} body;

static size_t on_body(char *bytes, size_t size, size_t n, void *ctx) {
    body *b = ctx;
    size_t more = size * n;
    if (more > b->max - b->length) {
        b->too_long = true;
        return 0;
    }
    if (b->length + more + 1 > b->capacity) {
        size_t capacity = (b->length + more + 1) * 2;
        char *grown = realloc(b->bytes, capacity);
        if (!grown) return 0;
        b->bytes = grown, b->capacity = capacity;
    }
    memcpy(b->bytes + b->length, bytes, more);
    b->length += more;
    b->bytes[b->length] = '\0';
    return more;
}

/* Sleeps in short pieces so that a cancel is seen. */
static void pause_for(const hub_options *o, double seconds) {
    for (; seconds > 0 && !hub_cancelled(o); seconds -= 0.1) {
        double piece = seconds < 0.1 ? seconds : 0.1;
        struct timespec t = {0, (long)(piece * 1e9)};
        nanosleep(&t, NULL);
    }
}

static http_verdict get_once(const hub_options *o, const char *url, http_reply *reply, body *b,
                             err *why) {
    http_request r;
    *why = http_open(o, url, reply, &r);
    if (why->code) return HTTP_FATAL;
    curl_easy_setopt(r.easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r.easy, CURLOPT_WRITEDATA, b);
    CURLcode code = curl_easy_perform(r.easy);
    http_close(&r);
    if (hub_cancelled(o)) {
        *why = err_make(ERR_CANCELLED, "stopped");
        return HTTP_FATAL;
    }
    if (b->too_long) {
        *why = err_make(ERR_RANGE, "%s: more than %zu bytes", url, b->max);
        return HTTP_FATAL;
    }
    return http_judge(code, reply, url, why);
}

err http_get(const hub_options *o, const char *url, size_t max_bytes, http_reply *reply, char **out,
             size_t *length) {
    int attempts = o->attempts > 0 ? o->attempts : 6;
    *out = NULL;
    *length = 0;
    for (int attempt = 1;; attempt++) {
        body b = {.max = max_bytes};
        err why;
        http_verdict v = get_once(o, url, reply, &b, &why);
        if (v == HTTP_DONE) {
            *out = b.bytes ? b.bytes : calloc(1, 1);
            *length = b.length;
            return *out ? err_none() : err_make(ERR_NOMEM, "no memory for an answer");
        }
        free(b.bytes);
        if (v == HTTP_FATAL) return why;
        if (attempt >= attempts) return err_within(why, "given up after %d tries", attempt);
        pause_for(o, http_wait(o, reply, attempt));
        if (hub_cancelled(o)) return err_make(ERR_CANCELLED, "stopped");
    }
}
