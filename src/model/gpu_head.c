/* gpu_head.c: the end of a step on a card: logits, the highest of them, and the way of all of them
 * to the host, if somebody wants them.
 *
 *     x -> norm -> head -> logits [items, vocab]   stay on the card: a megabyte a row
 *                              -> top -> top ...   TOP_LOGITS keys a row, written to pinned memory
 *
 * A session's logits lie in a row of the card until its next step, until they are asked for, or
 * until a step of others begins, which would overwrite them: then they are read first. */
#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"

_Static_assert(TOP_LOGITS == TOP_KEEP, "what the kernel keeps is what the host gets");

/* ---- launches ---- */

static int items_with_logits(const batch *b) {
    int n = 0;
    for (int i = 0; i < b->n_items; i++) n += b->items[i].logits != NULL;
    return n;
}

/* tmp or x: the last rows of the items whose logits are wanted, one after the other. */
static err last_rows(gpu_ops *o, const batch *b, int n, gpu_addr *out) {
    size_t row = (size_t)o->c->hidden * sizeof(float);
    int at = 0, to = 0;
    *out = o->x;
    if (n == b->rows) return err_none();
    *out = o->tmp;
    for (int i = 0; i < b->n_items; i++) {
        at += b->items[i].count;
        if (!b->items[i].logits) continue;
        TRY(gpu_copy(o->compute, o->tmp + (gpu_addr)to++ * row, o->x + (gpu_addr)(at - 1) * row,
                     row));
    }
    return err_none();
}

static int spans_of(int n) { return (n + TOP_SPAN - 1) / TOP_SPAN; }

gpu_addr gpu_head_top(const gpu_ops *o) {
    int turns = 1;
    for (int n = o->c->vocab; spans_of(n) > 1; n = spans_of(n) * TOP_KEEP) turns++;
    return o->top[(turns - 1) % 2];
}

static err launch_top(gpu_ops *o, int rows) {
    args_top a = {.logits = o->logits, .out = o->top[0], .rows = rows, .n = o->c->vocab};
    for (int turn = 1;; turn++) {
        TRY(gpu_do(o, GPU_top, &a));
        if (spans_of(a.n) == 1) break;
        a = (args_top){
            .keys = a.out, .out = o->top[turn % 2], .rows = rows, .n = spans_of(a.n) * TOP_KEEP};
    }
    return gpu_words_out(o, o->top_host, a.out, (size_t)rows * TOP_KEEP * sizeof(uint64_t));
}

err gpu_head_launch(gpu_ops *o, const batch *b) {
    gpu_addr rows;
    int n = items_with_logits(b);
    if (!n) return err_none();
    TRY(last_rows(o, b, n, &rows));
    TRY(gpu_norm(o, o->h, rows, o->o.weights->final_norm, n));
    args_matvec a = {.m = {gpu_mat_of(o, &o->o.weights->head)},
                     .y = {o->logits},
                     .x = o->h,
                     .y_stride = {o->c->vocab},
                     .n = n,
                     .x_stride = o->c->hidden,
                     .n_mats = 1};
    TRY(gpu_multiply(o, &a));
    return launch_top(o, n);
}

/* ---- the highest ---- */

/* The first of a row is NaN or infinite when any is. */
static bool sound(uint64_t key) { return key >> 32 < 0xff800000u; }

err gpu_head_finish(gpu_ops *o, const batch *b) {
    TRY(gpu_queue_wait(o->compute));
    int row = 0;
    for (int i = 0; i < b->n_items; i++) {
        const batch_item *item = &b->items[i];
        if (!item->logits) continue;
        const uint64_t *key = o->top_host + (size_t)row * TOP_KEEP;
        if (!sound(key[0]))
            return err_make(ERR_CORRUPT,
                            "the result on the GPU is not a finite number: weights are damaged");
        gpu_state *s = (gpu_state *)(void *)item->state;
        s->logits = item->logits;
        s->row = row;
        o->left[row++] = s;
        item->top->n = int_min(TOP_LOGITS, o->c->vocab);
        for (int k = 0; k < item->top->n; k++) {
            item->top->value[k] = logit_key_value(key[k]);
            item->top->id[k] = logit_key_id(key[k]);
        }
    }
    return err_none();
}

/* ---- all of them ---- */

void gpu_head_forget(gpu_ops *o, gpu_state *s) {
    if (!s->logits) return;
    o->left[s->row] = NULL;
    s->logits = NULL;
}

err gpu_head_bring(ops *face, ops_state *state) {
    gpu_ops *o = gpu_of(face);
    gpu_state *s = (gpu_state *)(void *)state;
    if (!s->logits) return err_none();
    size_t vocab = (size_t)o->c->vocab, at = (size_t)s->row * vocab;
    float *host = o->logits_host + at;
    TRY(gpu_copy_out(o->compute, host, o->logits + at * sizeof(float), vocab * sizeof(float)));
    TRY(gpu_queue_wait(o->compute));
    memcpy(s->logits, host, vocab * sizeof(float));
    gpu_head_forget(o, s);
    return err_none();
}

err gpu_head_begin(gpu_ops *o, const batch *b) {
    for (int i = 0; i < b->n_items; i++) gpu_head_forget(o, (gpu_state *)(void *)b->items[i].state);
    for (int r = 0; r < o->o.sessions; r++) {
        if (o->left[r]) TRY(gpu_head_bring(&o->face, (ops_state *)(void *)o->left[r]));
    }
    return err_none();
}

/* ---- memory ---- */

void gpu_head_cut(gpu_ops *o, gpu_cutter *s) {
    size_t sessions = (size_t)o->o.sessions, span = TOP_KEEP * sizeof(uint64_t);
    int n = spans_of(o->c->vocab);
    o->logits = gpu_cut(s, sessions * (size_t)o->c->vocab * sizeof(float));
    o->top[0] = gpu_cut(s, sessions * (size_t)n * span);
    o->top[1] = gpu_cut(s, sessions * (size_t)spans_of(n * TOP_KEEP) * span);
}
