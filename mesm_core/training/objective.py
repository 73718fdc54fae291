"""The model and its losses as one module, so that ``torch.compile`` makes one graph of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mesm_core.losses.criterion import Criterion
from mesm_core.types import Inputs, ModelOutput, Targets

TOTAL = "loss"
"""Name of the weighted sum of the losses."""


class Objective(nn.Module):
    """What training minimises. Its parameters are those of the model.

    Args:
        model: a ``Mesm``; criterion: its losses.
    """

    def __init__(self, model: nn.Module, criterion: Criterion) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion

    def forward(self, inputs: Inputs, targets: Targets) -> tuple[dict[str, Tensor], ModelOutput]:
        """Return every loss by name, the weighted sum as ``loss``, and the output of the model.

        Losses are computed in float32, also under autocast.
        """
        output = self.model(inputs, targets)
        with torch.autocast(output.logits.device.type, enabled=False):
            losses = self.criterion(output.float(), inputs, targets)
            return losses | {TOTAL: self.criterion.total(losses)}, output
