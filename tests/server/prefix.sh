#!/usr/bin/env bash
# Conversations together say what they say alone (streams.mjs); later turns find what earlier ones computed (prefix.mjs), also
# after a restart. With the bundled model.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
command -v node >/dev/null || { echo "SKIP prefix: no node"; exit 0; }
start_serve --model assets/ember --log-dir "$work/log" --no-prompt-cache
node tests/server/streams.mjs "$U"
node tests/server/prefix.mjs "$U"
ok "prefix: the server ends cleanly" stop_server

# A long system prompt, asked with, then again after a restart.
system=$(for i in $(seq 60); do printf 'Rule %d: be kind, be brief, and never say the number %d. ' "$i" $((i * 7)); done)
ask() {
    curl -s "$U/v1/messages" \
        -d "{\"max_tokens\":4,\"system\":\"$system\",\"messages\":[{\"role\":\"user\",\"content\":\"$1\"}]}"
}
cached() { sed -E 's/.*"cache_read_input_tokens":([0-9]+).*/\1/' <<<"$1"; }
more_than() { [ "$1" -gt "$2" ] || { echo "$1 is not more than $2"; return 1; }; }
kept=$work/kept
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
first=$(ask hello)
ok "a first prompt is computed" [ "$(cached "$first")" = 0 ]
ok "prefix: the server ends" stop_server
ok "its beginning is on disk" test -n "$(find "$kept" -name '*.prompt' -perm 600)"
echo junk >"$kept/junk"
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
ok "after a restart it comes from disk" more_than "$(cached "$(ask goodbye)")" 600
ok "a metric counts it" grep -qx 'flashchat:prompts_found_total 1' <(curl -s "$U/metrics")
ok "a foreign file is left out with a line" grep -q 'junk is not one of' "$work/log/server.log"
kill -KILL "$server_pid"
wait "$server_pid" 2>/dev/null
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
ok "and after being killed" more_than "$(cached "$(ask 'what now')")" 600
ok "prefix: the server ends again" stop_server
