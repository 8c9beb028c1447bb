/* layout.c: where things lie in the Hugging Face cache. Reads only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "hub/hub.h"
#include "hub/hub_impl.h"

err hub_join(char *out, const char *dir, const char *name) {
    int n = snprintf(out, HUB_PATH_MAX, "%s/%s", dir, name);
    if (n > 0 && n < HUB_PATH_MAX) return err_none();
    out[0] = '\0';
    return err_make(ERR_RANGE, "the path %.200s/%.200s is too long", dir, name);
}

static bool is_repo_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

err hub_check_repo(const char *repo) {
    const char *slash = strchr(repo, '/');
    bool good = slash && slash != repo && slash[1] && !strchr(slash + 1, '/') && strlen(repo) < 200;
    for (const char *p = repo; good && *p; p++) good = p == slash || is_repo_character(*p);
    if (good)
        good = repo[0] != '.' && slash[1] != '.' && !strstr(repo, "--") && !strstr(repo, "..");
    if (good) return err_none();
    return err_make(ERR_ARG,
                    "\"%.200s\" is not a model's name on the hub: it has the form "
                    "organisation/name",
                    repo);
}

err hub_repo_dir(const char *cache, const char *repo, char *out) {
    char name[256];
    out[0] = '\0';
    TRY(hub_check_repo(repo));
    const char *slash = strchr(repo, '/');
    snprintf(name, sizeof name, "models--%.*s--%s", (int)(slash - repo), repo, slash + 1);
    return hub_join(out, cache, name);
}

bool hub_is_commit(const char *text) {
    return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

bool hub_path_is_safe(const char *path) {
    size_t length = strlen(path);
    if (length == 0 || length > 1024 || path[0] == '/') return false;
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 32 || p[i] == '\\' || p[i] == 127) return false;
        p += n;
        if (*p == '/' && *++p == '\0') return false;
    }
    return true;
}

/* refs/REVISION holds a commit. */
static err read_ref(const char *repo_dir, const char *revision, char *commit) {
    char refs[HUB_PATH_MAX], path[HUB_PATH_MAX], *text;
    size_t length;
    TRY(hub_join(refs, repo_dir, "refs"));
    TRY(hub_join(path, refs, revision));
    TRY(json_read_text(path, 4096, &text, &length));
    while (length && (text[length - 1] == '\n' || text[length - 1] == ' ')) length--;
    bool good = length == 40 && strspn(text, "0123456789abcdef") >= 40;
    if (good) memcpy(commit, text, 40);
    commit[good ? 40 : 0] = '\0';
    free(text);
    return good ? err_none() : err_make(ERR_CORRUPT, "%s does not hold a commit", path);
}

err hub_find_snapshot(const char *cache, const char *repo, const char *revision, char *out) {
    char dir[HUB_PATH_MAX], snapshots[HUB_PATH_MAX], commit[41];
    struct stat s;
    out[0] = '\0';
    TRY(hub_repo_dir(cache, repo, dir));
    if (!hub_path_is_safe(revision))
        return err_make(ERR_ARG, "\"%.100s\" is not a revision", revision);
    if (hub_is_commit(revision))
        memcpy(commit, revision, 41);
    else
        TRY(read_ref(dir, revision, commit));
    TRY(hub_join(snapshots, dir, "snapshots"));
    TRY(hub_join(out, snapshots, commit));
    if (stat(out, &s) == 0 && S_ISDIR(s.st_mode)) return err_none();
    err e = err_make(ERR_NOT_FOUND, "%s: no such folder", out);
    out[0] = '\0';
    return e;
}

/* ---- completeness ---- */

#define INDEX_MAX_BYTES (64 << 20)

static err need_file(const char *snapshot, const char *name) {
    char path[HUB_PATH_MAX];
    struct stat s;
    TRY(hub_join(path, snapshot, name));
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode)) return err_none();
    return err_make(ERR_NOT_FOUND, "%s is missing", path);
}

/* Every file that the weight index names. */
static err check_index(const char *snapshot, const char *index_path) {
    json_t *index;
    TRY(json_read_file(index_path, INDEX_MAX_BYTES, &index));
    const char *tensor;
    json_t *file;
    err e = err_none();
    const char *last = "";
    json_object_foreach(json_object_get(index, "weight_map"), tensor, file) {
        const char *name = json_string_value(file);
        if (!name || !hub_path_is_safe(name)) {
            e = err_make(ERR_CORRUPT, "%s: the file of %s is not a file name", index_path, tensor);
            break;
        }
        if (!strcmp(name, last)) continue;
        last = name;
        e = need_file(snapshot, name);
        if (e.code) break;
    }
    json_decref(index);
    return e;
}

err hub_complete(const char *snapshot) {
    char path[HUB_PATH_MAX];
    struct stat s;
    TRY(need_file(snapshot, "config.json"));
    DIR *d = opendir(snapshot);
    if (!d) return err_system(errno, "%s", snapshot);
    err e = err_none();
    bool weights = false;
    for (struct dirent *f; !e.code && (f = readdir(d));) {
        if (f->d_name[0] == '.') continue;
        e = hub_join(path, snapshot, f->d_name);
        if (!e.code && stat(path, &s) != 0) e = err_make(ERR_NOT_FOUND, "%s is missing", path);
        size_t n = strlen(f->d_name);
        weights |= n > 12 && !strcmp(f->d_name + n - 12, ".safetensors");
    }
    closedir(d);
    if (e.code) return e;
    if (!weights) return err_make(ERR_NOT_FOUND, "%s has no .safetensors file", snapshot);
    TRY(hub_join(path, snapshot, "model.safetensors.index.json"));
    return stat(path, &s) == 0 ? check_index(snapshot, path) : err_none();
}
