#!/usr/bin/env bash
# Conversations are kept, listed, resumed with the engine's state, exported and deleted.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
[ -x "$program" ] || { echo "SKIP sessions: no $program"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset XDG_CONFIG_HOME
export HOME=$work FLASHCHAT_HOME=$PWD
says() { # name, pattern, text
    if grep -qE -- "$2" <<<"$3"; then echo "PASS sessions $1"; else echo "FAIL sessions $1: no \"$2\" in: $3"; fi
}
chat() { timeout 60 "$program" chat --no-think "$@" 2>&1; }

says "none yet" 'No conversation is kept' "$("$program" sessions)"
says "nothing to resume" 'there is no conversation to resume yet' "$(chat --resume </dev/null)"
chat >/dev/null <<<'What is the capital of France?'
says "a pipe keeps nothing" 'No conversation is kept' "$("$program" sessions)"
chat --save >/dev/null <<<'What is the capital of Italy?'
says "listed" 'What is the capital of Italy\? \(2 messages\)' "$("$program" sessions)"
id=$("$program" sessions | head -n 1 | cut -d' ' -f1)
state=$work/.config/flashchat/sessions/$id.state
says "mode" '^600 600$' "$(stat -c %a "${state%.state}.json" "$state" | tr '\n' ' ' | sed 's/ $//')"
out=$(chat --resume <<<'What is the capital of Spain?')
says "resumed" "Going on with $id, 2 messages\\.$" "$out"
says "and answers" 'Madrid' "$out"
says "both turns are kept" '\(4 messages\)' "$("$program" sessions)"
printf 'not a state' >"$state"
out=$(chat --session "$id" <<<'What is the capital of Italy?')
says "a spoilt state is read again" 'read again' "$out"
says "with the same answer" 'Rome' "$out"
says "undo" '\(4 messages\)' "$(chat --session "$id" <<<'/undo' >/dev/null; "$program" sessions)"
says "export" '^## user' "$("$program" sessions --export "$id")"
says "a bad name" 'is not the name of a conversation' "$("$program" sessions --delete ../x 2>&1)"
says "delete" 'Deleted' "$("$program" sessions --delete "$id")"
says "gone" 'No conversation is kept' "$("$program" sessions)"
