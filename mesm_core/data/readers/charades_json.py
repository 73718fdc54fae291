"""Charades-CD and Charades-CG: one JSON object per split with one entry per video (docs/datasets.md, "Rules")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mesm_core.data.annotations import Annotations, is_number, read_videos, repaired_window, video_moments
from mesm_core.errors import DataError
from mesm_core.inputs import shown
from mesm_core.types import Query


class CharadesJson:
    """Reader of JSON files with ``timestamps``, ``sentences`` and a duration per video.

    Args:
        files: file name by split, training first.
        duration_key: field of the duration.
    """

    def __init__(self, *, files: dict[str, str], duration_key: str) -> None:
        self.splits = tuple(files)
        self.count_splits: tuple[str, ...] = ()
        self.counts_in: str | None = "../charades/annotations"
        self.truths: Mapping[str, str] = {}
        self._files = files
        self._duration_key = duration_key

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the files that ``read`` reads."""
        return (folder / self._files[split],)

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries; ids count from 1, dropped queries included; training queries have none.

        Raises:
            DataError: the file is missing or malformed; the message names the video and the sentence.
        """
        (path,) = self.files(folder, split)
        repairs: Counter[str] = Counter()
        queries: list[Query] = []
        number = 0
        for vid, video in read_videos(path).items():
            where = f"{path}, video {vid}"
            duration = self._duration(video, where)
            for start, end, sentence in video_moments(video, where):
                number += 1
                window = repaired_window(start, end, duration, repairs)
                if window is not None:
                    qid = None if split == "train" else number
                    queries.append(Query(qid, vid, sentence, duration, (window,), repaired=window != (start, end)))
        return Annotations(tuple(queries), repairs)

    def _duration(self, video: object, where: str) -> float:
        value = video.get(self._duration_key) if isinstance(video, dict) else None
        if not is_number(value) or value <= 0:
            raise DataError(
                f"{where}: '{self._duration_key}' is {shown(value)}; it must be a positive number of seconds."
            )
        return float(value)


def charades_cd() -> CharadesJson:
    """Return the reader of Charades-CD."""
    splits = ("train", "val", "test_iid", "test_ood")
    return CharadesJson(files={split: f"charades_{split}.json" for split in splits}, duration_key="video_duration")


def charades_cg() -> CharadesJson:
    """Return the reader of Charades-CG."""
    splits = ("train", "novel_composition", "novel_word", "test_trivial")
    return CharadesJson(files={split: f"{split}.json" for split in splits}, duration_key="duration")
