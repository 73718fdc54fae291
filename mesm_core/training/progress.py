"""Progress of a run: the state that resuming needs besides weights and optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mesm_core.processes import Team
from mesm_core.training.loop import Step

Share = Mapping[str, Any]
_COMMON = ("step", "seconds", "best_score", "best_epoch", "waiting")


@dataclass
class Progress:
    """Progress of a run.

    ``epoch``: completed epochs; ``step``, ``seconds``: steps and time of the current epoch, equal in all processes;
    ``sums``, ``queries``: sums of the losses and number of queries of the current epoch, in this process only;
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
    def from_state(cls, epoch: int, state: Mapping[str, Any], *, batches: int, team: Team) -> Progress:
        """Restore the progress that ``state`` returned.

        Args:
            batches: batches per step now, over all processes. If a step took another number before, the epoch
                continues at the step that contains the next batch.
        """
        progress = cls(epoch=epoch, **{name: state[name] for name in _COMMON})
        shares = state["shares"]
        if (len(shares), state["batches"]) == (team.world, batches):
            mine = shares[team.rank]
            progress.queries, progress.sums = mine["queries"], mine["sums"]
            return progress
        progress.step = state["step"] * state["batches"] // batches
        if team.is_main and progress.step:
            progress.queries = sum(share["queries"] for share in shares)
            scale = progress.step / state["step"]
            progress.sums = {name: value * scale for name, value in _summed(shares).items()}
        return progress

    def share(self) -> dict[str, Any]:
        """Return what this process counted in the current epoch."""
        return {"queries": self.queries, "sums": {name: value.cpu() for name, value in self.sums.items()}}

    def state(self, shares: Sequence[Share], *, batches: int) -> dict[str, Any]:
        """Return all but the epoch, which the checkpoint stores; ``shares``: the share of every process, by rank."""
        return {name: getattr(self, name) for name in _COMMON} | {"shares": list(shares), "batches": batches}

    def add(self, step: Step, seconds: float) -> None:
        """Add a completed step."""
        sums = torch.stack(list(step.losses.values()))
        if self.sums:
            sums = torch.stack([self.sums[name] for name in step.losses]).to(sums.device) + sums
        self.sums = dict(zip(step.losses, sums.unbind(), strict=True))
        self.step = step.index + 1
        self.queries += step.queries
        self.seconds += seconds

    def finish_epoch(self, rate: float, shares: Sequence[Share]) -> dict[str, Any]:
        """Return the record of the current epoch, and start the next one.

        Args:
            rate: learning rate of the epoch; shares: the share of every process.
        """
        self.epoch += 1
        queries = sum(share["queries"] for share in shares)
        record = {
            "epoch": self.epoch,
            "lr": rate,
            "losses": {name: float(value) / self.step for name, value in _summed(shares).items()},
            "queries": queries,
            "seconds": round(self.seconds, 2),
            "queries_per_s": round(queries / max(self.seconds, 1e-9), 2),
        }
        self.step, self.queries, self.seconds, self.sums = 0, 0, 0.0, {}
        return record

    def judge(self, score: float) -> bool:
        """Return whether the score of the last epoch is the best so far, and update ``waiting``."""
        best = self.best_score is None or score > self.best_score
        if best:
            self.best_score, self.best_epoch, self.waiting = score, self.epoch, 0
        else:
            self.waiting += 1
        return best


def _summed(shares: Sequence[Share]) -> dict[str, Tensor]:
    """Return the losses summed over the processes. A process has all their names, or none if it has done no step."""
    names = dict.fromkeys(name for share in shares for name in share["sums"])
    return {name: sum(share["sums"][name] for share in shares if share["sums"]) for name in names}
