"""Precision of matrix products in training; weights, losses and the optimiser stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mesm_core.fast.bfloat16 import BFLOAT16, ROUNDED, fast_bfloat16
from mesm_core.fast.mesm import FastMesm


def compiled(model: nn.Module) -> nn.Module:
    """Return the model compiled by torch with dynamic sizes, so that it is compiled only a few times."""
    return torch.compile(model, dynamic=True, recompile_limit=32)  # type: ignore[call-overload, no-any-return]


@contextmanager
def use_precision(model: nn.Module, device: torch.device, precision: str) -> Iterator[torch.autocast]:
    """Set the precision that a model trains with, and yield the autocast context for its forward pass.

    ``fp32``: float32 throughout. ``tf32``: CUDA rounds the factors of matrix products to TF32. ``bf16``: matrix
    products in bfloat16, by autocast. On a CPU a ``FastMesm`` uses bfloat16 in its feed-forwards and large projections;
    if float32 products are faster there, it only rounds to bfloat16 in the feed-forwards.

    The settings belong to the process and to the model. They are restored at the end, so that evaluation between steps
    and other code of the caller are not affected.
    """
    fast = [module for module in model.modules() if isinstance(module, FastMesm) and module.exact]
    pieces = bool(fast) and device.type == "cpu"  # the feed-forwards in pieces have dtypes of their own
    types = (BFLOAT16 if fast_bfloat16() else ROUNDED) if pieces and precision == "bf16" else None
    before = [module.types for module in fast]
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    with float32_products("highest" if precision == "fp32" else "high"):
        try:
            # cuDNN's attention, the default in bf16 on Hopper, takes 23 to 37 ms to plan every new shape.
            torch.backends.cuda.enable_cudnn_sdp(False)
            for module in fast:
                module.types = types
            yield torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16" and not pieces)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            for module, value in zip(fast, before, strict=True):
                module.types = value


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Set ``torch.set_float32_matmul_precision`` within the context."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
