#!/usr/bin/env bash
# A card from end to end: golden checkpoints, kernels, then synthetic models of published shapes beside what card, bus and
# disk allow (the ceilings are measured in the same run). One command on any machine with an NVIDIA card:
#
#   make bench-gpu                        or, where nothing can be built: PROGRAMS=FOLDER bench/gpu.sh (`make portable`'s)
#   PARTS="golden tiers35" bench/gpu.sh   only these; all of them are:
#
#   golden    golden checkpoints, kernels        soak      greedy tokens at random limits against the processor's, also
#                                                          where the card fails for good on the way; limits kept
#   big35     35B shape, all on the card         tiers35   half of its experts in memory
#   big397    397B shape, layers that fit        tiers397  half of its experts in memory; 30 layers where memory is 200 GiB
#   disk80    80B shape on disk, a quarter of the experts on the card and in memory; the processor alone at the same limits
#
# WORK is for the model on the disk, FAST (default /dev/shm) for those that do not touch it; logs and table.txt go to OUT.
# LAYERS35, LAYERS397, LAYERS397M, LAYERS80: layers; TOKENS: steps of a run; SOAK, SEED: its tokens and seed; LIMIT: seconds.
cd "$(dirname "$0")/.." || exit 1
bin=${PROGRAMS:-build/portable}
out=${OUT:-/tmp} work=${WORK:-/tmp/flashchat-gpu} fast=${FAST:-/dev/shm/flashchat-gpu}
parts=${PARTS:-golden soak big35 tiers35 disk80 big397 tiers397}
tokens=${TOKENS:-96}
memory=$(free -g | awk 'NR == 2 { print $2 }')
layers397=${LAYERS397:-15} layers397m=${LAYERS397M:-$([ "$memory" -ge 200 ] && echo 30 || echo 15)}
mkdir -p "$work" "$fast" "$out"
table=$out/table.txt
: >"$table"
say() { echo "$*" | tee -a "$table"; }
wanted() { [[ " $parts " == *" $1 "* ]]; }
bench() { # NAME, options of gpu-bench: its lines are the table's
    local name=$1
    shift
    timeout "${LIMIT:-300}" "$bin"/gpu-bench --name "$name" --io-state "$work/io.json" "$@" 2>"$out/$name.log" | tee -a "$table"
    [ "${PIPESTATUS[0]}" = 0 ] || say "$name: FAILED: $(tail -1 "$out/$name.log")"
}
synth() { # FOLDER, SHAPE, LAYERS
    [ -f "$1/config.json" ] || "$bin"/synth-model --shape "$2" --layers "$3" --out "$1" >"$out/synth.log" 2>&1 ||
        say "synth-model $2: FAILED: $(tail -1 "$out/synth.log")"
}
per_model() { # NAME of a run: what the 60 layers of the whole model would do
    sed -n "s/^$1: decode.* \([0-9]*\) us a layer.*/\1/p" "$table" | tail -1 |
        awk -v n="$1" '{ printf "%s: extrapolated to 60 such layers: %.1f tok/s\n", n, 1e6 / ($1 * 60) }' | tee -a "$table"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv,noheader | tee -a "$table"
say "$(nproc) processors, $memory GiB, $(free -g | awk 'NR == 2 { print $7 }') free"
df -h "$work" "$fast" | tee -a "$table"

if wanted golden; then
    mkdir -p "$work/golden"
    for archive in tests/golden/*.tar.xz; do tar -C "$work/golden" -xJf "$archive"; done
    good=0 bad=0
    for model in "$work"/golden/*/; do
        for limit in 0 1900K 2M "${GOLDEN_VRAM:-14M}"; do # 2 MB: few slots, which change hands all the time
            log=$out/golden-$(basename "$model").log
            less=() && [ "$limit" = 0 ] || less=(--vram "$limit")
            if timeout 60 "$bin"/golden-check "$model" --gpu cuda "${less[@]}" >"$log" 2>&1; then
                good=$((good + 1))
            else
                bad=$((bad + 1))
                say "golden $(basename "$model") --vram $limit: $(tail -1 "$log")"
            fi
        done
    done
    say "golden models on the card, with all of it and with little: $good good, $bad bad"
    timeout 60 "$bin"/gpu-check cuda >"$out/kernels.log" 2>&1
    say "kernels: $(tail -1 "$out/kernels.log")"
fi

if wanted soak; then
    bench soak --model assets/ember --soak "${SOAK:-5000}" --seed "${SEED:-1}"
    grep -E '^ +(token|first|and|asked|[0-9]+ other)' "$out/soak.log" | tee -a "$table"
    for seed in 1 2 3 4; do bench "lost-$seed" --model assets/ember --soak 128 --lose --seed $seed; done
    while sleep 0.2; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; done >"$out/vram.txt" &
    watcher=$!
    "$bin"/infer --model assets/ember --gpu cuda --vram 18M --memory 64M --context 512 --prompt "Once upon a time" --tokens 2000 \
        --ignore-stop --ids >/dev/null 2>"$out/limits.log"
    kill $watcher
    say "limits of 18 and 64 MiB: $(sed -n 's/ taken, .*/ taken/p' "$out/limits.log"); $(sed -n 's/.*; \(peak memory\)/\1/p' \
        "$out/limits.log") of the process, the driver's libraries included"
    say "nvidia-smi: $(head -1 "$out/vram.txt") MiB before, at most $(sort -n "$out/vram.txt" | tail -1) with its context"
fi

if wanted big35 || wanted tiers35; then synth "$fast/35b" qwen3.6-35b "${LAYERS35:-40}"; fi
if wanted big35; then
    bench big35-1 --model "$fast/35b" --tokens 256 --prompt 2048
    bench big35-8 --model "$fast/35b" --tokens 128 --streams 8
fi
if wanted tiers35; then
    bench tiers35 --model "$fast/35b" --tokens "$tokens" --prompt 512 --vram-share 0.5 --memory-share 0.55
    bench tiers35-no-look --model "$fast/35b" --tokens "$tokens" --vram-share 0.5 --memory-share 0.55 --no-look-ahead
fi
rm -rf "$fast/35b"

if wanted disk80; then
    synth "$work/80b" qwen3-next-80b "${LAYERS80:-48}"
    bench disk80 --model "$work/80b" --tokens "${TOKENS80:-16}" --warm 8 --vram-share 0.125 --memory-share 0.125 --disk
    bench disk80-processor --model "$work/80b" --tokens "${TOKENS80:-16}" --warm 8 --gpu off --memory-share 0.25 --disk
    rm -rf "$work/80b"
fi

if wanted big397; then
    synth "$fast/397b" qwen3.5-397b "$layers397"
    for k in 10 4; do
        bench "big397-k$k" --model "$fast/397b" --tokens "$tokens" --k $k
        per_model "big397-k$k"
    done
fi
if wanted tiers397; then
    [ "$layers397" = "$layers397m" ] || rm -rf "$fast/397b"
    synth "$fast/397b" qwen3.5-397b "$layers397m"
    for k in 10 4; do
        bench "tiers397-k$k" --model "$fast/397b" --tokens "$tokens" --k $k --vram-share 0.5 --memory-share 0.52
        per_model "tiers397-k$k"
    done
    bench tiers397-no-look --model "$fast/397b" --tokens "$tokens" --vram-share 0.5 --memory-share 0.52 --no-look-ahead
fi
rm -rf "$fast/397b"
echo
cat "$table"
! grep -qE 'FAILED|[1-9][0-9]* bad' "$table"
