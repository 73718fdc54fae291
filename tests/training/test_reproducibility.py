"""The same seed and the same data give the same weights; a run can be repeated from its record."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch

from mesm_core.build import data_paths
from mesm_core.training.events import Warned
from mesm_core.training.run import Run
from tests.conftest import Result, Trained, small_config
from tests.training.results import assert_same_results, same, weights

CPU = torch.device("cpu")
Mesm = Callable[..., Result]


@pytest.mark.parametrize("cache_gb", [8, 0])
@pytest.mark.parametrize("readers", [2, 5])
def test_weights_do_not_depend_on_the_number_of_reading_threads(
    trained: Trained, tmp_path: Path, readers: int, cache_gb: int
) -> None:
    config = small_config(f"data.readers={readers}", f"data.cache_gb={cache_gb}")
    list(Run.open(config, trained.paths, tmp_path, device=CPU).train())
    assert same(weights(tmp_path), weights(trained.run))
    assert same(weights(tmp_path, "best.pt"), weights(trained.run, "best.pt"))
    written = (tmp_path / "predictions" / "val.jsonl").read_text()
    assert written == (trained.run / "predictions" / "val.jsonl").read_text()


def test_weights_do_not_depend_on_what_was_computed_before(trained: Trained, tmp_path: Path) -> None:
    """Another run, and the states of the global generators, have no influence."""
    list(Run.open(small_config("train.seed=5"), trained.paths, tmp_path / "other", device=CPU).train())
    torch.manual_seed(12)
    random.seed(12)
    list(Run.open(small_config(), trained.paths, tmp_path / "same", device=CPU).train())
    assert same(weights(tmp_path / "same"), weights(trained.run))
    assert not same(weights(tmp_path / "other"), weights(trained.run))


def test_the_record_has_hashes_of_the_data(trained: Trained) -> None:
    (session,) = json.loads((trained.run / "run.json").read_text())["sessions"]
    files = session["data"]
    roles = {"annotation file 1", "annotation file 2", "feature file 1", "text file", "count file"}
    assert set(files) == roles
    assert files["feature file 1"]["path"] == str(trained.paths.features[0].resolve())
    assert files["feature file 1"]["bytes"] == trained.paths.features[0].stat().st_size
    assert all(len(file["sha256"]) == 64 for file in files.values())
    assert session["threads"] == torch.get_num_threads()
    assert session["paths"] == trained.paths.as_json()


@pytest.fixture(scope="module")
def original(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line, with copies of the data that only this module uses."""
    root = Path(shutil.copytree(trained.root, tmp_path_factory.mktemp("like") / "data"))
    runs = root.parent / "runs"
    config = small_config("train.seed=11", "train.loggers=[]", f"text.glove={root / trained.paths.text.name}")
    paths = data_paths(config, root)
    list(Run.open(config, paths, runs / "tacos-first", device=CPU).train())
    return runs / "tacos-first"


def test_a_repeated_run_has_the_same_weights(original: Path, mesm: Mesm) -> None:
    done = mesm("train", "--like", original, "--name", "again", "--runs-dir", original.parent, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["same_weights"] is True
    assert "exactly those of" in done.err
    assert_same_results(original.parent / "tacos-again", original)
    assert "Warning" not in done.err


def test_changes_of_a_repeated_run_are_said(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    words = ["--set", "train.epochs=1", "--set", "train.seed=12"]
    done = mesm("train", "--like", original, "--runs-dir", tmp_path, *words)
    assert done.code == 0, done.err
    assert "Changed: train.epochs = 1 (2 in" in done.err
    assert "Changed: train.seed = 12 (11 in" in done.err
    assert "The best weights are not those of" in done.err


def test_data_that_changed_are_named_and_refused(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original.parent.parent / "data", tmp_path / "moved"))
    words = ["train", "--like", original, "--runs-dir", tmp_path / "runs", "--data-dir", folder]
    words += ["--glove", folder / "glove.invented.txt", "--set", "train.epochs=1"]
    with h5py.File(folder / "TACoS" / "c3d.hdf5", "r+") as features:
        features["val-001"][0, 0] += 1
    with (folder / "TACoS" / "annotations" / "val.json").open("a") as file:
        file.write("\n")
    refused = mesm(*words)
    assert refused.code == 2
    assert f"The data are not those of {original}" in refused.err
    assert f"feature file 1: {folder / 'TACoS' / 'c3d.hdf5'}" in refused.err
    assert f"annotation file 2: {folder / 'TACoS' / 'annotations' / 'val.json'}" in refused.err
    assert "text file" not in refused.err
    assert not (tmp_path / "runs").exists()
    forced = mesm(*words, "--force")
    assert forced.code == 0, forced.err
    assert forced.err.count("Other data than those of") == 2


def test_data_that_moved_are_the_same_data(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original.parent.parent / "data", tmp_path / "moved"))
    words = ["--data-dir", folder, "--glove", folder / "glove.invented.txt"]
    done = mesm("train", "--like", original, "--runs-dir", tmp_path / "runs", *words)
    assert done.code == 0, done.err
    assert_same_results(tmp_path / "runs" / "tacos-default", original)


def test_other_versions_and_threads_are_warned_of(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "tacos-old"))
    record = json.loads((folder / "run.json").read_text())
    record["sessions"][0]["versions"]["torch"] = "1.0"
    record["sessions"][0] |= {"threads": 64, "processes": 2, "device": "cuda:3"}
    (folder / "run.json").write_text(json.dumps(record))
    done = mesm("train", "--like", folder, "--runs-dir", tmp_path, "--set", "train.epochs=1")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert f"torch: 1.0 in the run, {torch.__version__} now" in said
    assert "threads of torch: 64 in the run, 1 now" in said
    assert "processes: 2 in the run, 1 now" in said
    assert "device: cuda:3 in the run, cpu now" in said


def test_a_run_with_initial_weights_is_repeated_from_them(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    start = Path(shutil.copy(original / "best.pt", tmp_path / "start.pt"))
    first = mesm("train", "--init", start, "--runs-dir", tmp_path, "--name", "a", "--set", "train.epochs=1")
    assert first.code == 0, first.err
    words = ["train", "--like", tmp_path / "tacos-a", "--runs-dir", tmp_path, "--name", "b"]
    assert mesm(*words).code == 0
    assert_same_results(tmp_path / "tacos-b", tmp_path / "tacos-a")
    shutil.copy(original / "last.pt", start)
    refused = mesm(*words, "--overwrite")
    assert (refused.code, "file of initial weights 1" in refused.err) == (2, True)


def test_a_family_is_repeated_with_all_its_seeds(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    words = ["train", "--runs-dir", tmp_path, "--set", "train.epochs=1"]
    assert mesm(*words, "--like", original, "--seeds", "3,5", "--name", "a").code == 0
    words = ["train", "--like", tmp_path / "tacos-a", "--runs-dir", tmp_path, "--name", "b", "--json"]
    done = mesm(*words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["same_weights"] == {"3": True, "5": True}
    assert f"exactly those of {tmp_path / 'tacos-a'} with 2 of 2 seeds" in " ".join(done.err.split())
    for seed in (3, 5):
        assert_same_results(tmp_path / "tacos-b" / f"seed-{seed}", tmp_path / "tacos-a" / f"seed-{seed}")


def test_what_cannot_be_repeated_is_refused(original: Path, mesm: Mesm, tmp_path: Path) -> None:
    old = Path(shutil.copytree(original, tmp_path / "tacos-old"))
    record = json.loads((old / "run.json").read_text())
    for name in ("data", "paths", "threads", "init", "skip_missing"):
        del record["sessions"][0][name]
    (old / "run.json").write_text(json.dumps(record))
    for words, message in (
        (["--like", old], "does not record its data"),
        (["--like", tmp_path], "holds no run"),
        (["--like", original, "--dataset", "tacos"], "Remove --dataset"),
        (["--like", original, "--resume", original], "Remove --resume"),
        (["--like", original, "--name", "first", "--runs-dir", original.parent], "already holds a run"),
        (["--like", original, "--name", "first", "--runs-dir", original.parent, "--overwrite"], "this command reads"),
    ):
        refused = mesm("train", *words)
        assert (refused.code, message in refused.err) == (2, True), refused.err
    assert (original / "best.pt").exists()


def test_resuming_with_other_threads_is_warned_of(trained: Trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.run, tmp_path / "run"))
    events = list(Run.open(trained.config, trained.paths, folder, device=CPU, resume=True).train())
    assert not [event for event in events if isinstance(event, Warned)]
    record = json.loads((folder / "run.json").read_text())
    record["sessions"][-1]["threads"] = 64
    (folder / "run.json").write_text(json.dumps(record))
    events = list(Run.open(trained.config, trained.paths, folder, device=CPU, resume=True).train())
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert "used 64 threads of torch, now 1" in warning
