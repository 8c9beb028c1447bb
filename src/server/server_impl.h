/* server_impl.h: what the parts of the server share. */
#ifndef SERVER_SERVER_IMPL_H
#define SERVER_SERVER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/sched.h"
#include "server/emit.h"
#include "server/server.h"
#include "server/web.h"

#define TTFT_BUCKETS 12

typedef struct metrics {
    pthread_mutex_t lock;
    uint64_t answers[6];     /* by first digit of the status */
    uint64_t generations[5]; /* by request_api */
    uint64_t gone;           /* clients that left before their answer was complete */
    uint64_t ttft[TTFT_BUCKETS + 1], ttft_count;
    double ttft_sum;
    double prompt_seconds, predicted_seconds;
    uint64_t prompt_tokens, predicted_tokens;
} metrics;

struct server {
    server_options o;
    const port *port;
    slog *log;
    web_server *http;
    sched *sched;
    metrics m;
    fm_tokens close_thought; /* what ends a think block */
    time_t begun;
    atomic_bool draining;
    bool loopback;
};

/* generate.c */
void server_generate(server *s, web_exchange *x, request_api api);
void server_count_tokens(server *s, web_exchange *x);
void server_apply_template(server *s, web_exchange *x);
/* Reads and checks the body; on failure the answer is given and false returned. */
bool server_read(server *s, web_exchange *x, request_api api, request *r);
err server_prompt(server *s, request *r, port_prompt *out) MUST_USE;

/* An error in the shape of the API that the path belongs to. */
void server_fail(server *s, web_exchange *x, int status, const char *param, const char *message);
void server_fail_api(web_exchange *x, request_api api, int status, const char *param,
                     const char *message);
/* Takes data. */
void server_json(web_exchange *x, json_t *data);

/* metrics.c */
err metrics_text(server *s, text_buf *out) MUST_USE;
void metrics_first_token(server *s, double seconds);

#endif
