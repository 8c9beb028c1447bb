#!/usr/bin/env bash
# Every kernel on a real card: checked against the scalar definition, looked over by compute-sanitizer, timed.
#
#   make CUDA=yes build/gpu-check          on any machine with nvcc; the program needs nothing but the C library
#   bench/gpu_kernels.sh [LOG_FOLDER]      on the machine with the card, about 3 minutes
#
# BUILD names the build folder. Prints the checks that failed and the table of times last; everything is in the logs.
cd "$(dirname "$0")/.." || exit 1
check=${BUILD:-build}/gpu-check
logs=${1:-${OUT:-/tmp}}
[ -x "$check" ] || { echo "no $check: run make CUDA=yes $check first" >&2; exit 2; }

nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free,clocks.sm,clocks.mem --format=csv,noheader 2>&1
nproc
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        timeout 170 compute-sanitizer --tool $tool --print-limit 10 "$check" cuda >"$logs/$tool.log" 2>&1
        echo "$tool: exit $?; $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$logs/$tool.log" | tail -1)"
    done
fi
"$check" cuda --time >"$logs/gpu-check.log" 2>&1
status=$?
cat "$logs/gpu-check.log"
exit $status
