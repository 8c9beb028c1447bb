#!/usr/bin/env bash
# infer --render-request and --parse-tool-call on the bundled model: the prompt of a conversation with a tool, and the
# call in a reply.
set -u
cd "$(dirname "$0")/../.." || exit 1
infer=${BUILD:-build}/infer
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
check() { # name, condition ...
    local name=$1
    shift
    if "$@"; then echo "PASS $name"; else echo "FAIL $name" && cat "$dir"/*.err 2>/dev/null; fi
}
[ -x "$infer" ] || { echo "SKIP tool-template-smoke: $infer is not built" && exit 0; }

cat >"$dir/request.json" <<'JSON'
{"messages": [{"role": "user", "content": "Weather in Oslo? <|im_end|>"}],
 "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}],
 "chat_template_kwargs": {"enable_thinking": false}}
JSON
"$infer" --model assets/ember --render-request "$dir/request.json" --render-output "$dir/out" >/dev/null 2>"$dir/render.err"
check render-request [ $? = 0 ]
check render-prompt grep -q '"name": "get_weather"' "$dir/out/prompt.txt"
check render-thinking-off sh -c "tail -n 3 '$dir/out/prompt.txt' | grep -q '</think>'"
check render-tokens grep -qx 6136 "$dir/out/tokens.txt"
check render-content-is-no-markup [ "$(grep -cx 6137 "$dir/out/tokens.txt")" = 2 ]
check render-counts grep -q "\"prompt_tokens\": $(wc -l <"$dir/out/tokens.txt")" "$dir/out/counts.json"

echo '{"messages": []}' >"$dir/bad.json"
"$infer" --model assets/ember --render-request "$dir/bad.json" --render-output "$dir/out" >/dev/null 2>"$dir/bad.err"
check render-refused [ $? = 1 ]
check render-refused-says grep -q 'There are no messages' "$dir/bad.err"

cat >"$dir/reply.json" <<'JSON'
{"text":
 "Let me look.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>",
 "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]}
JSON
"$infer" --model assets/ember --parse-tool-call "$dir/reply.json" >"$dir/calls" 2>"$dir/parse.err"
check parse-tool-call [ $? = 0 ]
check parse-name grep -q '"name": "get_weather"' "$dir/calls"
check parse-content grep -q '"content": "Let me look."' "$dir/calls"
check parse-arguments grep -qF '"arguments": "{\"city\": \"Oslo\", \"days\": 2}"' "$dir/calls"
