#!/usr/bin/env bash
# Whether macOS has what the program asks for, as far as Linux can tell: every function that the objects need and that no
# object of ours has (what macOS builds: all but base/os_linux.c and io/io_uring.c) is in tests/metal/macos_symbols or
# belongs to a library; every system header is one that macOS has; no Linux-only name is left in a source; os_macos.c
# compiles against declarations written for it.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

ok() { # name, condition's exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && sed 's/^/     /' "$tmp/out"; fi
}

# Symbols.
objects=$(find "$BUILD/obj/src" "$BUILD/obj/apps" -name '*.o' ! -path '*/test-build/*' ! -name os_linux.o ! -name io_uring.o \
    ! -name 'cpu_avx*' ! -name metal_none.o 2>/dev/null)
libraries='^(json_|curl_|MHD_|ZSTD_|XXH|pcre2_|utf8proc_|EVP_|SSL_|BIO_|ERR_|X509_|el_|history|readline|md_)'
apart='^(os_|cpu_table_avx|cpu_.*_avx|gpu_backend_metal$|io_uring_ops$|__cpu_|_GLOBAL_OFFSET_TABLE_$)' # other files, x86
# shellcheck disable=SC2086 # a list of files
foreign() { # objects: what they need and neither have nor may have
    nm -u $1 2>/dev/null | awk '$1 == "U" { print $2 }' | sort -u >"$tmp/wanted"
    nm --defined-only -g $objects 2>/dev/null | awk 'NF == 3 { print $3 }' | sort -u >"$tmp/ours"
    grep -v '^#' tests/metal/macos_symbols | tr ' ' '\n' | sed '/^$/d' | sort -u >"$tmp/macos"
    sort -u "$tmp/ours" "$tmp/macos" | comm -23 "$tmp/wanted" - | grep -vE "$libraries|$apart"
}
name="macOS has every function that its objects need"
if [ -z "$objects" ]; then
    echo "SKIP $name: no objects in $BUILD/obj"
elif nm $objects 2>/dev/null | grep -qE '__asan_|__tsan_|__ubsan_'; then
    echo "SKIP $name: built with a sanitizer"
else
    foreign "$objects" >"$tmp/out"
    [ ! -s "$tmp/out" ]
    ok "$name" $?
    foreign "$BUILD/obj/src/base/os_linux.o" >"$tmp/out"
    grep -q '^syscall$' "$tmp/out" && grep -q '^getrandom$' "$tmp/out"
    ok "the check sees what only Linux has, in os_linux.o" $?
fi

# Headers, and names that only Linux has, in what macOS compiles.
sources=$(find src apps include tools/synth-model examples -name '*.[ch]' ! -name os_linux.c ! -name io_uring.c)
known='arm_neon|arpa/inet|assert|cpuid|ctype|cuda_fp16|curl/curl|dirent|dlfcn|errno|fcntl|float|ftw|immintrin|jansson|'
known+='libproc|limits|mach/mach|malloc/malloc|math|metal_stdlib|microhttpd|netdb|netinet/in|openssl/evp|pcre2|poll|'
known+='pthread|pwd|sanitizer/\w+|signal|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|'
known+='sys/(file|ioctl|mman|proc|random|resource|select|socket|stat|statvfs|sysctl|types|utsname|wait)|termios|time|'
known+='ucontext|unistd|utf8proc|xxhash|zstd'
known+='|complex|editline/\w+|fenv|fnmatch|getopt|glob|grp|histedit|iconv|ifaddrs|inttypes|langinfo|libgen|locale'
known+="|md4c|net/if|netinet/tcp|paths|readline/\w+|regex|setjmp|spawn|sys/(param|mount|time|times|uio|un)"
known+="|syslog|util|wchar|wctype"
linux='SOCK_CLOEXEC|SOCK_NONBLOCK|MSG_NOSIGNAL|accept4|pipe2|O_TMPFILE|O_PATH|MADV_HUGEPAGE|MAP_POPULATE|'
linux+='POSIX_FADV_\w+|/proc/self|st_mtim\b|strchrnul|memrchr|explicit_bzero|getrandom|secure_getenv|'
linux+='program_invocation\w*|posix_fallocate|pthread_setname_np|prctl|sched_\w+affinity|epoll\w*|eventfd|timerfd\w*|'
linux+='inotify\w*|CLOCK_BOOTTIME|qsort_r|malloc_trim|RUSAGE_THREAD'
# shellcheck disable=SC2086
{
    grep -hoE '^\s*#\s*include\s*<[^>]+>' $sources | sed -E 's/.*<(.*)>/\1/; s/\.h$//' | sort -u | grep -vxE "($known)" |
        sed 's/^/header: /'
    grep -nE "\b($linux)" $sources | grep -vE '(ifndef|define|with) MSG_NOSIGNAL|MSG_NOSIGNAL\) ==|^src/base/os_macos.c'
} >"$tmp/out"
[ ! -s "$tmp/out" ]
ok "headers and names that macOS has" $?

# os_macos.c with Linux headers and the declarations that only macOS has. A word that is misspelt, a wrong number of
# arguments, a missing include of ours shows; what Apple's headers really say does not.
name="os_macos.c compiles against the declarations that its documentation names"
mkdir -p "$tmp/mach" "$tmp/malloc" "$tmp/sys"
cat >"$tmp/libproc.h" <<'END'
#include <stdint.h>
#define PROC_PIDPATHINFO_MAXSIZE 4096
#define PROC_PIDTBSDINFO 3
#define RUSAGE_INFO_V2 2
typedef void *rusage_info_t;
struct rusage_info_v2 { uint64_t ri_diskio_bytesread; };
struct proc_bsdinfo { uint32_t pbi_status; uint64_t pbi_start_tvsec, pbi_start_tvusec; };
int proc_pidpath(int pid, void *buffer, uint32_t buffersize);
int proc_pidinfo(int pid, int flavor, uint64_t arg, void *buffer, int buffersize);
int proc_pid_rusage(int pid, int flavor, rusage_info_t *buffer);
END
cat >"$tmp/mach/mach.h" <<'END'
#include <stdint.h>
typedef int kern_return_t; typedef unsigned mach_port_t, mach_msg_type_number_t, natural_t; typedef int integer_t;
typedef integer_t *host_info64_t, *task_info_t;
typedef struct vm_statistics64 { natural_t free_count, active_count, inactive_count, purgeable_count, speculative_count; }
    vm_statistics64_data_t;
typedef struct mach_task_basic_info { uint64_t virtual_size, resident_size, resident_size_max; } mach_task_basic_info_data_t;
#define HOST_VM_INFO64 4
#define HOST_VM_INFO64_COUNT ((mach_msg_type_number_t)(sizeof(vm_statistics64_data_t) / sizeof(integer_t)))
#define MACH_TASK_BASIC_INFO 20
#define MACH_TASK_BASIC_INFO_COUNT ((mach_msg_type_number_t)(sizeof(mach_task_basic_info_data_t) / sizeof(natural_t)))
#define KERN_SUCCESS 0
mach_port_t mach_host_self(void);
mach_port_t mach_task_self(void);
kern_return_t host_statistics64(mach_port_t h, int flavor, host_info64_t out, mach_msg_type_number_t *n);
kern_return_t task_info(mach_port_t t, int flavor, task_info_t out, mach_msg_type_number_t *n);
kern_return_t mach_port_deallocate(mach_port_t task, mach_port_t name);
END
cat >"$tmp/malloc/malloc.h" <<'END'
#include <stddef.h>
size_t malloc_zone_pressure_relief(void *zone, size_t goal);
END
cat >"$tmp/sys/sysctl.h" <<'END'
#include <stddef.h>
int sysctlbyname(const char *name, void *old, size_t *oldlen, void *new, size_t newlen);
END
echo '#define SZOMB 5' >"$tmp/sys/proc.h"
cat >"$tmp/more.h" <<'END'
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#define F_NOCACHE 48
#define F_PREALLOCATE 42
#define F_ALLOCATEALL 4
#define F_PEOFPOSMODE 3
#include <sys/types.h>
typedef struct fstore { unsigned fst_flags; int fst_posmode; off_t fst_offset, fst_length, fst_bytesalloc; } fstore_t;
#define F_RDAHEAD 45
#define SO_NOSIGPIPE 0x1022
#define CLOCK_UPTIME_RAW 8
#define st_mtimespec st_mtim
uint64_t clock_gettime_nsec_np(clockid_t clock);
int memset_s(void *s, size_t smax, int c, size_t n);
END
if ! command -v clang >/dev/null; then
    echo "SKIP $name: no clang"
else
    clang -std=gnu17 -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror -D_GNU_SOURCE -D__APPLE__ -include "$tmp/more.h" -I"$tmp" \
        -Isrc -fsyntax-only src/base/os_macos.c >"$tmp/out" 2>&1
    ok "$name" $?
    sed 's/^os_[a-z_]*(/&/' src/base/os.h | grep -oE '\bos_[a-z_]+\(' | sort -u >"$tmp/face"
    grep -oE '^[a-z].*\bos_[a-z_]+\(' src/base/os_macos.c | grep -oE '\bos_[a-z_]+\(' | sort -u >"$tmp/have"
    comm -23 "$tmp/face" "$tmp/have" >"$tmp/out"
    [ ! -s "$tmp/out" ]
    ok "os_macos.c has everything that os.h promises" $?
fi
