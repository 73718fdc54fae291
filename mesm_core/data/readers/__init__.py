"""The table of annotation readers, one line per dataset, and functions that read splits with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mesm_core.data.annotations import Annotations, Reader
from mesm_core.data.readers.charades import Charades
from mesm_core.data.readers.charades_json import charades_cd, charades_cg
from mesm_core.data.readers.json_lines import JsonLines
from mesm_core.data.readers.qvhighlights import QVHighlights
from mesm_core.data.readers.tacos import Tacos
from mesm_core.errors import ConfigError, DataError, did_you_mean, listing

READERS: dict[str, Callable[[], Reader]] = {
    "charades": Charades,
    "charades-cd": charades_cd,
    "charades-cg": charades_cg,
    "jsonl": JsonLines,
    "qvhighlights": QVHighlights,
    "tacos": Tacos,
}
"""Maps ``dataset.name`` to a function that makes the reader."""


def make_reader(name: str) -> Reader:
    """Return the reader of a dataset.

    Raises:
        ConfigError: the dataset is unknown.
    """
    if name not in READERS:
        raise ConfigError(
            f"No dataset is called '{name}'.{did_you_mean(name, READERS)}",
            hint=f"Known: {listing(sorted(READERS))}.",
        )
    return READERS[name]()


def read_split(name: str, folder: Path, split: str) -> Annotations:
    """Return the queries of a dataset's split.

    Raises:
        ConfigError: the dataset or the split is unknown.
        DataError: the annotations are missing, malformed or empty.
    """
    reader = make_reader(name)
    if reader.splits and split not in reader.splits:
        raise ConfigError(
            f"{name} has no split '{split}'.{did_you_mean(split, reader.splits)}",
            hint=f"Its splits: {listing(reader.splits)}.",
        )
    annotations = reader.read(folder, split)
    if not annotations.queries:
        raise DataError(f"The {split} split of {name} in {folder} has no queries.")
    return annotations


def annotation_files(name: str, folder: Path, splits: Iterable[str]) -> list[Path]:
    """Return the annotation and ground-truth files of a dataset's splits; unknown splits are ignored."""
    reader = make_reader(name)
    chosen = [split for split in splits if not reader.splits or split in reader.splits]
    own = [path for split in chosen for path in reader.files(folder, split)]
    return [*own, *(folder / reader.truths[split] for split in chosen if split in reader.truths)]
