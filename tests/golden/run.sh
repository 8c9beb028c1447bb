#!/usr/bin/env bash
# Every golden checkpoint on the exact path: within the bounds of the reference, and the same bits at three memory sizes
# and three thread counts. Each kernel table of this machine is within the bounds as well.
#
# With FM_TEST_FAST=1 the nine runs of the bit comparison are three (one of each memory size and thread count).
set -u
cd "$(dirname "$0")/../.." || exit 1
check=${BUILD:-build}/golden-check
if [ ! -x "$check" ]; then
    echo "SKIP golden: no $check"
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# The least memory that this model works with, in MiB, from the refusal of a ceiling that is too small.
floor_of() { "$check" "$@" --memory 64K 2>&1 | sed -n 's/.*needs at least \([0-9]*\) MiB.*/\1/p' | head -n 1; }

# name, arguments...: the bounds, then the bits
check_model() {
    local name=$1 floor sizes wanted bits runs=()
    shift
    if "$check" "$@" >"$out" 2>&1; then
        echo "PASS golden $name"
    else
        echo "FAIL golden $name"
        grep -v '^ok' "$out" | sed 's/^/     /'
        return
    fi
    wanted=$(sed -n 's/^bits //p' "$out")
    floor=$(floor_of "$@")
    if [ -z "$wanted" ] || [ -z "$floor" ]; then
        echo "FAIL golden $name bits: no hash or no floor ($("$check" "$@" --memory 64K 2>&1 | tail -n 1))"
        return
    fi
    sizes=("$((floor + 1))M" "$((floor + floor / 8 + 1))M" 1G)
    if [ "${FM_TEST_FAST:-}" = 1 ]; then
        runs=("${sizes[0]} 3" "${sizes[1]} 2" "${sizes[2]} 1")
    else
        for m in "${sizes[@]}"; do for t in 1 2 3; do runs+=("$m $t"); done; done
    fi
    for run in "${runs[@]}"; do
        read -r memory threads <<<"$run"
        bits=$("$check" "$@" --memory "$memory" --threads "$threads" 2>&1 | tail -n 1)
        if [ "$bits" != "bits $wanted" ]; then
            echo "FAIL golden $name bits: --memory $memory --threads $threads: $bits, not $wanted"
            return
        fi
    done
    echo "PASS golden $name bits"
}

for dir in "${BUILD:-build}"/golden/*/ build/golden/*/; do
    [ -f "$dir/golden.safetensors" ] || continue
    name=$(basename "$dir")
    case " ${seen:-} " in *" $name "*) continue ;; esac
    seen="${seen:-} $name"
    check_model "$name" "$dir"
done
[ -n "${seen:-}" ] || echo "SKIP golden: nothing in build/golden (make goldens)"
check_model ember assets/ember --golden tests/golden/ember/golden.safetensors

# Every table that this machine can run; one it cannot run is refused by name.
for cpu in scalar avx2 avx512 neon; do
    failed='' ran=''
    for dir in build/golden/*/; do
        [ -f "$dir/golden.safetensors" ] || continue
        if "$check" "$dir" --cpu $cpu >"$out" 2>&1; then
            ran=yes
        elif grep -q 'cannot run\|not available\|this machine' "$out"; then
            break
        else
            failed="$failed $(basename "$dir")"
        fi
    done
    if [ -n "$failed" ]; then
        echo "FAIL golden kernels $cpu:$failed"
        sed 's/^/     /' "$out"
    elif [ -n "$ran" ]; then
        echo "PASS golden kernels $cpu"
    else
        echo "SKIP golden kernels $cpu: this machine cannot run them"
    fi
done
