"""The spread of a metric over several runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A metric of several runs.

    ``mean``, ``sd``: mean and standard deviation (of a sample, so None for one run) of the known values; ``values``:
    one for each run, None where the run has none.
    """

    mean: float
    sd: float | None
    values: tuple[float | None, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the spread as JSON-compatible values."""
        return {"mean": self.mean, "sd": self.sd, "values": list(self.values)}


def spreads(briefs: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    """Return the spread of each metric for which a run has a value.

    Args:
        briefs: the summary of each run.

    >>> spreads([{"mIoU": 50.0, "mAP": None}, {"mIoU": 52.0, "mAP": None}])
    {'mIoU': Spread(mean=51.0, sd=1.4142135623730951, values=(50.0, 52.0))}
    """
    found = {}
    for key in dict.fromkeys(key for brief in briefs for key in brief):
        values = tuple(brief.get(key) for brief in briefs)
        known = [value for value in values if value is not None]
        if known:
            found[key] = Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, values)
    return found
