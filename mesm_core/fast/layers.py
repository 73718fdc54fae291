"""The layers of ``mesm_core.model`` computed by kernels; each function takes the parameters of one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.attention import frames_to_frames
from mesm_core.fast.kernels import CpuKernels, Kernels
from mesm_core.fast.packing import Packing
from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.enhance import WordHead
from mesm_core.model.layers import CrossEncoder, CrossEncoderLayer, EncoderLayer, FeedForwardBlock, ProjectionLayer
from mesm_core.model.positions import WordPositions

AttentionFn = Callable[[MultiHeadAttention, Tensor], Tensor]
"""Computes the attention of a layer: (attention module, input a) -> output of the shape of ``a``."""


_Part = TypeVar("_Part", bound=nn.Module)


def parts(sequence: Any, kind: type[_Part]) -> list[_Part]:
    """Return the parts of an ``nn.Sequential`` or ``nn.ModuleList``; ``fast.table`` has checked their class."""
    return list(sequence)


def project(kernels: CpuKernels, layers: nn.Module, x: Tensor) -> Tensor:
    """Return ``layers(x)`` of projection layers."""
    for layer in parts(layers, ProjectionLayer):
        x = projection_layer(kernels, layer, x)
    return x


def projection_layer(kernels: CpuKernels, layer: ProjectionLayer, x: Tensor) -> Tensor:
    """Return ``layer(x)``."""
    x = kernels.linear(kernels.dropout(layer.dropout, layer.norm(x)), layer.linear.weight, layer.linear.bias)
    return F.relu(x) if layer.relu else x


def word_head(kernels: CpuKernels, head: WordHead, words: Tensor) -> Tensor:
    """Return ``head(words)``."""
    out: Tensor = head.output(projection_layer(kernels, head.hidden, words))
    return out


def word_positions(kernels: Kernels, layer: WordPositions, x: Tensor) -> Tensor:
    """Return ``layer(x)``."""
    return kernels.dropout(layer.dropout, layer.norm(x + layer.embedding.weight[: x.shape[1]]))


def feedforward_block(kernels: CpuKernels, block: FeedForwardBlock, y: Tensor, activation: nn.PReLU) -> Tensor:
    """Return ``block(y, activation)``."""
    hidden = kernels.feedforward(block.feedforward, block.norm1(y), activation)
    out: Tensor = block.norm2(kernels.add_dropped(block.dropout, y, hidden))
    return out


def cross_encoder(
    kernels: CpuKernels, encoder: CrossEncoder, a: Tensor, attend: AttentionFn, *, block: int = 0
) -> Tensor:
    """Return ``encoder(a, b, ..., block=block)``, with attention computed by ``attend``; ``a`` may be packed."""
    for layer in parts(encoder.layers, CrossEncoderLayer):
        y = kernels.add_dropped(layer.dropout, a, attend(layer.attention, a))
        a = feedforward_block(kernels, parts(layer.blocks, FeedForwardBlock)[block], y, layer.activation)
    return a


def encoder_layer(kernels: CpuKernels, layer: EncoderLayer, x: Tensor, *, pos: Tensor, rows: Packing) -> Tensor:
    """Return ``layer(x, pos=pos, mask=mask)``, with x and pos (B + N, D) packed by ``Packing.with_token``."""
    found = frames_to_frames(kernels, layer.attention, x + pos, x, rows=rows)
    x = layer.norm1(kernels.add_dropped(layer.dropout, x, found))
    hidden = kernels.feedforward(layer.feedforward, x, layer.activation)
    out: Tensor = layer.norm2(kernels.add_dropped(layer.dropout, x, hidden))
    return out
