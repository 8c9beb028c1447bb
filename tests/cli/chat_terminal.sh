#!/usr/bin/env bash
# flashchat chat on a pseudo terminal: Ctrl-C, end of input, thinking, tools and their questions, copying, widths, NO_COLOR,
# dumb terminals, pipes. The answers are given beforehand (the test build), but for one.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$build/flashchat-test"
unset XDG_CONFIG_HOME NO_COLOR FLASHCHAT_WIDTH VISUAL
export HOME=$top TERM=xterm LC_ALL=C.UTF-8
mkdir -p "$top/folder/sub" && echo "inside" >"$top/folder/in.txt" && echo "secret" >"$top/secret.txt"
python3 tests/cli/chat_terminal.py "$PWD/$build/flashchat-test" "$top"
