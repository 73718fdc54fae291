"""The moment DETR: self-attention over frames, and a decoder of moment slots with reference points.

Source: mesm-model.md, "Aligner and DETR"; DAB-DETR (arXiv 2201.12329), conditional DETR (arXiv 2108.06152).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mesm_core.model.attention import MultiHeadAttention, attend, attend_among_few, split_heads
from mesm_core.model.dropout import Dropout
from mesm_core.model.feedforward import FeedForward
from mesm_core.model.folded import few_look, unfold
from mesm_core.model.layers import MLP
from mesm_core.model.packing import Packing
from mesm_core.model.positions import point_positions

LOGIT_EPS = 1e-3


def logit(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Return the inverse sigmoid of values in [0, 1], both ``x`` and ``1 - x`` clamped at ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class EncoderLayer(nn.Module):
    """Post-norm self-attention; the position is added to queries and keys only."""

    def __init__(self, *, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim=dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=hidden, dropout=dropout)
        self.activation = nn.PReLU()
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, *, pos: Tensor, mask: Tensor, rows: Packing) -> Tensor:
        """Return (N, dim) of x, pos (N, dim), packed as ``rows`` says; mask: (B, L) bool, True where a key is valid."""
        where = x + pos
        x = self.norm1(self.dropout.add(x, self.attention(where, where, x, key_mask=mask, rows=rows)))
        out: Tensor = self.norm2(self.dropout.add(x, self.feedforward(x, self.activation)))
        return out


class DecoderLayer(nn.Module):
    """Slots look at each other, then at the memory, with content and position kept apart.

    Args:
        first: the first layer also adds positions to the content of queries and keys.
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
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content: Tensor,
        *,
        query_pos: Tensor,
        sine: Tensor,
        memory: Tensor,
        pos: Tensor,
        mask: Tensor,
        rows: Packing,
    ) -> Tensor:
        """Return the slots' new content (B, N, dim).

        Args:
            content, query_pos, sine: (B, N, dim) slots, their positions, their modulated sine positions.
            memory, pos: (N, dim) frames and their positions, packed as ``rows`` says; mask: (B, T) bool, True where
                valid.
        """
        q = self.self_query_content(content) + self.self_query_pos(query_pos)
        k = self.self_key_content(content) + self.self_key_pos(query_pos)
        looked = attend_among_few(q, k, self.self_value(content), heads=self.heads)
        content = self.norm1(self.dropout.add(content, self.self_out(looked)))

        q, q_sine = self.cross_query_content(content), self.cross_query_sine(sine)
        if self.cross_query_pos is not None:
            q = q + self.cross_query_pos(query_pos)
        look = self._look_packed if rows.runs else self._look_padded
        looked = look(q, q_sine, memory=memory, pos=pos, mask=mask, rows=rows)
        content = self.norm2(self.dropout.add(content, self.cross_out(looked)))
        out: Tensor = self.norm3(self.dropout.add(content, self.feedforward(content, self.activation)))
        return out

    def _look_padded(
        self, q: Tensor, q_sine: Tensor, *, memory: Tensor, pos: Tensor, mask: Tensor, rows: Packing
    ) -> Tensor:
        """Return (B, N, dim): the slots look at the frames' content and position, both with weights of their own."""
        k, k_pos = self.cross_key_content(memory), self.cross_key_pos(pos)
        if self.cross_query_pos is not None:
            k = k + k_pos
        q, k = self._per_head(q, q_sine), self._per_head(rows.pad(k), rows.pad(k_pos))
        return attend(q, k, rows.pad(self.cross_value(memory)), heads=self.heads, key_mask=mask)

    def _look_packed(
        self, q: Tensor, q_sine: Tensor, *, memory: Tensor, pos: Tensor, mask: Tensor, rows: Packing
    ) -> Tensor:
        """Return the same without padding or projecting the frames; the keys' biases cancel in the softmax."""
        heads, scale = self.heads, (2 * q.shape[2] // self.heads) ** -0.5
        q, q_sine = split_heads(q, heads) * scale, split_heads(q_sine, heads) * scale
        if self.cross_query_pos is not None:
            q_sine = q_sine + q
        content, position = self.cross_key_content, self.cross_key_pos
        found = few_look([(q, memory, content.weight), (q_sine, pos, position.weight)], rows=rows)
        looked = unfold(found, self.cross_value.weight) + self.cross_value.bias
        # Their gradient is zero, not missing: processes exchange it, and weight decay applies.
        return looked + 0 * (content.bias + position.bias)

    def _per_head(self, content: Tensor, position: Tensor) -> Tensor:
        parts = [split_heads(x, self.heads) for x in (content, position)]
        return torch.cat(parts, dim=-1).transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """Decoder of N moment slots, each with a (center, width) reference that every layer moves."""

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
            # They act between layers only; parameters without gradient would keep processes waiting for each other.
            self.move.requires_grad_(False)
            self.sine_scale.requires_grad_(False)

    def forward(self, memory: Tensor, *, pos: Tensor, mask: Tensor, rows: Packing) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's output (B, N, dim) and the references (B, N, 2) that went into it.

        Args:
            memory, pos: (N, dim) packed as ``rows`` says; mask: (B, T) bool, True where valid.
        """
        batch = rows.batch
        reference = self.slots.weight.sigmoid().expand(batch, -1, -1)
        content = memory.new_zeros(batch, reference.shape[1], self.dim)
        seen, outputs, references = reference, [], []
        for number, layer in enumerate(self.layers):
            sine = point_positions(seen, self.dim // 2).flatten(2)
            query_pos = self.query_pos(sine)
            scale = 1.0 if number == 0 else self.sine_scale(content)
            sine = sine * scale * (self.width_scale(content).sigmoid() / seen[..., 1:])
            content = layer(content, query_pos=query_pos, sine=sine, memory=memory, pos=pos, mask=mask, rows=rows)
            outputs.append(self.norm(content))
            references.append(reference)
            reference = (self.move(content) + logit(seen)).sigmoid()
            seen = reference.detach()
        return outputs, references
