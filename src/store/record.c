/* record.c: see record.h. */
#include "store/record.h"

#include <string.h>

#include "base/bits.h"

static int by_place(const expert_part *parts, int a, int b) {
    if (parts[a].file != parts[b].file) return parts[a].file < parts[b].file ? -1 : 1;
    if (parts[a].offset != parts[b].offset) return parts[a].offset < parts[b].offset ? -1 : 1;
    return a - b;
}

/* Part indices by file and offset; at most EXPERT_PARTS_MAX, so insertion will do. */
static int sort_parts(const expert_part *parts, int n_parts, int *order) {
    int n = 0;
    for (int i = 0; i < n_parts; i++) {
        if (parts[i].bytes == 0) continue;
        int k = n++;
        for (; k > 0 && by_place(parts, i, order[k - 1]) < 0; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    return n;
}

/* The part begins in, right after, or in the block after the run: one read is cheaper than two. */
static bool joins(const record_run *run, const expert_part *part) {
    int64_t end = run->offset + run->bytes;
    int64_t new_end = part->offset + part->bytes;
    return run->file == part->file && part->offset <= end + IO_ALIGN &&
           ((part->offset ^ run->offset) & 3) == 0 && new_end - run->offset <= INT32_MAX;
}

void record_make(const expert_part *parts, int n_parts, uint32_t align, record *out) {
    int order[EXPERT_PARTS_MAX], run_of[EXPERT_PARTS_MAX] = {0};
    int n = sort_parts(parts, n_parts, order);
    memset(out, 0, sizeof *out);
    for (int k = 0; k < n; k++) {
        const expert_part *part = &parts[order[k]];
        record_run *run = out->n_runs ? &out->runs[out->n_runs - 1] : NULL;
        if (run && joins(run, part)) {
            int64_t end = part->offset + part->bytes;
            if (end > run->offset + run->bytes) run->bytes = (uint32_t)(end - run->offset);
        } else {
            run = &out->runs[out->n_runs++];
            *run = (record_run){.offset = part->offset, .bytes = part->bytes, .file = part->file};
            run->margin = (uint32_t)(part->offset % IO_ALIGN);
            run->shift = (uint32_t)part->offset & (align - 1);
        }
        run_of[order[k]] = out->n_runs - 1;
    }
    for (int i = 0; i < out->n_runs; i++) {
        record_run *run = &out->runs[i];
        run->place = (uint32_t)out->bytes;
        out->bytes += round_up((size_t)run->margin + run->bytes, IO_ALIGN);
        out->payload += run->bytes;
    }
    for (int i = 0; i < n_parts; i++) {
        if (parts[i].bytes == 0) continue;
        const record_run *run = &out->runs[run_of[i]];
        out->part[i] =
            run->place + run->margin - run->shift + (uint32_t)(parts[i].offset - run->offset);
    }
}

bool record_next(const record_run *run, bool direct, uint32_t block, uint32_t *at,
                 record_read *out) {
    uint32_t margin = direct ? run->margin : 0;
    uint32_t end = margin + run->bytes;
    if (*at >= end) return false;
    uint32_t bytes = end - *at < block ? end - *at : block;
    out->offset = run->offset - margin + *at;
    out->need = bytes;
    out->bytes = direct ? (uint32_t)round_up(bytes, IO_ALIGN) : bytes;
    out->place = run->place + *at + (direct ? 0 : run->margin - run->shift);
    *at += bytes;
    return true;
}

void record_settle(const record *r, uint8_t *slot) {
    for (int i = 0; i < r->n_runs; i++) {
        const record_run *run = &r->runs[i];
        uint8_t *first = slot + run->place + run->margin;
        if (run->shift) memmove(first - run->shift, first, run->bytes);
    }
}
