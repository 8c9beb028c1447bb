/* status.h: what is going on, for `flashchat status` and the menu's header. */
#ifndef STATUS_H
#define STATUS_H

#include "product.h"

typedef enum server_kind {
    SERVER_NONE,
    SERVER_OURS,    /* of server.pid, and its process lives */
    SERVER_EXTERNAL /* answers at the settings' port; nobody knows who started it */
} server_kind;

/* Where the running server's model is, as its /health says. */
typedef struct placement {
    char layers[660], card[130]; /* a sentence, "": not known; the card, "": none */
    uint64_t memory_limit, vram_limit, vram_taken;
} placement;

typedef struct status {
    server_kind server_kind;
    bool server_up;                /* /health answered */
    bool outdated;                 /* ours, and started with other settings than those of now */
    int pid;                       /* of ours */
    char server[300], serves[256]; /* its address; the model that ours serves */
    placement placed;
    const model_entry *m; /* the chosen model, NULL for a folder of one's own */
    char model[200], dir[PATH_TEXT_MAX];
    bool model_ready;
    model_need need;
    machine here;
    int context; /* tokens; 0: unknown */
} status;

void status_get(product *p, status *out);
/* "running at http://127.0.0.1:8000 (process 12), org/name" */
void status_server_text(const status *s, char *out, size_t size);

/* The menu of `flashchat` without words; the exit code. */
int menu_run(void);

#endif
