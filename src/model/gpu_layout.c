/* gpu_layout.c: where an expert's parts lie in a slot of the card, and which copies bring them.
 *
 *     store's slot   |..[gate.w][gate.s][up.w]..|..[up.s][down.w][down.s]..|   store/record.h
 *     card's slot    [gate.w][gate.s][up.w]..[up.s][down.w][down.s]            one piece: one copy
 *
 * A copy costs some microseconds beside its bytes, so parts keep the order and the distances that
 * they have in the store, and are copied together, gaps and all. Kernels load 16 bytes at a time.
 * So where a part's place in the store differs from the first one's by no multiple of that (a layer
 * whose tensors are in two files, for one), a new piece begins. A layer whose experts do not all
 * lie alike is copied part by part. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"
#include "store/record.h"

#define PART_ALIGN  64
#define LOAD_ALIGN  16                 /* of what the kernels load in large pieces */
#define COPIED_MORE ((size_t)96 << 10) /* gaps that are worth one copy, if less than the parts */

void gpu_layout_put(expert_layout *l, int part, size_t at) {
    gpu_part *const matrices[3] = {&l->gate, &l->up, &l->down}, *m = matrices[part / 3];
    l->at[part] = at;
    *(part % 3 == 0 ? &m->w : part % 3 == 1 ? &m->scales : &m->biases) = (unsigned)at;
}

/* ---- part by part ---- */

static void place(expert_layout *l, int part, size_t bytes) {
    gpu_layout_put(l, part, l->total);
    l->bytes[part] = bytes;
    l->total = round_up(l->total + bytes, PART_ALIGN);
    l->copied += bytes;
    if (!bytes) return;
    l->piece_of[part] = l->n_pieces;
    l->pieces[l->n_pieces++] = (expert_piece){part, bytes};
}

static void place_matrix(expert_layout *l, gpu_part *matrix, int first, const qmat *m) {
    size_t rows = (size_t)m->rows, scales = qformat_scale_row_bytes(m->format, m->cols) * rows;
    *matrix = (gpu_part){.rows = m->rows,
                         .cols = m->cols,
                         .kind = (int)m->format.kind,
                         .bits = m->format.bits,
                         .group = m->format.group,
                         .scales_f16 = m->format.scales_f16};
    place(l, first, qformat_row_bytes(m->format, m->cols) * rows);
    place(l, first + 1, scales);
    place(l, first + 2, scales);
}

static void lay_out(const layer_weights *w, expert_layout *l) {
    *l = (expert_layout){0};
    place_matrix(l, &l->gate, 0, &w->expert.gate);
    place_matrix(l, &l->up, 3, &w->expert.up);
    place_matrix(l, &l->down, 6, &w->expert.down);
}

/* ---- as in the store ---- */

/* Parts at these places lie as the pieces have them. */
static bool lie_so(const expert_layout *l, const uintptr_t *places) {
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) {
        int first = l->pieces[l->piece_of[i]].first;
        if (l->bytes[i] && places[i] - places[first] != l->at[i] - l->at[first]) return false;
    }
    return true;
}

static void record_of(const expert_map *m, int layer, int expert, record *r) {
    size_t key = (size_t)layer * (size_t)m->n_experts + (size_t)expert;
    record_make(m->parts + key * (size_t)m->n_parts, m->n_parts, RECORD_ALIGN_LEAST, r);
}

/* The parts that there are, by their place in the store. */
static int in_order(const expert_layout *l, const record *r, int *order) {
    int n = 0;
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) {
        if (!l->bytes[i]) continue;
        int k = n++;
        for (; k > 0 && r->part[i] < r->part[order[k - 1]]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    return n;
}

static void cut(const record *r, expert_layout *l) {
    int order[EXPERT_PARTS_MAX], n = in_order(l, r, order), first = 0;
    size_t end = 0;
    l->n_pieces = 0;
    for (int k = 0; k < n; k++) {
        int i = order[k];
        if (!k || (r->part[i] - r->part[first]) % LOAD_ALIGN) {
            first = i;
            gpu_layout_put(l, i, round_up(end, PART_ALIGN));
            l->pieces[l->n_pieces++].first = i;
        }
        l->piece_of[i] = l->n_pieces - 1;
        gpu_layout_put(l, i, l->at[first] + r->part[i] - r->part[first]);
        size_t part_end = l->at[i] + l->bytes[i];
        end = part_end > end ? part_end : end; /* a part may lie within another one */
        l->pieces[l->n_pieces - 1].bytes = end - l->at[first];
    }
    l->copied = 0;
    for (int k = 0; k < l->n_pieces; k++) l->copied += l->pieces[k].bytes;
    l->total = round_up(end, PART_ALIGN);
}

/* Leaves the layout as it is where that does not pay. */
static void lay_as_stored(const expert_map *m, int layer, expert_layout *l) {
    record r;
    expert_layout stored = *l;
    record_of(m, layer, 0, &r);
    cut(&r, &stored);
    size_t most = l->copied + size_min(l->copied, COPIED_MORE);
    if (stored.copied > most || stored.total > UINT32_MAX) return;
    for (int x = 1; x < m->n_experts; x++) {
        uintptr_t places[EXPERT_PARTS_MAX];
        record_of(m, layer, x, &r);
        for (int i = 0; i < EXPERT_PARTS_MAX; i++) places[i] = r.part[i];
        if (!lie_so(&stored, places)) return;
    }
    *l = stored;
}

err gpu_tier_measure(const weights *w, gpu_tier *t) {
    *t = (gpu_tier){.n_layers = w->experts.n_layers, .n_experts = w->experts.n_experts};
    if (!t->n_layers) return err_none();
    t->n_keys = t->n_layers * t->n_experts;
    t->layouts = calloc((size_t)t->n_layers, sizeof *t->layouts);
    if (!t->layouts) return err_make(ERR_NOMEM, "no memory for the layout of experts");
    for (int i = 0; i < w->config->layers; i++) {
        int sparse = w->layers[i].sparse_index;
        if (sparse < 0) continue;
        lay_out(&w->layers[i], &t->layouts[sparse]);
        if (w->experts.n_parts == EXPERT_PARTS_MAX)
            lay_as_stored(&w->experts, sparse, &t->layouts[sparse]);
        if (t->layouts[sparse].total > UINT32_MAX)
            return err_make(ERR_UNSUPPORTED, "layer %d: experts of more than 4 GiB", i);
        if (t->layouts[sparse].total > t->slot_bytes) t->slot_bytes = t->layouts[sparse].total;
    }
    return err_none();
}

/* ---- copies ---- */

err gpu_layout_copy(gpu_ops *o, const expert_layout *l, gpu_addr slot, uint8_t *const *part,
                    gpu_copy_piece copy) {
    uintptr_t places[EXPERT_PARTS_MAX];
    for (int i = 0; i < EXPERT_PARTS_MAX; i++) places[i] = (uintptr_t)part[i];
    /* A store that has room for all experts puts their parts where the processor likes them. */
    if (!lie_so(l, places)) {
        for (int i = 0; i < EXPERT_PARTS_MAX; i++)
            if (l->bytes[i]) TRY(copy(o, slot + l->at[i], part[i], l->bytes[i]));
        return err_none();
    }
    for (int k = 0; k < l->n_pieces; k++) {
        int first = l->pieces[k].first;
        TRY(copy(o, slot + l->at[first], part[first], l->pieces[k].bytes));
    }
    return err_none();
}
