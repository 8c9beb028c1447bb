/* models_need.c: what a model needs and what it can do on this machine, before it is here.
 *
 * Sizes follow from the numbers of the registry entry: every weight takes bits/8 bytes and a scale
 * and a bias of 2 bytes each for every group. They are within a few percent of the files (checked
 * against published ones: docs/MEASURED.md). The speed is a ceiling: each token must bring the
 * experts that are not in memory from the drive, and everything it touches through the memory. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/os.h"
#include "format/config.h"
#include "models.h"

static double bytes_per_weight(int bits, int group) {
    return bits / 8.0 + (group ? 4.0 / group : 0.0);
}

/* Weights of everything but experts and routers. */
static double trunk_weights(const model_entry *m) {
    double hidden = m->hidden, head = m->head_dim;
    double query = m->heads * head * (m->linear_value_heads ? 3 : 2); /* q, its gate, o */
    double attention = hidden * (query + 2.0 * m->kv_heads * head);
    double value = (double)m->linear_value_heads * m->linear_head_dim;
    double key = (double)m->linear_key_heads * m->linear_head_dim;
    double delta = hidden * (2 * key + 3 * value);
    double linear_layers = m->layers - m->full_attention_layers;
    return m->full_attention_layers * attention + linear_layers * delta +
           3.0 * m->layers * hidden * m->shared_intermediate + 2.0 * m->vocab * hidden;
}

static double kv_bytes(const char *type) {
    if (!strcmp(type, "f32")) return 4;
    return strcmp(type, "q8") ? 2 : 1 + 2.0 / 32; /* a scale of two bytes for each 32 */
}

void model_need_get(const model_entry *m, int context, const char *kv_type, model_need *out) {
    if (context <= 0) context = int_min(m->context, 32768);
    double per_expert =
        3.0 * m->hidden * m->expert_intermediate * bytes_per_weight(m->bits, m->group);
    double trunk = trunk_weights(m) * bytes_per_weight(m->trunk_bits, m->group) +
                   (double)m->layers * m->hidden * m->experts * bytes_per_weight(8, 64);
    double embedding = (double)m->vocab * m->hidden * bytes_per_weight(m->trunk_bits, m->group);
    double kv = 2.0 * m->full_attention_layers * m->kv_heads * m->head_dim * context;
    kv *= kv_bytes(kv_type);
    double linear = m->layers - m->full_attention_layers;
    double state = linear * m->linear_value_heads * m->linear_head_dim * m->linear_head_dim * 4.0;
    double scratch = 256e6 * fmin(1, m->hidden / 2048.0) + 8e6;
    *out = (model_need){
        .expert_bytes = (uint64_t)per_expert,
        .experts = (uint64_t)(per_expert * m->layers * m->experts),
        .trunk = (uint64_t)trunk,
        .kv = (uint64_t)kv,
        .state = (uint64_t)state,
        .token_experts = (uint64_t)(per_expert * m->layers * m->experts_per_token),
        .token_trunk = (uint64_t)(trunk - embedding),
    };
    out->disk = out->experts + out->trunk;
    out->least = out->trunk + out->kv + out->state + (uint64_t)scratch +
                 (uint64_t)(2 * per_expert * m->experts_per_token);
    out->all = out->least + out->experts;
}

/* ---- this machine ---- */

static err machine_path(const settings *c, char *out) {
    return path_join(out, settings_dir(c), "machine.json");
}

err machine_get(const settings *c, machine *out) {
    char cache[PATH_TEXT_MAX], path[PATH_TEXT_MAX];
    os_memory memory;
    struct statvfs drive;
    *out = (machine){0};
    os_memory_get(&memory);
    out->memory =
        settings_is_auto(c, CONFIG_MEMORY) ? memory.total / 4 * 3 : settings_size(c, CONFIG_MEMORY);
    TRY(models_cache_dir(c, cache));
    for (size_t n = strlen(cache); n > 1 && statvfs(cache, &drive) != 0;) { /* not made yet */
        while (n > 1 && cache[n - 1] != '/') n--;
        if (n > 1) n--;
        cache[n ? n : 1] = '\0';
    }
    if (statvfs(cache, &drive) == 0) out->disk_free = (uint64_t)drive.f_bavail * drive.f_frsize;
    TRY(machine_path(c, path));
    json_t *o;
    if (json_read_file(path, 65536, &o).code) return err_none(); /* not measured yet */
    double disk = json_number_value(json_object_get(o, "disk_bytes_per_second"));
    double mem = json_number_value(json_object_get(o, "memory_bytes_per_second"));
    out->disk_speed = disk > 0 ? disk : 0;
    out->memory_speed = mem > 0 ? mem : 0;
    json_decref(o);
    return err_none();
}

err machine_save(const settings *c, double disk_speed, double memory_speed) {
    char path[PATH_TEXT_MAX], text[200];
    TRY(dir_make(settings_dir(c), 0700));
    TRY(machine_path(c, path));
    int n = snprintf(text, sizeof text,
                     "{\"disk_bytes_per_second\": %.0f, \"memory_bytes_per_second\": %.0f}\n",
                     disk_speed, memory_speed);
    return file_write(path, text, (size_t)n, 0600);
}

/* Hit rate of an expert cache that holds this share of all experts: between the measured points of
 * docs/MEASURED.md (OLMoE traces: 5 % holds 22.9 % of the requests, 10 % 34.4 %, 20 % 50.7 %). */
static double hit_rate(double share) {
    static const double points[][2] = {{0, 0}, {0.05, 0.229}, {0.10, 0.344}, {0.20, 0.507}, {1, 1}};
    for (size_t i = 1; i < sizeof points / sizeof *points; i++) {
        if (share > points[i][0]) continue;
        double t = (share - points[i - 1][0]) / (points[i][0] - points[i - 1][0]);
        return points[i - 1][1] + t * (points[i][1] - points[i - 1][1]);
    }
    return 1;
}

void model_outlook_get(const model_need *n, const machine *h, model_outlook *out) {
    *out = (model_outlook){0};
    if (h->memory < n->least) return;
    double cache = (double)(h->memory - n->least);
    double share = n->experts ? fmin(1, cache / (double)n->experts) : 1;
    out->fit = share >= 1 ? FIT_RESIDENT : FIT_STREAMED;
    out->hit_rate = hit_rate(share);
    double seconds = 0;
    if (out->fit == FIT_STREAMED) {
        if (h->disk_speed <= 0) return;
        seconds = (double)n->token_experts * (1 - out->hit_rate) / h->disk_speed;
    }
    double through = (double)(n->token_experts + n->token_trunk);
    if (h->memory_speed > 0) seconds = fmax(seconds, through / h->memory_speed);
    out->tokens_per_second = seconds > 0 ? 1 / seconds : 0;
}

void model_outlook_text(const model_need *n, const machine *h, char *out, size_t size) {
    model_outlook o;
    char speed[60] = "";
    model_outlook_get(n, h, &o);
    if (o.tokens_per_second > 0)
        snprintf(speed, sizeof speed,
                 o.tokens_per_second < 10 ? ", at most %.1f tok/s" : ", at most %.0f tok/s",
                 o.tokens_per_second);
    if (o.fit == FIT_NO)
        snprintf(out, size, "no, needs %.1f GiB of memory", (double)n->least / 1073741824.0);
    else if (o.fit == FIT_RESIDENT)
        snprintf(out, size, "yes, all in memory%s", speed);
    else
        snprintf(out, size, "yes, from the drive%s", speed);
}

/* ---- the entry and the files ---- */

err model_agree(const model_entry *m, const char *dir) {
    model_config f;
    TRY(config_open(dir, &f));
    struct {
        const char *name;
        int entry, file;
    } const pairs[] = {
        {"layers", m->layers, f.layers},
        {"hidden", m->hidden, f.hidden},
        {"heads", m->heads, f.heads},
        {"kv_heads", m->kv_heads, f.kv_heads},
        {"head_dim", m->head_dim, f.head_dim},
        {"experts", m->experts, f.experts},
        {"experts_per_token", m->experts_per_token, f.experts_per_token},
        {"expert_intermediate", m->expert_intermediate, f.expert_intermediate},
        {"shared_intermediate", m->shared_intermediate, f.shared_intermediate},
        {"linear_value_heads", m->linear_value_heads, f.linear_v_heads},
        {"linear_key_heads", m->linear_key_heads, f.linear_k_heads},
        {"vocab", m->vocab, f.vocab},
    };
    err e = err_none();
    for (size_t i = 0; !e.code && i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i].entry != pairs[i].file)
            e = err_make(ERR_CORRUPT, "%s: %s is %d in the registry and %d in %s/config.json",
                         m->id, pairs[i].name, pairs[i].entry, pairs[i].file, dir);
    config_close(&f);
    return e;
}
