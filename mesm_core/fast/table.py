"""The module classes that the fast forward supports, and the classes of their parts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.decoder import Decoder, DecoderLayer
from mesm_core.model.enhance import FrameWord, SegmentSentence, WordHead
from mesm_core.model.layers import (
    MLP,
    CrossEncoder,
    CrossEncoderLayer,
    EncoderLayer,
    FeedForward,
    FeedForwardBlock,
    ProjectionLayer,
)
from mesm_core.model.mesm import Mesm
from mesm_core.model.positions import WordPositions

Part = type[nn.Module] | list[type[nn.Module]]
"""The class of a part; for a sequence, a list with the class of its elements."""

_FEEDFORWARD: dict[str, Part] = {"feedforward": FeedForward, "dropout": nn.Dropout}
_DECODER_LINEARS = (
    "self_query_content", "self_query_pos", "self_key_content", "self_key_pos", "self_value", "self_out",
    "cross_query_content", "cross_query_pos", "cross_query_sine", "cross_key_content", "cross_key_pos",
    "cross_value", "cross_out",
)  # fmt: skip

TABLE: dict[type[nn.Module], dict[str, Part]] = {
    Mesm: {
        "video_projection": [ProjectionLayer],
        "text_projection": [ProjectionLayer],
        "word_positions": WordPositions,
        "frame_word": FrameWord,
        "segment_sentence": SegmentSentence,
        "aligner": CrossEncoder,
        "encoder": [EncoderLayer],
        "decoder": Decoder,
        "class_head": nn.Linear,
        "span_head": MLP,
        "saliency_frames": nn.Linear,
        "saliency_global": nn.Linear,
    },
    FrameWord: {"encoder": CrossEncoder, "head": WordHead},
    WordHead: {"hidden": ProjectionLayer, "output": nn.Linear},
    SegmentSentence: {"encoder": CrossEncoder, "head": [ProjectionLayer]},
    CrossEncoder: {"layers": [CrossEncoderLayer]},
    CrossEncoderLayer: {
        "attention": MultiHeadAttention, "dropout": nn.Dropout, "activation": nn.PReLU, "blocks": [FeedForwardBlock]
    },
    FeedForwardBlock: {**_FEEDFORWARD, "norm1": nn.LayerNorm, "norm2": nn.LayerNorm},
    FeedForward: {"linear1": nn.Linear, "linear2": nn.Linear, "dropout": nn.Dropout},
    EncoderLayer: {
        **_FEEDFORWARD, "attention": MultiHeadAttention, "activation": nn.PReLU, "norm1": nn.LayerNorm,
        "norm2": nn.LayerNorm,
    },
    Decoder: {
        "slots": nn.Embedding, "layers": [DecoderLayer], "query_pos": MLP, "sine_scale": MLP, "width_scale": MLP,
        "move": MLP, "norm": nn.LayerNorm,
    },
    DecoderLayer: {
        **_FEEDFORWARD, **dict.fromkeys(_DECODER_LINEARS, nn.Linear), "activation": nn.PReLU,
        "norm1": nn.LayerNorm, "norm2": nn.LayerNorm, "norm3": nn.LayerNorm,
    },
    MultiHeadAttention: {"out_proj": nn.Linear},
    ProjectionLayer: {"norm": nn.LayerNorm, "dropout": nn.Dropout, "linear": nn.Linear},
    WordPositions: {"embedding": nn.Embedding, "norm": nn.LayerNorm, "dropout": nn.Dropout},
    MLP: {"layers": [nn.Linear]},
    nn.Linear: {}, nn.LayerNorm: {}, nn.Dropout: {}, nn.PReLU: {}, nn.Embedding: {},
}  # fmt: skip
"""Class -> the classes of its parts, by name. The fast forward supports models of exactly these classes."""


def are_known(module: nn.Module, parts: Mapping[str, Part]) -> bool:
    """Return whether the parts of a module, and recursively their parts, have exactly the expected classes."""
    return all(name in parts and is_known(part, parts[name]) for name, part in module.named_children())


def is_known(module: nn.Module, expected: Part) -> bool:
    """Return whether a module and its parts have exactly the expected classes, and no overridden ``forward``."""
    if isinstance(expected, list):
        sequence = type(module) in {nn.Sequential, nn.ModuleList}
        return sequence and all(is_known(part, expected[0]) for part in module.children())
    if type(module) is not expected or "forward" in vars(module):
        return False
    if isinstance(module, nn.PReLU) and module.num_parameters != 1:
        return False
    if isinstance(module, nn.Linear) and getattr(module, "bias", None) is None:
        return False
    if not are_known(module, TABLE[expected]):
        return False
    # The frames are projected for all layers of the decoder at once.
    return not isinstance(module, Decoder) or len({layer.heads for layer in module.layers}) == 1
