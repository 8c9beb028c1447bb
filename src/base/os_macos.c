/* os_macos.c: os.h on macOS. Written from Apple's documentation and manual pages; compiled on no
 * Mac yet (docs/MACOS.md). tests/metal/portable.sh compiles it against declarations of its own. */
#ifdef __APPLE__
#define __STDC_WANT_LIB_EXT1__ 1 /* memset_s */
#include <errno.h>
#include <fcntl.h>
#include <libproc.h>
#include <mach/mach.h>
#include <malloc/malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/proc.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"

#define HUGE_PAGE ((size_t)2 << 20)

/* What os_wait sleeps with: in libSystem since macOS 10.12, documented by no header before 14.4's
 * os/os_sync_wait_on_address.h, and used by the C++ library's std::atomic::wait. */
extern int __ulock_wait(uint32_t operation, void *address, uint64_t value, uint32_t microseconds);
extern int __ulock_wake(uint32_t operation, void *address, uint64_t value);
#define UL_COMPARE_AND_WAIT 1u
#define ULF_WAKE_ALL        0x100u
#define ULF_NO_ERRNO        0x1000000u

/* There are no large pages to ask for on Apple Silicon (pages have 16 KiB); the alignment stays, so
 * that a region can be cut into GPU buffers anywhere. */
static void *map_aligned(size_t bytes) {
    size_t wide = bytes + HUGE_PAGE;
    uint8_t *p = mmap(NULL, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (p == MAP_FAILED) return MAP_FAILED;
    size_t page = (size_t)getpagesize();
    uint8_t *start = (uint8_t *)round_up((size_t)p, HUGE_PAGE);
    uint8_t *end = start + round_up(bytes, page);
    if (start > p) munmap(p, (size_t)(start - p));
    if (p + wide > end) munmap(end, (size_t)(p + wide - end));
    return start;
}

err os_map(size_t bytes, bool huge, void **out) {
    *out = NULL;
    void *p = huge ? map_aligned(bytes)
                   : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (p == MAP_FAILED)
        return err_make(ERR_NOMEM, "cannot map %.1f MiB of memory: %s", (double)bytes / 1048576.0,
                        strerror(errno));
    *out = p;
    return err_none();
}

void os_unmap(void *base, size_t bytes) { munmap(base, bytes); }

static err remap(void *base, size_t bytes, int protection) {
    if (!bytes) return err_none();
    void *p = mmap(base, bytes, protection, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
    if (p != MAP_FAILED) return err_none();
    return err_make(ERR_NOMEM, "cannot map %.1f MiB of memory: %s", (double)bytes / 1048576.0,
                    strerror(errno));
}

err os_discard(void *base, size_t bytes) { return remap(base, bytes, PROT_NONE); }
err os_revive(void *base, size_t bytes) { return remap(base, bytes, PROT_READ | PROT_WRITE); }

void os_trim(void) { malloc_zone_pressure_relief(NULL, 0); }

/* F_NOCACHE: reads go past the unified buffer cache, where pages that are in it already are still
 * used. F_RDAHEAD off: the program knows better what comes next. */
err os_open_read(const char *path, bool direct, int *fd) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return err_system(errno, "%s", path);
    if (!direct) return err_none();
    if (fcntl(*fd, F_NOCACHE, 1) == 0 && fcntl(*fd, F_RDAHEAD, 0) == 0) return err_none();
    err e = err_system(errno, "%s: F_NOCACHE", path);
    close(*fd);
    *fd = -1;
    return e;
}

static uint64_t sysctl_number(const char *name, uint64_t otherwise) {
    uint64_t value = 0;
    size_t bytes = sizeof value;
    if (sysctlbyname(name, &value, &bytes, NULL, 0) != 0) return otherwise;
    if (bytes == sizeof(uint32_t)) {
        uint32_t narrow;
        memcpy(&narrow, &value, sizeof narrow);
        return narrow;
    }
    return bytes == sizeof value ? value : otherwise;
}

/* Free, and what the system takes back without writing: inactive pages of files, purgeable and
 * speculative ones. */
void os_memory_get(os_memory *out) {
    size_t total = (size_t)sysctl_number("hw.memsize", 0), available = total / 2;
    vm_statistics64_data_t s;
    mach_msg_type_number_t n = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    if (host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&s, &n) == KERN_SUCCESS) {
        uint64_t pages = (uint64_t)s.free_count + s.inactive_count + s.purgeable_count;
        available = (size_t)pages * (size_t)getpagesize();
    }
    mach_port_deallocate(mach_task_self(), host);
    *out = (os_memory){.total = total, .available = size_min(available, total)};
}

/* Performance cores: the efficiency cores of Apple Silicon would make the others wait at the end
 * of every matrix. */
int os_cpu_count(void) {
    uint64_t all = sysctl_number("hw.logicalcpu", 1);
    uint64_t fast = sysctl_number("hw.perflevel0.logicalcpu", all);
    return int_max(1, (int)(fast ? fast : all));
}

void os_cpu_name(char *out, size_t size) {
    size_t bytes = size;
    if (sysctlbyname("machdep.cpu.brand_string", out, &bytes, NULL, 0) != 0)
        snprintf(out, size, "unknown");
}

bool os_try_page_cache(void) { return true; }

#ifdef __aarch64__
bool os_cpu_has_dotprod(void) { return sysctl_number("hw.optional.arm.FEAT_DotProd", 1) != 0; }
bool os_cpu_has_i8mm(void) { return sysctl_number("hw.optional.arm.FEAT_I8MM", 0) != 0; }
#else
bool os_cpu_has_dotprod(void) { return false; }
bool os_cpu_has_i8mm(void) { return false; }
#endif

uint64_t os_now_ns(void) { return clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }

size_t os_peak_rss(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (size_t)u.ru_maxrss : 0; /* bytes, unlike Linux */
}

size_t os_rss(void) {
    mach_task_basic_info_data_t info;
    mach_msg_type_number_t n = MACH_TASK_BASIC_INFO_COUNT;
    kern_return_t r =
        task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)(void *)&info, &n);
    return r == KERN_SUCCESS ? (size_t)info.resident_size : 0;
}

uint64_t os_storage_read_bytes(void) {
    struct rusage_info_v2 u;
    int r = proc_pid_rusage(getpid(), RUSAGE_INFO_V2, (rusage_info_t *)(void *)&u);
    return r == 0 ? u.ri_diskio_bytesread : 0;
}

bool os_random(void *out, size_t bytes) { return bytes <= 256 && getentropy(out, bytes) == 0; }

void os_forget(void *secret, size_t bytes) { memset_s(secret, bytes, 0, bytes); }

void os_drop_cache(int fd) { (void)fcntl(fd, F_NOCACHE, 1); }

double os_cached_share(const char *path) {
    (void)path;
    return -1; /* mincore tells of mapped files only, and nothing has been tried on a Mac */
}

void os_reserve(int fd, int64_t bytes) {
    struct stat s;
    if (fstat(fd, &s) != 0 || s.st_size >= bytes) return; /* ftruncate would shorten it */
    fstore_t wish = {
        .fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE, .fst_length = bytes - s.st_size};
    if (fcntl(fd, F_PREALLOCATE, &wish) == 0) (void)!ftruncate(fd, bytes);
}

int os_socket(int family, int type, int protocol) {
    int s = socket(family, type, protocol), on = 1;
    if (s < 0) return s;
    bool good = fcntl(s, F_SETFD, FD_CLOEXEC) == 0 && fcntl(s, F_SETFL, O_NONBLOCK) == 0 &&
                setsockopt(s, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) == 0;
    if (good) return s;
    int why = errno;
    close(s);
    errno = why;
    return -1;
}

size_t os_process_path(int pid, char *out, size_t size) {
    char path[PROC_PIDPATHINFO_MAXSIZE];
    int n = proc_pidpath(pid, path, sizeof path);
    size_t length = n > 0 && (size_t)n < size ? (size_t)n : 0;
    memcpy(out, path, length);
    if (size) out[length] = '\0';
    return length;
}

size_t os_program_path(char *out, size_t size) { return os_process_path(getpid(), out, size); }

uint64_t os_process_started(int pid) {
    struct proc_bsdinfo info;
    int n = proc_pidinfo(pid, PROC_PIDTBSDINFO, 0, &info, sizeof info);
    if (n != (int)sizeof info || info.pbi_status == SZOMB) return 0;
    return info.pbi_start_tvsec * 1000000u + info.pbi_start_tvusec;
}

uint64_t os_changed_ns(const struct stat *st) {
    return (uint64_t)st->st_mtimespec.tv_sec * 1000000000u + (uint64_t)st->st_mtimespec.tv_nsec;
}

/* macOS has no call that says so; the caller walks folder by folder. */
int os_open_beneath(int dir, const char *path, int flags) {
    (void)dir, (void)path, (void)flags;
    errno = ENOSYS;
    return -1;
}

bool os_can_limit_writes(void) { return false; }

bool os_limit_writes(const char *const *folders, int n) {
    (void)folders, (void)n;
    return false;
}

void os_wait(uint32_t *word, uint32_t expected) {
    __ulock_wait(UL_COMPARE_AND_WAIT | ULF_NO_ERRNO, word, expected, 0);
}

/* The call wakes one or all. One too many is allowed (os.h: spuriously). */
void os_wake(uint32_t *word, int count) {
    uint32_t all = count == 1 ? 0 : ULF_WAKE_ALL;
    __ulock_wake(UL_COMPARE_AND_WAIT | ULF_NO_ERRNO | all, word, 0);
}

#else
typedef int os_macos_is_empty_elsewhere;
#endif
