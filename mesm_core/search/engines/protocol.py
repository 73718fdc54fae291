"""The interface of engines: stores of segment vectors that find those most similar to a query."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mesm_core.search.manifest import State
from mesm_core.search.segments import Segments


@dataclass(frozen=True, slots=True)
class SegmentHit:
    """A segment that a query found: ``video``: id; ``start``, ``end``: seconds; ``similarity``: the cosine."""

    video: str
    start: float
    end: float
    similarity: float


class Engine(Protocol):
    """Stores the segments of videos under the ids of the videos.

    An engine is opened with a state and shows the segments of that state. Changes are prepared by ``add`` and
    ``remove``; ``save`` makes them durable and returns the next state, which takes effect when the manifest names it;
    ``clean`` then removes what only earlier states needed.

    Args:
        folder: of the index; state: from ``start`` or ``save``; width: of the vectors.
    """

    def __init__(self, folder: Path, state: State, *, width: int) -> None: ...

    @staticmethod
    def start(uri: str | None) -> State:
        """Return the state of a new engine without segments.

        Args:
            uri: where its data are; None for an engine that keeps them in the index.

        Raises:
            ConfigError: its package is not installed, or the URI does not fit.
        """
        ...

    def query(self, vector: np.ndarray, top: int, videos: Collection[str] | None = None) -> list[SegmentHit]:
        """Return the ``top`` segments with the largest products with a (D,) float32 vector, best first.

        Args:
            videos: only segments of these videos; None for all.
        """
        ...

    def counts(self) -> Mapping[str, int]:
        """Return the number of stored segments of each video."""
        ...

    def vectors(self) -> Iterator[tuple[str, Segments]]:
        """Yield the segments of each video."""
        ...

    def add(self, video: str, segments: Segments) -> None:
        """Prepare to store the segments of a video that has none."""
        ...

    def remove(self, videos: Collection[str]) -> None:
        """Prepare to remove the segments of videos."""
        ...

    def save(self) -> State:
        """Make the changes durable, and return the state that contains them."""
        ...

    def clean(self, videos: Mapping[str, int]) -> None:
        """Remove data that does not belong to the present state.

        Args:
            videos: the number of segments of every video of the index.
        """
        ...

    def check(self) -> list[str]:
        """Return the damage of the stored data, read completely; empty if there is none."""
        ...

    def size(self) -> int:
        """Return the size of the stored data in bytes, or 0 if it is unknown."""
        ...

    def destroy(self) -> None:
        """Remove all data."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
