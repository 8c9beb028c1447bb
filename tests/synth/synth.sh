#!/usr/bin/env bash
# build/synth-model: every small shape is written and accepted by the readers (the program opens what it wrote); the same
# options give the same bytes; what it cannot do it refuses.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=${BUILD:-build}/synth-model
[ -x "$program" ] || { echo "SKIP synth-model: $program is not built" && exit 0; }
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT

expect() { # name, condition's exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1"; fi
}
sum() { cat "$1"/*.safetensors | sha256sum; }

for shape in tiny-qwen3.6 tiny-qwen3-next tiny-qwen3; do
    "$program" --shape $shape --skew 1 --out "$scratch/$shape" 2>"$scratch/log"
    expect "$shape is written and read back" $?
done
"$program" --shape tiny-qwen3 --bits 8 --group 32 --layers 1 --out "$scratch/q8" 2>>"$scratch/log"
expect "8 bits in groups of 32" $?
"$program" --shape tiny-qwen3 --bits 3 --group 32 --layers 1 --out "$scratch/q3" 2>>"$scratch/log"
expect "3 bits" $?

"$program" --shape tiny-qwen3 --skew 1 --out "$scratch/again" 2>>"$scratch/log"
[ "$(sum "$scratch/tiny-qwen3")" = "$(sum "$scratch/again")" ]
expect "the same options, the same bytes" $?
"$program" --shape tiny-qwen3 --skew 1 --seed 2 --out "$scratch/seed" 2>>"$scratch/log"
[ "$(sum "$scratch/tiny-qwen3")" != "$(sum "$scratch/seed")" ]
expect "another seed, other bytes" $?

"$program" --shape tiny-qwen3 --out "$scratch/again" >"$scratch/refused" 2>&1
[ $? = 1 ] && grep -q "must be missing or empty" "$scratch/refused"
expect "a directory with files is refused" $?
"$program" --shape tiny-qwen3 --group 128 --out "$scratch/g" >"$scratch/refused" 2>&1
[ $? = 1 ] && grep -q "too small for groups of 128" "$scratch/refused"
expect "groups that the shape cannot have are refused" $?
"$program" --shape qwen3.5-397b --layers 256 --bits 8 --out "$scratch/big" >"$scratch/refused" 2>&1
[ $? = 1 ] && grep -q "the disk has room for" "$scratch/refused" && [ ! -e "$scratch/big" ]
expect "a disk that is too small is refused before writing" $?
for bad in "--shape no-such --out $scratch/x" "--shape tiny-qwen3" "--shape tiny-qwen3 --vocab 100 --out $scratch/x"; do
    # shellcheck disable=SC2086
    "$program" $bad >"$scratch/refused" 2>&1
    [ $? = 2 ] && [ ! -e "$scratch/x" ]
    expect "refused: ${bad//$scratch\//}" $?
done
