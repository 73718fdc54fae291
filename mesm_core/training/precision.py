"""The numbers that matrix products are computed with; weights, losses and the optimiser stay in float32."""

from __future__ import annotations

import torch
from torch import nn

from mesm_core.model.feedforward import FeedForward, fast_bfloat16


def compiled(model: nn.Module) -> nn.Module:
    """Return the model compiled by torch, with sizes that may vary, so that it is compiled a few times only."""
    torch._dynamo.config.cache_size_limit = 32
    return torch.compile(model, dynamic=True)  # type: ignore[return-value]


def use_precision(model: nn.Module, device: torch.device, precision: str) -> torch.autocast:
    """Make a model train with a precision and return the context of its forward pass.

    ``fp32``: float32 throughout. ``tf32``: CUDA rounds the factors of products to TF32. ``bf16``: products in
    bfloat16; a CPU without AMX multiplies those slower than float32, so there only the feed-forwards round to bfloat16,
    and keep their values so, and products are computed in float32.
    """
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    in_float32 = device.type == "cpu" and not fast_bfloat16()
    for module in model.modules():
        if isinstance(module, FeedForward):
            module.keeps_bfloat16 = precision == "bf16" and in_float32
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16" and not in_float32)
