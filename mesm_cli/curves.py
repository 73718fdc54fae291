"""Curves and bars as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def sparkline(values: Sequence[float] | np.ndarray, width: int, *, unicode: bool = True) -> str:
    """Return a curve of ``width`` characters, from its lowest to its highest value.

    >>> sparkline([0.0, 1.0], 4)
    '▁▁██'
    """
    import numpy as np  # imported here, so that ``mesm --help`` does not load it

    at = np.minimum((np.arange(width) * len(values)) // width, len(values) - 1)
    sampled = np.asarray(values, float)[at]
    low, spread = sampled.min(), max(float(np.ptp(sampled)), 1e-9)
    levels = np.minimum((sampled - low) / spread * len(BLOCKS), len(BLOCKS) - 1).astype(int)
    characters = BLOCKS if unicode else LETTERS
    return "".join(characters[level] for level in levels)


def span_bar(start: float, end: float, duration: float, width: int, *, unicode: bool = True) -> str:
    """Return a line of ``width`` characters for ``duration`` seconds, filled between two times.

    >>> span_bar(2.0, 4.0, 8.0, 8, unicode=False)
    '..##....'
    """
    first = min(int(start / duration * width), width - 1)
    last = max(min(round(end / duration * width), width), first + 1)
    full, empty = ("█", "·") if unicode else ("#", ".")
    return empty * first + full * (last - first) + empty * (width - last)
