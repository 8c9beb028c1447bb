/* plan.c: flashchat plan: what a model needs, what it would get, and how fast it could at best be.
 *
 * Two speed limits are shown, each from a bandwidth measured while the command runs: memory must
 * deliver all the bytes that a token touches, and the disk those of the experts that are not in
 * memory. The share found in memory is not known beforehand; shown is what evenly spread use of
 * the experts would give, the worst case of a cache that keeps what is used often. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "../common/model.h"
#include "command.h"
#include "screen.h"

#define MEASURE_SECONDS 0.4

typedef struct plan_args {
    model_args m;
    bool json, skip;
} plan_args;

static const arg_def defs[] = {
    MODEL_ARGS(plan_args),
    {"--no-measure", NULL, "do not measure memory and disk", ARG_FLAG, offsetof(plan_args, skip), 0,
     0},
    {"--json", NULL, "one JSON object", ARG_FLAG, offsetof(plan_args, json), 0, 0},
};

typedef struct figures {
    fm_plan p;
    fm_machine machine;                /* zero when not measured */
    double token_bytes;                /* read from memory for one token */
    double hit_rate;                   /* with evenly spread use */
    double token_missed;               /* read from disk for one token */
    double memory_tokens, disk_tokens; /* tokens a second at best; 0: no limit or not measured */
} figures;

static void compute(figures *f) {
    const fm_plan *p = &f->p;
    f->token_bytes = (double)p->trunk_bytes_token + (double)p->expert_bytes_token;
    double held = (double)p->cache + (double)p->vram_cache;
    f->hit_rate = p->experts_total ? held / (double)p->experts_total : 1;
    if (f->hit_rate > 1 || p->resident) f->hit_rate = 1;
    f->token_missed = (1 - f->hit_rate) * (double)p->expert_bytes_token;
    if (f->token_bytes > 0) f->memory_tokens = f->machine.memory_read / f->token_bytes;
    if (f->token_missed > 0) f->disk_tokens = f->machine.disk_read / f->token_missed;
}

/* ---- what if ---- */

#define CHANGES_MAX 6

typedef struct change { /* another machine, or another way to run: the speed at best, even use */
    char what[120];
    double tokens;    /* a second; 0: no limit is known */
    bool lossy, fits; /* lossy: answers change */
} change;

/* cache: bytes for experts; disk: bytes a second; k: the share of the trained experts. */
static double speed_at(const figures *f, double cache, double disk, double k) {
    const fm_plan *p = &f->p;
    double expert = (double)p->expert_bytes_token * k;
    double held = p->experts_total ? cache / (double)p->experts_total : 1;
    double missed = held >= 1 ? 0 : (1 - held) * expert, seconds = 0;
    if (f->machine.memory_read > 0)
        seconds = ((double)p->trunk_bytes_token + expert) / f->machine.memory_read;
    if (disk > 0 && missed / disk > seconds) seconds = missed / disk;
    return seconds > 0 ? 1 / seconds : 0;
}

static change *add_change(change *all, int *n) {
    change *c = &all[(*n)++];
    *c = (change){.fits = true};
    return c;
}

static int what_if(const figures *f, change all[CHANGES_MAX]) {
    const fm_plan *p = &f->p;
    char size[16];
    int n = 0;
    double fixed = (double)p->floor, limit = (double)p->memory_limit, disk = f->machine.disk_read;
    double cache = p->fits ? (double)p->cache : 0, whole = fixed + (double)p->experts_total;
    if (f->machine.memory_read <= 0) return 0;
    change *c = add_change(all, &n);
    snprintf(c->what, sizeof c->what, "as it is");
    c->fits = p->fits;
    c->tokens = speed_at(f, p->resident ? (double)p->experts_total : cache, disk, 1);
    if (2 * limit >= fixed && 2 * limit < whole) {
        c = add_change(all, &n);
        snprintf(c->what, sizeof c->what, "twice the memory, %s", size_text(2 * limit, size));
        c->tokens = speed_at(f, 2 * limit - fixed, disk, 1);
    }
    if (!p->resident && limit < whole) {
        c = add_change(all, &n);
        snprintf(c->what, sizeof c->what, "all experts in memory, %s", size_text(whole, size));
        c->tokens = speed_at(f, (double)p->experts_total, disk, 1);
        c = add_change(all, &n);
        snprintf(c->what, sizeof c->what, "a drive twice as fast, %s/s", size_text(2 * disk, size));
        c->fits = p->fits;
        c->tokens = speed_at(f, cache, 2 * disk, 1);
    }
    int fewer = (2 * p->experts_per_token + 2) / 3; /* what MEASURED.md has a figure for */
    if (fewer < p->experts_per_token) {
        c = add_change(all, &n);
        snprintf(c->what, sizeof c->what, "%d experts a token, not %d", fewer,
                 p->experts_per_token);
        c->lossy = true;
        c->fits = p->fits;
        c->tokens = speed_at(f, p->resident ? (double)p->experts_total : cache, disk,
                             (double)fewer / p->experts_per_token);
    }
    return n;
}

static void print_what_if(const figures *f) {
    change all[CHANGES_MAX];
    int n = what_if(f, all);
    if (!n) return;
    puts("\nWhat if (at best, with evenly spread use of the experts)");
    for (int i = 0; i < n; i++) {
        char first[200];
        snprintf(first, sizeof first, "  %-36.100s ", all[i].what);
        char text[300];
        if (!all[i].fits)
            snprintf(text, sizeof text, "does not fit");
        else
            snprintf(text, sizeof text, "%.1f tok/s", all[i].tokens);
        print_wrapped(stdout, first, text);
    }
    if (!all[n - 1].lossy) return;
    print_wrapped(stdout, "  ",
                  "Fewer experts make answers worse: on the bundled model 4 of 6 cost 1.8 % of "
                  "perplexity (docs/MEASURED.md). What it costs yours: flashchat benchmark "
                  "quality --k N");
}

static void line(const char *name, size_t bytes, const char *what) {
    char text[16], first[60];
    snprintf(first, sizeof first, "  %-9s %10s   ", name, size_text((double)bytes, text));
    print_wrapped(stdout, first, what);
}

static const char *kv_name(fm_kv type) {
    return type == FM_KV_F32 ? "f32" : type == FM_KV_Q8 ? "q8" : "f16";
}

static void print_card(const fm_plan *p) {
    char note[96];
    snprintf(note, sizeof note, "for %d of %d experts: the others are in memory or on disk",
             p->vram_slots, p->experts * p->sparse_layers);
    if (p->vram_slots >= p->experts * p->sparse_layers)
        snprintf(note, sizeof note, "for experts: all of them");
    printf("\nThe card's memory (--gpu off does without it)\n");
    line("trunk", p->vram_trunk,
         p->shared ? "of the layers that are computed here" : "what every token needs");
    line("KV cache", p->vram_kv, "attention's memory of the conversation");
    line("state", p->vram_state, "recurrent layers' memory of the conversation");
    line("scratch", p->vram_scratch, "intermediate results");
    if (p->vram_fits) line("cache", p->vram_cache, note);
    line("limit", p->vram_limit,
         p->vram_fits ? "the ceiling on all of it: --vram"
                      : "the ceiling: TOO SMALL for this model; raise --vram, or --gpu off");
    if (!p->shared) return;
    char first[48];
    snprintf(first, sizeof first, "  %d of %d layers fit: ", p->card_layers, p->layers);
    print_wrapped(stdout, first, p->places);
}

static void print_memory(const fm_plan *p) {
    char cache_note[96];
    double share = p->experts_total ? 100.0 * (double)p->cache / (double)p->experts_total : 100;
    snprintf(cache_note, sizeof cache_note, "for experts: %.1f %% of them%s",
             share > 100 ? 100 : share, p->resident ? " (nothing is streamed once warm)" : "");
    printf("Memory, with a context window of %d tokens\n", p->context);
    line("trunk", p->trunk,
         !p->card    ? "what every token needs: attention, norms, routers, embeddings"
         : p->shared ? "what every token needs of the layers that the processor has"
                     : "nothing of it: the card has it");
    char kv_note[80];
    snprintf(kv_note, sizeof kv_note, "attention's memory of the conversation, in %s",
             kv_name(p->kv_type));
    line("KV cache", p->kv, kv_note);
    line("state", p->state, "recurrent layers' memory of the conversation");
    line("scratch", p->scratch, "intermediate results");
    line("other", p->other, "tokenizer, program, threads");
    line("floor", p->floor, "the sum, and the fewest experts it can work with");
    if (p->fits) line("cache", p->cache, cache_note);
    line("limit", p->memory_limit,
         p->fits ? "the ceiling on all of it" : "the ceiling: TOO SMALL for this model");
    if (p->card) print_card(p);
    printf("\nExperts\n");
    line("all", p->expert_bytes * (size_t)p->experts * (size_t)p->sparse_layers, "on disk");
    line("one", p->expert_bytes, "one expert");
    line("a token", p->expert_bytes_token, "experts that one token uses");
    line("and trunk", p->trunk_bytes_token, "of the trunk that one token uses");
}

static void print_speed(const figures *f) {
    char rate[16], bytes[16];
    if (f->machine.memory_read <= 0) return;
    printf("\nSpeed limits while answering, from what this machine does right now\n");
    char first[40], text[200];
    snprintf(first, sizeof first, "  memory %10s/s   ", size_text(f->machine.memory_read, rate));
    snprintf(text, sizeof text, "%.1f tok/s: %s a token (%d thread%s)", f->memory_tokens,
             size_text(f->token_bytes, bytes), f->machine.threads,
             f->machine.threads == 1 ? "" : "s");
    print_wrapped(stdout, first, text);
    snprintf(first, sizeof first, "  disk   %10s/s   ", size_text(f->machine.disk_read, rate));
    if (!f->p.fits)
        snprintf(text, sizeof text, "%.1f tok/s: if every expert came from disk",
                 f->machine.disk_read / (double)f->p.expert_bytes_token);
    else if (f->disk_tokens > 0)
        snprintf(text, sizeof text,
                 "%.1f tok/s: %s a token, with %.1f %% found in memory (evenly spread use)",
                 f->disk_tokens, size_text(f->token_missed, bytes), 100 * f->hit_rate);
    else
        snprintf(text, sizeof text, "no limit: all experts stay in memory once read");
    print_wrapped(stdout, first, text);
    if (!f->machine.disk_direct)
        print_wrapped(stdout, "  ",
                      "(this file system has no direct reads: the page cache may have helped the "
                      "disk)");
}

static void print_next(const fm_plan *p) {
    putchar('\n');
    if (p->fits)
        print_wrapped(stdout, "Next: ", "flashchat chat, with the same --model and --memory");
    else
        print_wrapped(stdout, "Next: ",
                      "more memory (--memory SIZE, or close other programs), a smaller context "
                      "window (--context N), or another model (flashchat models)");
}

static void set(json_t *o, const char *key, double value) {
    json_object_set_new(o, key,
                        value == (double)(json_int_t)value ? json_integer((json_int_t)value)
                                                           : json_real(value));
}

static int print_json(const figures *f, const char *dir) {
    const fm_plan *p = &f->p;
    json_t *o = json_object();
    json_object_set_new(o, "model", json_string(dir));
    json_object_set_new(o, "fits", json_boolean(p->fits));
    json_object_set_new(o, "resident", json_boolean(p->resident));
    if (p->card) json_object_set_new(o, "places", json_string(p->places));
    json_object_set_new(o, "kv_type", json_string(kv_name(p->kv_type)));
    const struct {
        const char *key;
        double value;
    } all[] = {
        {"memory_limit", (double)p->memory_limit},
        {"trunk", (double)p->trunk},
        {"kv", (double)p->kv},
        {"state", (double)p->state},
        {"scratch", (double)p->scratch},
        {"other", (double)p->other},
        {"floor", (double)p->floor},
        {"cache", (double)p->cache},
        {"vram_limit", (double)p->vram_limit},
        {"vram_trunk", (double)p->vram_trunk},
        {"vram_kv", (double)p->vram_kv},
        {"vram_state", (double)p->vram_state},
        {"vram_scratch", (double)p->vram_scratch},
        {"vram_cache", (double)p->vram_cache},
        {"vram_layers", p->card ? p->card_layers : 0},
        {"experts_total", (double)p->experts_total},
        {"expert_bytes", (double)p->expert_bytes},
        {"expert_bytes_token", (double)p->expert_bytes_token},
        {"trunk_bytes_token", (double)p->trunk_bytes_token},
        {"context", p->context},
        {"layers", p->layers},
        {"sparse_layers", p->sparse_layers},
        {"experts", p->experts},
        {"experts_per_token", p->experts_per_token},
        {"hit_rate_even_use", f->hit_rate},
        {"memory_read_bytes_per_second", f->machine.memory_read},
        {"disk_read_bytes_per_second", f->machine.disk_read},
        {"memory_bound_tokens_per_second", f->memory_tokens},
        {"disk_bound_tokens_per_second", f->disk_tokens},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) set(o, all[i].key, all[i].value);
    change changes[CHANGES_MAX];
    json_t *list = json_array();
    for (int i = 0, n = what_if(f, changes); i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:f, s:b, s:b}", "change", changes[i].what,
                                              "tokens_per_second", changes[i].tokens, "fits",
                                              changes[i].fits, "lossy", changes[i].lossy));
    json_object_set_new(o, "what_if", list);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(o);
    if (!text) return EXIT_FAILED;
    puts(text);
    free(text);
    return 0;
}

static int run(const command *c, const void *args, const arg_list *rest) {
    plan_args a = *(const plan_args *)args;
    if (rest->n > 1) return args_wrong(c->program, "one model at a time");
    if (rest->n == 1) a.m.model = rest->item[0];
    char dir[MODEL_PATH_MAX];
    fm_options o;
    if (!model_options(c->program, &a.m, dir, &o)) return EXIT_FAILED;
    figures f = {0};
    fm_error e = fm_plan_get(&o, &f.p);
    if (!e.code && !a.skip) e = fm_machine_measure(dir, a.m.threads, MEASURE_SECONDS, &f.machine);
    if (e.code) return fail(c->program, &e);
    compute(&f);
    if (a.json) return print_json(&f, dir);
    char title[MODEL_PATH_MAX + 100];
    snprintf(title, sizeof title, "%s: %d layers, %d of %d experts a token", dir, f.p.layers,
             f.p.experts_per_token, f.p.experts);
    print_wrapped(stdout, "", title);
    putchar('\n');
    print_memory(&f.p);
    print_speed(&f);
    print_what_if(&f);
    print_next(&f.p);
    return 0;
}

const command command_plan = {
    .name = "plan",
    .program = "flashchat plan",
    .usage = "[MODEL] [options]",
    .summary = "what a model needs in memory, and how fast it can be",
    .details =
        "Shows how memory would be divided under the ceiling, and the speeds that memory and\n"
        "disk of this machine allow at best. Reads no weights.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(plan_args),
    .run = run,
};
