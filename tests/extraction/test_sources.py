"""Search of folders for video files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mesm_core.extraction.sources import find_videos


def test_folders_are_searched_recursively_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("two.MP4", "a/b/one.mkv", "a/notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "b", target_is_directory=True)
    assert [video.path for video in find_videos([tmp_path])] == [tmp_path / "a/b/one.mkv", tmp_path / "two.MP4"]


def test_a_folder_that_disappears_during_the_search_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("leaves", "stays"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").touch()
    scandir = os.scandir

    def removed_first(path: Any = ".") -> Any:
        if str(path).endswith("leaves") and Path(path).is_dir():
            Path(path).rename(tmp_path.with_name("elsewhere"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removed_first)
    assert [video.name for video in find_videos([tmp_path])] == ["stays"]
