/* kernel_bench.c: how fast the kernels are, beside what the memory of this machine allows.
 *
 *     build/kernel-bench [--table NAME] [--threads N] [--seconds S] [PART ...]
 *
 * PART is decode, prefill, bf16, threads, delta or attention; all without one. decode streams
 * matrices of one shape from memory that no cache holds and compares with a plain read of the same
 * memory by the same threads, taking turns. Every figure is the median of the passes that fit S
 * seconds, the best in brackets. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "base/pool.h"
#include "cpu/cpu.h"

enum { PASSES_MAX = 200, THREADS_MAX = 64 };
#define POOL_BYTES ((size_t)400 << 20)

typedef struct bench {
    const cpu_kernels *k;
    pool *pool;
    int threads;
    double seconds;
    uint8_t *memory; /* POOL_BYTES of random bits */
    void *scratch[THREADS_MAX];
    uint64_t sink[THREADS_MAX];
} bench;

static void must(err e) {
    if (!e.code) return;
    fprintf(stderr, "kernel-bench: %s\n", e.text);
    exit(1);
}

static double now(void) { return (double)os_now_ns() * 1e-9; }

/* ---- medians ---- */

typedef struct figure {
    double pass[PASSES_MAX];
    int n;
} figure;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void figure_add(figure *f, double value) {
    if (f->n < PASSES_MAX) f->pass[f->n++] = value;
}

static double median(figure *f) {
    qsort(f->pass, (size_t)f->n, sizeof *f->pass, by_value);
    return f->pass[f->n / 2];
}

static double best(const figure *f) {
    double top = 0;
    for (int i = 0; i < f->n; i++) top = f->pass[i] > top ? f->pass[i] : top;
    return top;
}

/* ---- plain reading ---- */

enum { READ_PIECE = 1 << 20 };

typedef uint64_t wide __attribute__((vector_size(64)));

typedef struct read_job {
    bench *b;
    size_t bytes;
} read_job;

static void read_piece(void *ctx, int task, int worker) {
    read_job *j = ctx;
    const uint8_t *p = j->b->memory + (size_t)task * READ_PIECE;
    wide sum[4] = {0};
    for (size_t at = 0; at < READ_PIECE; at += sizeof sum) {
        for (size_t i = 0; i < sizeof sum; i += 64) __builtin_prefetch(p + at + 4096 + i);
        for (int i = 0; i < 4; i++) {
            wide v;
            memcpy(&v, p + at + (size_t)i * sizeof v, sizeof v);
            sum[i] += v;
        }
    }
    sum[0] += sum[1] + sum[2] + sum[3];
    j->b->sink[worker] += sum[0][0] ^ sum[0][3];
}

static double read_pass(bench *b, size_t bytes) {
    read_job j = {b, bytes};
    int pieces = (int)(bytes / READ_PIECE);
    double start = now();
    pool_run(b->pool, read_piece, &j, pieces);
    return (double)pieces * READ_PIECE / (now() - start);
}

/* ---- matrices ---- */

typedef struct shape {
    int rows, cols, n, matrices;
    qformat f;
    int chunk; /* rows of a task */
    bool exact;
} shape;

typedef struct product_job {
    bench *b;
    shape s;
    size_t bytes; /* of one matrix */
    cpu_actq x;   /* of BF16 matrices: none */
    cpu_actb xb;
    float *xf, *y;
} product_job;

static qmat matrix_at(const product_job *j, int i) {
    const shape *s = &j->s;
    size_t w = (size_t)s->rows * qformat_row_bytes(s->f, s->cols);
    size_t scales = (size_t)s->rows * qformat_scale_row_bytes(s->f, s->cols);
    const uint8_t *at = j->b->memory + (size_t)i * j->bytes;
    return (qmat){s->f, s->rows, s->cols, at, at + w, at + w + scales};
}

static void product_task(void *ctx, int task, int worker) {
    product_job *j = ctx;
    int chunks = (j->s.rows + j->s.chunk - 1) / j->s.chunk;
    qmat w = matrix_at(j, task / chunks);
    int begin = task % chunks * j->s.chunk, end = int_min(j->s.rows, begin + j->s.chunk);
    float *y = j->y + (size_t)worker * (size_t)j->s.rows * (size_t)j->s.n;
    size_t rows = (size_t)j->s.rows, cols = (size_t)j->s.cols;
    void *scratch = j->b->scratch[worker];
    if (j->s.f.kind == QK_BF16 && !j->s.exact) {
        cpu_matmul_bf16 m = {&w, &j->xb, NULL, y, rows, j->s.n, scratch};
        j->b->k->matmul_bf16(&m, begin, end);
    } else if (j->s.exact) {
        j->b->k->matmul(&(cpu_matmul){&w, j->xf, y, cols, rows, j->s.n, scratch}, begin, end);
    } else {
        cpu_matmul_int m = {&w, &j->x, NULL, y, rows, j->s.n, scratch};
        j->b->k->matmul_int(&m, begin, end);
    }
}

/* Scales, or weights, that keep the sums finite. */
static void set_scales(product_job *j) {
    uint16_t *all = (uint16_t *)(void *)j->b->memory;
    for (size_t i = 0; j->s.f.kind == QK_BF16 && i < POOL_BYTES / sizeof *all; i++) {
        all[i] = (uint16_t)((all[i] & 0x80ffu) | 0x3c00u);
    }
    for (int i = 0; j->s.f.kind == QK_AFFINE && i < j->s.matrices; i++) {
        qmat w = matrix_at(j, i);
        size_t n = (size_t)j->s.rows * qformat_scale_row_bytes(j->s.f, j->s.cols);
        uint16_t *h = (uint16_t *)(j->b->memory + ((const uint8_t *)w.scales - j->b->memory));
        for (size_t k = 0; k < n; k++) h[k] = f32_to_bf16(0.01f);
    }
}

static product_job product_open(bench *b, shape s) {
    product_job j = {.b = b, .s = s};
    j.bytes = round_up((size_t)s.rows * qformat_row_total(s.f, s.cols), 4096);
    int fit = (int)(POOL_BYTES / j.bytes);
    j.s.matrices = s.matrices && s.matrices < fit ? s.matrices : fit;
    set_scales(&j);
    size_t values = (size_t)s.n * (size_t)s.cols;
    j.xf = malloc(values * sizeof *j.xf);
    j.y = malloc((size_t)b->threads * (size_t)s.rows * (size_t)s.n * sizeof *j.y);
    bool dense = s.f.kind == QK_BF16;
    size_t bytes = dense ? cpu_actb_bytes(s.n, s.cols) : cpu_actq_bytes(s.n, s.cols, s.f.group);
    void *mem = aligned_alloc(64, round_up(bytes, 64));
    if (!j.xf || !j.y || !mem) must(err_make(ERR_NOMEM, "no memory for %d vectors", s.n));
    for (size_t i = 0; i < values; i++) j.xf[i] = sinf((float)i * 0.7f);
    if (dense)
        j.xb = cpu_actb_place(mem, s.n, s.cols);
    else
        j.x = cpu_actq_place(mem, s.n, s.cols, s.f.group);
    for (int t = 0; t < s.n; t++) {
        const float *x = j.xf + (size_t)t * (size_t)s.cols;
        if (dense)
            b->k->round_bf16(&j.xb, t, x);
        else
            b->k->quantize(&j.x, t, x);
    }
    return j;
}

static void product_close(product_job *j) {
    free(j->xf);
    free(j->y);
    free(j->s.f.kind == QK_BF16 ? j->xb.x : j->x.q);
}

static double product_pass(product_job *j) {
    int chunks = (j->s.rows + j->s.chunk - 1) / j->s.chunk;
    double start = now();
    pool_run(j->b->pool, product_task, j, chunks * j->s.matrices);
    return now() - start;
}

/* ---- parts ---- */

static int bits_of(qformat f) { return f.kind == QK_BF16 ? 16 : f.bits; }

static const char *activations(shape s) {
    return s.exact ? "f32 " : s.f.kind == QK_BF16 ? "bf16" : "int8";
}

static const qformat bf16 = {.kind = QK_BF16};

static void decode_shape(bench *b, shape s) {
    product_job j = product_open(b, s);
    size_t bytes = (size_t)j.s.matrices * j.bytes;
    figure read = {0}, ours = {0};
    double stop = now() + b->seconds;
    for (int pass = 0; pass < 3 || now() < stop; pass++) {
        double r = read_pass(b, bytes), t = product_pass(&j);
        if (pass == 0) continue;
        figure_add(&read, r * 1e-9);
        figure_add(&ours, (double)bytes / t * 1e-9);
    }
    printf("%-11s %d thr  %6d x %-5d %2d bit g%-3d %s  %5.1f (%.1f) GB/s   read %5.1f (%.1f)   "
           "%3.0f %% (best %.0f %%)\n",
           b->k->name, b->threads, s.rows, s.cols, bits_of(s.f), s.f.group, activations(s),
           median(&ours), best(&ours), median(&read), best(&read),
           100 * median(&ours) / median(&read), 100 * best(&ours) / best(&read));
    product_close(&j);
}

static qformat affine(int bits, int group) { return (qformat){QK_AFFINE, bits, group, false}; }

static void part_decode(bench *b) {
    decode_shape(b, (shape){768, 2048, 1, 0, affine(4, 64), 32, false});
    decode_shape(b, (shape){2048, 768, 1, 0, affine(4, 64), 64, false});
    decode_shape(b, (shape){512, 2048, 1, 0, affine(4, 64), 32, false});
    decode_shape(b, (shape){2048, 512, 1, 0, affine(4, 64), 64, false});

    decode_shape(b, (shape){128, 2048, 1, 0, affine(8, 64), 16, false});
    decode_shape(b, (shape){32768, 2048, 1, 0, affine(4, 64), 64, false});
    decode_shape(b, (shape){32768, 2048, 1, 0, affine(8, 64), 64, false});
    static const int bits[] = {2, 3, 5, 6};
    for (int i = 0; i < 4; i++) {
        decode_shape(b, (shape){768, 2048, 1, 0, affine(bits[i], 64), 32, false});
    }
    decode_shape(b, (shape){768, 2048, 1, 0, affine(4, 32), 32, false});
    decode_shape(b, (shape){768, 2048, 1, 0, affine(4, 128), 32, false});
    decode_shape(b, (shape){768, 2048, 1, 0, affine(4, 64), 32, true});
}

static void prefill_shape(bench *b, shape s) {
    product_job j = product_open(b, s);
    figure ours = {0};
    double stop = now() + b->seconds / 2;
    double work = 2.0 * s.rows * s.cols * s.n * j.s.matrices;
    for (int pass = 0; pass < 3 || now() < stop; pass++) {
        double t = product_pass(&j);
        if (pass) figure_add(&ours, work / t * 1e-9);
    }
    printf("%-11s %d thr  %6d x %-5d x %-4d %2d bit g%-3d %s  %7.1f (%.1f) GOP/s\n", b->k->name,
           b->threads, s.rows, s.cols, s.n, bits_of(s.f), s.f.group, activations(s), median(&ours),
           best(&ours));
    product_close(&j);
}

static void part_prefill(bench *b) {
    static const int ns[] = {1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 512};
    for (int i = 0; i < 11; i++) {
        prefill_shape(b, (shape){768, 2048, ns[i], 16, affine(4, 64), 64, false});
    }
    prefill_shape(b, (shape){2048, 768, 32, 16, affine(4, 64), 64, false});
    prefill_shape(b, (shape){2048, 512, 16, 16, affine(4, 64), 64, false});
    static const int bits[] = {2, 3, 5, 6, 8};
    for (int i = 0; i < 5; i++) {
        prefill_shape(b, (shape){768, 2048, 32, 16, affine(bits[i], 64), 64, false});
    }
    prefill_shape(b, (shape){768, 2048, 32, 16, affine(4, 32), 64, false});
    prefill_shape(b, (shape){768, 2048, 32, 16, affine(4, 128), 64, false});
    prefill_shape(b, (shape){768, 2048, 32, 4, affine(4, 64), 64, true});
}

/* BF16 matrices, by their own path and with float32 activations. */
static void part_bf16(bench *b) {
    static const int ns[] = {2, 4, 8, 32, 128, 512};
    for (int exact = 0; exact < 2; exact++) {
        decode_shape(b, (shape){768, 2048, 1, 0, bf16, 16, exact});
        decode_shape(b, (shape){2048, 768, 1, 0, bf16, 32, exact});
        for (int i = 0; i < 6; i++) {
            prefill_shape(b, (shape){768, 2048, ns[i], 8, bf16, 8, exact});
        }
    }
}

/* ---- the delta rule ---- */

enum { HEAD = 128 };

static void delta_head(void *ctx, int task, int worker) {
    bench *b = ctx;
    static float ones[HEAD];
    float decay = -0.1f, beta = 0.5f, o[HEAD];
    b->k->delta_step(&(cpu_delta){.state = (float *)(void *)b->memory + (size_t)task * HEAD * HEAD,
                                  .o = o,
                                  .q = ones,
                                  .k = ones,
                                  .v = ones,
                                  .decay = &decay,
                                  .beta = &beta,
                                  .n = 1,
                                  .dk = HEAD,
                                  .dv = HEAD,
                                  .scratch = b->scratch[worker]});
}

/* One token through heads of 128 x 128 states: as a model's layers follow each other (from memory),
 * and over and over the same (from the caches). */
static void part_delta(bench *b) {
    static const int heads[] = {32, 64, (int)(POOL_BYTES / (HEAD * HEAD * sizeof(float)))};
    memset(b->memory, 0, POOL_BYTES);
    for (int i = 0; i < 3; i++) {
        figure f = {0};
        double bytes = 2.0 * heads[i] * HEAD * HEAD * sizeof(float), stop = now() + b->seconds;
        for (int pass = 0; pass < 3 || now() < stop; pass++) {
            double start = now();
            pool_run(b->pool, delta_head, b, heads[i]);
            if (pass) figure_add(&f, bytes / (now() - start) * 1e-9);
        }
        printf(
            "%-11s %d thr  delta step, %4d heads of %d x %d: %5.1f (%.1f) GB/s read and written, "
            "%.2f us a head\n",
            b->k->name, b->threads, heads[i], HEAD, HEAD, median(&f), best(&f),
            bytes / heads[i] / median(&f) * 1e-3);
    }
}

/* ---- attention ---- */

enum { LAYERS_MAX = 400 };

typedef struct attend_job {
    bench *b;
    int heads, group, dim, positions;
    size_t kv_bytes; /* of one head's K or V */
    const uint8_t *kv;
} attend_job;

static void attend_head(void *ctx, int head, int worker) {
    const attend_job *j = ctx;
    static float q[16 * 256];
    float out[16 * 256];
    int visible[16];
    for (int i = 0; i < j->group; i++) visible[i] = j->positions;
    const uint8_t *k = j->kv + 2 * (size_t)head * j->kv_bytes;
    cpu_attn a = {.out = out,
                  .q = q,
                  .n_visible = visible,
                  .k = k,
                  .v = k + j->kv_bytes,
                  .type = KV_F16,
                  .out_stride = (size_t)j->dim,
                  .q_stride = (size_t)j->dim,
                  .kv_stride = kv_head_bytes(KV_F16, j->dim),
                  .n_q = j->group,
                  .head_dim = j->dim,
                  .scale = 0.1f,
                  .scratch = j->b->scratch[worker]};
    j->b->k->attention(&a);
}

/* One token over `positions` of context, as a layer's attention in a decoded token: the cache comes
 * from memory, or (`hot`) from the processor's caches. */
static void attend_line(bench *b, attend_job j, bool hot) {
    figure f = {0};
    j.b = b;
    j.kv_bytes = (size_t)j.positions * kv_head_bytes(KV_F16, j.dim);
    size_t layer = 2 * (size_t)j.heads * j.kv_bytes;
    int layers = int_min(LAYERS_MAX, (int)(POOL_BYTES / layer));
    double stop = now() + b->seconds, each[LAYERS_MAX];
    for (int pass = 0; pass < 3 || now() < stop; pass++) {
        for (int i = 0; i < layers; i++) {
            j.kv = b->memory + (hot ? 0 : (size_t)i * layer);
            double start = now();
            pool_run(b->pool, attend_head, &j, j.heads);
            each[i] = now() - start;
        }
        qsort(each, (size_t)layers, sizeof *each, by_value);
        if (pass) figure_add(&f, each[layers / 2] * 1e6);
    }
    double middle = median(&f);
    printf("%-11s %d thr  attention of %d x %d queries of %d over %5d positions, %s: %6.1f (%.1f) "
           "us\n",
           b->k->name, b->threads, j.heads, j.group, j.dim, j.positions,
           hot ? "from caches" : "from memory", middle, f.pass[0]);
}

static void part_attention(bench *b) {
    static const int positions[] = {16, 100, 128, 1000, 8000};
    memset(b->memory, 0, POOL_BYTES);
    for (int hot = 0; hot < 2; hot++) {
        for (int i = 0; i < 5; i++) {
            attend_line(b,
                        (attend_job){.heads = 4, .group = 8, .dim = 128, .positions = positions[i]},
                        hot);
        }
        attend_line(b, (attend_job){.heads = 2, .group = 8, .dim = 256, .positions = 100}, hot);
    }
}

/* ---- threads ---- */

/* A layer's worth of experts per fork and join, one after the other over all memory: seconds. */
static double layers_pass(product_job *j, int matrices) {
    int chunks = (j->s.rows + j->s.chunk - 1) / j->s.chunk;
    uint8_t *memory = j->b->memory;
    double start = now();
    for (int i = 0; i + matrices <= j->s.matrices; i += matrices) {
        j->b->memory = memory + (size_t)i * j->bytes;
        pool_run(j->b->pool, product_task, j, chunks * matrices);
    }
    j->b->memory = memory;
    return now() - start;
}

static _Atomic int busy_stop;

static void *busy_loop(void *arg) {
    (void)arg;
    while (!busy_stop) {
    }
    return NULL;
}

static void threads_line(bench *b, int threads, bool busy) {
    enum { LAYER = 4 };
    pthread_t other;
    pool *held = b->pool;
    int held_threads = b->threads;
    b->threads = threads;
    must(pool_open(threads, &b->pool));
    busy_stop = 0;
    if (busy && pthread_create(&other, NULL, busy_loop, NULL)) exit(1);
    product_job j = product_open(b, (shape){768, 2048, 1, 0, {QK_AFFINE, 4, 64, false}, 16, false});
    double layers = j.s.matrices / LAYER;
    figure f = {0};
    double stop = now() + b->seconds;
    for (int pass = 0; pass < 3 || now() < stop; pass++) {
        double t = layers_pass(&j, LAYER);
        if (pass) figure_add(&f, layers * LAYER * (double)j.bytes / t * 1e-9);
    }
    printf("%-11s %d thr %s  joins of %d experts' matrices: %5.1f (%.1f) GB/s, %.0f us each\n",
           b->k->name, threads, busy ? "and a busy loop" : "alone          ", LAYER, median(&f),
           best(&f), LAYER * (double)j.bytes / median(&f) * 1e-3);
    product_close(&j);
    busy_stop = 1;
    if (busy) pthread_join(other, NULL);
    pool_close(b->pool);
    b->pool = held;
    b->threads = held_threads;
}

static void part_threads(bench *b) {
    static const int threads[] = {1, 2, 3, 4, 8};
    for (int busy = 0; busy < 2; busy++) {
        for (int i = 0; i < 5; i++) threads_line(b, threads[i], busy);
    }
}

int main(int argc, char **argv) {
    static bench b = {.seconds = 1.0, .threads = 2};
    b.k = cpu_best();
    const char *parts[8] = {0};
    int n_parts = 0;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && strcmp(argv[i], "--table") == 0) {
            must(cpu_by_name(argv[++i], &b.k));
        } else if (more && strcmp(argv[i], "--threads") == 0) {
            b.threads = int_min(THREADS_MAX, int_max(1, atoi(argv[++i])));
        } else if (more && strcmp(argv[i], "--seconds") == 0) {
            b.seconds = atof(argv[++i]);
        } else if (n_parts < 8) {
            parts[n_parts++] = argv[i];
        }
    }
    void *memory = NULL;
    must(os_map(POOL_BYTES, true, &memory));
    b.memory = memory;
    rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < POOL_BYTES; i += 8) {
        uint64_t v = rng_next(&r);
        memcpy(b.memory + i, &v, 8);
    }
    must(pool_open(b.threads, &b.pool));
    for (int i = 0; i < THREADS_MAX; i++) b.scratch[i] = aligned_alloc(64, (size_t)4 << 20);
    static const struct {
        const char *name;
        void (*run)(bench *);
    } all[] = {{"decode", part_decode},   {"prefill", part_prefill}, {"bf16", part_bf16},
               {"threads", part_threads}, {"delta", part_delta},     {"attention", part_attention}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool wanted = n_parts == 0;
        for (int k = 0; k < n_parts; k++) wanted |= strcmp(parts[k], all[i].name) == 0;
        if (wanted) all[i].run(&b);
    }
    pool_close(b.pool);
    for (int i = 0; i < THREADS_MAX; i++) free(b.scratch[i]);
    os_unmap(memory, POOL_BYTES);
    return 0;
}
