"""The losses of a batch, by name, and their weighted sum (docs/model.md, "Losses")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.losses.inputs import LossInputs
from mesm_core.losses.matching import match, matching_cost
from mesm_core.losses.spans import generalized_iou, to_windows
from mesm_core.types import Inputs, ModelOutput, Targets


@dataclass(frozen=True)
class Term:
    """A loss with its settings bound.

    ``weight``: weight in the total, or None for a value that is only reported;
    ``every_layer``: whether the function returns the losses (L,) of all decoder layers, not one loss.
    """

    name: str
    function: Callable[[LossInputs], Tensor]
    weight: float | None = None
    every_layer: bool = False


class Criterion:
    """Computes the losses of a batch.

    Args:
        terms: the losses, in order. Losses of earlier decoder layers have the same weights.
        cost_span, cost_giou, cost_class: matching costs.
        aux: compute the losses with ``every_layer`` on all decoder layers, not only on the last one.
    """

    def __init__(
        self, terms: Sequence[Term], *, cost_span: float, cost_giou: float, cost_class: float, aux: bool
    ) -> None:
        self.terms = tuple(terms)
        self._weights = {term.name: term.weight for term in terms if term.weight is not None}
        self._cost_span, self._cost_giou, self._cost_class = cost_span, cost_giou, cost_class
        self._aux = aux
        self._constants: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}

    def __call__(self, output: ModelOutput, inputs: Inputs, targets: Targets) -> dict[str, Tensor]:
        """Return every loss by name, unweighted; names of losses on an earlier layer end with ``_`` and its number."""
        batch = self.inputs(output, inputs, targets)
        losses: dict[str, Tensor] = {}
        earlier: dict[str, Tensor] = {}
        for term in self.terms:
            loss = term.function(batch)
            if term.every_layer:
                *layers, loss = loss.unbind()
                earlier |= {f"{term.name}_{layer}": value for layer, value in enumerate(layers)}
            losses[term.name] = loss
        return losses | earlier

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses that have a weight."""
        weights = {name: weight for name in losses if (weight := self._weight(name)) is not None}
        if torch.compiler.is_compiling():  # a compiled graph would take the number of losses for a variable size
            return torch.stack([losses[name] * weight for name, weight in weights.items()]).sum()
        values = torch.stack([losses[name] for name in weights])
        return torch.dot(values, self._constant(tuple(weights.values()), values))

    def inputs(self, output: ModelOutput, inputs: Inputs, targets: Targets) -> LossInputs:
        """Return the inputs of the losses; each decoder layer has its own matching."""
        logits, spans = output.logits, output.spans  # (L, Q, N, 2)
        if not self._aux:
            logits, spans = logits[-1:], spans[-1:]
        spans = spans.unsqueeze(3)  # (L, Q, N, 1, 2)
        windows = targets.spans.unsqueeze(1)  # (Q, 1, M, 2)
        distance = (spans - windows).abs().sum(dim=-1)
        overlap = generalized_iou(to_windows(spans), to_windows(windows))
        cost = matching_cost(
            logits, distance, overlap, cost_span=self._cost_span, cost_giou=self._cost_giou, cost_class=self._cost_class
        )
        mask = targets.spans_mask.expand(len(cost), -1, -1)
        slots = match(cost.flatten(0, 1), mask.flatten(0, 1)).view_as(mask)
        weights = targets.spans_mask / targets.spans_mask.sum(dtype=distance.dtype).clamp(min=1)
        return LossInputs(output, inputs, targets, logits, distance, overlap, slots, weights)

    def _constant(self, weights: tuple[float, ...], like: Tensor) -> Tensor:
        """Return the weights as a tensor, which is copied to a device once."""
        key = (weights, like.dtype, like.device)
        if key not in self._constants:
            self._constants[key] = torch.tensor(weights, dtype=like.dtype, device=like.device)
        return self._constants[key]

    def _weight(self, name: str) -> float | None:
        if name in self._weights:
            return self._weights[name]
        base, _, layer = name.rpartition("_")
        return self._weights.get(base) if layer.isdigit() else None
