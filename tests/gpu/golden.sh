#!/usr/bin/env bash
# A golden checkpoint through the GPU's engine, with the processor playing the card (--gpu host): the greedy tokens and
# logits that the reference implementation gave.
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
name="golden checkpoint with --gpu host"
out=$("$BUILD/golden-check" "$BUILD/golden/qwen3_5_moe_mlx4" --gpu host 2>&1) && echo "PASS $name" || {
    echo "$out" | tail -5
    echo "FAIL $name"
}
name="time and bytes of every layer with --gpu host"
"$BUILD/infer" --model assets/ember --prompt "The capital of France" --tokens 8 --gpu host --vram 24M --timing \
    2>"$BUILD/timing.txt" >/dev/null
if awk '$1 ~ /^[0-9]+$/ && NF >= 8 { n++; if ($2 + $3 > 0 && $4 > 0 && $6 > 0) full++ }
        END { exit !(n == 8 && full == 8) }' "$BUILD/timing.txt"; then
    echo "PASS $name"
else
    tail -12 "$BUILD/timing.txt"
    echo "FAIL $name"
fi
name="the same tokens whatever is in the card's memory, with --gpu host"
ask() {
    "$BUILD/infer" --model assets/ember --gpu host --prompt "Once upon a time" --tokens 16 --ids --ignore-stop "$@" \
        2>"$BUILD/tiers.txt"
}
wanted=$(ask) good=1 moved=0
for limits in "15M 43M" "16M 46M" "20M 60M"; do
    # shellcheck disable=SC2086
    set -- $limits
    [ "$(ask --vram "$1" --memory "$2")" = "$wanted" ] || good=0
    grep -qE ', [1-9][0-9]* promoted \([1-9]' "$BUILD/tiers.txt" && moved=$((moved + 1))
done
if [ -n "$wanted" ] && [ $good = 1 ] && [ $moved = 3 ]; then
    echo "PASS $name"
else
    cat "$BUILD/tiers.txt"
    echo "FAIL $name"
fi
name="experts on the processor beside the card, with --gpu host"
if [ "$(ask --vram 16M --memory 46M --cpu-experts)" = "$wanted" ] &&
    grep -qE ' [1-9][0-9]* computed on the processor' "$BUILD/tiers.txt"; then
    echo "PASS $name"
else
    cat "$BUILD/tiers.txt"
    echo "FAIL $name"
fi
name="a recorded trace in the router's place with --gpu host"
trace=$BUILD/tiers.jsonl
if [ "$(ask --vram 18M --memory 60M --collect-routing "$trace")" = "$wanted" ] &&
    [ "$(ask --route-trace "$trace")" = "$wanted" ] &&
    [ "$(ask --vram 18M --memory 60M --route-trace "$trace")" = "$wanted" ] &&
    [ "$(ask --route-trace assets/ember/routing.jsonl)" != "$wanted" ]; then
    echo "PASS $name"
else
    cat "$BUILD/tiers.txt"
    echo "FAIL $name"
fi
rm -f "$trace"
