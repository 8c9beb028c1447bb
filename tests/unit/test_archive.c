/* test_archive.c: archive and restore with the power cut after every single step.
 *
 * The promise: at every point each byte of the model exists in at least one verified place. So
 * after every cut, for every file: its bytes lie under its final name in the cache, or under its
 * final name in the archive with a manifest that vouches for them. And the same command, run again,
 * ends as if nothing had happened. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crash_fs.h"
#include "hub/archive_impl.h"

/* ---- the file system ---- */

void crash_fs_init(crash_fs *f) { memset(f, 0, sizeof *f); }

void crash_fs_free(crash_fs *f) {
    for (int i = 0; i < f->n_nodes; i++) {
        free(f->nodes[i].now);
        free(f->nodes[i].synced);
    }
}

static int entry_of(const crash_fs *f, const char *path) {
    for (int i = 0; i < f->n_entries; i++)
        if (f->entries[i].now >= 0 && !strcmp(f->entries[i].path, path)) return i;
    return -1;
}

static int slot_of(crash_fs *f, const char *path) {
    for (int i = 0; i < f->n_entries; i++)
        if (!strcmp(f->entries[i].path, path)) return i;
    assert_true(f->n_entries < CRASH_ENTRIES);
    snprintf(f->entries[f->n_entries].path, sizeof f->entries[0].path, "%s", path);
    f->entries[f->n_entries].now = f->entries[f->n_entries].synced = -1;
    return f->n_entries++;
}

static void set_bytes(char **to, size_t *n_to, const char *from, size_t n) {
    char *copy = malloc(n + 1);
    assert_non_null(copy);
    if (n) memcpy(copy, from, n);
    copy[n] = '\0';
    free(*to);
    *to = copy;
    *n_to = n;
}

static int new_node(crash_fs *f, archive_kind kind, const char *bytes) {
    assert_true(f->n_nodes < CRASH_NODES);
    crash_node *n = &f->nodes[f->n_nodes];
    n->kind = kind;
    set_bytes(&n->now, &n->n_now, bytes, strlen(bytes));
    return f->n_nodes++;
}

/* Every change asks first: is there power? */
static bool powered(crash_fs *f) {
    if (!f->off && ++f->calls == f->cut) f->off = true;
    return !f->off;
}

static int do_open(void *ctx, const char *path, bool create) {
    crash_fs *f = ctx;
    int e = entry_of(f, path), fd = 0;
    if (create) {
        if (!powered(f)) return -EIO;
        if (e < 0) {
            e = slot_of(f, path);
            f->entries[e].now = new_node(f, ARCHIVE_FILE, "");
        }
        crash_node *n = &f->nodes[f->entries[e].now];
        set_bytes(&n->now, &n->n_now, "", 0);
    }
    if (e < 0 || f->off) return e < 0 ? -ENOENT : -EIO;
    while (fd < CRASH_OPEN && f->open[fd].node) fd++;
    assert_true(fd < CRASH_OPEN);
    f->open[fd].node = f->entries[e].now + 1;
    f->open[fd].at = 0;
    return fd;
}

static ssize_t do_read(void *ctx, int fd, void *bytes, size_t n) {
    crash_fs *f = ctx;
    const crash_node *node = &f->nodes[f->open[fd].node - 1];
    if (f->off) return -EIO;
    size_t left = node->n_now - f->open[fd].at, got = n < left ? n : left;
    if (got > 7) got = 7; /* short reads */
    memcpy(bytes, node->now + f->open[fd].at, got);
    f->open[fd].at += got;
    return (ssize_t)got;
}

static ssize_t do_write(void *ctx, int fd, const void *bytes, size_t n) {
    crash_fs *f = ctx;
    crash_node *node = &f->nodes[f->open[fd].node - 1];
    if (!powered(f)) return -EIO;
    if (n > 50) n = 50; /* short writes */
    char *grown = realloc(node->now, node->n_now + n + 1);
    assert_non_null(grown);
    memcpy(grown + node->n_now, bytes, n);
    node->now = grown;
    node->n_now += n;
    node->now[node->n_now] = '\0';
    return (ssize_t)n;
}

static int do_sync(void *ctx, int fd) {
    crash_fs *f = ctx;
    crash_node *n = &f->nodes[f->open[fd].node - 1];
    if (!powered(f)) return -EIO;
    set_bytes(&n->synced, &n->n_synced, n->now, n->n_now);
    return 0;
}

static int do_close(void *ctx, int fd) {
    ((crash_fs *)ctx)->open[fd].node = 0;
    return 0;
}

static int do_rename(void *ctx, const char *from, const char *to) {
    crash_fs *f = ctx;
    int e = entry_of(f, from);
    if (e < 0) return -ENOENT;
    if (!powered(f)) return -EIO;
    int node = f->entries[e].now;
    f->entries[e].now = -1;
    f->entries[slot_of(f, to)].now = node;
    return 0;
}

static int do_unlink(void *ctx, const char *path) {
    crash_fs *f = ctx;
    int e = entry_of(f, path);
    if (e < 0) return -ENOENT;
    if (!powered(f)) return -EIO;
    f->entries[e].now = -1;
    return 0;
}

static bool is_in(const char *path, const char *dir) {
    size_t n = strlen(dir);
    return !strncmp(path, dir, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

static int do_rmdir(void *ctx, const char *path) {
    crash_fs *f = ctx;
    for (int i = 0; i < f->n_entries; i++)
        if (f->entries[i].now >= 0 && is_in(f->entries[i].path, path)) return -ENOTEMPTY;
    return do_unlink(ctx, path);
}

static int do_mkdir(void *ctx, const char *path) {
    crash_fs *f = ctx;
    if (entry_of(f, path) >= 0) return 0;
    if (!powered(f)) return -EIO;
    f->entries[slot_of(f, path)].now = new_node(f, ARCHIVE_DIR, "");
    return 0;
}

static int do_sync_dir(void *ctx, const char *path) {
    crash_fs *f = ctx;
    if (!powered(f)) return -EIO;
    for (int i = 0; i < f->n_entries; i++)
        if (is_in(f->entries[i].path, path)) f->entries[i].synced = f->entries[i].now;
    return 0;
}

static int do_symlink(void *ctx, const char *target, const char *path) {
    crash_fs *f = ctx;
    if (entry_of(f, path) >= 0) return -EEXIST;
    if (!powered(f)) return -EIO;
    int node = new_node(f, ARCHIVE_LINK, target);
    set_bytes(&f->nodes[node].synced, &f->nodes[node].n_synced, target, strlen(target));
    f->entries[slot_of(f, path)].now = node;
    return 0;
}

static ssize_t do_readlink(void *ctx, const char *path, char *out, size_t size) {
    crash_fs *f = ctx;
    int e = entry_of(f, path);
    if (e < 0 || f->nodes[f->entries[e].now].kind != ARCHIVE_LINK) return -EINVAL;
    return snprintf(out, size, "%s", f->nodes[f->entries[e].now].now);
}

static int do_stat(void *ctx, const char *path, archive_stat *out) {
    crash_fs *f = ctx;
    int e = entry_of(f, path);
    *out = (archive_stat){ARCHIVE_NOTHING, 0};
    if (e < 0) return 0;
    const crash_node *n = &f->nodes[f->entries[e].now];
    *out = (archive_stat){n->kind, n->kind == ARCHIVE_FILE ? n->n_now : 0};
    return 0;
}

static int do_list(void *ctx, const char *path, int index, char *name, size_t size) {
    crash_fs *f = ctx;
    for (int i = 0; i < f->n_entries; i++) {
        if (f->entries[i].now < 0 || !is_in(f->entries[i].path, path) || index--) continue;
        snprintf(name, size, "%s", strrchr(f->entries[i].path, '/') + 1);
        return 0;
    }
    return -ENOENT;
}

archive_fs crash_fs_face(crash_fs *f) {
    return (archive_fs){f,           do_open,    do_read,     do_write, do_sync,
                        do_close,    do_rename,  do_unlink,   do_rmdir, do_mkdir,
                        do_sync_dir, do_symlink, do_readlink, do_stat,  do_list};
}

void crash_fs_power_up(crash_fs *f) {
    for (int i = 0; i < f->n_entries; i++) {
        crash_entry *e = &f->entries[i];
        if (!f->names_survive || e->now < 0) e->now = e->synced; /* an unsynced removal is undone */
        e->synced = e->now;
    }
    for (int i = 0; i < f->n_nodes; i++) {
        crash_node *n = &f->nodes[i];
        set_bytes(&n->now, &n->n_now, n->synced ? n->synced : "", n->n_synced);
        if (!n->synced) set_bytes(&n->synced, &n->n_synced, "", 0);
    }
    memset(f->open, 0, sizeof f->open);
    f->off = false;
    f->calls = f->cut = 0;
}

void crash_fs_settle(crash_fs *f) {
    for (int i = 0; i < f->n_entries; i++) f->entries[i].synced = f->entries[i].now;
    crash_fs_power_up(f);
}

void crash_fs_put(crash_fs *f, const char *path, archive_kind kind, const char *bytes) {
    char above[200];
    for (size_t i = 1; path[i]; i++) {
        if (path[i] != '/') continue;
        snprintf(above, sizeof above, "%.*s", (int)i, path);
        if (entry_of(f, above) < 0) {
            int e = slot_of(f, above);
            f->entries[e].now = f->entries[e].synced = new_node(f, ARCHIVE_DIR, "");
        }
    }
    int e = slot_of(f, path), node = new_node(f, kind, bytes);
    set_bytes(&f->nodes[node].synced, &f->nodes[node].n_synced, bytes, strlen(bytes));
    f->entries[e].now = f->entries[e].synced = node;
}

const char *crash_fs_get(const crash_fs *f, const char *path, size_t *length) {
    int e = entry_of(f, path);
    if (e < 0 || f->nodes[f->entries[e].now].kind != ARCHIVE_FILE) return NULL;
    *length = f->nodes[f->entries[e].now].n_now;
    return f->nodes[f->entries[e].now].now;
}

void crash_fs_damage(crash_fs *f, const char *path) {
    crash_node *n = &f->nodes[f->entries[entry_of(f, path)].now];
    n->now[0] ^= 1;
    set_bytes(&n->synced, &n->n_synced, n->now, n->n_now);
}

/* ---- the model ---- */

#define LOCAL  "/c/models--o--m"
#define REMOTE "/a/models--o--m"
#define SNAP   "/snapshots/0123456789abcdef0123456789abcdef01234567"

typedef struct model_file {
    char path[200];
    const char *bytes;
} model_file;

static model_file files[8]; /* made by put_model */
static int n_files;

static void hash_text(const char *bytes, bool lfs, char *out) {
    hub_hash h;
    assert_int_equal(hub_hash_open(&h, lfs, strlen(bytes)).code, 0);
    assert_int_equal(hub_hash_add(&h, bytes, strlen(bytes)).code, 0);
    assert_int_equal(hub_hash_end(&h, out).code, 0);
}

static void put_file(crash_fs *f, const char *path, const char *bytes) {
    char full[300];
    snprintf(full, sizeof full, LOCAL "/%s", path);
    crash_fs_put(f, full, ARCHIVE_FILE, bytes);
    snprintf(files[n_files].path, sizeof files[0].path, "%s", path);
    files[n_files++].bytes = bytes;
}

static void put_blob(crash_fs *f, const char *name, const char *bytes, bool lfs) {
    char etag[HUB_ETAG_MAX], path[200], link[200];
    hash_text(bytes, lfs, etag);
    snprintf(path, sizeof path, "blobs/%s", etag);
    put_file(f, path, bytes);
    snprintf(path, sizeof path, "../../blobs/%s", etag);
    snprintf(link, sizeof link, LOCAL SNAP "/%s", name);
    crash_fs_put(f, link, ARCHIVE_LINK, path);
}

static void put_model(crash_fs *f) {
    crash_fs_init(f);
    n_files = 0;
    put_blob(f, "model-1.safetensors", "weights of the first shard, longer than one short read",
             true);
    put_blob(f, "model-2.safetensors", "weights of the second shard", true);
    put_blob(f, "config.json", "{\"a\": 1}", false);
    put_file(f, "refs/main", "0123456789abcdef0123456789abcdef01234567");
    put_file(f, &SNAP[1], "x"); /* replaced below: the packed runtime */
    n_files--;
    char path[200];
    f->entries[entry_of(f, LOCAL SNAP)].now = new_node(f, ARCHIVE_DIR, "");
    f->entries[entry_of(f, LOCAL SNAP)].synced = f->entries[entry_of(f, LOCAL SNAP)].now;
    snprintf(path, sizeof path, "%s/flashchat/q4/trunk.bin", &SNAP[1]);
    put_file(f, path, "packed trunk");
    crash_fs_put(f, LOCAL SNAP "/flashchat/system_prompt_cache/1.bin", ARCHIVE_FILE,
                 "a private prompt");
    crash_fs_put(f, LOCAL SNAP "/flashchat/q4/prompt_cache/2.bin", ARCHIVE_FILE, "another one");
    crash_fs_put(f, "/a/.keep", ARCHIVE_FILE, "");
}

static archive_job job_for(const archive_fs *fs, unsigned parts) {
    return (archive_job){.fs = fs, .cache = "/c", .archive = "/a", .repo = "o/m", .parts = parts};
}

static bool has_bytes(const crash_fs *f, const char *root, const model_file *m) {
    char full[400];
    size_t n = 0;
    snprintf(full, sizeof full, "%s/%s", root, m->path);
    const char *bytes = crash_fs_get(f, full, &n);
    return bytes && n == strlen(m->bytes) && !memcmp(bytes, m->bytes, n);
}

/* Here, or in the archive with a manifest that vouches for it. */
static void assert_nothing_lost(crash_fs *f, const archive_fs *fs, int cut) {
    archive_job j = job_for(fs, ARCHIVE_ALL);
    archive_list manifest;
    assert_int_equal(archive_manifest(&j, &manifest).code, 0);
    for (int i = 0; i < n_files; i++) {
        char sha[HUB_ETAG_MAX];
        hash_text(files[i].bytes, true, sha);
        const archive_item *item = archive_list_find(&manifest, files[i].path);
        bool vouched = item && !strcmp(item->sha256, sha) && has_bytes(f, REMOTE, &files[i]);
        if (!vouched && !has_bytes(f, LOCAL, &files[i]))
            fail_msg("after a cut at step %d: %s is lost", cut, files[i].path);
    }
    archive_list_free(&manifest);
}

typedef enum operation { OP_STORE, OP_OFFLOAD, OP_RESTORE, OP_DELETE } operation;

static err run(const archive_fs *fs, operation op, unsigned parts) {
    archive_job j = job_for(fs, parts);
    if (op == OP_RESTORE) return archive_restore(&j);
    if (op == OP_DELETE) return archive_delete_local(&j);
    TRY(archive_store(&j));
    return op == OP_OFFLOAD ? archive_free_local(&j) : err_none();
}

static void assert_result(crash_fs *f, operation op, unsigned parts) {
    for (int i = 0; i < n_files; i++) {
        bool original = strstr(files[i].bytes, "weights of") != NULL;
        bool packed = strstr(files[i].path, "/flashchat/") != NULL;
        bool in_parts = parts & (original ? ARCHIVE_ORIGINALS
                                 : packed ? ARCHIVE_PACKED
                                          : ARCHIVE_RUNTIME);
        bool here = (op != OP_OFFLOAD && op != OP_DELETE) || !in_parts;
        assert_int_equal(has_bytes(f, LOCAL, &files[i]), here);
        if (in_parts) assert_true(has_bytes(f, REMOTE, &files[i]));
    }
    size_t n;
    assert_null(crash_fs_get(f, LOCAL "/" ARCHIVE_JOURNAL, &n));
    for (int i = 0; i < f->n_entries; i++)
        if (f->entries[i].now >= 0 && strstr(f->entries[i].path, "/a/"))
            assert_null(strstr(f->entries[i].path, "prompt_cache"));
    bool whole = op == OP_DELETE && parts == ARCHIVE_ALL;
    const char *prompt = crash_fs_get(f, LOCAL SNAP "/flashchat/system_prompt_cache/1.bin", &n);
    assert_int_equal(prompt != NULL, !whole); /* only a deleted model takes it along */
}

/* Cuts at step 1, 2, 3 ... until the operation needs no more steps. */
static void cut_everywhere(operation op, unsigned parts, bool names_survive) {
    for (int cut = 1;; cut++) {
        crash_fs *f = malloc(sizeof *f);
        assert_non_null(f);
        put_model(f);
        archive_fs fs = crash_fs_face(f);
        if (op == OP_RESTORE) assert_int_equal(run(&fs, OP_OFFLOAD, parts).code, 0);
        if (op == OP_DELETE) assert_int_equal(run(&fs, OP_STORE, ARCHIVE_ALL).code, 0);
        crash_fs_settle(f); /* what was done so far is on the drive */
        f->names_survive = names_survive;
        f->cut = cut;
        bool ended = !run(&fs, op, parts).code;
        bool was_off = f->off;
        crash_fs_power_up(f);
        assert_nothing_lost(f, &fs, cut);
        err again = run(&fs, op, parts);
        if (again.code) fail_msg("after a cut at step %d: %s", cut, again.text);
        assert_nothing_lost(f, &fs, cut);
        assert_result(f, op, parts);
        crash_fs_free(f);
        free(f);
        if (ended && !was_off) {
            if (cut < (op == OP_DELETE ? 5 : 12))
                fail_msg("operation %d of parts %u had only %d steps", (int)op, parts, cut);
            return;
        }
    }
}

static void test_power_cuts(void **state) {
    (void)state;
    static const unsigned parts[] = {ARCHIVE_ALL, ARCHIVE_ORIGINALS, ARCHIVE_RUNTIME,
                                     ARCHIVE_PACKED};
    for (int op = OP_STORE; op <= OP_DELETE; op++)
        for (int p = 0; p < 4; p++)
            for (int names = 0; names < 2; names++) cut_everywhere((operation)op, parts[p], names);
}

/* Without an archive a deletion of one part, cut anywhere, leaves the other parts' bytes. */
static void test_delete_alone(void **state) {
    (void)state;
    for (int cut = 1; cut < 1000; cut++) {
        crash_fs *f = malloc(sizeof *f);
        assert_non_null(f);
        put_model(f);
        archive_fs fs = crash_fs_face(f);
        archive_job j = job_for(&fs, ARCHIVE_ORIGINALS);
        j.archive = NULL;
        f->cut = cut;
        bool ended = !archive_delete_local(&j).code && !f->off;
        crash_fs_power_up(f);
        for (int i = 0; i < n_files; i++)
            if (!strstr(files[i].bytes, "weights of")) assert_true(has_bytes(f, LOCAL, &files[i]));
        assert_int_equal(archive_delete_local(&j).code, 0);
        for (int i = 0; i < n_files; i++)
            assert_int_equal(has_bytes(f, LOCAL, &files[i]),
                             strstr(files[i].bytes, "weights of") == NULL);
        crash_fs_free(f);
        free(f);
        if (ended) {
            assert_true(cut > 3);
            return;
        }
    }
    fail_msg("a deletion of two files takes more than 1000 steps");
}

/* The test itself can fail: an archive that removes without checking would be seen. */
static void test_loss_is_seen(void **state) {
    (void)state;
    crash_fs *f = malloc(sizeof *f);
    put_model(f);
    archive_fs fs = crash_fs_face(f);
    archive_job j = job_for(&fs, ARCHIVE_ORIGINALS);
    assert_int_equal(archive_store(&j).code, 0);
    char path[300];
    snprintf(path, sizeof path, REMOTE "/%s", files[0].path);
    crash_fs_damage(f, path);
    assert_false(has_bytes(f, REMOTE, &files[0]));
    assert_int_equal(archive_verify(&j, false).code, 0);
    assert_int_equal(archive_verify(&j, true).code, ERR_CORRUPT);
    assert_int_equal(archive_free_local(&j).code, ERR_CORRUPT); /* and nothing was removed */
    for (int i = 0; i < n_files; i++) assert_true(has_bytes(f, LOCAL, &files[i]));
    assert_int_equal(archive_store(&j).code, 0); /* the manifest's word is taken ... */
    assert_int_equal(archive_free_local(&j).code, ERR_CORRUPT); /* ... but not for removing */
    crash_fs_free(f);
    free(f);
}

static void test_damaged_here(void **state) {
    (void)state;
    crash_fs *f = malloc(sizeof *f);
    put_model(f);
    archive_fs fs = crash_fs_face(f);
    archive_job j = job_for(&fs, ARCHIVE_ALL);
    assert_int_equal(archive_store(&j).code, 0);
    char path[300];
    snprintf(path, sizeof path, LOCAL "/%s", files[1].path);
    crash_fs_damage(f, path);
    err e = archive_store(&j); /* a damaged file does not replace the good copy */
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_non_null(strstr(e.text, "Repair it first"));
    assert_true(has_bytes(f, REMOTE, &files[1]));
    assert_int_equal(archive_restore(&j).code, 0); /* restoring repairs it */
    assert_true(has_bytes(f, LOCAL, &files[1]));
    crash_fs_free(f);
    free(f);
}

static void test_not_archived(void **state) {
    (void)state;
    crash_fs *f = malloc(sizeof *f);
    put_model(f);
    archive_fs fs = crash_fs_face(f);
    archive_job all = job_for(&fs, ARCHIVE_ALL), originals = job_for(&fs, ARCHIVE_ORIGINALS);
    assert_int_equal(archive_free_local(&all).code, ERR_NOT_FOUND);
    assert_int_equal(archive_restore(&all).code, ERR_NOT_FOUND);
    assert_int_equal(archive_verify(&all, false).code, ERR_NOT_FOUND);
    assert_int_equal(archive_store(&originals).code, 0);
    assert_int_equal(archive_free_local(&all).code, ERR_NOT_FOUND); /* the rest has no copy */
    for (int i = 0; i < n_files; i++) assert_true(has_bytes(f, LOCAL, &files[i]));
    assert_int_equal(archive_free_local(&originals).code, 0);
    assert_false(has_bytes(f, LOCAL, &files[0]));
    assert_true(has_bytes(f, LOCAL, &files[2]));
    assert_int_equal(archive_store(&all).code, 0); /* keeps what it had */
    assert_int_equal(archive_verify(&all, true).code, 0);
    assert_int_equal(archive_free_local(&all).code, 0);
    assert_int_equal(archive_restore(&all).code, 0);
    for (int i = 0; i < n_files; i++) assert_true(has_bytes(f, LOCAL, &files[i]));
    crash_fs_free(f);
    free(f);
}

/* A manifest from elsewhere cannot lead out of the folder. */
static void test_bad_manifests(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{\"version\": 2, \"repo\": \"o/m\"}",
        "{\"version\": 1, \"repo\": \"o/other\"}",
        "{\"version\": 1, \"repo\": \"o/m\", \"items\": [{\"path\": \"../x\", \"sha256\": "
        "\"00\"}]}",
        "{\"version\": 1, \"repo\": \"o/m\", \"items\": [{\"path\": \"blobs/x\", \"sha256\": "
        "\"00\"}]}",
        "{\"version\": 1, \"repo\": \"o/m\", \"items\": [{\"path\": \"a/b\", \"target\": "
        "\"../../x\"}]}",
        "{\"version\": 1, \"repo\": \"o/m\", \"items\": [{\"path\": \"a/b\", \"target\": "
        "\"/etc/passwd\"}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        crash_fs *f = malloc(sizeof *f);
        put_model(f);
        crash_fs_put(f, REMOTE "/manifest.json", ARCHIVE_FILE, bad[i]);
        archive_fs fs = crash_fs_face(f);
        archive_job j = job_for(&fs, ARCHIVE_ALL);
        archive_list l;
        err e = archive_manifest(&j, &l);
        if (e.code != ERR_CORRUPT) fail_msg("manifest %zu: code %d", i, (int)e.code);
        assert_int_equal(l.n, 0);
        crash_fs_free(f);
        free(f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),   cmocka_unit_test(test_loss_is_seen),
        cmocka_unit_test(test_delete_alone), cmocka_unit_test(test_damaged_here),
        cmocka_unit_test(test_not_archived), cmocka_unit_test(test_bad_manifests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
