"""Reference results of transformers for the quantised model: python3 make_goldens.py BF16_DIR MLX_DIR OUT_PREFIX

Compares model.py with transformers on the bf16 checkpoint, then runs transformers in float32 on the CPU with the
dequantised 4-bit weights: OUT_PREFIX.safetensors holds, per prompt i, p<i>.input_ids, p<i>.greedy_ids (64 tokens, not
stopped at the end-of-turn token), p<i>.margins (first minus second logit at each step) and p<i>.logits (at the last
prompt position); OUT_PREFIX.json the prompts and texts."""
import json, sys, time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
import check_hf, evaluate
from datagen import core

PROMPTS = [
    ("Hello!", "empty"),
    ("Who are you?", "think"),
    ("What is the capital of France?", "empty"),
    ("What is the capital of Japan?", "think"),
    ("What does brave mean?", "empty"),
    ("What is a guitar?", "bare"),
    ("What is the chemical symbol of gold?", "empty"),
    ("What is 27 + 48?", "think"),
    ("Sort these numbers: 42, 7, 19, 3", "empty"),
    ("Count from 10 to 20.", "empty"),
    ("Tell me a story about a fox.", "empty"),
    ("Why is the sky blue?", "empty"),
    ("Write a Python function to check whether a number is prime.", "empty"),
    ("Extract name and age as JSON: Clara is 31 years old.", "empty"),
]
PLAIN = ["Once upon a time", "apple (noun):"]


@torch.no_grad()
def main(src, mlx, out):
    torch.set_num_threads(8)
    hf, net = check_hf.compare(src)
    sd = evaluate.dequant(mlx)
    miss, extra = hf.load_state_dict({k: v for k, v in sd.items() if not k.startswith("mtp.")}, strict=False)
    assert not miss and not extra, (miss, extra)
    net.load_state_dict(sd)
    tok = Tokenizer.from_file(f"{mlx}/tokenizer.json")
    fn = lambda n, d, **p: dict(
        type="function",
        function=dict(name=n, description=d, parameters=dict(type="object", properties=p, required=list(p))),
    )
    W, K = fn(
        "get_weather",
        "Get the current weather for a city.",
        city=dict(type="string", description="The name of the city"),
    ), fn(
        "calculator",
        "Evaluate a mathematical expression.",
        expression=dict(type="string", description="The expression to evaluate"),
    )
    U, A, T, S = core.U, core.A, core.T, core.S
    ps = [core.render([U(q)], None, m, prompt_only=True) for q, m in PROMPTS] + PLAIN
    ps += [
        core.render([U("What is the weather in Oslo?")], [W, K], "empty", prompt_only=True),
        core.render([U("What is the weather in Paris and Rome?")], [W, K], "think", prompt_only=True),
        core.render(
            [
                U("What is the weather in Oslo?"),
                A("", None, [("get_weather", {"city": "Oslo"})]),
                T('{"temperature": 3, "condition": "rainy"}'),
            ],
            [W, K],
            "empty",
            prompt_only=True,
        ),
        core.render(
            [
                S("You are a helpful assistant."),
                U("My name is Nora."),
                A("Nice to meet you, Nora! How can I help you?"),
                U("What is my name?"),
            ],
            None,
            "empty",
            prompt_only=True,
        ),
    ]
    res, info, t0 = {}, [], time.time()
    for i, p in enumerate(ps):
        ids = torch.tensor([tok.encode(p, add_special_tokens=False).ids])
        lg = hf(ids, use_cache=False).logits[0, -1]
        mine = net.logits(ids)[0, -1]
        g = hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=64,
            min_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = g.sequences[0, ids.shape[1] :]
        top = torch.stack([l[0] for l in g.logits]).float().topk(2, -1).values
        res.update(
            {
                f"p{i}.input_ids": ids[0].int(),
                f"p{i}.greedy_ids": new.int(),
                f"p{i}.margins": top[:, 0] - top[:, 1],
                f"p{i}.logits": lg.float().contiguous(),
            }
        )
        info.append(
            dict(
                i=i,
                prompt=p,
                text=tok.decode(new.tolist(), skip_special_tokens=False),
                min_margin=round(float((top[:, 0] - top[:, 1]).min()), 4),
                difference_to_model_py=float((lg - mine).abs().max()),
            )
        )
        save_file(res, out + ".safetensors")
        json.dump(info, open(out + ".json", "w"), ensure_ascii=False, indent=1)
    print(
        f"{len(ps)} goldens in {time.time() - t0:.0f} s; model.py differs by at most",
        max(x["difference_to_model_py"] for x in info),
        "smallest margin",
        min(x["min_margin"] for x in info),
        flush=True,
    )
    try:
        from transformers import AutoTokenizer

        at = AutoTokenizer.from_pretrained(src)
        ok = all(
            at(p, add_special_tokens=False)["input_ids"] == tok.encode(p, add_special_tokens=False).ids for p in ps
        )
        r = at.apply_chat_template(
            [dict(role="user", content="What is the weather in Oslo?")],
            tools=[W, K],
            add_generation_prompt=True,
            enable_thinking=False,
            tokenize=False,
        )
        print(
            "AutoTokenizer",
            type(at).__name__,
            "agrees:",
            ok,
            "; its chat template agrees:",
            r == ps[len(PROMPTS) + len(PLAIN)],
            flush=True,
        )
    except Exception as e:
        print("AutoTokenizer check failed:", repr(e), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
