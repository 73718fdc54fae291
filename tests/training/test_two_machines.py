"""Training on two machines: two torchrun agents, each with a folder of runs that the other does not use."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from mesm_core.build import Paths
from mesm_core.checkpoint import load_checkpoint
from tests.conftest import SMALL, invent

RUN = "tacos-default"
SETTINGS = ("train.batch_size=2", "train.lr=1e-3", "train.loggers=[]")


class Machines:
    """Two agents of torchrun with one process each."""

    def __init__(self, folder: Path, paths: Paths) -> None:
        self.folder, self.paths = folder, paths
        self.agents: list[subprocess.Popen[str]] = []

    def words(self, runs: Path, epochs: int) -> list[str]:
        settings = [word for each in (*SMALL, *SETTINGS, f"train.epochs={epochs}") for word in ("--set", each)]
        data = ["--data-dir", str(self.folder / "data"), "--glove", str(self.paths.text)]
        return ["train", "--dataset", "tacos", "--device", "cpu", *data, "--runs-dir", str(runs), *settings]

    def start(self, words: Sequence[Sequence[str]]) -> None:
        """Start an agent for each machine, with its words."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, own in enumerate(words):
            launcher = ["--nnodes", "2", "--node-rank", str(rank), "--rdzv-endpoint", f"127.0.0.1:{port}"]
            self.agents.append(torchrun([*launcher, "--nproc-per-node", "1", "-m", "mesm_cli.app", *own]))

    def metrics(self) -> list[str]:
        path = self.folder / "machine0" / RUN / "metrics.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        """Kill what still runs; processes whose agent is dead end by themselves."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
            agent.communicate()


def torchrun(words: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    found = Machines(tmp_path, invent(tmp_path / "data", train=13, val=26, test=3))
    yield found
    found.end()


@pytest.mark.slow
def test_two_machines_train_as_two_processes_on_one_and_one_of_them_writes(machines: Machines, tmp_path: Path) -> None:
    machines.start([machines.words(tmp_path / f"machine{rank}", 3) for rank in (0, 1)])
    first, second = (agent.communicate(timeout=120)[0] for agent in machines.agents)
    assert [agent.returncode for agent in machines.agents] == [0, 0], first + second
    assert "2 processes × 1 batches × 2" in first
    assert "Best: epoch" in first
    assert "Best" not in second
    assert not (tmp_path / "machine1").exists()
    together = ["--standalone", "--nproc-per-node", "2", "-m", "mesm_cli.app", *machines.words(tmp_path / "one", 3)]
    alone = torchrun(together)
    assert alone.wait(timeout=120) == 0, alone.communicate()[0]
    a, b = (load_checkpoint(tmp_path / name / RUN / "last.pt") for name in ("machine0", "one"))
    assert all(torch.equal(value, b.model[name]) for name, value in a.model.items())
    best = load_checkpoint(tmp_path / "machine0" / RUN / "best.pt")
    assert best.calibration["model"]
    assert best.calibration == load_checkpoint(tmp_path / "one" / RUN / "best.pt").calibration
    alone.communicate()


@pytest.mark.slow
def test_a_run_is_resumed_from_the_state_of_the_first_machine(machines: Machines, tmp_path: Path) -> None:
    folders = [tmp_path / f"machine{rank}" / RUN for rank in (0, 1)]
    machines.start([machines.words(tmp_path / f"machine{rank}", 1) for rank in (0, 1)])
    assert all(agent.wait(timeout=120) == 0 for agent in machines.agents)
    shutil.copytree(folders[0], folders[1])
    copy = {path: path.read_bytes() for path in folders[1].iterdir() if path.is_file()}
    machines.end()
    machines.agents.clear()
    machines.start([["train", "--resume", str(each), "--device", "cpu", "--set", "train.epochs=2"] for each in folders])
    output = [agent.communicate(timeout=120)[0] for agent in machines.agents]
    assert [agent.returncode for agent in machines.agents] == [0, 0], output
    assert load_checkpoint(folders[0] / "last.pt").epoch == 2
    assert copy == {path: path.read_bytes() for path in folders[1].iterdir() if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_agent_ends_the_training_on_the_other_machine(machines: Machines, tmp_path: Path, lost: int) -> None:
    machines.start([machines.words(tmp_path / f"machine{rank}", 3000) for rank in (0, 1)])
    while len(machines.metrics()) < 3:
        assert all(agent.poll() is None for agent in machines.agents)
        time.sleep(0.05)
    machines.agents[lost].send_signal(signal.SIGKILL)
    output = machines.agents[1 - lost].communicate(timeout=30)[0]
    assert machines.agents[1 - lost].returncode not in (0, None)
    ended = "Another process of this training has ended" in output
    assert ended or "Stopped in epoch" in output or (lost == 0 and "FAILED" in output), output
    assert "fault in mesm" not in output
