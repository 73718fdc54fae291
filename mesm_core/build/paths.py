"""Where a run's data lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict


@dataclass(frozen=True)
class Paths:
    """Where a run's data lies; ``text``: the text encoder's file (GloVe text, vocabulary, or CLIP weights)."""

    annotations: Path
    features: tuple[Path, ...]
    text: Path

    def as_json(self) -> dict[str, Any]:
        """Return the paths, absolute, as strings."""
        return {
            "annotations": str(self.annotations.resolve()),
            "features": [str(path.resolve()) for path in self.features],
            "text": str(self.text.resolve()),
        }


class GivenPaths(TypedDict):
    """Paths that are given over those of the data folder; None or empty for those that are not."""

    annotations: Path | None
    features: Sequence[Path]
    text: Path | None
