/* metrics.c: GET /metrics, in Prometheus' text format. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "server/server_impl.h"

static const double ttft_bounds[TTFT_BUCKETS] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                 1,    2.5,   5,    10,  30,   120};

void metrics_first_token(server *s, double seconds) {
    int i = 0;
    while (i < TTFT_BUCKETS && seconds > ttft_bounds[i]) i++;
    pthread_mutex_lock(&s->m.lock);
    s->m.ttft[i]++;
    s->m.ttft_count++;
    s->m.ttft_sum += seconds;
    pthread_mutex_unlock(&s->m.lock);
}

static err add(text_buf *out, const char *format, ...) PRINTF_LIKE(2, 3);
static err add(text_buf *out, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return text_buf_add_text(out, line);
}

static err value(text_buf *out, const char *name, const char *type, const char *help, double v) {
    return add(out, "# HELP flashchat:%s %s\n# TYPE flashchat:%s %s\nflashchat:%s %.17g\n", name,
               help, name, type, name, v);
}

#define COUNTER(name, help, v) TRY(value(out, name, "counter", help, (double)(v)))
#define GAUGE(name, help, v)   TRY(value(out, name, "gauge", help, (double)(v)))

static double per_second(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static err requests_part(server *s, const metrics *m, text_buf *out) {
    static const char *const apis[] = {[API_CHAT] = "chat_completions",
                                       [API_COMPLETIONS] = "completions",
                                       [API_RESPONSES] = "responses",
                                       [API_MESSAGES] = "messages"};
    web_counters h;
    web_counters_get(s->http, &h);
    COUNTER("http_requests_total", "Requests, of any kind.", h.requests);
    GAUGE("http_connections", "Open connections.", h.connections);
    COUNTER("http_connections_evicted_total", "Idle connections closed to make room.", h.evicted);
    GAUGE("http_body_bytes", "Bytes of request bodies that are held.", h.body_bytes);
    TRY(add(out, "# HELP flashchat:http_responses_total Answers by the first digit of their status."
                 "\n# TYPE flashchat:http_responses_total counter\n"));
    for (int i = 1; i < 6; i++)
        TRY(add(out, "flashchat:http_responses_total{status=\"%dxx\"} %llu\n", i,
                (unsigned long long)m->answers[i]));
    TRY(add(out, "# HELP flashchat:generations_total Generations by API.\n"
                 "# TYPE flashchat:generations_total counter\n"));
    for (int i = 0; i < 4; i++)
        TRY(add(out, "flashchat:generations_total{api=\"%s\"} %llu\n", apis[i],
                (unsigned long long)m->generations[i]));
    COUNTER("clients_gone_total", "Clients that left before their answer was complete.", m->gone);
    return err_none();
}

static err tokens_part(const metrics *m, const sched_counters *c, text_buf *out) {
    COUNTER("prompt_tokens_total", "Prompt tokens computed.", m->prompt_tokens);
    COUNTER("prompt_seconds_total", "Time from start to first token.", m->prompt_seconds);
    COUNTER("tokens_predicted_total", "Tokens generated.", m->predicted_tokens);
    COUNTER("tokens_predicted_seconds_total", "Time from first to last token.",
            m->predicted_seconds);
    GAUGE("prompt_tokens_seconds", "Average prompt throughput, tokens/s.",
          per_second((double)m->prompt_tokens, m->prompt_seconds));
    GAUGE("predicted_tokens_seconds", "Average generation throughput of a request, tokens/s.",
          per_second((double)m->predicted_tokens, m->predicted_seconds));
    COUNTER("cached_tokens_total", "Prompt tokens reused from sessions.", c->tokens_cached);
    COUNTER("n_decode_total", "Steps of the model.", c->turns);
    COUNTER("step_seconds_total", "Time spent in steps of the model.", c->seconds_step);
    GAUGE("n_busy_slots_per_decode", "Sequences decoding together, average.",
          per_second((double)c->decode_rows_sum, (double)c->decode_turns));
    GAUGE("requests_processing", "Sequences running.", c->running);
    GAUGE("requests_deferred", "Sequences waiting for a session.", c->waiting);
    COUNTER("requests_failed_total", "Sequences that failed.", c->failed);
    COUNTER("requests_cancelled_total", "Sequences cancelled.", c->cancelled);
    return err_none();
}

static err engine_part(const sched_counters *c, text_buf *out) {
    const fm_stats *e = &c->engine;
    COUNTER("expert_requests_total", "Experts asked for.", e->expert_requests);
    COUNTER("expert_hits_total", "Experts found in memory.", e->expert_hits);
    COUNTER("expert_misses_total", "Experts read from storage.", e->expert_misses);
    COUNTER("expert_evictions_total", "Experts thrown out of memory.", e->expert_evictions);
    COUNTER("expert_read_bytes_total", "Bytes of experts read.", e->expert_read_bytes);
    COUNTER("expert_read_wait_seconds_total", "Time that computing stood still for reads.",
            e->seconds_read_wait);
    COUNTER("expert_prefetch_used_total", "Speculative reads that were used.", e->prefetch_used);
    COUNTER("expert_prefetch_wasted_total", "Speculative reads not used (so far).",
            e->prefetch_issued - e->prefetch_used);
    COUNTER("prompts_found_total", "Prompts whose beginning came from disk.", e->prompts_found);
    COUNTER("prompts_saved_total", "Beginnings written to disk.", e->prompts_saved);
    COUNTER("prompts_refused_total", "Damaged or foreign files in the folder of saved prompts.",
            e->prompts_refused);
    GAUGE("prompts_bytes", "Size of the folder of saved prompts.", e->prompts_bytes);
    GAUGE("gpu_lost", "1: the card was lost, the processor goes on.", e->gpu_lost);
    GAUGE("memory_resident_bytes", "Resident memory of the process.", os_rss());
    GAUGE("memory_peak_bytes", "Largest resident memory so far.", os_peak_rss());
    return err_none();
}

static err ttft_part(const metrics *m, text_buf *out) {
    TRY(add(out, "# HELP flashchat:time_to_first_token_seconds From the request to its first "
                 "token.\n# TYPE flashchat:time_to_first_token_seconds histogram\n"));
    uint64_t sum = 0;
    for (int i = 0; i < TTFT_BUCKETS; i++) {
        sum += m->ttft[i];
        TRY(add(out, "flashchat:time_to_first_token_seconds_bucket{le=\"%g\"} %llu\n",
                ttft_bounds[i], (unsigned long long)sum));
    }
    return add(out,
               "flashchat:time_to_first_token_seconds_bucket{le=\"+Inf\"} %llu\n"
               "flashchat:time_to_first_token_seconds_sum %.9g\n"
               "flashchat:time_to_first_token_seconds_count %llu\n",
               (unsigned long long)m->ttft_count, m->ttft_sum, (unsigned long long)m->ttft_count);
}

err metrics_text(server *s, text_buf *out) {
    sched_counters c;
    sched_counters_get(s->sched, &c);
    pthread_mutex_lock(&s->m.lock);
    metrics m = s->m; /* the lock in it is not used */
    pthread_mutex_unlock(&s->m.lock);
    TRY(requests_part(s, &m, out));
    TRY(tokens_part(&m, &c, out));
    TRY(engine_part(&c, out));
    return ttft_part(&m, out);
}
