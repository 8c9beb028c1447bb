#!/usr/bin/env bash
# The OpenAI, Anthropic and Vercel SDKs (sdk.mjs) against flashchat serve with the bundled model.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/../server/lib.sh"
command -v node >/dev/null || { echo "SKIP sdk: no node"; exit 0; }
[ -d tests/clients/node_modules/openai ] || { echo "SKIP sdk: its npm packages are not installed (tests/install.sh)"; exit 0; }
start_serve --model assets/ember --scripted-reply tests/clients/script.json --log-dir "$work/log"
node tests/clients/sdk.mjs "$U"
ok "sdk: the server ends cleanly" stop_server
