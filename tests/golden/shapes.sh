#!/usr/bin/env bash
# Shapes that published checkpoints do not show (odd head counts, tied embeddings, 5 bits, dense layers between sparse
# ones ...), made and computed by the numpy twin, which first proves itself on a vector of the public reference.
set -u
cd "$(dirname "$0")/../.." || exit 1
python=""
for p in python3 /usr/bin/python3; do
    "$p" -c 'import numpy' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "SKIP shapes: python3-numpy is not installed"
    exit 0
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
BUILD=${BUILD:-build}

result() { # name, log: by the exit code before
    if [ "$3" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && tail -n 5 "$2"; fi
}

"$python" tests/golden/twin.py check "$BUILD/golden/qwen3_5_moe_mlx_mixed" >"$dir/log" 2>&1
result "twin agrees with the public reference" "$dir/log" $?
for name in $("$python" tests/golden/twin.py list); do
    "$python" tests/golden/twin.py make "$name" "$dir/$name" >"$dir/log" 2>&1 &&
        "$BUILD/golden-check" "$dir/$name" >"$dir/log" 2>&1
    result "shape $name" "$dir/log" $?
    rm -rf "${dir:?}/$name"
done
