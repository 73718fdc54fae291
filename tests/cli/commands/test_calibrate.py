"""``mesm calibrate``: on a split, on one's own queries, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.training.directory import claimed
from tests.cli.calibrated import train_calibrated
from tests.conftest import Trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_calibrated(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def bare(run: Trained, tmp_path: Path) -> Path:
    """A copy of the checkpoint without its calibration, as earlier versions wrote it."""
    content = torch.load(run.best, weights_only=True)
    del content["calibration"]
    torch.save(content, tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


def own_queries(run: Trained, path: Path, *, videos: int = 26) -> Path:
    """Write the queries of the test split as JSON lines."""
    content = json.loads((run.paths.annotations / "test.json").read_text())
    lines = [
        {"vid": vid, "duration": video["num_frames"] / video["fps"], "query": sentence}
        | {"relevant_windows": [[frame / video["fps"] for frame in frames]]}
        for vid, video in list(content.items())[:videos]
        for frames, sentence in zip(video["timestamps"], video["sentences"], strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_calibrating_again_gives_what_training_gave(run: Trained, bare: Path, mesm) -> None:
    done = mesm("calibrate", bare, "--data-dir", run.root, "--glove", run.paths.text, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    stored, trained = load_checkpoint(bare), load_checkpoint(run.best)
    assert stored.calibration == trained.calibration
    assert json.loads(done.out) == {"checkpoint": str(bare), **stored.calibration}
    assert all(torch.equal(stored.model[name], value) for name, value in trained.model.items())
    assert stored.config == trained.config


def test_output_leaves_the_checkpoint_as_it_is(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    before = bare.read_bytes()
    done = mesm("calibrate", bare, "--output", tmp_path / "out.pt", "--split", "test")
    assert done.code == 0, done.err
    assert bare.read_bytes() == before
    assert load_checkpoint(tmp_path / "out.pt").calibration["data"] == "tacos test"
    assert "AUROC" in done.out
    assert "ECE" in done.out
    again = mesm("calibrate", bare, "--output", tmp_path / "out.pt")
    assert again.code == 2
    assert "exists" in again.err


def test_own_queries(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    mine = own_queries(run, tmp_path / "mine.jsonl")
    done = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0])
    assert done.code == 0, done.err
    assert load_checkpoint(bare).calibration["data"] == "mine.jsonl"


def test_eval_leaves_out_the_videos_of_a_calibration_on_own_queries(
    run: Trained, bare: Path, tmp_path: Path, mesm
) -> None:
    """The own queries are those of the split, so the split has videos that the calibration was fitted on."""
    mine = own_queries(run, tmp_path / "mine.jsonl")
    calibrated = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0], "--json")
    assert calibrated.code == 0, calibrated.err
    done = mesm("eval", bare, "--split", "test", "--negatives", "--json", "-o", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    found = json.loads(done.out)["confidence"]
    assert found.pop("unseen_half") is True
    assert found == json.loads(calibrated.out)["report"]


def test_eval_leaves_out_a_half_if_it_is_not_known_which_videos_were_fitted(
    run: Trained, bare: Path, tmp_path: Path, mesm
) -> None:
    content = torch.load(run.best, weights_only=True)
    del content["calibration"]["videos"]
    torch.save(content, bare)
    done = mesm("eval", bare, "--split", "test", "--negatives", "--json", "-o", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["confidence"]["unseen_half"] is True
    assert 30 <= found["confidence"]["questions"]["real"] < found["queries"]


def test_a_split_of_few_videos_tests_a_calibration_that_has_not_seen_them(run: Trained, tmp_path: Path, mesm) -> None:
    """Each half has fewer questions than a fit needs, but both together have enough."""
    folder = Path(shutil.copytree(run.paths.annotations, tmp_path / "annotations"))
    videos = json.loads((folder / "test.json").read_text())
    (folder / "test.json").write_text(json.dumps(dict(list(videos.items())[:10])))
    words = ["eval", run.best, "--split", "test", "--negatives", "--annotations", folder, "-o", tmp_path / "out.jsonl"]
    done = mesm(*words, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["confidence"]["questions"]["real"] == json.loads(done.out)["queries"] < 60
    (folder / "test.json").write_text(json.dumps(dict(list(videos.items())[:3])))
    refused = mesm(*words, "--overwrite")
    assert (refused.code, "A test of the confidence needs 30 queries" in refused.err) == (2, True), refused.err


def test_an_exported_checkpoint_needs_an_output_and_keeps_the_calibration(run: Trained, tmp_path: Path, mesm) -> None:
    folder = tmp_path / "exported"
    assert mesm("export", run.best, folder).code == 0
    refused = mesm("calibrate", folder)
    assert refused.code == 2
    assert "--output" in refused.err
    assert mesm("calibrate", folder, "--output", tmp_path / "out.pt").code == 0
    assert load_checkpoint(tmp_path / "out.pt").calibration == load_checkpoint(run.best).calibration


def test_too_few_queries_are_refused_and_the_checkpoint_stays(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    before = bare.read_bytes()
    mine = own_queries(run, tmp_path / "mine.jsonl", videos=4)
    done = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0])
    assert done.code == 2
    assert "needs 30 queries with an answer in each half" in done.err
    assert bare.read_bytes() == before


def test_repairs_of_own_queries_are_said(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    mine = own_queries(run, tmp_path / "mine.jsonl")
    first, *rest = mine.read_text().splitlines(keepends=True)
    inverted = json.loads(first)
    inverted["relevant_windows"] = [inverted["relevant_windows"][0][::-1]]
    mine.write_text("".join([json.dumps(inverted) + "\n", *rest]))
    done = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0])
    assert done.code == 0, done.err
    assert "Repaired annotations: 1 inverted (swapped)" in done.err


def test_queries_that_give_no_negatives_are_refused(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    mine = own_queries(run, tmp_path / "mine.jsonl")
    lines = [json.loads(line) | {"query": "He opens the drawer."} for line in mine.read_text().splitlines()]
    mine.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0])
    assert done.code == 2
    assert "needs 30 negatives" in done.err


@pytest.mark.parametrize("family", [False, True])
def test_the_folder_of_a_run_or_family_is_not_taken_for_an_export(
    run: Trained, tmp_path: Path, family: bool, mesm
) -> None:
    folder = tmp_path / "tacos-default"
    best = folder / "seed-1" / "best.pt" if family else folder / "best.pt"
    best.parent.mkdir(parents=True)
    shutil.copy(run.best, best)
    refused = mesm("calibrate", folder)
    assert refused.code == 2
    assert f"{folder} is a folder" in refused.err
    assert f"Did you mean {best}?" in "".join(refused.err.splitlines())


@pytest.mark.parametrize(
    "words, says",
    [(["zero-shot"], "no checkpoint"), (["bare.pt", "--on", "mine.jsonl", "--split", "val"], "not both")],
)
def test_contradictions_are_refused(
    words: list[str], says: str, bare: Path, monkeypatch: pytest.MonkeyPatch, mesm
) -> None:
    monkeypatch.chdir(bare.parent)
    done = mesm("calibrate", *words)
    assert done.code == 2
    assert says in done.err


def test_queries_without_moments_are_refused(run: Trained, bare: Path, tmp_path: Path, mesm) -> None:
    mine = own_queries(run, tmp_path / "mine.jsonl")
    lines = [
        {k: v for k, v in json.loads(line).items() if k != "relevant_windows"} for line in mine.read_text().splitlines()
    ]
    mine.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = mesm("calibrate", bare, "--on", mine, "--features", run.paths.features[0])
    assert done.code == 2
    assert "no window" in done.err
    assert f"'{lines[0]['query']}' about {lines[0]['vid']}" in done.err


def test_a_checkpoint_that_a_run_may_replace_meanwhile_is_refused(run: Trained, tmp_path: Path, mesm) -> None:
    """Otherwise the calibrated checkpoint could replace a better one of the run."""
    folder = Path(shutil.copytree(run.run, tmp_path / "tacos-busy"))
    before = (folder / "best.pt").read_bytes()
    with claimed(folder):
        refused = mesm("calibrate", folder / "best.pt")
        elsewhere = mesm("calibrate", folder / "best.pt", "--output", tmp_path / "out.pt")
    assert (refused.code, "Another process is training in" in refused.err) == (2, True), refused.err
    assert "--output" in refused.err
    assert (folder / "best.pt").read_bytes() == before
    assert elsewhere.code == 0, elsewhere.err
    assert mesm("calibrate", folder / "best.pt").code == 0


def test_the_output_cannot_be_an_input(run: Trained, bare: Path, mesm) -> None:
    features = shutil.copy(run.paths.features[0], bare.parent / "features.hdf5")
    done = mesm("calibrate", bare, "--features", features, "--output", features, "--overwrite")
    assert done.code == 2
