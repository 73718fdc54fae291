"""Killed, stopped, cut in half, out of disk: a run goes on where it was, or ends with what it had."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.build import Paths
from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.schema import Config
from mesm_core.errors import CheckpointError, ConfigError, MesmError, OutputError
from mesm_core.training.directory import claimed, load_last, prepare_directory
from mesm_core.training.events import Finished, Stopped, Warned
from mesm_core.training.loop import Step
from mesm_core.training.run import Run
from mesm_core.training.start import Given, earlier_run
from tests.conftest import SMALL, Trained, small_config
from tests.training.results import figures, same, weights

CPU = torch.device("cpu")
# Saved at every step, and slow enough to be hit by a signal.
OFTEN = ("train.save_minutes=1e-9", "train.epochs=6", "train.loggers=[]")


HOLDER = """
import sys, time
from pathlib import Path
from mesm_core.training.directory import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def run_of(config: Config, paths: Paths, folder: Path, **more: Any) -> Run:
    return Run.open(config, paths, folder, device=CPU, **more)


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    list(run_of(small_config(*OFTEN), trained.paths, folder).train())
    return folder


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_stopped_after_any_step(trained: Trained, whole: Path, tmp_path: Path, after: int) -> None:
    config = small_config(*OFTEN)
    run = run_of(config, trained.paths, tmp_path)
    steps = 0
    for event in run.train():
        steps += isinstance(event, Step)
        if steps == after:
            run.ask_to_stop()
    assert isinstance(event, Stopped)
    events = list(run_of(config, trained.paths, tmp_path, resume=True).train())
    assert isinstance(events[-1], Finished)
    assert same(weights(tmp_path), weights(whole))
    assert same(weights(tmp_path, "best.pt"), weights(whole, "best.pt"))
    assert figures(tmp_path) == figures(whole)


def train_command(trained: Trained, runs: Path) -> list[str]:
    settings = [word for setting in (*SMALL, *OFTEN) for word in ("--set", setting)]
    data = ["--data-dir", str(trained.root), "--glove", str(trained.paths.text)]
    command = [sys.executable, "-m", "mesm_cli.app", "train", "--dataset", "tacos", "--runs-dir", str(runs)]
    return [*command, *data, *settings]


def resume_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "mesm_cli.app", "train", "--resume", str(folder)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def sessions(folder: Path) -> int:
    return len(json.loads((folder / "run.json").read_text())["sessions"]) if (folder / "run.json").exists() else 0


def wait_for_start(process: subprocess.Popen[bytes], folder: Path, before: int) -> None:
    while process.poll() is None and sessions(folder) <= before:
        time.sleep(0.005)


def killed_runs(trained: Trained, tmp_path: Path, whole: Path, times: int, longest: float) -> None:
    """Kill a run ``times`` times at random moments, resume it each time, and compare where it ends."""
    folder, draw = tmp_path / "tacos-default", random.Random(7)
    command, kills = train_command(trained, tmp_path), 0
    while kills < times:
        before = sessions(folder)
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_start(process, folder, before)
        try:
            _, told = process.communicate(timeout=draw.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        else:
            assert process.returncode == 0, told.decode()
            assert same(weights(folder), weights(whole))
            shutil.rmtree(folder)
            command = train_command(trained, tmp_path)
            continue
        kills += 1
        command = resume_command(folder)
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert same(weights(folder), weights(whole))
    assert same(weights(folder, "best.pt"), weights(whole, "best.pt"))
    assert figures(folder) == figures(whole)


def test_killed_and_resumed(trained: Trained, whole: Path, tmp_path: Path) -> None:
    killed_runs(trained, tmp_path, whole, times=2, longest=0.3)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(trained: Trained, whole: Path, tmp_path: Path) -> None:
    killed_runs(trained, tmp_path, whole, times=20, longest=0.5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_save_and_say_how_to_go_on(trained: Trained, tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "tacos-default"
    command = [*train_command(trained, tmp_path), "--set", "train.epochs=10000"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / "best.pt").exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"mesm train --resume {folder}" in out
    assert "Traceback" not in err
    assert json.loads((folder / "run.json").read_text())["sessions"][-1]["end"] == "interrupted"


def test_a_closed_terminal_loses_nothing(trained: Trained, tmp_path: Path) -> None:
    """What is written to a terminal that is gone is an error, which must not keep the run from saving."""
    folder = tmp_path / "tacos-default"
    command = [*train_command(trained, tmp_path), "--set", "train.epochs=10000", "--set", "train.save_minutes=0"]
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command, env=environment(), stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(its)
    while process.poll() is None and not (folder / "best.pt").exists():
        if select.select([ours], [], [], 0.01)[0]:
            os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(timeout=60) == 129
    assert json.loads((folder / "run.json").read_text())["sessions"][-1]["end"] == "interrupted"
    assert load_checkpoint(folder / "last.pt").epoch > 0


def test_a_damaged_checkpoint_falls_back_to_the_one_before(trained: Trained, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(content[: len(content) // 2])
    run = run_of(small_config(*OFTEN), trained.paths, folder, resume=True)
    events = list(run.train())
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert "Continuing from last.1.pt instead" in warned[0]
    assert same(weights(folder), weights(whole))
    assert figures(folder) == figures(whole)
    shutil.copy(folder / "best.pt", folder / "last.pt")
    assert load_last(folder)[1] == [
        f"{folder / 'last.pt'} has weights, but no state to resume training from. Continuing from last.1.pt instead."
    ]
    for path in folder.glob("last*.pt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last.pt(.|\n)*last.1.pt"):
        load_last(folder)
    with pytest.raises(CheckpointError, match="no run saved a checkpoint"):
        load_last(tmp_path)
    with pytest.raises(CheckpointError, match="There is no run"):
        load_last(tmp_path / "elsewhere")


def test_checkpoints_kept(trained: Trained, tmp_path: Path) -> None:
    list(run_of(small_config(*OFTEN, "train.keep=3"), trained.paths, tmp_path).train())
    assert sorted(path.name for path in tmp_path.glob("last*.pt")) == ["last.1.pt", "last.2.pt", "last.pt"]


def test_a_folder_in_use_is_refused(trained: Trained, mesm, tmp_path: Path) -> None:
    folder = tmp_path / "tacos-default"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = mesm(*train_command(trained, tmp_path)[3:], "--overwrite")
        assert result.code == 2
        assert "Another process is training in" in result.err
    finally:
        holder.kill()
        holder.communicate()
    with claimed(folder):  # a killed process holds nothing
        prepare_directory(folder, overwrite=False)


def test_other_settings_are_shown_and_refused(trained: Trained, whole: Path, mesm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    command = ["train", "--resume", folder, "--set", "train.lr=0.1"]
    refused = mesm(*command)
    assert refused.code == 2
    assert "train.lr: 0.0002 in the run, 0.1 now" in refused.err
    assert "--force" in refused.err
    forced = mesm(*command, "--force", "--set", "train.epochs=7")
    assert forced.code == 0, forced.err
    assert json.loads((folder / "config.json").read_text())["train"]["lr"] == 0.1
    assert "epochs are done" in mesm("train", "--resume", folder).out
    with pytest.raises(ConfigError, match=r"model.slots"):
        earlier_run(folder, "tacos", None, [], Given(), force=False)


def test_a_full_disk_leaves_the_last_checkpoint(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    run = run_of(small_config(*OFTEN), trained.paths, tmp_path)
    with pytest.raises(OutputError, match="could not be written"):
        for event in run.train():
            if isinstance(event, Step) and event.index == 1:
                before = (tmp_path / "last.pt").read_bytes()
                monkeypatch.setattr(torch, "save", full)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))
    assert json.loads((tmp_path / "run.json").read_text())["sessions"][-1]["end"] == "failed"


def test_records_that_cannot_be_written(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if self.name == "metrics.jsonl" and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="No space left"):
        list(run_of(small_config(*OFTEN), trained.paths, tmp_path).train())


def test_a_loss_that_is_not_finite_tells_the_batch(trained: Trained, tmp_path: Path) -> None:
    run = run_of(small_config(*OFTEN), trained.paths, tmp_path)
    poisoned = run.train_data.queries[0].vid
    run.train_data.features.get(poisoned)
    run.train_data.features._cache[poisoned][:] = np.nan
    with pytest.raises(MesmError, match=rf"loss is nan in epoch 1, step \d+ \(videos .*{poisoned}"):
        list(run.train())
    told = json.loads((tmp_path / "not-finite.json").read_text())
    assert poisoned in told["videos"]
    assert len(told["queries"]) > 1
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_an_error_in_training_says_how_to_go_on(whole: Path, mesm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    settings = ("--set", "train.lr=1e10", "--set", "train.grad_clip=0", "--set", "train.epochs=9")
    ended = mesm("train", "--resume", folder, "--force", *settings)
    assert (ended.code, "The loss is" in ended.err) == (2, True)
    assert f"Continue from the last checkpoint with: mesm train --resume {folder}" in ended.err


def test_out_of_memory_says_what_to_lower(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(small_config(*OFTEN), trained.paths, tmp_path)

    def greedy(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(run.model, "forward", greedy)
    with pytest.raises(
        MesmError, match=r"Out of memory on a batch of \d+ queries about 4 videos of up to \d+ frames"
    ) as e:
        list(run.train())
    assert "max_gather_size" in (e.value.hint or "")
    assert load_checkpoint(tmp_path / "last.pt").epoch == 0
