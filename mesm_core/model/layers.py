"""Layers of the network: projections, perceptrons, feed-forwards, cross-attention and self-attention layers."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.attention import MultiHeadAttention


class ProjectionLayer(nn.Module):
    """LayerNorm -> Dropout -> Linear, then ReLU if ``relu``; (..., in_dim) -> (..., out_dim)."""

    def __init__(self, *, in_dim: int, out_dim: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_dim, out_dim)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_dim) of (..., in_dim)."""
        x = self.linear(self.dropout(self.norm(x)))
        return F.relu(x) if self.relu else x


def projection(*, in_dim: int, out_dim: int, layers: int, dropout: float) -> nn.Sequential:
    """Return ``layers`` projection layers, the last without ReLU (docs/model.md, "Projections")."""
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


class FeedForward(nn.Module):
    """Linear -> PReLU -> Dropout -> Linear; the caller passes the PReLU, because two feed-forwards may share one."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, activation: nn.PReLU) -> Tensor:
        """Return (..., dim) of (..., dim)."""
        out: Tensor = self.linear2(self.dropout(activation(self.linear1(x))))
        return out


class FeedForwardBlock(nn.Module):
    """LN2(y + Drop(FF(LN1(y)))): the residual adds to the un-normalised ``y``."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, y: Tensor, activation: nn.PReLU) -> Tensor:
        """Return (..., dim) of (..., dim)."""
        out: Tensor = self.norm2(y + self.dropout(self.feedforward(self.norm1(y), activation)))
        return out


class CrossEncoderLayer(nn.Module):
    """Updates ``a`` by attending to ``b`` (docs/model.md, "Cross-encoder layer").

    Args:
        dim, heads, hidden, dropout: width, attention heads, feed-forward width, dropout probability.
        blocks: number of feed-forward blocks; 2 if FW-MESM has one for each direction.
    """

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float, blocks: int = 1) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim=dim, heads=heads)
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.PReLU()
        self.blocks = nn.ModuleList(FeedForwardBlock(dim=dim, hidden=hidden, dropout=dropout) for _ in range(blocks))

    def forward(
        self, a: Tensor, b: Tensor, *, a_pos: Tensor | float, b_pos: Tensor | float, b_mask: Tensor, block: int = 0
    ) -> Tensor:
        """Return the updated ``a`` (Q, L, dim).

        Args:
            a, a_pos: (Q, L, dim); b, b_pos: (Q, S, dim); positions may be 0.
            b_mask: (Q, S) bool, True where valid.
            block: index of the feed-forward block.
        """
        y = a + self.dropout(self.attention(a + a_pos, b + b_pos, b, key_mask=b_mask))
        out: Tensor = self.blocks[block](y, self.activation)
        return out


class CrossEncoder(nn.Module):
    """A stack of cross-encoder layers that all attend to the same ``b``; arguments as for one layer."""

    def __init__(self, *, layers: int, dim: int, heads: int, hidden: int, dropout: float, blocks: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossEncoderLayer(dim=dim, heads=heads, hidden=hidden, dropout=dropout, blocks=blocks)
            for _ in range(layers)
        )

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        *,
        a_pos: Tensor | float = 0.0,
        b_pos: Tensor | float = 0.0,
        b_mask: Tensor,
        block: int = 0,
    ) -> Tensor:
        """Return the updated ``a`` (Q, L, dim)."""
        for layer in self.layers:
            a = layer(a, b, a_pos=a_pos, b_pos=b_pos, b_mask=b_mask, block=block)
        return a


class EncoderLayer(nn.Module):
    """Post-norm self-attention; positions are added to queries and keys only."""

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim=dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=hidden, dropout=dropout)
        self.activation = nn.PReLU()
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, pos: Tensor, mask: Tensor) -> Tensor:
        """Return (Q, L, dim) of x and pos (Q, L, dim); mask: (Q, L) bool, True where a key is valid."""
        q = k = x + pos
        x = self.norm1(x + self.dropout(self.attention(q, k, x, key_mask=mask)))
        out: Tensor = self.norm2(x + self.dropout(self.feedforward(x, self.activation)))
        return out
