/* engine_gpu.c: which graphics card an engine computes on, if any, and what happens when it cannot.
 *
 *     "auto" (NULL)  a CUDA card or Apple's GPU when there is one that holds at least trunk,
 *                    sessions and one expert; else the processor. Options that ask for the
 * processor's exact results (exact, cpu) mean the processor "off"          the processor
 *     "cuda[:N]", "metal", "host"  that device, or an error that says why not */
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
        if (!length || length > 3 || digits[length])
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

bool engine_gpu_wanted(const fm_options *o) {
    if (o->gpu && strcmp(o->gpu, "auto")) return strcmp(o->gpu, "off") != 0;
    return !o->exact && !o->cpu && gpu_best_backend() != NULL;
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

static err open_device(fm_engine *e, const fm_options *o, const gpu_wish *wish) {
    gpu_overlap overlap;
    TRY(parse_overlap(o->overlap, &overlap));
    gpu_ops_options g = {.backend = wish->backend,
                         .index = wish->index,
                         .memory = o->vram,
                         .weights = &e->weights,
                         .context = e->plan.face.context,
                         .rows_max = e->plan.rows_max,
                         .sessions = e->plan.sessions,
                         .experts_per_token = e->experts_per_token,
                         .kv = e->plan.kv,
                         .rope_bf16 = o->rope_bf16,
                         .look_ahead = !o->no_look_ahead,
                         .overlap = overlap};
    TRY(gpu_ops_open(&g, &e->gpu));
    if (!e->weights.experts.n_layers) return err_none();
    size_t cache = e->plan.face.cache;
    int slots = gpu_ops_store_slots(e->gpu);
    if (slots < e->experts_per_token + 2) slots = e->experts_per_token + 2;
    size_t most = expert_store_floor(&e->weights.experts, slots);
    cache = cache < most ? cache : most;
    size_t room = gpu_ops_store_room(e->gpu);
    TRY(engine_open_store(e, o, cache < room ? cache : room));
    return gpu_ops_attach(e->gpu, e->store, o->progress, o->progress_ctx);
}

err engine_gpu_open(fm_engine *e, const fm_options *o) {
    gpu_wish wish;
    TRY(parse(o->gpu, &wish));
    err failed = open_device(e, o, &wish);
    if (!failed.code) {
        e->ops = gpu_ops_face(e->gpu);
        return err_none();
    }
    gpu_ops_close(e->gpu);
    e->gpu = NULL;
    expert_store_close(e->store);
    e->store = NULL;
    bool card =
        failed.code == ERR_BUDGET || failed.code == ERR_UNSUPPORTED || failed.code == ERR_NOT_FOUND;
    if (!wish.automatic || !card || e->mirrors) return failed;
    snprintf(e->gpu_note, sizeof e->gpu_note, "%s", failed.text);
    return err_none();
}
