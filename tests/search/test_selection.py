"""Videos of an index chosen by id, name, path, folder or pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import DataError
from mesm_core.search.segments import pool_segments
from mesm_core.search.selection import select_videos
from tests.search.made import indexed

SEGMENTS = pool_segments(np.ones((4, 3), np.float32), clip_len=1.0, duration=4.0)
PATHS = [Path(f"/films/{name}.mp4") for name in ("v1", "v2", "day/v1b", "day/x")]
VIDEOS = {path.stem: indexed(path.stem, SEGMENTS, 4, path=path) for path in PATHS}


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("v1", ["v1"]),
        ("x.mp4", ["x"]),
        ("/films/v2.mp4", ["v2"]),
        ("/films/day", ["v1b", "x"]),
        ("v*", ["v1", "v2", "v1b"]),
        ("f*", None),
        ("*.mp4", ["v1", "v2", "v1b", "x"]),
        ("/films/*.mp4", ["v1", "v2"]),
        ("day/*", ["v1b", "x"]),
        ("films/v*", ["v1", "v2"]),
        ("", None),
    ],
)
def test_a_pattern_does_not_match_the_names_of_folders(word: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(DataError, match="No video of the index"):
            select_videos(VIDEOS, [word])
    else:
        assert [video.name for video in select_videos(VIDEOS, [word])] == names


def test_relative_paths_start_in_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    videos = {name: indexed(name, SEGMENTS, 4, path=tmp_path / "videos" / f"{name}.mp4") for name in ("v1", "other")}
    assert [video.name for video in select_videos(videos, ["v*"])] == ["v1"]
    with pytest.raises(DataError, match="No video"):
        select_videos(videos, [""])
    assert len(select_videos(videos, ["videos"])) == len(select_videos(videos, ["videos/*"])) == 2
