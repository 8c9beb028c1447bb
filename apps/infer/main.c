/* main.c: infer, the low-level twin of flashchat for engineers: text or token ids in, text or ids
 * out, and a look at every layer on the way.
 *
 *     infer --model DIR --prompt TEXT --tokens 20 --timing
 *     infer --model DIR --prompt-tokens ids.txt --tokens 20 --cpu scalar --exact
 *
 * What the model says goes to standard output, everything else to standard error. Exit codes as
 * those of flashchat. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/model.h"
#include "render.h"
#include "routing.h"

#define PROGRAM        "infer"
#define TOKEN_FILE_MAX ((size_t)256 << 20) /* bytes */
#define TOKENS_DEFAULT 64

typedef struct infer_args {
    model_args m;
    const char *render_request, *render_output, *parse_call;
    const char *prompt, *prompt_tokens, *routing;
    int tokens;
    const char *route_trace;
    bool timing, freq, markup, ids, ignore_stop;
    float temperature;
    uint64_t seed;
} infer_args;

static const infer_args defaults = {.m = MODEL_DEFAULTS, .tokens = TOKENS_DEFAULT};

static const arg_def defs[] = {
    {NULL, NULL, "Input", ARG_HEADING, 0, 0, 0},
    {"--prompt", "TEXT", "continue this text", ARG_TEXT, offsetof(infer_args, prompt), 0, 0},
    {"--markup", NULL, "special tokens in it are recognised (<|im_start|> ...)", ARG_FLAG,
     offsetof(infer_args, markup), 0, 0},
    {"--prompt-tokens", "FILE", "continue these token ids: numbers between spaces, commas, lines",
     ARG_TEXT, offsetof(infer_args, prompt_tokens), 0, 0},
    {NULL, NULL, "Output", ARG_HEADING, 0, 0, 0},
    {"--tokens", "N", "how many at most (default 64)", ARG_INT, offsetof(infer_args, tokens), 0,
     1 << 24},
    {"--ids", NULL, "print token ids instead of text", ARG_FLAG, offsetof(infer_args, ids), 0, 0},
    {"--ignore-stop", NULL, "go on after an end-of-text token", ARG_FLAG,
     offsetof(infer_args, ignore_stop), 0, 0},
    {"--temperature", "T", "0: always the likeliest (default)", ARG_FLOAT,
     offsetof(infer_args, temperature), 0, 100},
    {"--seed", "N", "of the draws", ARG_U64, offsetof(infer_args, seed), 0, 0},
    {NULL, NULL, "A look inside", ARG_HEADING, 0, 0, 0},
    {"--timing", NULL, "seconds and bytes of every layer", ARG_FLAG, offsetof(infer_args, timing),
     0, 0},
    {"--freq", NULL, "how often each expert was chosen", ARG_FLAG, offsetof(infer_args, freq), 0,
     0},
    {"--collect-routing", "FILE", "write the experts of every token as JSON lines", ARG_TEXT,
     offsetof(infer_args, routing), 0, 0},
    {"--route-trace", "FILE", "take the experts from such a file, not from the routers", ARG_TEXT,
     offsetof(infer_args, route_trace), 0, 0},
    {NULL, NULL, "Chat templates and tool calls (no weights are read)", ARG_HEADING, 0, 0, 0},
    {"--render-request", "FILE", "render {\"messages\", \"tools\", \"chat_template_kwargs\"}",
     ARG_TEXT, offsetof(infer_args, render_request), 0, 0},
    {"--render-output", "DIR", "where prompt.txt, tokens.txt and counts.json go", ARG_TEXT,
     offsetof(infer_args, render_output), 0, 0},
    {"--parse-tool-call", "FILE", "what a reply says, as JSON", ARG_TEXT,
     offsetof(infer_args, parse_call), 0, 0},
    {NULL, NULL, "The model", ARG_HEADING, 0, 0, 0},
    MODEL_ARGS(infer_args),
    STREAM_ARGS(infer_args),
    {"--k", "N", "experts per token (fewer than trained: lossy)", ARG_INT,
     MODEL_ARG(infer_args, experts), 1, 1024},
    {"--io-threads", "N", "reading threads", ARG_INT, MODEL_ARG(infer_args, io_threads), 1, 64},
    {"--no-checksums", NULL, "do not check a packed model's experts as they are read", ARG_FLAG,
     MODEL_ARG(infer_args, no_checksums), 0, 0},
};

/* ---- input -------------------------------------------------------------- */

/* Numbers between anything that is no letter: "[1, 2, 3]" and "1 2\n3" alike. */
static int parse_ids(const char *path, const char *text, fm_tokens *out) {
    int line = 1;
    for (const char *at = text; *at;) {
        if (isdigit((unsigned char)*at)) {
            char *end;
            errno = 0;
            long id = strtol(at, &end, 10);
            if (errno || id > INT32_MAX) {
                fprintf(stderr, "%s: %s line %d: a number is too large for a token id\n", PROGRAM,
                        path, line);
                return EXIT_FAILED;
            }
            fm_error e = fm_tokens_push(out, (int32_t)id);
            if (e.code) return fail(PROGRAM, &e);
            at = end;
        } else if (isspace((unsigned char)*at) || strchr(",;[]", *at)) {
            line += *at++ == '\n';
        } else {
            fprintf(stderr, "%s: %s line %d: \"%.12s\" is no token id\n", PROGRAM, path, line, at);
            return EXIT_FAILED;
        }
    }
    if (out->count) return 0;
    fprintf(stderr, "%s: %s has no token ids\n", PROGRAM, path);
    return EXIT_FAILED;
}

static int read_ids(const char *path, fm_tokens *out) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: %s: %s\n", PROGRAM, path, strerror(errno));
        return EXIT_FAILED;
    }
    char *text = malloc(TOKEN_FILE_MAX + 1);
    size_t n = text ? fread(text, 1, TOKEN_FILE_MAX + 1, f) : 0;
    bool broken = !text || ferror(f) || n > TOKEN_FILE_MAX;
    fclose(f);
    if (broken) {
        fprintf(stderr, "%s: %s cannot be read, or is longer than %zu MB\n", PROGRAM, path,
                TOKEN_FILE_MAX >> 20);
        free(text);
        return EXIT_FAILED;
    }
    text[n] = '\0';
    int code = 0;
    if (strlen(text) != n) {
        fprintf(stderr, "%s: %s is not a text file\n", PROGRAM, path);
        code = EXIT_FAILED;
    }
    if (!code) code = parse_ids(path, text, out);
    free(text);
    return code;
}

static int read_prompt(const infer_args *a, const fm_engine *engine, fm_tokens *out) {
    if (a->prompt_tokens) return read_ids(a->prompt_tokens, out);
    fm_error e =
        fm_tokenize(engine, a->markup ? FM_MARKUP : FM_CONTENT, a->prompt, strlen(a->prompt), out);
    if (e.code) return fail(PROGRAM, &e);
    if (out->count) return 0;
    return args_wrong(PROGRAM, "the prompt is empty");
}

/* ---- output ------------------------------------------------------------- */

typedef struct printer {
    const fm_engine *engine;
    fm_utf8 utf8;
    bool ids, any;
} printer;

static void print_token(printer *p, int32_t id) {
    size_t length = 0;
    const char *bytes = p->ids ? NULL : fm_token_bytes(p->engine, id, &length);
    if (!bytes) { /* no tokenizer, or a gap in its vocabulary */
        printf("%s%d", p->any ? " " : "", id);
    } else {
        char *out = malloc(3 * length + 9);
        if (out) fwrite(out, 1, fm_utf8_push(&p->utf8, bytes, length, out), stdout);
        free(out);
    }
    p->any = true;
    fflush(stdout);
}

static void print_end(printer *p) {
    char out[16];
    fwrite(out, 1, fm_utf8_end(&p->utf8, out), stdout);
    putchar('\n');
    fflush(stdout);
}

static void print_timing(const fm_engine *e) {
    fm_model m;
    fm_model_get(e, &m);
    fm_layer_timing *t = calloc((size_t)m.layers, sizeof *t), sum = {0};
    int n = t ? fm_timing_get(e, t, m.layers) : 0;
    fprintf(stderr, "\nlayer  attention   DeltaNet     router  read wait    experts      other (ms)"
                    "     read\n");
    for (int i = 0; i <= n; i++) {
        fm_layer_timing x = i < n ? t[i] : sum;
        char name[16], bytes[16];
        snprintf(name, sizeof name, i < n ? "%5d" : "total", i);
        fprintf(stderr, "%s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f      %8s\n", name,
                1e3 * x.attention, 1e3 * x.delta, 1e3 * x.router, 1e3 * x.read_wait,
                1e3 * x.experts, 1e3 * x.other, size_text((double)x.read_bytes, bytes));
        sum.attention += x.attention;
        sum.delta += x.delta;
        sum.router += x.router;
        sum.read_wait += x.read_wait;
        sum.experts += x.experts;
        sum.other += x.other;
        sum.read_bytes += x.read_bytes;
    }
    free(t);
}

static double rate(uint64_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

static void print_stats(const fm_engine *e) {
    fm_stats s;
    fm_model m;
    fm_stats_get(e, &s);
    fm_model_get(e, &m);
    char read[16], peak[16];
    fprintf(stderr, "%s, %d layers, %d of %d experts a token, %s kernels, %d threads\n",
            m.architecture, m.layers, m.experts_per_token, m.experts, m.cpu, m.threads);
    fprintf(stderr, "prefill %llu tokens, %.1f tok/s; decode %llu tokens, %.1f tok/s\n",
            (unsigned long long)s.tokens_prefill, rate(s.tokens_prefill, s.seconds_prefill),
            (unsigned long long)s.tokens_decode, rate(s.tokens_decode, s.seconds_decode));
    fprintf(stderr,
            "experts: %llu asked for, %llu in memory, %llu read (%s), %llu thrown out; %.3f s "
            "waited for reads; peak memory %s\n",
            (unsigned long long)s.expert_requests, (unsigned long long)s.expert_hits,
            (unsigned long long)s.expert_misses, size_text((double)s.expert_read_bytes, read),
            (unsigned long long)s.expert_evictions, s.seconds_read_wait,
            size_text((double)s.memory_peak, peak));
}

static void print_card(const fm_engine *e) {
    fm_stats s;
    fm_model m;
    fm_stats_get(e, &s);
    fm_model_get(e, &m);
    if (!m.gpu) return;
    char taken[16], up[16], down[16];
    if (m.places) fprintf(stderr, "%s\n", m.places);
    fprintf(
        stderr,
        "%s: %s taken, %d expert slots; %llu experts uploaded (%s), %llu of %llu guesses used, "
        "%llu promoted (%s back), %llu computed on the processor; %llu of %llu steps as graphs\n",
        m.gpu, size_text((double)m.gpu_bytes, taken), m.gpu_slots,
        (unsigned long long)s.gpu_uploads, size_text((double)s.gpu_upload_bytes, up),
        (unsigned long long)s.gpu_guesses_used, (unsigned long long)s.gpu_guesses,
        (unsigned long long)s.gpu_promotions, size_text((double)s.gpu_download_bytes, down),
        (unsigned long long)s.gpu_on_cpu, (unsigned long long)s.gpu_graph_steps,
        (unsigned long long)s.gpu_steps);
}

/* ---- the run ------------------------------------------------------------ */

static fm_error decode(const infer_args *a, fm_engine *e, fm_session *s, fm_sampler *sampler) {
    printer p = {.engine = e, .ids = a->ids};
    fm_error error = {FM_OK, ""};
    fm_model m;
    fm_model_get(e, &m);
    for (int n = 0; n < a->tokens; n++) {
        int32_t id;
        error = fm_session_pick(s, sampler, NULL, &id);
        if (error.code) break;
        if (!a->ignore_stop && fm_is_stop(e, id)) break;
        print_token(&p, id);
        if (fm_session_length(s) >= (size_t)m.context || n + 1 == a->tokens) break;
        error = fm_session_step(s, id);
        if (error.code) break;
    }
    print_end(&p);
    return error;
}

static int run_model(const infer_args *a, fm_engine *e, const fm_tokens *prompt) {
    routing *r = NULL;
    if (a->freq || a->routing) {
        r = routing_open(PROGRAM, e, a->routing);
        if (!r) return EXIT_FAILED;
    }
    fm_session *s;
    fm_sampler *sampler = NULL;
    fm_sampling p;
    fm_sampling_init(&p);
    p.temperature = a->temperature;
    p.seed = a->seed;
    if (a->timing) fm_timing_enable(e, true);
    fm_error error = fm_routing_replay(e, a->route_trace);
    if (!error.code) error = fm_session_open(e, &s);
    if (!error.code) error = fm_sampler_open(e, &p, &sampler);
    if (!error.code) error = fm_session_sync(s, prompt->ids, prompt->count, NULL, NULL);
    if (!error.code) error = decode(a, e, s, sampler);
    int code = error.code ? fail(PROGRAM, &error) : 0;
    fm_sampler_close(sampler);
    if (!code || code == EXIT_INTERRUPTED) {
        print_stats(e);
        print_card(e);
        if (a->timing) print_timing(e);
        if (a->freq) routing_print(r);
    }
    int closed = routing_close(r);
    return code ? code : closed;
}

static int run(const infer_args *a) {
    fm_engine *e = model_open(PROGRAM, &a->m, 1);
    if (!e) return EXIT_FAILED;
    fm_tokens prompt = {0};
    int code = read_prompt(a, e, &prompt);
    if (!code) {
        interrupt_watch(e);
        code = run_model(a, e, &prompt);
        interrupt_watch(NULL);
    }
    fm_tokens_free(&prompt);
    fm_engine_close(e);
    return code;
}

/* --render-request and --parse-tool-call: the text around the model, without the model. */
static int look_at_text(const infer_args *a) {
    if (a->render_request && !a->render_output) {
        return args_wrong(PROGRAM, "--render-request needs --render-output DIR");
    }
    char dir[MODEL_PATH_MAX];
    if (!model_find(PROGRAM, a->m.model, dir)) return EXIT_FAILED;
    if (a->parse_call) return parse_tool_call(dir, a->parse_call);
    return render_request(dir, a->render_request, a->render_output);
}

int main(int argc, char **argv) {
    infer_args a = defaults;
    arg_list rest;
    arg_table table = {PROGRAM, defs, sizeof defs / sizeof defs[0]};
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        printf("infer %s\n", FM_VERSION);
        return 0;
    }
    switch (args_parse(&table, argc - 1, argv + 1, &a, &rest)) {
    case ARGS_WRONG: return EXIT_USAGE;
    case ARGS_HELP:
        printf("usage: infer --prompt TEXT | --prompt-tokens FILE [options]\n");
        args_help(&table);
        return 0;
    case ARGS_OK: break;
    }
    if (rest.n)
        return args_wrong(PROGRAM, "what is \"%s\"? The text goes after --prompt", rest.item[0]);
    if (a.render_request || a.parse_call) return look_at_text(&a);
    if (!a.prompt == !a.prompt_tokens)
        return args_wrong(PROGRAM, "give either --prompt TEXT or --prompt-tokens FILE");
    int code = run(&a);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write to standard output\n", PROGRAM);
        return EXIT_FAILED;
    }
    return code;
}
