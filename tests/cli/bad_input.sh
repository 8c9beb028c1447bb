#!/usr/bin/env bash
# test: sanitized
# Damaged and impossible models, prompts and options: one clear message that names the thing, exit code 1 (2 for what was
# not understood), nothing on standard output, nothing written, no report of a sanitizer (make asan runs this too).
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/cli/lib.sh
needs_program "$flashchat"
python3 tests/cli/make_bad.py assets/ember "$top/models" || exit 1
listing() { (cd "$top/models" && find . -printf '%p %s %T@\n' | sort); }
before=$(listing)

ask() { # model, options...
    local model=$1
    shift
    go "$flashchat" prompt --model "$model" "$@" "What is the capital of France?"
}
bad() { # name, code, case, needle...
    local name=$1 wanted=$2 case=$3
    shift 3
    ask "$top/models/$case"
    refused "$name" "$wanted" "$@"
}

ask "$top/nowhere"
refused "missing directory" 1 "$top/nowhere"
ask no-such-model
refused "unknown model id" 1 '"no-such-model"'
mkdir "$top/empty"
ask "$top/empty"
refused "directory that is not a model" 1 "$top/empty" config.json
ask assets/ember/config.json
refused "file that is not a directory" 1 assets/ember/config.json
ask ""
refused "empty model name" 1 model

bad "NaN in a norm" 1 nan_norm "layer 3|layers\.3" "finite|not a number"
bad "NaN in scales" 1 nan_scales "layer 2|layers\.2" "finite|not a number"
bad "NaN in an expert" 1 nan_expert "layer 5|layers\.5" "finite|not a number"
bad "NaN in the head" 1 nan_head "logit" "finite|not a number"
bad "truncated shard" 1 truncated model.safetensors
bad "empty shard" 1 empty_file model.safetensors
bad "wrong dtype" 1 wrong_dtype model.safetensors layers.0.input_layernorm.weight I16
bad "missing tensor" 1 missing_tensor layers.1.mlp.gate
bad "config: hidden size that the tensors do not have" 1 config_hidden safetensors "shape|\[" "[0-9]"
bad "config: more experts than there are" 1 config_experts safetensors
bad "config: more layers than there are" 1 config_layers "layers\.8"
bad "config: unknown architecture" 1 config_architecture config.json llama_of_tomorrow qwen3_moe
bad "config: cut off" 1 config_cut config.json
bad "tokenizer without merges" 1 no_merges tokenizer.json merges
bad "tokenizer cut off" 1 tokenizer_cut tokenizer.json
bad "no tokenizer" 1 no_tokenizer tokenizer
bad "no weights" 1 no_weights safetensors

ask assets/ember --memory 1M
refused "memory ceiling of 1M" 1 "1 MiB" "at least [0-9]+ MiB" "--memory"
ask assets/ember --context 8
refused "prompt longer than the window" 1 "tokens" "8 tokens" "--context"
head -c 100000 /dev/zero | tr '\0' 'x ' >"$top/long"
"$flashchat" prompt --model assets/ember - <"$top/long" >"$top/out" 2>"$top/err"
code=$?
refused "prompt longer than the model's window" 1 "2048 tokens"
ask assets/ember --cpu avx1024
refused "kernels that do not exist" 1 "avx1024" "avx2"
ask assets/ember --collect-routing x
refused "option of another program" 2 "--collect-routing"
ask assets/ember --context 100000000
refused "context beyond all bounds" 2 "--context" "100000000"
if [ -x "$infer" ]; then
    go "$infer" --model assets/ember --prompt x --cpu avx1024
    refused "unknown kernels" 1 avx1024
    go "$infer" --model assets/ember --prompt x --k 7
    refused "more experts than trained" 1 "7" "6"
    echo "1 2 99999" >"$top/ids"
    go "$infer" --model assets/ember --prompt-tokens "$top/ids"
    refused "token id beyond the vocabulary" 1 99999
    echo "1 2 pear" >"$top/ids"
    go "$infer" --model assets/ember --prompt-tokens "$top/ids"
    refused "token file with words" 1 "line 1" pear
    go "$infer" --model assets/ember --prompt-tokens "$top/none"
    refused "missing token file" 1 "$top/none"
    go "$infer" --model assets/ember --prompt x --collect-routing "$top/no/such/dir"
    refused "routing file that cannot be made" 1 "$top/no/such/dir"
fi
for case in config_hidden truncated no_merges config_architecture; do
    go "$flashchat" plan "$top/models/$case"
    refused "plan: $case" 1 "$top/models/$case"
done

if [ "$(listing)" = "$before" ]; then
    pass "nothing written"
else
    echo "FAIL nothing written"
    diff <(echo "$before") <(listing) | sed 's/^/     /'
fi
