"""The inputs of a loss function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mesm_core.types import Inputs, ModelOutput, Targets


@dataclass(frozen=True)
class LossInputs:
    """A training batch, the model's output, and the slots of L decoder layers, matched with the windows.

    ``logits``: (L, Q, N, 2), index 0 = foreground; ``distance``: (L, Q, N, M) L1 distance of each slot's (center,
    width) and each window's; ``overlap``: (L, Q, N, M) gIoU of each slot and window; ``slots``: (L, Q, M) int64, the
    slot matched with every window; ``window_weights``: (Q, M) of each window in a mean over windows, 0 where there is
    no window. The layers are all layers of the decoder, or only the last one without auxiliary losses.
    """

    output: ModelOutput
    inputs: Inputs
    targets: Targets
    logits: Tensor
    distance: Tensor
    overlap: Tensor
    slots: Tensor
    window_weights: Tensor

    def matched(self, pairs: Tensor) -> Tensor:
        """Return the value of each window and its slot, (L, Q, M), of (L, Q, N, M)."""
        return pairs.gather(2, self.slots.unsqueeze(2)).squeeze(2)
