"""The same seed and the same data give the same weights; a run can be repeated from its record."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.training.run import Run
from tests.conftest import Trained, small_config

CPU = torch.device("cpu")


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / name).model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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
