"""The published implementation's parameter names, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_CROSS = {
    r"\.self_attn\.": ".attention.",
    r"\.(linear[12])_1\.": r".blocks.1.feedforward.\1.",
    r"\.(norm[12])_1\.": r".blocks.1.\1.",
    r"\.(linear[12])\.": r".blocks.0.feedforward.\1.",
    r"\.(norm[12])\.": r".blocks.0.\1.",
}
_PROJECTION = {r"\.LayerNorm\.": ".norm.", r"\.net\.1\.": ".linear."}
_DECODER = {
    r"\.sa_qcontent_proj\.": ".self_query_content.",
    r"\.sa_qpos_proj\.": ".self_query_pos.",
    r"\.sa_kcontent_proj\.": ".self_key_content.",
    r"\.sa_kpos_proj\.": ".self_key_pos.",
    r"\.sa_v_proj\.": ".self_value.",
    r"\.self_attn\.out_proj\.": ".self_out.",
    r"\.ca_qcontent_proj\.": ".cross_query_content.",
    r"\.ca_qpos_proj\.": ".cross_query_pos.",
    r"\.ca_qpos_sine_proj\.": ".cross_query_sine.",
    r"\.ca_kcontent_proj\.": ".cross_key_content.",
    r"\.ca_kpos_proj\.": ".cross_key_pos.",
    r"\.ca_v_proj\.": ".cross_value.",
    r"\.cross_attn\.out_proj\.": ".cross_out.",
    r"\.(linear[12])\.": r".feedforward.\1.",
}

# Official prefix -> (our prefix, renamings inside it, of which the first that fits applies).
_RULES: dict[str, tuple[str, dict[str, str]]] = {
    "global_rep_token": ("global_token", {}),
    "global_rep_pos": ("global_pos", {}),
    "masked_token": ("frame_word.masked_token", {}),
    "unknown_token": ("frame_word.unknown_token", {}),
    "enhance_encoder.t2v_encoder.": ("frame_word.encoder.", _CROSS),
    "t2v_encoder.t2v_encoder.": ("aligner.", _CROSS),
    "transformer.encoder.layers.": (
        "encoder.",
        {r"\.self_attn\.": ".attention.", r"\.(linear[12])\.": r".feedforward.\1."},
    ),
    "transformer.decoder.layers.": ("decoder.layers.", _DECODER),
    "transformer.decoder.norm.": ("decoder.norm.", {}),
    "transformer.decoder.query_scale.": ("decoder.sine_scale.", {}),
    "transformer.decoder.ref_point_head.": ("decoder.query_pos.", {}),
    "transformer.decoder.ref_anchor_head.": ("decoder.width_scale.", {}),
    "transformer.decoder.bbox_embed.": ("decoder.move.", {}),
    "query_embed.": ("decoder.slots.", {}),
    "span_embed.": ("span_head.", {}),
    "class_embed.": ("class_head.", {}),
    "saliency_proj1.": ("saliency_frames.", {}),
    "saliency_proj2.": ("saliency_global.", {}),
    "input_txt_proj.": ("text_projection.", _PROJECTION),
    "input_vid_proj.": ("video_projection.", _PROJECTION),
    "output_txt_proj.0.": (
        "frame_word.head.hidden.",
        {r"\.LayerNorm\.": ".norm.", r"\.net\.1\.": ".linear."},
    ),
    "output_txt_proj.1.": ("frame_word.head.output.", {}),
    "txt_position_embed.position_embeddings.": ("word_positions.embedding.", {}),
    "txt_position_embed.LayerNorm.": ("word_positions.norm.", {}),
    "ss_reconstructor.masked_sent_token": ("segment_sentence.masked_sentence", {}),
    "ss_reconstructor.recon_trans.": ("segment_sentence.encoder.", _CROSS),
    "ss_reconstructor.output_sent_proj.": ("segment_sentence.head.", _PROJECTION),
}


def from_official(name: str) -> str | None:
    """Return our name of an official parameter, or None where it is none of the model's (the text encoder's).

    >>> from_official("enhance_encoder.t2v_encoder.layers.0.linear1_1.weight")
    'frame_word.encoder.layers.0.blocks.1.feedforward.linear1.weight'
    """
    for prefix, (ours, renamings) in _RULES.items():
        if name.startswith(prefix):
            # The dot in front lets a renaming match at the start of what follows the prefix.
            rest = "." + name.removeprefix(prefix)
            for old, new in renamings.items():
                rest, found = re.subn(old, new, rest)
                if found:
                    break
            return ours + rest[1:]
    return None


def rename(official: Mapping[str, Value], *, keep: Mapping[str, object]) -> dict[str, Value]:
    """Return the official values under our names, those that ``keep`` has; the rest belongs to parts switched off."""
    renamed = {from_official(name): value for name, value in official.items()}
    return {name: value for name, value in renamed.items() if name is not None and name in keep}
