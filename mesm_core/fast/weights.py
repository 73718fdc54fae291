"""The products of one forward pass, with weights that are copied once, in a few launches, and so are their gradients.

Under autocast, the weights of all layers are rounded in the same launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.assembly import Assemble, Assembly
from mesm_core.fast.joined import Joined
from mesm_core.fast.sublayers import expanded


class Weights:
    """The weights of one forward pass: those of joined layers, and those of other layers in the dtype of products.

    ``dtype``: that of products. It is the one of autocast, if that is enabled; further on autocast is not needed.

    Args:
        assembly: returns the layout of the weights, of all layers if they are rounded, else of the joined ones;
        like: a parameter, in whose dtype products are without autocast.
    """

    def __init__(self, assembly: Callable[..., Assembly], *, like: Tensor) -> None:
        rounded = torch.is_autocast_enabled(like.device.type)
        self.dtype = torch.get_autocast_dtype(like.device.type) if rounded else like.dtype
        self.compiling = torch.compiler.is_compiling()
        self._tensors: dict[Joined | nn.Module, tuple[Tensor, Tensor]] = {}
        self._slopes: dict[nn.Module, Tensor] = {}
        if self.compiling:
            return
        layout = assembly(rounded=rounded)
        outputs = Assemble.apply(layout, self.dtype, *layout.parameters())  # type: ignore[no-untyped-call]
        for number, product in enumerate(layout.products):
            self._tensors[product.single or product] = outputs[2 * number], outputs[2 * number + 1]
        self._slopes = dict(zip(layout.scalars, outputs[2 * len(layout.products) :], strict=True))
        self._expanded: dict[Joined | nn.Module, Tensor] = {}

    def sum_together(self, layers: Sequence[Joined | nn.Linear], *, rows: int) -> None:
        """Sum the gradients of the biases of layers together. These layers are only applied by ``fast.sublayers``.

        Args:
            rows: the number of rows to which each of the layers is applied.
        """
        if not self.compiling:
            biases = expanded([self.tensors(layer)[1] for layer in layers], rows)
            self._expanded |= zip(layers, biases, strict=True)

    def tensors(self, layer: Joined | nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight (out, in) and bias (out,), in the dtype of products."""
        if isinstance(layer, nn.Linear):
            weight, bias = self._tensors.get(layer) or (layer.weight, layer.bias)
        else:
            weight, bias = layer.tensors() if self.compiling else self._tensors[layer.single or layer]
        return weight.to(self.dtype), bias.to(self.dtype)

    def sublayer_tensors(self, layer: Joined | nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight and bias for a function of ``fast.sublayers``."""
        weight, bias = self.tensors(layer)
        return weight, self._expanded.get(layer, bias)

    def product(self, layer: Joined | nn.Linear, x: Tensor) -> Tensor:
        """Return the outputs of a layer or of joined layers side by side, (..., R) of (..., C·d)."""
        return F.linear(x.to(self.dtype), *self.tensors(layer))

    def slope(self, activation: nn.PReLU) -> Tensor:
        """Return the parameter (1,) of an activation, in the dtype of products."""
        return self._slopes.get(activation, activation.weight).to(self.dtype)
