/* work_bar.h: one line on standard error for long work on files: how far, how fast, how long still.
 * Only on a terminal. */
#ifndef FLASHCHAT_WORK_BAR_H
#define FLASHCHAT_WORK_BAR_H

#include <stdbool.h>
#include <stdint.h>

typedef struct work_bar {
    bool terminal, shown;
    double begin, last; /* seconds */
    uint64_t first;     /* done at the first report: there from before */
    bool counted;
} work_bar;

void work_bar_begin(work_bar *b);
/* An fm_progress; ctx is the bar. */
void work_bar_show(void *ctx, const char *what, uint64_t done, uint64_t total);
void work_bar_end(work_bar *b);

#endif
