"""Events that a training run yields to its caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesm_core.confidence.calibration import Calibration
from mesm_core.metrics.report import percent
from mesm_core.training.loop import Step


@dataclass(frozen=True)
class Started:
    """Data and model are ready.

    ``effective_batch``: groups per step, over all processes; ``fresh``: names of weights that the initial checkpoint
    lacks or has in another shape.
    """

    queries: int
    videos: int
    parameters: int
    first_epoch: int
    first_step: int
    epochs: int
    effective_batch: int
    skipped: list[str]
    repairs: dict[str, dict[str, int]]
    fresh: list[str]


class StopRequestedError(Exception):
    """Ends an evaluation because the run was asked to stop."""


@dataclass(frozen=True)
class Warned:
    """Something is probably wrong, but the run continues."""

    message: str


@dataclass(frozen=True)
class Busy:
    """Progress of work outside the epochs: ``done`` of ``total`` items of the task ``what``."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class EpochDone:
    """The record of an epoch, as written to metrics.jsonl; ``best``: whether it is the best so far."""

    record: dict[str, Any]
    best: bool


@dataclass(frozen=True)
class Calibrated:
    """The best checkpoint has a calibration, or has none and ``reason`` says why."""

    calibration: Calibration | None
    reason: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        """The main figures in %, for the record of the run; or the reason why there are none."""
        if self.calibration is None:
            return {"reason": self.reason}
        report = self.calibration.report
        figures = {f"AUROC {kind}": report[kind]["auroc"] for kind in ("in_domain", "out_of_domain")}
        figures |= {f"ECE {what}": report[what]["ece"] for what in ("answers", "moments", "first")}
        return {"data": self.calibration.data} | {name: percent(value) for name, value in figures.items()}


@dataclass(frozen=True)
class Finished:
    """The run has finished; ``stopped_early``: whether patience ran out."""

    best_epoch: int | None
    best_score: float | None
    stopped_early: bool


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and has saved its progress: ``step`` steps of ``epoch`` (from 1)."""

    epoch: int
    step: int


Event = Started | Warned | Busy | Step | EpochDone | Calibrated | Finished | Stopped
