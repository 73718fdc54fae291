"""Stored features of single videos: what is written is read, and what is damaged counts as absent."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mesm_core.extraction.parts import Parts


def test_features_and_metadata_are_read_as_written(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
    Parts(tmp_path).write("a", rows, {"duration": 5.0})
    found = Parts(tmp_path).read("a")
    assert found is not None
    np.testing.assert_array_equal(found[0], rows)
    assert found[1] == {"duration": 5.0}
    assert Parts(tmp_path).read("b") is None


@pytest.mark.parametrize(
    "features",
    [np.array([[b"", b""]]), np.zeros(4, np.float32), np.float32(1), np.ones((2, 2), np.int64)],
    ids=range(4),
)
def test_features_of_another_kind_count_as_damaged(tmp_path: Path, features: np.ndarray) -> None:
    Parts(tmp_path).write("a", np.asarray(features), {})
    assert Parts(tmp_path).read("a") is None


def test_a_member_that_is_no_array_counts_as_damaged(tmp_path: Path) -> None:
    Parts(tmp_path).write("a", np.ones((2, 2), np.float32), {})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        about = archive.read("about.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("about.npy", about)
        archive.writestr("features.npy", b"noise")
    assert Parts(tmp_path).read("a") is None
