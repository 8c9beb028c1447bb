#!/usr/bin/env bash
# test: slow
# The bundled model's perplexity on held-out text is the recorded one, on the exact and on the fast path.
set -u
cd "$(dirname "$0")/../.." || exit 1
check=${BUILD:-build}/golden-check
if [ ! -x "$check" ]; then
    echo "SKIP held-out perplexity: no $check"
    exit 0
fi
one() { # name, arguments...
    local name=$1 out
    shift
    if out=$("$check" assets/ember --heldout tests/golden/ember/heldout.safetensors "$@" 2>&1); then
        echo "PASS $name"
    else
        echo "FAIL $name"
    fi
    tail -n 1 <<<"$out" | sed 's/^/     /'
}
one "held-out perplexity" --expect 1.5449
one "held-out perplexity, fast path" --fast --expect 1.5449
one "fast path's likeliest token is the exact path's" --fast --agree 98 --rows 4
one "held-out perplexity, what the assistant says" --assistant --expect 1.3766 --fast
one "8-bit conversation memory, against the exact path" --kv q8 --agree 99 --rows 1
