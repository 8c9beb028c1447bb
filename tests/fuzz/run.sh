#!/usr/bin/env bash
# test: no (make fuzz-run calls it)
# Runs every fuzzer in build/fuzz for FUZZ_SECONDS (60), as many at a time as there are processors, each from its corpus
# tests/fuzz/corpus/NAME. Inputs that it finds stay in build/fuzz/found; one that breaks something is kept beside them.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build} seconds=${FUZZ_SECONDS:-60}

one() { # path of a fuzzer
    local name corpus found log
    name=$(basename "$1") corpus=tests/fuzz/corpus/${name#fuzz_}
    found=$BUILD/fuzz/found/$name log=$BUILD/fuzz/$name.log
    mkdir -p "$found"
    [ -d "$corpus" ] || { echo "FAIL $name: no corpus in $corpus" && return; }
    if timeout $((seconds + 120)) "$1" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 \
        -artifact_prefix="$BUILD/fuzz/$name-" -print_final_stats=1 "$found" "$corpus" >"$log" 2>&1 </dev/null; then
        echo "PASS $name: $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs in $seconds s"
    else
        echo "FAIL $name: see $log"
        grep -E 'ERROR|SUMMARY|Test unit written' "$log" | sed 's/^/     /'
    fi
}
if [ "${1:-}" = --one ]; then
    one "$2"
    exit 0
fi

fuzzers=()
for c in tests/fuzz/fuzz_*.c; do [ -f "$c" ] && fuzzers+=("$BUILD/fuzz/$(basename "$c" .c)"); done
if [ ${#fuzzers[@]} = 0 ]; then
    echo "no fuzzer in tests/fuzz"
    echo "0 passed, 0 failed, 0 skipped"
    exit 0
fi
printf '%s\0' "${fuzzers[@]}" | FUZZ_SECONDS=$seconds BUILD=$BUILD \
    xargs -0 -n 1 -P "$(getconf _NPROCESSORS_ONLN)" bash "$0" --one | tee "$BUILD/fuzz/results"
awk -v want=${#fuzzers[@]} '/^PASS / { p++ } /^FAIL / { f++ }
    END { if (p + f < want) f = want - p; printf "%d passed, %d failed, 0 skipped\n", p, f; exit f != 0 }' "$BUILD/fuzz/results"
