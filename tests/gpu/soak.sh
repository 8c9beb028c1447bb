#!/usr/bin/env bash
# That the soak of bench/gpu.sh tells a tie of routers from a fault, with the processor playing the card. It is made to take
# the next expert where the two are near: in a checkpoint where three experts of a layer have the same row of the router
# these are exact ties, in the checkpoint as it is they are not.
# And that no token is wrong where the card is lost on the way.
# test: slow
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
model=$BUILD/golden/qwen3_5_moe_hub work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
soak() { "$BUILD/gpu-bench" --gpu host --soak 128 "$@" >"$work/out" 2>&1; }
counts() { sed -n 's/.*: \([0-9]*\) other than .*, \([0-9]*\) ties of routers$/\1 \2/p' "$work/out"; }
result() { # name, 1 if good
    [ "$2" = 1 ] && echo "PASS $1" && return
    tail -30 "$work/out"
    echo "FAIL $1"
}
cp -r "$model" "$work/threes"
python3 - "$work/threes/model.safetensors" <<'EOF'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
start = 8 + struct.unpack("<Q", data[:8])[0]
gates = [t for name, t in json.loads(data[8:start]).items() if name.endswith(".0.mlp.gate.weight")]
for tensor in gates:
    begin, end = (start + at for at in tensor["data_offsets"])
    size = (end - begin) // tensor["shape"][0]
    for row in range(3):
        data[begin + row * size:begin + (row + 1) * size] = data[begin:begin + size]
open(sys.argv[1], "wb").write(data)
EOF

soak --model "$work/threes" --provoke 1e-5
rc=$? good=0
read -r other ties < <(counts)
[ $rc = 0 ] && [ "$other" = 0 ] && [ "$ties" -gt 0 ] && good=1
result "soak: another choice among equal experts is a tie" $good
soak --model "$model" --provoke 1e-2
rc=$? good=0
read -r other ties < <(counts)
[ $rc != 0 ] && [ "$other" -gt 0 ] && [ "$ties" = 0 ] && good=1
result "soak: another choice among others is not" $good
good=1
for seed in 1 2 3; do
    soak --model "$model" --lose --seed $seed
    rc=$?
    good=$((good && rc == 0)) # another token, or a card that is still there, is a failure
    grep -q "128 tokens.* 0 other than .*; the card was lost" "$work/out" || good=0
done
result "soak: a card that is lost changes no token" $good
