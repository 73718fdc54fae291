"""Several linear layers as one: block matrices of their weights, put together once in a forward pass.

On a GPU a small product costs its launch, not its operations. Layers with the same input, or with outputs that are
added, are therefore computed as one product. The weights of all such products are copied in a few launches, and so are
their gradients. Under autocast, the weights of all other layers are rounded in the same launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.attention import MultiHeadAttention

QUERY, KEY, VALUE = 0, 1, 2
ALIGNED = 64
"""Every matrix starts at a multiple of this many values, as fast matrix products need."""


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

    def arrange(self, blocks: Tensor) -> Tensor:
        """Return the matrix (R, C·d) of blocks (C, R, d) for C inputs of width d, and outputs of R values together."""
        columns, height, width = blocks.shape
        if self.heads > 1:
            split = blocks.view(columns, self.groups, len(self.rows) // self.groups, self.heads, -1, width)
            blocks = split.transpose(2, 3).flatten(1, 4)
        return blocks.transpose(0, 1).reshape(height, columns * width)

    def take_apart(self, matrix: Tensor, width: int) -> Tensor:
        """Return the blocks (C, R, d), contiguous, of a matrix (R, C·d): the inverse of ``arrange``."""
        blocks = matrix.reshape(len(matrix), -1, width).transpose(0, 1)
        if self.heads > 1:
            split = torch.unflatten(blocks, 1, (self.groups, self.heads, len(self.rows) // self.groups, -1))
            blocks = split.transpose(2, 3).flatten(1, 4)
        return blocks.contiguous()

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


@dataclass(frozen=True)
class _Place:
    """A part of a parameter: the parameter's number, the part's number and the number of parts of equal size."""

    parameter: int
    part: int = 0
    parts: int = 1

    def of(self, flat: Sequence[Tensor]) -> Tensor:
        """Return this part of its parameter, of all parameters flattened."""
        whole = flat[self.parameter]
        return whole if self.parts == 1 else whole.chunk(self.parts)[self.part]


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
        self.sizes: list[int] = []
        self.copied: list[tuple[int, _Place]] = []  # region of the buffer, and what is copied to it
        self.added: list[tuple[int, _Place]] = []
        self.matrices: list[tuple[int, int]] = []  # start and number of regions of each weight and bias
        self.parts: list[int] = []  # number of parts of each parameter
        self._owners: dict[tuple[int, str], int] = {}
        self._parameters: list[tuple[nn.Module, str]] = []
        for product in self.products:
            self._lay_out(product)
        for module in self.scalars:
            self._start()
            self._add([self._place(module, "weight")], 1)
        for owner, name in unused:
            self._place(owner, name)

    def parameters(self) -> list[Tensor]:
        """Return the parameters, in the order of their numbers."""
        return [getattr(module, name) for module, name in self._parameters]

    def _lay_out(self, product: Joined) -> None:
        self._start()
        for column in zip(*product.rows, strict=True):
            for part, shape in zip(column, product.shapes, strict=True):
                self._add([] if part is None else [self._part(part, 0)], prod(shape))
        self._start()
        for row, shape in zip(product.rows, product.shapes, strict=True):
            self._add([self._part(part, 1) for part in row if part is not None], shape[0])

    def _start(self) -> None:
        """Begin a weight or bias."""
        self.sizes.append(-sum(self.sizes) % ALIGNED)
        self.matrices.append((len(self.sizes), 0))

    def _add(self, places: list[_Place], size: int) -> None:
        first, count = self.matrices[-1]
        self.matrices[-1] = (first, count + 1)
        for number, place in enumerate(places):
            (self.added if number else self.copied).append((len(self.sizes), place))
        self.sizes.append(size)

    def _part(self, part: Part, which: int) -> _Place:
        if isinstance(part.module, nn.Linear):
            return self._place(part.module, ("weight", "bias")[which])
        return self._place(part.module, ("in_proj_weight", "in_proj_bias")[which], part.third, 3)

    def _place(self, module: nn.Module, name: str, part: int = 0, parts: int = 1) -> _Place:
        number = self._owners.setdefault((id(module), name), len(self._owners))
        if number == len(self._parameters):
            self._parameters.append((module, name))
            self.parts.append(parts)
        return _Place(number, part, parts)


class _Assemble(torch.autograd.Function):
    """Copies parameters to one buffer, and the gradients of its matrices to one buffer of parameters."""

    @staticmethod
    def forward(ctx: Any, assembly: Assembly, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.assembly, ctx.shapes, ctx.dtype = assembly, [p.shape for p in parameters], parameters[0].dtype
        ctx.set_materialize_grads(False)
        flat = [parameter.reshape(-1) for parameter in parameters]
        zeros = flat[0].new_zeros(max(assembly.sizes))
        regions = [zeros[:size] for size in assembly.sizes]
        for region, place in assembly.copied:
            regions[region] = place.of(flat)
        for region, place in assembly.added:
            regions[region] = regions[region] + place.of(flat)
        buffer = torch.cat(regions).to(dtype)
        lengths = [sum(assembly.sizes[first : first + count]) for first, count in assembly.matrices]
        starts = [sum(assembly.sizes[:first]) for first, _ in assembly.matrices]
        matrices = [buffer[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        outputs = []
        for number, product in enumerate(assembly.products):
            weight, bias = matrices[2 * number : 2 * number + 2]
            outputs.append(product.arrange(weight.view(-1, product.height, product.width)))
            outputs.append(product.arrange(bias.view(1, -1, 1)).flatten())
        return (*outputs, *matrices[2 * len(assembly.products) :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        assembly = ctx.assembly
        found: dict[int, Tensor] = {}  # gradient of each region of the buffer
        for number, ((first, count), grad) in enumerate(zip(assembly.matrices, grads, strict=True)):
            if grad is None:
                continue
            if number < 2 * len(assembly.products):
                product = assembly.products[number // 2]
                grad = product.take_apart(grad.view(product.height, -1), 1 if number % 2 else product.width)
            parts = torch.split(grad.reshape(-1), assembly.sizes[first : first + count])
            found |= dict(enumerate(parts, start=first))
        pieces: dict[_Place, Tensor] = {}
        again: list[tuple[_Place, Tensor]] = []
        for region, place in (*assembly.copied, *assembly.added):
            if region in found:
                if place in pieces:
                    again.append((place, found[region]))
                else:
                    pieces[place] = found[region]
        sizes = [shape.numel() for shape in ctx.shapes]
        zeros = next(iter(found.values())).new_zeros(max(*sizes, ALIGNED))
        ordered: list[Tensor] = []
        for number, (size, parts) in enumerate(zip(sizes, assembly.parts, strict=True)):
            ordered += [pieces.get(_Place(number, part, parts), zeros[: size // parts]) for part in range(parts)]
            ordered.append(zeros[: -size % ALIGNED])
        lengths = [length for size in sizes for length in (size, -size % ALIGNED)]
        flat = torch.split(torch.cat(ordered).to(ctx.dtype), lengths)[::2]
        for place, grad in again:
            place.of(flat).add_(grad)
        return (None, None, *(x.view(shape) for x, shape in zip(flat, ctx.shapes, strict=True)))


class Weights:
    """The weights of one forward pass: those of joined layers, and those of other layers in the dtype of products.

    ``dtype``: that of products. It is the one of autocast, if that is enabled; further on autocast is not needed.

    Args:
        exact: the joined layers. rounded: all layers, for products in a dtype other than that of the parameters.
    """

    def __init__(self, exact: Assembly, rounded: Assembly, device: torch.device) -> None:
        assembly, self.dtype = exact, exact.parameters()[0].dtype
        if torch.is_autocast_enabled(device.type):
            assembly, self.dtype = rounded, torch.get_autocast_dtype(device.type)
        self._compiling = torch.compiler.is_compiling()
        self._joined: dict[Joined, tuple[Tensor, Tensor]] = {}
        self._layers: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._slopes: dict[nn.Module, Tensor] = {}
        if self._compiling:
            return
        outputs = _Assemble.apply(assembly, self.dtype, *assembly.parameters())  # type: ignore[no-untyped-call]
        for number, product in enumerate(assembly.products):
            tensors = outputs[2 * number], outputs[2 * number + 1]
            self._joined[product] = tensors
            part = product.rows[0][0]
            if len(product.rows) == 1 and part is not None and isinstance(part.module, nn.Linear):
                self._layers[part.module] = tensors
        self._slopes = dict(zip(assembly.scalars, outputs[2 * len(assembly.products) :], strict=True))

    def product(self, joined: Joined, x: Tensor) -> Tensor:
        """Return the outputs of joined layers side by side, (..., R) of (..., C·d)."""
        weight, bias = joined.tensors() if self._compiling else self._joined[joined]
        return F.linear(x.to(self.dtype), weight.to(self.dtype), bias.to(self.dtype))

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        weight, bias = self._layers.get(layer) or (layer.weight, layer.bias)
        return F.linear(x.to(self.dtype), weight.to(self.dtype), bias.to(self.dtype))

    def prelu(self, activation: nn.PReLU, x: Tensor) -> Tensor:
        """Return ``activation(x)``."""
        return F.prelu(x, self._slopes.get(activation, activation.weight).to(x.dtype))
