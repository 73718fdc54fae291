"""Families of seeds: killed, stopped, resumed, in turn and at once; what is refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mesm_cli import render
from mesm_cli.render import training_progress
from mesm_core.build import build_features
from mesm_core.data.features import FeatureStore
from mesm_core.errors import MesmError
from mesm_core.training.directory import claimed
from mesm_core.training.family import Family, read_summary
from mesm_core.training.loop import Step
from mesm_core.training.members import member_commands
from mesm_core.training.run import Run
from tests.conftest import Result, Trained, small_config
from tests.training.families import (
    OFTEN,
    command_line,
    family_words,
    one_thread,
    write_family,
)
from tests.training.results import assert_same_results, figures, same, weights

Mesm = Callable[..., Result]
SEEDS = (2019, 2020, 2021)
# Runs mesm, and kills the process after a step in the second epoch of the second of three runs.
KILLED_IN_THE_MIDDLE = """
import os, signal
from mesm_cli.entry import main
from mesm_core.training.run import Run

def epoch(self, *args, whole=Run._epoch):
    steps = whole(self, *args)
    yield next(steps)
    if self.config.train.seed == 2020 and self.progress.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return (yield from steps)

Run._epoch = epoch
main()
"""


@pytest.fixture(scope="module")
def alone(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each seed trained by itself, undisturbed."""
    root = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        config = small_config(*OFTEN, f"train.seed={seed}")
        list(Run.open(config, trained.paths, root / f"seed-{seed}", device=torch.device("cpu")).train())
    return root


@pytest.fixture(scope="module")
def family(trained: Trained, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family as its record: its runs are those of ``alone``."""
    runs = {seed: alone / f"seed-{seed}" for seed in SEEDS}
    return write_family(tmp_path_factory.mktemp("runs") / "tacos-default", runs, trained)


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "family.json").read_text()))


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.005)


def start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command_line(words), env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_family_that_was_killed_ends_with_the_results_of_each_seed_alone(
    trained: Trained, alone: Path, mesm: Mesm, tmp_path: Path
) -> None:
    folder = tmp_path / "tacos-default"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_THE_MIDDLE, *family_words(trained, tmp_path)],
        env=one_thread(), capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert read(folder)["results"]["runs"][2]["status"] == "not started"
    done = mesm("train", "--resume", folder)
    assert done.code == 0, done.err
    assert "Seed 1 of 3, 2019: finished" in done.out
    for seed in SEEDS:
        assert_same_results(folder / f"seed-{seed}", alone / f"seed-{seed}")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_family_is_killed_at_random_moments(trained: Trained, alone: Path, tmp_path: Path, parallel: int) -> None:
    folder, draw = tmp_path / "tacos-default", random.Random(parallel)
    words, kills = family_words(trained, tmp_path, "--parallel", str(parallel)), 0
    while kills < 15:
        process = start(words)
        wait_for(folder / "family.json", process)
        try:
            _, printed = process.communicate(timeout=draw.uniform(0, 3))
            assert process.returncode == 0, printed.decode()
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        kills += 1
        words = ["train", "--resume", str(folder)] if (folder / "family.json").exists() else words
    assert kills > 2
    done = subprocess.run(command_line(words), env=one_thread(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    for seed in SEEDS:
        assert_same_results(folder / f"seed-{seed}", alone / f"seed-{seed}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_and_says_how_to_continue_all(
    trained: Trained, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """The signal comes in the first epoch of the second run."""
    folder = tmp_path / "tacos-default"
    add = Run._epoch

    def signalled(self: Run, *args: Any) -> Any:
        steps = add(self, *args)
        yield next(steps)
        if self.config.train.seed == 2020:
            signal.raise_signal(number)
        return (yield from steps)

    monkeypatch.setattr(Run, "_epoch", signalled)
    stopped = mesm(*family_words(trained, tmp_path))
    assert stopped.code == code, stopped.err
    assert f"mesm train --resume {folder}\n" in stopped.out
    assert f"--resume {folder}/seed" not in stopped.out
    assert [run["status"] for run in read(folder)["results"]["runs"]] == ["finished", "interrupted", "not started"]
    assert "1 of 3 finished" in mesm("runs", tmp_path).out


def test_runs_at_once_give_the_same_results_and_one_that_fails_does_not_stop_the_others(
    family: Path, alone: Path, mesm: Mesm, tmp_path: Path
) -> None:
    folder = tmp_path / "tacos-default"
    shutil.copytree(family, folder)
    for path in (folder / "seed-2019").glob("last*.pt"):
        path.write_bytes(b"damaged")
    (folder / "seed-2019" / "run.json").unlink()
    shutil.rmtree(folder / "seed-2021")
    ended = mesm("train", "--resume", folder, "--parallel", "2", "--json")
    assert ended.code == 2
    assert json.loads(ended.out)["failed"] == [2019]
    assert "seed 2019  Error:" in ended.err
    assert "Seeds that failed: 2019" in ended.err
    assert_same_results(folder / "seed-2021", alone / "seed-2021")


def last_run_replaced(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, program: str) -> Path:
    """Return a copy of the family without its last run, in place of which a Python program will run."""
    folder = tmp_path / "tacos-default"
    shutil.copytree(family, folder)
    shutil.rmtree(folder / "seed-2021")
    monkeypatch.setattr("mesm_cli.commands.training_family.PROGRAM", (sys.executable, "-c", program))
    return folder


def test_a_run_that_the_system_kills_has_failed_and_the_results_of_the_others_are_shown(
    family: Path, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out; nobody asked the family to stop."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    folder = last_run_replaced(family, tmp_path, monkeypatch, program=kill)
    ended = mesm("train", "--resume", folder, "--parallel", "2")
    assert ended.code == 2
    assert "Seed 2021 was killed (SIGKILL); 2 of 3 are finished" in ended.out
    assert "mean ± sd" in ended.out
    assert "Seeds that failed: 2021" in ended.err
    assert "memory" in ended.err


def test_runs_at_once_know_the_room_beside_the_names_of_their_seeds(
    family: Path, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They print to a pipe, but on a terminal of 80 columns a line with all losses would be wrapped."""
    asks = "from mesm_cli import render; print('room', render.width())"
    folder = last_run_replaced(family, tmp_path, monkeypatch, program=asks)
    assert "seed 2021  room None" in mesm("train", "--resume", folder, "--parallel", "2").out
    monkeypatch.setattr(render, "width", lambda: 80)
    assert "seed 2021  room 69" in mesm("train", "--resume", folder, "--parallel", "2").out


@pytest.mark.slow
def test_runs_at_once_are_stopped_together_and_end_with_their_parent(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "tacos-default"
    words = family_words(trained, tmp_path, "--set", "train.epochs=10000", "--parallel", "2", seeds="2")
    process = start(words)
    for seed in SEEDS[:2]:
        wait_for(folder / f"seed-{seed}" / "best.pt", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err.decode()
    assert f"mesm train --resume {folder}\n" in out.decode()
    assert [run["status"] for run in read(folder)["results"]["runs"]] == ["interrupted"] * 2
    before = [len(figures(folder / f"seed-{seed}")) for seed in SEEDS[:2]]
    process = start(["train", "--resume", str(folder)])
    while any(len(figures(folder / f"seed-{seed}")) <= n for seed, n in zip(SEEDS, before, strict=False)):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(_running(folder / f"seed-{seed}") for seed in SEEDS[:2]):
        assert time.monotonic() < deadline, "the children go on without their parent"
        time.sleep(0.05)
    assert [run.status for run in read_summary(folder).runs if run] == ["interrupted"] * 2


def _running(folder: Path) -> bool:
    sessions = json.loads((folder / "run.json").read_text())["sessions"]
    return len(sessions) > 1 and sessions[-1]["end"] == "running"


def test_a_run_that_fails_does_not_stop_the_next_ones(
    trained: Trained, alone: Path, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Run.train

    def failing(self: Run) -> Any:
        if self.config.train.seed == 7:
            raise MesmError("The loss is nan.")
        return train(self)

    monkeypatch.setattr(Run, "train", failing)
    ended = mesm(*family_words(trained, tmp_path, seeds="2019,7,2020"))
    folder = tmp_path / "tacos-default"
    assert ended.code == 2
    assert "Seed 7: The loss is nan." in ended.err
    assert_same_results(folder / "seed-2020", alone / "seed-2020")
    assert not (folder / "seed-7").exists()
    monkeypatch.undo()
    assert mesm("train", "--resume", folder).code == 0
    assert read_summary(folder).status == "finished"


@pytest.mark.parametrize("parallel", [[], ["--parallel", "2"]])
def test_a_family_of_which_no_run_began_leaves_nothing(
    trained: Trained, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: list[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise MesmError("The features are damaged.")

    monkeypatch.setattr("mesm_core.training.members.open_member", failing)
    monkeypatch.setattr("mesm_cli.commands.training_family.PROGRAM", (sys.executable, "-c", "raise SystemExit(2)"))
    ended = mesm(*family_words(trained, tmp_path / "runs", *parallel))
    assert ended.code == 2
    assert not (tmp_path / "runs").exists()


def test_results_are_the_mean_and_deviation_of_each_chosen_epoch(family: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = tmp_path / "tacos-default"
    shutil.copytree(family, folder)
    done = mesm("train", "--resume", folder, "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    best = [max(figures(folder / f"seed-{seed}"), key=lambda record: record["select"]["score"]) for seed in SEEDS]
    values = [record["eval"]["val"]["MR-full-mIoU"] for record in best]
    found = printed["metrics"]["val"]["MR-full-mIoU"]
    assert found == {"mean": statistics.fmean(values), "sd": statistics.stdev(values), "values": values}
    assert set(printed["metrics"]["val"]) >= {"MR-full-R1@0.5", "MR-full-mAP", "MR-middle-mAP"}
    order = sorted(SEEDS, key=lambda seed: values[SEEDS.index(seed)])
    assert (printed["best_run"], printed["median_run"]) == (f"seed-{order[2]}", f"seed-{order[1]}")
    assert read(folder)["results"]["metrics"] == printed["metrics"]
    shown = mesm("train", "--resume", folder).out
    assert f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" in shown
    assert f"Best run: {folder}/seed-{order[2]}/best.pt" in shown


def test_a_longer_family_trains_each_run_on(family: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = tmp_path / "tacos-default"
    shutil.copytree(family, folder)
    assert mesm("train", "--resume", folder, "--set", "train.epochs=3").code == 0
    assert [run.epochs for run in read_summary(folder).runs if run] == [3, 3, 3]
    refused = mesm("train", "--resume", folder, "--set", "train.lr=0.1")
    assert (refused.code, "train.lr: 0.0002 in the run, 0.1 now" in refused.err) == (2, True)


def test_a_family_is_replaced_or_kept_as_a_whole(trained: Trained, family: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = tmp_path / "tacos-default"
    shutil.copytree(family, folder)
    (folder / "seed-2019" / "mine.txt").write_text("mine")
    for seeds in ([], ["--seeds", "2"]):
        words = [*family_words(trained, tmp_path)[:5], *family_words(trained, tmp_path)[7:], *seeds]
        refused = mesm(*words)
        assert (refused.code, "already holds a family of runs" in refused.err) == (2, True)
    with claimed(folder / "seed-2020"):
        busy = mesm(*words, "--overwrite")
    assert (busy.code, "Another process is training in" in busy.err) == (2, True)
    assert (folder / "seed-2019" / "best.pt").exists()
    assert mesm(*words, "--overwrite", "--set", "train.epochs=1").code == 0
    assert not (folder / "seed-2021").exists()
    assert (folder / "seed-2019" / "mine.txt").exists()
    assert read(folder)["seeds"] == [2019, 2020]


def test_weights_of_different_seeds_differ(alone: Path) -> None:
    assert not same(weights(alone / "seed-2019"), weights(alone / "seed-2020"))


def test_runs_in_turn_read_the_features_once(
    trained: Trained, mesm: Mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FeatureStore] = []
    real = build_features

    def counted(*args: Any) -> FeatureStore:
        opened.append(real(*args))
        return opened[-1]

    monkeypatch.setattr("mesm_core.build.training.build_features", counted)
    assert mesm(*family_words(trained, tmp_path, "--set", "train.epochs=1")).code == 0
    assert len(opened) == 1


def test_all_runs_start_from_the_initial_weights(trained: Trained, mesm: Mesm, tmp_path: Path) -> None:
    start = trained.run / "best.pt"
    words = ["--init", str(start), "--set", "train.epochs=1", "--set", "train.lr=1e-9"]
    assert mesm(*family_words(trained, tmp_path, *words, seeds="2")).code == 0
    folder = tmp_path / "tacos-default"
    assert read(folder)["init"] == str(start.resolve())
    for seed in SEEDS[:2]:
        (session,) = json.loads((folder / f"seed-{seed}" / "run.json").read_text())["sessions"]
        assert session["init"] == str(start.resolve())
        ours, theirs = weights(folder / f"seed-{seed}"), weights(trained.run, "best.pt")
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_runs_at_once_share_the_threads(trained: Trained, tmp_path: Path) -> None:
    family = Family(tmp_path, SEEDS, trained.config, trained.paths, parallel=3)
    commands = member_commands(family, ["mesm", "train"], device="cpu", threads=8)
    assert [command.environment["OMP_NUM_THREADS"] for command in commands.values()] == ["2"] * 3
    words = ["mesm", "train", "--resume", str(tmp_path), "--member", "2020", "--device", "cpu"]
    assert commands["2020"].words == words
    few = member_commands(family, [], device="cpu", threads=2)
    assert few["2019"].environment["OMP_NUM_THREADS"] == "1"


def test_threads_are_shared_by_no_more_runs_than_there_are(family: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family, tmp_path / "tacos-default"))
    done = mesm("train", "--resume", folder, "--parallel", "9")
    assert done.code == 0, done.err
    assert "1 of the runs trained at once, now 3" in " ".join(done.err.split())
    assert read(folder)["parallel"] == 3
    assert "trained at once" not in mesm("train", "--resume", folder, "--parallel", "9").err


def test_the_progress_names_the_place_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter(range(0, 1000, 100))
    with training_progress(place="seed 2 of 3", clock=lambda: float(next(times))) as display:
        display.busy("Reading features", 1, 8)
        display.step(Step(0, 0, 5, 12, {}), epochs=2, processes=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "seed 2 of 3  Reading features  1/8"
    assert lines[1].startswith("seed 2 of 3  Epoch 1/2  step 1/5")
