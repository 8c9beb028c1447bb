#!/usr/bin/env bash
# The life of the server: started in the background, found again, reused, restarted when its settings changed, ended and
# really gone; the ports of others are left alone. Isolated HOME; every wait is for an event.
# test: slow
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
[ -x "$program" ] || { echo "SKIP serve: no $program"; exit 0; }
work=$(mktemp -d)
for v in $(compgen -e FLASHCHAT_) $(compgen -e HF_); do unset "$v"; done
unset XDG_CONFIG_HOME XDG_CACHE_HOME
export HOME=$work/home FLASHCHAT_HOME=$PWD FLASHCHAT_WIDTH=78 FLASHCHAT_THREADS=1 FLASHCHAT_CONTEXT_WINDOW=512
mkdir -p "$HOME/tmp" "$work/second"
state=$HOME/.config/flashchat
other=
finish() {
    "$program" serve --stop --force >/dev/null 2>&1
    [ -n "$other" ] && kill "$other" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

fc() { timeout 300 "$program" "$@" 2>&1 </dev/null; }
says() { # name, pattern: in $out
    if grep -qE -- "$2" <<<"$out"; then echo "PASS serve $1"; else
        echo "FAIL serve $1: no \"$2\" in:"
        sed 's/^/     /' <<<"$out" | tail -n 12
    fi
}
check() { # name, command
    local name=$1
    shift
    if "$@"; then echo "PASS serve $name"; else echo "FAIL serve $name (rc ${rc:-}): $out"; fi
}
# A port that was free a moment ago.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
value() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$state/server.pid" "$1"; }
gone() { ! kill -0 "$1" 2>/dev/null || [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)" = Z ]; }
closed() { ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
is() { [ "$1" = "$2" ]; }
isnt() { [ "$1" != "$2" ]; }

port=$(free_port)
export FLASHCHAT_SERVER_PORT=$port
out=$(fc serve --stop)
says "nothing to stop" 'No server is running. To start one'
out=$(fc serve --background)
says "starts in the background" 'ember is served at|End it with: flashchat serve --stop'
pid=$(value pid)
check "server.pid names the port" is "$(value port)" "$port"
health() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    cat <&3
    exec 3>&-
}
check "it answers" grep -q '"status":"ok"' <<<"$(health)"
out=$(fc status)
says "status knows it" "running at http://127.0.0.1:$port \(process $pid\)"
out=$(fc serve --background)
says "the same one is reused" "served already at .*"
check "it is the same process" is "$(value pid)" "$pid"
out=$(FLASHCHAT_TEMPERATURE=0.5 fc status)
says "status tells outdated settings" 'restarts before its next'
out=$(FLASHCHAT_TEMPERATURE=0.5 fc serve --background)
says "other settings restart it" 'it restarts\.'
check "the old process is gone" gone "$pid"
check "a new one runs" isnt "$(value pid)" "$pid"
pid=$(value pid)
fc serve --background --gpu host --vram 6M >/dev/null
out=$(fc status | tr -s ' \n' '  ')
says "status tells what is where" \
    'placed embedding and layers 0-[0-6] on the processor, .* on the card; memory at most [0-9.]+ .iB; card host: at most 6 MiB'
out=$(fc status --json)
says "status tells it as JSON" '"vram_limit": 6291456'
cp -r assets/ember "$HOME/tmp/model" && touch -d '2001-01-01' "$HOME/tmp/model/config.json"
out=$(fc serve --background --model "$HOME/tmp/model")
says "another model restarts it" 'it restarts\.'
out=$(fc serve --background --model "$HOME/tmp/model")
says "and is reused" 'served already'
touch "$HOME/tmp/model/config.json"
out=$(fc serve --background --model "$HOME/tmp/model")
says "a changed model file restarts it" 'it restarts\.'
pid=$(value pid)
kill -9 "$pid"
while ! gone "$pid"; do sleep 0.1; done
out=$(fc status)
says "status sees that it died" 'server +not running'
out=$(fc serve --background)
says "a dead one is replaced" 'is served at|End it with'
pid=$(value pid)

# another home: the server there is not ours
out=$(HOME=$work/second fc status)
says "another home's server is external" "started by somebody else"
out=$(HOME=$work/second fc serve --background)
rc=$?
says "a busy port names the server on it" "used by another flashchat server \(process $pid\)"
says "and offers the next free one" 'add --port [0-9]+'
next=$(grep -oE 'add --port [0-9]+' <<<"$out" | grep -oE '[0-9]+')
out=$(HOME=$work/second fc serve --stop)
says "stop leaves it alone" "To end that one: flashchat serve --stop --external"
check "it still runs" is "$(gone "$pid"; echo $?)" 1
out=$(HOME=$work/second fc serve --background --port "$next")
says "the offered port works" "127.0.0.1:$next"
second=$(HOME=$work/second fc serve --stop)
out=$second
says "the second home's server ends" 'has ended and its port is closed'

out=$(fc serve --stop)
says "stop verifies" "process $pid\) has ended and its port is closed"
check "the process is gone" gone "$pid"
check "the port is closed" closed "$port"
check "server.pid is removed" test ! -e "$state/server.pid"

# a port that is not a flashchat's
python3 -c '
import socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); open(sys.argv[2], "w").close(); time.sleep(1000)' "$port" "$work/listens" &
other=$!
while [ ! -e "$work/listens" ] && kill -0 $other 2>/dev/null; do sleep 0.1; done
out=$(fc serve --background)
says "a port of another program" 'used by another program'
out=$(fc serve --stop --external)
says "which is never ended" 'no flashchat server of yours listens'
check "it lives" kill -0 $other
kill $other
wait $other 2>/dev/null
other=

# failures: the last lines and the log
out=$(fc serve --background --memory 17M)
rc=$?
check "a server that cannot start fails" is $rc 1
says "with its last words" '\| .*(memory|17)'
says "and where its log is" 'its log: .*server.log'
check "and leaves no trace" test ! -e "$state/server.pid"

# two starts at once: one server
fc serve --background >"$work/a" &
a=$!
fc serve --background >"$work/b"
wait $a
out=$(cat "$work/a" "$work/b")
check "two starts at once make one server" is "$(grep -c 'is served already' <<<"$out")" 1
fc serve --stop >/dev/null

# logs where the settings say
FLASHCHAT_SERVER_LOG_PATH=$work/my.log FLASHCHAT_SERVER_HTTP_LOG=on fc serve --background >/dev/null
fc serve --stop >/dev/null
check "SERVER_LOG_PATH" test -s "$work/my.log"
check "SERVER_HTTP_LOG" test -s "$state/logs/http.log"
