#!/usr/bin/env bash
# The kernels' Metal text uses documented words only (words.py); it is one text without includes of ours.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
name="the Metal text uses documented words"
if ! command -v clang >/dev/null || ! command -v python3 >/dev/null; then
    echo "SKIP $name: no clang or no python3"
    exit 0
fi
if python3 tests/metal/words.py --self-test; then echo "PASS each rule of words.py can fail"; else echo "FAIL words.py"; fi
: >"$tmp/metal_stdlib"
src/gpu/metal/flatten.sh --text >"$tmp/text"
if clang -E -x c++ -nostdinc -P -D__METAL_VERSION__=300 -I"$tmp" "$tmp/text" >"$tmp/seen" 2>"$tmp/out" &&
    python3 tests/metal/words.py "$tmp/seen" >>"$tmp/out" && [ "$(grep -o 'kernel void' "$tmp/seen" | wc -l)" = \
    "$(grep -c '^    X(' src/gpu/kernels/gpu_args.h)" ]; then
    echo "PASS $name"
else
    echo "FAIL $name"
    sed 's/^/     /' "$tmp/out"
fi
