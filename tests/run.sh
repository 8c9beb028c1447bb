#!/usr/bin/env bash
# Runs tests and counts them.
#
#   tests/run.sh [--fast | --unit | --sanitized | --threads] [NAME ...]
#
# A test is a program build/tests/test_* (cmocka) or a script tests/AREA/*.sh. --fast leaves out scripts with a line
# "# test: slow" near the top and sets FM_TEST_FAST=1 for the others; --unit runs the programs only; --sanitized those and
# the scripts with "sanitized" in a line "# test: ...", --threads those with "threads". NAME picks tests by a part of their
# name. BUILD names the build folder, RUNNER what runs a program (an emulator), TEST_TIMEOUT the seconds that one test may take.
#
# What is counted: the result lines of cmocka, and the lines "PASS name", "FAIL name", "SKIP name: reason". A test that
# dies, returns non-zero without a FAIL, announces more than it reports, or reports nothing at all is a failure. The
# output of each test is kept in $BUILD/test-logs. Programs run side by side, scripts one after the other. The last line
# is "N passed, N failed, N skipped"; the exit code is 1 if anything failed.
set -u
shopt -s nullglob
cd "$(dirname "$0")/.." || exit 1
export BUILD=${BUILD:-build} FLASHCHAT_YES=1
logs=$BUILD/test-logs

# Prints "passed failed skipped" of one log, then a line "FAIL name" or "SKIP name: reason" for each that did not pass.
count() { # log, exit code
    awk -v rc="$2" '
        /\[==========\] Running [0-9]+ test/ {
            running = n = 1; match($0, /Running [0-9]+/); want += substr($0, RSTART + 8, RLENGTH - 8) }
        /\[==========\] [0-9]+ test\(s\) run/ { running = 0 }
        running && /\[       OK \] / { pass++; got++ }
        running && /\[  SKIPPED \] / { skip++; got++; sub(/.*\[  SKIPPED \] /, ""); text = text "SKIP " $0 "\n" }
        running && /\[  (FAILED |ERROR  ) \] / && !/\] ---/ {
            fail++; got++; sub(/.*\[  (FAILED |ERROR  ) \] /, ""); text = text "FAIL " $0 "\n" }
        /^PASS / { pass++; n = 1 }
        /^FAIL / { fail++; n = 1; text = text $0 "\n" }
        /^SKIP / { skip++; n = 1; text = text $0 "\n" }
        END {
            if (got < want) { fail++; text = text "FAIL stopped after " got + 0 " of " want " tests\n" }
            else if (rc == 124) { fail++; text = text "FAIL ran out of time\n" }
            else if (rc != 0 && !fail) { fail++; text = text "FAIL exit code " rc "\n" }
            else if (!n) { fail++; text = text "FAIL reported no result\n" }
            printf "%d %d %d\n%s", pass, fail, skip, text
        }' "$1"
}

run_one() { # program or script
    case $1 in
    *.sh) name=${1#tests/} name=${name%.sh} command=(bash "$1") ;;
    *)
        name=$(basename "$1")
        read -r -a command <<<"${RUNNER:-} $1"
        ;;
    esac
    log=$logs/${name//\//-}.log
    begin=$(date +%s%N)
    timeout -k 10 "${TEST_TIMEOUT:-900}" "${command[@]}" >"$log" 2>&1 </dev/null
    rc=$?
    ms=$((($(date +%s%N) - begin) / 1000000))
    count "$log" $rc >"$log.count"
    read -r pass fail skip <"$log.count"
    word=ok
    [ "$fail" = 0 ] || word=FAILED
    printf '%-6s %-34s %4d passed%s%s  %d.%d s\n' $word "$name" "$pass" "$([ "$fail" = 0 ] || echo ", $fail failed")" \
        "$([ "$skip" = 0 ] || echo ", $skip skipped")" $((ms / 1000)) $((ms % 1000 / 100))
    sed -n '2,$s/^/         /p' "$log.count"
    if [ "$fail" != 0 ]; then
        grep -vE '^\[ +(OK|RUN) +\]|^PASS ' "$log" | tail -n 25 | sed 's/^/         | /'
        echo "         | whole output: $log"
    fi
}

if [ "${1:-}" = --one ]; then
    run_one "$2"
    exit 0
fi

mode=all
case ${1:-} in --fast | --unit | --sanitized | --threads) mode=${1#--} && shift ;; esac
case $mode in fast | sanitized | threads) export FM_TEST_FAST=1 ;; esac
wanted() {
    [ $# = 1 ] && return 0
    local name=$1 part
    shift
    for part; do case $name in *"$part"*) return 0 ;; esac done
    return 1
}

rm -rf "$logs" && mkdir -p "$logs" || exit 1
programs=() scripts=()
for t in tests/unit/test_*.c; do
    p=$BUILD/tests/$(basename "$t" .c)
    wanted "$p" "$@" && programs+=("$p")
done
if [ "$mode" != unit ]; then
    for s in tests/*/*.sh; do
        [ "$mode" = fast ] && head -n 20 "$s" | grep -q '^# test: slow' && continue
        head -n 20 "$s" | grep -q '^# test: no' && continue
        case $mode in sanitized | threads) head -n 20 "$s" | grep -q "^# test:.*$mode" || continue ;; esac
        wanted "$s" "$@" && scripts+=("$s")
    done
fi

export -f run_one count
export logs RUNNER
if [ ${#programs[@]} != 0 ]; then
    printf '%s\0' "${programs[@]}" | xargs -0 -n 1 -P "$(getconf _NPROCESSORS_ONLN)" bash "$0" --one
fi
for s in "${scripts[@]}"; do run_one "$s"; done

cat "$logs"/*.count 2>/dev/null | awk -v want=$((${#programs[@]} + ${#scripts[@]})) '
    /^[0-9]+ [0-9]+ [0-9]+$/ { p += $1; f += $2; s += $3; n++ }
    END {
        if (n < want) { f += want - n; print want - n " tests left no result" }
        if (!want) { f++; print "no test was found" }
        printf "%d passed, %d failed, %d skipped\n", p, f, s
        exit f != 0
    }'
