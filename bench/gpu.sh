#!/usr/bin/env bash
# Models on a real card, in one go (under 8 minutes): golden checkpoints, kernels, speeds of a synthetic model of the 35B
# shape. PROGRAMS is the folder that `make portable CUDA=yes` makes; logs and the table go to OUT (default /tmp).
#
#   LAYERS=40 TOKENS=128 bench/gpu.sh
cd "$(dirname "$0")/.." || exit 1
bin=${PROGRAMS:-build/portable}
out=${OUT:-/tmp} work=${WORK:-/tmp/flashchat-gpu} layers=${LAYERS:-40} tokens=${TOKENS:-128}
mkdir -p "$work/golden"
table=$out/table.txt
: >"$table"
say() { echo "$*" | tee -a "$table"; }

nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv,noheader
for archive in tests/golden/*.tar.xz; do tar -C "$work/golden" -xJf "$archive"; done
good=0 bad=0
for model in "$work"/golden/*/; do
    if timeout 60 "$bin"/golden-check "$model" --gpu cuda >"$out/golden-$(basename "$model").log" 2>&1; then
        good=$((good + 1))
    else
        bad=$((bad + 1))
    fi
    grep -hE 'logit error|golden-check:' "$out/golden-$(basename "$model").log" | sed "s/^/$(basename "$model") /"
done
say "golden models on the card: $good good, $bad bad"
timeout 60 "$bin"/infer --model assets/ember --gpu cuda --prompt "Once upon a time" --tokens 24 --ids >"$out/ember-gpu.log" 2>&1
timeout 60 "$bin"/infer --model assets/ember --gpu off --exact --prompt "Once upon a time" --tokens 24 --ids \
    >"$out/ember-cpu.log" 2>&1
say "ember: $(head -1 "$out/ember-gpu.log" | cmp -s - <(head -1 "$out/ember-cpu.log") && echo same tokens || echo OTHER TOKENS)"
timeout 60 "$bin"/gpu-check cuda >"$out/kernels.log" 2>&1
say "kernels: $(tail -1 "$out/kernels.log")"

[ -d "$work/35b" ] || "$bin"/synth-model --shape qwen3.6-35b --layers "$layers" --skew 1 \
    --tokenizer assets/ember --out "$work/35b" ||
    exit 1
run() { # NAME, then options of infer
    local name=$1
    shift
    timeout 150 "$bin"/infer --model "$work/35b" --prompt "Once upon a time" --ignore-stop --tokens "$tokens" "$@" \
        >"$out/run-$name.log" 2>&1
    say "$name: exit $?; $(tail -3 "$out/run-$name.log" | tr '\n' ' ' | cut -c1-300)"
}
run all-in-vram --gpu cuda
run vram-8g --gpu cuda --vram 8G --memory 16G
run processor --gpu off
seq 1 2048 | awk '{ print ($1 * 7919) % 6000 }' >"$work/prompt.txt"
timeout 150 "$bin"/infer --model "$work/35b" --prompt-tokens "$work/prompt.txt" --ignore-stop --tokens 8 --gpu cuda \
    >"$out/run-prefill.log" 2>&1
say "prefill 2048: exit $?; $(tail -3 "$out/run-prefill.log" | tr '\n' ' ' | cut -c1-300)"
echo
cat "$table"
[ "$bad" = 0 ]
