"""Answers with what is known about them: the data that a calibration is fitted on and tested with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mesm_core.confidence.quantities import NAMES
from mesm_core.metrics.moments import iou

REAL, IN_DOMAIN, OUT_OF_DOMAIN = "real", "in_domain", "out_of_domain"
KINDS = (REAL, IN_DOMAIN, OUT_OF_DOMAIN)
SHARES = {REAL: 0.5, IN_DOMAIN: 0.25, OUT_OF_DOMAIN: 0.25}
"""Weight of each kind of question. P(there is an answer) holds for questions of which half have an answer."""
RIGHT = 0.5
"""A moment is right if its IoU with a true window is at least this."""


@dataclass(frozen=True)
class Sample:
    """An answer of a known kind.

    ``quantities`` (N, 6): those of its moments; ``overlaps`` (N,): the IoU of each moment with the true window that it
    overlaps most, 0 for a negative.
    """

    kind: str
    quantities: np.ndarray
    overlaps: np.ndarray


class Samples:
    """The answers of one half of a split.

    Args:
        samples: answers; those without moments are left out, since they need no confidence.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = tuple(sample for sample in samples if len(sample.overlaps))

    @cached_property
    def first(self) -> np.ndarray:
        """The quantities (Q, 6) of the first moments."""
        rows = [sample.quantities[0] for sample in self.samples]
        return np.array(rows, np.float64).reshape(-1, len(NAMES))

    @cached_property
    def best_overlaps(self) -> np.ndarray:
        """The IoU (Q,) of the first moments, 0 for negatives."""
        return np.array([sample.overlaps[0] for sample in self.samples], np.float64)

    @cached_property
    def weights(self) -> np.ndarray:
        """The weight (Q,) of each answer, so that each kind has its share; the weights sum to 1 if no kind is empty."""
        return np.array([SHARES[sample.kind] / self.counts[sample.kind] for sample in self.samples])

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of answers of each kind."""
        return {kind: sum(sample.kind == kind for sample in self.samples) for kind in KINDS}

    def are(self, kind: str) -> np.ndarray:
        """Return (Q,) bool: which answers are of a kind."""
        return np.array([sample.kind == kind for sample in self.samples], np.bool_)


def overlaps_of(windows: np.ndarray, truth: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return (N,) the IoU of each moment (N, 3) with the true window that it overlaps most; 0 without true windows.

    >>> overlaps_of(np.array([[0.0, 4.0, 0.9]]), [(2.0, 4.0), (8.0, 9.0)]).tolist()
    [0.5]
    """
    if not truth:
        return np.zeros(len(windows))
    best: np.ndarray = iou(windows[:, None, :2], np.array(truth, np.float64)[None]).max(axis=1)
    return best
