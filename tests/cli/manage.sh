#!/usr/bin/env bash
# Model files from end to end, with the real program: download from a local hub, check, archive, free, restore, remove;
# status, doctor, menu, completions and the manual page on the way. Isolated HOME; the real one is untouched.
# test: slow
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
[ -x "$program" ] || { echo "SKIP manage: no $program"; exit 0; }
command -v node >/dev/null || { echo "SKIP manage: no node"; exit 0; }
real=$(ls -la "${HOME:-/}/.config/flashchat" "${HOME:-/}/.cache/huggingface" 2>&1)
real_home=${HOME:-/}
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
for v in $(compgen -e FLASHCHAT_) $(compgen -e HF_); do unset "$v"; done
unset XDG_CONFIG_HOME XDG_CACHE_HOME
export HOME=$work/home FLASHCHAT_HOME=$PWD FLASHCHAT_WIDTH=78
mkdir -p "$HOME" "$work/state" "$work/repos/org/tiny"
cp assets/ember/*.json assets/ember/*.jinja assets/ember/*.safetensors "$work/repos/org/tiny"
node tests/hub/server.mjs "$work/repos" "$work/state" &
server=$!
for _ in $(seq 100); do [ -f "$work/state/port" ] && break; sleep 0.1; done
HF_ENDPOINT=http://127.0.0.1:$(cat "$work/state/port")
export HF_ENDPOINT
cache=$HOME/.cache/huggingface/hub/models--org--tiny

fc() { timeout 60 "$program" "$@" 2>&1; }
check() { # name, condition as a command
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then
        echo "PASS manage $name"
    else
        echo "FAIL manage $name"
        sed 's/^/     /' <<<"${out:-}" | tail -n 6
    fi
}
says() { # name, pattern: in $out
    check "$1" grep -qE -- "$2" <<<"$out"
}
answers() {
    [ "$("$program" prompt --quiet --no-think --model tiny 'What is the capital of France?' </dev/null 2>/dev/null)" = \
        "The capital of France is Paris." ]
}
narrow() { ! grep -v "$work" <<<"$out" | awk 'length($0) > 78' | grep -q .; }

out=$(fc add-model org/tiny)
says "add-model says what is next" 'Next: flashchat download tiny'
out=$(fc download tiny --yes </dev/null)
says "download" 'complete and checked'
check "the downloaded model answers" answers
out=$(fc verify tiny)
says "quick check" 'all files are there'
out=$(fc verify tiny --deep)
says "deep check" 'every published file has the bytes'

out=$(fc offload tiny </dev/null)
says "offload without a folder says what to do" 'config set OFFLOAD_DIR'
fc config set OFFLOAD_DIR "$work/archive" >/dev/null
out=$(fc offload tiny </dev/null)
says "the end of the input is no consent" 'User cancelled: nothing was removed'
out=$(echo yes | fc offload tiny)
says "only the exact name is consent" 'User cancelled'
check "nothing was removed" answers
mkdir -p "$HOME/.cache" && exec 8<"$cache/snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors"
tail -f /dev/null <&8 &
holder=$!
out=$(echo tiny | fc offload tiny)
says "refused while a program has the model open" "in use by process [0-9]+"
kill $holder
wait $holder 2>/dev/null
exec 8<&-

before=$(cd "$cache" && find . -type f ! -name '.*' -exec sha256sum {} + | sort)
out=$(fc offload tiny --keep)
says "a copy goes to the archive" 'Bring it back with: flashchat restore tiny'
check "and stays here" answers
out=$(fc verify tiny --archive --deep)
says "the archive's copy is good" 'every file has the bytes'
out=$(echo tiny | fc offload tiny --part originals)
says "published weights are freed" 'Done'
check "the weights are gone" test ! -e "$cache/snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors"
check "the rest stays" test -e "$cache/snapshots/0123456789abcdef0123456789abcdef01234567/config.json"
out=$(fc prompt --model tiny hi)
says "a freed model says how to get it" 'flashchat download tiny'
out=$(fc manage --list)
says "the list shows the archive" 'tiny: not complete.*'
check "the list fits the screen" narrow
out=$(fc restore tiny --part originals)
says "weights come back" 'are back and checked'
check "and answer" answers
out=$(echo tiny | fc offload tiny)
says "everything is freed" 'Done'
check "the folder is gone" test ! -e "$cache"
out=$(fc restore tiny)
says "everything comes back" 'are back and checked'
check "byte for byte" test "$before" = "$(cd "$cache" && find . -type f ! -name '.*' -exec sha256sum {} + | sort)"
check "with links" test -L "$cache/snapshots/0123456789abcdef0123456789abcdef01234567/config.json"
check "and answers again" answers

out=$(fc pack tiny)
says "pack" "the model's name stands for these files"
check "the packed model answers" answers
out=$(echo tiny | fc offload tiny --part originals)
says "packed: the published weights go" 'Done'
check "and it still answers" answers
out=$(fc verify tiny --deep)
says "the packed files are checked" 'every expert and tensor'
out=$(fc pack tiny)
says "packing wants the published weights" 'flashchat restore tiny'
fc restore tiny >/dev/null
out=$(echo no | fc manage --delete tiny --part packed)
says "a part wants the name, too" 'User cancelled'
out=$(echo tiny | fc manage --delete tiny --part packed)
says "the packed files go" 'Get it again with: flashchat pack tiny'
check "what is published answers" answers
blob=$(readlink -f "$cache/snapshots/0123456789abcdef0123456789abcdef01234567/tokenizer.json")
printf x | dd of="$blob" bs=1 seek=100 conv=notrunc 2>/dev/null
out=$(fc verify tiny --deep)
says "damage names the repair" 'flashchat manage --repair tiny'
out=$(echo Y | fc manage --repair tiny)
says "repair fetches it again" '1 damaged file was removed'
check "and it is whole" fc verify tiny --deep
out=$(fc manage --repair tiny </dev/null)
says "a good model needs none" 'every published file is good'

blob=$(readlink -f "$cache/snapshots/0123456789abcdef0123456789abcdef01234567/tokenizer.json")
printf x | dd of="$blob" bs=1 seek=100 conv=notrunc 2>/dev/null
out=$(fc verify tiny --deep)
says "a damaged file is found" 'tokenizer.json is damaged'
out=$(fc offload tiny --keep)
says "and not archived" 'Repair it first'
fc restore tiny >/dev/null
check "and mended from the archive" fc verify tiny --deep
copy=$work/archive/models--org--tiny/blobs/$(basename "$blob")
printf x | dd of="$copy" bs=1 seek=100 conv=notrunc 2>/dev/null
out=$(echo tiny | fc offload tiny)
says "a damaged copy stops the removal" 'damaged in the archive; nothing was removed'
check "the model still answers" answers

out=$(printf '1\nq\n\n' | fc manage)
says "the menu checks a model" 'all files are there|not on this machine'
out=$(fc manage --delete tiny </dev/null)
says "deleting wants the name" 'User cancelled'
out=$(echo tiny | fc manage --delete tiny)
says "deleting" 'Removed. Get it again'
check "it is gone" test ! -e "$cache/blobs"
check "the archive is not touched" test -e "$copy"

out=$(fc status)
says "status" 'server +not running'
check "status fits the screen" narrow
check "status as JSON" python3 -c 'import json,sys; assert json.load(sys.stdin)["model_ready"]' <<<"$(fc status --json)"
out=$(fc doctor --no-measure)
says "doctor" 'Ready'
check "doctor as JSON" python3 -c 'import json,sys; assert json.load(sys.stdin)["ready"]' <<<"$(fc doctor --json --no-measure)"
out=$(fc config set MODEL nothing >/dev/null; fc doctor --no-measure; fc config undo >/dev/null)
says "doctor finds a missing model" 'BAD +model: there is no model "nothing"'
out=$(printf 't\nz\nq\n' | fc)
says "the menu" 'n  new chat'
says "the menu refuses other keys" 'one of the keys shown'
check "the menu fits the screen" narrow
check "the menu ends with its input" fc </dev/null
for shell in bash zsh fish; do
    out=$(fc completion $shell)
    says "completion for $shell" 'offload.*|-a offload'
    command -v $shell >/dev/null && check "completion for $shell is valid" $shell -n <(fc completion $shell)
done
if command -v man >/dev/null && man --version >/dev/null 2>&1; then
    out=$(fc man | man -l --warnings - 2>&1 >/dev/null)
    check "the manual page has no warnings" test -z "$out"
fi
for c in config models add-model download manage offload restore verify status doctor; do
    out=$(fc help "$c")
    says "help $c" "usage: flashchat $c"
done
now=$(ls -la "$real_home/.config/flashchat" "$real_home/.cache/huggingface" 2>&1)
check "the real home is untouched" test "$real" = "$now"
