#!/usr/bin/env bash
# test: sanitized, threads
# Hostile clients (hostile.mjs) against the server before a model without weights; no memory may be left behind.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/lib.sh"
command -v node >/dev/null || { echo "SKIP hostile: no node"; exit 0; }
fast=${FM_TEST_FAST:+fast}
start_fake --connections 256 --send-seconds 5 --step-us 50
node tests/server/hostile.mjs "$U" "$fast"
# The allocator keeps some of what was freed, more in one round than in another; a leak grows with every round.
flat=no
for round in second third fourth; do
    before=$(rss)
    node tests/server/hostile.mjs "$U" fast >"$work/again" 2>&1 || { echo "FAIL $round round"; grep -A3 FAIL "$work/again"; }
    after=$(rss)
    [ "$after" -lt $((before + 40000)) ] && flat=yes && break
done
if [ $flat = yes ]; then echo "PASS memory stays flat"; else echo "FAIL memory stays flat: $before to $after kB"; fi
ok "ends cleanly" stop_server

start_fake --key secret-key-123 --log "$work/log"
code() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
is() { [ "$1" = "$2" ] || { echo "$1, not $2"; return 1; }; }
ok "no key: 401" is "$(code "$U/v1/models")" 401
ok "wrong key: 401" is "$(code -H 'Authorization: Bearer secret-key-124' "$U/v1/models")" 401
ok "longer key: 401" is "$(code -H 'Authorization: Bearer secret-key-1234' "$U/v1/models")" 401
ok "empty key: 401" is "$(code -H 'x-api-key;' "$U/v1/models")" 401
ok "bearer key: 200" is "$(code -H 'Authorization: Bearer secret-key-123' "$U/v1/models")" 200
ok "x-api-key: 200" is "$(code -H 'x-api-key: secret-key-123' "$U/v1/models")" 200
ok "health needs no key" is "$(code "$U/health")" 200
curl -s -H 'x-api-key: secret-key-123' "$U/tokenize" -d '{"content":"secret-key-123"}' >/dev/null
curl -s -H 'x-api-key: secret-key-123' "$U/v1/chat/completions" \
    -d '{"messages":[{"role":"user","content":"secret-key-123"}]}' >/dev/null
ok "drains" stop_server
ok "logs were written" test -s "$work/log/http.log"
no_secret() { ! grep -r secret-key-123 "$work/log"; }
ok "the key is in no log" no_secret
