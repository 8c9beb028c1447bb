#!/usr/bin/env bash
# flashchat opencode in a fresh home, with a stand-in for opencode on PATH that writes down how it was started: the
# server is started and reused, OpenCode's settings are shown, and written only after a Y.
# shellcheck source=tests/cli/lib.sh
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$flashchat"
program=$PWD/$flashchat
export HOME=$top/home XDG_CONFIG_HOME=$top/home/.config XDG_CACHE_HOME=$top/home/.cache
mkdir -p "$HOME" "$top/bin" "$top/project/deep"
# A free port that no outgoing connection will be given.
FLASHCHAT_SERVER_PORT=$(python3 - <<'END'
import os, socket
for i in range(500):
    port = 20000 + (os.getpid() * 7 + i) % 10000
    with socket.socket() as s:
        try:
            s.bind(('127.0.0.1', port))
        except OSError:
            continue
    print(port)
    break
END
)
export FLASHCHAT_SERVER_PORT
unset OPENCODE_CONFIG_CONTENT FLASHCHAT_API_KEY
config=$XDG_CONFIG_HOME/opencode/opencode.json
finish() {
    "$program" serve --stop --force >/dev/null 2>&1 </dev/null
    rm -rf "$top"
}
trap finish EXIT

run() { # input, words...: as a person in the project's deep folder would
    local input=$1
    shift
    rm -f "$top/started"
    (cd "$top/project/deep" && printf '%s' "$input" | PATH="$top/bin:$PATH" "$program" opencode "$@") >"$top/out" 2>"$top/err"
    code=$?
}
check() { # name, command...
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then pass "opencode: $name"; else lose "opencode: $name" "not so: $*"; fi
}
says() { tr '\n' ' ' <"$top/out" | grep -qF -- "$1"; }
# A condition on d, the file, and p, its entry for flashchat.
json() {
    python3 -c 'import json, sys
d = json.load(open(sys.argv[1])); p = d["provider"]["flashchat"]
assert eval(sys.argv[2]), d' "$@"
}

(cd "$top/project" && PATH=/usr/bin:/bin "$program" opencode) >"$top/out" 2>"$top/err" </dev/null
code=$?
if PATH=/usr/bin:/bin command -v opencode >/dev/null; then
    echo "SKIP opencode: not installed says so: it is installed"
else
    check "not installed: exit code 1" [ "$code" = 1 ]
    check "not installed: says how to get it" grep -q 'npm install -g opencode-ai' "$top/err"
    check "not installed: no server was started" [ ! -e "$XDG_CONFIG_HOME/flashchat/server.pid" ]
fi

cat >"$top/bin/opencode" <<END
#!/bin/sh
{ pwd; printf '%s\n' "\$@"; } >"$top/started"
printf '%s' "\$OPENCODE_CONFIG_CONTENT" >"$top/content"
exit 7
END
chmod +x "$top/bin/opencode"

run '' run --model x 'two words'
check "the end of the input is no consent" [ ! -e "$config" ]
check "it is launched all the same, with its exit code" [ "$code" = 7 ]
wanted=$(printf '%s\n' "$top/project/deep" run --model x 'two words')
check "in the caller's folder, with all words" [ "$(cat "$top/started")" = "$wanted" ]
check "the entry was shown" says '"@ai-sdk/openai-compatible"'
check "the entry is passed on for this run" json "$top/content" \
    'd["model"] == "flashchat/ember" and p["models"]["ember"]["limit"]["context"] == 65536'
url=$(grep -oE 'http://127[^"]*' "$top/content")
check "the server that was started answers" curl -sf --noproxy '*' "$url/models"
pid=$(grep -oE '"pid": ?[0-9]+' "$XDG_CONFIG_HOME/flashchat/server.pid")

run x
check "x writes nothing" [ ! -e "$config" ]
run $'\nq'
check "an empty line is no consent" [ ! -e "$config" ]
run Y
check "Y writes the file" json "$config" "p['options']['baseURL'] == '$url'"
check "only the owner can read it" [ "$(stat -c %a "$config")" = 600 ]
check "the same server" grep -q "$pid," "$XDG_CONFIG_HOME/flashchat/server.pid"
before=$(cat "$config")
run ''
check "then nothing is asked" [ "$(wc -l <"$top/out")" = 1 ]
check "and nothing is changed" [ "$(cat "$config")" = "$before" ]

# Somebody's own settings: kept, in their order; the old address is shown as what is wrong.
printf '{"theme": "x", "provider": {"other": {"a": 1},
  "flashchat": {"options": {"baseURL": "http://127.0.0.1:1/v1", "timeout": 5}}}, "z": []}\n' >"$config"
chmod 644 "$config"
run ''
check "another address: asks" says 'another address or model'
check "another address: untouched without consent" grep -q '127.0.0.1:1/v1' "$config"
run y
check "another address: mended, the rest kept in order" json "$config" \
    "list(d)[:2] == ['theme', 'provider'] and 'other' in d['provider'] and p['options']['timeout'] == 5 and '$url' in str(p)"
check "another address: its mode is kept" [ "$(stat -c %a "$config")" = 644 ]

# Comments: understood, never written.
printf '{\n  // mine, with a "brace {"\n  "provider": { /* none */ },\n  "x": [1, 2,],\n}\n' >"$config"
before=$(cat "$config")
run Y
check "a file with comments is not written" [ "$(cat "$config")" = "$before" ]
check "and says so" says 'has comments'
entry='{"provider": {"flashchat": {"options": {"baseURL": "%s"}, "models": {"ember": {}}}}, } // ready\n'
# shellcheck disable=SC2059
printf "$entry" "$url" >"$config"
run ''
check "an entry in a file with comments counts" [ "$(wc -l <"$top/out")" = 1 ]
printf '{"a": \n nonsense}' >"$config"
run Y
check "a broken file is named with its line" grep -q 'opencode.json: line 2' "$top/err"
check "a broken file is left alone" grep -q nonsense "$config"

# The project's own file counts more, and is found from a folder below.
rm "$config"
echo '{"provider": {"flashchat": {"options": {"baseURL": "http://127.0.0.1:2/v1"}, "models": {"ember": {}}}}}' \
    >"$top/project/opencode.json"
run y
check "the project's file is the one that is mended" json "$top/project/opencode.json" "p['options']['baseURL'] == '$url'"
check "the person's file is not made" [ ! -e "$config" ]

"$program" serve --stop >"$top/out" 2>"$top/err" </dev/null
check "the server ends" [ $? = 0 ]
