"""The products of one forward pass, with weights that are copied once, in a few launches, and so are their gradients.

Under autocast, the weights of all layers are rounded in the same launches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.assembly import Assemble, Assembly
from mesm_core.fast.joined import Joined


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
        outputs = Assemble.apply(assembly, self.dtype, *assembly.parameters())  # type: ignore[no-untyped-call]
        for number, product in enumerate(assembly.products):
            tensors = outputs[2 * number], outputs[2 * number + 1]
            self._joined[product] = tensors
            if product.single is not None:
                self._layers[product.single] = tensors
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
