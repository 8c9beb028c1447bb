#!/usr/bin/env bash
# Downloads from a local hub (server.mjs) that behaves and misbehaves: the result is byte-identical in the cache layout,
# or a clear error, and never a half file under its final name.
#
#   tests/hub/hub.sh [NAME ...]     all cases, or those named
# test: slow
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
[ -n "${TEST_PROGRAM:-}" ] && program=$TEST_PROGRAM
command -v node >/dev/null || { echo "SKIP hub: no node"; exit 0; }
[ -x "$program" ] || { echo "FAIL hub: no $program"; exit 1; }
export FLASHCHAT_HOME=$PWD
real_home=${HOME:-/}
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
unset HF_TOKEN HF_HOME HF_HUB_CACHE HF_TOKEN_PATH XDG_CACHE_HOME XDG_CONFIG_HOME HUGGINGFACE_HUB_CACHE

# The model: Ember in two shards' worth of files plus one that must not be fetched.
repo=$work/repos/org/tiny
mkdir -p "$repo" "$work/state"
cp assets/ember/*.json assets/ember/*.jinja assets/ember/README.md "$repo"
cp assets/ember/model.safetensors "$repo"
echo not needed >"$repo/pytorch_model.bin"
rest_files=$(cd "$repo" && printf '%s\n' *.json *.jinja *.md *.safetensors)
: >"$work/state/log"
node tests/hub/server.mjs "$work/repos" "$work/state" &
server=$!
for _ in $(seq 100); do [ -f "$work/state/port" ] && break; sleep 0.1; done
[ -f "$work/state/port" ] || { echo "FAIL hub: the server did not start"; exit 1; }
HF_ENDPOINT=http://127.0.0.1:$(cat "$work/state/port")
export HF_ENDPOINT

mode() { printf '%s' "$1" >"$work/state/mode"; : >"$work/state/log"; }
fresh() { # a new HOME for each case
    export HOME=$work/home.$1
    mkdir -p "$HOME"
    cache=$HOME/.cache/huggingface/hub/models--org--tiny
    snapshot=$cache/snapshots/0123456789abcdef0123456789abcdef01234567
}
get() { timeout 300 "$program" download org/tiny --yes "$@" >"$work/out" 2>"$work/err" </dev/null; }
failure() {
    echo "FAIL $case_name: $*"
    sed 's/^/     out: /' "$work/out" | tail -n 5
    sed 's/^/     err: /' "$work/err" | tail -n 5
    bad=1
}
# Every file is there, byte-identical, behind relative links; no beginning is left.
identical() {
    for f in $rest_files; do
        cmp -s "$repo/$f" "$snapshot/$f" || { failure "$f differs"; return; }
        case $(readlink "$snapshot/$f") in ../../blobs/*) ;; *) failure "$f is not a relative link"; return ;; esac
    done
    [ ! -e "$snapshot/pytorch_model.bin" ] || failure "an unneeded file was fetched"
    [ "$(cat "$cache/refs/main")" = 0123456789abcdef0123456789abcdef01234567 ] || failure "refs/main is wrong"
    [ -z "$(find "$cache" -name '*.incomplete' -o -name '*.range-*')" ] || failure "a beginning is left behind"
}
# Whatever happened, a blob under its final name has the hash that it is named by.
sound() {
    while read -r blob; do
        name=$(basename "$blob")
        if [ ${#name} = 64 ]; then now=$(sha256sum <"$blob" | cut -d' ' -f1); else now=$(git hash-object "$blob"); fi
        [ "$now" = "$name" ] || failure "blob $name has the hash $now"
    done < <(find "$cache/blobs" -type f ! -name '*.incomplete' ! -name '*.range-*' 2>/dev/null)
    if grep -q LEAK "$work/state/log"; then failure "the token went to another host"; fi
}
says() { grep -qiE -- "$1" "$work/out" "$work/err" || failure "does not say: $1"; }
refused() { [ "$rc" = "${1:-1}" ] || failure "exit code $rc, not ${1:-1}"; }

case_plain() {
    mode '{}'
    get; rc=$?
    refused 0
    identical
    says 'size .*in 8 files'
    mode '{}'
    get; rc=$? # once more: nothing is fetched again
    refused 0
    if grep -q resolve "$work/state/log"; then failure "fetched again"; fi
}
case_consent() { # the end of the input and x are no
    mode '{}'
    "$program" download org/tiny </dev/null >"$work/out" 2>"$work/err"; rc=$?
    refused 1
    says 'User cancelled'
    echo x | "$program" download org/tiny >"$work/out" 2>"$work/err"; rc=$?
    refused 1
    if grep -q resolve "$work/state/log"; then failure "something was fetched without consent"; fi
    says 'Run it again when you are ready'
    echo Y | "$program" download org/tiny >"$work/out" 2>"$work/err"; rc=$?
    refused 0
    identical
}
case_cut() { # connections that break again and again: each try goes on where the last one ended
    mode '{"cut": 3000000, "cut_times": 6}'
    get --connections 1; rc=$?
    refused 0
    identical
    grep -q 'bytes=3000000-' "$work/state/log" || failure "did not go on by Range"
}
case_killed() { # the program itself is killed in the middle; the next run goes on
    mode '{"slow": 8000000}'
    "$program" download org/tiny --yes >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    for _ in $(seq 100); do
        size=$(find "$cache" -name '*.incomplete' -size +1000k 2>/dev/null | head -n 1)
        [ -n "$size" ] && break
        sleep 0.05
    done
    kill -9 $pid
    wait $pid 2>/dev/null
    [ -n "$size" ] || failure "no beginning was written"
    sound
    mode '{}'
    get; rc=$?
    refused 0
    identical
    grep -qE 'cdn .* bytes=[0-9]{7,}-' "$work/state/log" || failure "began anew"
}
case_interrupt() { # Ctrl-C: kept, told how to go on
    mode '{"slow": 8000000}'
    # A background process of a script ignores SIGINT, so a terminating signal stands for it.
    "$program" download org/tiny --yes >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    for _ in $(seq 100); do
        [ -n "$(find "$cache" -name '*.incomplete' -size +100k 2>/dev/null)" ] && break
        sleep 0.05
    done
    kill -TERM $pid
    wait $pid; rc=$?
    refused 130
    says 'go on with: flashchat download org/tiny'
    mode '{}'
    get; rc=$?
    refused 0
    identical
}
pieces() { grep -cE 'cdn .* bytes=[0-9]+-[0-9]+$' "$work/state/log"; }
case_pieces() { # connections without a file of their own fetch pieces of the large one
    mode '{"slow": 6000000}'
    get --connections 4; rc=$?
    refused 0
    identical
    [ "$(pieces)" -ge 2 ] || failure "one connection fetched it all"
}
case_pieces_cut() {
    mode '{"slow": 12000000, "cut": 1500000, "cut_times": 9}'
    get --connections 4; rc=$?
    refused 0
    identical
}
case_pieces_killed() { # killed with pieces under way: both kinds of files are gone on with
    mode '{"slow": 3000000}'
    "$program" download org/tiny --yes --connections 4 >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    for _ in $(seq 600); do
        [ -n "$(find "$cache" -name '*.range-*' -size +300k 2>/dev/null)" ] && break
        sleep 0.05
    done
    kill -9 $pid
    wait $pid 2>/dev/null
    here=$(find "$cache" -name '*.range-*' -size +300k | wc -l)
    [ "$here" -ge 1 ] || failure "no piece was written"
    sound
    mode '{}'
    get --connections 4; rc=$?
    refused 0
    says 'are here already'
    identical
}
case_pieces_no_range() { # a hub that sends whole files only
    mode '{"slow": 6000000, "no_range": true}'
    get --connections 4; rc=$?
    refused 0
    identical
}
case_pieces_of_other_bytes() { # the hash of the whole decides
    mode '{}'
    mkdir -p "$cache/blobs"
    name=$(sha256sum <"$repo/model.safetensors" | cut -d' ' -f1)
    head -c 3000000 /dev/zero >"$cache/blobs/$name.range-5000000"
    head -c 300 /dev/zero >"$cache/blobs/$name.range-99999999999"
    get; rc=$?
    refused 0
    identical
}
case_no_range() { # a hub that cannot go on sends everything: begin anew
    mode '{"cut": 3000000, "cut_times": 1, "no_range": true}'
    get --connections 1; rc=$?
    refused 0
    identical
}
case_wrong_range() {
    mode '{"cut": 3000000, "cut_times": 1, "wrong_range": true}'
    get --connections 1; rc=$?
    refused 1
    says 'asked for bytes from'
}
case_corrupt_once() {
    mode '{"corrupt": 1, "corrupt_times": 1}'
    get --connections 1; rc=$?
    refused 0
    identical
}
case_corrupt_always() {
    mode '{"corrupt": 1}'
    get; rc=$?
    refused 1
    says 'not what the hub promised'
    says 'try again with: flashchat download org/tiny'
}
case_too_much() {
    mode '{"extra": true}'
    get; rc=$?
    refused 1
    says 'more bytes|hub sends'
}
case_changed() {
    mode '{"changed": true}'
    get; rc=$?
    refused 1
    says 'changed on the hub'
}
case_bad_beginning() { # a beginning of other bytes, as after a bug elsewhere
    mode '{}'
    mkdir -p "$cache/blobs"
    name=$(sha256sum <"$repo/model.safetensors" | cut -d' ' -f1)
    head -c 2000000 /dev/zero >"$cache/blobs/$name.incomplete"
    get; rc=$?
    refused 0
    identical
}
case_too_long_beginning() {
    mode '{}'
    mkdir -p "$cache/blobs"
    name=$(sha256sum <"$repo/config.json" | cut -d' ' -f1)
    head -c 2000000 /dev/zero >"$cache/blobs/$name.incomplete"
    get; rc=$?
    refused 0
    identical
}
case_retry() { # 5xx, broken answers and limits, then good ones
    mode '{"status": {"revision": [503, 0], "tree": [500], "config.json": [502, 429, 504], "cdn": [503, 0, 500]}}'
    get; rc=$?
    refused 0
    identical
}
case_rate_limit() {
    for key in retry_after rate_limit; do
        fresh rate_$key
        mode "{\"$key\": 2, \"status\": {\"tokenizer.json\": [429]}}"
        begin=$(date +%s%N)
        get; rc=$?
        refused 0
        identical
        [ $(($(date +%s%N) - begin)) -ge 2000000000 ] || failure "did not wait as asked ($key)"
    done
}
case_gives_up() {
    mode '{"status": {"generation_config.json": [503,503,503,503,503,503,503,503,503]}}'
    get; rc=$?
    refused 1
    says 'given up after 6 tries.*503'
}
case_missing() {
    mode '{}'
    "$program" download org/nothing --yes >"$work/out" 2>"$work/err" </dev/null; rc=$?
    refused 1
    says 'Check the name'
    get --revision nowhere; rc=$?
    refused 1
    says 'revision'
}
case_token() { # private: without, with a wrong and with the right token; the token stays with its host
    mode '{"token": "hf_secret"}'
    get; rc=$?
    refused 1
    says 'HF_TOKEN'
    HF_TOKEN=hf_wrong get; rc=$?
    refused 1
    HF_TOKEN=hf_secret get; rc=$?
    refused 0
    identical
    sound
    fresh token_file
    mkdir -p "$HOME/.cache/huggingface"
    echo hf_secret >"$HOME/.cache/huggingface/token"
    get; rc=$?
    refused 0
}
case_forbidden() {
    mode '{"status": {"*": [403]}}'
    get; rc=$?
    refused 1
    says 'accept its conditions'
}
case_listing() { # lists that make no sense
    mode '{"unsafe": true, "page": 100}'
    get; rc=$?
    refused 1
    says 'no safe file name'
    mode '{"page_loop": true, "page": 1}'
    get; rc=$?
    refused 1
    says 'does not end|lists .* twice'
}
case_space() { # a drive that is too small: refused before anything is fetched
    if ! mkdir -p "$HOME/small" || ! mount -t tmpfs -o size=20m none "$HOME/small" 2>/dev/null; then
        echo "SKIP hub space: cannot mount a small file system"
        return 1
    fi
    mode '{}'
    HF_HUB_CACHE=$HOME/small/hub get; rc=$?
    umount "$HOME/small"
    refused 1
    says 'Free some space'
    if grep -q resolve "$work/state/log"; then failure "fetched all the same"; fi
}
case_two_at_once() { # two programs share one cache: each file is fetched once
    mode '{"slow": 20000000}'
    "$program" download org/tiny --yes --connections 1 >"$work/out2" 2>&1 </dev/null &
    pid=$!
    get --connections 1; rc=$?
    refused 0
    wait $pid || failure "the other one failed: $(tail -n 1 "$work/out2")"
    identical
    [ "$(grep -c "cdn .*$(sha256sum <"$repo/model.safetensors" | cut -c1-64)" "$work/state/log")" = 1 ] ||
        failure "the weights were fetched twice"
}
case_add_model() {
    mode '{}'
    "$program" add-model org/tiny >"$work/out" 2>"$work/err"; rc=$?
    refused 0
    says 'Next: flashchat download tiny'
    "$program" models tiny >"$work/out" 2>"$work/err" || failure "models does not know it"
    says 'org/tiny'
    timeout 300 "$program" download tiny --yes >"$work/out" 2>"$work/err" </dev/null; rc=$?
    refused 0
    identical
    mkdir -p "$work/repos/org/dense"
    printf '{"model_type": "llama", "hidden_size": 64}' >"$work/repos/org/dense/config.json"
    cp "$repo/model.safetensors" "$work/repos/org/dense/"
    "$program" add-model org/dense >"$work/out" 2>"$work/err"; rc=$?
    refused 1
    says 'cannot run here.*llama'
    [ ! -e "$HOME/.config/flashchat/models.d/dense.json" ] || failure "an entry was written"
}

before=$(ls -la "$real_home/.cache/huggingface" "$real_home/.config/flashchat" 2>&1)
names=$(declare -F | awk '$3 ~ /^case_/ { print substr($3, 6) }')
[ $# = 0 ] || names=$*
for name in $names; do
    case_name="hub $name" bad=0
    fresh "$name"
    : >"$work/out" 2>"$work/err"
    "case_$name" || continue
    sound
    [ $bad = 0 ] && echo "PASS $case_name"
done
after=$(ls -la "$real_home/.cache/huggingface" "$real_home/.config/flashchat" 2>&1)
if [ "$before" = "$after" ]; then echo "PASS hub: the real home is untouched"; else echo "FAIL hub: the real home changed"; fi
