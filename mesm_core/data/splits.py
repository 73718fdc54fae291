"""Names of splits: the splits that train and val stand for in a custom dataset, and the labels shown to users."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mesm_core.config.paths import JSON_LINES
from mesm_core.config.schema import DatasetConfig
from mesm_core.data.readers import make_reader

TRAIN, VALIDATION = "train", "val"


def named_split(dataset: DatasetConfig, split: str) -> str:
    """Return the split that a name stands for; if any file can be a split, train and val come from the config.

    Raises:
        ConfigError: the dataset is unknown.
    """
    if make_reader(dataset.name).splits:
        return split
    return {TRAIN: dataset.train, VALIDATION: dataset.eval[0]}.get(split, split)


def counted_splits(dataset: DatasetConfig, given: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the splits whose words are counted: the given ones, else the config's if any file can be a split.

    Empty if the dataset's reader defines them.
    """
    chosen = tuple(named_split(dataset, split) for split in given)
    if chosen or make_reader(dataset.name).splits:
        return chosen
    return tuple(dict.fromkeys((dataset.train, *dataset.eval)))


def known_splits(dataset: DatasetConfig) -> tuple[str, ...]:
    """Return all splits of a dataset: those of its reader, else those of the config if any file can be a split."""
    return tuple(make_reader(dataset.name).splits) or tuple(dict.fromkeys((dataset.train, *dataset.eval)))


def split_labels(splits: Iterable[str]) -> dict[str, str]:
    """Return the label of each split: for files the stem, if all labels are then distinct.

    >>> split_labels(["val", "/my/videos/hard.jsonl"])
    {'val': 'val', '/my/videos/hard.jsonl': 'hard'}
    """
    names = list(dict.fromkeys(splits))
    short = [Path(name).stem if name.endswith(JSON_LINES) else name for name in names]
    return dict(zip(names, short if len(set(short)) == len(names) else names, strict=True))
