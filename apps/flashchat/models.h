/* models.h: the models that flashchat knows by name: assets/models/ID.json (shipped) and
 * ~/.config/flashchat/models.d/ID.json (the user's, made by `flashchat add-model`), what each one
 * needs, where it lies on this machine, and what it can be expected to do here.
 *
 * The numbers of an entry are for planning before anything is downloaded. What counts once the
 * files are there is their config.json; models_agree compares the two. One thread. */
#ifndef MODELS_H
#define MODELS_H

#include "config.h"
#include "files.h"

#define PROFILES_MAX 8
#define MODELS_MAX   256

typedef struct model_profile {
    char name[40];
    double temperature, top_p, min_p, presence_penalty, repetition_penalty;
    int top_k;
    bool reasoning;
} model_profile;

typedef struct model_entry {
    char id[100], name[120], summary[300], license[100];
    char repo[200], revision[100]; /* on the hub; repo is empty for the bundled model */
    char path[PATH_TEXT_MAX];      /* a folder instead of a repo, else empty */
    char family[40];
    bool user; /* from models.d */
    int bits, trunk_bits, group;
    int layers, full_attention_layers, hidden, heads, kv_heads, head_dim;
    int experts, experts_per_token, expert_intermediate, shared_intermediate;
    int linear_value_heads, linear_key_heads, linear_head_dim, vocab, context;
    char default_profile[40], profiles_source[200];
    int n_profiles;
    model_profile profiles[PROFILES_MAX];
} model_entry;

typedef struct model_list {
    model_entry *entries; /* owned */
    int n;
    char problem[ERR_TEXT_MAX]; /* the first entry of models.d that could not be read, or "" */
} model_list;

/* Shipped entries that cannot be read are an error; the user's are a problem and left out. */
err models_load(const settings *c, model_list *out) MUST_USE;
void models_free(model_list *l);
/* By id, any case; also by its hub name. NULL when there is none. */
const model_entry *models_find(const model_list *l, const char *name);
/* One entry from JSON; `where` names it in messages. */
err model_parse(const char *where, const void *json, size_t length, model_entry *out) MUST_USE;

/* The folder of the installation: FLASHCHAT_HOME, else what lies above the program.
 * out[PATH_TEXT_MAX] */
err install_dir(char *out) MUST_USE;
/* Where downloads go: the setting, else HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub. */
err models_cache_dir(const settings *c, char *out) MUST_USE;

typedef enum model_state {
    MODEL_ABSENT,  /* nothing here */
    MODEL_PARTIAL, /* a download was begun */
    MODEL_READY,
} model_state;

/* Where the entry's files are (out[PATH_TEXT_MAX], "" when absent): what `flashchat pack` wrote of
 * it when that is complete, else the published files. */
model_state model_where(const settings *c, const model_entry *m, char *out);
/* The published files alone, for packing. */
model_state model_published(const settings *c, const model_entry *m, char *out);
/* A name of the registry or a folder, to a folder that has a config.json. ERR_NOT_FOUND says how to
 * get the model. *entry (may be NULL) is the registry's entry or NULL for a folder of one's own. */
err model_resolve(const settings *c, const model_list *l, const char *name, char *dir,
                  const model_entry **entry) MUST_USE;
/* Compares the entry with DIR/config.json: ERR_CORRUPT names the first number that differs. */
err model_agree(const model_entry *m, const char *dir) MUST_USE;

/* Puts the entry's sampling profile under the settings (ORIGIN_REGISTRY). ERR_ARG when
 * SAMPLING_PROFILE names one that the model does not have. entry may be NULL: nothing is put. */
err model_apply_profile(settings *c, const model_entry *entry) MUST_USE;

/* ---- needs (models_need.c) ---- */

typedef struct model_need {
    uint64_t disk;         /* experts + trunk */
    uint64_t expert_bytes; /* one expert */
    uint64_t experts, trunk;
    uint64_t kv, state;     /* with the given context window */
    uint64_t least;         /* the least memory that works: no expert is kept */
    uint64_t all;           /* memory that holds everything */
    uint64_t token_experts; /* bytes of experts that a token touches */
    uint64_t token_trunk;
} model_need;

/* Estimates from the entry's numbers, within a few percent of the files. context 0: 32768 or the
 * model's own. kv: a value of KV_QUANT. */
void model_need_get(const model_entry *m, int context, const char *kv, model_need *out);

typedef struct machine {
    uint64_t memory;     /* what flashchat may take: the setting, else 3/4 of what there is */
    uint64_t disk_free;  /* on the drive of the cache */
    double disk_speed;   /* bytes a second, measured by `flashchat doctor`; 0: not measured yet */
    double memory_speed; /* bytes a second; 0: not measured */
} machine;

err machine_get(const settings *c, machine *out) MUST_USE;
/* Remembers what doctor measured. */
err machine_save(const settings *c, double disk_speed, double memory_speed) MUST_USE;

typedef enum model_fit { FIT_NO, FIT_STREAMED, FIT_RESIDENT } model_fit;

typedef struct model_outlook {
    model_fit fit;
    double hit_rate;          /* share of experts found in memory, once warm; an estimate */
    double tokens_per_second; /* a ceiling from disk and memory; 0: unknown */
} model_outlook;

void model_outlook_get(const model_need *n, const machine *h, model_outlook *out);
/* "yes, about 3 tok/s at most from your drive": for a person. */
void model_outlook_text(const model_need *n, const machine *h, char *out, size_t size);

#endif
