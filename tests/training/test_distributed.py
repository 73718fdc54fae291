"""Two processes and one that does their work end with the same weights and the same evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.errors import DeviceError
from mesm_core.processes import LostProcessError, Team, join_team, launch, losses_explained
from mesm_core.training.directory import read_records
from mesm_core.training.events import Warned
from mesm_core.training.loop import _share
from mesm_core.training.run import Run
from tests.conftest import SMALL, Trained, invent, small_config

CPU = torch.device("cpu")

# 13 groups in batches of 2 make 7 batches an epoch: two processes have an odd one left over.
SETTINGS = ("train.batch_size=2", "train.epochs=3", "train.lr=1e-3", "train.loggers=[]")


def command(root: Path, glove: Path, runs: Path, *more: str) -> list[str]:
    settings = [word for setting in (*SMALL, *SETTINGS, *more) for word in ("--set", setting)]
    words = ["train", "--dataset", "tacos", "--device", "cpu", "--data-dir", str(root), "--glove", str(glove)]
    return [*words, "--runs-dir", str(runs), *settings]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240
    )


def test_two_processes_end_as_one_with_their_batches(mesm, tmp_path: Path) -> None:
    paths = invent(tmp_path / "data", train=13, val=5, test=3)
    root = tmp_path / "data"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = run([*launcher, "-m", "mesm_cli.app", *command(root, paths.text, tmp_path / "two")])
    assert two.returncode == 0, two.stderr
    assert "2 processes × 1 batches × 2" in two.stdout
    assert two.stdout.count("Best: epoch") == 1
    one = mesm(*command(root, paths.text, tmp_path / "one", "train.accumulate=2"))
    assert one.code == 0, one.err
    a, b = (load_checkpoint(tmp_path / name / "tacos-default" / "last.pt") for name in ("one", "two"))
    assert a.epoch == b.epoch == 3  # 4 steps each
    for name, value in a.model.items():
        assert torch.allclose(value, b.model[name], atol=1e-4), name
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name / "tacos-default" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for alone, shared in zip(ours, theirs, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        assert shared["eval"]["val"] == pytest.approx(alone["eval"]["val"], abs=1e-4)


TEAM = """
import json, sys
from pathlib import Path
import torch
from mesm_core.build import Paths
from mesm_core.config.schema import Config
from mesm_core.processes import join_team, leave_team
from mesm_core.training.loop import Step
from mesm_core.training.run import Run

given = json.loads(sys.argv[1])
config = Config.model_validate(given["config"])
paths = Paths(Path(given["annotations"]), tuple(map(Path, given["features"])), Path(given["text"]))
team, device = join_team(torch.device("cpu"))
for folder, resume, end in (("whole", False, None), ("stopped", False, (1, 1)), ("stopped", True, None)):
    run = Run.open(config, paths, Path(given["folder"]) / folder, device=device, resume=resume, team=team)
    for event in run.train():
        # One process hears of it: both must end, at the same step.
        if isinstance(event, Step) and team.rank == 1 and (event.epoch, event.index) == end:
            run.ask_to_stop()
    if end and team.is_main:
        (Path(given["folder"]) / "early").mkdir()
        (Path(given["folder"]) / "early/last.pt").write_bytes((run.directory / "last.pt").read_bytes())
    team.any(False)
del run
leave_team()
if sys.platform == "linux":
    # A thread of the group that outlives it may abort the process when the interpreter ends.
    assert not [task for task in Path("/proc/self/task").iterdir() if "gloo" in (task / "comm").read_text()]
"""


def test_two_processes_stopped_in_an_epoch_resume_as_if_uninterrupted(tmp_path: Path) -> None:
    paths = invent(tmp_path / "data", train=13, val=5, test=3)
    config = small_config(*SETTINGS)
    (tmp_path / "team.py").write_text(TEAM, encoding="utf-8")
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    given = {**paths.as_json(), "config": config.model_dump(mode="json"), "folder": str(tmp_path)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = run([*launcher, str(tmp_path / "team.py"), json.dumps(given)])
    assert ended.returncode == 0, ended.stderr
    stopped, whole = (load_checkpoint(tmp_path / name / "last.pt") for name in ("stopped", "whole"))
    assert all(torch.equal(value, stopped.model[name]) for name, value in whole.model.items())
    ours, theirs = (read_records(tmp_path / name) for name in ("stopped", "whole"))
    assert [record["losses"] for record in ours] == [record["losses"] for record in theirs]
    assert [record["eval"] for record in ours] == [record["eval"] for record in theirs]
    data = Run.open(config, paths, tmp_path, device=CPU).train_data
    plans = [data.plan(seed=config.train.seed, epoch=epoch, batch_size=config.train.batch_size) for epoch in range(3)]
    queries = [sum(len(group) for batch in plan for group in batch) for plan in plans]
    assert [record["queries"] for record in ours] == queries

    # Two steps of two processes are four batches: one process goes on at the fifth, and says that it is alone.
    alone = Run.open(config, paths, tmp_path / "early", device=CPU, resume=True)
    assert (alone.progress.epoch, alone.progress.step) == (1, 4)
    warned = [event.message for event in alone.train() if isinstance(event, Warned)]
    assert "A step took 2 batches in 2 processes, now 1 in 1" in warned[0]
    record = read_records(tmp_path / "early")[-2]
    assert record["queries"] == theirs[1]["queries"]
    assert record["losses"]["loss"] == pytest.approx(theirs[1]["losses"]["loss"], rel=0.2)


def test_shares_of_a_step() -> None:
    for world in (1, 2, 3, 4):
        for count in range(1, 9):
            shares = [_share(range(10, 10 + count), Team(rank, world)) for rank in range(world)]
            assert len({len(share) for share in shares}) == 1
            weights = dict.fromkeys(range(10, 10 + count), 0.0)
            for share in shares:
                for index, weight in share:
                    weights[index] += weight / world
            assert all(weight == pytest.approx(1 / count) for weight in weights.values())


def test_gpus_that_are_not_there(mesm, trained: Trained, tmp_path: Path) -> None:
    result = mesm(*command(trained.root, trained.paths.text, tmp_path), "--gpus", "64")
    assert result.code == 2
    assert "--gpus 64: this machine has" in result.err


def test_a_mistake_is_printed_once_and_decides_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch("mesm_cli.app", ["train", "--dataset", "nothing"], processes=2) == 2
    assert capfd.readouterr().err.count("Error:") == 1


def test_more_processes_than_gpus_are_a_mistake_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=r"2 processes, but this machine has 1 GPU\(s\)"):
        join_team(torch.device("cuda"))


def test_the_loss_of_another_process_is_no_fault_of_mesm() -> None:
    with pytest.raises(LostProcessError, match="Another process of this training has ended"), losses_explained():
        raise RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer")
    with pytest.raises(RuntimeError, match="shapes"), losses_explained():
        raise RuntimeError("shapes do not match")


def test_a_process_ends_with_the_launcher_that_started_it() -> None:
    child = "import os, time; from mesm_core import processes; processes.PARENT_SECONDS = 0.01; "
    child += "parent = os.getppid(); print(os.getpid(), flush=True); processes._end_with_launcher(parent)"
    launcher = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", launcher], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.kill()
        assert process.stdout.read() == ""  # the pipe is closed when the child has ended, too
