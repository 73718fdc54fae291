"""The weights of joined layers in one buffer, and the gradients of the buffer in one of parameters: few launches each.

Both buffers consist of pieces of equal size. A piece of one is copied to the other by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import gcd, lcm
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mesm_core.fast.joined import Joined, Part

ALIGNED = 64
"""Every matrix starts at a multiple of this many values, as fast matrix products need."""
ZERO = -1
"""The number of a piece of zeros."""


class Pieces(NamedTuple):
    """Numbers of pieces, int64. Pieces ``copied`` of the parameters make the buffer of matrices.

    To its pieces ``added_to``, the pieces ``added`` of the parameters are added. The pieces ``gathered`` of the
    matrices' gradients make the buffer of the parameters' gradients, and to its pieces ``again_to``, the pieces
    ``again`` are added.
    """

    copied: Tensor
    added_to: Tensor
    added: Tensor
    gathered: Tensor
    again_to: Tensor
    again: Tensor


class Assembly:
    """The layout of a buffer with the weights of products.

    Args:
        products: joined layers; their weights are in the buffer.
        scalars: activations with one parameter, of which a copy is in the buffer.
        unused: modules and names of parameters that are in no product; their gradient is zero.
    """

    def __init__(
        self,
        products: Sequence[Joined],
        scalars: Sequence[nn.PReLU] = (),
        unused: Sequence[tuple[nn.Module, str]] = (),
    ) -> None:
        self.products, self.scalars = tuple(products), tuple(scalars)
        self.piece = gcd(*(size for product in self.products for size in product.steps())) or ALIGNED
        self.unit = lcm(self.piece, ALIGNED)  # the size of every parameter and matrix is filled up to a multiple of it
        self.lengths: list[int] = []  # of the matrices: weight and bias of each product, then the scalars
        self._parameters: dict[tuple[int, str], tuple[nn.Module, str, int]] = {}  # with the first piece
        self._count = 0  # number of the parameters' pieces
        self._copied: list[np.ndarray] = []  # of each matrix
        self._added: list[tuple[int, int]] = []
        self._kept: dict[torch.device, Pieces] = {}
        for product in self.products:
            self._lay_out(product)
        for module in self.scalars:
            self._append(self._pieces(module, "weight"), 1)
        for owner, name in unused:
            self._pieces(owner, name)

    def parameters(self) -> list[Tensor]:
        """Return the parameters, in the order of their pieces."""
        return [getattr(module, name) for module, name, _ in self._parameters.values()]

    def pieces(self, device: torch.device) -> Pieces:
        """Return the numbers of pieces on a device; they are copied to it once."""
        if device not in self._kept:
            with torch.inference_mode(False):
                self._kept[device] = Pieces(*(torch.tensor(x, device=device) for x in self._numbers()))
        return self._kept[device]

    def filled(self, flat: Sequence[Tensor], zero: Tensor) -> Tensor:
        """Return the pieces (P, piece) of tensors (n,), each filled up, and then a unit of zeros. zero: (1,)."""
        ends = [zero.expand(-len(x) % self.unit) for x in flat]
        parts = [part for pair in zip(flat, ends, strict=True) for part in pair if len(part)]
        return torch.cat([*parts, zero.expand(self.unit)]).view(-1, self.piece)

    def parts(self, pieces: Tensor, lengths: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the tensors (n,) of these lengths, of pieces in which each is filled up."""
        split = torch.split(pieces.flatten(), [end for n in lengths for end in (n, -n % self.unit)])
        return split[::2]

    def _lay_out(self, product: Joined) -> None:
        single = product.single
        if single is not None:
            for which, length in enumerate((single.weight.numel(), single.bias.numel())):
                self._append(self._of(Part(single), which, length), length)
            return
        columns = [
            np.concatenate(
                [self._of(part, 0, shape.numel()) for part, shape in zip(column, product.shapes, strict=True)]
            )
            for column in zip(*product.rows, strict=True)
        ]
        blocks = np.stack(columns).reshape(len(columns), product.height, -1)
        self._append(product.arrange(blocks).flatten(), product.height * product.width * len(columns))
        # The biases of a row are added.
        terms = zip_longest(*([part for part in row if part is not None] for row in product.rows))
        for number, term in enumerate(terms):
            biases = [self._of(part, 1, shape[0]) for part, shape in zip(term, product.shapes, strict=True)]
            pieces = product.arrange(np.concatenate(biases).reshape(1, -1, 1)).flatten()
            if number == 0:
                start = self._append(pieces, product.height)
            else:
                self._added += [(start + place, piece) for place, piece in enumerate(pieces) if piece != ZERO]

    def _append(self, pieces: np.ndarray, length: int) -> int:
        """Add a matrix of so many values to the buffer, and return the number of its first piece."""
        start = sum(map(len, self._copied))
        count = -(-length // self.unit) * self.unit // self.piece
        self._copied.append(np.pad(pieces, (0, count - len(pieces)), constant_values=ZERO))
        self.lengths.append(length)
        return start

    def _of(self, part: Part | None, which: int, size: int) -> np.ndarray:
        """Return the pieces of a part's weight (0) or bias (1), of so many values; those of zeros for None."""
        count = -(-size // self.piece)
        if part is None:
            return np.full(count, ZERO)
        if isinstance(part.module, nn.Linear):
            return self._pieces(part.module, ("weight", "bias")[which])[:count]
        pieces = self._pieces(part.module, ("in_proj_weight", "in_proj_bias")[which])
        return pieces[part.third * count : (part.third + 1) * count]

    def _pieces(self, module: nn.Module, name: str) -> np.ndarray:
        """Return the pieces of a parameter."""
        count = -(-getattr(module, name).numel() // self.unit) * self.unit // self.piece
        key = id(module), name
        if key not in self._parameters:
            self._parameters[key] = module, name, self._count
            self._count += count
        return np.arange(count) + self._parameters[key][2]

    def _numbers(self) -> tuple[np.ndarray, ...]:
        """Return the fields of ``Pieces``."""
        copied = np.concatenate(self._copied)
        added_to, added = np.array(self._added, dtype=np.int64).reshape(-1, 2).T
        used = np.flatnonzero(copied != ZERO)
        sources, places = np.concatenate([copied[used], added]), np.concatenate([used, added_to])
        # A parameter that is in several places has its gradient from the first, and those from others are added.
        first, where = np.unique(sources, return_index=True)
        gathered = np.full(self._count, len(copied))  # the number of the zeros after all matrices
        gathered[first] = places[where]
        again = np.delete(np.arange(len(sources)), where)
        return (
            np.where(copied == ZERO, self._count, copied), added_to, added, gathered, sources[again], places[again]
        )  # fmt: skip


class Assemble(torch.autograd.Function):
    """Copies parameters to one buffer of matrices, and the gradients of the matrices to one buffer of parameters.

    The outputs are weight (R, C·d) and bias (R,) of each product, then the scalars (1,), in the dtype ``dtype``.
    """

    @staticmethod
    def forward(ctx: Any, assembly: Assembly, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.assembly, ctx.shapes, ctx.dtype = assembly, [p.shape for p in parameters], parameters[0].dtype
        ctx.set_materialize_grads(False)
        pieces = assembly.pieces(parameters[0].device)
        source = assembly.filled([p.reshape(-1) for p in parameters], parameters[0].new_zeros(1))
        buffer = source.index_select(0, pieces.copied)
        if len(pieces.added):
            buffer.index_add_(0, pieces.added_to, source.index_select(0, pieces.added))
        outputs = list(assembly.parts(buffer.to(dtype), assembly.lengths))
        for number, product in enumerate(assembly.products):
            outputs[2 * number] = outputs[2 * number].view(product.height, -1)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        assembly = ctx.assembly
        some = next(grad for grad in grads if grad is not None)
        pieces, zero = assembly.pieces(some.device), some.new_zeros(1)
        flat = [
            zero.expand(length) if grad is None else grad.reshape(-1)
            for grad, length in zip(grads, assembly.lengths, strict=True)
        ]
        source = assembly.filled(flat, zero).to(ctx.dtype)
        found = source.index_select(0, pieces.gathered)
        if len(pieces.again):
            found.index_add_(0, pieces.again_to, source.index_select(0, pieces.again))
        parts = assembly.parts(found, [shape.numel() for shape in ctx.shapes])
        return (None, None, *(x.view(shape) for x, shape in zip(parts, ctx.shapes, strict=True)))
