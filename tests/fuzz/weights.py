"""What can be wrong with checkpoints, CLIP weights and pickles: values that do not fit, headers that lie, code."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fuzz.values import changed_json

EVIL = "evil-was-here"


class Evil:
    """Unpickling it makes a folder, which counts as a new file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (EVIL,)


PLAIN: tuple[Any, ...] = (
    None, True, "", "x", "nan", "\ud800", "\0", -1, 0, 1, 0.5, float("nan"), float("inf"), 10**6, 10**12, 2**63,
    10**400, [], {}, [None], ["x"], {"a": 1}, (1, 2), {1: 2}, b"x", [[1, 2]], "x" * 100_000, "../../etc",
    {"x": {"y": []}}, [float("nan")], [10**6], torch.float32, torch.Size([2]), "[/]",
)  # fmt: skip


def bad_checkpoint(rng: Random, path: Path) -> str:
    """Change one value of a checkpoint of ours, of the published code, or of CLIP's weights."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    how = rng.choice(["value"] * 8 + ["whole", "code", "cycle", "old format"])
    if how == "whole":
        content = rng.choice(PLAIN)
    elif how == "code":
        holder, key = _place(rng, content)
        holder[key] = Evil()
    elif how == "cycle":
        content["cycle"] = content
    elif how == "value":
        how = _change(rng, *_place(rng, content))
    torch.save(content, path, _use_new_zipfile_serialization=how != "old format")
    return how


def _change(rng: Random, holder: Any, key: Any) -> str:
    value = holder[key]
    how = rng.choice(["replaced", "replaced", "replaced", "removed", "renamed"])
    if how == "replaced":
        holder[key] = odd_tensor(rng, value) if isinstance(value, Tensor) and rng.random() < 0.8 else rng.choice(PLAIN)
        now = holder[key]
        shown = f"{now.dtype} {tuple(now.shape)} {now.layout}" if isinstance(now, Tensor) else repr(now)[:40]
        return f"{key!r} replaced by {shown}"
    old = holder.pop(key)
    if how == "renamed" and isinstance(holder, dict):
        holder[rng.choice(["x", "", 3, None, f"{key}.x", f"module.{key}"])] = old
    return f"{key!r} {how}"


def odd_tensor(rng: Random, like: Tensor) -> Tensor:
    """Return a tensor that does not fit in the place of one."""
    flat = like.reshape(-1)
    makers = {
        "NaN": lambda: torch.full_like(like, float("nan")) if like.is_floating_point() else like,
        "inf": lambda: torch.full_like(like, float("inf")) if like.is_floating_point() else like,
        "huge": lambda: torch.full(like.shape, 1e30),
        "half": lambda: like.half(),
        "double": lambda: like.double(),
        "integers": lambda: torch.ones(like.shape, dtype=torch.int64),
        "booleans": lambda: torch.ones(like.shape, dtype=torch.bool),
        "complex": lambda: torch.ones(like.shape, dtype=torch.complex64),
        "bfloat16": lambda: like.to(torch.bfloat16),
        "empty": lambda: torch.empty(0),
        "scalar": lambda: torch.tensor(1.0),
        "flat": lambda: flat.clone(),
        "shorter": lambda: like[:-1].clone() if like.ndim else like,
        "one more axis": lambda: like[None].clone(),
        "expanded": lambda: torch.zeros(1).expand(10**9),
        "expanded in its shape": lambda: torch.zeros(1).expand(10**6, 10**6),
        "sparse": lambda: torch.ones(like.shape).to_sparse() if like.ndim else like,
        "meta": lambda: torch.empty(like.shape, device="meta"),
        "transposed": lambda: like.T if like.ndim == 2 else like,
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(like.shape), 0.1, 0, torch.qint8),
        "parameter": lambda: torch.nn.Parameter(torch.ones(like.shape)),
    }
    return makers[rng.choice(list(makers))]()


def _place(rng: Random, content: Any) -> tuple[Any, Any]:
    """Return a container and a key of it; each depth is as likely as the others."""
    levels = list(_levels(content))
    return rng.choice(rng.choice(levels))


def _levels(content: Any) -> Iterator[list[tuple[Any, Any]]]:
    level = [content]
    while level:
        nodes = [vars(node) if isinstance(node, argparse.Namespace) else node for node in level]
        here = [
            (node, key)
            for node in nodes
            for key in (node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ())
        ]
        if here:
            yield here
        level = [node[key] for node, key in here]


def bad_safetensors(rng: Random, path: Path) -> str:
    """Let the header of a safetensors file lie, or store tensors that do not fit."""
    from safetensors.torch import load_file, save_file

    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + size], content[8 + size :]
    how = rng.choice(["header", "header", "header size", "tensor", "tensor", "metadata"])
    if how == "header":
        text, how = changed_json(rng, header.decode())
        header = text.encode(errors="surrogatepass")
        path.write_bytes(len(header).to_bytes(8, "little") + header + body)
        return f"header: {how}"
    if how == "header size":
        lie = rng.choice([0, 1, size - 1, size + 8, 2**31, 2**62, 2**64 - 1])
        path.write_bytes(lie.to_bytes(8, "little") + header + body)
        return f"header size {lie}"
    tensors = load_file(path)
    about = json.loads(header).get("__metadata__")
    name = rng.choice(sorted(tensors))
    if how == "tensor":
        other = odd_tensor(rng, tensors[name])
        tensors[name] = other if other.is_contiguous() and other.device.type == "cpu" else torch.zeros(3)
        if other.layout is not torch.strided or other.is_quantized:
            tensors[name] = torch.zeros(2, 2)
        if rng.random() < 0.3:
            del tensors[name]
    else:
        odd = ("", "0", "-1", "x", "nan", "3", "1000000", "9" * 400, "²")
        about = {key: rng.choice(odd) for key in (about or {"heads": "", "activation": ""})}
    save_file(tensors, path, metadata=about)
    return f"{how} {name if how == 'tensor' else about}"[:120]


def bad_pickle(rng: Random, path: Path) -> str:
    """Change a value of a pickled vocabulary."""
    with path.open("rb") as file:
        content = pickle.load(file)  # noqa: S301 (we wrote it)
    how = rng.choice(["value"] * 6 + ["code", "whole", "deep", "bomb"])
    if how == "value":
        how = _change(rng, *_place(rng, content))
    elif how == "code":
        content["counter"] = Evil()
    elif how == "whole":
        content = rng.choice(PLAIN)
    elif how == "deep":
        path.write_bytes(b"\x80\x04" + b"(" * 200_000)
        return how
    elif how == "bomb":
        path.write_bytes(b"\x80\x04]\x94" + b"(h\x00h\x00h\x00h\x00l" * 10 + b".")
        return how
    array = rng.choice([np.array(["x"]), np.zeros((2, 2)), np.array([None]), np.full(8, np.nan), np.zeros(0)])
    vectors = content.get("id2vec") if isinstance(content, dict) else None
    if isinstance(vectors, list) and vectors and rng.random() < 0.3:
        vectors[-1] = array
        how += ", and a vector of another kind"
    path.write_bytes(pickle.dumps(content))
    return how
