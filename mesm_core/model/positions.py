"""Position encodings: sinusoidal for frames and reference points, learned for words."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPS = 1e-6


def _sine(x: Tensor, dim: int) -> Tensor:
    # Channels 2i and 2i + 1 are the sine and the cosine of the same angle.
    frequency = 10000.0 ** (torch.arange(0, dim, 2, device=x.device) / -dim)
    angle = x.unsqueeze(-1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def frame_positions(mask: Tensor, dim: int) -> Tensor:
    """Return (V, T, dim) float32 sine positions of a video's frames.

    Args:
        mask: (V, T) bool, True where valid.
        dim: width, even.

    Source: docs/model.md, "Positions".
    """
    count = mask.cumsum(dim=1, dtype=torch.float32)
    return _sine(count / (count[:, -1:] + EPS) * (2 * math.pi), dim)


def point_positions(points: Tensor, dim: int) -> Tensor:
    """Return (..., P, dim) sine positions of (..., P) values in [0, 1] (DAB-DETR, section 4.2)."""
    return _sine(points * (2 * math.pi), dim)


class WordPositions(nn.Module):
    """Learned word positions: LayerNorm(input + embedding[position]), then dropout.

    Args:
        length: number of positions.
        dim: width.
        dropout: probability.
    """

    def __init__(self, *, length: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(length, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the positions (Q, W, dim) of words (Q, W, dim)."""
        out: Tensor = self.dropout(self.norm(x + self.embedding.weight[: x.shape[1]]))
        return out
