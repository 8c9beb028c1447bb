/* http.h: how src/hub speaks to a hub: one request with its headers understood, when to try again,
 * and what a refusal means in words. The only home of libcurl. */
#ifndef HUB_HTTP_H
#define HUB_HTTP_H

#include <curl/curl.h>

#include "hub/hub.h"

#define HTTP_URL_MAX 6144

typedef struct http_reply {           /* of the last hop, except where said otherwise */
    long status;                      /* 0: no answer at all */
    int hops;                         /* answers so far: redirects count */
    char etag[130];                   /* bare: X-Linked-Etag of any hop, else ETag of the first */
    char next[HTTP_URL_MAX];          /* Link: <...>; rel="next" */
    int64_t range_start, range_total; /* Content-Range; -1: none */
    int64_t length;                   /* Content-Length; -1: none */
    double wait;       /* seconds that Retry-After or RateLimit ask for; -1: nothing asked */
    char message[200]; /* X-Error-Message, cleaned */
} http_reply;

void http_reply_clear(http_reply *r);
/* One header line of any hop; a status line starts a new hop. */
void http_reply_line(http_reply *r, const char *line, size_t length);

/* A transfer of `url` with the options' token and limits, ready to perform. Owned by the caller
 * (http_close). reply is filled while it runs and must outlive it. */
typedef struct http_request {
    CURL *easy;
    struct curl_slist *headers;
} http_request;

err http_open(const hub_options *o, const char *url, http_reply *reply, http_request *out) MUST_USE;
void http_close(http_request *r);

/* What a finished request means. */
typedef enum http_verdict {
    HTTP_DONE,  /* 200 or 206 */
    HTTP_RETRY, /* worth another try after a wait */
    HTTP_FATAL, /* *why says what it is and what to do */
} http_verdict;

http_verdict http_judge(CURLcode code, const http_reply *reply, const char *what, err *why);
/* Seconds before try number `attempt` (1, 2 ...): what the hub asked for, else doubling. */
double http_wait(const hub_options *o, const http_reply *reply, int attempt);

/* The whole body into memory, zero-terminated, with retries. *body is the caller's (free). */
err http_get(const hub_options *o, const char *url, size_t max_bytes, http_reply *reply,
             char **body, size_t *length) MUST_USE;

/* "ENDPOINT/prefix/REPO/middle/tail" with what needs it percent-encoded in tail. */
err http_url(char *out, const char *base, const char *path) MUST_USE;

bool hub_cancelled(const hub_options *o);

#endif
