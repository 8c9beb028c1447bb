#!/usr/bin/env bash
# Reads that fail: a library put in front of the system's pread gives short reads, errors that go away, and a block that
# stays unreadable. Short and passing ones must not change the answer; the dead block ends the program with file and offset.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$infer"
if ! command -v gcc >/dev/null || [ "$(uname -s)" != Linux ] || grep -q __asan_init "$infer"; then
    echo "SKIP disk faults: needs Linux, gcc and a build without sanitizers"
    exit 0
fi
cat >"$top/shim.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* of each thread: no other thread's reads come between a read and its next try, so no read fails three times */
static _Thread_local int calls;
static int is_weights(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, ".safetensors") != NULL;
}
static ssize_t faulty(int fd, void *dst, size_t n, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    const char *mode = getenv("SHIM");
    if (!mode || !is_weights(fd)) return real(fd, dst, n, at);
    int call = calls++;
    if (!strcmp(mode, "short") && n > 8192) return real(fd, dst, n / 2 / 4096 * 4096, at);
    if (!strcmp(mode, "short") && n > 1 && !(fcntl(fd, F_GETFL) & O_DIRECT)) return real(fd, dst, n / 2, at);
    /* experts are read by other threads than the first; the trunk's reads are not tried again */
    if (!strcmp(mode, "passing") && gettid() != getpid() && call % 5 == 4) { errno = EIO; return -1; }
    if (!strcmp(mode, "interrupted") && call % 3 == 1) { errno = EINTR; return -1; }
    long long begin, end;
    if (sscanf(mode, "dead %lld %lld", &begin, &end) == 2 && at < end && at + (off_t)n > begin) { errno = EIO; return -1; }
    return real(fd, dst, n, at);
}
ssize_t pread(int fd, void *dst, size_t n, off_t at) { return faulty(fd, dst, n, at); }
ssize_t pread64(int fd, void *dst, size_t n, off_t at) { return faulty(fd, dst, n, at); }
int io_uring_queue_init(unsigned n, void *ring, unsigned flags) { (void)n; (void)ring; (void)flags; return -ENOSYS; }
int io_uring_queue_init_params(unsigned n, void *ring, void *p) { (void)n; (void)ring; (void)p; return -ENOSYS; }
END
gcc -O1 -shared -fPIC -o "$top/shim.so" "$top/shim.c" -ldl || exit 1
place() { # tensor: "first end" of its bytes in the file
    python3 - "$1" <<'END'
import json, struct, sys
with open("assets/ember/model.safetensors", "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    h = json.loads(f.read(n))
print(*(8 + n + x for x in h[sys.argv[1]]["data_offsets"]))
END
}
run() { # mode, memory
    go env LD_PRELOAD="$top/shim.so" SHIM="$1" "$infer" --model assets/ember --prompt "The capital of France" --tokens 24 \
        --exact ${2:+--memory "$2"}
}
run none
wanted=$(cat "$top/out")
[ -n "$wanted" ] || lose "disk faults" "no answer without faults"
same() {
    if [ "$code" = 0 ] && [ "$(cat "$top/out")" = "$wanted" ]; then
        pass "$1"
    else
        lose "$1" "exit code $code, or another answer"
    fi
}
for memory in "" 50M; do # everything in memory; streamed
    where=${memory:+, streamed}
    run short "$memory"
    same "short reads$where"
    run passing "$memory"
    same "errors that pass$where"
    run interrupted "$memory"
    same "interrupted reads$where"
    run "dead $(place model.layers.5.mlp.switch_mlp.down_proj.weight)" "$memory"
    if [ "$code" = 1 ] && grep -q "layer 5" "$top/err" && grep -q "model.safetensors" "$top/err" &&
        grep -qE "[0-9]{5,}|offset" "$top/err" && grep -qi "input/output error" "$top/err"; then
        pass "dead block in an expert$where"
    else
        lose "dead block in an expert$where" "exit code $code, or no layer, file, offset or reason in the message"
    fi
done
run "dead $(place model.layers.2.linear_attn.out_proj.weight)"
refused "dead block in the trunk" 1 "model.safetensors" "layers.2.linear_attn.out_proj.weight" "[Ii]nput/output error"
