# test: no
# What the command-line tests share. Source it from the top of the tree; $top is a scratch directory that goes at the end.
# shellcheck shell=bash disable=SC2034
build=${BUILD:-build}
flashchat=$build/flashchat infer=$build/infer
export FLASHCHAT_HOME=$PWD
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT

needs_program() { # program: SKIPs the whole test without it
    [ -x "$1" ] && return 0
    echo "SKIP $(basename "$0" .sh): no $1"
    exit 0
}

# Runs a command; standard output in $top/out, standard error in $top/err, exit code in $code.
go() {
    "$@" >"$top/out" 2>"$top/err" </dev/null
    code=$?
}

pass() { echo "PASS $1"; }
lose() { # name, why: and what the command said
    echo "FAIL $1: $2"
    sed 's/^/     out: /' "$top/out" | head -n 8
    sed 's/^/     err: /' "$top/err" | head -n 12
}

# The last command ended with this code and one message (at most two lines with its hint), which has every needle
# (extended regular expressions), and wrote nothing else.
refused() { # name, code, needle...
    local name=$1 wanted=$2 needle
    shift 2
    [ "$code" = "$wanted" ] || { lose "$name" "exit code $code, not $wanted" && return; }
    [ ! -s "$top/out" ] || { lose "$name" "something on standard output" && return; }
    grep -qE 'Sanitizer|runtime error|core dumped' "$top/err" && lose "$name" "a sanitizer's report" && return
    [ "$(wc -l <"$top/err")" -le 2 ] || { lose "$name" "more than one message" && return; }
    grep -qE '^(flashchat|infer)( [a-z]+)?: .' "$top/err" || { lose "$name" "no message" && return; }
    for needle; do
        grep -qE -- "$needle" "$top/err" || { lose "$name" "no \"$needle\" in the message" && return; }
    done
    pass "$name"
}

# The last command ended with code 0 and this on standard output (an extended regular expression over all of it).
answered() { # name, expression
    if [ "$code" != 0 ]; then
        lose "$1" "exit code $code"
    elif ! tr '\n' '~' <"$top/out" | grep -qE -- "$2"; then
        lose "$1" "standard output is not \"$2\""
    else
        pass "$1"
    fi
}
