"""How far a run is: all that resuming needs besides weights and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mesm_core.training.loop import Step


@dataclass
class Progress:
    """``epoch``: epochs done; ``step``, ``sums``, ``queries``, ``seconds``: of the one under way.

    ``best_score``, ``best_epoch``: the best evaluation so far; ``waiting``: evaluations since then.
    """

    epoch: int = 0
    step: int = 0
    queries: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int | None = None
    waiting: int = 0

    @classmethod
    def from_state(cls, epoch: int, state: Mapping[str, Any]) -> Progress:
        """Return the progress that ``state`` gave."""
        return cls(epoch=epoch, **{name: state[name] for name in cls.__dataclass_fields__ if name in state})

    def state(self) -> dict[str, Any]:
        """Return everything but the epoch, which the checkpoint has already."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "epoch"}

    def add(self, step: Step, seconds: float) -> None:
        """Count a step that is done."""
        for name, value in step.losses.items():
            before = self.sums.get(name)
            self.sums[name] = value if before is None else before.to(value.device) + value
        self.step = step.index + 1
        self.queries += step.queries
        self.seconds += seconds

    def finish_epoch(self, rate: float, sums: Mapping[str, float]) -> dict[str, Any]:
        """Return the epoch's record, and be at the beginning of the next.

        Args:
            rate: its learning rate; sums: its losses summed over the steps, of all processes.
        """
        self.epoch += 1
        record = {
            "epoch": self.epoch,
            "lr": rate,
            "losses": {name: value / self.step for name, value in sums.items()},
            "queries": self.queries,
            "seconds": round(self.seconds, 2),
            "queries_per_s": round(self.queries / max(self.seconds, 1e-9), 2),
        }
        self.step, self.queries, self.seconds, self.sums = 0, 0, 0.0, {}
        return record

    def judge(self, score: float) -> bool:
        """Return whether the score of the epoch just done is the best so far."""
        best = self.best_score is None or score > self.best_score
        if best:
            self.best_score, self.best_epoch, self.waiting = score, self.epoch, 0
        else:
            self.waiting += 1
        return best
