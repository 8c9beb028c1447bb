#!/usr/bin/env bash
# A server whose card is lost in a request (--gpu host:N: the N-th call of the processor that plays it fails): the request goes
# on, the tokens are the processor's. Where the processor has not the memory, requests fail with 503 and say why.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
ask() { # prompt
    curl -s -o "$work/answer" -w '%{http_code}' "$U/v1/completions" \
        -d "{\"prompt\":\"$1\",\"max_tokens\":12,\"temperature\":0}" >"$work/code"
    sed -E 's/.*"text": ?("[^"]*").*/\1/' "$work/answer"
}
serve() { start_serve --model assets/ember --exact --threads 2 --sessions 1 --log-dir "$work/log" --no-prompt-cache "$@"; }
code() { [ "$(cat "$work/code")" = "$1" ] || { cat "$work/code" "$work/answer"; return 1; }; }
says() { curl -s "$U/$1" | tee "$work/answer" | grep -q "$2" || { cat "$work/answer"; return 1; }; }
same() { [ -n "$1" ] && [ "$1" = "$2" ] || { echo "$1 is not $2"; return 1; }; }

serve --gpu off
ok "card lost: health without a card" says health \
    '"placement":{"layers":"all layers on the processor","memory_limit":[1-9][0-9]*}}'
first=$(ask "Once upon a time")
second=$(ask "The capital of")
ok "card lost: the processor's answers" stop_server
serve --gpu host:200
ok "card lost: health says what is on it" says health \
    '"placement":{"layers":"embedding and layers 0-7 and the head on the card","memory_limit":[0-9]*,"card":"host","vram_limit":'
ok "card lost: metrics: not yet" says metrics '^flashchat:gpu_lost 0$'
ok "card lost: the request goes on" same "$(ask "Once upon a time")" "$first"
ok "card lost: with 200" code 200
ok "card lost: health says so" says health '"layers":"the graphics card was lost: [^"]*","memory_limit":[0-9]*}'
ok "card lost: metrics too" says metrics '^flashchat:gpu_lost 1$'
ok "card lost: so does the next one" same "$(ask "The capital of")" "$second"
ok "card lost: the server ends cleanly" stop_server
ok "card lost: it was said once" test "$(grep -c 'was lost' "$work/log/server.log")" = 1
ok "card lost: the processor goes on" grep -q 'the processor goes on' "$work/log/server.log"

least() { # floor in MiB, with the options of the server
    "$BUILD/flashchat-test" plan assets/ember --no-measure --json --exact --threads 2 --context 8192 "$@" |
        sed -nE 's/ *"floor": ([0-9]+),/\1/p' | awk '{ print int($1 / 1048576) + 1 }'
}
card=$(least --gpu host) alone=$(least --gpu off)
if [ $((card + 4)) -lt "$alone" ]; then
    rm -r "$work/log"
    serve --gpu host:100 --context 8192 --memory "$(((card + alone) / 2))M"
    ask "Once upon a time" >/dev/null
    ok "card lost: no memory for the processor is a 503" code 503
    ok "card lost: which says why" grep -q 'was lost.*cannot take over.*memory limit' "$work/answer"
    ask "The capital of" >/dev/null
    ok "card lost: and again" code 503
    ok "card lost: the server without a machine ends cleanly" stop_server
else
    echo "FAIL card lost: floors of $card and $alone MiB leave no room for the test"
fi
