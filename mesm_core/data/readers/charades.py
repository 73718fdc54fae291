"""Charades-STA: one line per query, durations in a separate table (docs/datasets.md, "Rules")."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mesm_core.data.annotations import Annotations, read_text, repaired_window
from mesm_core.errors import DataError
from mesm_core.inputs import reading, shown, split_lines
from mesm_core.types import Query


class Charades:
    """Reader of ``charades_sta_{train,test}.txt`` and ``Charades_v1_{train,test}.csv``."""

    splits: tuple[str, ...] = ("train", "test")
    count_splits: tuple[str, ...] = ("train", "test")
    counts_in: str | None = None
    truths: Mapping[str, str] = MappingProxyType({})

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the files that ``read`` reads: queries, and durations."""
        return folder / f"charades_sta_{split}.txt", folder / f"Charades_v1_{split}.csv"

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries; the id of a test query is its line number, from 0.

        Raises:
            DataError: a file is missing or malformed; the message names the line.
        """
        path, table = self.files(folder, split)
        lines = split_lines(read_text(path))
        durations = _durations(table)
        repairs: Counter[str] = Counter()
        queries: list[Query] = []
        for number, line in enumerate(lines):
            where = f"{path}, line {number + 1}"
            vid, start, end, sentence = _parse(line, where)
            if vid not in durations:
                raise DataError(f"{where}: video {vid} is not in Charades_v1_{split}.csv, so its duration is unknown.")
            window = repaired_window(start, end, durations[vid], repairs)
            if window is not None:
                qid = None if split == "train" else number
                queries.append(Query(qid, vid, sentence, durations[vid], (window,), repaired=window != (start, end)))
        return Annotations(tuple(queries), repairs)


def _parse(line: str, where: str) -> tuple[str, float, float, str]:
    head, marks, sentence = line.partition("##")
    fields = head.split()
    try:
        vid, start, end = fields[0], float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        vid, start, end = "", math.nan, math.nan
    if not marks or len(fields) != 3 or not (math.isfinite(start) and math.isfinite(end)):
        raise DataError(f"{where}: expected 'VIDEO START END##sentence', found {line[:60]!r}.")
    if not sentence.strip():
        raise DataError(f"{where}: the sentence is empty.")
    return vid, start, end, sentence


def _durations(path: Path) -> dict[str, float]:
    with reading(path, DataError):
        rows = csv.DictReader(split_lines(read_text(path)))
        columns = set(rows.fieldnames or ())
        records = list(rows)
    if not {"id", "length"} <= columns:
        raise DataError(f"{path}: expected columns 'id' and 'length'.")
    durations = {}
    for number, row in enumerate(records, start=2):
        try:
            duration = float(row["length"])
        except (TypeError, ValueError):
            duration = 0.0
        if not (duration > 0 and math.isfinite(duration)):
            raise DataError(
                f"{path}, line {number}: the length of {row['id']} is {shown(row['length'])}, not a positive number."
            )
        durations[row["id"]] = duration
    return durations
