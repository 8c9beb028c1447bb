#!/usr/bin/env bash
# What commands can say about reading experts: a second drive, no looking ahead, the remembered choice of an engine; and
# that models together never claim more than the machine has. None of it changes a token.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
infer=$BUILD/infer flashchat=$BUILD/flashchat synth=$BUILD/synth-model
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset FLASHCHAT_MIRROR_DIR FLASHCHAT_LOOK_AHEAD
expect() { # name, exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && tail -n 5 "$dir/err"; fi
}
text=$(head -c 1200 README.md)
run() { "$infer" --prompt "$text" --tokens 40 --ids --ignore-stop --memory 48M "$@" 2>"$dir/err"; }

run >"$dir/plain"
[ -s "$dir/plain" ]
expect "streaming: a run to compare with" $?
cp -r assets/ember "$dir/second"
run --mirror "$dir/second" >"$dir/mirrored" && cmp -s "$dir/plain" "$dir/mirrored"
expect "streaming: two directories, the same tokens" $?
run --no-look-ahead >"$dir/blind" && cmp -s "$dir/plain" "$dir/blind"
expect "streaming: without looking ahead, the same tokens" $?
for f in "$dir"/second/*.safetensors; do truncate -s -4096 "$f"; done
run --mirror "$dir/second" >"$dir/out"
[ $? = 1 ] && grep -q "mirror $dir/second/.*bytes, but the model's file has" "$dir/err"
expect "streaming: a mirror of another size is refused" $?
run --mirror "$dir/nowhere" >"$dir/out"
[ $? = 1 ] && grep -q "mirror $dir/nowhere/" "$dir/err"
expect "streaming: a mirror that is not there" $?

# The same as settings.
rm -rf "$dir/second" && cp -r assets/ember "$dir/second"
ask() { "$flashchat" prompt "Once upon a time" --tokens 30 --temperature 0 --memory 48M 2>"$dir/err"; }
ask >"$dir/plain"
FLASHCHAT_MIRROR_DIR=$dir/second FLASHCHAT_LOOK_AHEAD=off ask >"$dir/out" && [ -s "$dir/out" ] &&
    cmp -s "$dir/plain" "$dir/out"
expect "streaming: mirror and look-ahead as settings" $?
FLASHCHAT_MIRROR_DIR=$dir/nowhere ask >"$dir/out"
[ $? = 1 ] && grep -q "mirror $dir/nowhere/" "$dir/err"
expect "streaming: the setting reaches the engine" $?

# Engines together.
engines=$XDG_STATE_HOME/flashchat/engines
claim() { printf '{"process": 1, "memory": %s, "model": "/models/big"}' "$1" >"$engines/engine-$2"; }
[ -d "$engines" ] && [ -z "$(ls "$engines"/engine-* 2>/dev/null)" ]
expect "engines: nothing is left behind" $?
claim 9000000000000000 dead
run >"$dir/out" && [ ! -e "$engines/engine-dead" ]
expect "engines: what a dead one left does not count and is removed" $?
if command -v flock >/dev/null; then
    claim 9000000000000000 alive
    flock "$engines/engine-alive" "$infer" --prompt x --tokens 2 --memory 48M >"$dir/out" 2>"$dir/err"
    [ $? = 1 ] && grep -q "process 1 may take .* GiB for /models/big; with the 0.0. GiB of this one" "$dir/err" &&
        grep -q -- "--overcommit" "$dir/err"
    expect "engines: one too many is refused, with the numbers" $?
    flock "$engines/engine-alive" "$infer" --prompt x --tokens 2 --memory 48M --overcommit >"$dir/out" 2>"$dir/err"
    expect "engines: unless one insists" $?
    claim 100000000 alive
    flock "$engines/engine-alive" "$infer" --prompt x --tokens 2 --memory 48M >"$dir/out" 2>"$dir/err"
    expect "engines: small ones run side by side" $?
    rm -f "$engines/engine-alive"
else
    echo "SKIP engines: no flock program"
fi
pids=()
for i in 1 2 3 4; do
    "$infer" --prompt "Once upon a time" --tokens 40 --ids --ignore-stop --memory 48M >"$dir/many.$i" 2>"$dir/err.$i" &
    pids+=($!)
done
wait "${pids[@]}"
for i in 2 3 4; do cmp -s "$dir/many.1" "$dir/many.$i" || echo differs >"$dir/differs"; done
[ -s "$dir/many.1" ] && [ ! -e "$dir/differs" ] && [ -z "$(ls "$engines"/engine-* 2>/dev/null)" ]
expect "engines: four at once" $?

# The choice of an engine is measured once.
remembered=$XDG_STATE_HOME/flashchat/io.json
if [ -n "${FM_TEST_FAST:-}" ]; then
    echo "SKIP streaming: how the drive is read best: takes a larger model"
elif "$synth" --shape qwen3-30b --layers 1 --vocab 8192 --out "$dir/large" >"$dir/err" 2>&1; then
    large() { "$infer" --model "$dir/large" --prompt-tokens "$dir/ids" --tokens 2 --ids --memory 220M; }
    echo 1 2 3 >"$dir/ids"
    if large >"$dir/first" 2>"$dir/err" && [ ! -e "$remembered" ]; then
        echo "SKIP streaming: no direct reads on this file system"
    else
        [ -s "$dir/first" ] && grep -q '"uring": ' "$remembered" && cp "$remembered" "$dir/kept" &&
            large >"$dir/second-run" 2>"$dir/err" && cmp -s "$dir/first" "$dir/second-run" && cmp -s "$dir/kept" "$remembered"
        expect "streaming: how the drive is read best is measured once and remembered" $?
    fi
else
    echo "SKIP streaming: no room for a larger model"
fi

# The ceiling as the system enforces it (tests/unit/test_ceiling.c asks /proc): killed when it takes more.
if command -v systemd-run >/dev/null && systemd-run --user --scope -q -p MemoryMax=112M true 2>/dev/null; then
    systemd-run --user --scope -q -p MemoryMax=112M -p MemorySwapMax=0 \
        "$infer" --prompt "$text" --tokens 200 --ids --ignore-stop --memory 48M >"$dir/out" 2>"$dir/err"
    expect "streaming: 48 MiB within a control group of 112" $?
else
    echo "SKIP streaming: no control group can be made here"
fi
