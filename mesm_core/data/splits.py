"""Names of splits: what a dataset of your own calls train and val, and how a split is shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mesm_core.config.paths import JSON_LINES
from mesm_core.config.schema import DatasetConfig
from mesm_core.data.readers import make_reader

TRAIN, VALIDATION = "train", "val"


def named_split(dataset: DatasetConfig, split: str) -> str:
    """Return the split that a name stands for: where any file can be a split, train and val are the config's.

    Raises:
        ConfigError: the dataset is unknown.
    """
    if make_reader(dataset.name).splits:
        return split
    return {TRAIN: dataset.train, VALIDATION: dataset.eval[0]}.get(split, split)


def counted_splits(dataset: DatasetConfig, given: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the splits whose words are counted: those given, else the config's where any file can be a split.

    Empty where the dataset itself says which.
    """
    chosen = tuple(named_split(dataset, split) for split in given)
    if chosen or make_reader(dataset.name).splits:
        return chosen
    return tuple(dict.fromkeys((dataset.train, *dataset.eval)))


def split_labels(splits: Iterable[str]) -> dict[str, str]:
    """Return how splits are shown: files by their names alone, where these differ.

    >>> split_labels(["val", "/my/videos/hard.jsonl"])
    {'val': 'val', '/my/videos/hard.jsonl': 'hard'}
    """
    names = list(dict.fromkeys(splits))
    short = [Path(name).stem if name.endswith(JSON_LINES) else name for name in names]
    return dict(zip(names, short if len(set(short)) == len(names) else names, strict=True))
