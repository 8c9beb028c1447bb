/* config_wizard.c: settings step by step.
 *
 *     groups -> settings of a group -> one setting: what it means, what it costs here, a new value
 *
 * Changes gather in a list and touch the file only at "s". Each can be taken back with "u", newest
 * first. The settings object shows the gathered changes at once, so that costs are those of the
 * choice being made. */
#include "config_wizard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"
#include "screen.h"

#define STEPS_MAX 200

typedef struct step {
    config_id id;
    char *before; /* owned; NULL: the file did not set it */
} step;

typedef struct wizard {
    settings *c;
    model_list models;
    machine here;
    step steps[STEPS_MAX];
    int n_steps;
} wizard;

/* ---- what it costs ---- */

static void cost_line(wizard *w, const model_entry *m, int context, uint64_t memory, char *out,
                      size_t size) {
    model_need need;
    machine here = w->here;
    char least[16], fits[120];
    here.memory = memory;
    model_need_get(m, context, settings_text(w->c, CONFIG_KV_QUANT), &need);
    model_outlook_text(&need, &here, fits, sizeof fits);
    snprintf(out, size, "needs at least %s of memory; fits: %s", human_memory(least, need.least),
             fits);
}

static const model_entry *chosen(const wizard *w) {
    return models_find(&w->models, settings_text(w->c, CONFIG_MODEL));
}

static uint64_t memory_now(const wizard *w) {
    return settings_is_auto(w->c, CONFIG_MEMORY) ? w->here.memory
                                                 : settings_size(w->c, CONFIG_MEMORY);
}

static void show_models(wizard *w) {
    int context = (int)settings_int(w->c, CONFIG_CONTEXT_WINDOW);
    for (int i = 0; i < w->models.n; i++) {
        const model_entry *m = &w->models.entries[i];
        char first[16], line[400], cost[200], dir[PATH_TEXT_MAX];
        model_state state = model_where(w->c, m, dir);
        cost_line(w, m, context, memory_now(w), cost, sizeof cost);
        snprintf(first, sizeof first, "  %2d  ", i + 1);
        snprintf(line, sizeof line, "%s (%s): %s", m->id,
                 state == MODEL_READY ? "here" : "to download", cost);
        print_wrapped(stdout, first, line);
    }
}

static void show_memory_costs(wizard *w) {
    const model_entry *m = chosen(w);
    if (!m) return;
    for (int i = 1; i <= 4; i++) {
        char first[32], size[16], cost[200];
        uint64_t memory = w->here.memory / 4 * (uint64_t)i;
        snprintf(first, sizeof first, "  %9s  ", human_memory(size, memory));
        cost_line(w, m, (int)settings_int(w->c, CONFIG_CONTEXT_WINDOW), memory, cost, sizeof cost);
        print_wrapped(stdout, first, cost);
    }
}

static void show_context_costs(wizard *w) {
    static const int choices[] = {4096, 16384, 32768, 131072};
    const model_entry *m = chosen(w);
    if (!m) return;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        char first[32], line[400], kv[16], cost[200];
        model_need need;
        if (choices[i] > m->context) break;
        model_need_get(m, choices[i], settings_text(w->c, CONFIG_KV_QUANT), &need);
        cost_line(w, m, choices[i], memory_now(w), cost, sizeof cost);
        snprintf(first, sizeof first, "  %9d  ", choices[i]);
        snprintf(line, sizeof line, "keeps %s for the conversation; %s", human_memory(kv, need.kv),
                 cost);
        print_wrapped(stdout, first, line);
    }
}

static void show_profiles(const wizard *w) {
    const model_entry *m = chosen(w);
    for (int i = 0; m && i < m->n_profiles; i++) {
        char line[200];
        const model_profile *p = &m->profiles[i];
        snprintf(line, sizeof line,
                 "%s: temperature %g, top-p %g, top-k %d, presence penalty %g, thinking %s",
                 p->name, p->temperature, p->top_p, p->top_k, p->presence_penalty,
                 p->reasoning ? "on" : "off");
        print_wrapped(stdout, "   - ", line);
    }
}

/* The stored conversation at each precision. */
static void show_kv_costs(wizard *w) {
    const model_entry *m = chosen(w);
    static const char *const types[] = {"f32", "f16", "q8"};
    char size[3][16], line[300];
    if (!m) return;
    for (int i = 0; i < 3; i++) {
        model_need need;
        model_need_get(m, (int)settings_int(w->c, CONFIG_CONTEXT_WINDOW), types[i], &need);
        human_memory(size[i], need.kv);
    }
    snprintf(line, sizeof line,
             "for the context window of now: f32 %s, f16 %s, q8 %s. What q8 costs in quality: "
             "flashchat benchmark quality --kv q8",
             size[0], size[1], size[2]);
    print_wrapped(stdout, "  ", line);
}

/* What fewer experts bring on this machine, and what they cost. */
static void show_expert_costs(wizard *w) {
    const model_entry *m = chosen(w);
    if (!m) return;
    for (int k = m->experts_per_token; k >= 1; k = k > 1 ? (k + 1) / 2 : 0) {
        model_entry fewer = *m;
        char first[40], cost[200];
        fewer.experts_per_token = k;
        snprintf(first, sizeof first, "  %3d%s ", k, k == m->experts_per_token ? " (trained)" : "");
        cost_line(w, &fewer, (int)settings_int(w->c, CONFIG_CONTEXT_WINDOW), memory_now(w), cost,
                  sizeof cost);
        print_wrapped(stdout, first, cost);
    }
    print_wrapped(stdout, "  ",
                  "What it costs in quality: flashchat benchmark quality --k N (on the bundled "
                  "model 4 of 6 cost 1.8 % of perplexity)");
}

static void show_costs(wizard *w, config_id id) {
    if (id == CONFIG_KV_QUANT) show_kv_costs(w);
    if (id == CONFIG_ACTIVE_EXPERTS) show_expert_costs(w);
    if (id == CONFIG_MODEL) show_models(w);
    if (id == CONFIG_MEMORY) show_memory_costs(w);
    if (id == CONFIG_CONTEXT_WINDOW) show_context_costs(w);
    if (id == CONFIG_SAMPLING_PROFILE) show_profiles(w);
}

/* ---- changes ---- */

static err take_change(wizard *w, config_id id, const char *value) {
    const char *before = settings_layer(w->c, ORIGIN_FILE, id);
    if (w->n_steps == STEPS_MAX)
        return err_make(ERR_RANGE, "save first: %d changes are open", STEPS_MAX);
    char *copy = before ? strdup(before) : NULL;
    err e = settings_put(w->c, ORIGIN_FILE, id, value);
    if (e.code) return free(copy), e;
    w->steps[w->n_steps++] = (step){id, copy};
    return e;
}

static void undo(wizard *w) {
    if (!w->n_steps) {
        puts("Nothing was changed yet.");
        return;
    }
    step *s = &w->steps[--w->n_steps];
    err e = settings_put(w->c, ORIGIN_FILE, s->id, s->before);
    printf("%s is %s%s%s again%s%s.\n", config_rows[s->id].name, s->before ? "\"" : "",
           s->before ? s->before : "not set", s->before ? "\"" : "", e.code ? ": " : "", e.text);
    free(s->before);
}

/* Each changed setting once, with its newest value. */
static int gather(const wizard *w, settings_change *out) {
    bool seen[CONFIG_COUNT] = {false};
    int n = 0;
    for (int i = 0; i < w->n_steps; i++) {
        config_id id = w->steps[i].id;
        if (seen[id]) continue;
        seen[id] = true;
        out[n++] = (settings_change){id, settings_layer(w->c, ORIGIN_FILE, id)};
    }
    return n;
}

static void preview(const wizard *w) {
    settings_change changes[CONFIG_COUNT];
    char *text;
    err e = settings_preview(settings_file(w->c), changes, gather(w, changes), &text);
    if (e.code) {
        print_wrapped(stdout, "! ", e.text);
        return;
    }
    printf("%s would say:\n", settings_file(w->c));
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        print_wrapped(stdout, "  | ", line);
    free(text);
}

static bool save(wizard *w) {
    settings_change changes[CONFIG_COUNT];
    int n = gather(w, changes);
    if (!n) {
        puts("There is nothing to save.");
        return true;
    }
    err e = settings_save(settings_file(w->c), changes, n);
    if (e.code) {
        print_wrapped(stdout, "! ", e.text);
        return false;
    }
    for (int i = 0; i < w->n_steps; i++) free(w->steps[i].before);
    w->n_steps = 0;
    char text[PATH_TEXT_MAX + 100];
    snprintf(text, sizeof text, "Saved %d setting%s in %s. To take it back: flashchat config undo",
             n, n == 1 ? "" : "s", settings_file(w->c));
    print_wrapped(stdout, "", text);
    return true;
}

/* ---- screens ---- */

#define CHOICE_MAX 64

/* The value that a typed line stands for: the number of a model or of a choice is its name. */
static const char *meant(const wizard *w, config_id id, const char *typed,
                         char choice[CHOICE_MAX]) {
    int64_t n;
    if (id == CONFIG_MODEL && value_int(typed, &n) && n >= 1 && n <= w->models.n)
        return w->models.entries[n - 1].id;
    if (config_rows[id].kind != KIND_CHOICE || !value_int(typed, &n) || n < 1) return typed;
    const char *p = config_rows[id].choices; /* the n-th of them */
    for (; n > 1 && *p; n--) p += strcspn(p, "|") + (p[strcspn(p, "|")] == '|');
    if (!*p) return typed;
    snprintf(choice, CHOICE_MAX, "%.*s", (int)strcspn(p, "|"), p);
    return choice;
}

/* False at the end of the input. */
static bool edit(wizard *w, config_id id) {
    const config_row *row = &config_rows[id];
    char accepts[256], origin[PATH_TEXT_MAX + 64], typed[1024];
    settings_origin_text(w->c, id, origin, sizeof origin);
    config_accepts(row, accepts, sizeof accepts);
    printf("\n%s%s%s  (%s)\n", style(STYLE_BOLD), row->title, STYLE_END, row->name);
    print_wrapped(stdout, "  ", row->meaning);
    print_wrapped(stdout, "  affects: ", row->affects);
    show_costs(w, id);
    int number = 0;
    for (const char *p = row->kind == KIND_CHOICE ? row->choices : ""; *p;) {
        int n = (int)strcspn(p, "|");
        printf("  %2d  %.*s\n", ++number, n, p);
        p += n + (p[n] == '|');
    }
    printf("  now: \"%s\", from %s\n", settings_text(w->c, id), origin);
    for (int tries = 0; tries < 5; tries++) {
        char what[400], choice[CHOICE_MAX];
        snprintf(what, sizeof what, "%s; empty line keeps it, - is as on the first day", accepts);
        print_wrapped(stdout, "  ", what);
        if (!ask_line("  new value: ", typed, sizeof typed)) return false;
        if (!typed[0]) return true;
        err e = take_change(w, id, strcmp(typed, "-") ? meant(w, id, typed, choice) : NULL);
        if (!e.code) {
            printf("  %s is now \"%s\" (not saved yet)\n", row->name, settings_text(w->c, id));
            return true;
        }
        print_wrapped(stdout, "  ! ", e.text);
    }
    return true;
}

static bool show_group(wizard *w, int group) {
    for (int at = 0;;) {
        int ids[CONFIG_COUNT], n = 0;
        char lines[CONFIG_COUNT][200];
        const char *items[CONFIG_COUNT];
        for (int i = 0; i < CONFIG_COUNT; i++) {
            if ((int)config_rows[i].group != group) continue;
            snprintf(lines[n], sizeof lines[n], "%s = \"%.120s\"", config_rows[i].title,
                     settings_text(w->c, (config_id)i));
            items[n] = lines[n];
            ids[n++] = i;
        }
        printf("\n%s%s%s\n", style(STYLE_BOLD), config_group_names[group], STYLE_END);
        int pick = ask_list(items, n, at);
        if (pick < 0) return pick == -1;
        at = pick;
        if (!edit(w, (config_id)ids[pick])) return false;
    }
}

static void show_top(const wizard *w) {
    printf("\n%sSettings of flashchat%s%s\n", style(STYLE_BOLD), STYLE_END,
           w->n_steps ? "  (changes are not saved yet)" : "");
    for (int g = 0; g < GROUP_COUNT; g++) printf("  %d  %s\n", g + 1, config_group_names[g]);
    puts("  p  preview   s  save\n  u  undo      x  leave");
}

/* True when it is fine to leave. */
static bool may_leave(wizard *w) {
    if (!w->n_steps) return true;
    int key = ask_key("Save the changes first?  Y  save   n  forget them   other: stay : ");
    if (key == 'y' || key == 'Y') return save(w);
    if (key == 'n' || key == 'N' || key < 0) {
        puts("Nothing was saved.");
        return true;
    }
    return false;
}

static int loop(wizard *w) {
    for (;;) {
        show_top(w);
        int key = ask_key("  : ");
        bool goes_on = true;
        if (key >= '1' && key < '1' + GROUP_COUNT)
            goes_on = show_group(w, key - '1');
        else if (key == 'p')
            preview(w);
        else if (key == 's')
            save(w);
        else if (key == 'u')
            undo(w);
        else if ((key == 'x' || key == 'q' || key == 27) && may_leave(w))
            return 0;
        else if (key >= 0 && key != '\n' && key != 'x' && key != 'q')
            puts("  Please press one of the keys shown.");
        if (key < 0 || !goes_on) {
            puts(w->n_steps ? "The input ended: the changes were not saved." : "");
            return w->n_steps ? 1 : 0;
        }
    }
}

int config_wizard(settings *c) {
    wizard w = {.c = c};
    err e = models_load(c, &w.models);
    if (!e.code) e = machine_get(c, &w.here);
    if (e.code) print_wrapped(stderr, "! ", e.text);
    int rc = loop(&w);
    for (int i = 0; i < w.n_steps; i++) free(w.steps[i].before);
    models_free(&w.models);
    return rc;
}
