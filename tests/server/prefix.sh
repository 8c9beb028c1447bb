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

# An answer too: the conversation goes on after a restart, and after a kill once the server had nothing to do for a while.
rm -r "$kept"
turn() { # what was said, in JSON
    curl -s "$U/v1/messages" -d "{\"max_tokens\":160,\"temperature\":0,\"system\":\"$system\",\"messages\":[$said]}"
}
next() { # the answer joins what was said, then a question
    local content
    content=$(sed -E 's/.*"content":(\[[^]]*\]).*/\1/' <<<"$1")
    said="$said,{\"role\":\"assistant\",\"content\":$content},{\"role\":\"user\",\"content\":\"$2\"}"
}
tokens() { sed -E "s/.*\"$2\":([0-9]+).*/\1/" <<<"$1"; }
all() { echo $(($(tokens "$1" input_tokens) + $(cached "$1") + $(tokens "$1" output_tokens))); }
said='{"role":"user","content":"Tell me a long story about a ship and a storm."}'
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
first=$(turn)
ok "the answer is long enough to be kept" more_than "$(tokens "$first" output_tokens)" 80
ok "prefix: the server ends after an answer" stop_server
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
next "$first" 'Tell me a long story about a hare and a fox.'
second=$(turn)
ok "after a restart prompt and answer come from disk" more_than "$(cached "$second")" $(($(all "$first") - 3))
files=$(find "$kept" -name '*.prompt' | sort)
ok "the second answer is long enough too" more_than "$(tokens "$second" output_tokens)" 70
for _ in $(seq 300); do # until the answer of the second turn has replaced the first one's
    [ "$files" != "$(find "$kept" -name '*.prompt' | sort)" ] && break
    sleep 0.1
done
kill -KILL "$server_pid"
wait "$server_pid" 2>/dev/null
start_serve --model assets/ember --log-dir "$work/log" --prompt-cache-dir "$kept"
next "$second" 'And the end?'
ok "and after being killed at rest" more_than "$(cached "$(turn)")" $(($(all "$second") - 3))
ok "prefix: the server ends at last" stop_server
