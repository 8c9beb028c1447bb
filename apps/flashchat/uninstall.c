/* uninstall.c: `flashchat uninstall`: takes away what flashchat put on this machine.
 *
 * One screen says what goes and what stays, then Y is asked for. What goes: the running server, the
 * settings folder (settings, conversations, history, own model list, logs), the build folder with
 * this program. What stays: the sources, the archive, system packages, and models, which other
 * programs may share; each model goes too where its exact id is typed. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "hub/archive.h"
#include "manage.h"
#include "product.h"
#include "run_self.h"
#include "screen.h"
#include "status.h"

#define TREE_FDS 16

typedef struct leaving {
    product p;
    status s;
    char home[PATH_TEXT_MAX], build[PATH_TEXT_MAX]; /* build "": the program lies elsewhere */
    char caches[2][PATH_TEXT_MAX];                  /* what servers remember of prompts; "": none */
    int n_models;
} leaving;

static void field(const char *name, const char *text) {
    char first[24];
    snprintf(first, sizeof first, "  %-9s ", name);
    print_wrapped(stdout, first, text);
}

/* ---- folders ---- */

static uint64_t tree_bytes; /* of the walk under way */

static int add_size(const char *path, const struct stat *s, int kind, struct FTW *at) {
    (void)path, (void)at;
    if (kind == FTW_F) tree_bytes += (uint64_t)s->st_size;
    return 0;
}

static char *size_of_tree(const char *dir, char *out) {
    tree_bytes = 0;
    nftw(dir, add_size, TREE_FDS, FTW_PHYS | FTW_MOUNT);
    return human_bytes(out, tree_bytes);
}

/* The folder that the build made: only where this very program lies in it and a Makefile above. */
static void find_build(leaving *l) {
    char makefile[PATH_TEXT_MAX], self[PATH_TEXT_MAX], mine[PATH_TEXT_MAX];
    struct stat a, b;
    l->build[0] = '\0';
    if (install_dir(l->home).code || !os_program_path(self, sizeof self)) return;
    if (path_join(l->build, l->home, "build").code || path_join(mine, l->build, "flashchat").code ||
        path_join(makefile, l->home, "Makefile").code || !file_exists(makefile) ||
        stat(self, &a) != 0 || stat(mine, &b) != 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
        l->build[0] = '\0';
}

static void find_caches(leaving *l) {
    const char *xdg = getenv("XDG_CACHE_HOME");
    err e = xdg && *xdg == '/' ? path_join(l->caches[0], xdg, "flashchat")
                               : path_expand(l->caches[0], "~/.cache/flashchat");
    if (e.code || !dir_exists(l->caches[0])) l->caches[0][0] = '\0';
    e = path_join(l->caches[1], l->home, "assets/ember/flashchat/prompt_cache");
    if (e.code || !dir_exists(l->caches[1])) l->caches[1][0] = '\0';
}

/* ---- the screen ---- */

static void show_models(leaving *l) {
    char line[PATH_TEXT_MAX + 300], dir[PATH_TEXT_MAX];
    for (int i = 0; i < l->p.models.n; i++) {
        const model_entry *m = &l->p.models.entries[i];
        if (!m->repo[0] || model_where(l->p.c, m, dir) == MODEL_ABSENT) continue;
        snprintf(line, sizeof line, "%s stays, unless you type its name when asked", m->id);
        field(l->n_models++ ? "" : "models", line);
    }
}

/* The packages that the launcher installed, from the list that it keeps. */
static void show_packages(const leaving *l) {
    char path[PATH_TEXT_MAX], line[1600], *text;
    size_t n;
    if (!l->build[0] || path_join(path, l->build, "packages").code ||
        json_read_text(path, 1000, &text, &n).code)
        return;
    text[strcspn(text, "\n")] = '\0';
    snprintf(line, sizeof line,
             "stay, other programs may use them. If none does: sudo apt-get remove %s", text);
    field("packages", line);
    free(text);
}

static void show(leaving *l) {
    char line[PATH_TEXT_MAX + 300], size[16], archive[PATH_TEXT_MAX];
    const char *dir = settings_dir(l->p.c);
    printf("%sUninstall flashchat%s\n", style(STYLE_BOLD), STYLE_END);
    puts("What goes:");
    if (l->s.server_kind == SERVER_OURS) {
        snprintf(line, sizeof line, "the running one at %s is ended", l->s.server);
        field("server", line);
    }
    if (dir_exists(dir)) {
        snprintf(line, sizeof line, "%s, %s: settings, conversations, your own model list, logs",
                 dir, size_of_tree(dir, size));
        field("settings", line);
    }
    for (int i = 0; i < 2; i++) {
        if (!l->caches[i][0]) continue;
        snprintf(line, sizeof line, "%s, %s: remembered beginnings of conversations", l->caches[i],
                 size_of_tree(l->caches[i], size));
        field("cache", line);
    }
    if (l->build[0]) {
        snprintf(line, sizeof line, "%s, %s: what was built from the sources", l->build,
                 size_of_tree(l->build, size));
        field("program", line);
    }
    puts("What stays:");
    show_models(l);
    if (!settings_path(l->p.c, CONFIG_OFFLOAD_DIR, archive).code && archive[0])
        field("archive", archive);
    show_packages(l);
    snprintf(line, sizeof line, "%s (nothing of flashchat is left once you delete that folder)",
             l->home);
    field("sources", line);
    putchar('\n');
}

/* ---- doing it ---- */

static void ask_models(leaving *l) {
    char dir[PATH_TEXT_MAX];
    for (int i = 0; i < l->p.models.n; i++) {
        const model_entry *m = &l->p.models.entries[i];
        if (!m->repo[0] || model_where(l->p.c, m, dir) == MODEL_ABSENT) continue;
        char typed[200], prompt[400];
        snprintf(prompt, sizeof prompt,
                 "Type %s to remove that model too; empty keeps it: ", m->id);
        if (ask_line(prompt, typed, sizeof typed) && !strcmp(typed, m->id))
            manage_delete(&l->p, m->id, ARCHIVE_ALL, true);
        else
            printf("%s stays.\n", m->id);
    }
}

static int leave(leaving *l, bool asks) {
    if (asks) ask_models(l);
    if (l->s.server_kind == SERVER_OURS && run_self("serve", "--stop") != 0) {
        puts("The server did not end, so nothing else was removed. Try: flashchat serve --stop "
             "--force");
        return 1;
    }
    char dir[PATH_TEXT_MAX];
    snprintf(dir, sizeof dir, "%s", settings_dir(l->p.c));
    err e = tree_remove(dir);
    for (int i = 0; i < 2 && !e.code; i++)
        if (l->caches[i][0]) e = tree_remove(l->caches[i]);
    if (!e.code && l->build[0]) e = tree_remove(l->build);
    if (e.code) {
        product_fail("uninstall", e);
        fprintf(stderr, "What could be removed is gone; run it again once that is mended.\n");
        return 1;
    }
    print_wrapped(stdout, "",
                  l->build[0] ? "flashchat is removed. To have it again, run the launcher: it asks "
                                "and builds anew."
                              : "The settings are removed. The program lies outside of the "
                                "sources' build folder and stays.");
    return 0;
}

int command_uninstall(int argc, char **argv) {
    leaving l = {0};
    int rc;
    bool yes = take_word(&argc, argv, "--yes");
    if (!product_open(&l.p, "uninstall", &argc, argv, &rc)) return rc;
    if (argc > 1) {
        fprintf(stderr, "flashchat uninstall: it takes --yes or nothing\n");
        rc = 2;
    } else {
        find_build(&l);
        find_caches(&l);
        status_get(&l.p, &l.s);
        show(&l);
        if (yes || ask_consent("remove")) {
            rc = leave(&l, !yes);
        } else {
            puts("User cancelled: nothing was removed.");
            rc = 1;
        }
    }
    product_close(&l.p);
    return rc;
}
