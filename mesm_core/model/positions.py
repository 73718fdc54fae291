"""Position encodings: sinusoidal for frames and reference points, learned for words."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

EPS = 1e-6


def _sine(x: Tensor, dim: int) -> Tensor:
    # Channels 2i and 2i + 1 are the sine and the cosine of the same angle.
    angle = x.unsqueeze(-1) * (_frequencies if torch.compiler.is_compiling() else _kept_frequencies)(dim, x.device)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def _frequencies(dim: int, device: torch.device) -> Tensor:
    frequencies: Tensor = 10000.0 ** (torch.arange(0, dim, 2, device=device) / -dim)  # (dim / 2,)
    return frequencies


@lru_cache(maxsize=16)
def _kept_frequencies(dim: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # autograd cannot use tensors of inference mode
        return _frequencies(dim, device)


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
