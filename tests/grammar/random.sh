#!/usr/bin/env bash
# test: slow
# A thousand random schemas and tools, random sampling at temperature 2: every output is valid for ajv.
# GRAMMAR_SCHEMAS: how many.
set -u
cd "$(dirname "$0")/../.." || exit 1
driver=${BUILD:-build}/grammar-sample
[ -x "$driver" ] || { echo "SKIP grammar-random: $driver is not built" && exit 0; }
command -v node >/dev/null 2>&1 || { echo "SKIP grammar-random: no node" && exit 0; }
[ -d tests/grammar/node_modules/ajv ] || { echo "SKIP grammar-random: ajv is not installed (tests/install.sh test)" && exit 0; }
node tests/grammar/random.mjs "$driver" assets/ember "${GRAMMAR_SCHEMAS:-1000}"
