/* engine.c: an engine's life, and what it tells about itself. */
#include "engine/engine_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/os.h"

void fm_options_init(fm_options *o) { *o = (fm_options){0}; }

/* ---- the trunk ---- */

static void hash_matrix(fm_engine *e, const qmat *m) {
    enum { SAMPLE = 4096 };
    if (!m->w || !m->rows) return;
    size_t bytes = qformat_row_bytes(m->format, m->cols) * (size_t)m->rows;
    size_t part = bytes < SAMPLE ? bytes : SAMPLE;
    XXH3_64bits_update(e->hashing, m->w, part);
    XXH3_64bits_update(e->hashing, (const uint8_t *)m->w + bytes - part, part);
}

/* A sample of every matrix: another fine-tune of the same shape differs there. */
static void hash_part(fm_engine *e, int part) {
    const weights *w = &e->weights;
    if (part == 0) hash_matrix(e, &w->embed);
    if (part == weights_parts(w) - 1 && w->head.w != w->embed.w) hash_matrix(e, &w->head);
    if (part == 0 || part == weights_parts(w) - 1) return;
    const layer_weights *l = &w->layers[part - 1];
    const qmat *all[] = {&l->attn.q,    &l->attn.o, &l->delta.qkv,
                         &l->delta.out, &l->router, &l->shared.gate};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) hash_matrix(e, all[k]);
}

/* A part has been read. It stays where the processor computes with it. */
static err take_part(void *ctx, int part, const uint8_t *bytes, size_t n, bool *keep) {
    fm_engine *e = ctx;
    bool needed = false;
    if (e->hashing) hash_part(e, part);
    if (!e->gpu) return err_none();
    TRY(gpu_ops_take(e->gpu, part, bytes, n, &needed));
    layer_share own = {.place = &e->plan.place, .device = PLACE_CPU};
    *keep = needed || (e->plan.split && share_has_part(own, &e->files.config, part));
    return err_none();
}

err engine_read_trunk(fm_engine *e, weights_progress progress, void *ctx) {
    weights_sink sink = {.part = take_part, .ctx = e, .progress = progress, .progress_ctx = ctx};
    if (!e->trunk_hash) {
        e->hashing = XXH3_createState();
        if (!e->hashing) return err_make(ERR_NOMEM, "no memory for a checksum");
        XXH3_64bits_reset(e->hashing);
    }
    err failed = weights_read(&e->weights, &sink);
    if (e->hashing && !failed.code) e->trunk_hash = XXH3_64bits_digest(e->hashing);
    XXH3_freeState(e->hashing);
    e->hashing = NULL;
    return failed;
}

/* What a saved session depends on: names and shapes of all tensors, the trunk's sample, and the
 * options that change results or the order of a state's bytes. */
err engine_fingerprint(fm_engine *e) {
    XXH3_state_t *h = XXH3_createState();
    if (!h) return err_make(ERR_NOMEM, "no memory for a checksum");
    XXH3_64bits_reset(h);
    for (int i = 0; i < st_count(e->files.set); i++) {
        const st_tensor *t = st_at(e->files.set, i);
        XXH3_64bits_update(h, t->name, strlen(t->name));
        XXH3_64bits_update(h, t->shape, sizeof t->shape);
    }
    XXH3_64bits_update(h, &e->trunk_hash, sizeof e->trunk_hash);
    int options[] = {ENGINE_ABI, e->experts_per_token, (int)e->plan.kv, e->exact, e->gpu != NULL};
    XXH3_64bits_update(h, options, sizeof options);
    if (e->split) XXH3_64bits_update(h, &e->plan.place, sizeof e->plan.place);
    e->fingerprint = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return err_none();
}

/* ---- opening ---- */

/* The experts' files again, under the same names in another directory. */
static err find_mirrors(fm_engine *e, const char *dir) {
    const expert_map *map = &e->weights.experts;
    e->mirrors = calloc((size_t)map->n_files, sizeof *e->mirrors);
    if (!e->mirrors) return err_make(ERR_NOMEM, "no memory for the mirror's names");
    for (int i = 0; i < map->n_files; i++) {
        const char *slash = strrchr(map->paths[i], '/');
        const char *name = slash ? slash + 1 : map->paths[i];
        size_t size = strlen(dir) + strlen(name) + 2;
        e->mirrors[i] = malloc(size);
        if (!e->mirrors[i]) return err_make(ERR_NOMEM, "no memory for the mirror's names");
        snprintf(e->mirrors[i], size, "%s/%s", dir, name);
        struct stat a, b;
        if (stat(e->mirrors[i], &b)) return err_system(errno, "mirror %s", e->mirrors[i]);
        if (stat(map->paths[i], &a)) return err_system(errno, "%s", map->paths[i]);
        if (a.st_size != b.st_size)
            return err_make(ERR_CORRUPT, "mirror %s: %lld bytes, but the model's file has %lld",
                            e->mirrors[i], (long long)b.st_size, (long long)a.st_size);
    }
    return err_none();
}

err engine_open_store(fm_engine *e, const fm_options *o, size_t cache_bytes) {
    if (!e->weights.experts.n_layers) return err_none();
    expert_store_options s = {.cache_bytes = cache_bytes,
                              .budget = &e->budget,
                              .pool = e->pool,
                              .io_threads = o->io_threads,
                              .io_state = o->io_state};
    if (o->mirror_dir) {
        if (!e->mirrors) TRY(find_mirrors(e, o->mirror_dir));
        s.mirrors = (const char *const *)e->mirrors;
    }
    TRY(expert_store_open(&e->weights.experts, &s, &e->store));
    if (e->plan.face.resident) expert_store_fill(e->store);
    return err_none();
}

/* For the processor: the card could not be used after all. */
static err plan_again(fm_engine *e, const fm_options *o) {
    plan_subject on = {.m = &e->files, .w = &e->weights};
    budget_give(&e->budget, BUDGET_OTHER, e->plan.face.other);
    TRY(memory_plan_make(o, &on, &e->plan));
    TRY(memory_plan_check(&e->plan));
    return budget_take(&e->budget, BUDGET_OTHER, e->plan.face.other);
}

err engine_open_cpu(fm_engine *e, const fm_options *o, layer_share share) {
    cpu_ops_options c = {.kernels = e->kernels,
                         .pool = e->pool,
                         .weights = &e->weights,
                         .store = e->store,
                         .budget = &e->budget,
                         .context = e->plan.face.context,
                         .rows_max = e->plan.rows_max,
                         .experts_per_token = e->experts_per_token,
                         .kv = e->plan.kv,
                         .exact = e->exact,
                         .rope_bf16 = o->rope_bf16,
                         .look_ahead = !o->no_look_ahead,
                         .share = share};
    return cpu_ops_open(&c, &e->cpu);
}

static err open_ops(fm_engine *e, const fm_options *o) {
    if (e->card.device) TRY(engine_gpu_open(e, o));
    if (e->gpu) return err_none();
    if (e->plan.face.card) TRY(plan_again(e, o));
    TRY(engine_read_trunk(e, o->progress, o->progress_ctx));
    TRY(engine_open_store(e, o, e->plan.face.cache));
    TRY(engine_open_cpu(e, o, (layer_share){0}));
    e->ops = cpu_ops_face(e->cpu);
    return err_none();
}

/* All that the plan deals out: less than the ceiling when every expert fits. */
static err claim_memory(fm_engine *e, const fm_options *o) {
    if (!o->lock_dir) return err_none();
    const fm_plan *f = &e->plan.face;
    os_memory machine;
    os_memory_get(&machine);
    claim_wish w = {.dir = o->lock_dir,
                    .model = e->dir,
                    .memory = f->trunk + f->kv + f->state + f->scratch + f->other + f->cache,
                    .machine = machine.total,
                    .force = o->force};
    return claim_open(&w, &e->claim);
}

static err plan_memory(fm_engine *e, const fm_options *o) {
    weights w;
    TRY(weights_measure(&e->files.config, e->files.set, &w));
    plan_subject on = {.m = &e->files, .w = &w, .card = &e->card};
    err failed = memory_plan_make(o, &on, &e->plan);
    weights_close(&w);
    TRY(failed);
    if (e->plan.passed_over[0]) {
        memcpy(e->gpu_note, e->plan.passed_over, sizeof e->gpu_note);
        engine_card_close(&e->card);
    }
    TRY(memory_plan_check(&e->plan));
    TRY(claim_memory(e, o));
    e->budget.limit = e->plan.face.memory_limit;
    return budget_take(&e->budget, BUDGET_OTHER, e->plan.face.other);
}

static err open_parts(fm_engine *e, const fm_options *o) {
    if (!o->model_dir) return err_make(ERR_ARG, "no model directory was given");
    e->dir = strdup(o->model_dir);
    if (!e->dir) return err_make(ERR_NOMEM, "no memory for the engine");
    e->exact = o->exact;
    e->notice = o->notice;
    e->notice_ctx = o->notice_ctx;
    e->kernels = cpu_best();
    if (o->cpu) TRY(cpu_by_name(o->cpu, &e->kernels));
    TRY(model_files_open(o->model_dir, &e->files));
    TRY(engine_card_open(o, &e->card, e->gpu_note));
    TRY(plan_memory(e, o));
    e->experts_per_token = e->plan.face.experts_per_token;
    weights_options w = {.budget = &e->budget, .no_checksums = o->no_checksums};
    TRY(weights_open(&e->files.config, e->files.set, &w, &e->weights));
    TRY(pool_open(e->plan.threads, &e->pool));
    TRY(open_ops(e, o));
    if (e->gpu) TRY(engine_lost_prepare(e, o));
    return engine_fingerprint(e);
}

static void tell_place(const fm_engine *e) {
    char text[640];
    if (!e->notice) return;
    if (e->split)
        snprintf(text, sizeof text, "%s has not the memory for all layers: %s",
                 gpu_ops_device(e->gpu), e->plan.face.places);
    else if (!e->gpu && e->gpu_note[0])
        snprintf(text, sizeof text, "the GPU is not used, the processor computes: %s", e->gpu_note);
    else
        return;
    e->notice(e->notice_ctx, text);
}

fm_error fm_engine_open(const fm_options *o, fm_engine **out) {
    *out = NULL;
    fm_engine *e = calloc(1, sizeof *e);
    if (!e) return FM_WRAP(err_make(ERR_NOMEM, "no memory for the engine"));
    err failed = open_parts(e, o);
    if (failed.code) {
        fm_engine_close(e);
        return fm_error_from(&failed);
    }
    tell_place(e);
    *out = e;
    return FM_WRAP(err_none());
}

void fm_engine_close(fm_engine *e) {
    if (!e) return;
    while (e->sessions) fm_session_close(e->sessions);
    prompt_cache_close(e->prompts);
    split_close(e->split);
    engine_lost_close(e);
    cpu_ops_close(e->cpu);
    replay_close(e->replay);
    gpu_ops_close(e->gpu);
    engine_card_close(&e->card);
    expert_store_close(e->store);
    pool_close(e->pool);
    for (int i = 0; e->mirrors && i < e->weights.experts.n_files; i++) free(e->mirrors[i]);
    free(e->mirrors);
    weights_close(&e->weights);
    model_files_close(&e->files);
    claim_close(e->claim);
    free(e->clocks);
    free(e->dir);
    free(e);
}

/* ---- what it is ---- */

void fm_model_get(const fm_engine *e, fm_model *out) {
    const model_config *c = &e->files.config;
    *out = (fm_model){.architecture = c->architecture,
                      .dir = e->dir,
                      .layers = c->layers,
                      .hidden = c->hidden,
                      .vocab = c->vocab,
                      .experts = c->experts,
                      .experts_per_token = e->experts_per_token,
                      .trained_experts_per_token = c->experts_per_token,
                      .context = e->plan.face.context,
                      .trained_context = c->context,
                      .tokenizer_size = e->files.tokens ? tokenizer_size(e->files.tokens) : 0,
                      .cpu = e->kernels->name,
                      .gpu = e->gpu ? gpu_ops_device(e->gpu) : NULL,
                      .gpu_note = e->gpu_note[0] ? e->gpu_note : NULL,
                      .gpu_bytes = e->gpu ? gpu_ops_bytes(e->gpu) : 0,
                      .gpu_slots = e->gpu ? gpu_ops_slots(e->gpu) : 0,
                      .places = e->split ? e->plan.face.places : NULL,
                      .threads = e->plan.threads};
}

void fm_engine_plan(const fm_engine *e, fm_plan *out) { *out = e->plan.face; }

void fm_cancel(fm_engine *e) { atomic_store_explicit(&e->cancel, 1, memory_order_relaxed); }
void fm_cancel_clear(fm_engine *e) { atomic_store_explicit(&e->cancel, 0, memory_order_relaxed); }

int fm_rows_max(const fm_engine *e) { return e->plan.rows_max; }

bool fm_is_stop(const fm_engine *e, int32_t id) {
    const model_config *c = &e->files.config;
    for (int i = 0; i < c->n_eos; i++) {
        if (c->eos[i] == id) return true;
    }
    return false;
}

/* ---- counters ---- */

void fm_stats_get(const fm_engine *e, fm_stats *out) {
    expert_store_stats s = {0};
    if (e->store) expert_store_stats_get(e->store, &s);
    gpu_ops_stats g = {0};
    if (e->gpu) {
        gpu_ops_stats_get(e->gpu, &g);
        s.hits += g.hits; /* the store is only asked for the others */
        s.requests = g.requests;
    }
    prompt_cache_stats p = {0};
    if (e->prompts) prompt_cache_stats_get(e->prompts, &p);
    *out = (fm_stats){.tokens_prefill = e->tokens_prefill,
                      .tokens_decode = e->tokens_decode,
                      .seconds_prefill = (double)e->prefill_ns * 1e-9,
                      .seconds_decode = (double)e->decode_ns * 1e-9,
                      .expert_requests = s.requests,
                      .expert_hits = s.hits,
                      .expert_misses = s.misses,
                      .expert_evictions = s.evictions,
                      .expert_read_bytes = s.read_bytes,
                      .seconds_read_wait = (double)s.wait_ns * 1e-9,
                      .prefetch_issued = s.prefetch_issued,
                      .prefetch_used = s.prefetch_used,
                      .prompts_found = p.found,
                      .prompts_saved = p.saved,
                      .prompts_refused = p.refused,
                      .prompts_bytes = p.bytes,
                      .gpu_uploads = g.uploads,
                      .gpu_upload_bytes = g.upload_bytes,
                      .gpu_download_bytes = g.download_bytes,
                      .gpu_guesses = g.guesses,
                      .gpu_guesses_used = g.guesses_used,
                      .gpu_promotions = g.promotions,
                      .gpu_on_cpu = g.on_cpu,
                      .gpu_launches = g.launches,
                      .gpu_steps = g.steps,
                      .gpu_graph_steps = g.graph_steps,
                      .gpu_lost = e->dead && !e->gpu,
                      .memory_peak = os_peak_rss()};
}

void fm_stats_reset(fm_engine *e) {
    if (e->store) expert_store_stats_reset(e->store);
    if (e->gpu) gpu_ops_stats_reset(e->gpu);
    e->tokens_prefill = e->tokens_decode = e->prefill_ns = e->decode_ns = 0;
    if (e->clocks) memset(e->clocks, 0, (size_t)e->files.config.layers * sizeof *e->clocks);
}

void fm_timing_enable(fm_engine *e, bool on) {
    e->timing = on;
    if (on && !e->clocks) e->clocks = calloc((size_t)e->files.config.layers, sizeof *e->clocks);
    if (e->cpu) cpu_ops_set_clocks(e->cpu, on ? e->clocks : NULL);
    if (e->gpu) gpu_ops_set_clocks(e->gpu, on ? e->clocks : NULL);
}

int fm_timing_get(const fm_engine *e, fm_layer_timing *out, int n) {
    for (int i = 0; i < n && i < e->files.config.layers; i++) {
        layer_clock c = e->clocks ? e->clocks[i] : (layer_clock){0};
        out[i] = (fm_layer_timing){.attention = (double)c.attention_ns * 1e-9,
                                   .delta = (double)c.delta_ns * 1e-9,
                                   .router = (double)c.router_ns * 1e-9,
                                   .read_wait = (double)c.wait_ns * 1e-9,
                                   .experts = (double)c.experts_ns * 1e-9,
                                   .other = (double)c.other_ns * 1e-9,
                                   .read_bytes = c.read_bytes};
    }
    return e->files.config.layers;
}

void fm_routing_hook_set(fm_engine *e, fm_routing_hook hook, void *ctx) {
    e->hook = hook;
    e->hook_ctx = ctx;
    if (e->cpu) cpu_ops_set_routing_hook(e->cpu, hook, ctx);
    if (e->gpu) gpu_ops_set_routing_hook(e->gpu, hook, ctx);
}

fm_error fm_routing_force_set(fm_engine *e, fm_routing_force force, void *ctx) {
    return FM_WRAP(engine_force(e, force, ctx));
}
