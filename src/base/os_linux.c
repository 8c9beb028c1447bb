/* os_linux.c: os.h on Linux. */
#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"

#if __has_include(<linux/openat2.h>) && defined(SYS_openat2)
#include <linux/openat2.h>
#define HAVE_OPENAT2 1
#endif
#if __has_include(<linux/landlock.h>) && defined(SYS_landlock_create_ruleset)
#include <linux/landlock.h>
#define HAVE_LANDLOCK 1
#endif

#define HUGE_PAGE ((size_t)2 << 20)

/* Maps bytes + one huge page and gives the unaligned ends back, so that the first byte starts a
 * huge page. */
static void *map_aligned(size_t bytes) {
    size_t wide = bytes + HUGE_PAGE;
    uint8_t *p = mmap(NULL, wide, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return MAP_FAILED;
    uint8_t *start = (uint8_t *)round_up((size_t)p, HUGE_PAGE);
    size_t head = (size_t)(start - p);
    if (head) munmap(p, head);
    if (HUGE_PAGE - head) munmap(start + bytes, HUGE_PAGE - head);
    madvise(start, bytes, MADV_HUGEPAGE);
    return start;
}

err os_map(size_t bytes, bool huge, void **out) {
    *out = NULL;
    void *p = huge ? map_aligned(bytes)
                   : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_make(ERR_NOMEM, "cannot map %.1f MiB of memory: %s", (double)bytes / 1048576.0,
                        strerror(errno));
    *out = p;
    return err_none();
}

void os_unmap(void *base, size_t bytes) { munmap(base, bytes); }

static err remap(void *base, size_t bytes, int protection) {
    if (!bytes) return err_none();
    void *p = mmap(base, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                   -1, 0);
    if (p != MAP_FAILED) return err_none();
    return err_make(ERR_NOMEM, "cannot map %.1f MiB of memory: %s", (double)bytes / 1048576.0,
                    strerror(errno));
}

err os_discard(void *base, size_t bytes) { return remap(base, bytes, PROT_NONE); }

err os_revive(void *base, size_t bytes) {
    TRY(remap(base, bytes, PROT_READ | PROT_WRITE));
    if (bytes >= HUGE_PAGE) madvise(base, bytes, MADV_HUGEPAGE);
    return err_none();
}

#ifdef __GLIBC__
void os_trim(void) { malloc_trim(0); }
#else
void os_trim(void) {}
#endif

err os_open_read(const char *path, bool direct, int *fd) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (*fd < 0) return err_system(errno, "%s", path);
    return err_none();
}

/* The first number of a small file, or `otherwise` where the file or the number is missing ("max").
 */
static uint64_t number_in(const char *path, uint64_t otherwise) {
    char text[64] = "";
    FILE *f = fopen(path, "re");
    if (!f) return otherwise;
    char *line = fgets(text, sizeof text, f);
    fclose(f);
    char *end = text;
    uint64_t value = line ? strtoull(text, &end, 10) : 0;
    return end == text ? otherwise : value;
}

/* The value of a "Name:   123 kB" line of a /proc file, in bytes; 0 where missing. */
static uint64_t proc_field(const char *path, const char *name, uint64_t unit) {
    char line[256];
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    uint64_t value = 0;
    size_t length = strlen(name);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            value = strtoull(line + length + 1, NULL, 10) * unit;
            break;
        }
    }
    fclose(f);
    return value;
}

void os_memory_get(os_memory *out) {
    uint64_t total = proc_field("/proc/meminfo", "MemTotal", 1024);
    uint64_t available = proc_field("/proc/meminfo", "MemAvailable", 1024);
    uint64_t limit = number_in("/sys/fs/cgroup/memory.max", UINT64_MAX);
    uint64_t used = number_in("/sys/fs/cgroup/memory.current", 0);
    if (limit == UINT64_MAX) {
        limit = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", UINT64_MAX);
        used = number_in("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0);
    }
    if (limit < total) {
        total = limit;
        uint64_t room = used < limit ? limit - used : 0;
        if (room < available) available = room;
    }
    *out = (os_memory){.total = (size_t)total, .available = (size_t)available};
}

int os_cpu_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    char text[64] = "";
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fgets(text, sizeof text, f)) {
            char *end = text;
            double quota = strtod(text, &end);
            double period = end != text ? strtod(end, NULL) : 0;
            if (period > 0 && quota > 0) n = int_min(n, int_max(1, (int)(quota / period + 0.5)));
        }
        fclose(f);
    }
    return int_max(n, 1);
}

void os_cpu_name(char *out, size_t size) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(out, size, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon += strspn(colon, ": \t");
        snprintf(out, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    if (f) fclose(f);
}

bool os_try_page_cache(void) { return false; }

#ifdef __aarch64__
bool os_cpu_has_dotprod(void) { return getauxval(AT_HWCAP) & 1ul << 20; /* HWCAP_ASIMDDP */ }
bool os_cpu_has_i8mm(void) { return getauxval(AT_HWCAP2) & 1ul << 13; /* HWCAP2_I8MM */ }
#else
bool os_cpu_has_dotprod(void) { return false; }
bool os_cpu_has_i8mm(void) { return false; }
#endif

uint64_t os_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

size_t os_peak_rss(void) { return (size_t)proc_field("/proc/self/status", "VmHWM", 1024); }

size_t os_rss(void) { return (size_t)proc_field("/proc/self/status", "VmRSS", 1024); }

uint64_t os_storage_read_bytes(void) { return proc_field("/proc/self/io", "read_bytes", 1); }

bool os_random(void *out, size_t bytes) { return getrandom(out, bytes, 0) == (ssize_t)bytes; }

void os_forget(void *secret, size_t bytes) { explicit_bzero(secret, bytes); }

void os_drop_cache(int fd) { posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

#define CACHED_SAMPLES 16

/* By mincore, which starts no read: after one that must not wait (RWF_NOWAIT) the missing page is
 * read all the same, and the next question finds it. Of a file that is neither ours nor writable
 * mincore says that all is there. */
static bool tells_truth(const char *path, int fd, struct stat *s) {
    if (fstat(fd, s) != 0 || s->st_size <= 0) return false;
    return s->st_uid == geteuid() || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

double os_cached_share(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), cached = 0, i = 0;
    struct stat s;
    if (fd < 0) return -1;
    void *map = MAP_FAILED;
    if (tells_truth(path, fd, &s))
        map = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return -1;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), step = (size_t)s.st_size / CACHED_SAMPLES;
    for (; i < CACHED_SAMPLES; i++) {
        unsigned char there;
        if (mincore((uint8_t *)map + step * (size_t)i / page * page, 1, &there) != 0) break;
        cached += there & 1;
    }
    munmap(map, (size_t)s.st_size);
    return i == CACHED_SAMPLES ? (double)cached / CACHED_SAMPLES : -1;
}

/* Not posix_fallocate, which writes zeroes where the file system cannot reserve. */
void os_reserve(int fd, int64_t bytes) { (void)!fallocate(fd, 0, 0, bytes); }

int os_socket(int family, int type, int protocol) {
    return socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
}

static size_t link_target(const char *link, char *out, size_t size) {
    ssize_t n = size ? readlink(link, out, size) : 0;
    size_t length = n > 0 && (size_t)n < size ? (size_t)n : 0;
    if (size) out[length] = '\0';
    return length;
}

size_t os_program_path(char *out, size_t size) { return link_target("/proc/self/exe", out, size); }

size_t os_process_path(int pid, char *out, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/exe", pid);
    return link_target(link, out, size);
}

/* Field 22 of /proc/PID/stat; the name before it may hold anything but is in parentheses. */
uint64_t os_process_started(int pid) {
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    char *at = strrchr(text, ')');
    if (at && at[1] == ' ' && at[2] == 'Z') return 0; /* it has ended, nobody has asked yet */
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

uint64_t os_changed_ns(const struct stat *st) {
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

void os_wait(uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void os_wake(uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#ifdef HAVE_OPENAT2
int os_open_beneath(int dir, const char *path, int flags) {
    struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}
#else
int os_open_beneath(int dir, const char *path, int flags) {
    (void)dir, (void)path, (void)flags;
    errno = ENOSYS;
    return -1;
}
#endif

#ifdef HAVE_LANDLOCK

/* All that the first version of the interface knows of changing the file system. */
#define CHANGES                                                                                    \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                               \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

static bool allow_writes(int rules, const char *path, unsigned long long access) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    struct landlock_path_beneath_attr a = {.allowed_access = access, .parent_fd = fd};
    bool good =
        fd >= 0 && !syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0);
    if (fd >= 0) close(fd);
    return good;
}

/* 0: the kernel has none. */
static long landlock_version(void) {
    long v = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return v < 0 ? 0 : v;
}

bool os_can_limit_writes(void) { return landlock_version() >= 1; }

/* What later versions added: moving between folders, cutting files short. */
static unsigned long long changes(void) {
    return CHANGES | (landlock_version() >= 2 ? 1u << 13 : 0) |
           (landlock_version() >= 3 ? 1u << 14 : 0);
}

bool os_limit_writes(const char *const *folders, int n) {
    struct landlock_ruleset_attr a = {.handled_access_fs = changes()};
    if (!os_can_limit_writes()) return false;
    int rules = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof a, 0);
    if (rules < 0) return false;
    bool good = allow_writes(rules, "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE);
    for (int i = 0; good && i < n; i++) good = allow_writes(rules, folders[i], changes());
    good = good && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !syscall(SYS_landlock_restrict_self, rules, 0);
    close(rules);
    return good;
}

#else

bool os_can_limit_writes(void) { return false; }

bool os_limit_writes(const char *const *folders, int n) {
    (void)folders, (void)n;
    return false;
}

#endif

#else
typedef int os_linux_is_empty_elsewhere;
#endif
