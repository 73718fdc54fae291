"""A product of joined layers gives what the layers give, and the same gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mesm_core.fast.assembly import Assembly
from mesm_core.fast.joined import KEY, QUERY, VALUE, Joined, Part, side_by_side
from mesm_core.fast.weights import Weights
from mesm_core.model.attention import MultiHeadAttention

DIM, HEADS = 6, 2


def weights_of(assembly: Assembly) -> Weights:
    return Weights(lambda rounded: assembly, like=assembly.parameters()[0])


class Layers:
    """Layers and the products that join them; ``b`` is used twice in one product and once in another."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Linear(DIM, DIM).double() for _ in range(4))
        self.narrow, self.unused = nn.Linear(DIM, 1).double(), nn.Linear(DIM, 2).double()
        self.attention = MultiHeadAttention(dim=DIM, heads=HEADS).double()
        nn.init.normal_(self.attention.in_proj_bias)
        a, b, c, d = (Part(layer) for layer in (self.a, self.b, self.c, self.d))
        self.blocks = Joined([a, b], [None, b], heads=HEADS)
        self.groups = Joined([c], [d], [d], [c], heads=HEADS, groups=2)
        self.uneven = Joined([b, None], [None, Part(self.narrow)])
        self.thirds = side_by_side(Part(self.attention, VALUE), Part(self.attention, QUERY))
        self.key = side_by_side(Part(self.attention, KEY))
        products = [self.blocks, self.groups, self.uneven, self.thirds, self.key]
        self.assembly = Assembly(products, unused=[(self.unused, "weight")])

    def expected(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the outputs of all products, of the layers themselves."""
        weights, biases = self.attention.in_proj_weight.chunk(3), self.attention.in_proj_bias.chunk(3)
        q, k, v = (nn.functional.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
        return [
            by_head(self.a(x) + self.b(y), self.b(y)),
            torch.cat([by_head(self.c(x), self.d(x)), by_head(self.d(x), self.c(x))], dim=-1),
            torch.cat([self.b(x), self.narrow(y)], dim=-1),
            torch.cat([v, q], dim=-1),
            k,
        ]

    def found(self, product: Callable[[Joined, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
        both = torch.cat([x, y], dim=-1)
        inputs = [both, x, both, x, x]
        return [product(joined, given) for joined, given in zip(self.assembly.products, inputs, strict=True)]


def by_head(*outputs: Tensor) -> Tensor:
    """Return the first head of every output, then the second."""
    return torch.stack([x.unflatten(-1, (HEADS, -1)) for x in outputs], dim=-2).flatten(-3)


def concatenated(joined: Joined, x: Tensor) -> Tensor:
    """Return the product as a compiled graph computes it."""
    return nn.functional.linear(x, *joined.tensors())


@pytest.mark.parametrize("way", ["assembled", "concatenated"])
def test_outputs_and_gradients_are_those_of_the_layers(way: str) -> None:
    layers = Layers()
    x, y = torch.randn(2, 3, 5, DIM, dtype=torch.float64, requires_grad=True)
    product = weights_of(layers.assembly).product if way == "assembled" else concatenated
    found, expected = layers.found(product, x, y), layers.expected(x, y)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs)
    upstream = [torch.randn_like(value) for value in expected]
    given = [x, y, *layers.assembly.parameters()]
    ours = torch.autograd.grad(found, given, upstream, allow_unused=True)
    theirs = torch.autograd.grad(expected, given, upstream, allow_unused=True)
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert torch.allclose(a, b)
    if way == "assembled":  # as weight decay and distributed training need
        assert torch.equal(ours[-1], torch.zeros_like(layers.unused.weight))


def test_a_product_that_is_not_used_has_a_gradient_of_zero() -> None:
    layers = Layers()
    x = torch.randn(3, DIM, dtype=torch.float64)
    weights = weights_of(layers.assembly)
    weights.product(layers.key, x).sum().backward()
    assert torch.equal(layers.a.weight.grad, torch.zeros_like(layers.a.weight))
    assert layers.attention.in_proj_bias.grad.tolist() == [0.0] * DIM + [3.0] * DIM + [0.0] * DIM


def test_autocast_rounds_the_weights_of_single_layers() -> None:
    layer, activation = nn.Linear(DIM, DIM), nn.PReLU()
    rounded = Assembly([side_by_side(Part(layer))], [activation])
    x = torch.randn(3, DIM)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = weights_of(rounded)
    out = nn.functional.prelu(weights.product(layer, x), weights.slope(activation))
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), activation(layer(x)), atol=0.05)
    out.sum().backward()
    assert layer.weight.grad.dtype == activation.weight.grad.dtype == torch.float32
    assert float(activation.weight.grad) != 0
