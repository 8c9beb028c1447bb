#!/bin/sh
# Writes the table of README.md anew from docs/MEASURED.md (section "Bundled model"), or with --check says whether it is
# that table.
set -u
cd "$(dirname "$0")/.." || exit 1
table() { sed -n '/^## Bundled model/,/^## /p' docs/MEASURED.md | grep '^|'; }
made=$(awk -v table="$(table | sed 's/\\/\\\\/g')" '
    /<!-- generated: table/ { print; print table; inside = 1; next }
    /<!-- end generated/ { inside = 0 }
    !inside' README.md)
if [ "${1:-}" = --check ]; then
    [ "$made" = "$(cat README.md)" ]
else
    printf '%s\n' "$made" >README.md
fi
