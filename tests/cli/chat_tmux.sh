#!/usr/bin/env bash
# flashchat chat on the screen of a real terminal (tmux): Markdown, a window that changes while an answer is written, many
# lines, UTF-8, paste, history, keeping and going on with a conversation.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$build/flashchat-test"
command -v tmux >/dev/null || { echo "SKIP chat_tmux: no tmux (tests/install.sh test)"; exit 0; }
unset XDG_CONFIG_HOME NO_COLOR FLASHCHAT_WIDTH TMUX
export HOME=$top LC_ALL=C.UTF-8
python3 tests/cli/chat_tmux.py "$PWD/$build/flashchat-test" "$top"
