#!/usr/bin/env bash
# What the commands say of a graphics card, played by the processor: plan, doctor, benchmark, a question with shared layers. And
# that the folder which is carried to machines with cards is whole.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$flashchat"
bin=$flashchat work=$top
export HOME=$work XDG_CONFIG_HOME=$work/config
ok() { # name, command...
    local name=$1
    shift
    if "$@" >"$work/last" 2>&1; then echo "PASS $name"; else
        echo "FAIL $name"
        head -c 1500 "$work/last" "$work/out"
    fi
}
says() { tr -s ' \n' '  ' <"$work/out" | grep -qE "$1"; }

"$bin" plan --gpu host --no-measure --vram 6M >"$work/out" 2>&1
ok "plan: which layers are where" says \
    '[1-7] of 8 layers fit: embedding and layers 0-[0-6] on the processor, layers? .* and the head on the card'
"$bin" plan --gpu host --no-measure --vram 6M --json >"$work/out" 2>&1
ok "plan: the same as JSON" says '"places": "embedding and layers 0-[0-6] on the processor'
"$bin" plan --gpu host --no-measure --vram 1M >"$work/out" 2>&1
ok "plan: a card too small for a layer is left out" says 'what every token needs: attention, norms'
"$bin" prompt --gpu host --vram 6M --tokens 2 "What is the capital of France?" >"$work/out" 2>&1
ok "prompt: an answer by both" says 'has not the memory for all layers: embedding and layers .*The capital'
"$bin" doctor --gpu=host --no-measure >"$work/out" 2>&1
ok "doctor: what would be on the card" says \
    'on the card: .*embedding and layers 0-7 and the head on the card; trunk .* of 512 experts'
"$bin" benchmark gpu --gpu host --tokens 4 >"$work/out" 2>&1
ok "benchmark gpu: what card and bus do" says 'copy on the card, read and written .* GB/s .*pinned memory to the card .* GB/s'
ok "benchmark gpu: prompt and conversations beside limits" says \
    'prompt of [0-9]+ tokens .* tok/s .*1 conversation, .* tok/s .* % of .*8 conversations, .* tok/s .* % of'
"$bin" benchmark gpu --gpu off >"$work/out" 2>&1
ok "benchmark gpu: no card is said" says 'there is no graphics card to measure'
mkdir -p "$work/portable/assets" && cp "$bin" "$work/portable/" && cp -r assets/models "$work/portable/assets/"
(cd / && env -u FLASHCHAT_HOME "$work/portable/flashchat" models) >"$work/out" 2>&1
ok "portable: the list of models lies beside the program" says 'qwen3.5-397b'
