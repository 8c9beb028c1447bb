#!/usr/bin/env bash
# The whole recipe on one machine with a GPU: train.sh WORK_DIR. Needs Python with torch, triton, numpy, tokenizers,
# transformers and safetensors. Results: WORK_DIR/ember (bf16), WORK_DIR/ember-mlx-4bit, golden.*, eval.json.
#
# The lengths are those of the two runs that made the bundled model (README.md); they are given in steps, so the batches
# are the same on any machine, but sums on a GPU are not deterministic and the model comes out approximately the same.
set -euo pipefail
work=$(realpath -m "${1:?usage: train.sh WORK_DIR}")
cd "$(dirname "$0")"
assets=$PWD/../../assets/ember
mkdir -p "$work/ember"
python3 check_gpu.py
python3 train.py --out "$work/first" --tok "$assets/tokenizer.json" --steps 3951 --decay 0.4 --floor 0.08 --qat 2
python3 train.py --init "$work/first/model.safetensors" --out "$work/ember" --tok "$assets/tokenizer.json" --steps 4266 \
    --seed 2 --lr 0.014 --adam 0.0021 --warm 40 --decay 0.65 --floor 0.0 --qat 0.7 --aux 0.001
cp "$assets"/{tokenizer.json,tokenizer_config.json,chat_template.jinja,generation_config.json,NOTICE.md} "$work/ember/"
python3 convert.py "$work/ember" "$work/ember-mlx-4bit"
CUDA_VISIBLE_DEVICES='' python3 make_goldens.py "$work/ember" "$work/ember-mlx-4bit" "$work/golden"
python3 evaluate.py "$work/ember" --mlx "$work/ember-mlx-4bit" --tok "$assets/tokenizer.json" --out "$work/eval.json" --per 24
