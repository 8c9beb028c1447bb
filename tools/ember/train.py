"""Trains Ember on one GPU.

  python3 train.py --out DIR --tok tokenizer.json --seconds 500        (or --steps N)
  ... --init model.safetensors                                         continue from saved weights

Muon for the matrices, AdamW for the rest; warm-up, constant rate, then linear decay; over the last part the experts
are trained as 4-bit storage will make them (straight-through), so that the quantised files lose almost nothing."""
import argparse, atexit, json, math, os, queue, shutil, subprocess, sys, tempfile, threading, time

ap = argparse.ArgumentParser()
ap.add_argument("--out", required=True)
ap.add_argument("--tok", required=True)
ap.add_argument("--init")
ap.add_argument("--seconds", type=float, default=0)
ap.add_argument("--steps", type=int, default=0)
ap.add_argument("--rows", type=int, default=48)
ap.add_argument("--length", type=int, default=2048)
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--workers", type=int, default=14)
ap.add_argument("--lr", type=float, default=0.02)
ap.add_argument("--adam", type=float, default=3e-3)
ap.add_argument("--warm", type=int, default=60)
ap.add_argument("--decay", type=float, default=0.5)
ap.add_argument("--floor", type=float, default=0.01)
ap.add_argument("--qat", type=float, default=0.75)
ap.add_argument("--aux", type=float, default=0.005)
ap.add_argument("--mtp", type=float, default=0.2)
ap.add_argument("--other", type=float, default=0.15)
ap.add_argument("--compile", type=int, default=1)
ap.add_argument("--profile", type=int, default=0)
ap.add_argument("--cache", help="file with torch.compile artifacts, read if it is there and written at the end")
a = ap.parse_args()

HERE = os.path.dirname(os.path.abspath(__file__))
FEED = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)  # batches wait in memory
atexit.register(shutil.rmtree, FEED, ignore_errors=True)
procs = [
    subprocess.Popen(
        [
            sys.executable,
            f"{HERE}/feed.py",
            FEED,
            str(w),
            str(a.workers),
            a.tok,
            str(a.rows),
            str(a.length),
            str(a.seed),
        ],
        cwd=HERE,
    )
    for w in range(a.workers)
]

import numpy as np
import torch
import torch.nn.functional as F
import model as M
from saving import load, save

t0 = time.time()
if a.cache and os.path.exists(a.cache):
    torch.compiler.load_cache_artifacts(open(a.cache, "rb").read())
torch.manual_seed(a.seed)
torch.set_float32_matmul_precision("high")
dev, bf = "cuda", torch.bfloat16
net = M.Ember().to(dev)
if a.init:
    net.load_state_dict(load(a.init), strict=True)
ids = {t: i for t, i in ((x["content"], x["id"]) for x in json.load(open(a.tok))["added_tokens"])}
ASSIST = json.load(open(a.tok))["model"]["vocab"]["assistant"]


# ---- optimisers --------------------------------------------------------------------------------------------------
def is_muon(n, p):
    return p.ndim >= 2 and not any(
        k in n
        for k in (
            "embed_tokens",
            "lm_head",
            "mlp.gate.weight",
            "shared_expert_gate",
            "in_proj_a",
            "in_proj_b",
            "conv1d",
        )
    )


class Muon:
    def __init__(s, named):
        groups = {}
        for n, p in named:
            r, c = p.shape[-2:]
            if n.endswith("gate_up_proj"):
                r //= 2  # gate and up are separate matrices
            groups.setdefault((min(r, c), max(r, c), r > c), []).append((p, r, c))
        s.groups = [(k, v, [torch.zeros_like(p.reshape(-1, r, c)) for p, r, c in v]) for k, v in groups.items()]

    @torch.no_grad()
    def step(s, lr, wd=0.01, mom=0.95):
        for (lo, hi, tall), ps, bufs in s.groups:
            gs = [p.grad.reshape(b.shape) for (p, r, c), b in zip(ps, bufs)]
            torch._foreach_lerp_(bufs, gs, 1 - mom)
            X = torch.cat(torch._foreach_lerp(gs, bufs, mom)).bfloat16()
            if tall:
                X = X.mT
            X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
            for _ in range(5):
                G = X @ X.mT
                X = 3.4445 * X + (-4.7750 * G + 2.0315 * (G @ G)) @ X
            if tall:
                X = X.mT
            sc = max(1.0, ps[0][1] / ps[0][2]) ** 0.5
            outs = X.float().split([b.shape[0] for b in bufs])
            w = [p.data for p, _, _ in ps]
            torch._foreach_mul_(w, 1 - lr * wd)
            torch._foreach_add_(w, [o.reshape(p.shape) for o, p in zip(outs, w)], alpha=-lr * sc)


mu = [(n, p) for n, p in net.named_parameters() if is_muon(n, p)]
ad = [(n, p) for n, p in net.named_parameters() if not is_muon(n, p)]
muon = Muon(mu)
rate = lambda n: 0.4 if "mlp.gate" in n or "lm_head" in n else 1.0
adam = torch.optim.AdamW(
    [dict(params=[p for n, p in ad if rate(n) == r], r=r) for r in (0.4, 1.0)],
    lr=a.adam,
    betas=(0.9, 0.95),
    eps=1e-10,
    weight_decay=0.0,
    fused=True,
)


# ---- loss --------------------------------------------------------------------------------------------------------
def ce(h, w, tgt, wt):
    l = F.cross_entropy(F.linear(h, w.to(h.dtype)).float().flatten(0, 1), tgt.flatten(), reduction="none")
    return (l * wt.flatten()).sum() / wt.sum()


def weights(x):
    """1 for assistant and plain text, a.other for what users, tools and system prompts say."""
    pos = torch.arange(x.shape[1], device=x.device)
    nxt = torch.cat([x[:, 1:], x[:, -1:]], 1)
    ev = torch.where(
        x == ids["<|im_start|>"], torch.where(nxt == ASSIST, 2, 1), torch.where(x == ids["<|endoftext|>"], 3, 0)
    )
    code = torch.where(ev > 0, pos * 4 + ev, 0).cummax(1).values % 4
    return torch.where(code == 1, a.other, 1.0)


if a.compile:
    torch._dynamo.config.cache_size_limit = 64
    for l in list(net.model.layers) + list(net.mtp.layers):
        l.compile(dynamic=False)
    ce_, fuse = torch.compile(ce, dynamic=False), torch.compile(net.mtp.fuse, dynamic=False)
    nrm = torch.compile(M.norm, dynamic=False)
else:
    ce_, fuse, nrm = ce, net.mtp.fuse, M.norm


def losses(x, quant):
    inp, y1, y2 = x[:, :-2], x[:, 1:-1], x[:, 2:]
    wt = weights(x)
    h = M.Embed.apply(net.model.embed_tokens.weight, inp, bf)
    aux = 0.0
    for l in net.model.layers:
        h, b = l(h, quant)
        aux = aux + b
    h = nrm(h, net.model.norm.weight)
    main = ce_(h, net.lm_head.weight, y1, wt[:, 1:-1])
    e = fuse(h, M.Embed.apply(net.model.embed_tokens.weight, y1, bf))
    e, b = net.mtp.layers[0](e, quant)
    m = ce_(nrm(e, net.mtp.norm.weight), net.lm_head.weight, y2, wt[:, 2:])
    aux = (aux + b) / (len(net.model.layers) + 1)
    return main, m, aux


# ---- data --------------------------------------------------------------------------------------------------------
q = queue.Queue(8)
waits = [0.0]


def reader():
    i = 0
    while True:
        f = f"{FEED}/{i}.npy"
        t = time.time()
        while not os.path.exists(f):
            time.sleep(0.005)
        waits[0] += time.time() - t
        x = torch.from_numpy(np.load(f).astype(np.int64)).pin_memory()
        os.remove(f)
        i += 1
        open(f"{FEED}/used", "w").write(str(i))
        q.put(x)


threading.Thread(target=reader, daemon=True).start()
log, step, best = [], 0, None
acc = torch.zeros(3, device=dev)
qon = torch.zeros((), device=dev)  # 1 once the experts are trained as 4-bit weights
start = None
print(f"ready after {time.time() - t0:.1f} s; {sum(p.numel() for p in net.parameters())} weights", flush=True)
while True:
    x = q.get().to(dev, non_blocking=True)
    if a.profile and step == a.profile:
        torch.cuda.synchronize()
        prof = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        prof.__enter__()
    if a.profile and step == a.profile + 3:
        torch.cuda.synchronize()
        prof.__exit__(None, None, None)
        ev = [(e.self_device_time_total / 3000, e.count // 3, e.key[:110]) for e in prof.key_averages()]
        print("kernel ms per step:", round(sum(e[0] for e in ev), 1))
        for e in sorted(ev, reverse=True)[:28]:
            print(f"  {e[0]:7.2f} ms x{e[1]:4d} {e[2]}", flush=True)
    if step == 3:  # the clock starts after compilation
        torch.cuda.synchronize()
        start = time.time()
        print(f"first steps done after {start - t0:.1f} s", flush=True)
    prog = step / a.steps if a.steps else 0.0 if start is None else (time.time() - start) / a.seconds
    if prog >= 1:
        break
    f = min(1.0, (step + 1) / a.warm) * (1.0 if prog < 1 - a.decay else a.floor + (1 - a.floor) * (1 - prog) / a.decay)
    qon.fill_(float(prog >= a.qat))
    main, m, aux = losses(x, qon)
    (main + a.mtp * m + a.aux * aux).backward()
    muon.step(a.lr * f)
    for gr in adam.param_groups:
        gr["lr"] = a.adam * f * gr["r"]
    adam.step()
    net.zero_grad(set_to_none=False)
    acc += torch.stack([main.detach(), m.detach(), aux.detach()])
    step += 1
    if step % 100 == 0 or step in (10, 30):
        n = 100 if step > 100 else 70 if step == 100 else 20 if step == 30 else 10
        v = (acc / n).tolist()
        acc.zero_()
        el = time.time() - start
        log.append(
            dict(step=step, tokens=step * a.rows * a.length, loss=v[0], mtp=v[1], aux=v[2], lr=f, seconds=round(el, 1))
        )
        print(
            f"step {step} loss {v[0]:.4f} mtp {v[1]:.4f} aux {v[2]:.3f} lr {f:.3f} quant {int(prog >= a.qat)} {el:.0f} s",
            f"{(step - 3) * a.rows * a.length / el / 1e6:.3f} Mtok/s wait {waits[0]:.1f} s queue {q.qsize()}",
            f"mem {torch.cuda.max_memory_allocated() / 2**30:.1f}",
            flush=True,
        )
        if not math.isfinite(v[0]):
            break
open(f"{FEED}/stop", "w").close()
torch.cuda.synchronize()
os.makedirs(a.out, exist_ok=True)
save({k: v for k, v in net.state_dict().items()}, f"{a.out}/model.safetensors")
json.dump(
    dict(args=vars(a), steps=step, tokens=step * a.rows * a.length, seconds=time.time() - start, log=log),
    open(f"{a.out}/train_log.json", "w"),
)
json.dump(net.c.hf(), open(f"{a.out}/config.json", "w"), indent=2)
if a.cache:
    art = torch.compiler.save_cache_artifacts()
    if art:
        open(a.cache, "wb").write(art[0])
        print("compile cache", len(art[0]), flush=True)
print(f"saved after {time.time() - t0:.1f} s, {step} steps, {step * a.rows * a.length / 1e6:.1f} M tokens", flush=True)
for p in procs:
    p.terminate()
