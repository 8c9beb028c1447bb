#!/usr/bin/env bash
# The settings: precedence, problems named with their lines, atomic changes, the wizard in a plain pipe, the documentation.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$PWD/${BUILD:-build}/flashchat
[ -x "$program" ] || { echo "SKIP config: no $program"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for v in $(compgen -e FLASHCHAT_); do unset "$v"; done
unset XDG_CONFIG_HOME HF_HOME HF_HUB_CACHE NO_COLOR
export HOME=$work/home FLASHCHAT_HOME=$PWD
mkdir -p "$HOME"
file=$HOME/.config/flashchat/config
bad=0
same() { # name, found, wanted
    if [ "$2" = "$3" ]; then echo "PASS config $1"; else echo "FAIL config $1: found \"$2\", wanted \"$3\""; bad=1; fi
}
has() { # name, pattern, text
    if grep -qE -- "$2" <<<"$3"; then echo "PASS config $1"; else echo "FAIL config $1: no \"$2\" in: $3"; bad=1; fi
}
run() { "$program" config "$@" 2>&1; }

same "documentation is in sync" "$(run docs)" "$(cat docs/CONFIG.md)"

# flag > environment > file > registry > built in
same "registry default" "$(run get REASONING)" off
has "registry origin" 'the model, ember' "$(run explain REASONING)"
same "built in" "$(run get MAX_TOKENS)" 4096
run set MAX_TOKENS 100 >/dev/null
same "file" "$(run get MAX_TOKENS)" 100
has "file origin" 'line 3 of' "$(run explain MAX_TOKENS)"
same "environment" "$(FLASHCHAT_MAX_TOKENS=200 run get MAX_TOKENS)" 200
same "flag" "$(FLASHCHAT_MAX_TOKENS=200 run get MAX_TOKENS --max-tokens 300)" 300
same "flag with =" "$(run get MAX_TOKENS --max-tokens=301)" 301
same "file over registry" "$(run set TEMPERATURE 0.5 >/dev/null; run get TEMPERATURE)" 0.5
same "mode of the file" "$(stat -c %a "$file")" 600
same "on/off flags" "$(run get EXACT --exact) $(FLASHCHAT_EXACT=on run get EXACT --no-exact)" "on off"

# a file of one's own, and no other
printf 'MAX_TOKENS="7"\n' >"$work/other"
same "--config FILE" "$(run get MAX_TOKENS --config "$work/other")" 7
has "--config without the file" 'nothere' "$(run get MAX_TOKENS --config "$work/nothere")"

# what is wrong is named with its line and stops other commands
cp "$file" "$work/good"
printf 'TEMPERTURE="1"\nTOP_P="7"\nMODEL=a b\nTOP_K="1\nMIN_P="0.1"\nMIN_P="0.2"\nnonsense\n' >"$file"
out=$("$program" models 2>&1)
rc=$?
same "problems stop other commands" $rc 2
has "unknown key" 'line 1: there is no setting TEMPERTURE; did you mean TEMPERATURE' "$out"
has "bad value" 'line 2: TOP_P: "7" is not a number from 0.001 to 1' "$out"
has "text after the value" 'line 3: MODEL: unexpected text' "$out"
has "open quote" 'line 4: the closing " is missing' "$out"
has "twice" 'line 6: MIN_P was set in line 5' "$out"
has "no setting at all" 'line 7: expected KEY="value"' "$out"
has "config still works" '^MODEL' "$(run explain MODEL)"
has "a bad variable" 'THREADS: "many"' "$(FLASHCHAT_THREADS=many "$program" models 2>&1)"
has "an unknown variable is said" 'no setting THREDS; did you mean THREADS' \
    "$(FLASHCHAT_THREDS=2 "$program" models 2>&1)"
same "reset makes a good file" "$(run --reset >/dev/null; "$program" models >/dev/null 2>&1; echo $?)" 0
has "undo after reset" 'TEMPERTURE' "$(run undo >/dev/null; cat "$file")"

# read, never executed
cp "$work/good" "$file"
# shellcheck disable=SC2016 # must stay as it is
printf 'SYSTEM_PROMPT_FILE="$(touch %s/executed)`touch %s/executed`"\n' "$work" "$work" >>"$file"
has "dollar and backquote are letters" 'touch' "$(run get SYSTEM_PROMPT_FILE)"
if [ -e "$work/executed" ]; then echo "FAIL config: the file was executed"; else echo "PASS config never executed"; fi

# round trips
for v in 'with "quotes" and \ and # and $x' "it's" 'ä ö 漢'; do
    run set SYSTEM_PROMPT_FILE "$v" >/dev/null
    same "round trip of $v" "$(run get SYSTEM_PROMPT_FILE)" "$v"
done
has "comments stay" '^# mine' "$(echo '# mine' >>"$file"; run set TOP_K 5 >/dev/null; cat "$file")"
run undo >/dev/null
same "undo" "$(run get TOP_K)" 0
before=$(cat "$file")
run set TOP_K many >/dev/null
same "bad set changes nothing" "$(cat "$file")" "$before"
run set TOP_K 3 >/dev/null &
run set MIN_P 0.3 >/dev/null &
wait
same "two at once both count" "$(run get TOP_K) $(run get MIN_P)" "3 0.3"
mkdir -p "$work/dotfiles" && mv "$file" "$work/dotfiles/config" && ln -s "$work/dotfiles/config" "$file"
run set TOP_K 9 >/dev/null
same "a linked file stays linked" "$([ -L "$file" ] && "$program" config get TOP_K)" 9
rm "$file"

# the wizard, in a pipe
out=$(printf '2\n1\n99\n9G\n\np\ns\nx\n' | run)
same "wizard saves" "$(run get MEMORY)" 9G
has "wizard explains a bad value" '"99" is not a size' "$out"
has "wizard shows costs" 'fits: ' "$out"
has "wizard previews" 'MEMORY="9G"' "$out"
out=$(printf '3\n1\n77\n\n' | run)
same "wizard forgets at the end of the input" "$(run get MAX_TOKENS)" 4096
has "wizard says so" 'not saved' "$out"
printf '3\n1\n77\n\nu\nx\n' | run >/dev/null
same "wizard undo" "$(run get MAX_TOKENS)" 4096
out=$(printf '1\n1\n' | FLASHCHAT_WIDTH=40 run; FLASHCHAT_WIDTH=40 run explain; FLASHCHAT_WIDTH=40 "$program" models)
wide=$(awk 'length($0) > 40' <<<"$out" | grep -v "$work" | head -n 3)
same "40 columns" "$wide" ""

# full reset moves aside, and only when it is typed
echo no | run --full-reset >/dev/null
same "full reset wants the word" "$([ -e "$file" ] && echo there)" there
echo reset | run --full-reset >/dev/null
same "full reset keeps the old ones" "$([ ! -e "$file" ] && cat "$HOME"/.config/flashchat.before-*/config | grep -c MEMORY)" 1

# settings reach the commands
run set MAX_TOKENS 3 >/dev/null
has "MAX_TOKENS reaches prompt" '"tokens": 3,' "$("$program" prompt --json "Tell me a story." 2>&1)"
has "typed wins" '"tokens": 2,' "$("$program" prompt --json --tokens 2 "Tell me a story." 2>&1)"
has "MODEL reaches prompt" 'flashchat download qwen3-30b-a3b-4bit' \
    "$(FLASHCHAT_MODEL=qwen3-30b-a3b-4bit "$program" prompt hi 2>&1)"

# the registry agrees with the bundled model and is well formed
has "registry" 'ready, in' "$("$program" models ember 2>&1)"
same "eleven models" "$("$program" models --json | grep -c '"id"')" 11
mkdir -p "$HOME/.config/flashchat/models.d" && echo '{' >"$HOME/.config/flashchat/models.d/broken.json"
has "a broken entry of one's own" 'left out of your models.*broken.json' "$("$program" models 2>&1)"
exit $bad
