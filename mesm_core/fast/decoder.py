"""The moment decoder over a packed memory."""

from __future__ import annotations

import torch
from torch import Tensor

from mesm_core.fast.kernels import CpuKernels
from mesm_core.fast.layers import parts
from mesm_core.fast.packing import Packing
from mesm_core.fast.unprojected import few_attend_to_frames, unfold
from mesm_core.model.attention import attend_among_few, split_heads
from mesm_core.model.decoder import Decoder, DecoderLayer, logit


def decoder(
    kernels: CpuKernels, module: Decoder, memory: Tensor, *, pos: Tensor, rows: Packing
) -> tuple[Tensor, Tensor]:
    """Return ``module(memory, pos=pos, mask=mask)``, with memory and pos (N, D) packed."""
    reference = module.slots.weight.sigmoid().expand(rows.batch, -1, -1)
    content = memory.new_zeros(*reference.shape[:2], module.dim)
    outputs: list[Tensor] = []
    references = [reference]
    for layer in parts(module.layers, DecoderLayer):
        if outputs:
            references.append((module.move(content) + logit(reference)).sigmoid())
            reference = references[-1].detach()
        query_pos, sine = module.place(reference, content, first=not outputs)
        content = decoder_layer(
            kernels, layer, content, query_pos=query_pos, sine=sine, memory=memory, pos=pos, rows=rows
        )
        outputs.append(content)
    return module.norm(torch.stack(outputs)), torch.stack(references)


def decoder_layer(
    kernels: CpuKernels,
    layer: DecoderLayer,
    content: Tensor,
    *,
    query_pos: Tensor,
    sine: Tensor,
    memory: Tensor,
    pos: Tensor,
    rows: Packing,
) -> Tensor:
    """Return ``layer(content, ...)`` (B, S, D) for S slots, with memory and pos (N, D) packed."""
    q = layer.self_query_content(content) + layer.self_query_pos(query_pos)
    k = layer.self_key_content(content) + layer.self_key_pos(query_pos)
    found = layer.self_out(attend_among_few(q, k, layer.self_value(content), heads=layer.heads))
    content = layer.norm1(kernels.add_dropped(layer.dropout, content, found))

    q, q_sine = layer.cross_query_content(content), layer.cross_query_sine(sine)
    if layer.cross_query_pos is not None:
        q = q + layer.cross_query_pos(query_pos)
    found = slots_to_runs(layer, q, q_sine, memory=memory, pos=pos, rows=rows)
    content = layer.norm2(kernels.add_dropped(layer.dropout, content, layer.cross_out(found)))
    hidden = kernels.feedforward(layer.feedforward, content, layer.activation)
    out: Tensor = layer.norm3(kernels.add_dropped(layer.dropout, content, hidden))
    return out


def slots_to_runs(
    layer: DecoderLayer, q: Tensor, q_sine: Tensor, *, memory: Tensor, pos: Tensor, rows: Packing
) -> Tensor:
    """Return the cross-attention (B, S, D) of ``DecoderLayer``, before its output projection.

    The frames are neither padded nor projected. Reassociated, for each head: q·(Wk x) + s·(Wp p) = (Wkᵀq)·x + (Wpᵀs)·p
    and Σ a (Wv x) = Wv (Σ a x). The keys' biases cancel in the softmax.
    """
    heads, scale = layer.heads, (2 * q.shape[2] // layer.heads) ** -0.5
    q, q_sine = split_heads(q, heads) * scale, split_heads(q_sine, heads) * scale
    if layer.cross_query_pos is not None:
        q_sine = q_sine + q  # the first layer also adds positions to the content of the keys
    content, position = layer.cross_key_content, layer.cross_key_pos
    found = few_attend_to_frames([(q, memory, content.weight), (q_sine, pos, position.weight)], rows=rows)
    attended = unfold(found, layer.cross_value.weight) + layer.cross_value.bias
    # Gives the biases of the keys a gradient of zero, not None, as distributed training and weight decay need.
    return attended + 0 * (content.bias + position.bias)
