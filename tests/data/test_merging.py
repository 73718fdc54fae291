"""Merging feature files, and refusing files that do not belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mesm_core.data.merging import find_shards, merge
from mesm_core.errors import FeatureError, OutputError

MADE = {"backbone": "clip-b32", "weights": "a" * 32, "clip_len": 2.0, "interpolation": "bilinear", "dtype": "float16"}


def shard(path: Path, videos: Mapping[str, float], *, width: int = 3, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in videos.items():
            node = file.create_dataset(name, data=np.full((2, width), value, np.float16))
            node.attrs.update(attributes)
    return path


def test_merged_videos_keep_their_attributes(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.hdf5", {"a": 1, "group/c": 2}, **MADE, source="a.mp4", frames=2)
    two = shard(tmp_path / "2.hdf5", {"b": 3, "a": 1}, **MADE)
    report = merge([one, two], tmp_path / "out.hdf5")
    assert (report.videos, report.repeated, report.rows) == (3, 1, 6)
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert dict(file["a"].attrs) == MADE | {"source": "a.mp4", "frames": 2}
        assert file["group/c"][0, 0] == 2
        assert file["b"].dtype == np.float16


def test_an_attribute_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "1.hdf5", {"a": 1}, **MADE)
    with h5py.File(path, "r+") as file:
        file["a"].attrs["source"] = b"caf\xe9"
    with pytest.raises(FeatureError, match="the attribute 'source' is not UTF-8 text"):
        merge([path], tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()


@pytest.mark.parametrize(
    ("videos", "changes", "message"),
    [
        ({"b": 1}, {"backbone": "pixels"}, "has clip-b32, .* has pixels"),
        ({"b": 1}, {"clip_len": 1.0}, "has clip_len 2, .* has clip_len 1"),
        ({"b": 1}, {"weights": "b" * 32}, "weights aaaaaaaaaaaa, .* weights bbbbbbbbbbbb"),
        ({"b": 1}, {"width": 4}, "width 3, .* width 4"),
        ({"a": 2}, {}, "1 video with different features in two files: a "),
    ],
)
def test_files_with_different_settings_or_features_are_refused(
    tmp_path: Path, videos: dict[str, float], changes: dict[str, Any], message: str
) -> None:
    one = shard(tmp_path / "1.hdf5", {"a": 1}, **MADE)
    two = shard(tmp_path / "2.hdf5", videos, **(MADE | changes))
    with pytest.raises(FeatureError, match=message):
        merge([one, two], tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()


def test_inputs_and_existing_outputs_are_not_overwritten(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.hdf5", {"a": 1})
    with pytest.raises(OutputError, match="one of the files this command reads"):
        merge([one], one, overwrite=True)
    (tmp_path / "out.hdf5").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        merge([one], tmp_path / "out.hdf5")
    assert (tmp_path / "out.hdf5").read_text() == "mine"
    with pytest.raises(FeatureError, match="No feature file at"):
        find_shards([str(tmp_path / "*.h5")])


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.hdf5", {"a": 1})
    with h5py.File(one, "r+") as file:
        file.id.links.move(b"a", file.id, b"caf\xe9")
    with pytest.raises(FeatureError, match="a name that is not UTF-8"):
        merge([one], tmp_path / "out.hdf5")
