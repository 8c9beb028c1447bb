/* engine_gpu.c: which graphics card an engine computes on, if any, and what happens when it cannot.
 *
 *     "auto" (NULL)  a CUDA card or Apple's GPU when there is one that has room for a layer (where
 *                    memory is shared with the processor: for all of them); else the processor.
 *                    Options that ask for the processor's exact results (exact, cpu) mean it too
 *     "off"          the processor
 *     "cuda[:N]", "metal", "host"  that device, or an error that says why not
 *     "host:N"       for tests: the N-th call after opening fails, as if the card were lost */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

typedef struct gpu_wish {
    char backend[16];
    int index;
    bool automatic;
} gpu_wish;

static err parse(const char *text, gpu_wish *out) {
    *out = (gpu_wish){.automatic = !text || strcmp(text, "auto") == 0};
    const char *best = out->automatic ? gpu_best_backend() : NULL;
    if (out->automatic) text = best ? best : "cuda";
    size_t n = strcspn(text, ":");
    if (n >= sizeof out->backend) n = sizeof out->backend - 1;
    memcpy(out->backend, text, n);
    if (text[strcspn(text, ":")] == ':') {
        const char *digits = text + strcspn(text, ":") + 1;
        size_t length = strspn(digits, "0123456789");
        if (!length || length > 7 || digits[length])
            return err_make(ERR_ARG, "gpu \"%s\": a number must follow the colon, as in cuda:1",
                            text);
        for (size_t i = 0; i < length; i++) out->index = out->index * 10 + (digits[i] - '0');
    }
    if (strcmp(out->backend, "cuda") && strcmp(out->backend, "metal") &&
        strcmp(out->backend, "host"))
        return err_make(ERR_ARG, "gpu \"%s\": known are auto, off, cuda, cuda:1, metal and host",
                        text);
    return err_none();
}

static bool wanted(const fm_options *o) {
    if (o->gpu && strcmp(o->gpu, "auto")) return strcmp(o->gpu, "off") != 0;
    return !o->exact && !o->cpu && gpu_best_backend() != NULL;
}

static bool may_do_without(const engine_card *c, err e) {
    return c->automatic &&
           (e.code == ERR_BUDGET || e.code == ERR_UNSUPPORTED || e.code == ERR_NOT_FOUND);
}

err engine_card_open(const fm_options *o, engine_card *out, char note[256]) {
    gpu_wish wish;
    *out = (engine_card){0};
    if (!wanted(o)) return err_none();
    TRY(parse(o->gpu, &wish));
    out->automatic = wish.automatic;
    if (strcmp(wish.backend, "host") == 0) {
        out->fail_at = wish.index;
        wish.index = 0;
    }
    err e = gpu_open(wish.backend, wish.index, &out->device);
    if (!e.code) e = gpu_info_get(out->device, &out->info);
    if (!e.code) return e;
    bool fine = may_do_without(out, e);
    engine_card_close(out);
    if (!fine) return e;
    snprintf(note, 256, "%.255s", e.text);
    return err_none();
}

void engine_card_close(engine_card *c) {
    gpu_close(c->device);
    *c = (engine_card){0};
}

static err parse_overlap(const char *text, gpu_overlap *out) {
    static const char *const names[] = {"auto", "on", "off"};
    *out = GPU_OVERLAP_AUTO;
    for (int i = 0; text && i < 3; i++) {
        *out = (gpu_overlap)i;
        if (strcmp(text, names[i]) == 0) return err_none();
    }
    return text ? err_make(ERR_ARG, "overlap \"%s\": known are auto, on and off", text)
                : err_none();
}

/* The store below the card: no more slots than are of use. */
static err open_store(fm_engine *e, const fm_options *o) {
    size_t cache = e->plan.face.cache, room = gpu_ops_store_room(e->gpu);
    if (!e->weights.experts.n_layers) return err_none();
    return engine_open_store(e, o, cache < room ? cache : room);
}

/* Processor and card share the layers. */
static err open_split(fm_engine *e, const fm_options *o) {
    const layer_place *place = &e->plan.place;
    TRY(engine_open_cpu(e, o, (layer_share){.place = place, .device = PLACE_CPU}));
    split_options s = {.config = &e->files.config,
                       .place = place,
                       .machine = {cpu_ops_face(e->cpu), gpu_ops_face(e->gpu)},
                       .budget = &e->budget,
                       .rows_max = e->plan.rows_max};
    return split_open(&s, &e->split);
}

static err open_device(fm_engine *e, const fm_options *o) {
    gpu_overlap overlap;
    TRY(parse_overlap(o->overlap, &overlap));
    gpu_ops_options g = {.device = e->card.device,
                         .memory = o->vram,
                         .weights = &e->weights,
                         .context = e->plan.face.context,
                         .rows_max = e->plan.rows_max,
                         .sessions = e->plan.sessions,
                         .experts_per_token = e->experts_per_token,
                         .kv = e->plan.kv,
                         .rope_bf16 = o->rope_bf16,
                         .look_ahead = !o->no_look_ahead,
                         .overlap = overlap,
                         .cpu_experts = o->cpu_experts,
                         .kernels = e->kernels,
                         .pool = e->pool};
    if (e->plan.split) g.share = (layer_share){.place = &e->plan.place, .device = 0};
    e->card.device = NULL;
    if (e->plan.face.card) TRY(budget_take(&e->budget, BUDGET_SCRATCH, e->plan.need.pinned));
    TRY(gpu_ops_open(&g, &e->gpu));
    TRY(engine_read_trunk(e, o->progress, o->progress_ctx));
    TRY(open_store(e, o));
    if (e->plan.split) TRY(open_split(e, o));
    return e->store ? gpu_ops_attach(e->gpu, e->store, o->progress, o->progress_ctx) : err_none();
}

/* Everything that is there because of the card; what the store had goes with it. */
void engine_close_device(fm_engine *e) {
    split_close(e->split);
    e->split = NULL;
    cpu_ops_close(e->cpu);
    e->cpu = NULL;
    gpu_ops_close(e->gpu);
    e->gpu = NULL;
    expert_store_close(e->store);
    e->store = NULL;
    e->budget.used[BUDGET_SCRATCH] = 0;
}

err engine_gpu_open(fm_engine *e, const fm_options *o) {
    err failed = open_device(e, o);
    if (!failed.code) {
        if (e->card.fail_at) gpu_ops_fail_at(e->gpu, GPU_CALL_ANY, e->card.fail_at);
        e->ops = e->split ? split_face(e->split) : gpu_ops_face(e->gpu);
        return err_none();
    }
    engine_close_device(e);
    if (!may_do_without(&e->card, failed) || e->mirrors) return failed;
    snprintf(e->gpu_note, sizeof e->gpu_note, "%s", failed.text);
    return err_none();
}
