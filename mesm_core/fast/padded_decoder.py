"""The moment decoder with few kernel launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.joined import Joined, Part, side_by_side
from mesm_core.fast.layers import parts
from mesm_core.fast.padded_layers import Pass
from mesm_core.fast.padding import Rows
from mesm_core.model.decoder import LOGIT_EPS, Decoder, DecoderLayer, logit
from mesm_core.model.positions import point_positions


class DecoderProducts:
    """A ``Decoder``. The frames are projected for all layers at once, and the maps of a sum are one product."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.layers = parts(decoder.layers, DecoderLayer)
        self.heads = self.layers[0].heads
        self.attentions = [self_attention(layer) for layer in self.layers[1:]]
        self.queries = [cross_query(layer) for layer in self.layers]
        # Inputs: memory, positions. Outputs of a layer: content of the keys, their positions, values.
        frames = [row for layer in self.layers for row in frame_rows(layer)]
        self.frames = Joined(*frames, heads=self.heads, groups=len(self.layers))
        networks = decoder.move, decoder.sine_scale, decoder.width_scale
        move, scale, width = (parts(network.layers, nn.Linear) for network in networks)
        self.hidden = side_by_side(Part(move[0]), Part(scale[0]), Part(width[0]))
        self.move = move[1:]
        self.scales = Joined([Part(scale[1]), None], [None, Part(width[1])])
        self.summed = [
            linear
            for layer in self.layers
            for linear in (layer.self_out, layer.cross_out, layer.feedforward.linear1, layer.feedforward.linear2)
        ]
        self.joined = [*self.attentions, *self.queries, self.frames]
        if len(self.layers) > 1:
            self.joined += [self.hidden, self.scales]

    @property
    def unused(self) -> list[tuple[nn.Linear, str]]:
        """Modules with the names of their parameters that have no effect, in the first attention among the slots."""
        layer = self.layers[0]
        linears = layer.self_query_content, layer.self_query_pos, layer.self_key_content, layer.self_key_pos
        return [(layer.self_value, "weight"), *((linear, name) for linear in linears for name in ("weight", "bias"))]

    def __call__(self, given: Pass, memory: Tensor, *, pos: Tensor, bias: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return ``decoder(memory, pos=pos, mask=mask)`` of packed (N, d); bias: (B, 1, 1, T) of the mask."""
        module, batch = self.decoder, rows.batch
        reference = module.slots.weight.sigmoid().expand(batch, -1, -1)  # (Q, N, 2)
        content = memory.new_zeros(*reference.shape[:2], module.dim)
        frames = rows.pad(given.weights.product(self.frames, torch.cat([memory, pos], dim=-1)))
        keys_values = frames.view(batch, -1, len(self.layers), self.heads, 3 * module.dim // self.heads).unbind(dim=2)
        given.weights.sum_together(self.summed, rows=content.shape[:2].numel())
        outputs: list[Tensor] = []
        references = [reference]
        for number, (layer, frame) in enumerate(zip(self.layers, keys_values, strict=True)):
            hidden = None
            if number:
                moved, hidden = self._hidden(given, content)
                references.append(refined(mlp(given, self.move, moved), reference))
                reference = references[-1].detach()
            query_pos, sine = self._place(given, reference, content, hidden)
            content = self._attend_to_slots(given, number, content, query_pos)
            inputs = [content, query_pos, sine] if number == 0 else [content, sine]
            q = given.weights.product(self.queries[number], torch.cat(inputs, dim=-1))
            q = torch.unflatten(q, -1, (self.heads, -1)).transpose(1, 2)  # (Q, H, N, 2 d / H)
            k, v = torch.split(frame.transpose(1, 2), [q.shape[-1], q.shape[-1] // 2], dim=-1)
            found = given.kernels.scaled_attention(q, k, v, bias).transpose(1, 2).flatten(2)
            found = given.residual(layer.cross_out, layer.dropout, content.flatten(0, 1), found.flatten(0, 1))
            found = given.feedforward(layer.feedforward, layer.dropout, layer.activation, layer.norm2(found))
            content = layer.norm3(found).view_as(content)
            outputs.append(content)
        return module.norm(torch.stack(outputs)), torch.stack(references)

    def _hidden(self, given: Pass, content: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden values (Q, N, d) of ``move``, and (Q, N, 2 d) of ``sine_scale`` and ``width_scale``."""
        dim = self.decoder.dim
        hidden = F.relu(given.weights.product(self.hidden, content))
        moved, scaled = torch.split(hidden, [dim, 2 * dim], dim=-1)
        return moved, scaled

    def _place(self, given: Pass, reference: Tensor, content: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ``decoder.place(reference, content, first=hidden is None)``; hidden: from ``_hidden``."""
        module = self.decoder
        sine = point_positions(reference, module.dim // 2).flatten(2)  # (Q, N, d)
        query_pos = mlp(given, parts(module.query_pos.layers, nn.Linear), sine)
        if hidden is None:
            width = mlp(given, parts(module.width_scale.layers, nn.Linear), content)
        else:
            scale, width = torch.split(given.weights.product(self.scales, hidden), [module.dim, 1], dim=-1)
            sine = sine * scale
        return query_pos, sine * (width.sigmoid() / reference[..., 1:])

    def _attend_to_slots(self, given: Pass, number: int, content: Tensor, query_pos: Tensor) -> Tensor:
        """Return the content of the slots after they attended to each other, (Q, N, d)."""
        layer = self.layers[number]
        if number == 0:
            # The slots have no content yet, so their values are equal, and attention returns them.
            value = layer.self_value.bias.expand_as(content)
            if torch.compiler.is_compiling():  # the parameters without effect have a gradient of zero, not None
                value = value + 0 * torch.stack([getattr(*unused).sum() for unused in self.unused]).sum()
        else:
            joined = given.weights.product(self.attentions[number - 1], torch.cat([content, query_pos], dim=-1))
            split = torch.unflatten(joined, -1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)  # (3, Q, H, N, d / H)
            q, k, v = split.flatten(1, 2).unbind()  # (Q·H, N, d / H)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
            value = shares(scores, content.dtype).to(v.dtype) @ v
            value = torch.unflatten(value, 0, (-1, self.heads)).transpose(1, 2).flatten(2)
        found = given.residual(layer.self_out, layer.dropout, content.flatten(0, 1), value.flatten(0, 1))
        out: Tensor = layer.norm1(found).view_as(content)
        return out


def refined(offset: Tensor, reference: Tensor) -> Tensor:
    """Return ``(offset + logit(reference)).sigmoid()``; its gradient takes half of the operations."""
    if torch.compiler.is_compiling():
        return (offset + logit(reference)).sigmoid()
    found: Tensor = _Refined.apply(offset, reference)  # type: ignore[no-untyped-call]
    return found


class _Refined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, offset: Tensor, reference: Tensor) -> Tensor:
        found = (offset + logit(reference)).sigmoid()
        ctx.save_for_backward(found, reference)
        ctx.dtype = offset.dtype
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        found, reference = ctx.saved_tensors
        slope = torch.ops.aten.sigmoid_backward(grad, found)
        if not ctx.needs_input_grad[1]:
            return slope.to(ctx.dtype), None
        # The slope of the logit is 1/x + 1/(1 - x), without a term that is clamped.
        x, rest = (F.threshold(value, LOGIT_EPS, torch.inf) for value in (reference, 1 - reference))
        return slope.to(ctx.dtype), torch.addcdiv(slope / x, slope, rest)


def shares(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the softmax of scores (..., S), in ``dtype``. The gradients of the scores of a row sum to 0.

    This keeps the gradient of the keys exact, as subtracting the maximum does in ``model.attention.attend_among_few``.
    """
    if torch.compiler.is_compiling():
        return (scores - scores.amax(dim=-1, keepdim=True)).softmax(dim=-1, dtype=dtype)
    found: Tensor = _Shares.apply(scores, dtype)  # type: ignore[no-untyped-call]
    return found


class _Shares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, dtype: torch.dtype) -> Tensor:
        found = scores.softmax(dim=-1, dtype=dtype)
        ctx.save_for_backward(found)
        ctx.dtype = scores.dtype
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (found,) = ctx.saved_tensors
        slope = torch.ops.aten._softmax_backward_data(grad, found, -1, found.dtype)
        return (slope - slope.mean(dim=-1, keepdim=True)).to(ctx.dtype), None


def mlp(given: Pass, layers: Sequence[nn.Linear], x: Tensor) -> Tensor:
    """Return the output of linear layers with ReLU between them."""
    *hidden, last = layers
    for layer in hidden:
        x = F.relu(given.weights.product(layer, x))
    return given.weights.product(last, x)


def self_attention(layer: DecoderLayer) -> Joined:
    """Return the product of attention among the slots. Inputs: content, positions; outputs: query, key, value."""
    return Joined(
        [Part(layer.self_query_content), Part(layer.self_query_pos)],
        [Part(layer.self_key_content), Part(layer.self_key_pos)],
        [Part(layer.self_value), None],
        heads=layer.heads,
    )


def cross_query(layer: DecoderLayer) -> Joined:
    """Return the product of the queries to the frames. Inputs: content, positions (in the first layer), sine."""
    content, sine = Part(layer.cross_query_content), Part(layer.cross_query_sine)
    if layer.cross_query_pos is None:
        return Joined([content, None], [None, sine], heads=layer.heads)
    return Joined([content, Part(layer.cross_query_pos), None], [None, None, sine], heads=layer.heads)


def frame_rows(layer: DecoderLayer) -> list[list[Part | None]]:
    """Return the rows of the product of the frames. Inputs: memory, positions; outputs: both parts of keys, values."""
    content, position = Part(layer.cross_key_content), Part(layer.cross_key_pos)
    first = layer.cross_query_pos is not None  # also adds positions to the content
    return [[content, position if first else None], [None, position], [Part(layer.cross_value), None]]
