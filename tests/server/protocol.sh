#!/usr/bin/env bash
# test: sanitized, threads
# What the server says (protocol.mjs), who may ask (CORS, TLS), what its logs keep, and how it ends.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
command -v node >/dev/null || { echo "SKIP protocol: no node"; exit 0; }
is() { [ "$1" = "$2" ] || { echo "$1, not $2"; return 1; }; }
has() { grep -qiE -- "$1" <<<"$2" || { echo "no $1 in: $2"; return 1; }; }
hasnt() { ! has "$1" "$2" >/dev/null || { echo "$1 in: $2"; return 1; }; }
start_fake --context 1024
node tests/server/protocol.mjs "$U"
ok "ends cleanly" stop_server

start_fake --cors https://app.example --log "$work/log" --log-max 4000 --key secret-key-123
head=$(curl -si -X OPTIONS -H 'Origin: https://app.example' -H 'Access-Control-Request-Method: POST' "$U/v1/chat/completions")
ok "cors: preflight" has '^HTTP/1.1 204' "$head"
ok "cors: the origin" has '^access-control-allow-origin: https://app.example' "$head"
ok "cors: the headers" has '^access-control-allow-headers: .*authorization' "$head"
head=$(curl -si -H 'Origin: https://app.example' -H 'x-api-key: secret-key-123' "$U/v1/models")
ok "cors: an answer" has '^access-control-allow-origin: https://app.example' "$head"
head=$(curl -si -H 'Origin: https://evil.example' "$U/v1/models")
ok "cors: others get 403" has '^HTTP/1.1 403' "$head"
ok "cors: and no header" hasnt 'access-control-allow-origin' "$head"
for i in $(seq 60); do curl -s -o /dev/null -H "Authorization: Bearer secret-key-123" "$U/health?secret-key-123=$i"; done
ok "logs: rotated" test -s "$work/log/http.log.1"
small() { [ "$(stat -c %s "$work/log/http.log")" -lt 5000 ]; }
ok "logs: bounded" small
private() { [ -z "$(find "$work/log" -type f -perm /077)" ]; }
ok "logs: private" private
curl -s -o /dev/null -H 'x-api-key: secret-key-123' "$U/v1/chat/completions" \
    -d '{"messages":[{"role":"user","content":"my key is secret-key-123"}]}'
ok "logs: requests are kept" grep -rq 'my key is' "$work/log/debug"
clean() { ! grep -rq secret-key-123 "$work/log"; }
ok "logs: the key is in none" clean
ok "ends cleanly" stop_server

# A stream that runs is finished; new requests are turned away; then the process ends by itself.
start_fake --step-us 2000
curl -sN "$U/v1/chat/completions" -d '{"stream":true,"messages":[{"role":"user","content":"long:800"}]}' >"$work/stream" &
client=$!
until grep -q '"content":"x"' "$work/stream"; do sleep 0.05; done
kill -TERM "$server_pid"
wait "$client"
late=$(curl -s -o /dev/null -w '%{http_code}' "$U/v1/models")
ok "drain: the stream is whole" is "$(grep -o '"content":"x"' "$work/stream" | wc -l)" 800
ok "drain: with its end" grep -q 'DONE' "$work/stream"
ok "drain: nothing new" has '^(503|000)$' "$late"
ok "drain: the process ends" stop_server

command -v openssl >/dev/null || { echo "SKIP tls: no openssl"; exit 0; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -keyout "$work/key" -out "$work/cert" 2>/dev/null
start_fake --cert "$work/cert" --cert-key "$work/key"
U=${U/http:/https:}
ok "tls: with the certificate" is "$(curl -s --cacert "$work/cert" --resolve "localhost:${U##*:}:127.0.0.1" \
    -o /dev/null -w '%{http_code}' "https://localhost:${U##*:}/health")" 200
ok "tls: not without it" is "$(curl -s -o /dev/null -w '%{http_code}' "$U/health")" 000
said=$(curl -sk "$U/v1/chat/completions" -d '{"messages":[{"role":"user","content":"hello"}]}')
ok "tls: an answer" has 'You said: hello' "$said"
said=$(curl -skN "$U/v1/chat/completions" -d '{"stream":true,"messages":[{"role":"user","content":"hello"}]}')
ok "tls: a stream" has 'DONE' "$said"
ok "tls: plain text is refused" is "$(curl -s -o /dev/null -w '%{http_code}' "${U/https:/http:}/health")" 000
ok "ends cleanly" stop_server
