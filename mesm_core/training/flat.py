"""AdamW with few kernel launches, for CUDA: parameters, gradients and moments of all layers in one tensor each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

ALIGNED = 64
"""Every parameter starts at a multiple of this many values, as fast matrix products need."""
MOMENTS = ("exp_avg", "exp_avg_sq")
EPS = 1e-6
"""Added to the norm of the gradient, as in ``torch.nn.utils.clip_grad_norm_``."""


class FlatAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` that updates all parameters as one tensor. Its state has the same form.

    It makes the parameters parts of one tensor, so move the model to its device first. If a parameter has no gradient,
    this and all later steps are those of ``torch.optim.AdamW``.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        (group,) = self.param_groups
        self._parameters: list[nn.Parameter] = group["params"]
        whole = self._joined([p.detach() for p in self._parameters])
        for parameter, part in zip(self._parameters, self._parts(whole), strict=True):
            parameter.data = part
        self._whole = nn.Parameter(whole)
        self._optimizer = torch.optim.AdamW([self._whole], lr=lr, weight_decay=weight_decay, fused=True)
        self._gradient: Tensor | None = None
        self._keep({"step": whole.new_zeros(()), **{name: torch.zeros_like(whole) for name in MOMENTS}})
        self.register_load_state_dict_post_hook(FlatAdamW._join_state)

    @torch.no_grad()
    def clip_gradients(self, most: float) -> Tensor:
        """Scale the gradients of the next step so that their norm is at most ``most``, and return the norm before."""
        grads = self._grads()
        if grads is None:
            return torch.nn.utils.clip_grad_norm_(self._parameters, most)
        self._gradient = self._joined(grads)
        norm: Tensor = torch.linalg.vector_norm(self._gradient)
        self._gradient.mul_((most / (norm + EPS)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters. Closures are not supported."""
        if closure is not None:
            raise ValueError("FlatAdamW takes no closure")
        grads = self._grads()
        if grads is None:
            super().step()
            return
        self._whole.grad = self._joined(grads) if self._gradient is None else self._gradient
        for setting in ("lr", "weight_decay", "betas", "eps"):
            self._optimizer.param_groups[0][setting] = self.param_groups[0][setting]
        self._optimizer.step()
        self._whole.grad = self._gradient = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the form of ``torch.optim.AdamW``: each parameter has its own count of steps."""
        found = super().state_dict()
        states = found["state"].items()
        return found | {"state": {n: state | {"step": state["step"].clone()} for n, state in states}}

    def _grads(self) -> list[Tensor] | None:
        """Return the gradients of all parameters, or None if the parameters are not updated as one tensor.

        Raises:
            RuntimeError: the model was moved or its parameters were replaced, so that they would not be updated.
        """
        storage = self._whole.untyped_storage()
        if any(p.untyped_storage() is not storage for p in self._parameters):
            raise RuntimeError("FlatAdamW does not have these parameters: make it after the model was moved.")
        grads = [p.grad for p in self._parameters if p.grad is not None]
        if len(grads) == len(self._parameters) and self._optimizer.state:
            return grads
        if self._optimizer.state:
            self._optimizer.state.clear()
            for parameter in self._parameters:  # the counts differ from here on
                self.state[parameter]["step"] = self.state[parameter]["step"].clone()
        return None

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        """Return tensors of the shapes of the parameters one after another, each filled up with zeros."""
        zeros = tensors[0].new_zeros(ALIGNED)
        return torch.cat([x for tensor in tensors for x in (tensor.flatten(), zeros[: -tensor.numel() % ALIGNED])])

    def _parts(self, whole: Tensor) -> list[Tensor]:
        """Return the part of each parameter in a tensor made by ``_joined``."""
        lengths = [length for p in self._parameters for length in (p.numel(), -p.numel() % ALIGNED)]
        parts = torch.split(whole, lengths)[::2]
        return [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]

    def _keep(self, state: dict[str, Tensor]) -> None:
        """Make a state of all parameters the state of each: parts of the moments, and one count of steps."""
        self._optimizer.state[self._whole] = dict(state)
        parts = {name: self._parts(state[name]) for name in MOMENTS}
        for number, parameter in enumerate(self._parameters):
            moments = {name: parts[name][number] for name in MOMENTS}
            self.state[parameter] = {"step": state["step"], **moments}

    @staticmethod
    def _join_state(optimizer: torch.optim.Optimizer) -> None:
        """Join the state that was loaded, if all parameters have one, with the same number of steps."""
        assert isinstance(optimizer, FlatAdamW)
        states: list[dict[str, Any]] = [optimizer.state[p] for p in optimizer._parameters]
        optimizer._optimizer.state.clear()
        optimizer._gradient = None
        if any(not state for state in states) or len({float(state["step"]) for state in states}) > 1:
            return
        for name in MOMENTS:
            if any(s[name].shape != p.shape for s, p in zip(states, optimizer._parameters, strict=True)):
                raise ValueError("a moment has another shape than its weights")
        joined = {name: optimizer._joined([state[name] for state in states]) for name in MOMENTS}
        optimizer._keep({"step": states[0]["step"].clone(), **joined})
