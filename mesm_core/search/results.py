"""Results of a search: moments in the videos of an index."""

from __future__ import annotations

from dataclasses import dataclass

from mesm_core.search.manifest import IndexedVideo


@dataclass(frozen=True, slots=True)
class Found:
    """A moment in one of the videos.

    ``start``, ``end``: seconds; ``similarity``: of the query and the best segment of the span that led to the moment;
    ``score``: of the moment model, None in stage one; ``confidence``: P(IoU with the described moment >= 0.5), or None
    if the model has no calibration.
    """

    video: IndexedVideo
    start: float
    end: float
    similarity: float
    score: float | None = None
    confidence: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return the moment as JSON-able values."""
        video = {"id": self.video.id, "video": str(self.video.path), "name": self.video.name}
        numbers = {"start": self.start, "end": self.end, "similarity": self.similarity}
        return video | numbers | {"score": self.score, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Results:
    """The moments that were found for a query, best first.

    ``rejected``: the moment of highest confidence, if none has the minimum that was asked for; ``warnings``: about the
    query, for the user.
    """

    query: str
    found: tuple[Found, ...]
    rejected: Found | None = None
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the results as JSON-able values."""
        return {
            "query": self.query,
            "moments": [found.as_json() for found in self.found],
            "rejected": None if self.rejected is None else self.rejected.as_json(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Example:
    """A moment to find similar ones to: ``video``: id; ``start``, ``end``: seconds."""

    video: str
    start: float
    end: float
