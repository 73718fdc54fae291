"""The inputs of a loss function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mesm_core.types import Inputs, ModelOutput, Targets


@dataclass(frozen=True)
class LossInputs:
    """A training batch, the model's output, and the slots of one decoder layer, matched with the windows.

    ``logits``: (Q, N, 2) of the layer, index 0 = foreground; ``spans``: (Q, N, 2) of the layer, center and width in
    [0, 1]; ``slots``: (Q, M) int64, the slot matched with every window. The layer is the last one, except for losses
    that are computed on every layer.
    """

    output: ModelOutput
    inputs: Inputs
    targets: Targets
    logits: Tensor
    spans: Tensor
    slots: Tensor

    @cached_property
    def matched(self) -> Tensor:
        """Span of the slot matched with every window, (Q, M, 2)."""
        return self.spans.gather(1, self.slots.unsqueeze(-1).expand(-1, -1, 2))
