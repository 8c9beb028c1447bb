/* slow_disk.h: a program's reads as a slower disk would answer them, so that a machine with a fast
 * disk can say what an engine does with a slow one.
 *
 *     io_start(read)   reserves the time of its bytes at the end of the disk's queue:
 *                      due = max(now, end of queue) + bytes / rate
 *     io_next          gives back a read that has really come, but not before it is due
 *
 * So the disk does one read after the other in the order of starting, forgives no pause (time in
 * which nothing was asked for is lost), and costs no processor time. What it does not model: a
 * disk's own latency, which is that of the real reads. A kernel's throttle is coarser: Linux' hands
 * out 100 ms of bytes at once (docs/MEASURED.md, "On a disk of 1.6 GB/s").
 *
 * The linker puts these functions before those of io.h (--wrap, see the Makefile), for all users of
 * io.h in a program; nothing in src/ knows of it. */
#ifndef BENCH_SLOW_DISK_H
#define BENCH_SLOW_DISK_H

#include "base/err.h"

/* From now on the disk (one, for all files and mirrors) gives so many bytes a second, if it is fast
 * enough; before, and with 0, what it can. Call it before the first io_open. ERR_UNSUPPORTED where
 * the program was linked without --wrap. */
MUST_USE err slow_disk_set(double bytes_per_second);

#endif
