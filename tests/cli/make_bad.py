#!/usr/bin/env python3
"""Copies of a model with one thing wrong in each, for bad_input.sh.

  make_bad.py SOURCE OUT     makes OUT/<name>/ for every function below; files that are as before are linked
"""
import json
import os
import struct
import sys

MODEL = "model.safetensors"


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(folder, name, data):
    path = f"{folder}/{name}"
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as f:
        f.write(data)


def header(data):
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), 8 + n


def with_header(h, body):
    text = json.dumps(h).encode()
    return struct.pack("<Q", len(text)) + text + body


def first(h, part):
    return sorted(k for k in h if part in k)[0]


def poison(folder, part):
    """The middle two bytes of the first tensor with this in its name become a BF16 NaN."""
    data = bytearray(read(f"{folder}/{MODEL}"))
    h, start = header(bytes(data))
    begin, end = h[first(h, part)]["data_offsets"]
    at = start + begin + (end - begin) // 4 * 2
    data[at:at + 2] = b"\xc0\x7f"
    write(folder, MODEL, bytes(data))


def nan_norm(folder):
    poison(folder, "layers.3.post_attention_layernorm.weight")


def nan_scales(folder):
    poison(folder, "layers.2.linear_attn.in_proj_qkv.scales")


def nan_expert(folder):
    data = bytearray(read(f"{folder}/{MODEL}"))
    h, start = header(bytes(data))
    begin, end = h[first(h, "layers.5.mlp.switch_mlp.down_proj.scales")]["data_offsets"]
    data[start + begin:start + end] = b"\xc0\x7f" * ((end - begin) // 2)
    write(folder, MODEL, bytes(data))


def nan_head(folder):
    poison(folder, "lm_head.scales")


def truncated(folder):
    data = read(f"{folder}/{MODEL}")
    write(folder, MODEL, data[:len(data) * 2 // 3])


def empty_file(folder):
    write(folder, MODEL, b"")


def wrong_dtype(folder):
    data = read(f"{folder}/{MODEL}")
    h, start = header(data)
    h[first(h, "layers.0.input_layernorm.weight")]["dtype"] = "I16"
    write(folder, MODEL, with_header(h, data[start:]))


def missing_tensor(folder):
    data = read(f"{folder}/{MODEL}")
    h, start = header(data)
    name = first(h, "layers.1.mlp.gate.weight")
    h[name[:-6] + "wait"] = h.pop(name)
    write(folder, MODEL, with_header(h, data[start:]))
    if os.path.lexists(f"{folder}/{MODEL}.index.json"):
        os.unlink(f"{folder}/{MODEL}.index.json")


def change_config(folder, change):
    config = json.loads(read(f"{folder}/config.json"))
    change(config, config.get("text_config", config))
    write(folder, "config.json", json.dumps(config).encode())


def config_hidden(folder):
    change_config(folder, lambda c, t: t.update(hidden_size=t["hidden_size"] + 64))


def config_experts(folder):
    change_config(folder, lambda c, t: t.update(num_experts=t["num_experts"] * 2))


def config_layers(folder):
    def more(c, t):
        t["num_hidden_layers"] += 1
        if "layer_types" in t:
            t["layer_types"].append(t["layer_types"][0])
    change_config(folder, more)


def config_architecture(folder):
    def other(c, t):
        c["model_type"] = t["model_type"] = "llama_of_tomorrow"
        c["architectures"] = ["LlamaOfTomorrowForCausalLM"]
    change_config(folder, other)


def config_cut(folder):
    write(folder, "config.json", read(f"{folder}/config.json")[:100])


def no_merges(folder):
    tokenizer = json.loads(read(f"{folder}/tokenizer.json"))
    del tokenizer["model"]["merges"]
    write(folder, "tokenizer.json", json.dumps(tokenizer).encode())


def tokenizer_cut(folder):
    write(folder, "tokenizer.json", read(f"{folder}/tokenizer.json")[:5000])


def no_tokenizer(folder):
    os.unlink(f"{folder}/tokenizer.json")


def no_weights(folder):
    os.unlink(f"{folder}/{MODEL}")


CASES = [nan_norm, nan_scales, nan_expert, nan_head, truncated, empty_file, wrong_dtype, missing_tensor, config_hidden,
         config_experts, config_layers, config_architecture, config_cut, no_merges, tokenizer_cut, no_tokenizer, no_weights]


def main():
    source, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    for case in CASES:
        folder = f"{out}/{case.__name__}"
        os.makedirs(folder)
        for name in os.listdir(source):
            os.symlink(f"{source}/{name}", f"{folder}/{name}")
        case(folder)


if __name__ == "__main__":
    main()
