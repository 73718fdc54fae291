"""Two processes and one that does their work end with the same weights and the same evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mesm_core.training.checkpoint import load_checkpoint
from mesm_core.training.distributed import Team
from mesm_core.training.loop import _share
from tests.conftest import SMALL, Trained, invent

# 13 groups in batches of 2 make 7 batches an epoch: two processes have an odd one left over.
SETTINGS = ("train.batch_size=2", "train.epochs=5", "train.lr=1e-3", "train.loggers=[]")


def command(root: Path, glove: Path, runs: Path, *more: str) -> list[str]:
    settings = [word for setting in (*SMALL, *SETTINGS, *more) for word in ("--set", setting)]
    words = ["train", "--dataset", "tacos", "--device", "cpu", "--data-dir", str(root), "--glove", str(glove)]
    return [*words, "--runs-dir", str(runs), *settings]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240
    )


def test_two_processes_end_as_one_with_their_batches(tmp_path: Path) -> None:
    paths = invent(tmp_path / "data", train=13, val=5, test=3)
    root = tmp_path / "data"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = run([*launcher, "-m", "mesm_cli.app", *command(root, paths.text, tmp_path / "two")])
    assert two.returncode == 0, two.stderr
    assert "2 processes × 1 batches × 2" in two.stdout
    assert two.stdout.count("Best: epoch") == 1
    one = run(
        [sys.executable, "-m", "mesm_cli.app", *command(root, paths.text, tmp_path / "one", "train.accumulate=2")]
    )
    assert one.returncode == 0, one.stderr
    a, b = (load_checkpoint(tmp_path / name / "tacos-default" / "last.pt") for name in ("one", "two"))
    assert a.epoch == b.epoch == 5  # 4 steps each
    for name, value in a.model.items():
        assert torch.allclose(value, b.model[name], atol=1e-4), name
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name / "tacos-default" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for alone, shared in zip(ours, theirs, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        assert shared["eval"]["val"] == pytest.approx(alone["eval"]["val"], abs=1e-4)


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


def test_a_failing_process_decides_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    from mesm_core.training.distributed import launch

    assert launch("mesm_cli.app", ["config", "show", "--dataset", "nothing"], processes=2) == 2
    assert "nothing" in capfd.readouterr().err
