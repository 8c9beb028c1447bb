#!/bin/sh
# Writes the tables of README.md anew from docs/MEASURED.md, or with --check says whether they are those tables. A line
# <!-- generated: table of "Section" --> in README.md takes the first table below the heading "Section".
set -u
cd "$(dirname "$0")/.." || exit 1
made=$(awk '
    FNR == NR && /^##+ / { section = $0; sub(/^#+ /, "", section); next }
    FNR == NR && /^\|/ && !(section in done) { table[section] = table[section] $0 "\n"; next }
    FNR == NR { if (section in table) done[section]; next }
    /<!-- generated: table of / { print; split($0, part, "\""); printf "%s", table[part[2]]; inside = 1; next }
    /<!-- end generated/ { inside = 0 }
    !inside' docs/MEASURED.md README.md)
if [ "${1:-}" = --check ]; then
    [ "$made" = "$(cat README.md)" ]
else
    printf '%s\n' "$made" >README.md
fi
