#!/usr/bin/env bash
# The test runner itself: what it counts as passed, failed and skipped, and that a test cannot vanish.
set -u
cd "$(dirname "$0")/../.." || exit 1
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT

check() { # name, expected last line, expected exit code; the tree is in $top/t
    local out rc
    out=$(cd "$top/t" && BUILD=build bash tests/run.sh "${arguments[@]}" 2>&1)
    rc=$?
    if [ "$(tail -n 1 <<<"$out")" = "$2" ] && [ $rc = "$3" ]; then
        echo "PASS $1"
    else
        echo "FAIL $1: wanted '$2' ($3), got ($rc)" && printf '%s\n' "$out" | tail -n 6 | sed 's/^/     /'
    fi
}
tree() {
    rm -rf "$top/t"
    mkdir -p "$top/t/tests/unit" "$top/t/tests/area" "$top/t/build/tests"
    cp tests/run.sh "$top/t/tests/"
    arguments=()
}
script() { printf '%s\n' "${@:2}" >"$top/t/tests/area/$1.sh"; }
program() { # as cmocka prints
    touch "$top/t/tests/unit/$1.c"
    printf '%s\n' '#!/bin/sh' "cat <<'END'" "${@:2}" END "exit ${code:-0}" >"$top/t/build/tests/$1"
    chmod +x "$top/t/build/tests/$1"
}

tree && check "no tests at all is a failure" "0 passed, 1 failed, 0 skipped" 1
tree && script a 'echo PASS one; echo "SKIP two: because"; echo PASS three'
check "lines of a script" "2 passed, 0 failed, 1 skipped" 0
tree && script a 'echo PASS one; echo FAIL two'
check "a FAIL line fails" "1 passed, 1 failed, 0 skipped" 1
tree && script a 'echo PASS one; exit 3'
check "a script that dies fails" "1 passed, 1 failed, 0 skipped" 1
tree && script a 'echo hello'
check "a script without results fails" "0 passed, 1 failed, 0 skipped" 1
tree && script a 'echo PASS one' && script b '# test: slow' 'echo FAIL two' && script c '# test: no' 'echo FAIL three'
arguments=(--fast)
check "--fast leaves slow scripts out" "1 passed, 0 failed, 0 skipped" 0
tree && program test_a '[==========] Running 3 test(s).' '[ RUN      ] x' '[       OK ] x' 'partial[       OK ] y' \
    '[  SKIPPED ] z' '[==========] 3 test(s) run.' '[  PASSED  ] 2 test(s).' \
    '[  SKIPPED ] 1 test(s), listed below:' '[  SKIPPED ] z'
check "lines of cmocka" "2 passed, 0 failed, 1 skipped" 0
tree && code=1 && program test_a '[==========] Running 2 test(s).' '[  ERROR   ] --- 0x1 != 0x2' '[  FAILED  ] x' \
    '[       OK ] y' \
    '[==========] 2 test(s) run.' '[  FAILED  ] 1 test(s), listed below:' '[  FAILED  ] x' && code=0
check "a failed assertion counts once" "1 passed, 1 failed, 0 skipped" 1
tree && program test_a '[==========] Running 3 test(s).' '[       OK ] x'
check "a program that stops early fails" "1 passed, 1 failed, 0 skipped" 1
tree && touch "$top/t/tests/unit/test_gone.c" && script a 'echo PASS one'
check "a program that was not built fails" "1 passed, 1 failed, 0 skipped" 1
tree && script a 'echo PASS one; sleep 20'
TEST_TIMEOUT=1 check "a script that hangs fails" "1 passed, 1 failed, 0 skipped" 1
tree && script a 'echo PASS one' && script b 'echo FAIL two' && arguments=(area/a)
check "a name picks tests" "1 passed, 0 failed, 0 skipped" 0
