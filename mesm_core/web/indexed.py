"""The videos of an index as a collection: nothing is extracted, and searches use the vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mesm_core.errors import DataError, MesmError, OutputError
from mesm_core.inference.answers import Moment
from mesm_core.inference.locate import Located, refuse_queries
from mesm_core.search.index import Index
from mesm_core.search.manifest import FILE
from mesm_core.search.results import Found as FoundMoment
from mesm_core.search.searcher import Searcher
from mesm_core.web.collection import AwayError, Found, Hit, Progress, WebVideo
from mesm_core.web.videos import shown_names
from mesm_core.web.workers import Cancel


class IndexCollection:
    """The videos of an index, whose features it keeps. A changed index is opened again.

    Entries that have features without their video are not shown, since they cannot be played.

    Args:
        searcher: of the index; notes: warnings about its model, for the user.
    """

    def __init__(self, searcher: Searcher, notes: Sequence[str] = ()) -> None:
        self.notes = tuple(notes)
        self._searcher = searcher
        self._lock = threading.Lock()
        self._seen = _time(searcher.index.path)
        self._videos = _videos_of(searcher.index)

    @property
    def calibrated(self) -> bool:
        """Whether moments have a confidence."""
        return self._searcher.calibrated

    def videos(self) -> Mapping[str, WebVideo]:
        """Return the videos by id, in the order of the index."""
        return self._videos

    def prepared(self, video: str) -> bool:
        """Return True: the index has the features."""
        return True

    def prepare(
        self, videos: Sequence[str], *, progress: Callable[[Progress], None], cancel: Cancel
    ) -> Mapping[str, str]:
        """Do nothing; see ``Collection.prepare``."""
        progress(Progress(1.0, len(videos)))
        return {}

    def locate(self, video: str, query: str) -> Located | None:
        """Return the answer to a query about a video; see ``Collection.locate``."""
        refuse_queries([query])
        with self._lock:
            found = self._searcher.index.videos.get(video)
            if found is None:
                raise DataError("This video was removed from the index meanwhile.")
            return Located(found.path, found.duration, (self._searcher.answer(query, video),), cached=True)

    def search(self, query: str, *, top: int) -> Found:
        """Return the moments of all videos; see ``Collection.search``."""
        refuse_queries([query])
        with self._lock:
            self._reopen()
            shown = set(self._videos)
            try:
                (results,) = self._searcher.search([query], top=top, videos=shown)
            except OutputError as error:
                raise AwayError(str(error)) from error
        return Found(tuple(map(_hit, results.found)), len(shown), results.warnings)

    def add(self, path: Path, name: str) -> WebVideo:
        """Raise DataError: videos are added to an index with ``mesm index add``."""
        raise DataError("Videos cannot be uploaded to an index.", hint="Use `mesm index add`.")

    def close(self) -> None:
        """Release the files of the index."""
        self._searcher.index.close()

    def _reopen(self) -> None:
        try:
            time = _time(self._searcher.index.path)
            if time == self._seen:
                return
            old, self._searcher = self._searcher.index, self._searcher.reopened()
        except (OSError, MesmError) as error:
            raise AwayError(str(error)) from error
        old.close()
        self._seen, self._videos = time, _videos_of(self._searcher.index)


def _time(path: Path) -> int:
    return (path / FILE).stat().st_mtime_ns


def _videos_of(index: Index) -> dict[str, WebVideo]:
    videos = [video for video in index.videos.values() if video.is_video]
    names = shown_names([video.path for video in videos])
    return {video.id: WebVideo(video.id, name, video.path) for video, name in zip(videos, names, strict=True)}


def _hit(found: FoundMoment) -> Hit:
    score = found.similarity if found.score is None else found.score
    return Hit(found.video.id, Moment(found.start, found.end, score, found.confidence), found.similarity)
