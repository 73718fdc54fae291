"""The interface of annotation readers, and the checks of ids, numbers and windows that they share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from mesm_core import inputs
from mesm_core.errors import DataError, listing
from mesm_core.inputs import shown
from mesm_core.types import Query


@dataclass(frozen=True)
class Annotations:
    """A split's queries in file order, and the number of repairs of each kind."""

    queries: tuple[Query, ...]
    repairs: Counter[str] = field(default_factory=Counter)


class Reader(Protocol):
    """Reads one dataset's annotation files."""

    splits: tuple[str, ...]
    """Names of the splits, training first; empty if any file can be a split."""
    count_splits: tuple[str, ...]
    """Splits whose sentences the count file counts, in order."""
    counts_in: str | None
    """Folder, relative to the annotations', of the dataset whose count files this one shares."""
    truths: Mapping[str, str]
    """Ground-truth file by split, for splits whose own file has no ground truth."""

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the files that ``read`` reads."""
        ...

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries.

        Raises:
            DataError: a file is missing or malformed; the message says where.
        """
        ...


def read_text(path: Path) -> str:
    """Return the text of an annotation file, without a byte-order mark.

    Raises:
        DataError: the file is missing (the message lists the folder), damaged, or not UTF-8.
    """
    if not path.exists():
        present = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        hint = (
            f"The folder has: {listing(present)}."
            if present
            else "Give --annotations DIR, or --data-dir with the layout that `mesm train --help` describes."
        )
        raise DataError(f"No annotation file at {path}.", hint=hint) from None
    return inputs.read_text(path)


def read_videos(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file with one entry per video.

    Raises:
        DataError: the file is missing, malformed (the message gives the line), or not an object.
    """
    content = inputs.parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with one entry per video, found {type(content).__name__}.")
    return content


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a JSON value is a finite number within the range of float.

    >>> is_number(3), is_number(True), is_number(float("nan")), is_number(10**400)
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def query_id(value: object, where: str) -> int | str:
    """Return a query's id: an integer (3.0 counts as 3) or a string.

    Raises:
        DataError: the value is neither; the message begins with ``where``.
    """
    if is_number(value) and int(value) == value:
        return int(value)
    if isinstance(value, str):
        return value
    raise DataError(f"{where}: the qid is {shown(value)}; it must be an integer or a string.")


def video_id(value: object, where: str) -> str:
    """Return a video's id, a non-empty string; an integer is converted to its digits.

    Raises:
        DataError: the value is neither; the message begins with ``where``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise DataError(f"{where}: the vid is {shown(value)}; it must be a string.")


def video_moments(video: Any, where: str) -> Iterator[tuple[float, float, str]]:
    """Yield the (start, end, sentence) of a video's ``timestamps`` and ``sentences``, in the file's unit.

    Raises:
        DataError: they are malformed; the message names the sentence.
    """
    if not isinstance(video, dict):
        raise DataError(f"{where}: expected an object, found {type(video).__name__}.")
    stamps, sentences = video.get("timestamps"), video.get("sentences")
    if not isinstance(stamps, list) or not isinstance(sentences, list):
        raise DataError(f"{where}: 'timestamps' and 'sentences' must be lists.")
    if len(stamps) != len(sentences):
        raise DataError(f"{where}: {len(stamps)} timestamps for {len(sentences)} sentences.")
    for number, (stamp, sentence) in enumerate(zip(stamps, sentences, strict=True), start=1):
        start, end = two_numbers(stamp, f"{where}, sentence {number}: timestamp")
        if not isinstance(sentence, str) or not sentence.strip():
            raise DataError(f"{where}, sentence {number}: the sentence is empty.")
        yield start, end, sentence


def two_numbers(value: object, where: str) -> tuple[float, float]:
    """Return the start and end of a JSON value ``[start, end]``; the numbers may be written as strings.

    Raises:
        DataError: the value is not two finite numbers; the message begins with ``where``.
    """
    try:
        start, end = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where} {shown(value)} is not [start, end].") from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise DataError(f"{where} {shown(value)} is not finite.")
    return start, end


def repaired_window(start: float, end: float, duration: float, repairs: Counter[str]) -> tuple[float, float] | None:
    """Return the window clamped to the video, or None if it starts after the end; counts repairs in ``repairs``.

    >>> repaired_window(9.0, 3.0, 8.0, Counter())
    (3.0, 8.0)
    """
    if start > end:
        repairs["inverted (swapped)"] += 1
        start, end = end, start
    if start > duration:
        repairs["starts after the video (dropped)"] += 1
        return None
    if start < 0 or end > duration:
        repairs["cut to the video"] += 1
    return max(start, 0.0), min(end, duration)
