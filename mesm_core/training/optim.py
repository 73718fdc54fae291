"""Optimiser and schedule of the reference: AdamW in one group, a step down every ``lr_drop`` epochs."""

from __future__ import annotations

import torch
from torch import nn


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over all parameters that learn."""
    return torch.optim.AdamW(
        (p for p in model.parameters() if p.requires_grad), lr=lr, weight_decay=weight_decay, fused=True
    )


def learning_rate(epoch: int, *, lr: float, lr_drop: int, gamma: float) -> float:
    """Return the learning rate of an epoch (from 0), as StepLR sets it.

    >>> [learning_rate(e, lr=1.0, lr_drop=2, gamma=0.1) for e in (0, 1, 2)]
    [1.0, 1.0, 0.1]
    """
    return lr * gamma ** (epoch // lr_drop)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
