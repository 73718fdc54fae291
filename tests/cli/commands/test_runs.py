"""``mesm runs``: list, curves and differences of runs; and loggers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mesm_core.errors import ConfigError
from mesm_core.training.directory import claimed
from mesm_core.training.loggers import open_loggers
from mesm_core.training.record import RunRecord
from mesm_core.training.run import Run
from tests.cli.commands.pages import read_page
from tests.conftest import Trained, small_config
from tests.training.families import write_family


@pytest.fixture
def runs(trained: Trained, tmp_path: Path) -> Path:
    """Two runs; one has another learning rate and was stopped early."""
    root = tmp_path / "runs"
    shutil.copytree(trained.run, root / "tacos-a")
    shutil.copytree(trained.run, root / "tacos-b")
    config = json.loads((root / "tacos-b" / "config.json").read_text())
    config["train"]["lr"] = 0.5
    (root / "tacos-b" / "config.json").write_text(json.dumps(config))
    with (root / "tacos-b" / "metrics.jsonl").open("a") as file:
        file.write('{"epo')
    record = json.loads((root / "tacos-b" / "run.json").read_text())
    record["sessions"][-1]["end"] = "running"
    record["sessions"][0]["started"] = "2001-02-03T04:05:06+00:00"
    (root / "tacos-b" / "run.json").write_text(json.dumps(record))
    return root


def test_runs_are_listed(mesm, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = json.loads(mesm("runs", runs, "--json").out)
    assert [Path(run["run"]).name for run in listed] == ["tacos-a", "tacos-b"]
    assert [run["status"] for run in listed] == ["finished", "killed"]
    with claimed(runs / "tacos-b"):
        assert "running" in mesm("runs", runs).out
    assert listed[0]["best"]["eval"]["val"]["MR-full-mIoU"] >= 0
    shown = mesm("runs", "list", runs).out
    assert "2/2" in shown
    assert "2001-02-03 04:05" in shown
    monkeypatch.chdir(runs.parent)
    assert mesm("runs").out == shown
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "No runs in" in mesm("runs", empty).out
    missing = mesm("runs", tmp_path / "nowhere")
    assert missing.code == 2
    assert "No folder of runs" in missing.err


def test_a_run_is_shown(mesm, runs: Path, tmp_path: Path) -> None:
    shown = mesm("runs", "show", runs / "tacos-b")
    assert shown.code == 0, shown.err
    assert "loss_span" in shown.out
    assert "val mIoU" in shown.out
    assert mesm("runs", "show", runs / "tacos-a", "--html", tmp_path / "run.html").code == 0
    page = read_page(tmp_path / "run.html")
    assert "train.lr" in page.text
    assert "polyline" in (tmp_path / "run.html").read_text()
    session = json.loads(mesm("runs", "show", runs / "tacos-a", "--json").out)["sessions"][0]
    assert session["versions"]["torch"] == torch.__version__
    assert session["host"]["cores"] >= 1
    assert mesm("runs", "show", tmp_path).code == 2


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"dataset": 3}'])
def test_a_damaged_run_does_not_hide_the_others(mesm, runs: Path, damage: str) -> None:
    (runs / "tacos-b" / "config.json").write_text(damage)
    listed = mesm("runs", runs)
    assert listed.code == 0
    assert "tacos-a" in listed.out
    assert "tacos-b" in listed.err
    shown = mesm("runs", "show", runs / "tacos-b")
    assert (shown.code, "damaged" in shown.err) == (2, True)


SESSION = {
    "started": "2001-02-03T04:05:06+00:00",
    "first_epoch": 1,
    "device": "cpu",
    "processes": 1,
    "host": {"processor": "x86_64"},
    "versions": {"torch": "2"},
    "git": None,
    "seconds": 1.5,
    "end": "finished",
}
DAMAGES = [
    ("run.json", damage)
    for damage in (
        3, [], {}, {"sessions": None}, {"sessions": {}}, {"sessions": [3]}, {"sessions": [None]}, {"sessions": [[]]},
        {"sessions": [{}]}, {"sessions": [{"started": "2001"}]},
        *({"sessions": [{k: v for k, v in SESSION.items() if k != name}]} for name in SESSION),
        {"sessions": [SESSION | {"seconds": "1.5"}]}, {"sessions": [SESSION | {"seconds": float("inf")}]},
        {"sessions": [SESSION | {"seconds": -1}]}, {"sessions": [SESSION | {"started": 3}]},
        {"sessions": [SESSION | {"host": None}]}, {"sessions": [SESSION | {"host": []}]},
        {"sessions": [SESSION | {"host": {"processor": None}}]}, {"sessions": [SESSION | {"versions": ["torch"]}]},
        {"sessions": [SESSION | {"versions": {"torch": None}}]}, {"sessions": [SESSION | {"git": 3}]},
        {"sessions": [SESSION | {"end": None}]},
    )
] + [
    ("config.json", damage)
    for damage in (
        {"dataset": None}, {"dataset": [], "train": {"epochs": 2}}, {"dataset": {"name": 3}, "train": {"epochs": 2}},
        {"dataset": {"name": "tacos"}}, {"dataset": {"name": "tacos"}, "train": None},
        {"dataset": {"name": "tacos"}, "train": {"epochs": "2"}},
        {"dataset": {"name": "tacos"}, "train": {"epochs": None}},
    )
] + [
    ("metrics.jsonl", damage)
    for damage in (
        3, [], None, {}, {"epoch": 1}, {"epoch": "1", "losses": {}}, {"epoch": None, "losses": {}},
        {"epoch": 1, "losses": []}, {"epoch": 1, "losses": {"loss": None}}, {"epoch": 1, "losses": {"loss": "1"}},
        {"epoch": 1, "losses": {}, "eval": []}, {"epoch": 1, "losses": {}, "eval": {"val": None}, "best": True},
        {"epoch": 1, "losses": {}, "eval": {"val": {"MR-full-mIoU": "1"}}, "best": True},
        {"epoch": 1, "losses": {}, "best": "yes"},
    )
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_json_that_is_not_of_a_run_is_reported(mesm, runs: Path, name: str, damage: object) -> None:
    """There is one warning; the other runs are listed, and `show` and `diff` report the problem."""
    (runs / "tacos-b" / name).write_text(json.dumps(damage) + "\n")
    listed = mesm("runs", runs)
    assert listed.code == 0, listed.err
    assert "tacos-a" in listed.out
    assert listed.err.count("Warning") == 1
    assert f"tacos-b: its {name} is damaged" in " ".join(listed.err.split())
    assert [Path(run["run"]).name for run in json.loads(mesm("runs", runs, "--json").out)] == ["tacos-a"]
    for words in (["show", runs / "tacos-b"], ["diff", runs / "tacos-a", runs / "tacos-b"]):
        result = mesm("runs", *words)
        assert (result.code, result.out) == (2, "")
        assert f"its {name} is damaged" in " ".join(result.err.split())


def test_a_best_epoch_without_figures_has_no_best(mesm, runs: Path) -> None:
    (runs / "tacos-b" / "metrics.jsonl").write_text('{"epoch": 1, "losses": {"loss": 2}, "best": true}\n')
    for words in ([runs], ["show", runs / "tacos-b"], ["diff", runs / "tacos-a", runs / "tacos-b"]):
        assert mesm("runs", *words).code == 0
    assert json.loads(mesm("runs", "show", runs / "tacos-b", "--json").out)["best"] is None


def test_training_continues_despite_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"sessions": [3]}')
    RunRecord(tmp_path, device="cpu", processes=1, first_epoch=1).write("finished")
    assert [session["end"] for session in json.loads((tmp_path / "run.json").read_text())["sessions"]] == ["finished"]


def test_settings_of_runs_are_compared(mesm, runs: Path, tmp_path: Path) -> None:
    different = mesm("runs", "diff", runs / "tacos-a", runs / "tacos-b")
    rows = [line.split() for line in different.out.splitlines() if line.startswith("train.")]
    assert rows == [["train.lr", "0.0002", "0.5"]]
    assert json.loads(mesm("runs", "diff", runs / "tacos-a", runs / "tacos-b", "--json").out)["settings"] == {
        "train.lr": [0.0002, 0.5]
    }
    record = json.loads((runs / "tacos-b" / "run.json").read_text())
    record["sessions"][-1]["processes"] = 4
    shutil.copytree(runs / "tacos-b", tmp_path / "tacos-c")
    (tmp_path / "tacos-c" / "run.json").write_text(json.dumps(record))
    assert "processes" in mesm("runs", "diff", runs / "tacos-b", tmp_path / "tacos-c").out
    assert "settings are the same" in mesm("runs", "diff", runs / "tacos-a", runs / "tacos-a").out


class Recorder:
    """Stands for a logging package: records its calls."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Any]] = []

    def module(self) -> SimpleNamespace:
        run = SimpleNamespace(
            log=lambda scalars, step: self.records.append(("log", step)),
            finish=lambda: self.records.append(("finish", None)),
        )
        return SimpleNamespace(
            init=lambda **_: run,
            start_run=lambda **_: None,
            log_dict=lambda *_: None,
            log_metrics=lambda scalars, step: self.records.append(("log", step)),
            end_run=lambda: self.records.append(("finish", None)),
        )


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_loggers(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, name, recorder.module())
    config = small_config(f'train.loggers=["{name}"]')
    list(Run.open(config, trained.paths, tmp_path, device=torch.device("cpu")).train())
    assert recorder.records == [("log", 1), ("log", 2), ("finish", None)]
    assert not list(tmp_path.glob("events.*"))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="not installed"):
        open_loggers((name,), tmp_path, {})


def test_a_family_has_a_line_and_its_runs(mesm, trained: Trained, runs: Path) -> None:
    members = {2019: trained.run, 2020: runs / "tacos-b"}
    family = write_family(runs / "tacos-two", members, trained)
    lines = mesm("runs", runs).out.splitlines()
    (row,) = [number for number, line in enumerate(lines) if line.startswith("tacos-two (2 seeds)")]
    assert "1 of 2 finished" in lines[row]
    assert "± 0.00" in lines[row]
    assert [line.split()[0] for line in lines[row + 1 : row + 3]] == ["seed-2019", "seed-2020"]
    listed = json.loads(mesm("runs", runs, "--json").out)
    (found,) = [each for each in listed if "family" in each]
    assert found["family"] == str(family)
    assert [run["seed"] for run in found["runs"]] == [2019, 2020]
    assert found["metrics"]["val"]["MR-full-mIoU"]["sd"] == 0
    assert len(listed) == 3
    shown = mesm("runs", "show", family)
    assert shown.code == 0, shown.err
    assert "mean ± sd" in shown.out
    assert f"Best run: {family}/seed-2019/best.pt" in shown.out
    assert json.loads(mesm("runs", "show", family, "--json").out)["metrics"] == found["metrics"]
    page = mesm("runs", "show", family, "--html", runs / "page.html")
    assert (page.code, "Name one of them: seed-2019, seed-2020" in page.err) == (2, True)
    (family / "seed-2020" / "metrics.jsonl").write_text("[]\n")
    damaged = mesm("runs", runs)
    assert damaged.code == 0
    assert "seed-2020: its metrics.jsonl is damaged" in " ".join(damaged.err.split())
