"""Checks that the lines of an annotation file agree with each other."""

from __future__ import annotations

import math

from mesm_core.errors import DataError
from mesm_core.types import Highlights, Query

# In seconds. Durations are written with a few decimals; smaller differences are rounding.
SAME_DURATION = 0.01


class Agreement:
    """Compares each query of a file with the earlier ones; lines are numbered from 1."""

    def __init__(self) -> None:
        self._durations: dict[str, tuple[float, int]] = {}
        self._raters: tuple[int, int] | None = None

    def add(self, query: Query, line: int, where: str) -> None:
        """Check the query of a line and remember it.

        Args:
            where: the file and the line, for messages.

        Raises:
            DataError: the video has another duration in an earlier line, a clip is rated twice, or the saliency
                scores are not finite or differ in their number.
        """
        duration, first = self._durations.setdefault(query.vid, (query.duration, line))
        if abs(duration - query.duration) > SAME_DURATION:
            raise DataError(
                f"{where}: video '{query.vid}' lasts {query.duration:g} s, but {duration:g} s in line {first}.",
                hint="A video has one duration: correct the wrong line.",
            )
        if query.highlights is not None:
            self._add_raters(_raters(query.highlights, where), line, where)

    def _add_raters(self, raters: int, line: int, where: str) -> None:
        if self._raters is None:
            self._raters = raters, line
        usual, first = self._raters
        if raters != usual:
            raise DataError(
                f"{where}: {raters} saliency_scores per clip, but {usual} in line {first}.",
                hint="Every clip has one score from each annotator, and all queries have the same annotators.",
            )


def _raters(highlights: Highlights, where: str) -> int:
    """Return the number of scores per clip."""
    usual = len(highlights.scores[0])
    for number, (clip, scores) in enumerate(zip(highlights.clips, highlights.scores, strict=True)):
        if len(scores) != usual:
            raise DataError(
                f"{where}: clip {clip} has {len(scores)} saliency_scores, clip {highlights.clips[0]} has {usual}.",
                hint="Every clip has one score from each annotator.",
            )
        if not all(map(math.isfinite, scores)):
            raise DataError(f"{where}: saliency_scores of clip {clip} are not finite: {list(scores)}.")
        if clip in highlights.clips[:number]:
            raise DataError(f"{where}: relevant clip id {clip} is repeated.")
    if usual == 0:
        raise DataError(f"{where}: clip {highlights.clips[0]} has no saliency_scores.")
    return usual
