/* score.c: which of several continuations does a model find likeliest? Shows sessions that go back
 * to a common beginning, and logits as numbers.
 *
 *     build/examples/score assets/ember "The capital of France is" " Paris." " Rome." " a cat." */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flashmoe.h"

static double log_probability(const float *logits, int vocab, int32_t id) {
    double highest = (double)logits[0], sum = 0;
    for (int i = 1; i < vocab; i++)
        if ((double)logits[i] > highest) highest = (double)logits[i];
    for (int i = 0; i < vocab; i++) sum += exp((double)logits[i] - highest);
    return (double)logits[id] - highest - log(sum);
}

/* log p(continuation | beginning). Each call goes back to the beginning: what the session still
 * knows of it is not computed again. */
static fm_error score(fm_engine *engine, fm_session *session, const char *beginning,
                      const char *continuation, double *out) {
    fm_model model;
    fm_model_get(engine, &model);
    fm_tokens tokens = {0};
    *out = 0;
    fm_error e = fm_tokenize(engine, FM_CONTENT, beginning, strlen(beginning), &tokens);
    size_t start = tokens.count;
    if (!e.code) e = fm_tokenize(engine, FM_CONTENT, continuation, strlen(continuation), &tokens);
    if (!e.code) e = fm_session_sync(session, tokens.ids, start, NULL, NULL);
    for (size_t i = start; !e.code && i < tokens.count; i++) {
        *out += log_probability(fm_session_logits(session), model.vocab, tokens.ids[i]);
        e = fm_session_step(session, tokens.ids[i]);
    }
    fm_tokens_free(&tokens);
    return e;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: score MODEL_DIR BEGINNING CONTINUATION...\n");
        return 2;
    }
    fm_options options;
    fm_options_init(&options);
    options.model_dir = argv[1];
    fm_engine *engine;
    fm_session *session = NULL;
    fm_error e = fm_engine_open(&options, &engine);
    if (!e.code) e = fm_session_open(engine, &session);
    for (int i = 3; i < argc && !e.code; i++) {
        double log_p;
        e = score(engine, session, argv[2], argv[i], &log_p);
        if (!e.code) printf("%8.3f  %s%s\n", log_p, argv[2], argv[i]);
    }
    fm_engine_close(engine);
    if (e.code) fprintf(stderr, "%s\n", e.text);
    return e.code != FM_OK;
}
