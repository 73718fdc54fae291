"""Invented answers with known chances, for tests of calibrations."""

from __future__ import annotations

import numpy as np

from mesm_core.confidence.calibration import Calibration, fit_calibration
from mesm_core.confidence.quantities import NAMES
from mesm_core.confidence.samples import IN_DOMAIN, OUT_OF_DOMAIN, REAL, Sample, Samples

SLOTS = 4


def made_samples(seed: int, *, real: int = 200, negatives: int = 200) -> Samples:
    """Return answers in which every quantity is higher where there is an answer, and where a moment is right."""
    rng = np.random.default_rng(seed)
    kinds = [REAL] * real + [IN_DOMAIN] * negatives + [OUT_OF_DOMAIN] * negatives
    return Samples([_made(kind, rng) for kind in kinds])


def _made(kind: str, rng: np.random.Generator) -> Sample:
    right = (rng.random(SLOTS) < 0.5) & (kind == REAL)
    shift = {REAL: 1.5, IN_DOMAIN: 0.5, OUT_OF_DOMAIN: -0.5}[kind]
    quantities = rng.normal(size=(SLOTS, len(NAMES))) + shift + right[:, None]
    return Sample(kind, quantities, np.where(right, 0.8, 0.2) * (kind == REAL))


def made_calibration(seed: int = 0, *, model: str = "abc") -> Calibration:
    """Return a calibration fitted on invented answers."""
    return fit_calibration(made_samples(seed), made_samples(seed + 1), model=model, data="invented val")
