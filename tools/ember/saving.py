"""Weights in and out of safetensors files, with numpy only; bf16 as bit patterns."""
import json
import struct

import numpy as np

DT = {"BF16": np.uint16, "F32": np.float32, "U32": np.uint32, "F16": np.float16, "I32": np.int32, "U8": np.uint8}


def read(path):
    """name -> (dtype name, array); BF16 arrays are uint16 bit patterns."""
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        h = json.loads(f.read(n))
        buf = f.read()
    return {
        k: (
            v["dtype"],
            np.frombuffer(buf, DT[v["dtype"]], int(np.prod(v["shape"])), v["data_offsets"][0]).reshape(v["shape"]),
        )
        for k, v in h.items()
        if k != "__metadata__"
    }


def write(path, tensors, meta=None):
    h, off = {"__metadata__": meta or {"format": "pt"}}, 0
    for k in sorted(tensors):
        d, v = tensors[k]
        h[k] = dict(dtype=d, shape=list(v.shape), data_offsets=[off, off + v.nbytes])
        off += v.nbytes
    s = json.dumps(h, separators=(",", ":")).encode()
    s += b" " * (-len(s) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(s)) + s)
        for k in sorted(tensors):
            f.write(np.ascontiguousarray(tensors[k][1]).tobytes())


def to_bf16(x):
    """float32 -> bf16 bit patterns, round to nearest even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(u):
    return (u.astype(np.uint32) << 16).view(np.float32)


def save(sd, path):
    write(path, {k: ("BF16", to_bf16(v.detach().float().cpu().numpy())) for k, v in sd.items()})


def load(path):
    import torch

    return {k: torch.from_numpy(from_bf16(v) if d == "BF16" else v.copy()) for k, (d, v) in read(path).items()}
