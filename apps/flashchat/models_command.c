/* models_command.c: `flashchat models`: which models there are, what each needs, whether it fits.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "product.h"
#include "screen.h"

static const char *const state_names[] = {"not here", "begun", "ready"};
static const char *const state_words[] = {"absent", "partial", "ready"};
static const char *const fit_words[] = {"no", "streamed", "resident"};

typedef struct row {
    const model_entry *m;
    model_need need;
    model_outlook outlook;
    model_state state;
    char dir[PATH_TEXT_MAX], text[120];
    bool chosen;
} row;

static void fill_row(const product *p, const model_entry *m, const machine *here, row *out) {
    out->m = m;
    int context = (int)settings_int(p->c, CONFIG_CONTEXT_WINDOW);
    model_need_get(m, context, settings_text(p->c, CONFIG_KV_QUANT), &out->need);
    model_outlook_get(&out->need, here, &out->outlook);
    model_outlook_text(&out->need, here, out->text, sizeof out->text);
    out->state = model_where(p->c, m, out->dir);
    out->chosen = models_find(&p->models, settings_text(p->c, CONFIG_MODEL)) == m;
}

static json_t *row_json(const row *r) {
    const model_entry *m = r->m;
    json_t *profiles = json_array();
    for (int i = 0; i < m->n_profiles; i++)
        json_array_append_new(profiles, json_string(m->profiles[i].name));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, "
                     "s:I, s:s, s:f, "
                     "s:f, s:s, s:o}",
                     "id", m->id, "name", m->name, "summary", m->summary, "repo", m->repo,
                     "revision", m->revision, "user", m->user, "chosen", r->chosen, "state",
                     state_words[r->state], "dir", r->dir, "bits", m->bits, "context_window",
                     m->context, "disk_bytes", (json_int_t)r->need.disk, "memory_least_bytes",
                     (json_int_t)r->need.least, "memory_all_bytes", (json_int_t)r->need.all,
                     "expert_bytes", (json_int_t)r->need.expert_bytes, "token_expert_bytes",
                     (json_int_t)r->need.token_experts, "fits", fit_words[r->outlook.fit],
                     "hit_rate_estimate", r->outlook.hit_rate, "tokens_per_second_ceiling",
                     r->outlook.tokens_per_second, "default_profile", m->default_profile,
                     "profiles", profiles);
}

static int print_json(const product *p, const machine *here) {
    json_t *list = json_array();
    for (int i = 0; i < p->models.n; i++) {
        row r;
        fill_row(p, &p->models.entries[i], here, &r);
        json_array_append_new(list, row_json(&r));
    }
    json_t *all =
        json_pack("{s:I, s:I, s:f, s:f, s:o}", "memory_bytes", (json_int_t)here->memory,
                  "disk_free_bytes", (json_int_t)here->disk_free, "disk_bytes_per_second",
                  here->disk_speed, "memory_bytes_per_second", here->memory_speed, "models", list);
    int bad = json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return bad ? 1 : 0;
}

static void print_row(const row *r, int id_width) {
    char disk[16], memory[16], line[400];
    human_bytes(disk, r->need.disk);
    human_memory(memory, r->need.least);
    const char *mark = r->chosen ? "*" : " ",
               *shade = r->state == MODEL_READY ? style(STYLE_BOLD) : "";
    if (screen_width() >= id_width + 62) {
        printf("%s %s", mark, shade);
        print_cell(stdout, r->m->id, id_width);
        printf("%s %9s  %9s  %-8s  %s\n", STYLE_END, disk, memory, state_names[r->state], r->text);
        return;
    }
    printf("%s %s%s%s\n", mark, shade, r->m->id, STYLE_END);
    snprintf(line, sizeof line, "%s, %s on the drive, at least %s of memory. Fits: %s",
             state_names[r->state], disk, memory, r->text);
    print_wrapped(stdout, "    ", line);
}

static void print_foot(const machine *here, const product *p) {
    char memory[16], disk[16], line[400];
    human_memory(memory, here->memory);
    human_bytes(disk, here->disk_free);
    snprintf(line, sizeof line,
             "This machine: %s of memory for flashchat, %s free on the drive of the "
             "models%s.",
             memory, disk,
             here->disk_speed > 0 ? ""
                                  : "; the drive's speed is not measured yet (flashchat doctor)");
    putchar('\n');
    print_wrapped(stdout, "", line);
    print_wrapped(stdout, "",
                  "* is the chosen one. More about one: flashchat models NAME. Get one: "
                  "flashchat download NAME. Choose one: flashchat config set MODEL NAME.");
    (void)p;
}

static int print_table(const product *p, const machine *here) {
    int width = 8;
    for (int i = 0; i < p->models.n; i++) {
        int n = text_width(p->models.entries[i].id);
        if (n > width) width = n;
    }
    if (screen_width() >= width + 62)
        printf("  %-*s %9s  %9s  %-8s  %s\n", width, "model", "on drive", "memory", "state",
               "fits this machine");
    for (int i = 0; i < p->models.n; i++) {
        row r;
        fill_row(p, &p->models.entries[i], here, &r);
        print_row(&r, width);
    }
    print_foot(here, p);
    return 0;
}

static void field(const char *name, const char *text) {
    char first[24];
    snprintf(first, sizeof first, "  %-10s ", name);
    if (*text) print_wrapped(stdout, first, text);
}

static int print_one(const product *p, const machine *here, const model_entry *m) {
    row r;
    char a[16], b[16], d[16], line[PATH_TEXT_MAX + 400];
    fill_row(p, m, here, &r);
    printf("%s%s%s\n", style(STYLE_BOLD), m->name, STYLE_END);
    field("", m->summary);
    field("name", m->id);
    field("hub", m->repo);
    field("licence", m->license);
    snprintf(line, sizeof line, "%s%s%s", state_names[r.state], r.dir[0] ? ", in " : "", r.dir);
    field("state", line);
    snprintf(line, sizeof line, "%s", human_bytes(a, r.need.disk));
    field("drive", line);
    snprintf(line, sizeof line, "at least %s, everything at hand with %s",
             human_memory(a, r.need.least), human_memory(b, r.need.all));
    field("memory", line);
    snprintf(line, sizeof line, "%d layers of %d experts, %d at work for each token: %s of %s",
             m->layers, m->experts, m->experts_per_token, human_bytes(a, r.need.token_experts),
             human_bytes(d, r.need.experts));
    field("experts", line);
    field("fits", r.text);
    for (int i = 0; i < m->n_profiles; i++) {
        const model_profile *s = &m->profiles[i];
        snprintf(line, sizeof line,
                 "%s%s: temperature %g, top-p %g, top-k %d, min-p %g, presence penalty "
                 "%g, repetition penalty %g, thinking %s",
                 s->name, strcmp(s->name, m->default_profile) ? "" : " (usual)", s->temperature,
                 s->top_p, s->top_k, s->min_p, s->presence_penalty, s->repetition_penalty,
                 s->reasoning ? "on" : "off");
        field(i ? "" : "styles", line);
    }
    field("from", m->profiles_source);
    printf("\n");
    if (r.state == MODEL_READY) {
        err e = model_agree(m, r.dir);
        if (e.code) return product_fail("models", e);
        snprintf(line, sizeof line, "Choose it: flashchat config set MODEL %s", m->id);
    } else {
        snprintf(line, sizeof line, "Get it: flashchat download %s", m->id);
    }
    print_wrapped(stdout, "", line);
    return 0;
}

static int run(const product *p, int argc, char **argv, bool json) {
    machine here;
    err e = machine_get(p->c, &here);
    if (e.code) return product_fail("models", e);
    if (argc > 2) {
        fprintf(stderr, "flashchat models: one name at most. Try: flashchat models\n");
        return 2;
    }
    if (json) return print_json(p, &here);
    if (argc == 1) return print_table(p, &here);
    const model_entry *m = models_find(&p->models, argv[1]);
    if (m) return print_one(p, &here, m);
    fprintf(stderr,
            "flashchat models: there is no model \"%s\"; the names are in: flashchat models\n",
            argv[1]);
    return 1;
}

int command_models(int argc, char **argv) {
    product p;
    int rc;
    bool json = take_word(&argc, argv, "--json");
    if (!product_open(&p, "models", &argc, argv, &rc)) return rc;
    rc = run(&p, argc, argv, json);
    product_close(&p);
    return rc;
}
