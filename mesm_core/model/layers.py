"""Small building blocks: projections, feed-forwards, perceptrons."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.dropout import Dropout


class ProjectionLayer(nn.Module):
    """LayerNorm -> Dropout -> Linear, and a ReLU where ``relu`` is on; (..., in_dim) -> (..., out_dim)."""

    def __init__(self, *, in_dim: int, out_dim: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(in_dim, out_dim)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_dim) of (..., in_dim)."""
        x = self.linear(self.dropout(self.norm(x)))
        return F.relu(x) if self.relu else x


def projection(*, in_dim: int, out_dim: int, layers: int, dropout: float) -> nn.Sequential:
    """Return ``layers`` projection layers, no ReLU on the last (mesm-model.md, "Projections")."""
    widths = [in_dim] + [out_dim] * layers
    return nn.Sequential(
        *(
            ProjectionLayer(in_dim=a, out_dim=b, dropout=dropout, relu=number < layers)
            for number, (a, b) in enumerate(pairwise(widths), start=1)
        )
    )


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: input, hidden and output widths in order.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., widths[-1]) of (..., widths[0])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out
