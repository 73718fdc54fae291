"""The layers of ``mesm_core.model`` with few kernel launches: joined products, and padded attention over packed frames.

Each class holds the products of one module, and computes the same as the module's ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.joined import KEY, QUERY, VALUE, Joined, Part, side_by_side
from mesm_core.fast.kernels import Kernels
from mesm_core.fast.layers import parts
from mesm_core.fast.padding import Rows
from mesm_core.fast.sublayers import linear_and_input, residual_feedforward, residual_linear
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

    def residual(self, layer: nn.Linear, dropout: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + dropout(layer(x))`` of rows (n, d)."""
        if self.weights.compiling:
            return self.kernels.add_dropped(dropout, onto, self.weights.product(layer, x))
        mask = self.kernels.residual_mask(dropout, onto)
        return residual_linear(onto, x, *self.weights.sublayer_tensors(layer), mask)

    def product_and_input(
        self, layer: Joined | nn.Linear, x: Tensor, pos: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the product of x + pos, rows (n, d), and x, from which the residual starts."""
        if self.weights.compiling:
            return self.weights.product(layer, x if pos is None else x + pos), x
        return linear_and_input(x, pos, *self.weights.sublayer_tensors(layer))

    def feedforward(
        self, layer: FeedForward, dropout: nn.Dropout, activation: nn.PReLU, x: Tensor, onto: Tensor | None = None
    ) -> Tensor:
        """Return ``onto + dropout(layer(x, activation))`` of rows (n, d); onto: default x."""
        weights, kernels, slope = self.weights, self.kernels, self.weights.slope(activation)
        if weights.compiling:
            hidden = kernels.dropout(layer.dropout, F.prelu(weights.product(layer.linear1, x), slope))
            return kernels.add_dropped(dropout, x if onto is None else onto, weights.product(layer.linear2, hidden))
        first, second = weights.sublayer_tensors(layer.linear1), weights.sublayer_tensors(layer.linear2)
        drop, mask = partial(kernels.drop, layer.dropout), kernels.residual_mask(dropout, x)
        return residual_feedforward(onto, x, first, slope, second, drop=drop, mask=mask)

    def block(self, block: FeedForwardBlock, y: Tensor, activation: nn.PReLU) -> Tensor:
        """Return ``block(y, activation)`` of rows (n, d)."""
        found = self.feedforward(block.feedforward, block.dropout, activation, block.norm1(y), onto=y)
        out: Tensor = block.norm2(found)
        return out

    def project(self, layers: nn.Module, x: Tensor) -> Tensor:
        """Return ``layers(x)`` of projection layers."""
        for layer in parts(layers, ProjectionLayer):
            x = self.projection(layer, x)
        return x

    def projection(self, layer: ProjectionLayer, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        x = self.weights.product(layer.linear, self.kernels.dropout(layer.dropout, layer.norm(x)))
        return F.relu(x) if layer.relu else x


@dataclass(frozen=True)
class Stream:
    """Rows that are updated by a ``CrossEncoder``, and what they attend to.

    ``a`` (n, d) with positions ``pos`` (n, d) or None: packed by ``packed``, or the rows of (B, L, d);
    ``key``, ``value`` (B, S, d): what is attended to, with and without positions; ``bias`` (B, 1, 1, S) of its mask;
    ``block``: index of the feed-forward block.
    """

    a: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    pos: Tensor | None = None
    packed: Rows | None = None
    block: int = 0

    def attend(self, given: Pass, query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
        """Return attention (n, d) of projected rows (n, d) to projected rows (B·S, d)."""
        batch = len(self.key)
        q = torch.unflatten(query, 0, (batch, -1)) if self.packed is None else self.packed.pad(query)
        k, v = (torch.unflatten(x, 0, (batch, -1)) for x in (key, value))
        found = given.attend(q, k, v, heads=heads, bias=self.bias)
        return found.flatten(0, 1) if self.packed is None else self.packed.pack(found)


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

    @property
    def summed(self) -> list[Joined | nn.Linear]:
        """The layers that are applied to ``a`` with the first block."""
        found: list[Joined | nn.Linear] = [*self.queries]
        for layer in self.layers:
            feedforward = parts(layer.blocks, FeedForwardBlock)[0].feedforward
            found += [layer.attention.out_proj, feedforward.linear1, feedforward.linear2]
        return found

    def __call__(self, given: Pass, *streams: Stream) -> list[Tensor]:
        """Return the updated rows (n, d) of each stream. Products and dropout are computed for all of them at once."""
        attended = [
            given.weights.product(joined, together([x.flatten(0, 1) for x in inputs]))
            for joined, inputs in zip(
                self.attended, ([s.key for s in streams], [s.value for s in streams]), strict=False
            )
        ]
        count = len(self.layers)
        chunks = [chunk for x in attended for chunk in x.chunk(2 * count // len(attended), dim=-1)]
        sizes, lengths = [s.key.shape[:2].numel() for s in streams], [len(s.a) for s in streams]
        pos = given_positions(streams)
        rows = [s.a for s in streams]
        for layer, query, keys, values in zip(self.layers, self.queries, chunks[:count], chunks[count:], strict=True):
            a = together(rows)
            q, a = given.product_and_input(query, a, pos)
            parts_of = zip(streams, apart(q, lengths), apart(keys, sizes), apart(values, sizes), strict=True)
            found = together([s.attend(given, *x, heads=layer.attention.heads) for s, *x in parts_of])
            y = given.residual(layer.attention.out_proj, layer.dropout, a, found)
            blocks = [parts(layer.blocks, FeedForwardBlock)[s.block] for s in streams]
            same = all(block is blocks[0] for block in blocks)
            inputs = zip(blocks[:1], [y], strict=True) if same else zip(blocks, apart(y, lengths), strict=True)
            rows = [given.block(block, x, layer.activation) for block, x in inputs]
        return rows if len(rows) == len(streams) else apart(rows[0], lengths)


def together(parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of all tensors (n, ...), one after another."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def apart(rows: Tensor, lengths: list[int]) -> list[Tensor]:
    """Return the parts of rows, by their numbers of rows."""
    return [rows] if len(lengths) == 1 else list(torch.split(rows, lengths))


def given_positions(streams: Sequence[Stream]) -> Tensor | None:
    """Return the positions of the rows of all streams, 0 where a stream has none, or None if all have none."""
    if all(s.pos is None for s in streams):
        return None
    return together([torch.zeros_like(s.a) if s.pos is None else s.pos for s in streams])


class SelfProducts:
    """An ``EncoderLayer``: queries and keys have the same input."""

    def __init__(self, layer: EncoderLayer) -> None:
        self.layer = layer
        self.queries_keys = side_by_side(Part(layer.attention, QUERY), Part(layer.attention, KEY))
        self.values = side_by_side(Part(layer.attention, VALUE))
        self.joined: list[Joined] = [self.queries_keys, self.values]

    def __call__(self, given: Pass, x: Tensor, *, pos: Tensor, bias: Tensor, rows: Rows) -> Tensor:
        """Return the updated x (N, d), packed by ``rows``; pos: (N, d); bias: (B, 1, 1, L) of the mask of keys."""
        layer, attention = self.layer, self.layer.attention
        qk, x = given.product_and_input(self.queries_keys, x, pos)
        v, x = given.product_and_input(self.values, x)
        q, k = rows.pad(qk).chunk(2, dim=-1)
        found = rows.pack(given.attend(q, k, rows.pad(v), heads=attention.heads, bias=bias))
        x = layer.norm1(given.residual(attention.out_proj, layer.dropout, x, found))
        out: Tensor = layer.norm2(given.feedforward(layer.feedforward, layer.dropout, layer.activation, x))
        return out
