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
