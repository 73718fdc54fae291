"""What each process of a team does in the tests of teams."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mesm_core.build import Paths
from mesm_core.config.schema import Config
from mesm_core.errors import MesmError
from mesm_core.processes import join_team, leave_team
from mesm_core.training.finite import FiniteWatch
from mesm_core.training.loop import Step
from mesm_core.training.run import Run
from mesm_core.types import Batch
from tests.forked import Forked

CPU = torch.device("cpu")
Member = Callable[[Config, Paths, Path], None]


def run_team(member: Member, config: Config, paths: Paths, folder: Path) -> None:
    """Call a function in two processes with torchrun's environment, and wait for both."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    team = [Forked(member, config, paths, folder, RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in (0, 1)]
    for process in team:
        ended = process.end()
        assert ended.code == 0, ended.err


def stopped_and_resumed(config: Config, paths: Paths, folder: Path) -> None:
    """Train in ``whole``; train in ``stopped`` with a stop that one process asks for, and resume."""
    team, device = join_team(CPU)
    for name, resume, end in (("whole", False, None), ("stopped", False, (1, 1)), ("stopped", True, None)):
        run = Run.open(config, paths, folder / name, device=device, resume=resume, team=team)
        for event in run.train():
            # One process hears of it: both must end, at the same step.
            if isinstance(event, Step) and team.rank == 1 and (event.epoch, event.index) == end:
                run.ask_to_stop()
        if end and team.is_main:
            (folder / "early").mkdir()
            (folder / "early" / "last.pt").write_bytes((run.directory / "last.pt").read_bytes())
        team.any(False)
    del run
    leave_team()
    assert_no_thread_of_the_group_is_left()


def not_finite_in_one(config: Config, paths: Paths, folder: Path) -> None:
    """Train with a batch of one process NaN; each process writes the error that ends it."""
    team, device = join_team(CPU)
    watch = FiniteWatch(device, team=team, late=True)
    run = Run.open(config, paths, folder, device=device, team=team, watch=watch)
    real = run.train_data.train_batch

    def train_batch(groups: Any, *, seed: int, epoch: int, index: int) -> Batch:
        batch = real(groups, seed=seed, epoch=epoch, index=index)
        if index != 3:  # the second step's of the second process
            return batch
        return replace(batch, inputs=replace(batch.inputs, video=batch.inputs.video * math.nan))

    run.train_data.train_batch = train_batch  # type: ignore[method-assign]
    try:
        for _ in run.train():
            pass
    except MesmError as error:
        (folder / f"told.{team.rank}").write_text(error.message)
    del run
    leave_team()


def assert_no_thread_of_the_group_is_left() -> None:
    """A thread of the group that outlives it may abort the process when the interpreter ends."""
    if sys.platform == "linux":
        assert not [task for task in Path("/proc/self/task").iterdir() if "gloo" in (task / "comm").read_text()]
