"""Custom data: the folder that paths are relative to, and runs that do not depend on the working folder."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from mesm_core.checkpoint import load_checkpoint
from mesm_core.data.readers import read_split
from tests.conftest import SMALL, Trained

SMALLER = ["--set", *" --set ".join(word for word in SMALL if "vocab_size" not in word).split()]
MINE = """\
preset = "jsonl"

[dataset]
train = "learn.jsonl"
eval = "choose.jsonl"
features = ["features/mine.hdf5"]
annotations = "."

[text]
glove = "glove.mine.txt"
"""


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Path:
    """A user's project: a config file, and its data files in the same folder; GloVe's file is compressed."""
    folder = tmp_path / "project"
    (folder / "features").mkdir(parents=True)
    shutil.copy(trained.paths.features[0], folder / "features" / "mine.hdf5")
    (folder / "glove.mine.txt.gz").write_bytes(gzip.compress(trained.paths.text.read_bytes()))
    for split, name in (("train", "learn"), ("val", "choose")):
        queries = read_split("tacos", trained.paths.annotations, split).queries
        records = (
            {"vid": q.vid, "duration": q.duration, "query": q.sentence, "relevant_windows": q.windows} for q in queries
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "mine.toml").write_text(MINE)
    return folder


def run(mesm, *words: object) -> str:
    result = mesm(*words)
    assert result.code == 0, (words, result.err)
    return result.out


def test_a_run_does_not_depend_on_the_working_folder(mesm, mine: Path, tmp_path: Path, monkeypatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    config = ["--config", "../project/mine.toml"]
    run(mesm, "count-tokens", *config)
    assert (mine / "GloVe_tokenized_count.txt").is_file()
    run(mesm, "prepare", "check", *config, *SMALLER)
    out = run(mesm, "train", *config, *SMALLER, "--set", "train.epochs=1")
    assert "choose mIoU" in out
    best = here / "runs" / "jsonl-default" / "best.pt"
    kept = json.loads((best.parent / "config.json").read_text())
    assert kept["dataset"]["train"] == str(mine / "learn.jsonl")
    assert kept["dataset"]["features"] == [str(mine / "features" / "mine.hdf5")]
    assert kept["text"]["glove"] == str(mine / "glove.mine.txt")
    assert load_checkpoint(best).config == kept

    monkeypatch.chdir(there)
    assert json.loads(run(mesm, "eval", best, "--json"))["queries"]
    run(mesm, "predict", best, "--video", "test-000", "The man cuts a pan.")
    run(mesm, "train", "--resume", best.parent, "--set", "train.epochs=2")
    run(mesm, "train", "--resume", best.parent, "--config", mine / "mine.toml", *SMALLER, "--set", "train.epochs=2")


def test_the_count_file_determines_the_number_of_label_words(mesm, mine: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run(mesm, "count-tokens", "--config", mine / "mine.toml")
    counted = len((mine / "GloVe_tokenized_count.txt").read_text().splitlines())
    run(mesm, "train", "--config", mine / "mine.toml", *SMALLER, "--set", "train.epochs=1")
    kept = json.loads(Path("runs/jsonl-default/config.json").read_text())
    assert kept["text"]["vocab_size"] == counted
    assert load_checkpoint(Path("runs/jsonl-default/best.pt")).config["text"]["vocab_size"] == counted


def test_train_and_val_stand_for_the_files_in_the_config(mesm, mine: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", mine / "mine.toml"]
    for split, name in (("train", "learn"), ("val", "choose")):
        run(mesm, "prepare", "convert", f"{split}.jsonl", "--split", split, *config)
        assert read_split("jsonl", Path(), f"{split}.jsonl") == read_split("jsonl", mine, name)
    vocabulary = run(mesm, "prepare", "glove", mine / "glove.mine.txt", "words.h5", *config, *SMALLER, "--json")
    assert json.loads(vocabulary)["words"] > 10
    run(mesm, "count-tokens", "--split", "train", *config)
    run(mesm, "train", *config, *SMALLER, "--set", "train.epochs=1")
    best = "runs/jsonl-default/best.pt"
    whole = json.loads(run(mesm, "eval", best, "--split", "train", "--json"))["queries"]
    assert whole == len((mine / "learn.jsonl").read_text().splitlines())


def test_command_line_paths_are_relative_to_the_working_folder(mesm, mine: Path, monkeypatch) -> None:
    monkeypatch.chdir(mine)
    words = ["--set", "dataset.train=learn.jsonl", "--set", "dataset.eval=choose.jsonl", "--annotations", "."]
    run(mesm, "count-tokens", "--dataset", "jsonl", *words)
    files = ["--features", "features/mine.hdf5", "--glove", "glove.mine.txt"]
    run(mesm, "train", "--dataset", "jsonl", *words, *files, *SMALLER, "--set", "train.epochs=1")
    kept = json.loads(Path("runs/jsonl-default/config.json").read_text())
    assert kept["dataset"]["features"] == [str(mine / "features" / "mine.hdf5")]
    assert kept["dataset"]["annotations"] == str(mine)
    assert kept["text"]["glove"] == str(mine / "glove.mine.txt")


def test_paths_of_a_preset_are_in_the_data_folder(mesm, trained: Trained, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--set", *" --set ".join(SMALL).split(), "--set", "train.epochs=1", "--glove", trained.paths.text]
    given = ["--features", trained.root / "TACoS" / "c3d.hdf5"]
    run(mesm, "train", "--dataset", "tacos", "--data-dir", trained.root, *given, *words)
    kept = json.loads(Path("runs/tacos-default/config.json").read_text())
    assert kept["dataset"]["features"] == ["TACoS/c3d.hdf5"]
    assert kept["dataset"]["annotations"] == "TACoS/annotations"
    moved = tmp_path / "moved"
    shutil.copytree(trained.root, moved)
    run(mesm, "eval", "runs/tacos-default/best.pt", "--data-dir", moved)


def test_two_different_presets_are_refused(mesm, mine: Path) -> None:
    result = mesm("config", "validate", mine / "mine.toml", "--dataset", "tacos")
    assert (result.code, "changes the preset 'jsonl'" in result.err) == (2, True)


def test_one_query_is_counted_in_the_singular(mesm, mine: Path, monkeypatch) -> None:
    monkeypatch.chdir(mine)
    Path("one.jsonl").write_text(Path("learn.jsonl").read_text().splitlines()[0] + "\n")
    assert run(mesm, "prepare", "convert", "out.jsonl", "--split", "one.jsonl", "--dataset", "jsonl").endswith(
        "out.jsonl: 1 query\n"
    )
