"""Checks of the bundled files on the CPU, with torch and numpy only: python3 selftest.py BF16_DIR

The chunked network against the token-by-token form, the quantised files against the bf16 ones, and the 4-bit model
against the golden files (logits and greedy tokens)."""
import sys
import os

sys.dont_write_bytecode = True
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
import numpy as np
import torch
import evaluate as E, model as M, saving

with torch.no_grad():
    torch.manual_seed(0)
    net = M.Ember().eval()
    sd, dq = saving.load(f"{sys.argv[1]}/model.safetensors"), E.dequant(f"{ROOT}/assets/ember")
    assert set(sd) == set(dq)
    k = "model.layers.0.mlp.experts.down_proj"
    print("fake_quant against the files:", float((M.fake_quant(sd[k], 1.0) - dq[k]).abs().max()))
    net.load_state_dict(dq)
    ids = torch.randint(0, net.c.vocab_size, (3, 90))
    full, st = net.logits(ids), E.Step(net, 3, 90)
    for t in range(90):
        last = st(ids[:, t])
    print("chunked against recurrent:", float((last - full[:, -1]).abs().max()))
    g = saving.read(f"{ROOT}/tests/golden/ember/golden.safetensors")
    ps = [g[f"p{i}.input_ids"][1].tolist() for i in range(20)]
    print(
        "golden logits:",
        max(
            float((net.logits(torch.tensor([p]))[0, -1] - torch.from_numpy(g[f"p{i}.logits"][1].copy())).abs().max())
            for i, p in enumerate(ps)
        ),
    )
    outs = E.generate(net, ps, [net.c.vocab_size], limit=64)
    print(
        "golden greedy continuations:",
        sum(outs[i][len(p) :] == g[f"p{i}.greedy_ids"][1].tolist() for i, p in enumerate(ps)),
        "of 20 identical",
    )
