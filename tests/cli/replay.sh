#!/usr/bin/env bash
# A recorded routing trace, replayed, gives the same tokens; one of another model is refused. (Hits depend on how
# idle the disk was while looking ahead.)
set -u
cd "$(dirname "$0")/../.." || exit 1
infer=${BUILD:-build}/infer
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
run() { "$infer" --prompt "Once upon a time" --tokens 24 --ids --ignore-stop --memory 64M "$@" 2>"$dir/err"; }

run --collect-routing "$dir/trace" >"$dir/recorded" && grep experts "$dir/err" | cut -d, -f1 >"$dir/hits"
run --route-trace "$dir/trace" >"$dir/replayed"
if [ -s "$dir/recorded" ] && cmp -s "$dir/recorded" "$dir/replayed"; then echo "PASS replay: the same tokens"
else echo "FAIL replay: the same tokens" && cat "$dir/err"; fi
if grep experts "$dir/err" | cut -d, -f1 | cmp -s - "$dir/hits"; then echo "PASS replay: as many experts"
else echo "FAIL replay: as many experts" && cat "$dir/hits" "$dir/err"; fi
echo '{"tok": 1, "layers": [[0, 1, 2]]}' >"$dir/other"
run --route-trace "$dir/other" >/dev/null
if [ $? = 1 ] && grep -q "a trace of 1 layers" "$dir/err"; then echo "PASS replay: another model's trace is refused"
else echo "FAIL replay: another model's trace is refused" && cat "$dir/err"; fi
