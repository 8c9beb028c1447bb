/* generate.c: the smallest use of libflashmoe: open a model, continue a text.
 *
 *     build/examples/generate assets/ember "The capital of France" */
#include <stdio.h>
#include <string.h>

#include "flashmoe.h"

static int failed(fm_error e) {
    if (e.code) fprintf(stderr, "%s\n", e.text);
    return e.code != FM_OK;
}

/* Prints up to n tokens after what the session holds. */
static fm_error go_on(fm_engine *engine, fm_session *session, int n) {
    fm_sampling params;
    fm_sampling_init(&params); /* greedy */
    fm_sampler *sampler;
    fm_error e = fm_sampler_open(engine, &params, &sampler);
    while (!e.code && n-- > 0) {
        int32_t id;
        e = fm_session_pick(session, sampler, NULL, &id);
        if (e.code || fm_is_stop(engine, id)) break;
        size_t length;
        const char *bytes = fm_token_bytes(engine, id, &length);
        if (bytes) fwrite(bytes, 1, length, stdout);
        fflush(stdout);
        e = fm_session_step(session, id);
    }
    putchar('\n');
    fm_sampler_close(sampler);
    return e;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL_DIR TEXT\n");
        return 2;
    }
    fm_options options;
    fm_options_init(&options);
    options.model_dir = argv[1];
    fm_engine *engine;
    if (failed(fm_engine_open(&options, &engine))) return 1;

    fm_session *session;
    fm_tokens prompt = {0};
    fm_error e = fm_session_open(engine, &session);
    if (!e.code) e = fm_tokenize(engine, FM_CONTENT, argv[2], strlen(argv[2]), &prompt);
    if (!e.code) e = fm_session_sync(session, prompt.ids, prompt.count, NULL, NULL);
    if (!e.code) e = go_on(engine, session, 64);
    fm_tokens_free(&prompt);
    fm_engine_close(engine);
    return failed(e);
}
