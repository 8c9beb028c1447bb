/* work_bar.c: see work_bar.h. */
#include "work_bar.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "../common/args.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void work_bar_begin(work_bar *b) {
    *b = (work_bar){.terminal = isatty(STDERR_FILENO) == 1, .begin = now()};
}

void work_bar_show(void *ctx, const char *what, uint64_t done, uint64_t total) {
    work_bar *b = ctx;
    double at = now();
    if (!b->counted) b->first = done, b->counted = true;
    if (!b->terminal || (at - b->last < 0.1 && done < total)) return;
    char now_text[16], all[16], rate_text[16];
    double rate = at > b->begin ? (double)(done - b->first) / (at - b->begin) : 0;
    double left = rate > 0 ? (double)(total - done) / rate : 0;
    fprintf(stderr, "\r%-8s %s of %s  %s/s  %d:%02d left   ", what,
            size_text((double)done, now_text), size_text((double)total, all),
            size_text(rate, rate_text), (int)left / 60, (int)left % 60);
    fflush(stderr);
    b->last = at;
    b->shown = true;
}

void work_bar_end(work_bar *b) {
    if (b->shown) fprintf(stderr, "\r%*s\r", 70, "");
}
