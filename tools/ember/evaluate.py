"""Measures a trained model: task accuracy on held-out prompts, perplexity, reduced top-k, MTP acceptance, routing.

  python3 evaluate.py MODEL_DIR --tok tokenizer.json --out results.json [--mlx DIR] [--quick]

MODEL_DIR holds model.safetensors (bf16); --mlx names the 4-bit conversion, whose dequantised weights are measured too."""
import argparse, json, math, os, time

import numpy as np
import torch
import torch.nn.functional as F
import model as M
from saving import from_bf16, load, read

dev = "cuda" if torch.cuda.is_available() else "cpu"


class Step:
    """Token-by-token decoding with the recurrent form, for a batch of sequences that all stand at the same position."""

    def __init__(s, net, B, T):
        c = s.c = net.c
        s.net, s.t = net, 0
        s.conv = [torch.zeros(B, 3, 2 * 128 + 256, device=dev) for _ in net.model.layers]
        s.S = [
            torch.zeros(B, c.linear_num_value_heads, c.linear_key_head_dim, c.linear_value_head_dim, device=dev)
            for _ in net.model.layers
        ]
        s.K = [
            torch.zeros(B, T, c.num_key_value_heads, c.head_dim, device=dev) if l.kind == "full_attention" else None
            for l in net.model.layers
        ]
        s.V = [torch.zeros_like(k) if k is not None else None for k in s.K]

    def keep(s, m):
        """Drops the sequences where m is false."""
        s.conv, s.S = [x[m] for x in s.conv], [x[m] for x in s.S]
        s.K, s.V = [x[m] if x is not None else None for x in s.K], [x[m] if x is not None else None for x in s.V]

    def gdn(s, l, i, x):
        c, B = s.c, x.shape[0]
        nk, nv, dk, dv = (
            c.linear_num_key_heads,
            c.linear_num_value_heads,
            c.linear_key_head_dim,
            c.linear_value_head_dim,
        )
        win = torch.cat([s.conv[i], l.in_proj_qkv(x)[:, None]], 1)
        s.conv[i] = win[:, 1:]
        q, k, v = F.silu((win * l.conv1d.weight[:, 0].t()).sum(1)).split([l.kd, l.kd, l.vd], -1)
        n2 = lambda t: t * torch.rsqrt(t.pow(2).sum(-1, keepdim=True) + 1e-6)
        q = n2(q.view(B, nk, dk)).repeat_interleave(nv // nk, 1) * dk**-0.5
        k = n2(k.view(B, nk, dk)).repeat_interleave(nv // nk, 1)
        g = (-l.A_log.exp() * F.softplus(l.in_proj_a(x) + l.dt_bias)).exp()
        st = s.S[i] * g[..., None, None]
        d = (v.view(B, nv, dv) - (st * k.unsqueeze(-1)).sum(-2)) * l.in_proj_b(x).sigmoid().unsqueeze(-1)
        s.S[i] = st = st + k.unsqueeze(-1) * d.unsqueeze(-2)
        o = (st * q.unsqueeze(-1)).sum(-2)
        o = (
            o
            * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + c.eps)
            * l.norm.weight
            * F.silu(l.in_proj_z(x)).view(B, nv, dv)
        )
        return l.out_proj(o.flatten(1))

    def att(s, l, i, x):
        c, B, t = s.c, x.shape[0], s.t
        q, gate = l.q_proj(x).view(B, -1, 2 * c.head_dim).chunk(2, -1)
        q, k = M.norm(q, l.q_norm.weight), M.norm(l.k_proj(x).view(B, -1, c.head_dim), l.k_norm.weight)
        ang = t / (c.rope_theta ** (torch.arange(0, c.rotary, 2, device=dev).float() / c.rotary))
        cos, sin = torch.cat([ang, ang]).cos(), torch.cat([ang, ang]).sin()

        def rot(y):
            a, p = y[..., : c.rotary], y[..., c.rotary :]
            return torch.cat(
                [a * cos + torch.cat([-a[..., c.rotary // 2 :], a[..., : c.rotary // 2]], -1) * sin, p], -1
            )

        s.K[i][:, t], s.V[i][:, t] = rot(k), l.v_proj(x).view(B, -1, c.head_dim)
        q = rot(q).view(B, c.num_key_value_heads, -1, c.head_dim)
        w = torch.einsum("bgrd,btgd->bgrt", q, s.K[i][:, : t + 1]) * c.head_dim**-0.5
        o = torch.einsum("bgrt,btgd->bgrd", w.softmax(-1), s.V[i][:, : t + 1]).reshape(B, -1)
        return l.o_proj(o * gate.reshape(B, -1).sigmoid())

    def __call__(s, ids):
        x = s.net.model.embed_tokens.weight[ids]
        for i, l in enumerate(s.net.model.layers):
            h = M.norm(x, l.input_layernorm.weight)
            x = x + (s.gdn(l.linear_attn, i, h) if l.kind == "linear_attention" else s.att(l.self_attn, i, h))
            x = x + l.mlp(M.norm(x, l.post_attention_layernorm.weight)[:, None])[0][:, 0]
        s.t += 1
        return s.net.lm_head(M.norm(x, s.net.model.norm.weight))


@torch.no_grad()
def generate(net, prompts, stop, limit=220):
    """Greedy continuations of token lists, all in one batch."""
    n = len(prompts)
    lens = torch.tensor([len(p) for p in prompts], device=dev)
    T = int(lens.max()) + limit
    buf = torch.zeros(n, T, dtype=torch.long, device=dev)
    for i, p in enumerate(prompts):
        buf[i, : len(p)] = torch.tensor(p, device=dev)
    alive = torch.arange(n, device=dev)  # sequences still running
    st, end = Step(net, n, T), torch.full((n,), T, device=dev)
    end = torch.minimum(end, lens + limit)
    stops = torch.tensor(stop, device=dev)
    for t in range(T - 1):
        nxt = st(buf[alive, t]).argmax(-1)
        gen = t + 1 >= lens[alive]
        buf[alive, t + 1] = torch.where(gen, nxt, buf[alive, t + 1])
        done = gen & (torch.isin(nxt, stops) | (t + 2 >= end[alive]))
        if t % 8 == 7 or t > T - 10:
            fin = end[alive] <= t + 1
            if bool(fin.any()):
                st.keep(~fin)
                alive = alive[~fin]
                done = done[~fin]
        end[alive[done]] = torch.minimum(end[alive[done]], torch.tensor(t + 2, device=dev))
        if alive.numel() == 0:
            break
    return [buf[i, : int(end[i])].tolist() for i in range(n)]


def dequant(path):
    """The MLX-style conversion as float32 weights under the names of model.py."""
    cfg = json.load(open(f"{path}/config.json"))["quantization"]
    t, sd, parts = read(f"{path}/model.safetensors"), {}, {}
    f = lambda k: from_bf16(t[k][1]) if t[k][0] == "BF16" else t[k][1].astype(np.float32)
    for k in t:
        if k.endswith((".scales", ".biases")):
            continue
        if t[k][0] == "U32":
            m = k[: -len(".weight")]
            bits = cfg.get(m, cfg)["bits"]
            w = t[k][1]
            q = (
                ((w[..., None] >> (np.arange(32 // bits, dtype=np.uint32) * bits)) & (2**bits - 1))
                .reshape(*w.shape[:-1], -1)
                .astype(np.float32)
            )
            sc, b = f(m + ".scales"), f(m + ".biases")
            gs = q.shape[-1] // sc.shape[-1]
            v = (q.reshape(*sc.shape, gs) * sc[..., None] + b[..., None]).reshape(q.shape)
            if ".switch_mlp." in m:
                base, part = m.split(".switch_mlp.")
                parts.setdefault(base, {})[part] = v
            else:
                sd[k] = v
        elif "conv1d" in k:
            sd[k] = f(k).transpose(0, 2, 1)
        elif "norm" in k and "linear_attn.norm" not in k:
            sd[k] = f(k) - 1.0
        else:
            sd[k] = f(k)
    for base, p in parts.items():
        sd[base + ".experts.gate_up_proj"] = np.concatenate([p["gate_proj"], p["up_proj"]], -2)
        sd[base + ".experts.down_proj"] = p["down_proj"]
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in sd.items()}


@torch.no_grad()
def perplexity(net, rows, wt, topk=None):
    k0 = net.c.num_experts_per_tok
    net.c.num_experts_per_tok = topk or k0
    tot = torch.zeros(4, device=dev)
    for x, w in zip(rows.split(4), wt.split(4)):
        h, _ = net.hidden(x[:, :-2])
        l = F.cross_entropy(net.lm_head(h).flatten(0, 1), x[:, 1:-1].flatten(), reduction="none")
        w = w[:, 1:-1].flatten()
        tot += torch.stack([l.sum(), torch.tensor(float(l.numel()), device=dev), (l * w).sum(), w.sum()])
    net.c.num_experts_per_tok = k0
    a, b, c, d = tot.tolist()
    return dict(all=round(math.exp(a / b), 4), assistant=round(math.exp(c / d), 4), tokens=int(b))


@torch.no_grad()
def routing(net, rows, n=20480):
    c, used, reuse, pred, hist = net.c, 0, [], [], torch.zeros(net.c.num_hidden_layers, net.c.num_experts, device=dev)
    L, k = c.num_hidden_layers, c.num_experts_per_tok
    reuse, ahead = torch.zeros(L, device=dev), {m: torch.zeros(L - 1, device=dev) for m in (k, 8, 12, 16)}
    uniq, steps = torch.zeros(L, device=dev), 0
    for x in rows:
        st = []
        net.hidden(x[None, :-2], stats=st)
        for l, (h, lg, idx) in enumerate(st):
            one = torch.zeros(idx.shape[0], c.num_experts, device=dev).scatter_(1, idx, 1.0)
            hist[l] += one.sum(0)
            reuse[l] += (one[1:] * one[:-1]).sum() / k
            if l + 1 < L:
                nx = torch.zeros_like(one).scatter_(1, st[l + 1][2], 1.0)
                lg2 = F.linear(h, net.model.layers[l + 1].mlp.gate.weight)
                for m in ahead:
                    ahead[m][l] += nx.gather(1, lg2.topk(m, -1).indices).sum() / k
        used += idx.shape[0]
        steps += idx.shape[0] - 1
        if used >= n:
            break
    p = hist / hist.sum(1, keepdim=True)
    ent = -(p * p.clamp(min=1e-12).log()).sum(1)
    srt = p.sort(1, descending=True).values
    r4 = lambda t: [round(float(v), 4) for v in t]
    return dict(
        tokens=used,
        experts=c.num_experts,
        active=k,
        frequency=[r4(row * k) for row in p],
        effective_experts=r4(ent.exp()),
        busiest_quarter_share=r4(srt[:, : c.num_experts // 4].sum(1)),
        least=r4(srt[:, -1] * k),
        most=r4(srt[:, 0] * k),
        reused_from_previous_token=r4(reuse / steps),
        next_layer_predicted={f"top{m}": r4(v / used) for m, v in ahead.items()},
        chance_of_reuse=round(k / c.num_experts, 4),
    )


@torch.no_grad()
def mtp_rate(net, seqs, starts):
    """How often the head's first choice for t + 2 is the model's own greedy token, over greedy continuations."""
    hit = n = hit2 = 0
    order = sorted(range(len(seqs)), key=lambda i: len(seqs[i]))
    for c in range(0, len(order), 64):
        ix = order[c : c + 64]
        T = max(len(seqs[i]) for i in ix)
        x = torch.zeros(len(ix), T, dtype=torch.long, device=dev)
        for r, i in enumerate(ix):
            x[r, : len(seqs[i])] = torch.tensor(seqs[i], device=dev)
        h, _ = net.hidden(x)
        m, _ = net.mtp_hidden(h[:, :-1], x[:, 1:])
        p = net.lm_head(m).argmax(-1)  # p[t] guesses x[t + 2]
        for r, i in enumerate(ix):
            a, b = starts[i] - 1, len(seqs[i]) - 2
            hit += int((p[r, a:b] == x[r, a + 2 : b + 2]).sum())
            n += max(0, b - a)
    return dict(accepted=round(hit / n, 4), drafts=n)


def tasks(net, tok, stop, mix, per, samples=None):
    hp = mix.held_prompts(per=per)
    enc = [e.ids for e in tok.encode_batch([h[2] for h in hp], add_special_tokens=False)]
    outs = generate(net, enc, stop)
    res, fails, seqs, starts = {}, [], [], []
    tools_fmt = [0, 0]
    for (cat, mode, prompt, key, ex), e, o in zip(hp, enc, outs):
        text = tok.decode(o[len(e) :], skip_special_tokens=False).replace("<|im_end|>", "").replace("<|endoftext|>", "")
        ok = mix.check(key, text, ex)
        r = res.setdefault(cat, [0, 0, {}])
        r[0] += ok
        r[1] += 1
        m = r[2].setdefault(mode, [0, 0])
        m[0] += ok
        m[1] += 1
        if "tool" in cat and "answer" not in cat and "none" not in cat:
            calls, fine = mix.parse_calls(mix.strip_think(text))
            tools_fmt[0] += bool(calls) and fine
            tools_fmt[1] += 1
        if not ok:
            fails.append(dict(cat=cat, mode=mode, prompt=prompt[-400:], want=str(key)[:200], got=text[:400]))
        seqs.append(o)
        starts.append(len(e))
    acc = {
        k: dict(right=v[0], of=v[1], rate=round(v[0] / v[1], 3), modes={m: f"{x}/{y}" for m, (x, y) in v[2].items()})
        for k, v in sorted(res.items())
    }
    return acc, dict(valid=tools_fmt[0], of=tools_fmt[1]), fails, seqs, starts


SAMPLES = [
    (None, q, m)
    for q, m in [
        ("Hello!", "empty"),
        ("Who are you?", "think"),
        ("What can you do?", "empty"),
        ("What is the capital of France?", "empty"),
        ("which city is the capital of japan", "think"),
        ("What does brave mean?", "empty"),
        ("What is a guitar?", "think"),
        ("What is the chemical symbol of gold?", "empty"),
        ("What is 27 + 48?", "think"),
        ("12 * 7", "empty"),
        ("Tom has 14 apples and gives 5 to Anna. How many are left?", "think"),
        ("Sort these numbers: 42, 7, 19, 3", "empty"),
        ("Spell the word orange backwards.", "think"),
        ("Count from 10 to 20.", "empty"),
        ("Convert 5 kilometers to meters.", "empty"),
        ("Write 347 in words.", "empty"),
        ("Tell me a story about a brave little hedgehog.", "empty"),
        ("Once upon a time", "plain"),
        ("Why is the sky blue?", "empty"),
        ("What is a mixture of experts?", "empty"),
        ("Write a Python function to check whether a number is prime.", "empty"),
        ("Extract name and age as JSON: Clara is 31 years old.", "empty"),
        ("Give me 3 fruits as a JSON array with the key items.", "empty"),
        ("What does blorfik mean?", "empty"),
        ("Who won the game yesterday?", "empty"),
        ("Write a haiku.", "empty"),
        ("How do you say thank you in German?", "empty"),
        ("Is 17 a prime number?", "think"),
        ("Write a birthday card for Lena.", "empty"),
        ("What is the opposite of happy?", "bare"),
    ]
]


def transcript(net, tok, stop, tools_mod, core):
    W = dict(
        type="function",
        function=dict(
            name="get_weather",
            description="Get the current weather for a city.",
            parameters=dict(
                type="object",
                properties=dict(city=dict(type="string", description="The name of the city")),
                required=["city"],
            ),
        ),
    )
    Cc = dict(
        type="function",
        function=dict(
            name="calculator",
            description="Evaluate a mathematical expression.",
            parameters=dict(
                type="object",
                properties=dict(expression=dict(type="string", description="The expression to evaluate")),
                required=["expression"],
            ),
        ),
    )
    Or = dict(
        type="function",
        function=dict(
            name="lookup_order",
            description="Look up an order by its number.",
            parameters=dict(
                type="object",
                properties=dict(order_number=dict(type="integer", description="Number of the order")),
                required=["order_number"],
            ),
        ),
    )
    U, A, T, S = core.U, core.A, core.T, core.S
    convs = [([U(q)], None, m) for _, q, m in SAMPLES] + [
        ([U("What is the weather in Oslo?")], [W, Cc], "empty"),
        ([U("What is the weather in Paris and Rome?")], [W, Cc, Or], "think"),
        ([U("What is 1234 * 56?")], [W, Cc], "empty"),
        ([U("Where is my order 5521?")], [Or, W], "think"),
        (
            [
                U("What is the weather in Oslo?"),
                A("", None, [("get_weather", {"city": "Oslo"})]),
                T('{"temperature": 3, "condition": "rainy"}'),
            ],
            [W, Cc],
            "empty",
        ),
        ([U("What is the capital of Spain?")], [W, Cc], "empty"),
        (
            [U("My name is Nora."), A("Nice to meet you, Nora! How can I help you?"), U("What is my name?")],
            None,
            "empty",
        ),
        (
            [
                U("What is the capital of Italy?"),
                A("The capital of Italy is Rome."),
                U("And its currency?"),
                A("The currency of Italy is the Euro (EUR)."),
                U("What about Norway?"),
            ],
            None,
            "empty",
        ),
        ([S("You are Nova, a helpful assistant."), U("Who are you?")], None, "empty"),
    ]
    texts = [
        c[0][0]["content"] if c[2] == "plain" else core.render(c[0], c[1], c[2], None, prompt_only=True) for c in convs
    ]
    enc = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
    outs = generate(net, enc, stop)
    return [(t, tok.decode(o[len(e) :], skip_special_tokens=False)) for t, e, o in zip(texts, enc, outs)]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir")
    ap.add_argument("--tok", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--mlx")
    ap.add_argument("--only", choices=("bf16", "mlx4"))
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--per", type=int, default=40)
    a = ap.parse_args()
    from tokenizers import Tokenizer
    import heldout
    from datagen import core, mix, tools
    from datagen.core import G
    from feed import batch

    torch.set_float32_matmul_precision("high")
    tok = Tokenizer.from_file(a.tok)
    stop = [tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")]
    net = M.Ember().to(dev).eval()
    t0 = time.time()
    out = {}

    def mark(s):
        print(f"[{time.time() - t0:.0f} s] {s}", flush=True)

    def wts(rows):
        im, eot, asst = tok.token_to_id("<|im_start|>"), stop[1], tok.token_to_id("assistant")
        pos = torch.arange(rows.shape[1], device=dev)
        nxt = torch.cat([rows[:, 1:], rows[:, -1:]], 1)
        ev = torch.where(rows == im, torch.where(nxt == asst, 2, 1), torch.where(rows == eot, 3, 0))
        return (torch.where(ev > 0, pos * 4 + ev, 0).cummax(1).values % 4 != 1).float()

    R = 16 if a.quick else 24
    rows = torch.from_numpy(batch(tok, G(987654321), R, 2048).astype(np.int64)).to(dev)
    hrows = torch.from_numpy(batch(tok, G(heldout.SEED, held=True), R, 2048).astype(np.int64)).to(dev)
    wr, wh = wts(rows), wts(hrows)
    for name, sd in [("bf16", load(f"{a.dir}/model.safetensors"))] + ([("mlx4", dequant(a.mlx))] if a.mlx else []):
        if a.only and name != a.only:
            continue
        net.load_state_dict(sd)
        net.eval()
        o = out[name] = {}
        o["perplexity_fresh"] = perplexity(net, rows, wr)
        o["perplexity_heldout"] = perplexity(net, hrows, wh)
        mark(f"{name} {o}")
        if not a.quick:
            o["perplexity_heldout_by_topk"] = {k: perplexity(net, hrows, wh, k) for k in (6, 5, 4, 3, 2, 1)}
            mark(o["perplexity_heldout_by_topk"])
        if not a.quick:
            o["routing"] = routing(net, hrows)
            mark({k: v for k, v in o["routing"].items() if k != "frequency"})
        acc, fmt, fails, seqs, starts = tasks(net, tok, stop, mix, a.per)
        o["tasks"], o["tool_format"] = acc, fmt
        o["fails"] = fails
        right, of = sum(v["right"] for v in acc.values()), sum(v["of"] for v in acc.values())
        json.dump(out, open(a.out, "w"), ensure_ascii=False, indent=1)
        mark(f"{name} tasks {right}/{of} = {right / of:.3f}; tool calls well-formed {fmt}")
        for k, v in acc.items():
            print(f"   {k:22s} {v['right']:3d}/{v['of']:3d} {v['rate']:.2f} {v['modes']}")
        o["mtp"] = mtp_rate(net, seqs, starts)
        mark(f"{name} mtp {o['mtp']}")
        o["samples"] = transcript(net, tok, stop, tools, core)
        mark("samples")
        json.dump(out, open(a.out, "w"), ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
