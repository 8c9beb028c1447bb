# test: no (read by the scripts beside it)
# Starts build/fake-server or flashchat-test serve for a test, with a home of its own, and ends it.
# shellcheck shell=bash disable=SC2034
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
BUILD=${BUILD:-build}
work=$(mktemp -d)
real_home=${HOME:-}
export HOME=$work/home XDG_CONFIG_HOME=$work/home/.config
mkdir -p "$XDG_CONFIG_HOME"
server_pid=
U=

ok() { # name, command...
    local name=$1
    shift
    if "$@" >"$work/last" 2>&1; then
        echo "PASS $name"
    else
        echo "FAIL $name"
        head -c 1500 "$work/last"
    fi
}

wait_port() { # file with the program's words
    for _ in $(seq 300); do
        U=$(sed -nE 's|^port ([0-9]+)$|http://127.0.0.1:\1|p; s|.* at (https?://[^ ]*)/v1.*|\1|p' "$1" | head -n 1)
        [ -n "$U" ] && return 0
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server did not start: $(cat "$1")"
    return 1
}

start_fake() { # options
    [ -x "$BUILD/fake-server" ] || { echo "SKIP server: $BUILD/fake-server is not built"; exit 0; }
    # Its standard input is open as long as this script lives: it ends with us.
    [ -p "$work/stdin" ] || mkfifo "$work/stdin"
    exec 7<>"$work/stdin"
    "$BUILD/fake-server" "$@" <"$work/stdin" >"$work/out" 2>"$work/err" 7>&- &
    server_pid=$!
    wait_port "$work/out" || { echo "FAIL server starts"; exit 1; }
}

start_serve() { # options
    [ -x "$BUILD/flashchat-test" ] || { echo "SKIP server: $BUILD/flashchat-test is not built"; exit 0; }
    FLASHCHAT_HOME=$PWD "$BUILD/flashchat-test" serve --port 0 --prompt-cache-dir "$work/prompts" "$@" \
        >"$work/out" 2>"$work/err" </dev/null &
    server_pid=$!
    wait_port "$work/out" || { echo "FAIL server starts"; cat "$work/err"; exit 1; }
}

stop_server() { # checks that it ends by itself and without complaint (sanitizers report at the end)
    local rc
    kill -TERM "$server_pid" 2>/dev/null
    wait "$server_pid"
    rc=$?
    server_pid=
    [ $rc = 0 ] || { echo "exit code $rc"; cat "$work/err"; return 1; }
    ! grep -E 'Sanitizer|runtime error' "$work/err"
}

finish() {
    [ -n "$server_pid" ] && kill -KILL "$server_pid" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

rss() { awk '/VmRSS/ { print $2 }' "/proc/$server_pid/status"; }
