"""The numbers that matrix products are computed with; weights, losses and the optimiser stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mesm_core.fast.feedforward import fast_bfloat16
from mesm_core.fast.mesm import FastMesm


def compiled(model: nn.Module) -> nn.Module:
    """Return the model compiled by torch, with sizes that may vary, so that it is compiled a few times only."""
    return torch.compile(model, dynamic=True, recompile_limit=32)  # type: ignore[call-overload, no-any-return]


@contextmanager
def use_precision(model: nn.Module, device: torch.device, precision: str) -> Iterator[torch.autocast]:
    """Let a model train with a precision as long as the context lasts; give the context of its forward pass.

    ``fp32``: float32 throughout. ``tf32``: CUDA rounds the factors of products to TF32. ``bf16``: products in
    bfloat16 by autocast. A CPU without AMX multiplies those slower than float32, so there a ``FastMesm`` rounds to
    bfloat16 in the feed-forwards only, and computes products in float32.

    The settings are the process's and the model's own, so everything is put back at the end. Evaluation in between,
    and what the caller multiplies, are computed as they would be without training.
    """
    fast = [module for module in model.modules() if isinstance(module, FastMesm) and module.exact]
    in_float32 = bool(fast) and device.type == "cpu" and not fast_bfloat16()
    before = [module.bfloat16_feedforward for module in fast]
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    with float32_products("highest" if precision == "fp32" else "high"):
        try:
            # cuDNN's attention, the first choice in bf16 on Hopper, takes 23 to 37 ms to plan for every new shape.
            torch.backends.cuda.enable_cudnn_sdp(False)
            for module in fast:
                module.bfloat16_feedforward = precision == "bf16" and in_float32
            yield torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16" and not in_float32)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            for module, kept in zip(fast, before, strict=True):
                module.bfloat16_feedforward = kept


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Compute float32 products as ``torch.set_float32_matmul_precision`` says, as long as the context lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
