"""The moment decoder: conditional attention around (center, width) references that every layer refines.

Source: docs/model.md, "Aligner and DETR"; DAB-DETR (arXiv 2201.12329), conditional DETR (arXiv 2108.06152).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.attention import attend, attend_among_few
from mesm_core.model.layers import MLP, FeedForward
from mesm_core.model.positions import point_positions

LOGIT_EPS = 1e-3


def logit(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Return the inverse sigmoid of values in [0, 1], both ``x`` and ``1 - x`` clamped at ``eps``."""
    # The gradient of threshold is one operation, that of clamp is three.
    return torch.log(F.threshold(x, eps, eps) / F.threshold(1 - x, eps, eps))


def concat_heads(content: Tensor, position: Tensor, *, heads: int) -> Tensor:
    """Concatenate content and position, (Q, L, dim) each, within every head; return (Q, L, 2 dim)."""
    return torch.cat([x.view(*x.shape[:2], heads, -1) for x in (content, position)], dim=-1).flatten(2)


class DecoderLayer(nn.Module):
    """Slots attend to each other, then to the memory; content and position have their own projections.

    Args:
        first: whether this is the first layer, which also adds positions to the content of cross-attention's queries
            and keys.
    """

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.self_query_content, self.self_query_pos = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.self_key_content, self.self_key_pos = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.self_value, self.self_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_query_content = nn.Linear(dim, dim)
        self.cross_query_pos = nn.Linear(dim, dim) if first else None
        self.cross_query_sine = nn.Linear(dim, dim)
        self.cross_key_content, self.cross_key_pos = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.cross_value, self.cross_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=hidden, dropout=dropout)
        self.activation = nn.PReLU()
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, *, query_pos: Tensor, sine: Tensor, memory: Tensor, pos: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the slots' new content (Q, N, dim).

        Args:
            content, query_pos, sine: (Q, N, dim) slots, their positions and their modulated sine positions.
            memory, pos: (Q, T, dim) frames and their positions; mask: (Q, T) bool, True where valid.
        """
        q = self.self_query_content(content) + self.self_query_pos(query_pos)
        k = self.self_key_content(content) + self.self_key_pos(query_pos)
        found = attend_among_few(q, k, self.self_value(content), heads=self.heads)  # (Q, N, dim)
        content = self.norm1(content + self.dropout(self.self_out(found)))

        q, k, k_pos = self.cross_query_content(content), self.cross_key_content(memory), self.cross_key_pos(pos)
        if self.cross_query_pos is not None:
            q, k = q + self.cross_query_pos(query_pos), k + k_pos
        q = concat_heads(q, self.cross_query_sine(sine), heads=self.heads)  # (Q, N, 2 dim)
        k = concat_heads(k, k_pos, heads=self.heads)  # (Q, T, 2 dim)
        found = attend(q, k, self.cross_value(memory), heads=self.heads, key_mask=mask)  # (Q, N, dim)
        content = self.norm2(content + self.dropout(self.cross_out(found)))

        out: Tensor = self.norm3(content + self.dropout(self.feedforward(content, self.activation)))
        return out


class Decoder(nn.Module):
    """A stack of decoder layers for N moment slots, each with a (center, width) reference that every layer refines."""

    def __init__(self, *, layers: int, slots: int, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.slots = nn.Embedding(slots, 2)
        self.layers = nn.ModuleList(
            DecoderLayer(dim=dim, heads=heads, hidden=hidden, dropout=dropout, first=number == 0)
            for number in range(layers)
        )
        self.query_pos = MLP(dim, dim, dim)
        self.sine_scale = MLP(dim, dim, dim)
        self.width_scale = MLP(dim, dim, 1)
        self.move = MLP(dim, dim, dim, 2)
        self.norm = nn.LayerNorm(dim)
        if layers == 1:
            # Unused with one layer. Distributed training would wait for their gradients.
            self.move.requires_grad_(False)
            self.sine_scale.requires_grad_(False)

    def forward(self, memory: Tensor, *, pos: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (L, Q, N, dim) of each of L layers and the references (L, Q, N, 2) that it started from.

        Args:
            memory, pos: (Q, T, dim); mask: (Q, T) bool, True where valid.
        """
        reference = self.slots.weight.sigmoid().expand(len(memory), -1, -1)  # (Q, N, 2)
        content = memory.new_zeros(*reference.shape[:2], self.dim)  # (Q, N, dim)
        outputs: list[Tensor] = []
        references = [reference]
        for layer in self.layers:
            if outputs:
                references.append((self.move(content) + logit(reference)).sigmoid())
                reference = references[-1].detach()
            query_pos, sine = self.place(reference, content, first=not outputs)
            content = layer(content, query_pos=query_pos, sine=sine, memory=memory, pos=pos, mask=mask)
            outputs.append(content)
        return self.norm(torch.stack(outputs)), torch.stack(references)

    def place(self, reference: Tensor, content: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
        """Return the slots' positions and their modulated sine positions, both (Q, N, dim).

        Args:
            reference: (Q, N, 2) center and width; content: (Q, N, dim); first: whether this is the first layer.
        """
        sine = point_positions(reference, self.dim // 2).flatten(2)  # (Q, N, dim)
        query_pos = self.query_pos(sine)
        scale = 1.0 if first else self.sine_scale(content)
        return query_pos, sine * scale * (self.width_scale(content).sigmoid() / reference[..., 1:])
