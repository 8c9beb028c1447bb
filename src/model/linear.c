/* linear.c: several matrix products as one job of the pool.
 *
 * Each product is cut into blocks of matrix rows of about TASK_BYTES of weights: small enough that
 * a thread which the system takes away delays one block only, large enough that handing out costs
 * nothing. A block is computed by one thread for all its vectors, so that its weights are read
 * once. */
#include "base/bits.h"
#include "model/cpu_ops_impl.h"

#define TASK_BYTES (32 * 1024)

typedef struct linear_job {
    cpu_ops *o;
    linear *list;
    int n;
} linear_job;

static int block_rows(const linear *l) {
    size_t row = qformat_row_total(l->w->format, l->w->cols);
    size_t work = row * (size_t)(l->n > 4 ? (l->n + 3) / 4 : 1);
    size_t rows = TASK_BYTES / (work ? work : 1);
    rows = rows / CPU_MATMUL_ROWS * CPU_MATMUL_ROWS;
    return rows < CPU_MATMUL_ROWS ? CPU_MATMUL_ROWS : int_min((int)rows, l->w->rows);
}

static void linear_task(void *ctx, int task, int worker) {
    const linear_job *j = ctx;
    int i = 0;
    while (i + 1 < j->n && j->list[i + 1].first_task <= task) i++;
    const linear *l = &j->list[i];
    int begin = (task - l->first_task) * l->block, end = int_min(begin + l->block, l->w->rows);
    cpu_matmul m = {.w = l->w,
                    .x = l->x,
                    .y = l->y,
                    .x_stride = l->x_stride,
                    .y_stride = l->y_stride,
                    .n = l->n,
                    .scratch = j->o->worker[worker]};
    j->o->o.kernels->matmul(&m, begin, end);
    for (int t = 0; l->bias && t < l->n; t++) {
        for (int r = begin; r < end; r++) l->y[(size_t)t * l->y_stride + (size_t)r] += l->bias[r];
    }
}

void linear_run(cpu_ops *o, linear *list, int n) {
    int tasks = 0;
    for (int i = 0; i < n; i++) {
        list[i].block = block_rows(&list[i]);
        list[i].first_task = tasks;
        tasks += (list[i].w->rows + list[i].block - 1) / list[i].block;
    }
    linear_job j = {.o = o, .list = list, .n = n};
    pool_run(o->o.pool, linear_task, &j, tasks);
}
