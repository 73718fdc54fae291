"""Everything that keeps a run from starting is said at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest

from mesm_core.build import Paths
from mesm_core.build.ready import find_problems, require_ready
from mesm_core.errors import MesmError
from tests.conftest import SMALL, Trained, small_config

FIXED = ["--set", *" --set ".join(SMALL).split()]


@pytest.fixture
def root(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the invented data."""
    return Path(shutil.copytree(trained.root, tmp_path / "data"))


def test_nothing_is_wrong(trained: Trained) -> None:
    require_ready(trained.config, trained.paths, device="cpu")


def test_all_that_is_wrong_is_said_in_one_message(mesm, trained: Trained, root: Path) -> None:
    annotations = root / "TACoS" / "annotations"
    (annotations / "val.json").unlink()
    (annotations / "GloVe_tokenized_count.txt").unlink()
    words = ["--features", root / "a.hdf5", "--features", root / "b.hdf5", "--glove", root / "none.txt"]
    runs = ["--device", "gpu", "--runs-dir", root / "runs"]
    result = mesm("train", "--dataset", "tacos", "--data-dir", root, *words, *runs, *FIXED)
    assert result.code == 2
    first, *lines = result.err.splitlines()
    assert first == "Error: The run cannot start (6 problems):"
    expected = ("Unknown device 'gpu'", "val.json", "a.hdf5", "b.hdf5", "count file", "No GloVe file")
    assert len(lines) == len(expected)
    for line, what in zip(lines, expected, strict=True):
        assert what in line
    assert "--device" not in lines[0]
    assert "auto, cpu, cuda" in lines[0]
    assert "mesm count-tokens" in lines[4]
    assert not (root / "runs").exists()


def test_what_does_not_fit(trained: Trained, root: Path) -> None:
    features = root / "TACoS" / "c3d.hdf5"
    with h5py.File(features, "a") as file:
        del file["train-000"], file["val-001"]
    paths = Paths(root / "TACoS" / "annotations", (features,), trained.paths.text)
    config = small_config("model.video_dim=99", "model.text_dim=9", "text.vocab_size=999")
    found = [str(problem) for problem in find_problems(config, paths, device="cpu")]
    expected = ("1 of 8 videos", "1 of 3 videos", "12 wide", "fewer than text.vocab_size = 999", "vectors of 8 numbers")
    assert len(found) == len(expected)
    for message, what in zip(found, expected, strict=True):
        assert what in message
    assert len(find_problems(config, paths, device="cpu", skip_missing=True)) == 3


def test_one_problem_keeps_its_own_error(trained: Trained) -> None:
    with pytest.raises(MesmError) as caught:
        require_ready(small_config("model.video_dim=99"), trained.paths, device="cpu")
    assert caught.value.hint
    assert "12 wide" in caught.value.message


@pytest.mark.parametrize("preset", ["charades", "charades-vgg-glove", "jsonl"])
def test_every_text_encoder_says_what_is_missing(mesm, tmp_path: Path, preset: str) -> None:
    result = mesm("train", "--dataset", preset, "--data-dir", tmp_path, "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert "The run cannot start (" in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())
