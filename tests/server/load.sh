#!/usr/bin/env bash
# test: slow, threads
# 64 connections with mixed endpoints (load.mjs): no error, no memory left behind. 5 s; FULL=1: 30 s, and with the bundled model.
# Times are printed, not judged: a busy machine is no fault of the server.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
command -v node >/dev/null || { echo "SKIP load: no node"; exit 0; }
seconds=5
[ -n "${FULL:-}" ] && seconds=30
flat() { # kB that it may grow
    node tests/server/load.mjs "$U" 2 "$2" >/dev/null # what every thread and cache needs once
    before=$(rss)
    ok "load $3" node tests/server/load.mjs "$U" "$seconds" "$2"
    cat "$work/last"
    after=$(rss)
    echo "memory: $before to $after kB"
    if [ "$after" -lt $((before + $1)) ]; then echo "PASS load $3: memory stays flat"; else echo "FAIL load $3: memory grew"; fi
}
start_fake --queue 512 --step-us 100
# Sanitizers keep what was freed for a while.
room=20000
[ "$BUILD" = build ] || room=400000
flat "$room" 20 fake
ok "load fake: ends cleanly" stop_server
[ -n "${FULL:-}" ] || exit 0
start_serve --model assets/ember --queue 512 --log-dir "$work/log"
flat 30000 8 ember
ok "load ember: ends cleanly" stop_server
