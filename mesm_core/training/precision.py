"""The numbers that matrix products are computed with; weights, losses and the optimiser stay in float32."""

from __future__ import annotations

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass: bfloat16 products for ``bf16``, else as they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def allow_tf32(precision: str) -> None:
    """Let CUDA round the factors of float32 products to TF32 for ``tf32`` and ``bf16``; forbid it for ``fp32``."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
