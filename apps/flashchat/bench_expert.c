/* bench_expert.c: single experts and single matrices: run, bench, verify, kernels.
 *
 * The experts are real ones, read from the checkpoint into plain memory, as many as fit
 * EXPERTS_BYTES: going through all of them in turn keeps the processor's caches from making a
 * figure that no model would see (for a model as small as the bundled one they still help). */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "benchmark.h"
#include "cpu/cpu.h"
#include "format/config.h"
#include "model/weights.h"

#define EXPERTS_BYTES ((size_t)512 << 20)
#define EXPERTS_MAX   4096
#define MATRIX_BYTES  ((size_t)64 << 20)

typedef struct experts {
    model_config config;
    st_set *set;
    weights w;
    uint8_t *memory;  /* owned */
    mlp_weights *mlp; /* [n], owned; views into memory */
    int n;
    size_t bytes;            /* of one */
    float *x, *mid, *up, *y; /* [widest], owned */
    void *scratch, *act;     /* owned */
} experts;

/* ---- reading ------------------------------------------------------------ */

static err read_part(const char *path, const expert_part *p, uint8_t *dst) {
    int fd;
    TRY(os_open_read(path, false, &fd));
    err e = err_none();
    for (size_t done = 0; done < p->bytes && !e.code;) {
        ssize_t got = pread(fd, dst + done, p->bytes - done, p->offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) e = err_system(got < 0 ? errno : EIO, "%s", path);
        done += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    return e;
}

static err read_expert(experts *x, int index, const layer_weights *layer, int expert) {
    const expert_map *map = &x->w.experts;
    size_t first = ((size_t)layer->sparse_index * (size_t)map->n_experts + (size_t)expert) *
                   (size_t)map->n_parts;
    uint8_t *at = x->memory + (size_t)index * x->bytes;
    expert_view view = {{0}};
    for (int i = 0; i < map->n_parts; i++) {
        const expert_part *p = &map->parts[first + (size_t)i];
        TRY(read_part(map->paths[p->file], p, at));
        view.part[i] = at;
        at += round_up(p->bytes, 64);
    }
    weights_expert(layer, &view, &x->mlp[index]);
    return err_none();
}

/* Expert by expert over all sparse layers of the first one's shape. */
static err read_all(experts *x) {
    const layer_weights *shape = NULL;
    for (int l = 0; l < x->config.layers && !shape; l++)
        if (x->w.layers[l].sparse_index >= 0) shape = &x->w.layers[l];
    if (!shape) return err_make(ERR_ARG, "this model has no experts");
    x->bytes = weights_expert_bytes(shape) + 9 * 64;
    int most = (int)size_min(EXPERTS_BYTES / x->bytes + 1, EXPERTS_MAX);
    x->memory = aligned_alloc(64, round_up((size_t)most * x->bytes, 64));
    x->mlp = calloc((size_t)most, sizeof *x->mlp);
    if (!x->memory || !x->mlp) return err_make(ERR_NOMEM, "no memory for the experts");
    for (int l = 0; l < x->config.layers; l++) {
        const layer_weights *layer = &x->w.layers[l];
        if (layer->sparse_index < 0 || weights_expert_bytes(layer) + 9 * 64 > x->bytes) continue;
        for (int i = 0; i < x->config.experts && x->n < most; i++, x->n++)
            TRY(read_expert(x, x->n, layer, i));
    }
    x->bytes = weights_expert_bytes(shape);
    return err_none();
}

static err experts_open(const char *dir, experts *x) {
    *x = (experts){0};
    TRY(config_open(dir, &x->config));
    TRY(st_open(dir, &x->set));
    TRY(weights_measure(&x->config, x->set, &x->w));
    TRY(read_all(x));
    int wide = int_max(x->config.hidden, x->config.expert_intermediate);
    size_t floats = (size_t)wide * sizeof(float);
    x->x = malloc(floats);
    x->mid = malloc(floats);
    x->up = malloc(floats);
    x->y = malloc(floats);
    size_t scratch = cpu_matmul_scratch(wide) * sizeof(float);
    if (cpu_matmul_int_scratch(wide, 32) > scratch) scratch = cpu_matmul_int_scratch(wide, 32);
    x->scratch = aligned_alloc(64, round_up(scratch, 64));
    x->act = aligned_alloc(64, round_up(cpu_actq_bytes(1, wide, 32), 64));
    if (!x->x || !x->mid || !x->up || !x->y || !x->scratch || !x->act)
        return err_make(ERR_NOMEM, "no memory for the benchmark");
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < wide; i++) x->x[i] = (float)(rng_unit(&r) - 0.5);
    return err_none();
}

static void experts_close(experts *x) {
    free(x->memory);
    free(x->mlp);
    free(x->x);
    free(x->mid);
    free(x->up);
    free(x->y);
    free(x->scratch);
    free(x->act);
    weights_close(&x->w);
    st_close(x->set);
    config_close(&x->config);
}

/* ---- computing ---------------------------------------------------------- */

static void product(const experts *x, const cpu_kernels *k, const qmat *w, const float *in,
                    float *out, bool exact) {
    if (exact || w->format.kind != QK_AFFINE) {
        cpu_matmul m = {.w = w,
                        .x = in,
                        .y = out,
                        .n = 1,
                        .scratch = x->scratch,
                        .x_stride = (size_t)w->cols,
                        .y_stride = (size_t)w->rows};
        k->matmul(&m, 0, w->rows);
        return;
    }
    cpu_actq a = cpu_actq_place(x->act, 1, w->cols, w->format.group);
    k->quantize(&a, 0, in);
    cpu_matmul_int m = {
        .w = w, .x = &a, .y = out, .n = 1, .scratch = x->scratch, .y_stride = (size_t)w->rows};
    k->matmul_int(&m, 0, w->rows);
}

/* y = down(silu(gate x) * up x) by one thread. */
static void expert_forward(experts *x, const cpu_kernels *k, int i, bool exact) {
    const mlp_weights *m = &x->mlp[i];
    product(x, k, &m->gate, x->x, x->mid, exact);
    product(x, k, &m->up, x->x, x->up, exact);
    k->silu_mul(x->mid, x->mid, x->up, m->gate.rows);
    product(x, k, &m->down, x->mid, x->y, exact);
}

static int pick_kernels(const bench *b, const cpu_kernels **k) {
    *k = cpu_best();
    err e = b->a->m.cpu ? cpu_by_name(b->a->m.cpu, k) : err_none();
    return e.code ? bench_fail(b, e.text) : 0;
}

/* Seconds of one expert: the median over passes through enough of them to be timed. */
static double time_expert(experts *x, const cpu_kernels *k, int repeats, bool exact) {
    double passes[BENCH_REPEATS_MAX];
    int each = repeats == 1 ? 1 : int_min(x->n, 64), at = 0;
    if (repeats > 1)
        for (int i = 0; i < x->n; i++) expert_forward(x, k, i, exact); /* not measured */
    for (int r = 0; r < repeats; r++) {
        uint64_t begin = os_now_ns();
        for (int i = 0; i < each; i++) expert_forward(x, k, at++ % x->n, exact);
        passes[r] = (double)(os_now_ns() - begin) * 1e-9 / each;
    }
    return bench_median(passes, repeats);
}

int bench_run_expert(bench *b, int repeats) {
    const cpu_kernels *k;
    int code = pick_kernels(b, &k);
    if (code) return code;
    experts x;
    err e = experts_open(b->dir, &x);
    if (e.code) {
        experts_close(&x);
        return bench_fail(b, e.text);
    }
    double limit = (double)x.bytes / b->machine_1.memory_read * 1e6;
    for (int exact = 0; exact < 2; exact++) {
        bench_row row = {.unit = "us", .limit = limit, .bound = "memory, 1 thread", .lower = true};
        row.value = 1e6 * time_expert(&x, k, repeats, exact);
        snprintf(row.what, sizeof row.what, "%s expert of %zu bytes, %s%s",
                 repeats == 1 ? "one" : "median", x.bytes, k->name, exact ? ", exact" : "");
        bench_add(b, &row);
    }
    experts_close(&x);
    return 0;
}

/* ---- verify ------------------------------------------------------------- */

/* Largest |difference| of the table's results to the scalar one's, relative to the largest. */
static double compare(experts *x, const cpu_kernels *k, bool exact, int n) {
    size_t hidden = (size_t)x->config.hidden;
    float *want = malloc(hidden * sizeof(float));
    double worst = want ? 0 : INFINITY;
    for (int i = 0; i < n && want; i++) {
        expert_forward(x, cpu_at(0), i, exact);
        memcpy(want, x->y, hidden * sizeof(float));
        expert_forward(x, k, i, exact);
        double top = 0, off = 0;
        for (size_t c = 0; c < hidden; c++) {
            top = fmax(top, fabs((double)want[c]));
            off = fmax(off, fabs((double)want[c] - (double)x->y[c]));
        }
        worst = fmax(worst, top > 0 ? off / top : off);
    }
    free(want);
    return worst;
}

int bench_verify(bench *b) {
    experts x;
    err e = experts_open(b->dir, &x);
    if (e.code) {
        experts_close(&x);
        return bench_fail(b, e.text);
    }
    int n = int_min(x.n, 16);
    for (int t = 1; cpu_at(t); t++) {
        for (int exact = 0; exact < 2; exact++) {
            bench_row row = {.unit = "diff"};
            row.value = compare(&x, cpu_at(t), exact, n);
            if (row.value != 0) b->failed = true;
            snprintf(row.what, sizeof row.what, "%s against scalar, %s: %s", cpu_at(t)->name,
                     exact ? "exact" : "fast", row.value == 0 ? "the same bits" : "DIFFERENT");
            bench_add(b, &row);
        }
    }
    experts_close(&x);
    return 0;
}

/* ---- kernels ------------------------------------------------------------ */

/* Seconds of one pass over a 4-bit matrix that no cache holds. */
static double time_matrix(const cpu_kernels *k, const qmat *w, bool exact) {
    experts x = {0};
    size_t scratch = cpu_matmul_scratch(w->cols) * sizeof(float);
    if (cpu_matmul_int_scratch(w->cols, 32) > scratch)
        scratch = cpu_matmul_int_scratch(w->cols, 32);
    x.scratch = aligned_alloc(64, round_up(scratch, 64));
    x.act = aligned_alloc(64, round_up(cpu_actq_bytes(1, w->cols, 32), 64));
    float *in = calloc((size_t)w->cols, sizeof(float)),
          *out = calloc((size_t)w->rows, sizeof(float));
    double passes[5] = {0};
    if (x.scratch && x.act && in && out) {
        for (int i = 0; i < w->cols; i++) in[i] = (float)(i % 17) - 8;
        for (int r = 0; r < 5; r++) {
            uint64_t begin = os_now_ns();
            product(&x, k, w, in, out, exact);
            passes[r] = (double)(os_now_ns() - begin) * 1e-9;
        }
    }
    free(x.scratch);
    free(x.act);
    free(in);
    free(out);
    return bench_median(passes, 5);
}

int bench_kernels(bench *b) {
    enum { COLS = 4096 };
    static const int bits[] = {4, 8};
    uint8_t *memory = aligned_alloc(64, MATRIX_BYTES);
    if (!memory) return bench_fail(b, "no memory for the benchmark");
    rng r;
    rng_seed(&r, 2);
    for (size_t i = 0; i < MATRIX_BYTES; i += 8) {
        uint64_t word = rng_next(&r) & 0x3fff3fff3fff3fffu; /* scales stay finite */
        memcpy(memory + i, &word, 8);
    }
    for (int t = 0; cpu_at(t); t++) {
        for (size_t i = 0; i < 2 * sizeof bits / sizeof bits[0]; i++) {
            qmat w = {.format = {QK_AFFINE, bits[i / 2], 64, false}, .cols = COLS};
            size_t row_bytes = qformat_row_total(w.format, COLS);
            w.rows = (int)(MATRIX_BYTES / row_bytes) / 64 * 64;
            size_t values = qformat_row_bytes(w.format, COLS) * (size_t)w.rows;
            w.w = memory;
            w.scales = memory + values;
            w.biases = (uint8_t *)memory + values +
                       qformat_scale_row_bytes(w.format, COLS) * (size_t)w.rows;
            bench_row row = {.unit = "GB/s",
                             .limit = b->machine_1.memory_read * 1e-9,
                             .bound = "memory, 1 thread"};
            bool exact = i % 2;
            row.value = (double)row_bytes * w.rows / time_matrix(cpu_at(t), &w, exact) * 1e-9;
            snprintf(row.what, sizeof row.what, "%s, %d bits%s, matrix [%d, %d]", cpu_at(t)->name,
                     bits[i / 2], exact ? " exact" : "", w.rows, COLS);
            bench_add(b, &row);
        }
    }
    free(memory);
    return 0;
}
