#!/bin/sh
# Draws the course of every figure in bench/results/*.csv: its share of the machine's limit, run by run, into
# bench/results/progress.svg.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
command -v gnuplot >/dev/null || { echo "bench-plot needs gnuplot (apt-get install gnuplot-nox)" >&2 && exit 1; }
set -- "$here"/results/*.csv
[ -f "$1" ] || { echo "bench/results has no figures yet: make bench" >&2 && exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# One file for each series (model, benchmark, what without its changing numbers): run number, share in percent.
awk -v dir="$dir" 'FNR == 1 { next }
    { split($0, quoted, "\""); split(quoted[1], f, ","); what = quoted[2]; split(quoted[3], g, ",")
      sub(/,? *[0-9.]+ k?M?B( a token)? read/, "", what)
      name = f[3] " " f[4] ": " what
      if (g[4] <= 0) next
      if (!(name in number)) { number[name] = ++series; print name > (dir "/names") }
      print ++runs[name], 100 * g[4] > (dir "/" number[name]) }' "$@"
[ -f "$dir/names" ] || { echo "no figure has a limit to be compared with" >&2 && exit 1; }
{
    echo "set terminal svg size 1000,600 background 'white'; set output '$here/results/progress.svg'"
    echo "set title 'Share of the limit of the machine'; set ylabel '%'; set xlabel 'run'; set key outside right top"
    echo "set xtics 1; set yrange [0:*]"
    printf 'plot '
    n=0
    while IFS= read -r name; do
        n=$((n + 1))
        [ $n = 1 ] || printf ', '
        printf "'%s' with linespoints title '%s' noenhanced" "$dir/$n" "$(printf '%s' "$name" | tr -d "'")"
    done <"$dir/names"
    echo
} >"$dir/plot"
gnuplot "$dir/plot" && echo "bench/results/progress.svg"
