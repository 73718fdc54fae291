"""The cross-encoder layer that FW-MESM, SS-MESM and the aligner share (mesm-model.md, "Cross-encoder layer")."""

from __future__ import annotations

from torch import Tensor, nn

from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.dropout import Dropout
from mesm_core.model.feedforward import FeedForward
from mesm_core.model.packing import Packing


class FeedForwardBlock(nn.Module):
    """``y + Drop(FF(LN1(y)))`` then LN2: the residual adds to the un-normalised ``y``."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=hidden, dropout=dropout)
        self.dropout = Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, y: Tensor, activation: nn.PReLU) -> Tensor:
        """Return (..., dim) of (..., dim)."""
        out: Tensor = self.norm2(self.dropout.add(y, self.feedforward(self.norm1(y), activation)))
        return out


class CrossEncoderLayer(nn.Module):
    """Updates ``a`` by looking at ``b``.

    Args:
        dim, heads, hidden, dropout: width, attention heads, feed-forward width, dropout probability.
        roles: feed-forwards to choose from; two where the FW encoder does not share its own between roles.
    """

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float, roles: int = 1) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim=dim, heads=heads)
        self.dropout = Dropout(dropout)
        self.activation = nn.PReLU()
        self.blocks = nn.ModuleList(FeedForwardBlock(dim=dim, hidden=hidden, dropout=dropout) for _ in range(roles))

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        *,
        a_pos: Tensor | None,
        b_pos: Tensor | None,
        b_mask: Tensor,
        role: int = 0,
        rows: Packing | None = None,
        pick: Tensor | None = None,
    ) -> Tensor:
        """Return the updated ``a``.

        Args:
            a: (B, L, dim), b: (B, S, dim); a_pos, b_pos: the same shapes, or None for none.
            b_mask: (B, S) bool, True where valid.
            role: which feed-forward to use.
            rows: ``a`` and the result are (N, dim) packed rows.
            pick: (B,) int64: ``b`` is (C, S, dim), and a's item i looks at ``pick[i]``.
        """
        query = a if a_pos is None else a + a_pos
        key = b if b_pos is None else b + b_pos
        y = self.dropout.add(a, self.attention(query, key, b, key_mask=b_mask, rows=rows, pick=pick))
        out: Tensor = self.blocks[min(role, len(self.blocks) - 1)](y, self.activation)
        return out


class CrossEncoder(nn.Module):
    """A stack of cross-encoder layers that all look at the same ``b``."""

    def __init__(self, *, layers: int, dim: int, heads: int, hidden: int, dropout: float, roles: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossEncoderLayer(dim=dim, heads=heads, hidden=hidden, dropout=dropout, roles=roles) for _ in range(layers)
        )

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        *,
        a_pos: Tensor | None = None,
        b_pos: Tensor | None = None,
        b_mask: Tensor,
        role: int = 0,
        rows: Packing | None = None,
        pick: Tensor | None = None,
    ) -> Tensor:
        """Return the updated ``a``; arguments as in ``CrossEncoderLayer.forward``."""
        for layer in self.layers:
            a = layer(a, b, a_pos=a_pos, b_pos=b_pos, b_mask=b_mask, role=role, rows=rows, pick=pick)
        return a
