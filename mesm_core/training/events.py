"""What a training run tells its callers, as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesm_core.training.loop import Step


@dataclass(frozen=True)
class Started:
    """Data and model are ready; ``effective_batch``: groups a step, in all processes;
    ``fresh``: weights that a checkpoint to start from lacks or has in another shape."""

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


@dataclass(frozen=True)
class Warned:
    """Something is probably wrong, but the run goes on."""

    message: str


@dataclass(frozen=True)
class Busy:
    """``done`` of ``total`` videos, sentences or queries of ``what``, the work before and between epochs."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch's record, as written to metrics.jsonl; ``best`` where it is the best so far."""

    record: dict[str, Any]
    best: bool


@dataclass(frozen=True)
class Finished:
    """The run is over; ``stopped_early`` where patience ran out."""

    best_epoch: int | None
    best_score: float | None
    stopped_early: bool


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and has saved how far it is: ``step`` steps of ``epoch`` (from 1)."""

    epoch: int
    step: int


Event = Started | Warned | Busy | Step | EpochDone | Finished | Stopped
