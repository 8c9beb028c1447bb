/* manage.c: `flashchat manage`, `offload`, `restore`, `verify`: looking after model files.
 *
 * What can lose something (freeing, deleting) wants the model's exact id typed, refuses while a
 * program has the model open, and never touches the archive. The work itself is hub/archive.h. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "hub/archive.h"
#include "hub_access.h"
#include "manage.h"
#include "manage_use.h"
#include "product.h"
#include "run_self.h"
#include "screen.h"

typedef struct errand {
    product *p;
    const model_entry *m;
    const char *command;
    hub_access show; /* only its progress line is used */
    char cache[PATH_TEXT_MAX], archive[PATH_TEXT_MAX], local[PATH_TEXT_MAX];
    archive_job job;
    int lock;
} errand;

/* ---- beginning and ending ---- */

static void on_progress(void *ctx, const char *what, uint64_t done, uint64_t total) {
    hub_progress p = {0, 0, done < total ? done : total, total, 0, -1, NULL};
    progress_show(ctx, what, &p);
}

/* One errand at a time for each model; the lock lies where downloads have theirs. */
static err take_lock(errand *e) {
    char dir[PATH_TEXT_MAX], path[PATH_TEXT_MAX];
    TRY(path_join(dir, e->cache, ".locks"));
    TRY(path_join(path, dir, strrchr(e->local, '/') + 1));
    TRY(dir_make(path, 0777));
    TRY(path_join(dir, path, "flashchat-manage.lock"));
    e->lock = open(dir, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (e->lock < 0 || flock(e->lock, LOCK_EX | LOCK_NB) == 0) return err_none();
    return err_make(ERR_BUSY, "another flashchat works on the files of %s; wait until it is done",
                    e->m->id);
}

static err errand_open(errand *e, product *p, const char *command, const char *name) {
    memset(e, 0, sizeof *e);
    e->p = p;
    e->command = command;
    e->lock = -1;
    e->show.last_tenth = -1;
    e->m = models_find(&p->models, name);
    if (!e->m)
        return err_make(ERR_ARG, "there is no model \"%.100s\"; the names are in: flashchat models",
                        name);
    if (!e->m->repo[0]) return err_make(ERR_ARG, "%s comes with flashchat and stays", e->m->name);
    TRY(models_cache_dir(p->c, e->cache));
    TRY(settings_path(p->c, CONFIG_OFFLOAD_DIR, e->archive));
    TRY(hub_repo_dir(e->cache, e->m->repo, e->local));
    e->job = (archive_job){.fs = &archive_real_fs,
                           .cache = e->cache,
                           .archive = e->archive[0] ? e->archive : NULL,
                           .repo = e->m->repo,
                           .parts = ARCHIVE_ALL,
                           .cancel = cancel_watch(),
                           .progress = on_progress,
                           .progress_ctx = &e->show};
    return take_lock(e);
}

static int errand_close(errand *e, err result) {
    progress_end(&e->show);
    cancel_unwatch();
    if (e->lock >= 0) close(e->lock);
    if (!result.code) return 0;
    product_fail(e->command, result);
    return result.code == ERR_CANCELLED ? 130 : result.code == ERR_ARG ? 2 : 1;
}

static err refuse_in_use(const errand *e) {
    char who[100];
    if (!folder_in_use(e->local, who, sizeof who)) return err_none();
    return err_make(ERR_BUSY,
                    "%s is in use by %s. Stop it first (a server: flashchat serve --stop), then "
                    "try again",
                    e->m->id, who);
}

/* The exact id, typed; the end of the input is no. */
static bool typed_id(const errand *e, const char *what) {
    char typed[200], prompt[400];
    print_wrapped(stdout, "", what);
    snprintf(prompt, sizeof prompt, "Type %s to go on: ", e->m->id);
    if (ask_line(prompt, typed, sizeof typed) && !strcmp(typed, e->m->id)) return true;
    puts("User cancelled: nothing was removed.");
    return false;
}

/* ---- the operations ---- */

static const char *part_text(unsigned parts) {
    if (parts == ARCHIVE_ALL) return "all files";
    if (parts == ARCHIVE_PACKED) return "the packed files";
    return parts == ARCHIVE_ORIGINALS ? "the published weights" : "the files for running";
}

static int offload(product *p, const char *name, unsigned parts, bool keep) {
    errand e;
    char text[PATH_TEXT_MAX + 400], size[16];
    archive_list local = {0};
    err r = errand_open(&e, p, "offload", name);
    e.job.parts = parts;
    if (!r.code && !e.job.archive)
        r = err_make(ERR_ARG,
                     "no archive folder is set; choose one with: flashchat config set OFFLOAD_DIR "
                     "FOLDER");
    if (!r.code) r = refuse_in_use(&e);
    if (!r.code) r = archive_local(&e.job, &local);
    if (r.code) return errand_close(&e, r);
    snprintf(text, sizeof text, "%s of %s, %s, go to %s%s.", part_text(parts), e.m->id,
             human_bytes(size, archive_list_bytes(&local, parts)), e.archive,
             keep ? " and stay here as well"
                  : "; then they are removed here, each after its copy was read back");
    archive_list_free(&local);
    if (keep) print_wrapped(stdout, "", text);
    if (!keep && !typed_id(&e, text)) return errand_close(&e, err_none()), 1;
    r = archive_store(&e.job);
    progress_end(&e.show);
    if (!r.code && !keep) r = refuse_in_use(&e);
    if (!r.code && !keep) r = archive_free_local(&e.job);
    progress_end(&e.show);
    if (!r.code) printf("Done. Bring it back with: flashchat restore %s\n", e.m->id);
    return errand_close(&e, r);
}

static int restore(product *p, const char *name, unsigned parts) {
    errand e;
    err r = errand_open(&e, p, "restore", name);
    e.job.parts = parts;
    if (!r.code) r = archive_restore(&e.job);
    progress_end(&e.show);
    if (!r.code)
        printf("%s of %s are back and checked; the archive keeps its copy.\nNext: flashchat chat "
               "--model %s\n",
               part_text(parts), e.m->id, e.m->id);
    return errand_close(&e, r);
}

int manage_delete(product *p, const char *name, unsigned parts, bool typed) {
    errand e;
    char text[600], size[16];
    archive_list local = {0}, there = {0};
    err r = errand_open(&e, p, "manage", name);
    e.job.parts = parts;
    if (!r.code) r = refuse_in_use(&e);
    if (!r.code) r = archive_local(&e.job, &local);
    if (!r.code && e.job.archive) r = archive_manifest(&e.job, &there);
    if (r.code) return errand_close(&e, r);
    snprintf(text, sizeof text, "%s of %s, %s, are removed from this machine. %s", part_text(parts),
             e.m->id, human_bytes(size, archive_list_bytes(&local, parts)),
             there.n ? "The archive keeps what it has of it."
                     : "There is no copy in the archive: to have it "
                       "again you must download it again.");
    archive_list_free(&local);
    archive_list_free(&there);
    if (!typed && !typed_id(&e, text)) return errand_close(&e, err_none()), 1;
    r = archive_delete_local(&e.job);
    if (!r.code)
        printf("Removed. Get it again with: flashchat %s %s\n",
               parts == ARCHIVE_PACKED ? "pack" : "download", e.m->id);
    return errand_close(&e, r);
}

static void count_file(void *ctx, const char *file, uint64_t bytes) {
    hub_access *a = ctx;
    char size[16];
    const char *slash = strrchr(file, '/');
    printf("  good  %s (%s)\n", slash ? slash + 1 : file, human_bytes(size, bytes));
    fflush(stdout);
    (void)a;
}

/* The published files: present, or with deep every byte; without them the packed ones must be. */
static err verify_here(errand *e, bool deep) {
    char dir[PATH_TEXT_MAX], packed[PATH_TEXT_MAX];
    err r = hub_find_snapshot(e->cache, e->m->repo, e->m->revision, dir);
    if (r.code == ERR_NOT_FOUND)
        return err_make(ERR_NOT_FOUND,
                        "%s is not on this machine; get it with: flashchat download "
                        "%s",
                        e->m->id, e->m->id);
    bool runs = model_where(e->p->c, e->m, packed) == MODEL_READY && strcmp(packed, dir);
    if (!r.code && runs && hub_complete(dir).code) {
        printf("%s: the published weights are not here; the packed files are what runs\n",
               e->m->id);
        return model_agree(e->m, packed);
    }
    if (!r.code)
        r = deep ? hub_verify(dir, e->job.cancel, count_file, &e->show) : hub_complete(dir);
    if (!r.code) r = model_agree(e->m, dir);
    if (r.code == ERR_NOT_FOUND || r.code == ERR_CORRUPT)
        r = err_within(r, "not good (mend it with: flashchat manage --repair %s)", e->m->id);
    if (!r.code)
        printf("%s: %s\n", e->m->id,
               deep ? "every published file has the bytes that it should" : "all files are there");
    return r;
}

static int verify(product *p, const char *name, bool deep, bool archive) {
    errand e;
    err r = errand_open(&e, p, "verify", name);
    if (!r.code && archive) {
        r = archive_verify(&e.job, deep);
        if (!r.code)
            printf("%s: in the archive %s\n", e.m->id,
                   deep ? "every file has the bytes that it should" : "all files are there");
    } else if (!r.code) {
        r = verify_here(&e, deep);
    }
    progress_end(&e.show);
    if (!r.code && !deep)
        printf("Their bytes are compared with: flashchat verify %s --deep%s\n", e.m->id,
               archive ? " --archive" : "");
    return errand_close(&e, r);
}

/* Reads everything; what is damaged or missing is fetched again, after the download's own screen.
 */
static int repair(product *p, const char *name) {
    errand e;
    char dir[PATH_TEXT_MAX], id[sizeof e.m->id];
    int dropped = 0;
    err r = errand_open(&e, p, "manage", name);
    if (!r.code) r = refuse_in_use(&e);
    if (!r.code) r = hub_find_snapshot(e.cache, e.m->repo, e.m->revision, dir);
    if (!r.code) r = hub_drop_damaged(dir, e.job.cancel, count_file, &e.show, &dropped);
    bool whole = !r.code && !dropped && !hub_complete(dir).code;
    if (e.m) snprintf(id, sizeof id, "%s", e.m->id);
    int rc = errand_close(&e, r);
    if (rc) return rc;
    if (whole) {
        printf("%s: every published file is good. Next: flashchat chat --model %s\n", id, id);
        return 0;
    }
    printf("%d damaged file%s removed; what is missing is fetched again.\n\n", dropped,
           dropped == 1 ? " was" : "s were");
    char download[] = "download", *words[] = {download, id, NULL};
    return command_download(2, words);
}

/* ---- the list and the menu ---- */

typedef struct holdings { /* bytes of a model, here and in the archive */
    model_state state;
    uint64_t runtime, originals, packed, archived;
    char open[40]; /* the operation that was interrupted, or "" */
} holdings;

/* False when nothing of it is anywhere. */
static bool look(product *p, const model_entry *m, holdings *out) {
    errand e = {.p = p, .m = m};
    archive_list here = {0}, there = {0};
    char dir[PATH_TEXT_MAX];
    *out = (holdings){0};
    if (!m->repo[0] || models_cache_dir(p->c, e.cache).code ||
        settings_path(p->c, CONFIG_OFFLOAD_DIR, e.archive).code)
        return false;
    e.job = (archive_job){.fs = &archive_real_fs,
                          .cache = e.cache,
                          .archive = e.archive[0] ? e.archive : NULL,
                          .repo = m->repo,
                          .parts = ARCHIVE_ALL};
    out->state = model_where(p->c, m, dir);
    err r = out->state == MODEL_ABSENT ? err_none() : archive_local(&e.job, &here);
    if (!r.code && out->state != MODEL_ABSENT)
        r = archive_journal(&e.job, out->open, sizeof out->open);
    if (!r.code && e.job.archive) r = archive_manifest(&e.job, &there);
    if (r.code) print_wrapped(stdout, "  ! ", r.text);
    out->runtime = archive_list_bytes(&here, ARCHIVE_RUNTIME);
    out->originals = archive_list_bytes(&here, ARCHIVE_ORIGINALS);
    out->packed = archive_list_bytes(&here, ARCHIVE_PACKED);
    out->archived = archive_list_bytes(&there, ARCHIVE_ALL);
    archive_list_free(&here);
    archive_list_free(&there);
    return out->state != MODEL_ABSENT || out->archived;
}

static void add_part(char *line, size_t size, const char *what, uint64_t bytes) {
    char text[16];
    size_t n = strlen(line);
    if (bytes) snprintf(line + n, size - n, "; %s %s", human_bytes(text, bytes), what);
}

static void show_model(const model_entry *m, const holdings *h, int number) {
    char first[16], line[600];
    snprintf(first, sizeof first, "  %2d  ", number);
    snprintf(line, sizeof line, "%s: %s", m->id,
             h->state == MODEL_READY     ? "ready"
             : h->state == MODEL_PARTIAL ? "not complete"
                                         : "not here");
    add_part(line, sizeof line, "of configuration and tokenizer", h->runtime);
    add_part(line, sizeof line, "of published weights", h->originals);
    add_part(line, sizeof line, "packed", h->packed);
    add_part(line, sizeof line, "in the archive", h->archived);
    if (h->open[0]) {
        size_t n = strlen(line);
        snprintf(line + n, sizeof line - n, "; %s was interrupted: the same command goes on",
                 h->open);
    }
    print_wrapped(stdout, first, line);
}

/* Only what is somewhere; the numbers are those of this list, in shown[MODELS_MAX]. */
static int show_all(product *p, int *shown) {
    char cache[PATH_TEXT_MAX], archive[PATH_TEXT_MAX];
    int n = 0;
    printf("%sModel files%s\n", style(STYLE_BOLD), STYLE_END);
    for (int i = 0; i < p->models.n; i++) {
        holdings h;
        if (!look(p, &p->models.entries[i], &h)) continue;
        shown[n++] = i;
        show_model(&p->models.entries[i], &h, n);
    }
    if (!n) puts("  none yet. Get one: flashchat download NAME (the names: flashchat models)");
    if (!models_cache_dir(p->c, cache).code) print_wrapped(stdout, "  kept in  ", cache);
    if (!settings_path(p->c, CONFIG_OFFLOAD_DIR, archive).code)
        print_wrapped(stdout, "  archive  ",
                      archive[0] ? archive : "none (flashchat config set OFFLOAD_DIR FOLDER)");
    return n;
}

static int act(product *p, const char *id, int key) {
    switch (key) {
    case 'q': return verify(p, id, false, false);
    case 'd': return verify(p, id, true, false);
    case 'o': return offload(p, id, ARCHIVE_ORIGINALS, false);
    case 'a': return offload(p, id, ARCHIVE_ALL, true);
    case 'f': return offload(p, id, ARCHIVE_ALL, false);
    case 'r': return restore(p, id, ARCHIVE_ALL);
    case 'p': return run_self("pack", id);
    case 'e': return repair(p, id);
    case '1': return manage_delete(p, id, ARCHIVE_ORIGINALS, false);
    case '2': return manage_delete(p, id, ARCHIVE_PACKED, false);
    case 'x': return manage_delete(p, id, ARCHIVE_ALL, false);
    default: return 0;
    }
}

static int menu(product *p) {
    for (;;) {
        char typed[40];
        int64_t n;
        int shown[MODELS_MAX], count = show_all(p, shown);
        if (!count) return 0;
        if (!ask_line("  Type the number of a model, or an empty line to leave: ", typed,
                      sizeof typed) ||
            !typed[0])
            return 0;
        if (!value_int(typed, &n) || n < 1 || n > count) {
            puts("  Please type one of the numbers shown.");
            continue;
        }
        const char *id = p->models.entries[shown[n - 1]].id;
        printf("\n%s%s%s\n  q  quick check        d  deep check (reads all)\n"
               "  e  repair: fetch damaged files again\n"
               "  p  pack: one read brings one expert\n"
               "  a  copy everything to the archive\n  f  archive everything, then free it\n"
               "  o  archive the published weights, then free them\n"
               "  r  restore from the archive\n"
               "  1  remove the published weights   2  remove the packed files\n"
               "  x  remove all of it from this machine\n  other  back\n",
               style(STYLE_BOLD), id, STYLE_END);
        int key = ask_key("  : ");
        if (key < 0) return 0;
        act(p, id, key);
        putchar('\n');
    }
}

/* ---- commands ---- */

/* --part runtime|originals|packed|all, or 0 after a message. */
static unsigned take_parts(int *argc, char **argv, const char *command, unsigned otherwise) {
    const char *text = take_value(argc, argv, "--part");
    if (!text) return otherwise;
    if (!strcmp(text, "runtime")) return ARCHIVE_RUNTIME | ARCHIVE_PACKED;
    if (!strcmp(text, "packed")) return ARCHIVE_PACKED;
    if (!strcmp(text, "originals")) return ARCHIVE_ORIGINALS;
    if (!strcmp(text, "all")) return ARCHIVE_ALL;
    fprintf(stderr, "flashchat %s: --part is runtime, originals, packed or all\n", command);
    return 0;
}

static int wants_name(const char *command) {
    fprintf(stderr,
            "flashchat %s: which model? Try: flashchat %s NAME (the names: flashchat models)\n",
            command, command);
    return 2;
}

int command_offload(int argc, char **argv) {
    product p;
    int rc;
    bool keep = take_word(&argc, argv, "--keep");
    unsigned parts = take_parts(&argc, argv, "offload", ARCHIVE_ALL);
    if (!parts) return 2;
    if (!product_open(&p, "offload", &argc, argv, &rc)) return rc;
    rc = argc == 2 ? offload(&p, argv[1], parts, keep) : wants_name("offload");
    product_close(&p);
    return rc;
}

int command_restore(int argc, char **argv) {
    product p;
    int rc;
    unsigned parts = take_parts(&argc, argv, "restore", ARCHIVE_ALL);
    if (!parts) return 2;
    if (!product_open(&p, "restore", &argc, argv, &rc)) return rc;
    rc = argc == 2 ? restore(&p, argv[1], parts) : wants_name("restore");
    product_close(&p);
    return rc;
}

int product_verify(int argc, char **argv) {
    product p;
    int rc;
    bool deep = take_word(&argc, argv, "--deep"), archive = take_word(&argc, argv, "--archive");
    if (argc != 2 && !archive) return PRODUCT_GOES_ON;
    if (!product_open(&p, "verify", &argc, argv, &rc)) return rc;
    const model_entry *m = argc == 2 ? models_find(&p.models, argv[1]) : NULL;
    if (m && m->repo[0])
        rc = verify(&p, argv[1], deep, archive);
    else
        rc = archive ? wants_name("verify") : PRODUCT_GOES_ON;
    product_close(&p);
    return rc || archive ? rc : PRODUCT_GOES_ON;
}

int command_manage(int argc, char **argv) {
    product p;
    int rc;
    bool list = take_word(&argc, argv, "--list");
    const char *delete = take_value(&argc, argv, "--delete");
    const char *mend = take_value(&argc, argv, "--repair");
    unsigned parts = take_parts(&argc, argv, "manage", ARCHIVE_ALL);
    if (!parts) return 2;
    if (!product_open(&p, "manage", &argc, argv, &rc)) return rc;
    if (argc != 1) {
        fprintf(stderr,
                "flashchat manage: it takes --list, --repair NAME, --delete NAME or nothing\n");
        rc = 2;
    } else if (delete) {
        rc = manage_delete(&p, delete, parts, false);
    } else if (mend) {
        rc = repair(&p, mend);
    } else if (list) {
        int shown[MODELS_MAX];
        rc = 0;
        if (show_all(&p, shown)) puts("Next: flashchat manage (a menu), or flashchat help manage");
    } else {
        rc = menu(&p);
    }
    product_close(&p);
    return rc;
}
