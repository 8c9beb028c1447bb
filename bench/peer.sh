#!/bin/bash
# A model's speed beside llama.cpp's on the same machine, in turns: one process after the other, so that a change of the
# machine's speed meets both. The two need models of one shape each in its own format: a checkpoint directory (a synthetic
# one from build/synth-model will do) and a GGUF file.
#
#   bench/peer.sh --peer LLAMA_BENCH --gguf FILE --model DIR [--rounds 5] [--prompt 512] [--tokens 64] [--threads N]
#
# LLAMA_BENCH is llama.cpp's llama-bench program; without --peer only our side runs. Every process warms up and measures
# once; loading is not counted. Prints each run and the medians. Keep other programs away: a busy processor distorts both.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
peer='' gguf='' model='' rounds=5 prompt=512 tokens=64 threads=$(getconf _NPROCESSORS_ONLN)
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
}
while [ $# -gt 1 ]; do
    case $1 in
    --peer) peer=$2 ;;
    --gguf) gguf=$2 ;;
    --model) model=$2 ;;
    --rounds) rounds=$2 ;;
    --prompt) prompt=$2 ;;
    --tokens) tokens=$2 ;;
    --threads) threads=$2 ;;
    *) usage ;;
    esac
    shift 2
done
if [ $# != 0 ] || [ -z "$model" ]; then usage; fi
ours=${BUILD:-$here/build}/model-bench
[ -x "$ours" ] || { echo "peer.sh: make $ours first" >&2; exit 1; }
[ -z "$peer" ] || [ -r "$gguf" ] || { echo "peer.sh: --gguf must name a readable file" >&2; exit 1; }
runs=$(mktemp)
trap 'rm -f "$runs"' EXIT

# "prefill ours 123.4", one line a run
run_ours() {
    "$ours" --model "$model" --prompt "$prompt" --tokens "$tokens" --threads "$threads" --runs 1 |
        sed -nE -e 's/^(prefill|decode)[0-9]+ tok\/s: ([0-9.]+).*/\1 ours \2/p' \
            -e 's/^  [0-9.]+ GB a token.*reached ([0-9]+) %/share ours \1/p'
}
run_peer() {
    "$peer" -m "$gguf" -p "$prompt" -n "$tokens" -r 1 -t "$threads" -o jsonl 2>/dev/null |
        sed -nE 's/.*"n_prompt": *([0-9]+), *"n_gen": *([0-9]+),.*"avg_ts": *([0-9.]+).*/\1 \3/p' |
        while read -r n speed; do
            if [ "$n" = 0 ]; then echo "decode peer $speed"; else echo "prefill peer $speed"; fi
        done
}
for round in $(seq "$rounds"); do
    { [ -z "$peer" ] || run_peer; run_ours; } | sed "s/^/round $round: /" | tee -a "$runs"
done

median() { # what, who
    grep -F ": $1 $2 " "$runs" | awk '{ print $NF }' | sort -n | awk '{ x[NR] = $1 } END { if (NR) print x[int((NR + 1) / 2)] }'
}
echo
for what in prefill decode; do
    a=$(median $what ours) b=$(median $what peer)
    [ -n "$a" ] || continue
    echo "$what: ours $a tok/s${b:+, peer $b tok/s, $(awk -v a="$a" -v b="$b" 'BEGIN { printf "%.2f", a / b }') times} (medians)"
done
share=$(median share ours)
[ -z "$share" ] || echo "decode at $share % of what memory allows"
