"""The losses of a batch, by name, and their weighted sum (docs/model.md, "Losses")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.losses.inputs import LossInputs
from mesm_core.losses.matching import match, matching_cost
from mesm_core.types import Inputs, ModelOutput, Targets


@dataclass(frozen=True)
class Term:
    """A loss with its settings bound.

    ``weight``: weight in the total, or None for a value that is only reported;
    ``every_layer``: whether the loss is computed on every decoder layer.
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

    def __call__(self, output: ModelOutput, inputs: Inputs, targets: Targets) -> dict[str, Tensor]:
        """Return every loss by name, unweighted; names of losses on an earlier layer end with ``_`` and its number."""
        last = self._inputs(output, inputs, targets, layer=-1)
        losses = {term.name: term.function(last) for term in self.terms}
        for layer in range(len(output.logits) - 1) if self._aux else ():
            earlier = self._inputs(output, inputs, targets, layer=layer)
            losses |= {f"{term.name}_{layer}": term.function(earlier) for term in self.terms if term.every_layer}
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses that have a weight."""
        weighted = [weight * value for name, value in losses.items() if (weight := self._weight(name)) is not None]
        return torch.stack(weighted).sum()

    def match(self, logits: Tensor, layer_spans: Tensor, targets: Targets) -> Tensor:
        """Return the slot matched with every window, (Q, M) int64."""
        cost = matching_cost(
            logits,
            layer_spans,
            targets.spans,
            cost_span=self._cost_span,
            cost_giou=self._cost_giou,
            cost_class=self._cost_class,
        )
        return match(cost, targets.spans_mask)

    def _inputs(self, output: ModelOutput, inputs: Inputs, targets: Targets, *, layer: int) -> LossInputs:
        """Return the inputs of the losses on a decoder layer; each layer has its own matching."""
        logits, spans = output.logits[layer], output.spans[layer]
        return LossInputs(output, inputs, targets, logits, spans, slots=self.match(logits, spans, targets))

    def _weight(self, name: str) -> float | None:
        if name in self._weights:
            return self._weights[name]
        base, _, layer = name.rpartition("_")
        return self._weights.get(base) if layer.isdigit() else None
