#!/usr/bin/env bash
# `flashchat doctor --report`: one file, with what a report needs and nothing private.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
if [ ! -x "$program" ]; then
    echo "SKIP report: no $program"
    exit 0
fi
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/janedoe" "$tmp/here"
ok() { # name, condition's exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && sed 's/^/     /' "$tmp/out" "$tmp/here/"* 2>/dev/null; fi
}
root=$PWD
cd "$tmp/here" || exit 1
env HOME="$tmp/janedoe" XDG_CONFIG_HOME="$tmp/janedoe/.config" USER=janedoe FLASHCHAT_HOME="$root" "$program" doctor \
    --no-measure --report >"$tmp/out" 2>&1
rc=$?
file=flashchat-report.txt
[ $rc = 0 ] && [ "$(ls)" = $file ] && grep -q "Written: $file" "$tmp/out"
ok "doctor --report writes one file" $?
grep -q "^flashchat  *[0-9]" $file && grep -q "^processor .*usable cores" $file && grep -q "^metal " $file &&
    grep -q "^memory .*MiB" $file && grep -q "^settings .*<path>" $file && grep -q "^model " $file
ok "the report says what machine this is" $?
host=$(uname -n)
! grep -qiE "janedoe|$tmp|/home/|/root|$root" $file && ! grep -qwF "${host%%.*}" $file
ok "no user name, path or host name is in the report" $?
