/* status.h: what is going on, for `flashchat status` and the menu's header. */
#ifndef STATUS_H
#define STATUS_H

#include "product.h"

typedef struct status {
    bool server_up;       /* /health answered */
    char server[300];     /* its address */
    const model_entry *m; /* the chosen model, NULL for a folder of one's own */
    char model[200], dir[PATH_TEXT_MAX];
    bool model_ready;
    model_need need;
    machine here;
    int context; /* tokens; 0: unknown */
} status;

void status_get(product *p, status *out);

/* The menu of `flashchat` without words; the exit code. */
int menu_run(void);

#endif
