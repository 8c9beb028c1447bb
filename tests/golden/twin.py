#!/usr/bin/env python3
"""A second reference: the forward pass in numpy, float64, token by token, written from the formulas.

  twin.py check DIR          runs DIR's golden prompts, prints the largest difference to golden.safetensors
  twin.py make NAME DIR      writes a tiny checkpoint of shape NAME with a golden.safetensors of its own
  twin.py list               the shapes that make knows: odd ones, that published checkpoints do not show

Slow and plain on purpose. `check` on the vectors of the public reference shows that the twin is right; `make` then
covers what those do not: odd head counts, tied embeddings, 5 bits, dense layers between sparse ones and so on.
"""
import json, os, struct, sys
import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "U32": np.uint32, "BF16": np.uint16, "I64": np.int64}


# ---- safetensors, both ways

def read_file(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = (t["dtype"], np.frombuffer(data[8 + n + a:8 + n + b], TYPES[t["dtype"]]).reshape(t["shape"]))
    return out


def read_dir(d):
    out = {}
    for f in sorted(os.listdir(d)):
        if f.endswith(".safetensors") and f != "golden.safetensors":
            out.update(read_file(f"{d}/{f}"))
    return out


def write_file(path, tensors, meta):
    header, at, blobs = {"__metadata__": {"format": meta}} if meta else {}, 0, []
    for name in sorted(tensors, key=lambda n: -{"F32": 4, "U32": 4, "I32": 4}.get(tensors[n][0], 2)):
        dtype, a = tensors[name]
        raw = np.ascontiguousarray(a).tobytes()
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        blobs.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def to_bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(u):
    return (u.astype(np.uint32) << 16).view(np.float32)


def plain(t):
    dtype, a = t
    return (from_bf16(a) if dtype == "BF16" else a).astype(np.float64)


# ---- MLX affine quantisation

def pack(q, bits):
    b = ((q[..., None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(*q.shape[:-1], -1)
    return np.packbits(b, axis=-1, bitorder="little").view(np.uint32)


def unpack(w, bits, cols):
    b = np.unpackbits(w.view(np.uint8), axis=-1, bitorder="little").reshape(*w.shape[:-1], cols, bits)
    return (b.astype(np.int64) << np.arange(bits)).sum(-1)


def quantise(x, bits, group, kind):
    g = x.reshape(*x.shape[:-1], -1, group)
    low, high = g.min(-1), g.max(-1)
    store = (lambda v: to_bf16(v)) if kind == "BF16" else (lambda v: v.astype(np.float16))
    load = from_bf16 if kind == "BF16" else (lambda v: v.astype(np.float32))
    s, b = store(np.maximum((high - low) / (2 ** bits - 1), 1e-6)), store(low)
    q = np.clip(np.rint((g - load(b)[..., None]) / load(s)[..., None]), 0, 2 ** bits - 1).astype(np.int64)
    return pack(q.reshape(x.shape), bits), s, b


class Model:
    def __init__(self, d):
        self.d, self.t = d, read_dir(d)
        outer = json.load(open(f"{d}/config.json"))
        self.c = c = outer.get("text_config", outer)
        self.quant = outer.get("quantization")
        self.tied = outer.get("tie_word_embeddings", c.get("tie_word_embeddings", False))
        self.family = c["model_type"]
        self.prefix = next(p for p in ("model.language_model.", "language_model.model.", "model.")
                           if p + "embed_tokens.weight" in self.t)
        self.mlx = self.quant is not None
        self.zero = not self.mlx and not self.family.startswith("qwen3_moe")
        self.cast = not self.mlx       # the reference's frequencies were cast to BF16 with the weights
        self.cache = {}

    def matrix(self, module, stack=False):
        if module in self.cache:
            return self.cache[module]
        if module + ".scales" in self.t:
            q = self.quant.get(module) or self.quant
            w, s, b = self.t[module + ".weight"][1], plain(self.t[module + ".scales"]), plain(self.t[module + ".biases"])
            cols = w.shape[-1] * 32 // q["bits"]
            v = unpack(np.ascontiguousarray(w), q["bits"], cols).reshape(*s.shape, q["group_size"])
            m = (v * s[..., None] + b[..., None]).reshape(*w.shape[:-1], cols)
        else:
            m = plain(self.t[module + ".weight" if module + ".weight" in self.t else module])
        self.cache[module] = m
        return m

    def layer(self, i, name):
        return self.matrix(f"{self.prefix}layers.{i}.{name}")

    def vector(self, i, name, norm=False):
        v = plain(self.t[f"{self.prefix}layers.{i}.{name}"])
        return 1 + v if norm and self.zero else v


def rms(x, g, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * g


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def frequencies(m):
    c = m.c
    hd = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    part = rope.get("partial_rotary_factor", c.get("partial_rotary_factor", 1.0 if m.family == "qwen3_moe" else 0.25))
    theta = rope.get("rope_theta", c.get("rope_theta", 10000.0))
    dims = int(hd * part)
    f = (1 / theta ** (np.arange(0, dims, 2) / dims)).astype(np.float32)
    return (from_bf16(to_bf16(f)) if m.cast else f), dims


def rotate(x, pos, f, dims):
    a = (np.float32(pos) * f).astype(np.float64)
    co, si = np.cos(a), np.sin(a)
    h = dims // 2
    x1, x2 = x[..., :h].copy(), x[..., h:dims].copy()
    x = x.copy()
    x[..., :h], x[..., h:dims] = x1 * co - x2 * si, x2 * co + x1 * si
    return x


def attention(m, i, x, st, pos, f, dims):
    c, eps = m.c, m.c["rms_norm_eps"]
    H, K = c["num_attention_heads"], c["num_key_value_heads"]
    hd = c.get("head_dim") or c["hidden_size"] // H
    bias = lambda n: m.vector(i, f"self_attn.{n}.bias") if c.get("attention_bias") else 0
    q = m.layer(i, "self_attn.q_proj") @ x + bias("q_proj")
    gate = None
    if m.family != "qwen3_moe":
        q, gate = q.reshape(H, 2, hd)[:, 0], q.reshape(H, 2, hd)[:, 1]
    q = rms(q.reshape(H, hd), m.vector(i, "self_attn.q_norm.weight", True), eps)
    k = (m.layer(i, "self_attn.k_proj") @ x + bias("k_proj")).reshape(K, hd)
    k = rms(k, m.vector(i, "self_attn.k_norm.weight", True), eps)
    v = (m.layer(i, "self_attn.v_proj") @ x + bias("v_proj")).reshape(K, hd)
    q, k = rotate(q, pos, f, dims), rotate(k, pos, f, dims)
    st.setdefault("k", []).append(k)
    st.setdefault("v", []).append(v)
    ks, vs = np.stack(st["k"]), np.stack(st["v"])
    out = np.zeros((H, hd))
    for h in range(H):
        s = ks[:, h // (H // K)] @ q[h] / np.sqrt(hd)
        p = np.exp(s - s.max())
        out[h] = p / p.sum() @ vs[:, h // (H // K)]
    if gate is not None:
        out = out * sigmoid(gate)
    return m.layer(i, "self_attn.o_proj") @ out.reshape(-1) + bias("o_proj")


def delta(m, i, x, st):
    c, eps = m.c, m.c["rms_norm_eps"]
    nk, nv, dk, dv = (c[f"linear_{n}"] for n in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"))
    r = nv // nk
    if f"{m.prefix}layers.{i}.linear_attn.in_proj_qkvz.weight" in m.t:
        y = (m.layer(i, "linear_attn.in_proj_qkvz") @ x).reshape(nk, 2 * dk + 2 * r * dv)
        q, k = y[:, :dk].reshape(-1), y[:, dk:2 * dk].reshape(-1)
        v, z = y[:, 2 * dk:2 * dk + r * dv].reshape(-1), y[:, 2 * dk + r * dv:].reshape(-1)
        ba = (m.layer(i, "linear_attn.in_proj_ba") @ x).reshape(nk, 2 * r)
        qkv, b, a = np.concatenate([q, k, v]), ba[:, :r].reshape(-1), ba[:, r:].reshape(-1)
    else:
        qkv, z, b, a = (m.layer(i, "linear_attn.in_proj_" + n) @ x for n in ("qkv", "z", "b", "a"))
    conv = plain(m.t[f"{m.prefix}layers.{i}.linear_attn.conv1d.weight"]).reshape(len(qkv), -1)
    rows = st.setdefault("rows", [np.zeros_like(qkv)] * 3) + [qkv]
    st["rows"] = rows[1:]
    y = silu(sum(conv[:, j] * rows[j] for j in range(4)))
    q, k, v = y[:nk * dk].reshape(nk, dk), y[nk * dk:2 * nk * dk].reshape(nk, dk), y[2 * nk * dk:].reshape(nv, dv)
    l2 = lambda u: u / np.sqrt((u * u).sum(-1, keepdims=True) + 1e-6)
    q, k = np.repeat(l2(q) / np.sqrt(dk), r, 0), np.repeat(l2(k), r, 0)
    g = -np.exp(m.vector(i, "linear_attn.A_log")) * np.logaddexp(0, a + m.vector(i, "linear_attn.dt_bias"))
    S = st.setdefault("S", np.zeros((nv, dk, dv)))
    S *= np.exp(g)[:, None, None]
    d = sigmoid(b)[:, None] * (v - np.einsum("hkv,hk->hv", S, k))
    S += k[:, :, None] * d[:, None, :]
    o = rms(np.einsum("hkv,hk->hv", S, q), m.vector(i, "linear_attn.norm.weight"), eps).reshape(-1) * silu(z)
    return m.layer(i, "linear_attn.out_proj") @ o


def mlp(gate, up, down, x):
    return down @ (silu(gate @ x) * (up @ x))


def expert(m, i, e):
    base = f"{m.prefix}layers.{i}.mlp."
    if base + "switch_mlp.gate_proj.weight" in m.t:
        return [m.matrix(f"{base}switch_mlp.{n}_proj")[e] for n in ("gate", "up", "down")]
    if base + "experts.gate_up_proj" in m.t:
        gu = m.matrix(base + "experts.gate_up_proj")[e]
        return [gu[:len(gu) // 2], gu[len(gu) // 2:], m.matrix(base + "experts.down_proj")[e]]
    return [m.matrix(f"{base}experts.{e}.{n}_proj") for n in ("gate", "up", "down")]


def is_sparse(c, i):
    return i not in c.get("mlp_only_layers", []) and (i + 1) % c.get("decoder_sparse_step", 1) == 0


def moe(m, i, x):
    c = m.c
    if not is_sparse(c, i):
        return mlp(*(m.layer(i, f"mlp.{n}_proj") for n in ("gate", "up", "down")), x)
    s = m.layer(i, "mlp.gate") @ x
    p = np.exp(s - s.max())
    p /= p.sum()
    top = np.argsort(-p, kind="stable")[:c["num_experts_per_tok"]]
    w = p[top] / p[top].sum() if m.family.startswith("qwen3_5") or c.get("norm_topk_prob", True) else p[top]
    y = sum(w[j] * mlp(*expert(m, i, e), x) for j, e in enumerate(top))
    if c.get("shared_expert_intermediate_size"):
        shared = mlp(*(m.layer(i, f"mlp.shared_expert.{n}_proj") for n in ("gate", "up", "down")), x)
        y = y + sigmoid(m.layer(i, "mlp.shared_expert_gate") @ x) * shared
    return y


def is_full(c, i):
    return c["layer_types"][i] == "full_attention" if "layer_types" in c else c["model_type"] == "qwen3_moe" or (i + 1) % 4 == 0


def run(m, state, ids):
    """Logits [len(ids), vocab]; state is a list of dicts, one a layer, and is carried on."""
    c, eps, out = m.c, m.c["rms_norm_eps"], []
    f, dims = frequencies(m)
    for tok in ids:
        pos = state[-1]["pos"]
        state[-1]["pos"] += 1
        x = m.matrix(m.prefix + "embed_tokens")[tok].copy()
        for i in range(c["num_hidden_layers"]):
            h = rms(x, m.vector(i, "input_layernorm.weight", True), eps)
            x = x + (attention(m, i, h, state[i], pos, f, dims) if is_full(c, i) else delta(m, i, h, state[i]))
            x = x + moe(m, i, rms(x, m.vector(i, "post_attention_layernorm.weight", True), eps))
        norm = plain(m.t[m.prefix + "norm.weight"]) + (1 if m.zero else 0)
        head = next((n for n in ("lm_head", "language_model.lm_head") if n + ".weight" in m.t), m.prefix + "embed_tokens")
        out.append(m.matrix(m.prefix + "embed_tokens" if m.tied else head) @ rms(x, norm, eps))
    return np.array(out)


def fresh(m):
    return [{} for _ in range(m.c["num_hidden_layers"])] + [{"pos": 0}]


def check(d):
    m, g, worst = Model(d), read_file(f"{d}/golden.safetensors"), 0
    for p in range(3):
        got = run(m, fresh(m), g[f"p{p}.input_ids"][1])
        worst = max(worst, np.abs(got - g[f"p{p}.logits"][1]).max())
    print(f"{d}: largest difference {worst:.2e}")
    return worst < 1e-3


# ---- odd shapes

HYBRID = dict(model_type="qwen3_5_moe_text", hidden_size=128, num_hidden_layers=4, num_attention_heads=4, head_dim=32,
              num_key_value_heads=2, num_experts=16, num_experts_per_tok=4, moe_intermediate_size=64,
              shared_expert_intermediate_size=64, linear_num_key_heads=2, linear_num_value_heads=4,
              linear_key_head_dim=32, linear_value_head_dim=32, linear_conv_kernel_dim=4, vocab_size=320,
              rms_norm_eps=1e-6, tie_word_embeddings=False, attention_bias=False, hidden_act="silu",
              max_position_embeddings=4096, partial_rotary_factor=0.25, eos_token_id=1,
              rope_parameters=dict(rope_theta=1e7, partial_rotary_factor=0.25, rope_type="default"))
PLAIN = dict(model_type="qwen3_moe", hidden_size=96, num_hidden_layers=4, num_attention_heads=4, head_dim=32,
             num_key_value_heads=2, num_experts=16, num_experts_per_tok=4, moe_intermediate_size=64, intermediate_size=160,
             norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False, vocab_size=320,
             rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=False, hidden_act="silu",
             max_position_embeddings=4096, eos_token_id=1)
NEXT = dict(HYBRID, model_type="qwen3_next", norm_topk_prob=True, rope_theta=1e7, decoder_sparse_step=1, mlp_only_layers=[])
NEXT.pop("rope_parameters")
SHAPES = {
    "three_values_a_key": (dict(HYBRID, linear_num_key_heads=3, linear_num_value_heads=9, linear_key_head_dim=16,
                                linear_value_head_dim=24, num_experts_per_tok=3), {}),
    "odd_heads": (dict(HYBRID, num_attention_heads=7, num_key_value_heads=7, head_dim=24, num_experts=11,
                       num_experts_per_tok=5, moe_intermediate_size=36, shared_expert_intermediate_size=52,
                       rope_parameters=dict(rope_theta=1e7, partial_rotary_factor=0.5, rope_type="default"),
                       partial_rotary_factor=0.5), {}),
    "tied": (dict(HYBRID, tie_word_embeddings=True, vocab_size=333), {}),
    "five_bits": (dict(HYBRID), dict(bits=5, group=32, scales="F16")),
    "two_bits_128": (dict(HYBRID, hidden_size=256, moe_intermediate_size=128, shared_expert_intermediate_size=128,
                          num_attention_heads=4, linear_num_value_heads=4), dict(bits=2, group=128, scales="BF16")),
    "tied_six_bits": (dict(HYBRID, tie_word_embeddings=True), dict(bits=6, group=64, scales="BF16")),
    "stacked": (dict(HYBRID, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=44), dict(stacked=True)),
    "stacked_moe_layers": (dict(HYBRID, layer_types=["full_attention", "linear_attention", "full_attention",
                                                     "linear_attention"]), dict(stacked=True)),
    "dense_between": (dict(PLAIN, decoder_sparse_step=2, mlp_only_layers=[3], num_hidden_layers=6), {}),
    "bias_no_norm": (dict(PLAIN, attention_bias=True, norm_topk_prob=False, num_attention_heads=6, num_key_value_heads=3,
                          head_dim=40), {}),
    "wide_heads": (dict(PLAIN, hidden_size=64, num_attention_heads=8, head_dim=48, num_key_value_heads=1,
                        moe_intermediate_size=20), {}),
    "next_three": (dict(NEXT, linear_num_key_heads=2, linear_num_value_heads=6, num_experts_per_tok=7), {}),
    "next_dense": (dict(NEXT, intermediate_size=100, mlp_only_layers=[1], norm_topk_prob=False), {}),
    "next_three_bits": (dict(NEXT, linear_num_value_heads=6), dict(bits=3, group=32, scales="BF16")),
    "plain_eight_bits": (dict(PLAIN, hidden_size=128, intermediate_size=128), dict(bits=8, group=128, scales="BF16",
                                                                                    experts_group=64)),
}


class Maker:
    def __init__(self, c, how):
        self.c, self.how, self.t, self.rng = c, how, {}, np.random.default_rng(1)
        self.mlx, self.zero = "bits" in how, "bits" not in how and c["model_type"] != "qwen3_moe"
        self.prefix = "language_model.model." if self.mlx and c["model_type"].startswith("qwen3_5") else "model."

    def put(self, name, x):
        self.t[name] = ("BF16", to_bf16(x))

    def matrix(self, module, *shape, scale=None):
        x = (self.rng.standard_normal(shape) * (scale or 1.2 / np.sqrt(shape[-1]))).astype(np.float32)
        group = self.how.get("experts_group" if "switch_mlp" in module else "group", self.how.get("group"))
        if self.mlx and shape[-1] % group == 0:
            w, s, b = quantise(x, self.how["bits"], group, self.how["scales"])
            self.t[module + ".weight"] = ("U32", w)
            self.t[module + ".scales"] = self.t[module + ".biases"] = None
            self.t[module + ".scales"], self.t[module + ".biases"] = (self.how["scales"], s), (self.how["scales"], b)
            if group != self.how["group"]:
                self.how.setdefault("overrides", {})[module] = dict(group_size=group, bits=self.how["bits"])
        else:
            if self.mlx:
                self.how.setdefault("overrides", {})[module] = False
            self.put(module + ".weight", x)

    def norm(self, name, n):
        self.put(name, self.rng.standard_normal(n) * 0.1 + (0 if self.zero and "linear_attn" not in name else 1))

    def attention(self, p):
        c, h = self.c, self.c["hidden_size"]
        hd, H, K = c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"]
        sizes = dict(q=(H * hd * (1 if c["model_type"] == "qwen3_moe" else 2), h), k=(K * hd, h), v=(K * hd, h), o=(h, H * hd))
        for n, s in sizes.items():
            self.matrix(f"{p}.self_attn.{n}_proj", *s)
            if c["attention_bias"]:
                self.put(f"{p}.self_attn.{n}_proj.bias", self.rng.standard_normal(s[0]) * 0.3)
        self.norm(p + ".self_attn.q_norm.weight", hd)
        self.norm(p + ".self_attn.k_norm.weight", hd)

    def delta(self, p):
        c, h, p = self.c, self.c["hidden_size"], p + ".linear_attn"
        nk, nv, dk, dv = (c[f"linear_{n}"] for n in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"))
        ch = 2 * nk * dk + nv * dv
        if c["model_type"] == "qwen3_next":
            self.matrix(p + ".in_proj_qkvz", ch + nv * dv, h)
            self.matrix(p + ".in_proj_ba", 2 * nv, h)
        else:
            for n, rows in (("qkv", ch), ("z", nv * dv), ("b", nv), ("a", nv)):
                self.matrix(f"{p}.in_proj_{n}", rows, h)
        self.matrix(p + ".out_proj", h, nv * dv)
        self.put(p + ".conv1d.weight", self.rng.standard_normal((ch, 4, 1) if self.mlx else (ch, 1, 4)) * 0.5)
        self.t[p + ".A_log"] = ("F32", np.log(self.rng.uniform(0.5, 8, nv)).astype(np.float32))
        self.put(p + ".dt_bias", self.rng.standard_normal(nv))
        self.norm(p + ".norm.weight", dv)

    def three(self, p, inner):
        for n in ("gate", "up"):
            self.matrix(f"{p}.{n}_proj", inner, self.c["hidden_size"])
        self.matrix(p + ".down_proj", self.c["hidden_size"], inner)

    def moe(self, p, i):
        c, h = self.c, self.c["hidden_size"]
        if not is_sparse(c, i):
            return self.three(p, c["intermediate_size"])
        E, inner = c["num_experts"], c["moe_intermediate_size"]
        self.matrix(p + ".gate", E, h, scale=0.5)
        if self.mlx:
            for n, s in (("gate", (E, inner, h)), ("up", (E, inner, h)), ("down", (E, h, inner))):
                self.matrix(f"{p}.switch_mlp.{n}_proj", *s)
        elif self.how.get("stacked"):
            self.put(p + ".experts.gate_up_proj", self.rng.standard_normal((E, 2 * inner, h)) * 1.2 / np.sqrt(h))
            self.put(p + ".experts.down_proj", self.rng.standard_normal((E, h, inner)) * 1.2 / np.sqrt(inner))
        else:
            for e in range(E):
                self.three(f"{p}.experts.{e}", inner)
        if c.get("shared_expert_intermediate_size"):
            self.three(p + ".shared_expert", c["shared_expert_intermediate_size"])
            self.matrix(p + ".shared_expert_gate", 1, h)

    def make(self, d):
        c = self.c
        self.matrix(self.prefix + "embed_tokens", c["vocab_size"], c["hidden_size"], scale=1.0)
        for i in range(c["num_hidden_layers"]):
            p = f"{self.prefix}layers.{i}"
            self.norm(p + ".input_layernorm.weight", c["hidden_size"])
            self.norm(p + ".post_attention_layernorm.weight", c["hidden_size"])
            (self.attention if is_full(c, i) else self.delta)(p)
            self.moe(p + ".mlp", i)
        self.norm(self.prefix + "norm.weight", c["hidden_size"])
        if not c["tie_word_embeddings"]:
            self.matrix("language_model.lm_head" if self.prefix.startswith("lang") else "lm_head", c["vocab_size"],
                        c["hidden_size"])
        os.makedirs(d, exist_ok=True)
        write_file(f"{d}/model.safetensors", self.t, "mlx" if self.mlx else "pt")
        config = dict(c)
        if self.mlx:
            config["quantization"] = dict(group_size=self.how["group"], bits=self.how["bits"], mode="affine",
                                          **self.how.get("overrides", {}))
        json.dump(config, open(f"{d}/config.json", "w"), indent=1)


def make(name, d):
    c, how = SHAPES[name]
    Maker(c, dict(how)).make(d)
    m, out, rng = Model(d), {}, np.random.default_rng(5)
    for p, n in enumerate((1, 24, 90)):
        ids, state = rng.integers(0, c["vocab_size"], n), fresh(m)
        logits = run(m, state, ids)
        last, greedy, margins = logits[-1], [], []
        for _ in range(24):
            order = np.argsort(-last, kind="stable")
            greedy.append(order[0])
            margins.append(last[order[0]] - last[order[1]])
            last = run(m, state, [order[0]])[0]
        out[f"p{p}.input_ids"] = ("I32", ids.astype(np.int32))
        out[f"p{p}.logits"] = ("F32", logits.astype(np.float32))
        out[f"p{p}.greedy_ids"] = ("I32", np.array(greedy, np.int32))
        out[f"p{p}.greedy_margin"] = ("F32", np.array(margins, np.float32))
    write_file(f"{d}/golden.safetensors", out, None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"]:
        print(*SHAPES)
    elif sys.argv[1:2] == ["make"] and len(sys.argv) == 4:
        make(*sys.argv[2:])
    elif sys.argv[1:2] == ["check"] and len(sys.argv) == 3:
        sys.exit(not check(sys.argv[2]))
    else:
        sys.exit(__doc__)
