#!/usr/bin/env bash
# flashchat pack and verify: a packed model gives the same bits as in place; killed at any moment it ends with the same
# files; damage is found and named; what cannot be done is refused before anything is written.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
flashchat=$BUILD/flashchat golden=$BUILD/golden-check synth=$BUILD/synth-model
for p in "$flashchat" "$golden" "$synth"; do
    [ -x "$p" ] || { echo "SKIP pack: $p is not built" && exit 0; }
done
[ -d "$BUILD/golden/qwen3_5_moe_mlx4" ] || {
    echo "SKIP pack: the golden checkpoints are not unpacked (make goldens)" && exit 0
}
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
log=$scratch/log

expect() { # name, exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && tail -n 3 "$log"; fi
}
sums() { (cd "$1" && find . -type f ! -name '*.partial' | sort | xargs sha256sum); }

for m in qwen3_5_moe_mlx4 qwen3_5_moe_mlx_mixed qwen3_moe_mlx4 qwen3_next_mlx8; do
    source=$BUILD/golden/$m
    "$flashchat" pack "$source" --out "$scratch/$m" >"$log" 2>&1 &&
        "$golden" "$source" >"$scratch/place" 2>&1 &&
        "$golden" "$scratch/$m" --golden "$source/golden.safetensors" >"$scratch/packed" 2>&1 &&
        [ "$(tail -n 1 "$scratch/place")" = "$(tail -n 1 "$scratch/packed")" ] &&
        grep -q '^bits ' "$scratch/packed"
    expect "$m: the same bits packed as in place" $?
done
for m in qwen3_5_moe qwen3_5_moe_hub qwen3_next qwen3_moe; do
    "$flashchat" pack "$BUILD/golden/$m" --out "$scratch/$m" >"$log" 2>&1 &&
        "$flashchat" verify "$scratch/$m" --deep >>"$log" 2>&1 &&
        "$flashchat" plan "$scratch/$m" --no-measure >>"$log" 2>&1
    expect "$m: quantised, verified, opened" $?
done

# kill -9, again and again, at random moments
RANDOM=7
"$synth" --shape tiny-qwen3.6 --out "$scratch/source" >"$log" 2>&1
banks() { find "$scratch/killed/experts" -name '*.bank*' ! -name '*.partial' 2>/dev/null | wc -l; }
killed() { # source, name
    "$flashchat" pack "$1" --out "$scratch/whole" >"$log" 2>&1
    local i pid before unfinished=0 resumed=no
    for ((i = 0; i < 40; i++)); do
        before=$(banks)
        "$flashchat" pack "$1" --out "$scratch/killed" >>"$log" 2>&1 &
        pid=$!
        if ((i % 2)); then # at any moment; later and later, for a slow machine
            sleep "0.$((RANDOM % 2 + i / 8))$((RANDOM % 10))$((RANDOM % 10))"
        else # right after another layer is there, however fast the machine is
            while kill -0 $pid 2>/dev/null && [ "$(banks)" -le "$before" ]; do sleep 0.01; done
        fi
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        if [ -e "$scratch/killed/manifest.json" ]; then
            [ "$resumed" = yes ] && break
            rm -rf "$scratch/killed" # too fast: again from the start
        else
            unfinished=$((unfinished + 1))
            [ "$(banks)" = 0 ] || resumed=yes
        fi
    done
    "$flashchat" pack "$1" --out "$scratch/killed" >>"$log" 2>&1 && [ "$resumed" = yes ] &&
        [ "$(sums "$scratch/whole")" = "$(sums "$scratch/killed")" ] && "$flashchat" verify "$scratch/killed" --deep >>"$log" 2>&1
    expect "$2: killed $unfinished times, the same files" $?
    rm -rf "$scratch/killed"
    [ "$2" = quantised ] || rm -rf "$scratch/whole"
}
killed "$scratch/source" "laid out"
killed "$BUILD/golden/qwen3_5_moe" quantised

# a power cut: layers that were written, but not flushed
sums "$scratch/whole" >"$scratch/sums"
experts=$scratch/whole/experts
rm "$scratch/whole/manifest.json" && mv "$experts/layer_00.bank" "$experts/layer_00.bank.written" &&
    mv "$experts/layer_01.bank" "$experts/layer_01.bank.written" &&
    printf '\xff\x00\xff' |
    dd of="$experts/layer_01.bank.written" bs=1 seek=5000 conv=notrunc 2>/dev/null
"$flashchat" pack "$BUILD/golden/qwen3_5_moe" --out "$scratch/whole" >"$log" 2>&1 &&
    sums "$scratch/whole" | cmp -s - "$scratch/sums"
expect "written, not flushed, one of them damaged: the same files" $?

# damage
damage() { # file, offset
    printf '\xff\x00\xff' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
bank=$scratch/whole/experts/layer_02.bank
record=$(grep -m1 -o '"record_bytes": [0-9]*' "$scratch/whole/manifest.json" | grep -o '[0-9]*$')
cp "$bank" "$scratch/kept" && damage "$bank" $((record * 3 + 100))
"$flashchat" verify "$scratch/whole" >"$log" 2>&1 && ! "$flashchat" verify "$scratch/whole" --deep >"$log" 2>&1 &&
    grep -q "layer_02.bank: expert 3:" "$log"
expect "a damaged expert is named" $?
seq 1 200 >"$scratch/ids"
run_it() { "$BUILD/infer" --model "$scratch/whole" --prompt-tokens "$scratch/ids" --tokens 1 --ids "$@" >"$log" 2>&1; }
! run_it && grep -q "layer 2 expert 3: .*layer_02.bank at offset $((record * 3)): the bytes do not fit their checksum" "$log"
expect "a damaged expert fails the request that needs it, and is named" $?
run_it --no-checksums
expect "unless nobody compares" $?
cp "$scratch/kept" "$bank" && damage "$bank" $(($(stat -c %s "$bank") - 20))
! "$flashchat" verify "$scratch/whole" >"$log" 2>&1 && grep -q "layer_02.bank: its trailer is damaged" "$log"
expect "a damaged trailer is named" $?
cp "$scratch/kept" "$bank" && truncate -s -50000 "$bank"
! "$flashchat" verify "$scratch/whole" >"$log" 2>&1 && grep -q "layer_02.bank" "$log"
expect "a short file is named" $?
cp "$scratch/kept" "$bank" && damage "$scratch/whole/trunk.bin" 1000
! "$flashchat" verify "$scratch/whole" --deep >"$log" 2>&1 && grep -q "trunk.bin: tensor .*checksum" "$log"
expect "a damaged tensor is named" $?
sed -i 's/"version": 1/"version": 9/' "$scratch/whole/manifest.json"
! "$flashchat" plan "$scratch/whole" >"$log" 2>&1 && grep -q "version: 9" "$log"
expect "another version is refused" $?

# refused
! "$flashchat" pack "$BUILD/golden/qwen3_5_moe" --bits 8 --out "$scratch/qwen3_5_moe" >"$log" 2>&1 &&
    grep -q "other settings" "$log"
expect "other settings into the same directory" $?
"$flashchat" pack "$BUILD/golden/qwen3_5_moe" --out "$scratch/qwen3_5_moe" >"$log" 2>&1 && grep -q "packed already" "$log"
expect "the same again does nothing" $?
! "$flashchat" pack "$scratch/qwen3_5_moe" --out "$scratch/x" >"$log" 2>&1 && [ ! -e "$scratch/x" ] &&
    grep -q "packed already" "$log"
expect "a packed model as the source" $?
! "$flashchat" pack "$BUILD/golden/qwen3_5_moe" --group 128 --out "$scratch/x" >"$log" 2>&1 && [ ! -e "$scratch/x" ] &&
    grep -q "do not divide into groups of 128" "$log"
expect "groups that do not fit" $?
"$flashchat" pack "$BUILD/golden/qwen3_5_moe" --out "$scratch/x" --dry-run >"$log" 2>&1 && [ ! -e "$scratch/x" ]
expect "a dry run writes nothing" $?
if command -v flock >/dev/null; then
    mkdir -p "$scratch/busy" && touch "$scratch/busy/packing.json"
    ! flock "$scratch/busy/packing.json" "$flashchat" pack "$BUILD/golden/qwen3_5_moe" --out "$scratch/busy" >"$log" 2>&1 &&
        grep -q "another process" "$log"
    expect "two at once" $?
fi
mkdir -p "$scratch/small"
if mount -t tmpfs -o size=300k none "$scratch/small" 2>/dev/null; then
    ! "$flashchat" pack "$BUILD/golden/qwen3_5_moe" --out "$scratch/small/q4" >"$log" 2>&1 &&
        grep -q "the disk has room for" "$log" &&
        [ -z "$(find "$scratch/small" -name '*.bank*' -o -name 'trunk*')" ]
    expect "a disk that is too small" $?
    umount "$scratch/small"
else
    echo "SKIP a disk that is too small: no small file system can be made here"
fi
