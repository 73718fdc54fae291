"""CLIP's text encoder, with weights in a separate file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mesm_core.build.encoders.entry import Check, Encoder, counted
from mesm_core.build.encoders.state import listed
from mesm_core.build.paths import Paths
from mesm_core.caches import default_notes, identity_of
from mesm_core.config.schema import Config
from mesm_core.data.count_files import label_words, read_clip_counts
from mesm_core.errors import CheckpointError, TextError
from mesm_core.model.weights import hash_weights
from mesm_core.text.cache import TextCache, default_cache_path
from mesm_core.text.clip import ClipText, ClipTextTransformer, KnownTower
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_joint import ClipSentences
from mesm_core.text.clip_weights import load_clip_joint, load_clip_text
from mesm_core.text.words import make_tagger

SHORTEST_CONTEXT = 3
"""Minimum context length of CLIP's text encoder: one token between start and end."""


def build_sentences(path: Path, *, device: torch.device) -> ClipSentences:
    """Return the encoder of sentences into the joint space of CLIP's text and image towers.

    Raises:
        TextError: the weights are missing, of another tokenizer, or have no text projection.
    """
    (model, projection), tokenizer = load_clip_joint(path), ClipTokenizer()
    refuse_other_tokens(model, tokenizer, SHORTEST_CONTEXT, path)
    return ClipSentences(model=model, projection=projection, tokenizer=tokenizer, device=device, path=path)


def _clip(config: Config, paths: Paths, device: torch.device) -> ClipText:
    counts = paths.annotations / config.text.counts
    labels = label_words(read_clip_counts(counts), config.text.label_words, path=counts)
    return _clip_text(config, paths.text, labels, device)


def _clip_from_state(config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None) -> ClipText:
    recorded = state.get("path")
    if path is None and not isinstance(recorded, str):
        raise CheckpointError("The checkpoint does not contain the path of CLIP's weights.", hint="Give --clip FILE.")
    labels = listed(state, "label_ids", int)
    encoder = _clip_text(config, path or Path(str(recorded)), labels, device)
    if encoder.weights_hash != state.get("hash"):
        raise CheckpointError(
            f"The CLIP text encoder {encoder.path} is not the one used in training (its weights differ).",
            hint="Give the same weights with --clip FILE.",
        )
    return encoder


def _clip_text(config: Config, path: Path, labels: Sequence[int], device: torch.device) -> ClipText:
    model, tokenizer = _text_tower(path, config.model.text_dim), ClipTokenizer()
    refuse_other_tokens(model, tokenizer, config.dataset.max_words, path)
    half = config.text.clip_dtype == "float16" and device.type == "cuda"
    return ClipText(
        model=model,
        tokenizer=tokenizer,
        label_ids=labels,
        tagger=make_tagger(config.text.tagger),
        max_words=config.dataset.max_words,
        device=device,
        dtype=torch.float16 if half else torch.float32,
        cache=TextCache(default_cache_path()),
        path=path,
    )


def _text_tower(path: Path, width: int) -> ClipTextTransformer | KnownTower:
    """Return the transformer of a weights file. If the file was read before, its weights are loaded when needed.

    Raises:
        TextError: the file cannot be used, or has another width.
    """
    notes, what = default_notes(), "text tower"
    noted, seen = notes.get(path, what), identity_of(path)
    if isinstance(noted, list) and len(noted) == 4 and isinstance(noted[0], str) and noted[1] == width:
        return KnownTower(partial(load_clip_text, path, width=width), *noted)
    model = load_clip_text(path, width=width)
    if seen is not None:
        notes.put(path, what, [hash_weights(model), model.width, model.vocabulary, model.context], seen=seen)
    return model


def refuse_other_tokens(
    model: ClipTextTransformer | KnownTower, tokenizer: ClipTokenizer, max_words: int, path: Path
) -> None:
    """Raise TextError if the weights belong to another tokenizer, or their context is shorter than ``max_words``."""
    tokens = tokenizer.end + 1
    if model.vocabulary != tokens:
        raise TextError(
            f"The CLIP text encoder in {path} has {model.vocabulary:,} tokens; CLIP's tokenizer has {tokens:,}.",
            hint="Only weights that were trained with CLIP's own tokenizer can be used.",
        )
    if model.context < max_words:
        raise TextError(
            f"The CLIP text encoder in {path} reads {model.context} tokens, but dataset.max_words is {max_words}.",
            hint=f"Use --set dataset.max_words={model.context}.",
        )


def _count(config: Config, paths: Paths) -> tuple[Path, int]:
    counts = paths.annotations / config.text.counts
    return counts, len(read_clip_counts(counts))


def _checks(config: Config, paths: Paths) -> list[Check]:
    def labels() -> None:
        counts = paths.annotations / config.text.counts
        words = list(map(str, read_clip_counts(counts)))
        label_words(words, counted(config, paths, _count).text.label_words, path=counts)

    def weights() -> None:
        if not paths.text.is_file():
            load_clip_text(paths.text, width=config.model.text_dim)

    return [labels, weights, lambda: make_tagger(config.text.tagger)]


def _without_counts(config: Config, paths: Paths, device: torch.device) -> ClipText:
    return _clip_text(config, paths.text, range(config.text.label_words), device)


ENCODER = Encoder(
    build=_clip,
    restore=_clip_from_state,
    setting="clip",
    label_words=_count,
    checks=_checks,
    without_counts=_without_counts,
    portable=False,
    title="CLIP text",
    advice="mesm prepare clip-text ViT-B-32.pt {path}",
)
