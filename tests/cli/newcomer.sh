#!/usr/bin/env bash
# A newcomer's first day on a terminal of 78 columns, in an isolated home: the launcher's consent, the menu, chat and
# resume, the server, settings, models, a download from a local hub, pack, offload, restore, uninstall. Every screen is
# compared with tests/cli/golden (figures, paths and numbers of processes aside), none is wider than the terminal, none
# shows raw JSON, and every command ends by saying what is next.
#
#   tests/cli/newcomer.sh --update      writes the screens anew: look at them before you commit them
# test: slow
set -u
cd "$(dirname "$0")/../.." || exit 1
[ -x "${BUILD:-build}/flashchat" ] || { echo "SKIP newcomer: no ${BUILD:-build}/flashchat"; exit 0; }
command -v node >/dev/null || { echo "SKIP newcomer: no node"; exit 0; }
exec python3 tests/cli/newcomer.py "${BUILD:-build}/flashchat" "$@"
