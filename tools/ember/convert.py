"""MLX-style quantised conversion of a bf16 checkpoint: python3 convert.py IN_DIR OUT_DIR

Experts: affine, 4 bits, groups of 64, stacked as mlp.switch_mlp.{gate,up,down}_proj. Every other 2-D weight: 8 bits,
groups of 64, with its own entry in config.json. Zero-centred norms are stored as 1 + w (those of mtp.* too), conv1d as
[channels, 4, 1], A_log as float32. The mtp.* tensors are kept."""
import json, os, shutil, sys

import numpy as np
from saving import from_bf16, read, to_bf16, write

r16 = lambda x: from_bf16(to_bf16(x))


def quant(w, bits, gs=64):
    """(packed uint32, scales, biases): w ~ q * scale + bias, scale and bias rounded to bf16 first."""
    x = w.reshape(*w.shape[:-1], -1, gs)
    mn, mx, n = x.min(-1, keepdims=True), x.max(-1, keepdims=True), 2**bits - 1
    s = r16(np.maximum((mx - mn) / np.float32(n), np.float32(1e-8)))
    b = r16(mn)
    q = np.clip(np.rint((x - b) / s), 0, n).astype(np.uint32).reshape(*w.shape[:-1], -1, 32 // bits)
    p = np.zeros(q.shape[:-1], np.uint32)
    for i in range(32 // bits):
        p |= q[..., i] << np.uint32(bits * i)
    return p, s[..., 0], b[..., 0]


def convert(src, dst):
    os.makedirs(dst, exist_ok=True)
    t = read(f"{src}/model.safetensors")
    out, qc = {}, {"group_size": 64, "bits": 4, "mode": "affine"}

    def put(m, w, bits):
        p, s, b = quant(np.ascontiguousarray(w), bits)
        out[m + ".weight"], out[m + ".scales"], out[m + ".biases"] = (
            ("U32", p),
            ("BF16", to_bf16(s)),
            ("BF16", to_bf16(b)),
        )
        if bits != qc["bits"]:
            qc[m] = {"group_size": 64, "bits": bits}

    for k, (d, v) in t.items():
        w = from_bf16(v)
        if k.endswith("experts.gate_up_proj"):
            m, I = k[: -len("experts.gate_up_proj")] + "switch_mlp.", w.shape[1] // 2
            put(m + "gate_proj", w[:, :I], 4)
            put(m + "up_proj", w[:, I:], 4)
        elif k.endswith("experts.down_proj"):
            put(k[: -len("experts.down_proj")] + "switch_mlp.down_proj", w, 4)
        elif w.ndim == 2:
            put(k[: -len(".weight")], w, 8)
        elif "conv1d" in k:
            out[k] = ("BF16", np.ascontiguousarray(v.transpose(0, 2, 1)))
        elif "norm" in k and "linear_attn.norm" not in k:
            out[k] = ("BF16", to_bf16(w + np.float32(1)))
        elif k.endswith("A_log"):
            out[k] = ("F32", w)
        else:
            out[k] = ("BF16", v)
    write(f"{dst}/model.safetensors", out, {"format": "mlx"})
    size = sum(v.nbytes for _, v in out.values())
    json.dump(
        {"metadata": {"total_size": size}, "weight_map": {k: "model.safetensors" for k in sorted(out)}},
        open(f"{dst}/model.safetensors.index.json", "w"),
        indent=1,
    )
    c = json.load(open(f"{src}/config.json"))
    c["quantization"] = c["quantization_config"] = qc
    json.dump(c, open(f"{dst}/config.json", "w"), indent=2)
    for f in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if os.path.exists(f"{src}/{f}"):
            shutil.copy(f"{src}/{f}", dst)
    print(
        dst, "tensor bytes", size, "of which experts", sum(v.nbytes for k, (_, v) in out.items() if "switch_mlp" in k)
    )


if __name__ == "__main__":
    convert(sys.argv[1], sys.argv[2])
