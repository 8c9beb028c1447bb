"""Checks on the GPU before a long run: the kernels against their references, the network against transformers
(random weights): python3 check_gpu.py"""
import sys, time, traceback
import torch, torch.nn.functional as F
import model as M

dev = "cuda"


def rel(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


def attempt(name, f):
    t = time.time()
    try:
        print(name, f(), f"{time.time() - t:.1f} s", flush=True)
    except Exception:
        traceback.print_exc()
        print(name, "FAILED", flush=True)


def tri():
    k = F.normalize(torch.randn(64, 64, 32, device=dev), dim=-1)
    L = ((k @ k.mT) * torch.rand(64, 64, 1, device=dev)).tril(-1).requires_grad_()
    T = M.tri_inv(L)
    R = M.tri_inv_ref(L)
    G = torch.randn_like(R)
    (g1,) = torch.autograd.grad(T, L, G.bfloat16())
    (g2,) = torch.autograd.grad(R, L, G)
    return rel(T, R), rel(g1, g2.tril(-1))


def scan():
    A = (0.2 * torch.randn(2, 8, 32, 32, 32, device=dev)).requires_grad_()
    B = torch.randn(2, 8, 32, 32, 32, device=dev).requires_grad_()
    S, R = M.scan(A, B), M.scan_ref(A, B)
    G = torch.randn_like(S)
    x, y = torch.autograd.grad(S, (A, B), G), torch.autograd.grad(R, (A, B), G)
    return rel(S, R), rel(x[0], y[0]), rel(x[1], y[1])


def moe():
    c = M.Cfg()
    m = M.MoE(c).to(dev)
    x = torch.randn(2, 512, 256, device=dev)
    outs = []
    for d in (torch.float32, torch.bfloat16):
        m.zero_grad()
        xx = x.detach().clone().requires_grad_()
        y, aux = m(xx.to(d))
        (y.float() * torch.linspace(-1, 1, 256, device=dev)).sum().backward()
        outs.append(
            (
                y,
                xx.grad,
                m.experts.gate_up_proj.grad.clone(),
                m.experts.down_proj.grad.clone(),
                m.gate.weight.grad.clone(),
            )
        )
    return [rel(b, a) for a, b in zip(*outs)]


def whole():
    net = M.Ember().to(dev)
    ids = torch.randint(0, 6144, (2, 700), device=dev)
    gs = []
    for d, ex in ((torch.float32, True), (torch.bfloat16, False)):
        net.zero_grad()
        h, aux = net.hidden(ids, dtype=d, exact=ex)
        l = F.cross_entropy(net.lm_head(h).float().flatten(0, 1), ids.flatten())
        l.backward()
        gs.append((float(l), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}))
    w = sorted(((rel(gs[1][1][n], g), n) for n, g in gs[0][1].items() if float(g.norm()) > 0), reverse=True)
    return gs[0][0], gs[1][0], w[:5]


def hf():
    import json, tempfile
    from saving import save
    import check_hf

    net = M.Ember()
    for n, p in net.named_parameters():
        if "norm" in n:
            p.data += 0.2 * torch.randn_like(p)
    with tempfile.TemporaryDirectory() as d:
        save(net.state_dict(), f"{d}/model.safetensors")
        json.dump(net.c.hf(), open(f"{d}/config.json", "w"))
        check_hf.compare(d)
    return "ok"


torch.manual_seed(0)
attempt("tri_inv", tri)
attempt("scan", scan)
attempt("moe bf16 vs fp32", moe)
attempt("whole", whole)
attempt("hf", hf)
