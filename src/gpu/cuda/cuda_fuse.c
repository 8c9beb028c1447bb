/* cuda_fuse.c: launches wait in their queue until something else is asked of it (a copy, an event,
 * a wait, the end of a graph) or the list is full; neighbours that one large kernel can do are then
 * started as one. What only the launches of one such row read from each other is not written: the
 * convolved values after delta_in, the shared expert's swiglu and output, the experts' outputs
 * before combine. */
#include <assert.h>
#include <string.h>

#include "gpu/cuda/cuda_hop.h"

enum { LONGEST = 7 }; /* launches that become one kernel, or two */

static const void *args_of(const cuda_pending *p) { return p->args; }

/* ---- which launches belong together ---- */

/* rmsnorm, matvec, conv: the matvec and what is beside it. Returns how many, 0: not that. */
static int find_matvec(const cuda_pending *p, int n, const args_rmsnorm **norm,
                       const args_matvec **m, const args_conv **conv) {
    int at = 0;
    *norm = NULL, *conv = NULL;
    if (p[0].kernel == GPU_rmsnorm) {
        *norm = args_of(&p[0]);
        at = 1;
    }
    if (at >= n || p[at].kernel != GPU_matvec) return 0;
    *m = args_of(&p[at++]);
    if (*norm) {
        const args_rmsnorm *r = *norm;
        bool fits = !r->add && !r->sum && r->y != r->x && r->y == (*m)->x && r->n == (*m)->n &&
                    r->cols == (*m)->x_stride && r->cols == (*m)->m[0].cols && r->x % 16 == 0;
        if (!fits || r->n > FEW_VECTORS) return 0;
    }
    if (at >= n || p[at].kernel != GPU_conv || (*m)->n > FEW_VECTORS) return at;
    const args_conv *c = args_of(&p[at]);
    bool fits = c->x == (*m)->y[0] && c->n_segments == (*m)->n && c->stride == (*m)->y_stride[0] &&
                c->channels == (*m)->m[0].rows && c->w % 16 == 0;
    if (fits) *conv = c;
    return fits ? at + 1 : at;
}

static err try_matvec(gpu_queue *q, const cuda_pending *p, int n, int *used) {
    const args_rmsnorm *norm;
    const args_matvec *m;
    const args_conv *conv;
    bool done = false;
    int found = find_matvec(p, n, &norm, &m, &conv);
    if (!found) return err_none();
    TRY(cuda_hop_matvec(q, norm, m, conv, &done));
    if (!done && !norm && conv) { /* many vectors: the matvec alone */
        TRY(cuda_hop_matvec(q, NULL, m, NULL, &done));
        found = 1;
    }
    if (done) *used = found;
    return err_none();
}

static err try_delta(gpu_queue *q, const cuda_pending *p, int n, int *used) {
    if (n < 3 || p[1].kernel != GPU_delta || p[2].kernel != GPU_delta_out) return err_none();
    args_few_delta a;
    memcpy(&a.in, args_of(&p[0]), sizeof a.in);
    memcpy(&a.run, args_of(&p[1]), sizeof a.run);
    memcpy(&a.out, args_of(&p[2]), sizeof a.out);
    bool fits = a.in.qkv == a.run.qkv && a.in.stride == a.run.stride && a.in.dk == a.run.dk &&
                a.in.n_v == a.run.n_v && a.in.n_k == a.run.n_k && a.in.decay == a.run.decay &&
                a.in.beta == a.run.beta && a.run.o == a.out.o && a.run.dv == a.out.dv &&
                a.in.n == a.run.n_segments && a.out.n == a.in.n;
    bool done = false;
    if (fits) TRY(cuda_hop_delta(q, &a, &done));
    if (done) *used = 3;
    return err_none();
}

static bool moe_fits(const cuda_moe *m) {
    const args_experts *in = m->in, *out = m->out;
    bool fits = m->plan->ids == m->router->ids && in->active == m->plan->active &&
                in->order == m->plan->order && in->n_active == m->plan->n_active &&
                out->active == in->active && out->order == in->order && out->x == in->y &&
                in->up.rows && !out->up.rows && out->row_of_pair == 1 &&
                in->row_of_pair == m->router->k && in->slots == out->slots &&
                m->combine->y == out->y && m->combine->weights == m->router->weights &&
                m->combine->n == m->router->n && m->combine->k == m->router->k &&
                m->combine->cols == out->y_stride && m->combine->cols == out->gate.rows;
    if (!fits || !m->shared) return fits && !m->combine->shared;
    const args_matvec *s = m->shared;
    return s->n_mats == 1 && !s->bias[0] && !s->residual && s->x == m->act->y &&
           s->n == m->router->n && m->act->n == s->n * s->x_stride && s->x_stride == s->m[0].cols &&
           m->combine->shared == s->y[0] && s->m[0].rows == m->combine->cols;
}

static err try_moe(gpu_queue *q, const cuda_pending *p, int n, int *used) {
    cuda_moe m = {.router = args_of(&p[0])};
    int at = 1;
    if (n < 5 || p[at].kernel != GPU_plan) return err_none();
    m.plan = args_of(&p[at++]);
    if (p[at].kernel == GPU_swiglu && n >= LONGEST && p[at + 1].kernel == GPU_matvec) {
        m.act = args_of(&p[at]);
        m.shared = args_of(&p[at + 1]);
        at += 2;
    }
    if (at + 3 > n || p[at].kernel != GPU_experts || p[at + 1].kernel != GPU_experts) {
        return err_none();
    }
    m.in = args_of(&p[at]);
    m.out = args_of(&p[at + 1]);
    if (p[at + 2].kernel != GPU_combine) return err_none();
    m.combine = args_of(&p[at + 2]);
    bool done = false;
    if (moe_fits(&m)) TRY(cuda_hop_moe(q, &m, &done));
    if (done) *used = at + 3;
    return err_none();
}

/* The highest logits: lists that are in order already become one at once, whatever launches that
 * would be. */
static err try_top(gpu_queue *q, const cuda_pending *p, int n, int *used) {
    args_top a = *(const args_top *)args_of(&p[0]);
    int at = 1, left = a.n; /* keys of the last launch */
    bool done = false;
    while (!a.logits && left > TOP_SPAN && at < n && p[at].kernel == GPU_top) {
        const args_top *next = args_of(&p[at++]);
        if (next->keys != a.out || next->rows != a.rows) return err_none();
        a.out = next->out;
        left = next->n;
    }
    if (!a.logits && (left > TOP_SPAN || a.n % TOP_KEEP)) return err_none();
    TRY(cuda_hop_top(q, &a, &done));
    if (done) *used = at;
    return err_none();
}

/* Starts what the list begins with; *used launches are done then. */
static err start_first(gpu_queue *q, const cuda_pending *p, int n, int *used) {
    bool done = false;
    *used = 0;
    switch (p[0].kernel) {
    case GPU_rmsnorm:
    case GPU_matvec: TRY(try_matvec(q, p, n, used)); break;
    case GPU_delta_in: TRY(try_delta(q, p, n, used)); break;
    case GPU_router: TRY(try_moe(q, p, n, used)); break;
    case GPU_experts: TRY(cuda_hop_experts(q, args_of(&p[0]), &done)); break;
    case GPU_top: TRY(try_top(q, p, n, used)); break;
    case GPU_conv: TRY(cuda_hop_conv(q, args_of(&p[0]), &done)); break;
    case GPU_plan: TRY(cuda_hop_plan(q, args_of(&p[0]), &done)); break;
    default: break;
    }
    if (done) *used = 1;
    if (*used) return err_none();
    *used = 1;
    return cuda_launch_now(q, p[0].kernel, p[0].shape, p[0].args);
}

/* ---- the list ---- */

#define ARGS_FIT(name, args, threads)                                                              \
    static_assert(sizeof(args) <= CUDA_ARGS_BYTES, "a waiting launch has room for " #args);
GPU_KERNELS(ARGS_FIT)

static err start_until(cuda_queue *q, int left) {
    int at = 0;
    err e = err_none();
    while (!e.code && q->n_pending - at > left) {
        int used;
        e = start_first(&q->base, q->pending + at, q->n_pending - at, &used);
        at += used;
    }
    if (e.code) at = q->n_pending; /* the queue has failed: nothing of it is of use */
    q->n_pending -= at;
    memmove(q->pending, q->pending + at, (size_t)q->n_pending * sizeof *q->pending);
    return e;
}

err cuda_flush(gpu_queue *q) { return start_until((cuda_queue *)(void *)q, 0); }

err cuda_put_off(gpu_queue *base, gpu_kernel k, gpu_shape shape, const void *args) {
    cuda_queue *q = (cuda_queue *)(void *)base;
    if (q->n_pending == CUDA_PENDING) TRY(start_until(q, LONGEST));
    cuda_pending *p = &q->pending[q->n_pending++];
    p->kernel = k;
    p->shape = shape;
    memcpy(p->args, args, gpu_kernel_args_bytes(k));
    return err_none();
}
