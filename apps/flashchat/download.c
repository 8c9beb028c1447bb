/* download.c: `flashchat download`: one screen that says what will happen, then it happens.
 *
 * Only an explicit Y (or --yes) is consent; the end of the input is not. Whatever stops a download,
 * the same command goes on with it. */
#include <stdio.h>
#include <string.h>

#include "hub_access.h"
#include "product.h"
#include "screen.h"

typedef struct order {
    const model_entry *m; /* NULL for a repository that the registry does not know */
    const char *repo, *revision;
    bool yes, all;
} order;

static void field(const char *name, const char *text) {
    char first[24];
    snprintf(first, sizeof first, "  %-9s ", name);
    print_wrapped(stdout, first, text);
}

static void show_time(uint64_t bytes) {
    char slow[24], fast[24], text[160];
    snprintf(text, sizeof text, "about %s at 100 Mbit/s, %s at 1 Gbit/s",
             human_time(slow, (double)bytes / 11e6), human_time(fast, (double)bytes / 110e6));
    field("time", text);
}

static void show_order(const order *o, const hub_access *a, const hub_listing *l,
                       const hub_need *n) {
    char total[16], here[16], rest[16], now[16], then[16], text[PATH_TEXT_MAX + 600];
    printf("%sDownload %s%s\n", style(STYLE_BOLD), o->m ? o->m->name : o->repo, STYLE_END);
    snprintf(text, sizeof text, "%s, %s, revision %s (%.12s)", a->endpoint, l->repo, l->revision,
             l->commit);
    field("from", text);
    field("to", a->cache);
    snprintf(text, sizeof text, "%s in %d files", human_bytes(total, n->total), l->n_files);
    if (n->present + n->partial)
        snprintf(text + strlen(text), 100, "; %s are here already, %s to come",
                 human_bytes(here, n->present + n->partial), human_bytes(rest, n->download));
    field("size", text);
    show_time(n->download);
    uint64_t left = n->disk_free > n->download ? n->disk_free - n->download : 0;
    snprintf(text, sizeof text, "%s free, %s after it", human_bytes(now, n->disk_free),
             human_bytes(then, left));
    field("drive", text);
    if (o->m && o->m->license[0]) field("licence", o->m->license);
    printf("\n");
}

static void show_done(const order *o, const char *snapshot) {
    char text[PATH_TEXT_MAX + 300];
    snprintf(text, sizeof text, "%s is complete and checked, in %s", o->m ? o->m->id : o->repo,
             snapshot);
    print_wrapped(stdout, "", text);
    if (o->m)
        snprintf(text, sizeof text,
                 "Next: flashchat chat --model %s   (always: flashchat config set MODEL %s)",
                 o->m->id, o->m->id);
    else
        snprintf(text, sizeof text, "Next: flashchat add-model %s   (to use it by name)", o->repo);
    print_wrapped(stdout, "", text);
}

static int cancelled(const char *again) {
    printf("User cancelled: nothing was downloaded.\n");
    print_wrapped(stdout, "Run it again when you are ready: ", again);
    return 1;
}

static int get(const order *o, hub_access *a, hub_listing *l) {
    hub_need need;
    char snapshot[HUB_PATH_MAX], again[300];
    snprintf(again, sizeof again, "flashchat download %s", o->m ? o->m->id : o->repo);
    err e = hub_need_get(&a->options, l, &need);
    if (e.code) return product_fail("download", e);
    if (need.files_missing) {
        show_order(o, a, l, &need);
        if (!o->yes && !ask_consent("download")) return cancelled(again);
    }
    e = hub_download(&a->options, l, snapshot);
    progress_end(a);
    if (e.code == ERR_CANCELLED) {
        fflush(stdout);
        fprintf(stderr, "Stopped. What arrived is kept; go on with: %s\n", again);
        return 130;
    }
    if (!e.code && !o->all) e = hub_complete(snapshot);
    if (e.code) {
        product_fail("download", e);
        fprintf(stderr, "What arrived is kept; try again with: %s\n", again);
        return 1;
    }
    if (o->m) e = model_agree(o->m, snapshot);
    if (e.code) return product_fail("download", e);
    show_done(o, snapshot);
    return 0;
}

static int fetch(const settings *c, const order *o, int connections) {
    hub_access a;
    hub_listing l = {0};
    err e = hub_access_begin(c, &a);
    if (e.code) return product_fail("download", e);
    a.options.connections = connections;
    e = hub_list(&a.options, o->repo, o->revision, &l);
    int rc = 1;
    if (e.code == ERR_CANCELLED)
        rc = 130;
    else if (e.code)
        product_fail("download", e);
    else {
        if (!o->all) hub_keep_needed(&l);
        rc = get(o, &a, &l);
    }
    hub_listing_free(&l);
    hub_access_end(&a);
    return rc;
}

static int usage(const char *what) {
    fprintf(stderr,
            "flashchat download: %s\n"
            "Try: flashchat download NAME            a name from `flashchat models`\n"
            "     flashchat download ORG/REPOSITORY  any model of the hub\n"
            "     --revision REV, --yes, --connections N (1 to 16), --all-files\n",
            what);
    return 2;
}

static int run(const product *p, int argc, char **argv, order *o, int connections) {
    if (argc != 2) return usage(argc < 2 ? "which model?" : "one model at a time");
    o->m = models_find(&p->models, argv[1]);
    if (o->m && o->m->path[0]) {
        printf("%s comes with flashchat: there is nothing to download.\n", o->m->name);
        return 0;
    }
    o->repo = o->m ? o->m->repo : argv[1];
    if (!o->revision) o->revision = o->m ? o->m->revision : "main";
    err e = hub_check_repo(o->repo);
    if (e.code) {
        product_fail("download", e);
        fprintf(stderr, "The names that flashchat knows: flashchat models\n");
        return 2;
    }
    return fetch(p->c, o, connections);
}

int command_download(int argc, char **argv) {
    product p;
    int rc;
    int64_t connections = 0;
    order o = {.yes = take_word(&argc, argv, "--yes"),
               .all = take_word(&argc, argv, "--all-files")};
    const char *n = take_value(&argc, argv, "--connections");
    o.revision = take_value(&argc, argv, "--revision");
    if (n && (!value_int(n, &connections) || connections < 1 || connections > 16))
        return usage("--connections wants a number from 1 to 16");
    if (!product_open(&p, "download", &argc, argv, &rc)) return rc;
    rc = run(&p, argc, argv, &o, (int)connections);
    product_close(&p);
    return rc;
}
