/* plan.c: how the memory under the ceiling is dealt out, before any of it is taken.
 *
 *     trunk | KV | recurrent state and snapshots | scratch | other | what is left: expert slots
 *
 * The number of rows of a prefill chunk is chosen here too: while experts are streamed each is read
 * once a chunk, so long chunks save reads; they cost scratch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/os.h"
#include "engine/engine_impl.h"
#include "format/bank.h"

#define MIB ((size_t)1 << 20)
/* Program, libraries, thread stacks, file headers. Measured: 14 MiB with the bundled model. */
#define OTHER_BYTES     (20 * MIB)
#define CONTEXT_DEFAULT 32768
#define CONTEXT_MAX     (1 << 20)
#define CONTEXT_LEAST   512
#define ROWS_RESIDENT   512
#define ROWS_STREAMED   2048
#define ROWS_LEAST      CPU_DELTA_CHUNK /* and all others are multiples of it: see chunk_end */

err model_files_open(const char *dir, model_files *out) {
    *out = (model_files){0};
    TRY(config_open(dir, &out->config));
    err e = bank_is(dir) ? bank_open(dir, &out->set) : st_open(dir, &out->set);
    char path[4096];
    struct stat info;
    int n = snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    bool there = n > 0 && (size_t)n < sizeof path && stat(path, &info) == 0;
    if (!e.code && there) e = tokenizer_open(dir, &out->tokens);
    if (e.code) {
        model_files_close(out);
        return e;
    }
    os_trim();
    return err_none();
}

void model_files_close(model_files *m) {
    tokenizer_close(m->tokens);
    st_close(m->set);
    config_close(&m->config);
    *m = (model_files){0};
}

/* ---- options ---- */

static err check_options(const fm_options *o, const model_config *c) {
    if (o->threads < 0 || o->threads > POOL_THREADS_MAX)
        return err_make(ERR_ARG, "threads is %d; it must be from 1 to %d", o->threads,
                        POOL_THREADS_MAX);
    if (o->context < 0 || o->context > CONTEXT_MAX)
        return err_make(ERR_ARG, "the context window is %d tokens; it must be from 1 to %d",
                        o->context, CONTEXT_MAX);
    if (o->sessions < 0 || o->sessions > BATCH_ITEMS_MAX)
        return err_make(ERR_ARG, "sessions is %d; it must be from 1 to %d", o->sessions,
                        BATCH_ITEMS_MAX);
    if (o->experts_per_token < 0 || o->experts_per_token > c->experts_per_token)
        return err_make(ERR_ARG,
                        "%d experts per token: this model was trained with %d, and more than that "
                        "makes no sense",
                        o->experts_per_token, c->experts_per_token);
    return err_none();
}

static err choose_kv(const fm_options *o, const model_config *c, kv_type *out) {
    switch (o->kv) {
    case FM_KV_DEFAULT: *out = o->exact ? KV_F32 : KV_F16; break;
    case FM_KV_F32: *out = KV_F32; break;
    case FM_KV_F16: *out = KV_F16; break;
    case FM_KV_Q8: *out = KV_Q8; break;
    default: return err_make(ERR_ARG, "kv is %d; known are f32, f16 and q8", (int)o->kv);
    }
    if (*out == KV_Q8 && c->head_dim % KV_Q8_GROUP)
        return err_make(ERR_UNSUPPORTED,
                        "an 8-bit attention cache needs heads of a multiple of %d numbers, this "
                        "model's have %d: use f16",
                        KV_Q8_GROUP, c->head_dim);
    return err_none();
}

static size_t default_limit(void) {
    os_memory m;
    os_memory_get(&m);
    return size_min(m.total / 4 * 3, m.available / 10 * 9);
}

/* Snapshots of one session, the guard included. */
static int snapshots_for(size_t recurrent) {
    if (!recurrent) return 0;
    if (recurrent <= 2 * MIB) return 17;
    if (recurrent <= 16 * MIB) return 5;
    return recurrent <= 96 * MIB ? 3 : 2;
}

/* ---- the sum ---- */

typedef struct plan_inputs {
    const model_config *c;
    const weights *w;
    size_t tokenizer_bytes, recurrent, floor_slots, all_slots; /* all_slots: of every expert */
    int k;
    bool card;                /* with memory of its own */
    int rows;                 /* of a chunk; 0: chosen here */
    const gpu_info *info;     /* of the card */
    const layer_place *place; /* NULL: all on the card, or on the processor without one */
    bool cpu_experts;
} plan_inputs;

static layer_share share_of(const plan_inputs *in, int device) {
    return (layer_share){.place = in->place, .device = device};
}

static size_t kv_of(const plan_inputs *in, const memory_plan *p, int context, layer_share share) {
    state_shape shape;
    state_shape_of(in->c, context, p->kv, share, &shape);
    return state_kv_bytes(&shape) * (size_t)p->sessions;
}

/* Does the processor compute any of it? */
static bool computes(const plan_inputs *in) { return !in->card || in->place; }

static size_t recurrent_of(const plan_inputs *in, const memory_plan *p, layer_share share) {
    state_shape shape;
    state_shape_of(in->c, 1, p->kv, share, &shape);
    return state_recurrent_bytes(&shape);
}

static size_t held(const fm_plan *f) { return f->trunk + f->kv + f->state + f->scratch + f->other; }

static void set_context(const plan_inputs *in, memory_plan *p, int context) {
    p->face.context = context;
    layer_share own = share_of(in, PLACE_CPU);
    p->face.kv = computes(in) ? kv_of(in, p, context, own) : 0;
    size_t tokens = (size_t)context * sizeof(int32_t) + (size_t)in->c->vocab * sizeof(float);
    p->session_bytes =
        round_up(tokens, 4096) + (size_t)p->snapshots * round_up(in->recurrent, 4096) + 8192;
    p->face.state = p->session_bytes * (size_t)p->sessions;
    if (computes(in)) p->face.state += recurrent_of(in, p, own) * (size_t)p->sessions;
}

/* Of the card, with the present context and rows. */
static err measure_card(const plan_inputs *in, memory_plan *p) {
    fm_plan *f = &p->face;
    gpu_ops_options g = {.weights = in->w,
                         .context = f->context,
                         .rows_max = p->rows_max,
                         .sessions = p->sessions,
                         .experts_per_token = in->k,
                         .kv = p->kv,
                         .share = share_of(in, 0),
                         .queue_bytes = gpu_ops_queue_bytes(in->info, p->face.vram_limit),
                         .cpu_experts = in->cpu_experts};
    TRY(gpu_ops_measure(&g, &p->need));
    f->vram_trunk = p->need.trunk;
    f->vram_kv = p->need.kv;
    f->vram_state = p->need.state;
    f->vram_scratch = p->need.activations + (size_t)p->need.keys * sizeof(gpu_slot);
    return err_none();
}

static void set_rows(const plan_inputs *in, memory_plan *p, int rows) {
    p->rows_max = rows;
    p->face.scratch = 0;
    if (computes(in))
        p->face.scratch = cpu_ops_scratch_bytes(in->c, rows, in->k, p->threads) + 2 * MIB;
    if (in->place) p->face.scratch += split_scratch_bytes(in->c, rows) + 4096;
    if (!in->card) return;
    err ignored = measure_card(in, p); /* said by the last one, plan_card */
    (void)ignored;
    p->face.scratch += p->need.pinned + 2 * MIB;
}

/* The longest context window, up to the wished one, whose cache takes at most a quarter of what the
 * trunk leaves, where it is computed. */
static int fitting_context(const plan_inputs *in, const memory_plan *p, int wish) {
    const layer_share all = {0};
    size_t limit = in->card ? p->face.vram_limit : p->face.memory_limit;
    if (in->place) limit += p->face.memory_limit;
    size_t free_bytes = limit > in->w->trunk_bytes ? limit - in->w->trunk_bytes : 0;
    while (wish > CONTEXT_LEAST && kv_of(in, p, wish, all) > free_bytes / 4) wish /= 2;
    return wish;
}

/* Of the trunk: what stays in memory, and the longest part that only passes through. */
static void share_trunk(const plan_inputs *in, memory_plan *p) {
    size_t kept = 0;
    for (int i = 0; i < weights_parts(in->w); i++) {
        size_t bytes = weights_part_bytes(in->w, i);
        bool stays = !in->card || (in->place && share_has_part(share_of(in, PLACE_CPU), in->c, i));
        if (stays) kept += bytes;
        if (!stays && bytes > p->staging) p->staging = bytes;
    }
    p->face.trunk = round_up(kept, 2 * MIB) + 2 * MIB;
}

/* At the highest point: with the fewest experts, or while the trunk is read. */
static size_t least(const plan_inputs *in, const memory_plan *p) {
    const fm_plan *f = &p->face;
    size_t loading = f->trunk + f->scratch + f->other + p->staging,
           works = held(f) + in->floor_slots;
    return works > loading ? works : loading;
}

static void choose_rows(const plan_inputs *in, memory_plan *p) {
    fm_plan *f = &p->face;
    set_rows(in, p, ROWS_RESIDENT);
    bool resident = held(f) + in->all_slots <= f->memory_limit;
    int rows = resident ? ROWS_RESIDENT : ROWS_STREAMED;
    if (in->rows) {
        set_rows(in, p, in->rows);
        return;
    }
    if (in->card) rows = ROWS_STREAMED;
    for (set_rows(in, p, rows); rows > ROWS_LEAST; set_rows(in, p, rows)) {
        bool fits = f->scratch <= f->memory_limit / 16;
        if (in->card) fits = fits && f->vram_scratch - p->need.queue <= f->vram_limit / 16;
        if (fits || rows == ROWS_LEAST) break;
        rows /= 2;
    }
}

static void describe(const plan_inputs *in, fm_plan *f) {
    const model_config *c = in->c;
    f->layers = c->layers;
    f->experts = c->experts;
    f->experts_per_token = in->k;
    f->trunk_bytes_token = in->w->trunk_bytes_token;
    f->state_bytes_token = 2 * in->recurrent;
    for (int i = 0; i < c->layers; i++) {
        if (in->w->layers[i].sparse_index < 0) continue;
        size_t bytes = weights_expert_bytes(&in->w->layers[i]);
        f->sparse_layers++;
        f->expert_bytes = bytes > f->expert_bytes ? bytes : f->expert_bytes;
        f->expert_bytes_token += bytes * (size_t)in->k;
        f->experts_total += bytes * (size_t)c->experts;
    }
}

/* Room for two saved sessions of the whole window on their way to the disk, if it is there. */
static void set_blobs(const plan_inputs *in, memory_plan *p) {
    fm_plan *f = &p->face;
    size_t tokens = (size_t)f->context * sizeof(int32_t) + (size_t)in->c->vocab * sizeof(float);
    size_t kv = kv_of(in, p, f->context, (layer_share){0}) / (size_t)p->sessions;
    size_t blob = kv + in->recurrent + tokens + 4096;
    size_t want = size_min(2 * blob, f->memory_limit / 16);
    if (least(in, p) + want > f->memory_limit) return;
    p->blob_bytes = want;
    f->other += want;
}

/* The least that works: shortest chunk, and the given context or a short one. */
static size_t floor_of(const plan_inputs *in, memory_plan p, int wished) {
    set_context(in, &p, wished ? wished : int_min(in->c->context, CONTEXT_LEAST));
    set_rows(in, &p, ROWS_LEAST);
    return least(in, &p);
}

/* Slots on the card, and what of the store is of use beside them. */
static err plan_card(const plan_inputs *in, memory_plan *p, size_t left) {
    fm_plan *f = &p->face;
    TRY(measure_card(in, p));
    size_t fixed = f->vram_trunk + f->vram_kv + f->vram_state + f->vram_scratch;
    size_t room = f->vram_limit > fixed ? f->vram_limit - fixed : 0;
    int owned = 0, keys = p->need.keys;
    f->vram_fits = fixed <= f->vram_limit;
    if (!keys) return err_none();
    f->vram_slots = gpu_ops_slots_in(&p->need, room, &owned);
    f->vram_cache = (size_t)f->vram_slots * p->need.slot_bytes;
    f->vram_fits = f->vram_slots >= (in->place ? int_min(in->k + 2, keys) : 1);
    int useful = in->place ? keys : int_min(gpu_ops_store_slots(keys, owned), keys);
    size_t most = expert_store_floor(&in->w->experts, int_max(useful, in->k + 2));
    f->resident = f->fits && ((owned == keys && !in->place) || left >= most);
    f->cache = size_min(left, most);
    return err_none();
}

static err make(const fm_options *o, const plan_subject *on, const layer_place *place,
                memory_plan *out) {
    const model_config *c = &on->m->config;
    const model_files *m = on->m;
    const weights *w = on->w;
    *out = (memory_plan){0};
    TRY(check_options(o, c));
    plan_inputs in = {.c = c, .w = w, .rows = on->rows, .place = place};
    if (place) out->place = *place;
    out->split = place != NULL;
    in.card = on->card && on->card->device && !on->card->info.unified;
    in.info = in.card ? &on->card->info : NULL;
    out->face.card = in.card;
    if (in.card) out->face.vram_limit = gpu_ops_limit(&on->card->info, o->vram);
    in.cpu_experts = o->cpu_experts;
    in.k = o->experts_per_token ? o->experts_per_token : c->experts_per_token;
    in.tokenizer_bytes = m->tokens ? tokenizer_memory(m->tokens) : 0;
    memory_plan *p = out;
    /* More than processors would only take turns (docs/MEASURED.md, "CPU kernels"). */
    p->threads = o->threads ? int_min(o->threads, os_cpu_count()) : os_cpu_count();
    p->sessions = o->sessions ? o->sessions : 1;
    TRY(choose_kv(o, c, &p->kv));
    p->face.kv_type = p->kv == KV_F32 ? FM_KV_F32 : p->kv == KV_F16 ? FM_KV_F16 : FM_KV_Q8;
    state_shape shape;
    state_shape_of(c, 1, p->kv, (layer_share){0}, &shape);
    in.recurrent = state_recurrent_bytes(&shape);
    p->snapshots = snapshots_for(in.recurrent);
    if (w->experts.n_layers) {
        in.all_slots = expert_store_floor(&w->experts, w->experts.n_layers * c->experts);
        in.floor_slots = expert_store_floor(&w->experts, in.k + 2);
    }
    fm_plan *f = &p->face;
    f->memory_limit = o->memory ? o->memory : default_limit();
    describe(&in, f);
    share_trunk(&in, p);
    size_t map = (size_t)w->experts.n_layers * (size_t)c->experts *
                 (9 * sizeof(expert_part) + sizeof(uint64_t));
    f->other = OTHER_BYTES + in.tokenizer_bytes + map;
    int wish =
        o->context ? o->context : fitting_context(&in, p, int_min(c->context, CONTEXT_DEFAULT));
    set_context(&in, p, wish);
    choose_rows(&in, p);
    f->floor = floor_of(&in, *p, o->context);
    if (!in.rows && least(&in, p) > f->memory_limit && f->floor <= f->memory_limit) {
        if (!o->context) set_context(&in, p, int_min(c->context, CONTEXT_LEAST));
        set_rows(&in, p, ROWS_LEAST);
    }
    if (o->keep_prompts) set_blobs(&in, p);
    f->fits = least(&in, p) <= f->memory_limit;
    size_t left = f->fits ? f->memory_limit - held(f) : 0;
    f->cache = size_min(left, in.all_slots);
    f->resident = f->fits && left >= in.all_slots;
    if (!in.card) return err_none();
    layer_place all;
    place_all(&all, c, 0);
    f->shared = place != NULL;
    f->card_layers = place ? place_layers(place, c, 0) : c->layers;
    place_text(place ? place : &all, c, f->places, sizeof f->places);
    return plan_card(&in, p, left);
}

/* The most layers that fit on the card: of the last ones, so that rows cross once. *out is
 * left alone when none do. */
static err most_layers(const fm_options *o, const plan_subject *on, bool head, memory_plan *out) {
    const model_config *c = &on->m->config;
    int low = 0, high = c->layers; /* low is known to fit, but 0 */
    while (low < high) {
        int n = (low + high + 1) / 2;
        layer_place place;
        memory_plan p;
        place_last(&place, c, n, head, 0);
        TRY(make(o, on, &place, &p));
        if (p.face.vram_fits) {
            low = n;
            *out = p;
        } else {
            high = n - 1;
        }
    }
    return err_none();
}

/* The head goes with the layers where there is room for it beside one of them. */
static err make_split(const fm_options *o, const plan_subject *on, memory_plan *out) {
    memory_plan p = {0};
    TRY(most_layers(o, on, true, &p));
    if (!p.face.card_layers) TRY(most_layers(o, on, false, &p));
    if (p.face.card_layers) *out = p;
    return err_none();
}

err memory_plan_make(const fm_options *o, const plan_subject *on, memory_plan *out) {
    TRY(make(o, on, NULL, out));
    if (!out->face.card || out->face.vram_fits) return err_none();
    TRY(make_split(o, on, out));
    if (out->split) return err_none();
    plan_subject without = {.m = on->m, .w = on->w};
    size_t limit = out->face.vram_limit;
    TRY(make(o, &without, NULL, out));
    snprintf(out->passed_over, sizeof out->passed_over,
             "%s: not even one layer of this model fits into %zu MiB of its memory (--vram raises "
             "it)",
             on->card->info.name, limit / MIB);
    return err_none();
}

err memory_plan_again(const fm_options *o, const plan_subject *on, const memory_plan *before,
                      memory_plan *out) {
    fm_options same = *o;
    plan_subject fixed = *on;
    same.context = before->face.context;
    same.sessions = before->sessions;
    same.threads = before->threads;
    fixed.card = NULL;
    fixed.rows = before->rows_max;
    TRY(make(&same, &fixed, NULL, out));
    if (out->blob_bytes == before->blob_bytes) return err_none();
    fm_plan *f = &out->face; /* the prompt cache keeps what it has */
    f->other = f->other - out->blob_bytes + before->blob_bytes;
    out->blob_bytes = before->blob_bytes;
    size_t taken = held(f);
    f->fits = f->fits && taken < f->memory_limit;
    f->cache = f->fits ? size_min(f->cache, f->memory_limit - taken) : 0;
    return err_none();
}

err memory_plan_check(const memory_plan *p) {
    const fm_plan *f = &p->face;
    if (f->fits) return err_none();
    double mib = 1048576.0;
    return err_make(
        ERR_BUDGET,
        "memory limit %.0f MiB is too small: this model needs at least %.0f MiB (now: "
        "trunk %.0f, KV cache %.0f for %d tokens, state %.0f, scratch %.0f, other %.0f, "
        "and room for some experts of %.1f MiB each); raise --memory or lower --context",
        (double)f->memory_limit / mib, (double)f->floor / mib, (double)f->trunk / mib,
        (double)f->kv / mib, f->context, (double)f->state / mib, (double)f->scratch / mib,
        (double)f->other / mib, (double)f->expert_bytes / mib);
}

err memory_plan_get(const fm_options *o, memory_plan *out) {
    *out = (memory_plan){0};
    if (!o->model_dir) return err_make(ERR_ARG, "no model directory was given");
    model_files m;
    TRY(model_files_open(o->model_dir, &m));
    weights w;
    engine_card card = {0};
    char note[256] = "";
    err e = weights_measure(&m.config, m.set, &w);
    if (!e.code) {
        plan_subject on = {.m = &m, .w = &w, .card = &card};
        e = engine_card_open(o, &card, note);
        if (!e.code) e = memory_plan_make(o, &on, out);
        engine_card_close(&card);
        weights_close(&w);
    }
    model_files_close(&m);
    return e;
}

fm_error fm_plan_get(const fm_options *o, fm_plan *out) {
    memory_plan p;
    *out = (fm_plan){0};
    err e = memory_plan_get(o, &p);
    if (!e.code) *out = p.face;
    return FM_WRAP(e);
}
