"""Settings -> text encoder, chosen from the table of encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mesm_core.build.encoders import find_encoder
from mesm_core.build.encoders.clip import build_sentences
from mesm_core.build.encoders.entry import Check, counted
from mesm_core.build.paths import Paths
from mesm_core.config.schema import Config
from mesm_core.text.encoder import TextEncoder

__all__ = [
    "build_sentences",
    "build_text",
    "build_text_from_state",
    "build_text_to_ask",
    "text_checks",
    "with_counted_words",
]


def build_text(config: Config, paths: Paths, *, device: torch.device) -> TextEncoder:
    """Return the text encoder of a training run, from files.

    Raises:
        ConfigError: there is no such encoder; TextError: a file is missing or does not fit; DataError: the count file
            is malformed.
    """
    return find_encoder(config.text.encoder).build(with_counted_words(config, paths), paths, device)


def with_counted_words(config: Config, paths: Paths) -> Config:
    """Return the config with ``text.vocab_size`` set to the number of counted words if it is ``auto``.

    Raises:
        TextError: the count file or vocabulary is missing or empty; DataError: it is malformed.
    """
    return counted(config, paths, find_encoder(config.text.encoder).label_words)


def text_checks(config: Config, paths: Paths) -> Sequence[Check]:
    """Return checks of the text encoder's files, as functions. None of them reads a large file completely.

    Raises (each check):
        TextError: a file is missing or does not fit; DataError: it is malformed.
    """
    return find_encoder(config.text.encoder).checks(config, paths)


def build_text_from_state(
    config: Config, state: Mapping[str, Any], *, device: torch.device, path: Path | None = None
) -> TextEncoder:
    """Return the text encoder that a checkpoint contains, or refers to by path and hash.

    Args:
        path: path of CLIP's weights, if they have moved since training.

    Raises:
        TextError: CLIP's weights are missing; CheckpointError: they differ from those of training.
    """
    return find_encoder(config.text.encoder).restore(config, state, device, path)


def build_text_to_ask(config: Config, paths: Paths, *, device: torch.device) -> TextEncoder:
    """Return the text encoder for inference with a checkpoint that does not contain it.

    Unlike training, inference with CLIP needs no count file: only masked-word reconstruction uses the counted words.

    Raises:
        TextError: a file is missing or does not fit; DataError: the count file is malformed.
    """
    without_counts = find_encoder(config.text.encoder).without_counts
    if without_counts is not None and not (paths.annotations / config.text.counts).is_file():
        return without_counts(config, paths, device)
    return build_text(config, paths, device=device)
