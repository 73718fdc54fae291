"""The layers of ``mesm_core.model`` with few kernel launches: joined products, and padded attention over packed frames.

Each class holds the products of one module, and computes the same as the module's ``forward``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.joined import KEY, QUERY, VALUE, Joined, Part, side_by_side
from mesm_core.fast.kernels import Kernels
from mesm_core.fast.layers import parts
from mesm_core.fast.padding import Rows
from mesm_core.fast.weights import Weights
from mesm_core.model.attention import join_heads, split_heads
from mesm_core.model.layers import (
    CrossEncoder,
    CrossEncoderLayer,
    EncoderLayer,
    FeedForward,
    FeedForwardBlock,
    ProjectionLayer,
)


@dataclass(frozen=True)
class Pass:
    """What the layers of one forward pass share: the weights of its products, and the kernels of its device."""

    weights: Weights
    kernels: Kernels

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, heads: int, bias: Tensor) -> Tensor:
        """Return attention (B, L, D) of projected (B, L, D), (B, S, D) and (B, S, D); bias: (B, 1, 1, S)."""
        q, k, v = (split_heads(x, heads) for x in (query, key, value))
        return join_heads(self.kernels.scaled_attention(q, k, v, bias))

    def feedforward(self, layer: FeedForward, x: Tensor, activation: nn.PReLU) -> Tensor:
        """Return ``layer(x, activation)``."""
        hidden = self.weights.prelu(activation, self.weights.linear(layer.linear1, x))
        return self.weights.linear(layer.linear2, self.kernels.dropout(layer.dropout, hidden))

    def block(self, block: FeedForwardBlock, y: Tensor, activation: nn.PReLU) -> Tensor:
        """Return ``block(y, activation)``."""
        hidden = self.feedforward(block.feedforward, block.norm1(y), activation)
        out: Tensor = block.norm2(self.kernels.add_dropped(block.dropout, y, hidden))
        return out

    def project(self, layers: nn.Module, x: Tensor) -> Tensor:
        """Return ``layers(x)`` of projection layers."""
        for layer in parts(layers, ProjectionLayer):
            x = self.projection(layer, x)
        return x

    def projection(self, layer: ProjectionLayer, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        x = self.weights.linear(layer.linear, self.kernels.dropout(layer.dropout, layer.norm(x)))
        return F.relu(x) if layer.relu else x


class CrossProducts:
    """A ``CrossEncoder``: keys and values of all its layers are computed at once, since all attend to the same ``b``.

    Args:
        same: whether keys and values are those of the same input, i.e. ``b`` has no positions.
    """

    def __init__(self, encoder: CrossEncoder, *, same: bool = False) -> None:
        self.layers = parts(encoder.layers, CrossEncoderLayer)
        attentions = [layer.attention for layer in self.layers]
        self.queries = [side_by_side(Part(attention, QUERY)) for attention in attentions]
        keys, values = ([Part(attention, third) for attention in attentions] for third in (KEY, VALUE))
        self.attended = [side_by_side(*keys, *values)] if same else [side_by_side(*keys), side_by_side(*values)]
        self.joined = [*self.queries, *self.attended]

    def __call__(
        self,
        given: Pass,
        a: Tensor,
        *,
        a_pos: Tensor | float,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        rows: Rows | None = None,
        block: int = 0,
    ) -> Tensor:
        """Return the updated ``a``: (N, d) packed by ``rows``, or (B, L, d).

        Args:
            key, value: (B, S, d) what is attended to, with and without positions; bias: (B, 1, 1, S) of its mask.
        """
        projected = [given.weights.product(joined, x) for joined, x in zip(self.attended, (key, value), strict=False)]
        count = len(self.layers)
        chunks = [chunk for x in projected for chunk in x.chunk(2 * count // len(projected), dim=-1)]
        keys, values = chunks[:count], chunks[count:]
        for layer, query, k, v in zip(self.layers, self.queries, keys, values, strict=True):
            q = given.weights.product(query, a + a_pos if isinstance(a_pos, Tensor) else a)
            found = given.attend(q if rows is None else rows.pad(q), k, v, heads=layer.attention.heads, bias=bias)
            found = given.weights.linear(layer.attention.out_proj, found if rows is None else rows.pack(found))
            y = given.kernels.add_dropped(layer.dropout, a, found)
            a = given.block(parts(layer.blocks, FeedForwardBlock)[block], y, layer.activation)
        return a


class SelfProducts:
    """An ``EncoderLayer``: queries and keys have the same input."""

    def __init__(self, layer: EncoderLayer) -> None:
        self.layer = layer
        self.queries_keys = side_by_side(Part(layer.attention, QUERY), Part(layer.attention, KEY))
        self.values = side_by_side(Part(layer.attention, VALUE))
        self.joined: list[Joined] = [self.queries_keys, self.values]

    def __call__(self, given: Pass, x: Tensor, *, pos: Tensor, bias: Tensor, rows: Rows) -> Tensor:
        """Return the updated x (N, d), packed by ``rows``; pos: (N, d); bias: (B, 1, 1, L) of the mask of keys."""
        layer, weights = self.layer, given.weights
        q, k = rows.pad(weights.product(self.queries_keys, x + pos)).chunk(2, dim=-1)
        v = rows.pad(weights.product(self.values, x))
        found = rows.pack(given.attend(q, k, v, heads=layer.attention.heads, bias=bias))
        found = weights.linear(layer.attention.out_proj, found)
        x = layer.norm1(given.kernels.add_dropped(layer.dropout, x, found))
        hidden = given.feedforward(layer.feedforward, x, layer.activation)
        out: Tensor = layer.norm2(given.kernels.add_dropped(layer.dropout, x, hidden))
        return out
