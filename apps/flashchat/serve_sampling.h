/* serve_sampling.h: how the server samples where a request does not say: the settings, else what
 * the model's authors say (generation_config.json). */
#ifndef FLASHCHAT_SERVE_SAMPLING_H
#define FLASHCHAT_SERVE_SAMPLING_H

#include "../common/args.h"
#include "server/port_engine.h"

#define SERVE_UNSAID (-1000.0f)

typedef struct serve_sampling { /* SERVE_UNSAID: as the authors say */
    float temperature, top_p, min_p, presence, frequency, repetition;
    int top_k;
} serve_sampling;

#define SERVE_SAMPLING_UNSAID                                                                      \
    { SERVE_UNSAID, SERVE_UNSAID, SERVE_UNSAID, SERVE_UNSAID, SERVE_UNSAID, SERVE_UNSAID, -1 }

/* Table entries for a struct `type` with a serve_sampling called `s`. */
#define SERVE_SAMPLING_ARG(type, field) (offsetof(type, s) + offsetof(serve_sampling, field))
/* clang-format off */
#define SERVE_SAMPLING_ARGS(type)                                                                 \
    {"--temperature", "T", "0: always the likeliest word", ARG_FLOAT,                             \
     SERVE_SAMPLING_ARG(type, temperature), 0, 100},                                              \
    {"--top-p", "P", "only the likeliest, together P of the probability", ARG_FLOAT,              \
     SERVE_SAMPLING_ARG(type, top_p), 0, 1},                                                      \
    {"--top-k", "K", "only the K likeliest", ARG_INT, SERVE_SAMPLING_ARG(type, top_k), 0,         \
     1 << 24},                                                                                    \
    {"--min-p", "P", "only those at least P times as likely as the likeliest", ARG_FLOAT,         \
     SERVE_SAMPLING_ARG(type, min_p), 0, 1},                                                      \
    {"--presence-penalty", "X", "against words already used", ARG_FLOAT,                          \
     SERVE_SAMPLING_ARG(type, presence), -100, 100},                                              \
    {"--frequency-penalty", "X", "against words, by how often they were used", ARG_FLOAT,         \
     SERVE_SAMPLING_ARG(type, frequency), -100, 100},                                             \
    {"--repetition-penalty", "X", "divides the score of words already used", ARG_FLOAT,           \
     SERVE_SAMPLING_ARG(type, repetition), 0.01, 100}
/* clang-format on */

static inline void serve_sampling_apply(port_engine *p, const serve_sampling *a) {
    fm_sampling s = port_engine_port(p)->sampling;
    if (a->temperature >= 0) s.temperature = a->temperature;
    if (a->top_p >= 0) s.top_p = a->top_p;
    if (a->top_k >= 0) s.top_k = a->top_k;
    if (a->min_p >= 0) s.min_p = a->min_p;
    if (a->presence > SERVE_UNSAID) s.presence_penalty = a->presence;
    if (a->frequency > SERVE_UNSAID) s.frequency_penalty = a->frequency;
    if (a->repetition > 0) s.repetition_penalty = a->repetition;
    port_engine_sampling(p, &s);
}

#endif
