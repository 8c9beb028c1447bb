#!/usr/bin/env bash
# The transcript at the top of the README is what the command really prints, its table that of docs/MEASURED.md.
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ ! -x build/flashchat ]; then
    echo "SKIP readme transcript: no build/flashchat"
    exit 0
fi
transcript=$(sed -n '/<!-- generated: transcript/,/<!-- end generated/p' README.md | sed -n 's/^    //p')
command=$(sed -n 's/^\$ //p' <<<"$transcript" | head -n 1)
wanted=$(sed -n '2,$p' <<<"$transcript")
found=$(eval "$command" 2>/dev/null </dev/null)
if [ -n "$wanted" ] && [ "$found" = "$wanted" ]; then
    echo "PASS readme transcript"
else
    echo "FAIL readme transcript: $command"
    diff <(echo "$wanted") <(echo "$found") | sed 's/^/     /'
fi
if sh tools/readme.sh --check; then
    echo "PASS readme table"
else
    echo "FAIL readme table: not the one of docs/MEASURED.md (tools/readme.sh writes it)"
fi
