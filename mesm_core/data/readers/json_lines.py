"""Reader of JSON lines in Moment-DETR's format, one query per line, for custom datasets."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mesm_core.data.agreement import Agreement
from mesm_core.data.annotations import (
    Annotations,
    is_number,
    query_id,
    read_text,
    repaired_window,
    two_numbers,
    video_id,
)
from mesm_core.errors import DataError
from mesm_core.files import text_output
from mesm_core.inputs import parse_json, shown
from mesm_core.types import CLIP_SECONDS, Highlights, Query


def read_lines(path: Path, *, strict: bool = False, source_of: bool = False) -> Annotations:
    """Return the queries of a JSON-lines file: ``vid``, ``duration``, ``query``; optional ``qid`` (default: the line's
    number, from 1), ``relevant_windows``, and ``saliency_scores`` with ``relevant_clip_ids``.

    Windows outside the video are cut, inverted ones swapped, and those that start after its end dropped.

    Args:
        strict: refuse windows that would be repaired.
        source_of: group by the YouTube id in a ``vid`` of the form ``YOUTUBEID_start_end``.

    Raises:
        DataError: a line is malformed or contradicts an earlier one (a repeated id, two durations of a video,
            different numbers of annotators); the message names the line.
    """
    repairs: Counter[str] = Counter()
    queries: list[Query] = []
    agreement = Agreement()
    seen: dict[Any, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = _record(line, where)
        qid = query_id(record.get("qid", number), where)
        if seen.setdefault(qid, number) != number:
            raise DataError(f"{where}: query id {shown(qid)} was used before, in line {seen[qid]}.")
        vid = video_id(record["vid"], where)
        queries.append(
            Query(
                qid=qid,
                vid=vid,
                sentence=record["query"],
                duration=float(record["duration"]),
                windows=_windows(record, where, repairs, strict=strict),
                source=vid.rsplit("_", 2)[0] if source_of else None,
                highlights=_highlights(record, where),
            )
        )
        agreement.add(queries[-1], number, where)
    return Annotations(tuple(queries), +repairs)


class JsonLines:
    """Reader of ``SPLIT.jsonl`` files; a split may also be a path."""

    splits: tuple[str, ...] = ()
    count_splits: tuple[str, ...] = ("train", "val")
    counts_in: str | None = None
    truths: Mapping[str, str] = MappingProxyType({})

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the file that ``read`` reads."""
        named = Path(split) if Path(split).is_file() else folder / split
        return (named if named.suffix == ".jsonl" else folder / f"{split}.jsonl",)

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the queries of a file: ``split`` is its path, or its name in the folder, with or without .jsonl.

        Raises:
            DataError: the file is missing or malformed; the message names the line.
        """
        return read_lines(*self.files(folder, split))


def _record(line: str, where: str) -> dict[str, Any]:
    record = parse_json(line, where)
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}.")
    missing = [key for key in ("vid", "duration", "query") if key not in record]
    if missing:
        raise DataError(
            f"{where}: the line lacks {', '.join(missing)}.",
            hint='Example: {"vid": "v1", "duration": 31.0, "query": "…"}',
        )
    duration = record["duration"]
    if not is_number(duration) or duration <= 0:
        raise DataError(f"{where}: the duration is {shown(duration)}; it must be a positive number of seconds.")
    if not isinstance(record["query"], str) or not record["query"].strip():
        raise DataError(f"{where}: the query is empty.")
    _refuse_booleans(record, where)
    return record


def _refuse_booleans(record: dict[str, Any], where: str) -> None:
    """Refuse true and false among times and scores, which Python treats as 1 and 0."""
    for name in ("relevant_windows", "saliency_scores"):
        rows = record.get(name)
        if isinstance(rows, list) and any(bool in map(type, row) for row in rows if isinstance(row, list)):
            raise DataError(f"{where}: {name} has true or false where a number belongs.")


def _windows(
    record: dict[str, Any], where: str, repairs: Counter[str], *, strict: bool
) -> tuple[tuple[float, float], ...]:
    windows: list[tuple[float, float]] = []
    duration = float(record["duration"])
    listed = record.get("relevant_windows") or []
    if not isinstance(listed, list):
        raise DataError(f"{where}: relevant_windows is {shown(listed)}; it must be a list of [start, end].")
    for window in listed:
        start, end = two_numbers(window, f"{where}: window")
        kept = repaired_window(start, end, duration, repairs)
        if strict and kept != (start, end):
            raise DataError(f"{where}: window {shown(window)} is inverted or outside the video's {duration:g} s.")
        if kept is not None:
            windows.append(kept)
    return tuple(windows)


def _highlights(record: dict[str, Any], where: str) -> Highlights | None:
    clips, scores = record.get("relevant_clip_ids"), record.get("saliency_scores")
    if not clips or not scores:
        return None
    if not isinstance(clips, list) or not isinstance(scores, list):
        raise DataError(f"{where}: relevant_clip_ids and saliency_scores must be lists.")
    if len(clips) != len(scores):
        raise DataError(f"{where}: {len(clips)} relevant_clip_ids, but {len(scores)} saliency_scores.")
    last = math.ceil(float(record["duration"]) / CLIP_SECONDS)
    for clip in clips:
        if not isinstance(clip, int) or isinstance(clip, bool) or not 0 <= clip <= last:
            raise DataError(f"{where}: relevant clip id {shown(clip)} is out of range (0 to {last - 1}).")
    try:
        return Highlights(tuple(clips), tuple(tuple(float(s) for s in row) for row in scores))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: saliency_scores must be lists of numbers.") from None


def write_lines(path: Path, queries: Iterable[Query], *, overwrite: bool) -> None:
    """Write queries as JSON lines that ``read_lines`` reads back.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    with text_output(path, overwrite=overwrite) as file:
        for number, query in enumerate(queries, start=1):
            record: dict[str, Any] = {
                "qid": number if query.qid is None else query.qid,
                "query": query.sentence,
                "duration": query.duration,
                "vid": query.vid,
            }
            if query.windows:
                record["relevant_windows"] = [list(window) for window in query.windows]
            if query.highlights is not None:
                record["relevant_clip_ids"] = list(query.highlights.clips)
                record["saliency_scores"] = [list(row) for row in query.highlights.scores]
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
