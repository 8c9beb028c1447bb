"""Trains the tokenizer: byte-level BPE with the conventions of Qwen3.5 (NFC, its split expression, ByteLevel).

  python3 tokenizer.py OUT_DIR [documents]"""
import json, os, sys

from datagen.core import G

# the split expression of Qwen3.5's tokenizer: words with marks, single digits, punctuation with newlines, spaces
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
VOCAB = 6144


def train(n):
    import re
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from datagen import mix

    cut = re.compile("|".join(re.escape(x) for x in SPECIAL + MARKS))
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    g = G(12345)

    def docs():
        for _ in range(n):
            yield from (p for p in cut.split(mix.doc(g)) if p)

    tok.train_from_iterator(
        docs(),
        trainers.BpeTrainer(
            vocab_size=VOCAB - len(SPECIAL) - len(MARKS),
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    return tok


def save(tok, out):
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/tokenizer.json", "w", encoding="utf-8") as f:  # no indents: half the size
        json.dump(json.loads(tok.to_str()), f, ensure_ascii=False, indent=0, separators=(",", ":"))
        f.write("\n")
    ids = {t: tok.token_to_id(t) for t in SPECIAL + MARKS}
    cfg = dict(
        add_bos_token=False,
        add_prefix_space=False,
        bos_token=None,
        clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        errors="replace",
        model_max_length=2048,
        split_special_tokens=False,
        tokenizer_class="PreTrainedTokenizerFast",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        added_tokens_decoder={
            str(i): dict(
                content=t, lstrip=False, normalized=False, rstrip=False, single_word=False, special=t in SPECIAL
            )
            for t, i in ids.items()
        },
    )
    json.dump(cfg, open(f"{out}/tokenizer_config.json", "w"), indent=2)
    return ids


if __name__ == "__main__":
    print(save(train(int(sys.argv[2]) if len(sys.argv) > 2 else 120000), sys.argv[1]))
