#!/usr/bin/env bash
# Every GPU kernel against the scalar definition: on the processor always, on a card where there is one.
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
"$BUILD/gpu-check" host
out=$("$BUILD/gpu-check" cuda)
case $? in
77) echo "SKIP kernels on a card: ${out#SKIP gpu-check cuda: }" ;;
*) echo "$out" ;;
esac
