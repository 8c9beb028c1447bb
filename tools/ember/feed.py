"""Makes training batches in worker processes: python3 feed.py DIR WORKER WORKERS TOKENIZER ROWS LENGTH SEED

Batch i (by worker i mod WORKERS) is DIR/i.npy: ROWS rows of LENGTH + 2 tokens (uint16), each row starting with a new document."""
import os, sys, time

import numpy as np
from datagen import mix
from datagen.core import G


def batch(tok, g, rows, length):
    out, need = np.empty((rows, length + 2), np.uint16), length + 2
    row, r, pool = [], 0, []
    while r < rows:
        if not pool:
            pool = [e.ids for e in tok.encode_batch([mix.doc(g) for _ in range(128)], add_special_tokens=False)][::-1]
        row += pool.pop()
        if len(row) >= need:
            out[r] = row[:need]
            row = []
            r += 1
    return out


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    d, w, n, tk, rows, length, seed = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        *map(int, sys.argv[5:8]),
    )
    tok, i = Tokenizer.from_file(tk), w
    while not os.path.exists(f"{d}/stop"):
        try:
            used = int(open(f"{d}/used").read() or 0)
        except (OSError, ValueError):
            used = 0
        if i - used > 150:
            time.sleep(0.02)
            continue
        np.save(f"{d}/t{w}.npy", batch(tok, G(seed * 1000003 + i), rows, length))
        os.rename(f"{d}/t{w}.npy", f"{d}/{i}.npy")
        i += n
