"""A loss or gradient that is not finite ends a run before anything is kept of it, however late it is learnt of."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.errors import MesmError
from mesm_core.processes import Team
from mesm_core.training.directory import read_records
from mesm_core.training.events import Event
from mesm_core.training.finite import FiniteWatch, NotFiniteError
from mesm_core.training.loop import Step, train_epoch
from mesm_core.training.objective import Objective
from mesm_core.training.run import Run
from mesm_core.types import Batch
from tests.conftest import Trained, invent, small_config

CPU = torch.device("cpu")
LATE_OR_NOT = pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])


def make_run(trained: Trained, folder: Path, *overrides: str, late: bool = True) -> Run:
    config = small_config("train.loggers=[]", "train.epochs=2", *overrides)
    return Run.open(config, trained.paths, folder, device=CPU, watch=FiniteWatch(CPU, late=late))


def poison(run: Run, step: int) -> list[str]:
    """Make the features of a step's batch, in every epoch, NaN; return where its videos will be listed."""
    real, vids = run.train_data.train_batch, []

    def train_batch(groups: Any, **asked: Any) -> Batch:
        batch = real(groups, **asked)
        if asked["index"] != step:
            return batch
        vids.extend(query.vid for query in batch.queries)
        return replace(batch, inputs=replace(batch.inputs, video=batch.inputs.video * math.nan))

    run.train_data.train_batch = train_batch  # type: ignore[method-assign]
    return vids


def break_gradient(run: Run, step: int) -> None:
    """Make the gradient of one weight infinite in a step; the losses stay finite."""
    calls = iter(range(10_000))
    run.model.class_head.weight.register_hook(lambda grad: grad * math.inf if next(calls) == step else grad)


def until_it_ends(run: Run, *, stop_at: int | None = None) -> tuple[MesmError, list[Event]]:
    """Return the error that ends a run, and its events; ask it to stop after a step."""
    events: list[Event] = []
    with pytest.raises(MesmError) as caught:
        for event in run.train():
            events.append(event)
            if isinstance(event, Step) and event.index == stop_at:
                run.ask_to_stop()
    return caught.value, events


def assert_finite(folder: Path) -> None:
    found = list(folder.glob("*.pt"))
    assert found
    for path in found:
        checkpoint = load_checkpoint(path)
        assert all(torch.isfinite(value).all() for value in checkpoint.model.values()), path
        sums = [value for share in checkpoint.training.get("shares", ()) for value in share["sums"].values()]
        assert all(torch.isfinite(value).all() for value in sums), path


@LATE_OR_NOT
@pytest.mark.parametrize(
    ("setting", "stop"),
    [("train.save_minutes=0", True), ("train.save_minutes=1e-9", False), ("train.save_minutes=0", False)],
    ids=["a stop", "a timed save", "an evaluation"],
)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nothing_is_kept_of_a_step_that_is_not_finite(
    trained: Trained, tmp_path: Path, late: bool, setting: str, stop: bool, what: str
) -> None:
    run = make_run(trained, tmp_path, setting, late=late)
    last = len(run.train_data.plan(seed=run.config.train.seed, epoch=0, batch_size=4)) - 1
    if what == "loss":
        vids = poison(run, last)
    else:
        break_gradient(run, last)
    error, events = until_it_ends(run, stop_at=last if stop else None)
    steps = [event for event in events if isinstance(event, Step)]
    assert len(steps) == last + late
    assert all(torch.isfinite(value) for step in steps for value in step.checked.values())
    assert not read_records(tmp_path)  # not evaluated
    assert_finite(tmp_path)
    assert f"epoch 1, step {last + 1} (videos train-" in error.message
    told = json.loads((tmp_path / "not-finite.json").read_text())
    if what == "loss":
        assert "The loss is nan" in error.message
        assert set(told["videos"]) == set(vids)
    else:
        assert "The loss is finite, but the norm of its gradient is" in error.message
    assert all(vid in error.message for vid in told["videos"])


@pytest.mark.parametrize("grad_clip", [0.1, 0, -1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_not_stepped_with(
    trained: Trained, tmp_path: Path, grad_clip: float, value: float
) -> None:
    run = make_run(trained, tmp_path, f"train.grad_clip={grad_clip}", late=False)
    run.model.class_head.weight.register_hook(lambda grad: grad * value)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    error, _ = until_it_ends(run)
    assert "The loss is finite, but the norm of its gradient is nan" in error.message.replace("inf", "nan")
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize("grad_clip", [0.0, -1.0])
def test_without_clipping_gradients_are_as_they_are(trained: Trained, tmp_path: Path, grad_clip: float) -> None:
    """The norm is taken all the same, by clipping at infinity, which must change nothing."""
    run = make_run(trained, tmp_path)
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.0)
    seen = []
    run.model.class_head.weight.register_hook(lambda grad: seen.append(grad.clone()))
    next(
        train_epoch(
            Objective(run.model, run.criterion), optimizer, run.train_data,
            epoch=0, seed=0, batch_size=4, grad_clip=grad_clip, device=CPU,
        )
    )  # fmt: skip
    assert run.model.class_head.weight.grad is not None
    assert torch.equal(run.model.class_head.weight.grad, seen[0])


def test_several_windows_that_are_nan_name_the_videos(trained: Trained, tmp_path: Path) -> None:
    run = make_run(trained, tmp_path, "dataset.max_windows=3", late=False)
    for query in run.train_data.queries:
        object.__setattr__(query, "windows", ((0.0, 2.0), (3.0, 5.0), (6.0, 9.0)))
    vids = poison(run, 1)
    error, _ = until_it_ends(run)
    assert "The loss is nan" in error.message
    assert vids[0] in error.message


def test_only_videos_that_are_to_blame_are_named(trained: Trained, tmp_path: Path) -> None:
    run = make_run(trained, tmp_path)
    batch = run.train_data.train_batch(run.train_data.plan(seed=0, epoch=0, batch_size=4)[0], seed=0, epoch=0, index=0)
    output = run.model(batch.inputs, batch.targets)
    bad = batch.queries[2].vid
    row = torch.tensor([query.vid == bad for query in batch.queries])
    broken = replace(output, saliency=output.saliency.masked_fill(row[:, None], math.inf))
    watch = FiniteWatch(CPU)
    watch.add(torch.tensor(1.0), batch, output)
    watch.add(torch.tensor(math.nan), batch, broken)
    with pytest.raises(NotFiniteError) as caught:
        watch.check(torch.tensor(math.nan), epoch=0, step=0)
    assert caught.value.vids == [bad]
    assert len(caught.value.queries) == len(batch.queries)


class Pair(Team):
    """Two processes of which the other one has told its faults already."""

    def __init__(self, others: Sequence[Any]) -> None:
        super().__init__(rank=0, world=2)
        object.__setattr__(self, "others", list(others))

    def any(self, flag: bool) -> bool:
        return flag or bool(self.others)  # type: ignore[attr-defined]

    def gather(self, mine: list[Any]) -> list[list[Any]]:
        return [mine, self.others]  # type: ignore[attr-defined]


def test_a_process_names_the_videos_of_the_one_at_fault(trained: Trained, tmp_path: Path) -> None:
    run = make_run(trained, tmp_path)
    plan = run.train_data.plan(seed=0, epoch=0, batch_size=4)
    mine, theirs = (run.train_data.train_batch(plan[n], seed=0, epoch=0, index=n) for n in (0, 1))
    with torch.no_grad():
        outputs = [run.model(batch.inputs, batch.targets) for batch in (mine, theirs)]
    alone = FiniteWatch(CPU, late=True)
    alone.add(torch.tensor(math.nan), theirs, outputs[1])
    alone.check(torch.tensor(math.nan), epoch=0, step=4)
    assert alone._pending is not None
    fault = alone._pending.fault()
    watch = FiniteWatch(CPU, team=Pair([fault]))
    watch.add(torch.tensor(1.0), mine, outputs[0])
    with pytest.raises(NotFiniteError, match="The loss is nan in epoch 1, step 5") as caught:
        watch.check(torch.tensor(math.nan), epoch=0, step=4)
    assert caught.value.vids == list(dict.fromkeys(query.vid for query in theirs.queries))


TEAM = """
import json, math, sys
from dataclasses import replace
from pathlib import Path
import torch
from mesm_core.build import Paths
from mesm_core.config.schema import Config
from mesm_core.errors import MesmError
from mesm_core.processes import join_team, leave_team
from mesm_core.training.finite import FiniteWatch
from mesm_core.training.objective import Objective
from mesm_core.training.run import Run

given = json.loads(sys.argv[1])
config = Config.model_validate(given["config"])
paths = Paths(Path(given["annotations"]), tuple(map(Path, given["features"])), Path(given["text"]))
team, device = join_team(torch.device("cpu"))
watch = FiniteWatch(device, team=team, late=True)
run = Run.open(config, paths, Path(given["folder"]), device=device, team=team, watch=watch)
real = run.train_data.train_batch

def train_batch(groups, **asked):
    batch = real(groups, **asked)
    if asked["index"] != 3:  # the second step's of the second process
        return batch
    return replace(batch, inputs=replace(batch.inputs, video=batch.inputs.video * math.nan))

run.train_data.train_batch = train_batch
try:
    for _ in run.train():
        pass
except MesmError as error:
    (Path(given["folder"]) / f"told.{team.rank}").write_text(error.message)
del run
leave_team()
"""


def test_every_process_ends_where_one_is_not_finite(tmp_path: Path) -> None:
    paths = invent(tmp_path / "data", train=13, val=3, test=3)
    config = small_config("train.batch_size=2", "train.loggers=[]", "train.save_minutes=1e-9", "train.epochs=2")
    (tmp_path / "team.py").write_text(TEAM, encoding="utf-8")
    (tmp_path / "run").mkdir()
    given = {**paths.as_json(), "config": config.model_dump(mode="json"), "folder": str(tmp_path / "run")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*launcher, str(tmp_path / "team.py"), json.dumps(given)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told = [(tmp_path / "run" / f"told.{rank}").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert "The loss is nan in epoch 1, step 2 (videos train-" in told[0]
    assert json.loads((tmp_path / "run" / "not-finite.json").read_text())["videos"]
    assert_finite(tmp_path / "run")
