"""What a server answers about: a collection of videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesm_core.inference.answers import Moment
from mesm_core.inference.locate import Located
from mesm_core.web.workers import Cancel


class AwayError(Exception):
    """What a collection needs for its answers cannot be reached at present."""


@dataclass(frozen=True, slots=True)
class WebVideo:
    """A video of a collection.

    ``id``: short, the same at every start, and safe in addresses; ``name``: shown to users; ``path``: the file.
    """

    id: str
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment found in one of the videos; ``similarity`` of its surroundings to the query, where an index has it."""

    video: str
    moment: Moment
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search: moments, best first, and the number of videos that were searched."""

    hits: tuple[Hit, ...]
    searched: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the preparation of videos is: a share in [0, 1], and the number of videos that are done."""

    share: float
    done: int


class Collection(Protocol):
    """A collection of videos. All methods may be called from several threads."""

    @property
    def calibrated(self) -> bool:
        """Whether moments have a confidence."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the model, for the user."""
        ...

    def videos(self) -> Mapping[str, WebVideo]:
        """Return the videos by id, in the order in which they are shown."""
        ...

    def prepared(self, video: str) -> bool:
        """Return whether questions about a video are answered without extracting its features first."""
        ...

    def prepare(
        self, videos: Sequence[str], *, progress: Callable[[Progress], None], cancel: Cancel
    ) -> Mapping[str, str]:
        """Extract the features of videos, until they are cancelled.

        Returns:
            The reason for each video that has no features in the end, by id.

        Raises:
            StoppedError: they were cancelled. Videos that were done before stay prepared.
        """
        ...

    def locate(self, video: str, query: str) -> Located | None:
        """Return the answer to a query about a video, or None if the video is not prepared.

        Raises:
            MesmError: the query is invalid.
        """
        ...

    def search(self, query: str, *, top: int) -> Found:
        """Return the ``top`` moments of the prepared videos.

        Raises:
            MesmError: the query is invalid; AwayError: the index or its engine cannot be reached.
        """
        ...

    def add(self, path: Path, name: str) -> WebVideo:
        """Add an uploaded video."""
        ...

    def close(self) -> None:
        """End the processes of the collection."""
        ...
