/* listing.c: which files a model has on the hub.
 *
 *     GET /api/models/REPO/revision/REV           {"sha": COMMIT, ...}
 *     GET /api/models/REPO/tree/COMMIT?recursive=true    [{"type", "path", "size", "oid", "lfs"}]
 *
 * The tree comes in pages (Link: <...>; rel="next"). Everything is asked by commit, so that a push
 * between two requests cannot mix two versions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "hub/http.h"
#include "hub/hub_impl.h"

#define ANSWER_MAX (32u << 20)
#define PAGES_MAX  400

static bool is_hex(const char *text, size_t digits) {
    return text && strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static err find_commit(const hub_options *o, hub_listing *l) {
    char base[HTTP_URL_MAX], url[HTTP_URL_MAX], *body;
    size_t length;
    http_reply reply;
    snprintf(base, sizeof base, "%s/api/models/%s/revision/", o->endpoint, l->repo);
    TRY(http_url(url, base, l->revision));
    TRY(http_get(o, url, ANSWER_MAX, &reply, &body, &length));
    json_t *answer;
    err e = json_read_bytes("the hub's answer", body, length, &answer);
    free(body);
    if (e.code) return e;
    const char *sha = json_string_value(json_object_get(answer, "sha"));
    if (is_hex(sha, 40))
        memcpy(l->commit, sha, 41);
    else
        e = err_make(ERR_CORRUPT, "the hub's answer about %s names no commit", l->repo);
    json_decref(answer);
    return e;
}

/* One element of the tree; folders are skipped. */
static err add_file(hub_listing *l, int *capacity, const json_t *item) {
    const char *type, *path, *oid, *sha;
    int64_t size, lfs_size;
    static const char where[] = "the hub's list of files";
    if (!json_is_object(item)) return err_make(ERR_CORRUPT, "%s: not an object", where);
    TRY(json_get_string(item, where, "type", "", &type));
    if (strcmp(type, "file")) return err_none();
    json_t *lfs = json_object_get(item, "lfs");
    TRY(json_get_string(item, where, "path", "", &path));
    TRY(json_get_string(item, where, "oid", "", &oid));
    TRY(json_get_int(item, where, "size", (json_range){0, INT64_MAX, -1}, &size));
    TRY(json_get_string(lfs, where, "oid", NULL, &sha));
    TRY(json_get_int(lfs, where, "size", (json_range){0, INT64_MAX, size}, &lfs_size));
    if (!hub_path_is_safe(path))
        return err_make(ERR_CORRUPT, "%s has \"%.100s\", which is no safe file name", where, path);
    if (sha && !strncmp(sha, "sha256:", 7)) sha += 7;
    if (lfs_size < 0 || !(sha ? is_hex(sha, 64) : is_hex(oid, 40)))
        return err_make(ERR_CORRUPT, "%s: %s has no size or hash", where, path);
    if (l->n_files == HUB_FILES_MAX)
        return err_make(ERR_RANGE, "%s has more than %d files", l->repo, HUB_FILES_MAX);
    if (l->n_files == *capacity) {
        int more = *capacity ? 2 * *capacity : 64;
        hub_file *grown = realloc(l->files, (size_t)more * sizeof *grown);
        if (!grown) return err_make(ERR_NOMEM, "no memory for the list of files");
        l->files = grown, *capacity = more;
    }
    hub_file *f = &l->files[l->n_files];
    *f = (hub_file){strdup(path), (uint64_t)lfs_size, "", sha != NULL};
    if (!f->path) return err_make(ERR_NOMEM, "no memory for the list of files");
    snprintf(f->etag, sizeof f->etag, "%s", sha ? sha : oid);
    l->n_files++;
    return err_none();
}

static err add_page(hub_listing *l, int *capacity, const char *body, size_t length) {
    json_t *page;
    TRY(json_read_bytes("the hub's list of files", body, length, &page));
    err e = err_none();
    if (!json_is_array(page)) e = err_make(ERR_CORRUPT, "the hub's list of files is not a list");
    for (size_t i = 0; !e.code && i < json_array_size(page); i++)
        e = add_file(l, capacity, json_array_get(page, i));
    json_decref(page);
    return e;
}

static err find_files(const hub_options *o, hub_listing *l) {
    char url[HTTP_URL_MAX];
    int capacity = 0;
    snprintf(url, sizeof url, "%s/api/models/%s/tree/%s?recursive=true", o->endpoint, l->repo,
             l->commit);
    for (int page = 0; url[0]; page++) {
        http_reply reply;
        char *body;
        size_t length;
        if (page == PAGES_MAX)
            return err_make(ERR_RANGE, "%s: the list of files does not end", l->repo);
        TRY(http_get(o, url, ANSWER_MAX, &reply, &body, &length));
        err e = add_page(l, &capacity, body, length);
        free(body);
        if (e.code) return e;
        size_t n = strlen(o->endpoint);
        if (reply.next[0] && (strncmp(reply.next, o->endpoint, n) || reply.next[n] != '/'))
            return err_make(ERR_CORRUPT, "the hub's list of files goes on at another place: %.200s",
                            reply.next);
        memcpy(url, reply.next, strlen(reply.next) + 1);
    }
    return err_none();
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

static void sum_up(hub_listing *l) {
    l->total = 0;
    for (int i = 0; i < l->n_files; i++) l->total += l->files[i].size;
}

static err check_request(const hub_options *o, const char *repo, const char *revision) {
    TRY(hub_check_repo(repo));
    if (!hub_path_is_safe(revision) || strlen(revision) >= 128)
        return err_make(ERR_ARG, "\"%.100s\" is not a revision", revision);
    if (strncasecmp(o->endpoint, "https://", 8) && strncasecmp(o->endpoint, "http://", 7))
        return err_make(ERR_ARG, "the hub's address \"%.200s\" does not begin with https://",
                        o->endpoint);
    if (strlen(o->endpoint) > 1000) return err_make(ERR_ARG, "the hub's address is too long");
    return err_none();
}

err hub_list(const hub_options *o, const char *repo, const char *revision, hub_listing *out) {
    *out = (hub_listing){0};
    TRY(check_request(o, repo, revision));
    snprintf(out->repo, sizeof out->repo, "%s", repo);
    snprintf(out->revision, sizeof out->revision, "%s", revision);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    err e = find_commit(o, out);
    if (!e.code) e = find_files(o, out);
    curl_global_cleanup();
    if (!e.code && out->n_files == 0) e = err_make(ERR_NOT_FOUND, "%s has no files", repo);
    if (e.code) return hub_listing_free(out), err_within(e, "%s", repo);
    qsort(out->files, (size_t)out->n_files, sizeof *out->files, by_path);
    for (int i = 1; i < out->n_files; i++)
        if (!strcmp(out->files[i].path, out->files[i - 1].path)) {
            e = err_make(ERR_CORRUPT, "%s: the hub lists %s twice", repo, out->files[i].path);
            hub_listing_free(out);
            return e;
        }
    sum_up(out);
    return e;
}

void hub_listing_free(hub_listing *l) {
    for (int i = 0; i < l->n_files; i++) free(l->files[i].path);
    free(l->files);
    *l = (hub_listing){0};
}

/* ---- what we need of it ---- */

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && !strcasecmp(path + n - m, suffix);
}

static bool is_needed(const char *path) {
    static const char *const kept[] = {".safetensors", ".json",  ".jinja",  ".txt",
                                       ".md",          ".model", "LICENSE", "NOTICE"};
    if (strchr(path, '/')) return false; /* other formats and examples live in folders */
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (has_suffix(path, kept[i])) return true;
    return false;
}

void hub_keep_needed(hub_listing *l) {
    int n = 0;
    for (int i = 0; i < l->n_files; i++) {
        if (is_needed(l->files[i].path))
            l->files[n++] = l->files[i];
        else
            free(l->files[i].path);
    }
    l->n_files = n;
    sum_up(l);
}

/* ---- one small file ---- */

static const hub_file *find_file(const hub_listing *l, const char *path) {
    for (int i = 0; i < l->n_files; i++)
        if (!strcmp(l->files[i].path, path)) return &l->files[i];
    return NULL;
}

static err check_bytes(const hub_file *f, const char *bytes, size_t length) {
    hub_hash h;
    char etag[HUB_ETAG_MAX];
    TRY(hub_hash_open(&h, f->lfs, f->size));
    err e = hub_hash_add(&h, bytes, length);
    if (!e.code) e = hub_hash_end(&h, etag);
    hub_hash_close(&h);
    if (!e.code && (length != f->size || strcmp(etag, f->etag)))
        e = err_make(ERR_CORRUPT, "%s: what arrived is not what the hub promised", f->path);
    return e;
}

err hub_fetch(const hub_options *o, const hub_listing *l, const char *path, size_t max_bytes,
              char **bytes, size_t *length) {
    char base[HTTP_URL_MAX], url[HTTP_URL_MAX];
    http_reply reply;
    *bytes = NULL;
    *length = 0;
    const hub_file *f = find_file(l, path);
    if (!f) return err_make(ERR_NOT_FOUND, "%s has no file %s", l->repo, path);
    if (f->size > max_bytes)
        return err_make(ERR_RANGE, "%s of %s has %llu bytes, more than the %zu that it may have",
                        path, l->repo, (unsigned long long)f->size, max_bytes);
    snprintf(base, sizeof base, "%s/%s/resolve/%s/", o->endpoint, l->repo, l->commit);
    TRY(http_url(url, base, path));
    curl_global_init(CURL_GLOBAL_DEFAULT);
    err e = http_get(o, url, max_bytes, &reply, bytes, length);
    curl_global_cleanup();
    if (!e.code) e = check_bytes(f, *bytes, *length);
    if (e.code) {
        free(*bytes);
        *bytes = NULL;
        *length = 0;
    }
    return e;
}
