/* step_bytes.h: what a decode step of several conversations must move through a card's memory: the
 * bytes behind the limits of `flashchat benchmark gpu` and gpu-bench. */
#ifndef COMMON_STEP_BYTES_H
#define COMMON_STEP_BYTES_H

#include "flashmoe.h"

/* A step's shape: conversations that take part, of those that the plan has room for, and how many
 * positions each has on average. */
typedef struct step_shape {
    int streams, sessions;
    double positions;
} step_shape;

typedef struct step_bytes {
    double trunk;
    double experts; /* different ones, when every choice is as likely */
    double states;  /* recurrent states read and written, attention caches read */
} step_bytes;

step_bytes step_bytes_of(const fm_plan *p, step_shape s);

#endif
