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
