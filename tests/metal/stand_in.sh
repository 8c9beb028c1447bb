#!/usr/bin/env bash
# The Metal driver, compiled with clang and GNUstep, on a Metal that runs on the processor (tests/metal_stand_in): every
# kernel from the very text that a Mac is given, golden models end to end, and failures of Metal. None of this says
# anything about Apple's compiler or hardware: docs/MACOS.md lists what has never run there.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
bin=$BUILD/metal
if [ ! -x "$bin/golden-check" ]; then
    echo "SKIP metal: no $bin (needs clang, gobjc and libgnustep-base-dev: tests/install.sh test)"
    exit 0
fi
out=$(mktemp) && trap 'rm -f "$out"' EXIT
export FM_STAND_IN_REPORT=1 FM_STAND_IN_DIR=$bin/kernels

ok() { # name, condition's exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && tail -n 5 "$out" | sed 's/^/     /'; fi
}
none_left() { grep -q "stand-in Metal: 0 objects left" "$out"; }

"$bin/gpu-check" metal >"$out" 2>&1
rc=$?
grep -E '^(PASS|FAIL)' "$out" | sed 's/ / metal: /'
[ $rc = 0 ] && none_left
ok "metal: no object is left over after the kernels" $?
FM_STAND_IN=no-residency "$bin/gpu-check" metal >"$out" 2>&1 && none_left
ok "metal: kernels without residency sets (macOS 13, 14)" $?

# Golden models: the bits of the kernels that the processor runs, which copies experts into slots of its own; Metal reads
# them where the store has them. With all experts in memory; with as few as possible, launched as they come or all together;
# with the trunk and the slots in many short buffers; without residency sets.
floor_of() { # MiB
    "$bin/golden-check" "$1" --gpu metal --memory 64K 2>&1 | sed -n 's/.*needs at least \([0-9]*\) MiB.*/\1/p' | head -n 1
}
golden() { # what, model, FM_STAND_IN, options of golden-check
    local what=$1 dir=build/golden/$2 asked=$3
    shift 3
    FM_STAND_IN=$asked "$bin/golden-check" "$dir" --gpu metal --prompts 2 "$@" >"$out" 2>&1
    rc=$?
    [ $rc = 0 ] && none_left && grep -q ', Stand-in, ' "$out" && grep -q '([1-9][0-9]* wrapped)' "$out" && [ -n "$bits" ] &&
        [ "$(grep '^bits ' "$out")" = "$bits" ]
    ok "metal: golden $what" $?
}
for model in qwen3_moe_mlx4 qwen3_5_moe_mlx_mixed qwen3_next; do
    if [ ! -d build/golden/$model ]; then
        echo "SKIP metal: golden $model: not in build/golden (make goldens)"
        continue
    fi
    bits=$("$BUILD/golden-check" build/golden/$model --gpu host --prompts 2 2>&1 | tail -n 1)
    few=$(($(floor_of build/golden/$model) + 1))M
    golden "$model, all in memory" $model ""
    golden "$model, streamed" $model "" --memory "$few" --overlap on
    [ $model = qwen3_moe_mlx4 ] || continue
    golden "$model, streamed, all experts of a layer together" $model "" --memory "$few" --overlap off
    golden "$model, without residency sets" $model no-residency --memory "$few"
done
for model in qwen3_moe qwen3_5_moe_hub qwen3_5_moe_mlx4 qwen3_next_mlx8; do # the other layouts and formats, shorter
    [ -d build/golden/$model ] || continue
    bits=$("$BUILD/golden-check" build/golden/$model --gpu host --prompts 1 2>&1 | tail -n 1)
    golden "$model, all in memory" $model "" --prompts 1
done
if [ -d build/golden/qwen3_5_moe ]; then
    bits=$("$BUILD/golden-check" build/golden/qwen3_5_moe --gpu host --prompts 2 2>&1 | tail -n 1)
    golden "BF16, slots in short buffers" qwen3_5_moe buffer-max=3000000 --memory 36M
    grep -q "(3 wrapped)" "$out" # the trunk; the slots in two windows
    ok "metal: memory longer than a buffer is cut into windows" $?
fi

# Failures. "auto" goes on with the processor and says why; a GPU that was asked for by name is an error that says why.
home=$(mktemp -d) && trap 'rm -rf "$out" "$home"' EXIT
prompt() { # FM_STAND_IN, options of prompt
    local asked=$1
    shift
    FM_STAND_IN=$asked FLASHCHAT_HOME=$PWD HOME=$home XDG_CONFIG_HOME=$home "$bin/flashchat" prompt --model assets/ember \
        --tokens 2 "$@" "What is the capital of France?" >"$out" 2>&1
}
falls_back() { # what, FM_STAND_IN, words of the message
    prompt "$2" && grep -q "^The capital" "$out" && grep -q "GPU is not used.*$3" "$out" && none_left
    ok "metal: $1: the processor computes, and it says why" $?
}
refuses() { # what, FM_STAND_IN, words of the message
    prompt "$2" --gpu metal
    [ $? = 1 ] && grep -q "$3" "$out" && none_left
    ok "metal: $1: an error that says so" $?
}
goes_on() { # what, FM_STAND_IN, words of the message
    prompt "$2" --gpu metal && grep -q "^The capital" "$out" && grep -q "was lost.*$3.*the processor goes on" "$out" && none_left
    ok "metal: $1: the processor goes on, and it says why" $?
}
prompt "" --gpu metal && grep -q "^The capital" "$out" && none_left
ok "metal: the bundled model answers" $?
prompt no-device && grep -q "^The capital" "$out" && ! grep -q "GPU" "$out"
ok "metal: a machine without a GPU says nothing about it" $?
falls_back "a kernel that does not compile" pipeline=matvec 'no pipeline for kernel "matvec"'
falls_back "source that does not compile" library "the kernels do not compile"
falls_back "SIMD groups of 64" width=64 "SIMD groups of 64 threads"
falls_back "small groups only" threads=top 'kernel "top" needs groups of 512'
falls_back "a buffer that is not given" buffer=2 "Metal: no buffer"
falls_back "too little memory" working-set=20000000 "GPU memory of .* is too small"
falls_back "memory gone while loading" commit=1 "MTLCommandBufferErrorOutOfMemory"
refuses "no GPU" no-device "Metal finds no GPU"
refuses "an old Mac" old-device "macOS 13 or newer"
goes_on "memory gone while computing" commit=7 "command buffer failed: MTLCommandBufferErrorOutOfMemory"
goes_on "a page fault while computing" commit=7,code=3 "MTLCommandBufferErrorPageFault"
goes_on "a hang while computing" commit=7,code=2 "MTLCommandBufferErrorTimeout"
