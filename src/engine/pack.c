/* pack.c: see pack.h. The order of things, and what makes it safe to kill.
 *
 *     lock packing.json -> same source and settings? -> room on the disk -> layers that are
 * missing, and the trunk beside them -> copies of the other files -> config.json -> manifest.json
 */
#include "engine/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/os.h"
#include "engine/pack_impl.h"

#define THREADS_MAX  8
#define MARGIN_BYTES ((uint64_t)64 << 20) /* manifest, tokenizer, the file system's own */
#define COPY_MAX     ((size_t)256 << 20)

/* ---- what the threads tell each other ---- */

void pack_tell(packer *p, uint64_t bytes) {
    pthread_mutex_lock(&p->lock);
    p->done += bytes;
    p->written += bytes;
    pthread_cond_signal(&p->told);
    pthread_mutex_unlock(&p->lock);
}

void pack_stop(packer *p) {
    pthread_mutex_lock(&p->lock);
    p->stopped = true;
    pthread_mutex_unlock(&p->lock);
}

bool pack_stopped(packer *p) {
    pthread_mutex_lock(&p->lock);
    bool stopped = p->stopped;
    pthread_mutex_unlock(&p->lock);
    return stopped;
}

bool pack_show(packer *p) {
    pthread_mutex_lock(&p->lock);
    uint64_t done = p->done;
    bool stopped = p->stopped;
    pthread_mutex_unlock(&p->lock);
    if (done != p->shown && p->o->progress)
        p->o->progress(p->o->progress_ctx, "model", done, p->total);
    p->shown = done;
    return !stopped;
}

/* ---- the source ---- */

/* What the result depends on: names, shapes, places and the sizes of the files, config.json, the
 * settings. */
static err make_mark(packer *p) {
    char path[BANK_PATH_MAX];
    char *text;
    size_t length;
    int n = snprintf(path, sizeof path, "%s/config.json", p->o->model_dir);
    if (n < 0 || n >= BANK_PATH_MAX) return err_make(ERR_ARG, "%s: too long a path", path);
    TRY(json_read_text(path, COPY_MAX, &text, &length));
    XXH3_state_t *h = XXH3_createState();
    if (!h) {
        free(text);
        return err_make(ERR_NOMEM, "no memory");
    }
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, text, length);
    for (int i = 0; i < st_count(p->files); i++) {
        const st_tensor *t = st_at(p->files, i);
        int64_t place[4 + ST_DIMS_MAX] = {t->dtype, t->n_dims, t->offset, t->bytes};
        memcpy(place + 4, t->shape, (size_t)t->n_dims * sizeof *t->shape);
        XXH3_64bits_update(h, t->name, strlen(t->name) + 1);
        XXH3_64bits_update(h, place, sizeof place);
    }
    int settings[3] = {BANK_VERSION, p->format.bits, p->format.group};
    XXH3_64bits_update(h, settings, sizeof settings);
    snprintf(p->mark, sizeof p->mark, "%016llx", (unsigned long long)XXH3_64bits_digest(h));
    XXH3_freeState(h);
    free(text);
    return err_none();
}

static err open_source(packer *p) {
    const pack_options *o = p->o;
    if (bank_is(o->model_dir)) return err_make(ERR_ARG, "%s: is packed already", o->model_dir);
    TRY(config_open(o->model_dir, &p->config));
    TRY(st_open(o->model_dir, &p->files));
    TRY(weights_measure(&p->config, p->files, &p->w));
    if (!p->w.experts.n_layers)
        return err_make(ERR_UNSUPPORTED, "%s: has no experts to pack", o->model_dir);
    p->relaid = p->config.quantized;
    const layer_weights *first = NULL;
    for (int i = 0; i < p->config.layers && !first; i++)
        if (p->config.layer[i].sparse) first = &p->w.layers[i];
    p->format = p->relaid ? first->expert.gate.format
                          : (qformat){.kind = QK_AFFINE, .bits = o->bits, .group = o->group};
    p->report->relaid = p->relaid;
    return make_mark(p);
}

static err check_options(const pack_options *o) {
    if (o->bits != 4 && o->bits != 8)
        return err_make(ERR_ARG, "bits: %d is not possible (4 and 8 are)", o->bits);
    if (o->group != 32 && o->group != 64 && o->group != 128)
        return err_make(ERR_ARG, "group: %d is not possible (32, 64 and 128 are)", o->group);
    return err_none();
}

/* ---- the target ---- */

static err make_directory(const char *path) {
    if (mkdir(path, 0755) == 0 || errno == EEXIST) return err_none();
    return err_system(errno, "%s", path);
}

static err choose_target(packer *p) {
    char *out = p->report->out_dir;
    size_t room = sizeof p->report->out_dir;
    const char *model = p->o->model_dir;
    int n = p->o->out_dir ? snprintf(out, room, "%s", p->o->out_dir)
                          : snprintf(out, room, "%s/flashchat/q%d", model, p->format.bits);
    if (n < 0 || n >= (int)room - 64) return err_make(ERR_ARG, "%s: too long a path", model);
    return err_none();
}

static err make_target(packer *p) {
    char path[BANK_PATH_MAX + 32];
    if (!p->o->out_dir) {
        snprintf(path, sizeof path, "%s/flashchat", p->o->model_dir);
        TRY(make_directory(path));
    }
    TRY(make_directory(p->report->out_dir));
    snprintf(path, sizeof path, "%s/experts", p->report->out_dir);
    return make_directory(path);
}

/* packing.json says what is being packed here, and is locked by who does it. An unfinished packing
 * of something else is begun anew; a finished one is not touched. */
static err take_target(packer *p, bool *fresh) {
    char path[BANK_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/packing.json", p->report->out_dir);
    p->mark_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (p->mark_fd < 0) return err_system(errno, "%s", path);
    if (flock(p->mark_fd, LOCK_EX | LOCK_NB) != 0)
        return err_make(ERR_BUSY, "%s: another process is packing here", p->report->out_dir);
    char found[32] = "";
    ssize_t n = pread(p->mark_fd, found, sizeof found - 1, 0);
    bool same = n > 0 && strstr(found, p->mark) != NULL;
    if (bank_is(p->report->out_dir)) {
        p->report->complete_before = same;
        if (same) return err_none();
        return err_make(ERR_ARG,
                        "%s: holds a packed model of another source or of other settings: remove "
                        "it, or choose another --out",
                        p->report->out_dir);
    }
    *fresh = !same;
    if (same) return err_none();
    char text[40];
    int length = snprintf(text, sizeof text, "{\"mark\": \"%s\"}\n", p->mark);
    if (ftruncate(p->mark_fd, 0) != 0) return err_system(errno, "%s", path);
    return bank_write_at(p->mark_fd, path, text, (size_t)length, 0);
}

/* The layer's file is there, whole (its name says so). */
static bool layer_done(const packer *p, int layer, uint64_t *bytes) {
    char path[BANK_PATH_MAX];
    struct stat st;
    pack_record r;
    pack_record_of(p, &p->w.layers[layer], &r);
    *bytes = r.total * (uint64_t)p->config.experts;
    if (!bank_path(path, p->report->out_dir, layer) || stat(path, &st) != 0) return false;
    return (uint64_t)st.st_size > *bytes;
}

/* Also what is not flushed yet. */
static void remove_layer(const char *path) {
    char written[BANK_PATH_MAX + 16];
    snprintf(written, sizeof written, "%s.written", path);
    unlink(written);
    unlink(path);
}

/* The layer's file may have been written, but not flushed, when an earlier packing was killed. */
static err adopt_layer(const packer *p, int layer) {
    pack_record r;
    bool done;
    pack_record_of(p, &p->w.layers[layer], &r);
    return bank_writer_adopt(p->report->out_dir, layer, p->config.experts, r.total, &done);
}

/* Drops what belongs to another packing, counts what is kept, checks the disk. */
static err survey(packer *p, bool fresh) {
    for (int i = 0; i < p->config.layers; i++) {
        char path[BANK_PATH_MAX];
        uint64_t bytes;
        if (!p->config.layer[i].sparse) continue;
        if (fresh && bank_path(path, p->report->out_dir, i)) remove_layer(path);
        TRY(adopt_layer(p, i));
        if (!layer_done(p, i, &bytes)) continue;
        p->report->layers_before++;
        p->done += bytes;
    }
    struct statvfs fs;
    if (statvfs(p->report->out_dir, &fs) != 0) return err_system(errno, "%s", p->report->out_dir);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize, need = p->total - p->done + MARGIN_BYTES;
    if (room >= need) return err_none();
    return err_make(ERR_BUDGET,
                    "%s: packing needs %.2f GB, the disk has room for %.2f GB: free "
                    "some, or choose another --out",
                    p->report->out_dir, (double)need / 1e9, (double)room / 1e9);
}

/* ---- the rest ---- */

static err copy_file(const packer *p, const char *name) {
    char from[BANK_PATH_MAX], to[BANK_PATH_MAX + 64];
    char *text;
    size_t length;
    snprintf(from, sizeof from, "%.3900s/%s", p->o->model_dir, name);
    if (access(from, F_OK) != 0) return err_none();
    TRY(json_read_text(from, COPY_MAX, &text, &length));
    snprintf(to, sizeof to, "%s/%s", p->report->out_dir, name);
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    err e = fd < 0 ? err_system(errno, "%s", to) : bank_write_at(fd, to, text, length, 0);
    if (!e.code && fsync(fd) != 0) e = err_system(errno, "%s: flushing", to);
    if (fd >= 0) close(fd);
    free(text);
    return e;
}

static err write_rest(packer *p) {
    static const char *const copied[] = {"tokenizer.json", "tokenizer_config.json",
                                         "generation_config.json", "chat_template.jinja",
                                         "chat_template.json"};
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) TRY(copy_file(p, copied[i]));
    json_t *config, *manifest;
    TRY(pack_config(p, &config));
    err e = bank_write_json(p->report->out_dir, "config.json", config);
    json_decref(config);
    if (e.code) return e;
    TRY(pack_manifest(p, &manifest));
    e = bank_write_json(p->report->out_dir, "manifest.json", manifest);
    json_decref(manifest);
    return e;
}

static err missing_experts(packer *p) {
    bool *missing = calloc((size_t)p->config.layers, sizeof *missing);
    if (!missing) return err_make(ERR_NOMEM, "no memory for the list of layers");
    for (int i = 0; i < p->config.layers; i++) {
        uint64_t bytes;
        missing[i] = p->config.layer[i].sparse && !layer_done(p, i, &bytes);
    }
    err e = pack_experts(p, missing);
    free(missing);
    return e;
}

typedef struct trunk_job {
    packer *p;
    err e;
} trunk_job;

static void *trunk_thread(void *ctx) {
    trunk_job *j = ctx;
    j->e = pack_trunk(j->p);
    if (j->e.code) pack_stop(j->p);
    pthread_mutex_lock(&j->p->lock);
    j->p->trunk_ended = true;
    pthread_cond_signal(&j->p->told);
    pthread_mutex_unlock(&j->p->lock);
    return NULL;
}

static void await_trunk(packer *p) {
    bool ended = false;
    while (!ended) {
        pthread_mutex_lock(&p->lock);
        while (!p->trunk_ended && p->done == p->shown) pthread_cond_wait(&p->told, &p->lock);
        ended = p->trunk_ended;
        pthread_mutex_unlock(&p->lock);
        pack_show(p);
    }
}

/* The trunk's small tensors go through the page cache, one after the other: beside the experts
 * that costs little, after them it took an eighth of all the time. */
static err write_weights(packer *p) {
    trunk_job trunk = {.p = p};
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, trunk_thread, &trunk);
    if (failed) return err_system(failed, "a thread cannot be started");
    err e = missing_experts(p);
    if (e.code) pack_stop(p);
    await_trunk(p);
    pthread_join(thread, NULL);
    p->report->written = p->written;
    bool by_trunk = !e.code || (e.code == ERR_CANCELLED && trunk.e.code);
    return by_trunk ? trunk.e : e;
}

static err write_all(packer *p) {
    bool fresh = false;
    TRY(make_target(p));
    TRY(take_target(p, &fresh));
    if (p->report->complete_before) return err_none();
    TRY(survey(p, fresh));
    TRY(pool_open(p->threads, &p->pool));
    TRY(write_weights(p));
    return write_rest(p);
}

static void packer_close(packer *p) {
    if (p->pool) pool_close(p->pool);
    if (p->mark_fd >= 0) close(p->mark_fd);
    free(p->trunk);
    weights_close(&p->w);
    st_close(p->files);
    config_close(&p->config);
}

err pack_model(const pack_options *options, pack_report *out) {
    *out = (pack_report){0};
    TRY(check_options(options));
    packer p = {.o = options,
                .report = out,
                .cpu = cpu_best(),
                .mark_fd = -1,
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .told = PTHREAD_COND_INITIALIZER};
    p.threads = options->threads > 0 ? options->threads : os_cpu_count();
    if (p.threads > THREADS_MAX) p.threads = THREADS_MAX;
    err e = open_source(&p);
    if (!e.code) e = choose_target(&p);
    if (!e.code) e = pack_plan(&p);
    if (!e.code && !options->dry_run) e = write_all(&p);
    packer_close(&p);
    return e;
}
