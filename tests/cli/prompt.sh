#!/usr/bin/env bash
# test: sanitized
# flashchat prompt, chat, plan and infer as a person or a script uses them: options and their mistakes, help, standard input,
# streaming, JSON, seeds, Ctrl-C.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$flashchat"
question="What is the capital of France?"

# ---- what is not understood: exit code 2, a suggestion where one is near

go "$flashchat" promt x
refused "unknown command" 2 "unknown command promt" "Did you mean prompt\?"
go "$flashchat" --versoin
refused "unknown global option" 2 "Did you mean --version\?"
go "$flashchat" zzzzzzzzz
refused "unknown command without a suggestion" 2 "unknown command zzzzzzzzz$"
go "$flashchat" prompt --tokns 3 x
refused "unknown option" 2 "unknown option --tokns" "Did you mean --tokens\?"
go "$flashchat" prompt --no-thinc x
refused "unknown negated option" 2 "Did you mean --no-think\?"
go "$flashchat" prompt
refused "no text" 2 "what is the question"
go "$flashchat" prompt "  "
refused "empty text" 2 "empty"
go "$flashchat" prompt -
refused "empty standard input" 2 "standard input is empty"
go "$flashchat" prompt --tokens
refused "option without its value" 2 "--tokens needs a value"
go "$flashchat" prompt --tokens --raw x
refused "option followed by an option" 2 "--tokens needs a value"
for wrong in "--tokens 0" "--tokens many" "--tokens 1.5" "--temperature -1" "--temperature nan" "--temperature warm" \
    "--top-p 1.5" "--min-p 2" "--top-k -1" "--seed -1" "--seed 1x" "--repetition-penalty 0" "--presence-penalty 1e9" \
    "--memory lots" "--memory -1" "--memory 0" "--memory 1Q" "--memory 99999999999T" "--threads 0" "--context 0"; do
    # shellcheck disable=SC2086 # an option and its value
    go "$flashchat" prompt $wrong x
    refused "wrong value: $wrong" 2 "${wrong% *}" "must be"
done
go "$flashchat" prompt --raw=yes x
refused "value for a flag" 2 "--raw takes no value"
go "$flashchat" chat hello
refused "text for chat" 2 "hello"
go "$flashchat" plan a b
refused "two models for plan" 2 "one model"
go "$flashchat" help promt
refused "help of an unknown command" 2 "Did you mean prompt\?"

# ---- help and version

go "$flashchat" --version
answered "version" '^flashchat [0-9]+\.[0-9]+\.[0-9]+~$'
go "$flashchat" --help
answered "help" 'usage: flashchat COMMAND.*prompt .*chat .*plan '
cp "$top/out" "$top/help"
go "$flashchat" help
if cmp -s "$top/out" "$top/help"; then pass "help is --help"; else lose "help is --help" "another text"; fi
for command in prompt chat plan; do
    go "$flashchat" $command --help
    answered "help of $command" "^flashchat $command: .*usage: flashchat $command .*--model .*--memory .*--help"
    [ "$(awk 'length > 100' "$top/out" | wc -l)" = 0 ] || lose "help of $command" "lines longer than 100 columns"
done
go "$flashchat" prompt --help
for option in model tokens temperature top-p top-k min-p presence-penalty repetition-penalty seed system think raw memory \
    threads exact timing json; do
    grep -qE -- "^  --$option" "$top/out" || lose "help of prompt" "no --$option"
done
if [ -x "$infer" ]; then
    go "$infer" --help
    for option in model prompt prompt-tokens tokens k timing freq collect-routing memory threads exact cpu; do
        grep -qE -- "^  --$option " "$top/out" || lose "help of infer" "no --$option"
    done
    go "$infer"
    refused "infer without input" 2 "--prompt"
    go "$infer" --prompt x --cpuu scalar
    refused "infer: unknown option" 2 "Did you mean --cpu\?"
fi

# ---- answers

paris='^The capital of France is Paris\.~$'
go "$flashchat" prompt "$question"
answered "an answer" "$paris"
for part in "prompt tokens" "first token after" "prefill [0-9.]+ tok/s" "decode [0-9.]+ tok/s" "experts: [0-9.]+ %" \
    "read from disk" "peak memory"; do
    grep -qE "$part" "$top/err" || lose "footer" "no \"$part\""
done
# shellcheck disable=SC2086 # words without quotes around them
go "$flashchat" prompt $question
answered "words without quotes" "$paris"
go "$flashchat" prompt --quiet "$question"
answered "quiet" "$paris"
if [ -s "$top/err" ]; then lose "quiet" "something on standard error"; else pass "quiet: no footer"; fi
echo "$question" | "$flashchat" prompt - >"$top/out" 2>"$top/err"
code=$?
answered "standard input" "$paris"
go "$flashchat" prompt --memory 48M --threads 1 "$question"
answered "under a low ceiling" "$paris"
go "$flashchat" prompt --exact "$question"
answered "exact" "$paris"
go "$flashchat" prompt --timing "$question"
answered "timing" "$paris"
grep -q "attention [0-9.]*, DeltaNet" "$top/err" || lose "timing" "no times"
go "$flashchat" prompt --tokens 3 "$question"
answered "limit of tokens" '^The capital of~$'
grep -q "limit of --tokens" "$top/err" || lose "limit of tokens" "not said"
go "$flashchat" prompt --tokens=3 --raw -- "--help"
answered "text that looks like an option" '.'
(cd / && "$OLDPWD/$flashchat" prompt "$question") >"$top/out" 2>"$top/err" </dev/null
code=$?
case $flashchat in /*) ;; *) answered "from another directory" "$paris" ;; esac
go "$flashchat" prompt --think "$question"
answered "thoughts are not in the answer" "$paris"
[ "$(wc -l <"$top/err")" -ge 3 ] || lose "thoughts are not in the answer" "no thought on standard error"
go "$flashchat" prompt --model assets/ember "$question"
answered "model by directory" "$paris"
go "$flashchat" prompt --model ember "$question"
answered "model by id" "$paris"

# Special tokens in what a person writes are text: with them recognised the user's turn would end here.
go "$flashchat" prompt --json --tokens 1 "a"
plain=$(sed -n 's/.*"prompt_tokens": \([0-9]*\).*/\1/p' "$top/out")
go "$flashchat" prompt --json --tokens 1 "a<|im_end|>"
marked=$(sed -n 's/.*"prompt_tokens": \([0-9]*\).*/\1/p' "$top/out")
if [ -n "$plain" ] && [ "$marked" -ge $((plain + 3)) ]; then
    pass "content does not become markup"
else
    lose "content does not become markup" "<|im_end|> took $((marked - plain)) tokens"
fi

# ---- seeds

sample() { "$flashchat" prompt --quiet --temperature 1.5 --tokens 60 "$@" "Tell me a story." 2>/dev/null; }
a=$(sample --seed 1) b=$(sample --seed 1 --threads 1 --memory 48M) c=$(sample --seed 2)
if [ -n "$a" ] && [ "$a" = "$b" ]; then pass "same seed, same answer"; else echo "FAIL same seed, same answer: $a / $b"; fi
if [ "$a" != "$c" ]; then pass "other seed, other answer"; else echo "FAIL other seed, other answer"; fi

# ---- JSON

go "$flashchat" prompt --json --think "$question"
if python3 - "$top/out" <<'END'; then pass "JSON"; else lose "JSON" "not as expected"; fi
import json, sys
with open(sys.argv[1]) as f:
    lines = f.read().split("\n")
assert len(lines) == 2 and lines[1] == "", "one line"
d = json.loads(lines[0])
assert d["text"].strip() == "The capital of France is Paris.", d["text"]
assert d["thought"].strip() and d["finish"] == "stop"
for key in ("prompt_tokens", "tokens", "expert_requests", "expert_hits", "expert_read_bytes", "peak_memory_bytes"):
    assert isinstance(d[key], int) and d[key] > 0, key
for key in ("seconds_to_first_token", "prefill_tokens_per_second", "decode_tokens_per_second"):
    assert d[key] > 0, key
assert 0 <= d["expert_hit_rate"] <= 1
END
[ ! -s "$top/err" ] || lose "JSON" "something on standard error"
go "$flashchat" plan --json assets/ember
if python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert d["fits"] and d["floor"] < d["memory_limit"] and d["memory_read_bytes_per_second"] > 1e7
assert d["layers"] == 8 and d["experts"] == 64 and d["experts_per_token"] == 6' "$top/out"; then
    pass "plan as JSON"
else
    lose "plan as JSON" "not as expected"
fi
go "$flashchat" plan --memory 1M
answered "plan of what does not fit" 'TOO SMALL'
go "$flashchat" plan --memory 45M
answered "plan" 'trunk .*KV cache .*state .*scratch .*floor .*cache .*memory .*tok/s.*disk .*tok/s'

# ---- streaming: the first words are there long before the last

"$flashchat" prompt --raw --tokens 400 --temperature 1 "Once upon a time" 2>/dev/null | {
    IFS= read -r -n 10 first
    begin=$(date +%s%N)
    rest=$(cat)
    ms=$((($(date +%s%N) - begin) / 1000000))
    if [ -n "$first" ] && [ ${#rest} -gt 200 ] && [ $ms -ge 20 ]; then
        pass "streaming"
    else
        echo "FAIL streaming: \"$first\", then ${#rest} characters in $ms ms"
    fi
}
if [ -e /dev/full ]; then
    "$flashchat" prompt "$question" >/dev/full 2>"$top/err" </dev/null
    code=$?
    : >"$top/out"
    if [ $code = 1 ] && grep -q "cannot write" "$top/err"; then pass "full disk"; else lose "full disk" "exit code $code"; fi
fi

# ---- Ctrl-C: what there is stays, the footer says so, nothing hangs

setsid "$flashchat" prompt --raw --tokens 100000 --temperature 1 "Once upon a time" >"$top/out" 2>"$top/err" \
    </dev/null &
pid=$!
for _ in $(seq 100); do [ -s "$top/out" ] && break || sleep 0.05; done
kill -INT $pid
wait $pid
code=$?
if [ $code = 130 ] && [ -s "$top/out" ] && grep -q interrupted "$top/err"; then
    pass "Ctrl-C"
else
    lose "Ctrl-C" "exit code $code, or no text, or not said"
fi

# ---- chat

say() { printf '%s\n' "$@" | "$flashchat" chat "${options[@]}" >"$top/out" 2>"$top/err"; code=$?; }
options=(--quiet)
say "$question" "And of Italy?" /quit "never said"
answered "chat remembers" '^The capital of France is Paris\.~The capital of Italy is Rome\.~$'
say "$question" /clear "And of Italy?"
if grep -q "Rome" "$top/out"; then lose "/clear forgets" "it still knows"; else pass "/clear forgets"; fi
say /help
answered "/help" '/new .*/resume .*/undo .*/quit '
say /qit
answered "unknown command in chat" 'Did you mean /quit'
say "" "   " "$question"
answered "empty lines in chat" "$paris"
options=()
say "$question" "And of Italy?"
if grep -qE '\([0-9]+ known already\)' "$top/err"; then
    pass "chat reuses what it computed"
else
    lose "chat reuses what it computed" "no reuse"
fi
options=(--quiet --context 64)
say "$question" "Tell me a long story about a dragon and a knight who walk through many countries and never come home again." \
    "$question"
if [ $code = 0 ] && grep -q "context window" "$top/err" && [ "$(grep -c Paris "$top/out")" -ge 1 ]; then
    pass "chat beyond its window goes on"
else
    lose "chat beyond its window goes on" "exit code $code, or no message"
fi
