#!/bin/sh
# Runs the benchmarks whose course over time is worth a line and appends them to bench/results/MACHINE.csv: date, commit,
# model, benchmark, what, value, unit, share of the limit.
#
#   bench/record.sh PROGRAM [MODEL]
set -u
program=$1
model=${2:-}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$here/results" || exit 1
name=$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.brand_string 2>/dev/null)
machine=$(printf '%s\n' "$name" | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-$//')
file=$here/results/${machine:-$(uname -m)}-$(getconf _NPROCESSORS_ONLN).csv
BENCH_COMMIT=$(git -C "$here" rev-parse --short HEAD 2>/dev/null)
export BENCH_COMMIT
[ -f "$file" ] || echo 'date,commit,model,benchmark,what,value,unit,share_of_limit' >"$file"
for part in bench moe fullbench decode prefill; do
    "$program" benchmark "$part" ${model:+--model "$model"} --csv "$file" || exit 1
done
"$program" benchmark io ${model:+--model "$model"} || echo "the drive's bandwidth could not be measured"
echo "appended to $file"
