"""GloVe: a table of word vectors, read from a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mesm_core.build.encoders.entry import Check, Encoder, counted
from mesm_core.build.encoders.state import listed, vectors_of
from mesm_core.build.paths import Paths
from mesm_core.config.schema import Config
from mesm_core.data.count_files import label_words, read_glove_counts
from mesm_core.text.glove import FIRST_WORD, GloveTable, GloveText, check_glove, find_glove, read_glove
from mesm_core.text.words import make_tagger


def _glove(config: Config, paths: Paths, device: torch.device) -> GloveText:
    counts = paths.annotations / config.text.counts
    words = read_glove_counts(counts)
    labels = label_words(words, config.text.label_words, path=counts)
    table = read_glove(paths.text, words, dim=config.model.text_dim, seed=config.train.seed)
    return _glove_text(config, table, labels)


def _glove_from_state(config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None) -> GloveText:
    words = listed(state, "words", str)
    table = GloveTable(tuple(words), vectors_of(config, state, rows=len(words) + FIRST_WORD))
    return _glove_text(config, table, listed(state, "label_words", str))


def _glove_text(config: Config, table: GloveTable, labels: Sequence[str]) -> GloveText:
    tagger = make_tagger(config.text.tagger)
    return GloveText(table=table, label_words=labels, tagger=tagger, max_words=config.dataset.max_words)


def _count(config: Config, paths: Paths) -> tuple[Path, int]:
    counts = paths.annotations / config.text.counts
    return counts, len(read_glove_counts(counts))


def _checks(config: Config, paths: Paths) -> list[Check]:
    def labels() -> None:
        counts = paths.annotations / config.text.counts
        words = read_glove_counts(counts)
        label_words(words, counted(config, paths, _count).text.label_words, path=counts)

    return [labels, lambda: check_glove(paths.text, dim=config.model.text_dim), lambda: make_tagger(config.text.tagger)]


ENCODER = Encoder(
    build=_glove,
    restore=_glove_from_state,
    setting="glove",
    locate=find_glove,
    label_words=_count,
    checks=_checks,
    title="GloVe",
    advice="download glove.6B.zip (nlp.stanford.edu/projects/glove) and unpack {name}; .gz and .zip do, too",
)
