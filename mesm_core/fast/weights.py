"""The products of one forward pass, with weights that are copied once, in a few launches, and so are their gradients.

Under autocast, the weights of all layers are rounded in the same launches.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        exact: the joined layers. rounded: all layers, for products in a dtype other than that of the parameters.
    """

    def __init__(self, exact: Assembly, rounded: Assembly, device: torch.device) -> None:
        assembly, self.dtype = exact, exact.parameters()[0].dtype
        if torch.is_autocast_enabled(device.type):
            assembly, self.dtype = rounded, torch.get_autocast_dtype(device.type)
        self.compiling = torch.compiler.is_compiling()
        self._tensors: dict[Joined | nn.Module, tuple[Tensor, Tensor]] = {}
        self._slopes: dict[nn.Module, Tensor] = {}
        if self.compiling:
            return
        outputs = Assemble.apply(assembly, self.dtype, *assembly.parameters())  # type: ignore[no-untyped-call]
        for number, product in enumerate(assembly.products):
            self._tensors[product.single or product] = outputs[2 * number], outputs[2 * number + 1]
        self._slopes = dict(zip(assembly.scalars, outputs[2 * len(assembly.products) :], strict=True))
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
