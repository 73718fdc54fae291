"""What every annotation reader offers, and the table that finds it by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mesm_core.errors import ConfigError, DataError, did_you_mean, listing
from mesm_core.types import Query


@dataclass(frozen=True)
class Annotations:
    """A split's queries in file order, and how many of each repair was made."""

    queries: tuple[Query, ...]
    repairs: Counter[str] = field(default_factory=Counter)


class Reader(Protocol):
    """Reads one dataset's annotation files."""

    splits: tuple[str, ...]
    """Names of the splits, training first."""
    count_splits: tuple[str, ...]
    """Splits whose sentences the count file counts, in order."""

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries.

        Raises:
            DataError: a file is missing or malformed; the message says where.
        """
        ...


_READERS: dict[str, Callable[[], Reader]] = {}


def register(name: str) -> Callable[[Callable[[], Reader]], Callable[[], Reader]]:
    """Return a decorator that enters a reader under ``name``."""

    def enter(make: Callable[[], Reader]) -> Callable[[], Reader]:
        _READERS[name] = make
        return make

    return enter


def make_reader(name: str) -> Reader:
    """Return the reader of that dataset.

    Raises:
        ConfigError: there is none.
    """
    from mesm_core.data import tacos  # noqa: F401  (one line a dataset: importing it registers the reader)

    if name not in _READERS:
        raise ConfigError(
            f"No dataset is called '{name}'.{did_you_mean(name, _READERS)}",
            hint=f"Known: {listing(sorted(_READERS))}.",
        )
    return _READERS[name]()


def read_split(name: str, folder: Path, split: str) -> Annotations:
    """Return the queries of a dataset's split.

    Raises:
        ConfigError: the dataset or the split is unknown.
        DataError: the annotations are missing, malformed or empty.
    """
    reader = make_reader(name)
    if split not in reader.splits:
        raise ConfigError(
            f"{name} has no split '{split}'.{did_you_mean(split, reader.splits)}",
            hint=f"Its splits: {listing(reader.splits)}.",
        )
    annotations = reader.read(folder, split)
    if not annotations.queries:
        raise DataError(f"The {split} split of {name} in {folder} has no queries.")
    return annotations


def read_json(path: Path) -> Any:
    """Return a JSON file's content.

    Raises:
        DataError: it is missing or malformed; the message gives the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        present = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        hint = (
            f"The folder has: {listing(present)}."
            if present
            else "Give --annotations DIR, or --data-dir with the layout that `mesm train --help` describes."
        )
        raise DataError(f"No annotation file at {path}.", hint=hint) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
