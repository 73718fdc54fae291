"""Optimiser and schedule of the published code: AdamW in one group, with a step decay every ``lr_drop`` epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mesm_core.errors import CheckpointError
from mesm_core.inputs import reason
from mesm_core.training.flat import FlatAdamW


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over all parameters that require gradients; on CUDA, one that updates them as one tensor."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters[0].device.type == "cuda":
        return FlatAdamW(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def clip_gradients(optimizer: torch.optim.Optimizer, most: float) -> Tensor:
    """Scale the gradients of a step so that their norm is at most ``most``, and return the norm before."""
    if isinstance(optimizer, FlatAdamW):
        return optimizer.clip_gradients(most)
    return torch.nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), most)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, source: str) -> None:
    """Load the state of a checkpoint into an optimiser.

    Raises:
        CheckpointError: the state is damaged or belongs to other parameters; the message names ``source``.
    """
    try:
        optimizer.load_state_dict(dict(state))
        for group in optimizer.param_groups:
            rates = (group["lr"], group["eps"], group["weight_decay"], *group["betas"])
            if not all(isinstance(rate, float | int) for rate in rates):
                raise ValueError("a rate is not a number")
            for parameter in group["params"]:
                kept = [value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)]
                if any(value.ndim and value.shape != parameter.shape for value in kept):
                    raise ValueError("a moment has another shape than its weights")
    except Exception as error:  # torch checks little of the state
        raise CheckpointError(
            f"The optimiser's state in {source} does not fit the model: {reason(error)}.",
            hint="Start again from the weights, with --init and another --name.",
        ) from error


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
