"""Ember's network: the Qwen3.5-MoE text architecture, written for fast training of a small model.

The state dict has the names and shapes of transformers' Qwen3_5MoeForCausalLM, plus one multi-token-prediction
head under mtp.* in the layout of the Qwen3-Next and Qwen3.5 checkpoints. check_hf.py compares the two."""
import math
from dataclasses import dataclass, asdict

import torch
import torch.nn as nn
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


@dataclass
class Cfg:
    vocab_size: int = 6144
    hidden_size: int = 256
    num_hidden_layers: int = 8
    full_every: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rotary: int = 16  # partial_rotary_factor 0.25
    rope_theta: float = 10000.0
    linear_num_key_heads: int = 4
    linear_num_value_heads: int = 8
    linear_key_head_dim: int = 32
    linear_value_head_dim: int = 32
    linear_conv_kernel_dim: int = 4
    num_experts: int = 64
    num_experts_per_tok: int = 6
    moe_intermediate_size: int = 64
    shared_expert_intermediate_size: int = 128
    eps: float = 1e-6
    chunk: int = 32

    def layer_types(self):
        return [
            "linear_attention" if (i + 1) % self.full_every else "full_attention" for i in range(self.num_hidden_layers)
        ]

    def hf(self):
        """config.json of the text model as transformers writes it."""
        c = dict(
            architectures=["Qwen3_5MoeForCausalLM"],
            model_type="qwen3_5_moe_text",
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            hidden_act="silu",
            max_position_embeddings=2048,
            initializer_range=0.02,
            rms_norm_eps=self.eps,
            use_cache=True,
            tie_word_embeddings=False,
            attention_bias=False,
            attention_dropout=0.0,
            attn_output_gate=True,
            rope_parameters=dict(
                rope_type="default",
                rope_theta=self.rope_theta,
                partial_rotary_factor=self.rotary / self.head_dim,
                mrope_section=[3, 3, 2],
                mrope_interleaved=True,
            ),
            partial_rotary_factor=self.rotary / self.head_dim,
            linear_conv_kernel_dim=self.linear_conv_kernel_dim,
            linear_key_head_dim=self.linear_key_head_dim,
            linear_value_head_dim=self.linear_value_head_dim,
            linear_num_key_heads=self.linear_num_key_heads,
            linear_num_value_heads=self.linear_num_value_heads,
            mamba_ssm_dtype="float32",
            full_attention_interval=self.full_every,
            layer_types=self.layer_types(),
            num_experts=self.num_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            moe_intermediate_size=self.moe_intermediate_size,
            shared_expert_intermediate_size=self.shared_expert_intermediate_size,
            output_router_logits=False,
            router_aux_loss_coef=0.001,
            mtp_num_hidden_layers=1,
            mtp_use_dedicated_embeddings=False,
            dtype="bfloat16",
        )
        return c


# ---- two small kernels of the chunked gated delta rule ----------------------------------------------------------
if triton:

    @triton.jit
    def _tri_inv(L, T, C: tl.constexpr):
        """T = (1 + strictly lower part of L)^-1 for one C x C matrix, by forward substitution."""
        p = tl.program_id(0).to(tl.int64) * C * C
        i = tl.arange(0, C)[:, None]
        j = tl.arange(0, C)[None, :]
        a = -tl.where(i > j, tl.load(L + p + i * C + j).to(tl.float32), 0.0)
        for r in range(1, C):
            row = tl.sum(tl.where(i == r, a, 0.0), 0)  # row r of -L, entries j < r
            row = row + tl.sum(row[:, None] * a * (i < r).to(tl.float32), 0)
            a = tl.where(i == r, row[None, :], a)
        tl.store(T + p + i * C + j, (a + (i == j).to(tl.float32)).to(T.dtype.element_ty))

    @triton.jit
    def _scan_fwd(A, B, S, N, D: tl.constexpr):
        p = tl.program_id(0).to(tl.int64) * N * D * D
        off = tl.arange(0, D)[:, None] * D + tl.arange(0, D)[None, :]
        s = tl.zeros([D, D], tl.float32)
        for n in range(N):
            tl.store(S + p + n * D * D + off, s)
            s = tl.dot(tl.load(A + p + n * D * D + off), s, input_precision="ieee") + tl.load(B + p + n * D * D + off)

    @triton.jit
    def _scan_bwd(A, S, G, dA, dB, N, D: tl.constexpr):
        p = tl.program_id(0).to(tl.int64) * N * D * D
        off = tl.arange(0, D)[:, None] * D + tl.arange(0, D)[None, :]
        tr = tl.arange(0, D)[None, :] * D + tl.arange(0, D)[:, None]
        d = tl.zeros([D, D], tl.float32)
        for m in range(N):
            q = p + (N - 1 - m) * D * D
            tl.store(dB + q + off, d)
            tl.store(dA + q + off, tl.dot(d, tl.load(S + q + tr), input_precision="ieee"))
            d = tl.dot(tl.load(A + q + tr), d, input_precision="ieee") + tl.load(G + q + off)

    @torch.library.custom_op("ember::tri_inv", mutates_args=())
    def tri_inv(L: torch.Tensor) -> torch.Tensor:
        C = L.shape[-1]
        T = torch.empty(L.shape, device=L.device, dtype=torch.bfloat16)
        _tri_inv[(L.numel() // (C * C),)](L, T, C, num_warps=1)
        return T

    @tri_inv.register_fake
    def _(L):
        return torch.empty(L.shape, device=L.device, dtype=torch.bfloat16)

    def _ti_setup(ctx, inputs, output):
        ctx.save_for_backward(output)

    def _ti_bwd(ctx, g):
        (T,) = ctx.saved_tensors
        Tt = T.transpose(-1, -2)
        return -(Tt @ g.to(T.dtype) @ Tt).tril(-1).float()

    tri_inv.register_autograd(_ti_bwd, setup_context=_ti_setup)

    @torch.library.custom_op("ember::scan", mutates_args=())
    def scan(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        """S[n] = A[n-1] S[n-1] + B[n-1], S[0] = 0, along dimension -3."""
        N, D = A.shape[-3], A.shape[-1]
        A, B = A.contiguous(), B.contiguous()
        S = torch.empty_like(A)
        _scan_fwd[(A.numel() // (N * D * D),)](A, B, S, N, D, num_warps=4)
        return S

    @scan.register_fake
    def _(A, B):
        return torch.empty(A.shape, device=A.device, dtype=A.dtype)

    @torch.library.custom_op("ember::scan_bwd", mutates_args=())
    def scan_bwd(A: torch.Tensor, S: torch.Tensor, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        N, D = A.shape[-3], A.shape[-1]
        A, S, G = A.contiguous(), S.contiguous(), G.contiguous()
        dA, dB = torch.empty_like(A), torch.empty_like(A)
        _scan_bwd[(A.numel() // (N * D * D),)](A, S, G, dA, dB, N, D, num_warps=4)
        return dA, dB

    @scan_bwd.register_fake
    def _(A, S, G):
        return torch.empty(A.shape, device=A.device, dtype=A.dtype), torch.empty(
            A.shape, device=A.device, dtype=A.dtype
        )

    def _sc_setup(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)

    def _sc_bwd(ctx, g):
        return scan_bwd(ctx.saved_tensors[0], ctx.saved_tensors[1], g)

    scan.register_autograd(_sc_bwd, setup_context=_sc_setup)


def tri_inv_ref(L):
    C = L.shape[-1]
    return torch.linalg.inv(torch.eye(C, device=L.device, dtype=L.dtype) + L.tril(-1))


def scan_ref(A, B):
    s, out = torch.zeros_like(A[..., 0, :, :]), []
    for n in range(A.shape[-3]):
        out.append(s)
        s = A[..., n, :, :] @ s + B[..., n, :, :]
    return torch.stack(out, -3)


def norm(x, w, eps=1e-6):
    """Zero-centred RMSNorm."""
    f = x.float()
    return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps) * (1.0 + w.float())).to(x.dtype)


class W(nn.Module):
    """A bias-free linear weight, with the module name that transformers uses."""

    def __init__(s, *shape, std=None):
        super().__init__()
        s.weight = nn.Parameter(torch.randn(*shape) * (std if std is not None else shape[-1] ** -0.5))

    def forward(s, x):
        return F.linear(x, s.weight.to(x.dtype))


class N(nn.Module):
    def __init__(s, d, one=False):
        super().__init__()
        s.weight = nn.Parameter(torch.ones(d) if one else torch.zeros(d))


class GatedDeltaNet(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        s.kd, s.vd = c.linear_num_key_heads * c.linear_key_head_dim, c.linear_num_value_heads * c.linear_value_head_dim
        H, nv = c.hidden_size, c.linear_num_value_heads
        s.in_proj_qkv, s.in_proj_z, s.in_proj_b, s.in_proj_a = W(2 * s.kd + s.vd, H), W(s.vd, H), W(nv, H), W(nv, H)
        s.conv1d = W(2 * s.kd + s.vd, 1, c.linear_conv_kernel_dim, std=0.5)
        dt = torch.exp(torch.rand(nv) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        s.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        s.A_log = nn.Parameter(torch.log(torch.empty(nv).uniform_(1, 16)))
        s.norm = N(c.linear_value_head_dim, one=True)
        s.out_proj = W(H, s.vd, std=0.5 * s.vd**-0.5)

    def forward(s, x, exact=False):
        c = s.c
        B, T, _ = x.shape
        nk, nv, dk, dv, K = (
            c.linear_num_key_heads,
            c.linear_num_value_heads,
            c.linear_key_head_dim,
            c.linear_value_head_dim,
            c.linear_conv_kernel_dim,
        )
        r = nv // nk
        y = F.linear(
            x, torch.cat([s.in_proj_qkv.weight, s.in_proj_z.weight, s.in_proj_b.weight, s.in_proj_a.weight]).to(x.dtype)
        )
        qkv, z, b, a = y.split([2 * s.kd + s.vd, s.vd, nv, nv], -1)
        pad = F.pad(qkv, (0, 0, K - 1, 0)).float()
        w = s.conv1d.weight[:, 0].float()
        qkv = F.silu(sum(pad[:, j : j + T] * w[:, j] for j in range(K)))
        q, k, v = qkv.split([s.kd, s.kd, s.vd], -1)
        q, k = q.view(B, T, nk, dk), k.view(B, T, nk, dk)
        q = q * torch.rsqrt(q.pow(2).sum(-1, keepdim=True) + 1e-6) * dk**-0.5
        k = k * torch.rsqrt(k.pow(2).sum(-1, keepdim=True) + 1e-6)
        beta = b.float().sigmoid()
        g = -s.A_log.float().exp() * F.softplus(a.float() + s.dt_bias.float())
        C = c.chunk
        P = (C - T % C) % C
        if P:
            q, k = F.pad(q, (0, 0, 0, 0, 0, P)), F.pad(k, (0, 0, 0, 0, 0, P))
            v, beta, g = F.pad(v, (0, 0, 0, P)), F.pad(beta, (0, 0, 0, P)), F.pad(g, (0, 0, 0, P))
        n = (T + P) // C
        cd = x.dtype
        heads = lambda t, h, d: t.reshape(B, n, C, h, d).permute(0, 3, 1, 2, 4)
        q, k, v = heads(q, nk, dk), heads(k, nk, dk), heads(v, nv, dv)  # [B, heads, n, C, d]
        beta, g = heads(beta, nv, 1)[..., 0], heads(g, nv, 1)[..., 0]  # [B, nv, n, C]
        gc = g.cumsum(-1)
        tri = torch.ones(C, C, dtype=torch.bool, device=x.device).tril()
        D = (gc.unsqueeze(-1) - gc.unsqueeze(-2)).masked_fill(~tri, float("-inf")).exp()  # [B, nv, n, C, C]
        kt = k.to(cd)
        qk = q.to(cd) @ kt.transpose(-1, -2)
        kk = kt @ kt.transpose(-1, -2)
        ex = lambda t: t.unsqueeze(2).expand(B, nk, r, *t.shape[2:]).reshape(B, nv, *t.shape[2:])
        L = (ex(kk).float() * D * beta.unsqueeze(-1)).tril(-1)
        T_ = tri_inv_ref(L) if exact or not triton else tri_inv(L.contiguous())
        k8, q8, eg = ex(k), ex(q), gc.exp().unsqueeze(-1)
        rhs = torch.cat([v * beta.unsqueeze(-1), k8 * (beta.unsqueeze(-1) * eg)], -1).to(cd)
        uw = T_.to(cd) @ rhs  # [.., C, dv + dk]
        last = gc[..., -1:]
        kd = (k8 * (last - gc).exp().unsqueeze(-1)).to(cd)
        BA = (kd.transpose(-1, -2) @ uw).float()  # [.., dk, dv + dk]
        A = torch.eye(dk, device=x.device) * last.exp().unsqueeze(-1) - BA[..., dv:]
        S = scan_ref(A, BA[..., :dv]) if exact or not triton else scan(A, BA[..., :dv].contiguous())
        u, w_ = uw.split([dv, dk], -1)
        ro = torch.cat([w_, (q8 * eg).to(cd)], -2) @ S.to(cd)  # reads of the old state
        vn = u - ro[..., :C, :]
        o = ro[..., C:, :] + (ex(qk).float() * D).to(cd) @ vn
        o = o.permute(0, 2, 3, 1, 4).reshape(B, n * C, nv, dv)[:, :T].float()
        o = o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + c.eps) * s.norm.weight.float()
        o = o * F.silu(z.float()).view(B, T, nv, dv)
        return s.out_proj(o.reshape(B, T, nv * dv).to(cd))


class Attention(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        H, d = c.hidden_size, c.head_dim
        s.q_proj, s.k_proj, s.v_proj = (
            W(c.num_attention_heads * d * 2, H),
            W(c.num_key_value_heads * d, H),
            W(c.num_key_value_heads * d, H),
        )
        s.o_proj = W(H, c.num_attention_heads * d, std=0.5 * (c.num_attention_heads * d) ** -0.5)
        s.q_norm, s.k_norm = N(d), N(d)

    def forward(s, x, exact=False):
        c = s.c
        B, T, _ = x.shape
        h, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        y = F.linear(x, torch.cat([s.q_proj.weight, s.k_proj.weight, s.v_proj.weight]).to(x.dtype))
        q, k, v = y.split([2 * h * d, kv * d, kv * d], -1)
        q, gate = q.view(B, T, h, 2 * d).chunk(2, -1)
        q, k = norm(q, s.q_norm.weight, c.eps), norm(k.view(B, T, kv, d), s.k_norm.weight, c.eps)
        R = c.rotary
        inv = 1.0 / (c.rope_theta ** (torch.arange(0, R, 2, device=x.device, dtype=torch.float32) / R))
        ang = torch.arange(T, device=x.device, dtype=torch.float32)[:, None] * inv
        cos, sin = torch.cat([ang, ang], -1).cos()[None, :, None], torch.cat([ang, ang], -1).sin()[None, :, None]

        def rot(t):
            a, p = t[..., :R].float(), t[..., R:]
            b = torch.cat([-a[..., R // 2 :], a[..., : R // 2]], -1)
            return torch.cat([(a * cos + b * sin).to(t.dtype), p], -1).transpose(1, 2)

        q, k, v = rot(q), rot(k), v.view(B, T, kv, d).transpose(1, 2)
        k, v = k.repeat_interleave(h // kv, 1), v.repeat_interleave(h // kv, 1)
        if exact or not hasattr(F, "scaled_dot_product_attention"):
            att = (q @ k.transpose(-1, -2)) * d**-0.5
            att = att.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=x.device).tril(), float("-inf"))
            o = att.float().softmax(-1).to(v.dtype) @ v
        else:
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        o = o.transpose(1, 2).reshape(B, T, h * d) * gate.reshape(B, T, h * d).sigmoid()
        return s.o_proj(o)


class Spread(torch.autograd.Function):
    """Rows for the experts: x[token of each slot]; backward sums a token's slots (no atomics)."""

    @staticmethod
    def forward(ctx, x, tok, inv):
        ctx.save_for_backward(tok, inv)
        return x[tok]

    @staticmethod
    def backward(ctx, g):
        tok, inv = ctx.saved_tensors
        return g[inv].sum(1), None, None


class Gather(torch.autograd.Function):
    """The other way: sums the slots of each token."""

    @staticmethod
    def forward(ctx, y, tok, inv):
        ctx.save_for_backward(tok, inv)
        return y[inv].sum(1)

    @staticmethod
    def backward(ctx, g):
        tok, inv = ctx.saved_tensors
        return g[tok], None, None


class Embed(torch.autograd.Function):
    """Rows of the embedding; the gradient is summed by atomics, which is much faster here than sorting."""

    @staticmethod
    def forward(ctx, w, ids, dtype):
        ctx.save_for_backward(ids)
        ctx.n = w.shape[0]
        return w[ids].to(dtype)

    @staticmethod
    def backward(ctx, g):
        (ids,) = ctx.saved_tensors
        return (
            torch.zeros(ctx.n, g.shape[-1], device=g.device).index_add_(0, ids.flatten(), g.float().flatten(0, -2)),
            None,
            None,
        )


class Perm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, order, inv):
        ctx.save_for_backward(inv)
        return w.reshape(-1)[order]

    @staticmethod
    def backward(ctx, g):
        (inv,) = ctx.saved_tensors
        return g[inv], None, None


def fake_quant(w, on, bits=4, gs=64):
    """What 4-bit storage makes of a weight, blended in by `on` (0 or 1), with a straight-through gradient."""
    x = w.detach().to(torch.bfloat16).float().unflatten(-1, (-1, gs))
    mn, mx = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    sc = ((mx - mn) / (2**bits - 1)).clamp(min=1e-8).to(torch.bfloat16).float()
    b = mn.to(torch.bfloat16).float()
    dq = (((x - b) / sc).round().clamp(0, 2**bits - 1) * sc + b).flatten(-2)
    return w + on * (dq - w.detach())


class Experts(nn.Module):
    def __init__(s, c):
        super().__init__()
        E, I, H = c.num_experts, c.moe_intermediate_size, c.hidden_size
        s.gate_up_proj = nn.Parameter(torch.randn(E, 2 * I, H) * H**-0.5)
        s.down_proj = nn.Parameter(torch.randn(E, H, I) * 0.5 * I**-0.5)


class Shared(nn.Module):
    def __init__(s, c):
        super().__init__()
        I, H = c.shared_expert_intermediate_size, c.hidden_size
        s.gate_proj, s.up_proj, s.down_proj = W(I, H), W(I, H), W(H, I, std=0.5 * I**-0.5)


class MoE(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        s.gate = W(c.num_experts, c.hidden_size)
        s.experts = Experts(c)
        s.shared_expert = Shared(c)
        s.shared_expert_gate = W(1, c.hidden_size)

    def forward(s, x, quant=None, stats=None):
        c = s.c
        B, T, H = x.shape
        E, k = c.num_experts, c.num_experts_per_tok
        x = x.reshape(-1, H)
        logits = F.linear(x.float(), s.gate.weight)
        probs = logits.softmax(-1)
        top, idx = probs.topk(k, -1)
        top = top / top.sum(-1, keepdim=True)
        if stats is not None:
            stats.append((x, logits, idx))
        flat = idx.reshape(-1)
        srt, order = torch.sort(flat.to(torch.uint8))
        tok = order // k
        inv = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=x.device)).view(-1, k)
        offs = torch.searchsorted(srt.int(), torch.arange(E, device=x.device, dtype=torch.int32), right=True)
        gu, dn = s.experts.gate_up_proj, s.experts.down_proj
        if quant is not None:
            gu, dn = fake_quant(gu, quant), fake_quant(dn, quant)
        rows = Spread.apply(x, tok, inv)
        h = grouped(rows, gu.to(x.dtype), offs)
        a, u = h.chunk(2, -1)
        h = (F.silu(a.float()) * u.float() * Perm.apply(top, order, inv).unsqueeze(-1)).to(x.dtype)
        y = Gather.apply(grouped(h, dn.to(x.dtype), offs), tok, inv)
        se = s.shared_expert
        a, u = F.linear(x, torch.cat([se.gate_proj.weight, se.up_proj.weight]).to(x.dtype)).chunk(2, -1)
        sh = se.down_proj((F.silu(a.float()) * u.float()).to(x.dtype))
        y = y + sh * F.linear(x.float(), s.shared_expert_gate.weight).sigmoid().to(x.dtype)
        load = torch.diff(offs, prepend=torch.zeros(1, dtype=offs.dtype, device=x.device)).float() / flat.numel()
        aux = E * (load * probs.mean(0)).sum()
        return y.reshape(B, T, H), aux


def grouped(x, w, offs):
    """Rows of x, sorted by expert (ends in offs), times each expert's w^T."""
    if x.is_cuda and x.dtype == torch.bfloat16:
        return torch._grouped_mm(x, w.transpose(-1, -2), offs=offs.to(torch.int32))
    out, a = [], 0
    for e, b in enumerate(offs.tolist()):
        out.append(x[a:b] @ w[e].t())
        a = b
    return torch.cat(out)


class Layer(nn.Module):
    def __init__(s, c, kind):
        super().__init__()
        s.kind, s.eps = kind, c.eps
        s.input_layernorm, s.post_attention_layernorm = N(c.hidden_size), N(c.hidden_size)
        if kind == "linear_attention":
            s.linear_attn = GatedDeltaNet(c)
        else:
            s.self_attn = Attention(c)
        s.mlp = MoE(c)

    def forward(s, x, quant=None, exact=False, stats=None):
        h = norm(x, s.input_layernorm.weight, s.eps)
        x = x + (s.linear_attn(h, exact) if s.kind == "linear_attention" else s.self_attn(h, exact))
        y, aux = s.mlp(norm(x, s.post_attention_layernorm.weight, s.eps), quant, stats)
        return x + y, aux


class Trunk(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.embed_tokens = W(c.vocab_size, c.hidden_size, std=0.1)
        s.layers = nn.ModuleList([Layer(c, t) for t in c.layer_types()])
        s.norm = N(c.hidden_size)


class MTP(nn.Module):
    """Guesses the token after next from the trunk's normed output at t and the embedding of token t + 1."""

    def __init__(s, c):
        super().__init__()
        s.eps = c.eps
        s.fc = W(c.hidden_size, 2 * c.hidden_size)
        s.pre_fc_norm_hidden, s.pre_fc_norm_embedding = N(c.hidden_size), N(c.hidden_size)
        s.layers = nn.ModuleList([Layer(c, "full_attention")])
        s.norm = N(c.hidden_size)

    def fuse(s, h, e):
        return s.fc(
            torch.cat([norm(e, s.pre_fc_norm_embedding.weight, s.eps), norm(h, s.pre_fc_norm_hidden.weight, s.eps)], -1)
        )


class Ember(nn.Module):
    def __init__(s, c=None):
        super().__init__()
        s.c = c or Cfg()
        s.model = Trunk(s.c)
        s.lm_head = W(s.c.vocab_size, s.c.hidden_size, std=0.02)
        s.mtp = MTP(s.c)

    def hidden(s, ids, dtype=torch.float32, quant=None, exact=False, stats=None):
        """The normed output of the trunk, and the mean balance loss."""
        x = Embed.apply(s.model.embed_tokens.weight, ids, dtype)
        aux = 0.0
        for l in s.model.layers:
            x, a = l(x, quant, exact, stats)
            aux = aux + a
        return norm(x, s.model.norm.weight, s.c.eps), aux / len(s.model.layers)

    def mtp_hidden(s, h, nxt, quant=None, exact=False):
        """h: normed trunk output [B, T, H]; nxt: the tokens at t + 1."""
        x = s.mtp.fuse(h, Embed.apply(s.model.embed_tokens.weight, nxt, h.dtype))
        x, aux = s.mtp.layers[0](x, quant, exact)
        return norm(x, s.mtp.norm.weight, s.c.eps), aux

    @torch.no_grad()
    def logits(s, ids, exact=True):
        return s.lm_head(s.hidden(ids, exact=exact)[0])
