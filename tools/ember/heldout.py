"""Writes tests/golden/ember/heldout.safetensors: the held-out text of evaluate.py as token ids (see the README there).

  python3 heldout.py OUT.safetensors                  with the Python package `tokenizers`
  python3 heldout.py --docs DOCS.json                 only the documents, for another tokenizer
  python3 heldout.py --ids IDS.json OUT.safetensors   the documents' token ids, made by another tokenizer

The generator is seeded, so the file is the same each time. Python's standard library is enough for the last two."""
import json
import os
import struct
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
EMBER = os.path.join(HERE, "..", "..", "assets", "ember")
SEED, ROWS, LENGTH, AT_ONCE = 987654322, 24, 2048, 128
RECORDED = dict(perplexity_4bit_all="1.5449", perplexity_4bit_assistant="1.3766")


def documents(batches=6):
    """Enough documents for ROWS rows; feed.batch draws them AT_ONCE at a time, which fixes their order."""
    from datagen import mix
    from datagen.core import G

    g = G(SEED, held=True)
    return [mix.doc(g) for _ in range(AT_ONCE * batches)]


def rows_of(ids):
    """Documents one after the other, cut at LENGTH + 2 tokens; what is left of a document is dropped (as in feed.batch)."""
    rows, row = [], []
    for doc in ids:
        row = row + doc
        if len(row) >= LENGTH + 2:
            rows.append(row[: LENGTH + 2])
            row = []
        if len(rows) == ROWS:
            return rows
    sys.exit("not enough documents")


def assistant_of(row, start, end, assistant):
    """1 for what the assistant says and for plain text, 0 for what others say: of the tokens 1 .. LENGTH of a row."""
    out, other = [], False
    for i, t in enumerate(row):
        if t == start:
            other = row[min(i + 1, len(row) - 1)] != assistant
        elif t == end:
            other = False
        out.append(0 if other else 1)
    return out[1:-1]


def main():
    args = sys.argv[1:]
    if args[0] == "--docs":
        json.dump(documents(), open(args[1], "w"))
        return
    if args[0] == "--ids":
        ids, out = json.load(open(args[1])), args[2]
    else:
        from tokenizers import Tokenizer

        out, tok = args[0], Tokenizer.from_file(f"{EMBER}/tokenizer.json")
        ids = [e.ids for e in tok.encode_batch(documents(), add_special_tokens=False)]
    t = json.load(open(f"{EMBER}/tokenizer.json"))
    special = {x["content"]: x["id"] for x in t["added_tokens"]}
    rows = rows_of(ids)
    marks = [
        assistant_of(r, special["<|im_start|>"], special["<|endoftext|>"], t["model"]["vocab"]["assistant"])
        for r in rows
    ]
    tokens = b"".join(struct.pack(f"<{LENGTH + 1}i", *r[:-1]) for r in rows)
    weight = b"".join(map(bytes, marks))
    meta = dict(what="held-out text of Ember as token ids; see README.md", **RECORDED, tokens=str(ROWS * LENGTH))
    head = dict(
        __metadata__=meta,
        input_ids=dict(dtype="I32", shape=[ROWS, LENGTH + 1], data_offsets=[0, len(tokens)]),
        assistant=dict(dtype="U8", shape=[ROWS, LENGTH], data_offsets=[len(tokens), len(tokens) + len(weight)]),
    )
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + tokens + weight)


if __name__ == "__main__":
    main()
