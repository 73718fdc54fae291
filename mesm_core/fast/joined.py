"""Several linear layers as one: block matrices of their weights.

On a GPU a small product costs its launch, not its operations. Layers with the same input, or with outputs that are
added, are therefore computed as one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mesm_core.model.attention import MultiHeadAttention

QUERY, KEY, VALUE = 0, 1, 2

Blocks = TypeVar("Blocks", Tensor, np.ndarray)


@dataclass(frozen=True)
class Part:
    """The linear map of an ``nn.Linear``, or one of the three of a ``MultiHeadAttention``."""

    module: nn.Linear | MultiHeadAttention
    third: int = QUERY

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Return the parameters that contain weight and bias."""
        if isinstance(self.module, nn.Linear):
            return self.module.weight, self.module.bias
        return self.module.in_proj_weight, self.module.in_proj_bias

    def share(self, parameter: Tensor) -> Tensor:
        """Return this map's part of one of its parameters, or of a tensor of the same shape."""
        return parameter if isinstance(self.module, nn.Linear) else parameter.chunk(3)[self.third]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return weight (out, in) and bias (out,)."""
        weight, bias = self.parameters()
        return self.share(weight), self.share(bias)


class Joined:
    """A block matrix of linear maps: its product with the inputs side by side gives the outputs side by side.

    Args:
        rows: for each output, the map of every input, or None for zero. The results and biases of a row are added.
        heads: interleave the outputs by this many heads: the first head of every output, then the second, and so on.
        groups: number of groups of consecutive outputs, each interleaved for itself.
    """

    def __init__(self, *rows: Sequence[Part | None], heads: int = 1, groups: int = 1) -> None:
        self.rows, self.heads, self.groups = rows, heads, groups
        self.shapes = [next(p for p in row if p is not None).tensors()[0].shape for row in rows]
        self.height, self.width = sum(shape[0] for shape in self.shapes), self.shapes[0][1]

    @property
    def single(self) -> nn.Linear | None:
        """The layer, if there is only one, and it is an ``nn.Linear``."""
        part = self.rows[0][0]
        if len(self.rows) == len(self.rows[0]) == 1 and part is not None and isinstance(part.module, nn.Linear):
            return part.module
        return None

    def arrange(self, blocks: Blocks) -> Blocks:
        """Return the matrix (R, C·d) of blocks (C, R, d) for C inputs of width d, and outputs of R values together."""
        columns, height, width = blocks.shape
        if self.heads > 1:
            split = blocks.reshape(columns, self.groups, len(self.rows) // self.groups, self.heads, -1, width)
            blocks = split.swapaxes(2, 3).reshape(columns, height, width)
        return blocks.swapaxes(0, 1).reshape(height, columns * width)

    def steps(self) -> list[int]:
        """Return the lengths of which a piece that is copied must be a part; none for one ``nn.Linear``."""
        if self.single is not None:
            return []
        heights = [shape[0] // self.heads for shape in self.shapes]
        uneven = self.heads == 1 and all(isinstance(p.module, nn.Linear) for p in self.rows[-1] if p is not None)
        return [self.width, *(heights[:-1] if uneven else heights)]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return weight (R, C·d) and bias (R,) by differentiable concatenation."""
        some = self.rows[0][0] or self.rows[0][1]
        assert some is not None
        like = some.tensors()[0]
        columns = [
            torch.cat([like.new_zeros(shape) if part is None else part.tensors()[0]
                       for part, shape in zip(column, self.shapes, strict=True)])
            for column in zip(*self.rows, strict=True)
        ]  # fmt: skip
        biases = [torch.stack([part.tensors()[1] for part in row if part is not None]).sum(dim=0) for row in self.rows]
        bias = self.arrange(torch.cat(biases).view(1, -1, 1))
        return self.arrange(torch.stack(columns)), bias.flatten()


def side_by_side(*parts: Part) -> Joined:
    """Return the layers of one input, with their outputs side by side."""
    return Joined(*([part] for part in parts))
