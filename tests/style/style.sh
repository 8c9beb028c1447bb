#!/usr/bin/env bash
# The rules of the house (check.py), after each rule has shown that it can fail.
cd "$(dirname "$0")/../.." || exit 1
if ! command -v python3 >/dev/null; then
    echo "SKIP style: no python3"
    exit 0
fi
python3 -B tests/style/check.py --self-test && python3 -B tests/style/check.py
