"""Conversion between parameter names of the published implementation and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_Pairs = tuple[tuple[str, str], ...]

_CROSS: _Pairs = (
    (".self_attn.", ".attention."),
    (".linear1_1.", ".blocks.1.feedforward.linear1."),
    (".linear2_1.", ".blocks.1.feedforward.linear2."),
    (".norm1_1.", ".blocks.1.norm1."),
    (".norm2_1.", ".blocks.1.norm2."),
    (".linear1.", ".blocks.0.feedforward.linear1."),
    (".linear2.", ".blocks.0.feedforward.linear2."),
    (".norm1.", ".blocks.0.norm1."),
    (".norm2.", ".blocks.0.norm2."),
)
_PROJECTION: _Pairs = ((".LayerNorm.", ".norm."), (".net.1.", ".linear."))
_FEEDFORWARD: _Pairs = ((".linear1.", ".feedforward.linear1."), (".linear2.", ".feedforward.linear2."))
_ENCODER: _Pairs = ((".self_attn.", ".attention."), *_FEEDFORWARD)
_DECODER: _Pairs = (
    (".sa_qcontent_proj.", ".self_query_content."),
    (".sa_qpos_proj.", ".self_query_pos."),
    (".sa_kcontent_proj.", ".self_key_content."),
    (".sa_kpos_proj.", ".self_key_pos."),
    (".sa_v_proj.", ".self_value."),
    (".self_attn.out_proj.", ".self_out."),
    (".ca_qcontent_proj.", ".cross_query_content."),
    (".ca_qpos_proj.", ".cross_query_pos."),
    (".ca_qpos_sine_proj.", ".cross_query_sine."),
    (".ca_kcontent_proj.", ".cross_key_content."),
    (".ca_kpos_proj.", ".cross_key_pos."),
    (".ca_v_proj.", ".cross_value."),
    (".cross_attn.out_proj.", ".cross_out."),
    *_FEEDFORWARD,
)

# Official prefix, our prefix, and renamings after the prefix, of which the first match applies. Used both ways.
_RULES: tuple[tuple[str, str, _Pairs], ...] = (
    ("global_rep_token", "global_token", ()),
    ("global_rep_pos", "global_pos", ()),
    ("masked_token", "frame_word.masked_token", ()),
    ("unknown_token", "frame_word.unknown_token", ()),
    ("enhance_encoder.t2v_encoder.", "frame_word.encoder.", _CROSS),
    ("t2v_encoder.t2v_encoder.", "aligner.", _CROSS),
    ("transformer.encoder.layers.", "encoder.", _ENCODER),
    ("transformer.decoder.layers.", "decoder.layers.", _DECODER),
    ("transformer.decoder.norm.", "decoder.norm.", ()),
    ("transformer.decoder.query_scale.", "decoder.sine_scale.", ()),
    ("transformer.decoder.ref_point_head.", "decoder.query_pos.", ()),
    ("transformer.decoder.ref_anchor_head.", "decoder.width_scale.", ()),
    ("transformer.decoder.bbox_embed.", "decoder.move.", ()),
    ("query_embed.", "decoder.slots.", ()),
    ("span_embed.", "span_head.", ()),
    ("class_embed.", "class_head.", ()),
    ("saliency_proj1.", "saliency_frames.", ()),
    ("saliency_proj2.", "saliency_global.", ()),
    ("input_txt_proj.", "text_projection.", _PROJECTION),
    ("input_vid_proj.", "video_projection.", _PROJECTION),
    ("output_txt_proj.0.", "frame_word.head.hidden.", _PROJECTION),
    ("output_txt_proj.1.", "frame_word.head.output.", ()),
    ("txt_position_embed.position_embeddings.", "word_positions.embedding.", ()),
    ("txt_position_embed.LayerNorm.", "word_positions.norm.", ()),
    ("ss_reconstructor.masked_sent_token", "segment_sentence.masked_sentence", ()),
    ("ss_reconstructor.recon_trans.", "segment_sentence.encoder.", _CROSS),
    ("ss_reconstructor.output_sent_proj.", "segment_sentence.head.", _PROJECTION),
)


def from_official(name: str) -> str | None:
    """Return our name of an official parameter, or None if it is not part of the model (the text encoder's).

    >>> from_official("enhance_encoder.t2v_encoder.layers.0.linear1_1.weight")
    'frame_word.encoder.layers.0.blocks.1.feedforward.linear1.weight'
    """
    return _renamed(name, _RULES)


def to_official(name: str) -> str:
    """Return the official name of one of our parameters.

    >>> to_official("frame_word.encoder.layers.0.blocks.1.feedforward.linear1.weight")
    'enhance_encoder.t2v_encoder.layers.0.linear1_1.weight'
    """
    backwards = tuple((ours, theirs, tuple((b, a) for a, b in pairs)) for theirs, ours, pairs in _RULES)
    renamed = _renamed(name, backwards)
    if renamed is None:
        raise ValueError(f"{name} has no official name")
    return renamed


def rename(official: Mapping[str, Value], *, keep: Mapping[str, object]) -> dict[str, Value]:
    """Return the official values under our names, restricted to names in ``keep``; others belong to unused parts."""
    renamed = {from_official(name): value for name, value in official.items()}
    return {name: value for name, value in renamed.items() if name is not None and name in keep}


def _renamed(name: str, rules: Iterable[tuple[str, str, _Pairs]]) -> str | None:
    for prefix, other, pairs in rules:
        if name.startswith(prefix):
            # The dot in front lets a renaming match at the start of what follows the prefix.
            rest = "." + name.removeprefix(prefix)
            old, new = next(((old, new) for old, new in pairs if old in rest), ("", ""))
            return other + rest.replace(old, new, 1)[1:] if old else other + rest[1:]
    return None
