/* os.h: what the rest needs from the operating system. os_linux.c and os_macos.c implement it; no
 * other file outside io/io_uring.c contains a call that only one system has. Everything here may be
 * called from any thread. */
#ifndef BASE_OS_H
#define BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Zeroed, private, anonymous memory; huge asks for 2 MiB pages and 2 MiB alignment where the system
 * has them. */
err os_map(size_t bytes, bool huge, void **out) MUST_USE;
void os_unmap(void *base, size_t bytes);
/* Whole pages of an os_map: their memory goes back and touching them is a crash, the addresses stay
 * taken; and back again, zeroed. ERR_NOMEM when the system refuses, the pages are as before. */
err os_discard(void *base, size_t bytes) MUST_USE;
err os_revive(void *base, size_t bytes) MUST_USE;

/* Open for reading. direct asks for reads that bypass the page cache (O_DIRECT, F_NOCACHE); ERR_IO
 * where the file system refuses. The descriptor is the caller's, closed on exec. */
err os_open_read(const char *path, bool direct, int *fd) MUST_USE;

/* Gives memory that was freed back to the system, where the allocator knows how: after work that
 * needed much for a moment (a large JSON). Costs a walk over the free lists. */
void os_trim(void);

typedef struct os_memory {
    size_t total;     /* physical memory, or the cgroup's limit where that is lower */
    size_t available; /* free or reclaimable now, under the same limit */
} os_memory;

void os_memory_get(os_memory *out);

/* Logical processors that this process may run on (affinity mask and cgroup quota), at least 1. */
int os_cpu_count(void);

/* The processor's name, "unknown" where the system does not say. */
void os_cpu_name(char *out, size_t size);

/* Whether reads through the page cache may be the faster ones for files larger than memory, so that
 * they are worth a measurement: on macOS; on Linux it has been measured (docs/MEASURED.md). */
bool os_try_page_cache(void);

/* The processor has the dot product instructions of ARMv8.2; false on other architectures. */
bool os_cpu_has_dotprod(void);
/* The same of the matrix instructions of bytes (i8mm) of ARMv8.6. */
bool os_cpu_has_i8mm(void);

/* Monotonic nanoseconds. */
uint64_t os_now_ns(void);

/* Peak and present resident bytes of this process; 0 where unknown. */
size_t os_peak_rss(void);
size_t os_rss(void);

/* Bytes that this process has really read from storage since its start (page-cache hits excluded);
 * 0 where unknown. */
uint64_t os_storage_read_bytes(void);

/* Bytes that nobody can foretell; false when the system has none. */
bool os_random(void *out, size_t bytes) MUST_USE;

/* Overwrites a secret, which the compiler must not leave out. */
void os_forget(void *secret, size_t bytes);

/* What was written to fd and has reached the drive need not stay in the page cache: a wish. */
void os_drop_cache(int fd);

/* Share of a file (of a sample of its pages) that is in the page cache, 0 to 1; negative where that
 * cannot be told. Reads nothing. */
double os_cached_share(const char *path);

/* Room for a file of so many bytes, which it then has: a wish. Writes into it need not change the
 * file's size, so several can be under way at once, and its blocks lie together. */
void os_reserve(int fd, int64_t bytes);

/* A socket that is closed on exec and does not block; where the system can, one whose peer's end is
 * no signal (elsewhere send with MSG_NOSIGNAL). -1: errno says why. */
int os_socket(int family, int type, int protocol);

/* The path of a program: of this one, of process pid. 0 (and "") when unknown or longer than size.
 */
size_t os_program_path(char *out, size_t size);
size_t os_process_path(int pid, char *out, size_t size);

/* When process pid was started, in units of the system's; the same number for as long as it lives;
 * 0: there is none, or it has ended. */
uint64_t os_process_started(int pid);

/* When the file was last changed, in ns. st: a struct stat. */
struct stat;
uint64_t os_changed_ns(const struct stat *st);

/* Opens path (flags of open, without making files) below the folder dir; the kernel refuses what
 * leads out of it: -1 and EXDEV or ELOOP; ENOSYS where it cannot tell. */
int os_open_beneath(int dir, const char *path, int flags);

/* From now on this process and its children change files in these folders (and write to
 * /dev/null) only. False: the system cannot, or would not. */
bool os_can_limit_writes(void);
bool os_limit_writes(const char *const *folders, int n);

/* Sleeps the calling thread until *word no longer holds `expected` (or spuriously); os_wake wakes
 * up to count sleepers. */
void os_wait(uint32_t *word, uint32_t expected);
void os_wake(uint32_t *word, int count);

#endif
