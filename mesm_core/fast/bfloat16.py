"""Bfloat16 matrix products for CPUs on which they are faster than float32 products."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

FASTER = 0.7


class Types(NamedTuple):
    """The dtypes of what a feed-forward saves for the backward pass, and of the factors of its matrix products."""

    saved: torch.dtype
    multiplied: torch.dtype


ROUNDED = Types(torch.bfloat16, torch.float32)
"""Rounds the factors to bfloat16 and multiplies them in float32, for CPUs on which that is faster."""
BFLOAT16 = Types(torch.bfloat16, torch.bfloat16)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b in float32, (..., out) of (..., in), with factors rounded to bfloat16; equals ``F.linear``."""
    out: Tensor = _Linear.apply(x.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


def add_product(onto: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the product of two matrices to a matrix in place, in the dtype of the sum."""
    if a.dtype == onto.dtype:
        onto.addmm_(a, b)
    else:
        onto.add_(torch.mm(a, b))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of a * b in float32; ``a`` may be changed."""
    if a.dtype == torch.bfloat16:  # torch.dot is slow in bfloat16, and sums in it
        return a.mul_(b).sum(dtype=torch.float32)
    return torch.dot(a.view(-1), b.view(-1))


@cache
def fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices much faster than float32 ones; measured once (10 ms)."""
    able = torch.cpu.get_capabilities()
    if not (able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")):
        return False  # without such instructions, bfloat16 products can take seconds
    seconds = {dtype: _seconds_of_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.bfloat16] < FASTER * seconds[torch.float32]


@torch.inference_mode()
def _seconds_of_product(dtype: torch.dtype) -> float:
    """Return the shortest time of a product as in a piece of a feed-forward."""
    a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return min(times)


class _Linear(torch.autograd.Function):
    """Saves the input in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        half, w = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(half, w)
        ctx.has_bias = bias is not None
        found = torch.mm(half, w.t()).to(x.dtype)
        return found if bias is None else found.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grad.to(torch.bfloat16)
        to_x = torch.mm(g, weight).to(grad.dtype) if ctx.needs_input_grad[0] else None
        return to_x, torch.mm(g.t(), x).to(grad.dtype), grad.sum(dim=0) if ctx.has_bias else None
