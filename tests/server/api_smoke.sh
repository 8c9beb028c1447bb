#!/usr/bin/env bash
# curl through every endpoint of flashchat serve with the bundled model: what each answers, and how it refuses. One line
# for each thing that was checked.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
command -v curl >/dev/null || { echo "SKIP api-smoke: no curl"; exit 0; }
command -v python3 >/dev/null || { echo "SKIP api-smoke: no python3"; exit 0; }
start_serve --model assets/ember --log-dir "$work/log"
ask='"messages":[{"role":"user","content":"What is the capital of France?"}]'

# check NAME STATUS CONDITION PATH [curl's words]: the status, and a condition on the answer: d as JSON, t as text, ev as
# the list of events (type, data) of a stream.
check() {
    local name=$1 status=$2 condition=$3 path=$4 got
    shift 4
    got=$(curl -sS --noproxy '*' --max-time 120 -o "$work/answer" -w '%{http_code}' "$U$path" "$@" 2>"$work/last") ||
        got=$(cat "$work/last")
    if [ "$got" = "$status" ] && python3 - "$work/answer" "$condition" >"$work/last" 2>&1 <<'END'
import json, sys
t = open(sys.argv[1], encoding='utf-8').read()
d, ev = None, []
try:
    d = json.loads(t)
except ValueError:
    for block in t.split('\n\n'):
        data = [l[6:] for l in block.split('\n') if l.startswith('data: ')]
        name = [l[7:] for l in block.split('\n') if l.startswith('event: ')]
        if data:
            ev.append((name[0] if name else '', json.loads(data[0]) if data[0] != '[DONE]' else '[DONE]'))
assert eval('(' + sys.argv[2] + ')'), t[:600]
END
    then
        echo "PASS api-smoke: $name"
    else
        echo "FAIL api-smoke: $name: status $got, not $status, or not: $condition"
        tail -n 3 "$work/last" | cut -c 1-700
    fi
}
post() { # NAME STATUS CONDITION PATH BODY
    check "$1" "$2" "$3" "$4" -H 'Content-Type: application/json' -d "$5"
}

check "GET /health says ok" 200 'd["status"] == "ok" and d["model"] == "ember"' /health
check "GET / lists the endpoints" 200 '"/v1/messages" in d["endpoints"]' /
check "GET /v1 does too" 200 '"/v1/responses" in d["endpoints"]' /v1
head_of() { curl -sSI --noproxy '*' --max-time 60 "$U/" | grep -q '^HTTP/1.1 200'; }
ok "api-smoke: HEAD / (Claude Code begins with it)" head_of
check "GET /v1/models: OpenAI's list" 200 'd["object"] == "list" and d["data"][0]["id"] == "ember"' /v1/models
check "GET /v1/models: the list that Codex reads" 200 'isinstance(d["models"], list)' /v1/models
check "GET /v1/models/ember" 200 'd["id"] == "ember" and d["context_window"] > 0' /v1/models/ember
check "GET /v1/models/other is 404" 404 'd["error"]["message"]' /v1/models/other
post "POST /tokenize" 200 'd["count"] == len(d["tokens"]) > 2' /tokenize '{"content": "Paris is a city"}'
post "POST /tokenize with pieces" 200 '"".join(p["piece"] for p in d["tokens"]) == "A b c"' /tokenize \
    '{"content": "A b c", "with_pieces": true}'
post "POST /tokenize without content is 400" 400 '"content" in d["error"]["message"]' /tokenize '{}'
post "POST /detokenize gives the text back" 200 'd["content"] == "Paris is a city"' /detokenize \
    "{\"tokens\": $(curl -s --noproxy '*' "$U/tokenize" -d '{"content": "Paris is a city"}' |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["tokens"])')}"
post "POST /apply-template" 200 '"capital of France" in d["prompt"] and len(d["tokens"]) > 8' /apply-template "{$ask}"
post "POST /v1/chat/completions" 200 '"Paris" in d["choices"][0]["message"]["content"] and d["usage"]["total_tokens"] > 0' \
    /v1/chat/completions "{$ask}"
turns=${ask%]}', {"role":"assistant","content":"The capital of France is Paris."}, {"role":"user","content":"And of Italy?"}]'
post "POST /v1/chat/completions, the next turn: the first is not computed again" 200 \
    'd["usage"]["prompt_tokens_details"]["cached_tokens"] > 10' /v1/chat/completions "{$turns}"
post "POST /v1/chat/completions, streaming: text, usage, [DONE]" 200 \
    '"Paris" in "".join(e[1]["choices"][0]["delta"].get("content") or "" for e in ev[:-2] if e[1]["choices"]) and
     ev[-2][1]["usage"]["completion_tokens"] > 0 and ev[-1][1] == "[DONE]"' \
    /v1/chat/completions "{$ask, \"stream\": true, \"stream_options\": {\"include_usage\": true}}"
format='"response_format":{"type":"json_schema","json_schema":{"name":"a","strict":true,"schema":{"type":"object",
    "properties":{"city":{"type":"string","maxLength":20}},"required":["city"],"additionalProperties":false}}}'
post "POST /v1/chat/completions, JSON by schema" 200 'list(json.loads(d["choices"][0]["message"]["content"])) == ["city"]' \
    /v1/chat/completions "{$ask, $format}"
tool='"tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":
    {"type":"string","maxLength":20}},"required":["city"]}}}],"tool_choice":"required"'
post "POST /v1/chat/completions, a call that is required" 200 \
    'd["choices"][0]["finish_reason"] == "tool_calls" and
     d["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"' /v1/chat/completions "{$ask, $tool}"
post "POST /v1/chat/completions, an unknown field is 400 and named" 400 '"frobnicate" in d["error"]["message"]' \
    /v1/chat/completions "{$ask, \"frobnicate\": 1}"
post "POST /v1/chat/completions, another model is 404" 404 '"other" in d["error"]["message"]' \
    /v1/chat/completions "{$ask, \"model\": \"other\"}"
post "POST /v1/chat/completions, no JSON is 400" 400 'd["error"]["type"] == "invalid_request_error"' \
    /v1/chat/completions '{"messages": ['
post "POST /v1/completions" 200 'd["object"] == "text_completion" and d["usage"]["completion_tokens"] <= 5' \
    /v1/completions '{"prompt": "The capital of", "max_tokens": 5}'
post "POST /v1/responses" 200 'd["status"] == "completed" and "Paris" in d["output"][-1]["content"][0]["text"]' \
    /v1/responses '{"input": "What is the capital of France?"}'
post "POST /v1/responses, streaming: first and last event" 200 \
    'ev[0][0] == "response.created" and ev[-1][0] == "response.completed"' \
    /v1/responses '{"input": "What is the capital of France?", "stream": true}'
post "POST /v1/responses, previous_response_id is 400" 400 '"previous_response_id" in d["error"]["message"]' \
    /v1/responses '{"input": "a", "previous_response_id": "resp_1"}'
post "POST /v1/messages" 200 'd["type"] == "message" and "Paris" in d["content"][0]["text"] and d["stop_reason"] == "end_turn"' \
    /v1/messages "{\"max_tokens\": 100, $ask}"
post "POST /v1/messages, streaming: first and last event" 200 'ev[0][0] == "message_start" and ev[-1][0] == "message_stop"' \
    '/v1/messages?beta=true' "{\"max_tokens\": 100, \"stream\": true, $ask}"
post "POST /v1/messages, Anthropic's error" 400 'd["type"] == "error" and "messages" in d["error"]["message"]' \
    /v1/messages '{"max_tokens": 5, "messages": []}'
post "POST /v1/messages/count_tokens" 200 'd["input_tokens"] > 5' /v1/messages/count_tokens "{$ask}"
post "POST /v1/embeddings is 404 and says why" 404 '"embeddings" in d["error"]["message"]' /v1/embeddings '{"input": "a"}'
check "GET /v1/chat/completions is 405" 405 'd["error"]["message"]' /v1/chat/completions
check "GET /nowhere is 404" 404 'd["error"]["message"]' /nowhere
check "a page of another origin is 403" 403 'd["error"]["message"]' /v1/models -H 'Origin: https://example.com'
for metric in http_requests_total generations_total prompt_tokens_total tokens_predicted_total cached_tokens_total \
    requests_processing requests_deferred expert_hits_total expert_misses_total expert_evictions_total expert_read_bytes_total \
    expert_prefetch_used_total expert_prefetch_wasted_total time_to_first_token_seconds_count; do
    check "GET /metrics has $metric" 200 "'flashchat:$metric' in t" /metrics
done
ok "api-smoke: the server ends cleanly" stop_server
