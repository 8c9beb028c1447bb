/* io_fault.h: disks that fail when a test wants them to.
 *
 * A plan is a list of rules; every raw result of every engine passes through it. A rule that
 * matches (file, drive, range) and still has times left replaces the result. */
#ifndef IO_IO_FAULT_H
#define IO_IO_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define IO_FAULT_RULES_MAX 16

typedef enum io_fault_kind {
    IO_FAULT_ERROR, /* value is an errno */
    IO_FAULT_SHORT, /* value is the most bytes that arrive; the rest of the buffer is made garbage
                     */
} io_fault_kind;

typedef struct io_fault_rule {
    io_fault_kind kind;
    int value;
    int file, drive;     /* -1: any */
    int64_t first, last; /* a call that touches a byte of [first, last]; last < 0: any */
    atomic_int skip;     /* matching calls to let through first */
    atomic_int times;    /* how often it strikes; negative: always */
} io_fault_rule;

typedef struct io_fault {
    int n_rules;
    io_fault_rule rules[IO_FAULT_RULES_MAX];
    atomic_bool refuse; /* io_uring takes no more reads from now on */
    atomic_int struck;  /* replaced results so far */
} io_fault;

typedef struct io_fault_call {
    int file, drive;
    int64_t offset;
    uint8_t *dst;
} io_fault_call;

/* The result that the engine shall see instead of `result` (bytes, or -errno). Any thread. */
int64_t io_fault_apply(io_fault *f, const io_fault_call *call, int64_t result);

#endif
