"""Paths of a run's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict


@dataclass(frozen=True)
class Paths:
    """Paths of a run's data; ``text``: the text encoder's file (GloVe text, vocabulary or CLIP weights)."""

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
    """Paths that replace those of the data folder; None or empty if not given."""

    annotations: Path | None
    features: Sequence[Path]
    text: Path | None
