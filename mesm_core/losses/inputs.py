"""What a loss is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mesm_core.types import Inputs, ModelOutput, Targets


@dataclass(frozen=True)
class LossInputs:
    """A training batch, what the model made of it, and one decoder layer's slots, matched with the windows.

    ``logits`` (Q, N, 2), index 0 = foreground, and ``spans`` (Q, N, 2), center and width in [0, 1]: of the layer, the
    last one except in losses that are computed on every layer; ``slots`` (Q, M) int64: the slot of every window.
    """

    output: ModelOutput
    inputs: Inputs
    targets: Targets
    logits: Tensor
    spans: Tensor
    slots: Tensor

    @cached_property
    def matched(self) -> Tensor:
        """Span (Q, M, 2) of the slot of every window."""
        return self.spans.gather(1, self.slots.unsqueeze(-1).expand(-1, -1, 2))
