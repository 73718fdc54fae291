"""The words and vectors of the published glove.pkl, or of a vocabulary file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mesm_core.build.encoders.entry import Encoder, counted
from mesm_core.build.encoders.state import damaged, listed, vectors_of
from mesm_core.build.paths import Paths
from mesm_core.config.schema import Config
from mesm_core.text.vocabulary import Vocabulary, VocabularyText, read_vocabulary
from mesm_core.text.words import make_tagger


def _vocabulary(config: Config, paths: Paths, device: torch.device) -> VocabularyText:
    return _vocabulary_text(config, read_vocabulary(paths.text, dim=config.model.text_dim))


def _vocabulary_from_state(
    config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None
) -> VocabularyText:
    words, counts = listed(state, "words", str), listed(state, "counts", int)
    if len(words) != len(counts):
        raise damaged("counts")
    vocabulary = Vocabulary(tuple(words), tuple(counts), vectors_of(config, state, rows=len(words)))
    return _vocabulary_text(config, vocabulary)


def _vocabulary_text(config: Config, vocabulary: Vocabulary) -> VocabularyText:
    return VocabularyText(
        vocabulary=vocabulary,
        vocab_size=config.text.label_words,
        tagger=make_tagger(config.text.tagger),
        max_words=config.dataset.max_words,
    )


def _count(config: Config, paths: Paths) -> tuple[Path, int]:
    return paths.text, len(read_vocabulary(paths.text).words)


ENCODER = Encoder(
    build=_vocabulary,
    restore=_vocabulary_from_state,
    setting="vocabulary",
    with_annotations=True,
    label_words=_count,
    checks=lambda config, paths: [lambda: _vocabulary(counted(config, paths, _count), paths, torch.device("cpu"))],
    needs_counts=False,
    title="vocabulary",
    advice="put the published glove.pkl there, or: mesm prepare glove GLOVE OUT.h5 --dataset {dataset}",
)
