"""Compares model.py with transformers' Qwen3_5MoeForCausalLM on a saved checkpoint: python3 check_hf.py DIR"""
import sys
import torch
import model as M
from saving import load


def compare(d, T=333, seed=0, prompt=None):
    from transformers import AutoModelForCausalLM

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    hf = AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32, attn_implementation="eager").eval()
    net = M.Ember()
    net.load_state_dict(load(f"{d}/model.safetensors"))
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, net.c.vocab_size, (2, T), generator=g)
    with torch.no_grad():
        a, b = hf(ids, use_cache=False).logits, net.logits(ids)
    print(
        type(hf).__name__,
        "max abs difference of logits",
        float((a - b).abs().max()),
        "of scale",
        float(a.abs().max()),
        flush=True,
    )
    return hf, net


if __name__ == "__main__":
    compare(sys.argv[1])
