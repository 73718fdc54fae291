"""``mesm probe``."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mesm_cli.app import app
from mesm_core.errors import DataError
from tests.video.made import constant, make_video

KEYS = {"duration_s", "frame_rate", "variable", "rotation", "width", "height", "frames", "skipped_packets", "rows"}


def test_json_lists_the_rows(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", constant(25, 50))
    done = CliRunner().invoke(app, ["probe", str(path), "--rows", "--clip-len", "1/2", "--json"])
    found = json.loads(done.stdout)
    assert set(found) >= KEYS
    assert found["rows"][1] == {"row": 1, "time_s": pytest.approx(0.72), "frame": 18}
    assert [found["frames"], found["skipped_packets"], found["variable"]] == [50, 0, False]


def test_text_shows_the_properties(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", [*constant(25, 10), *constant(5, 5, start=Fraction(1))])
    done = CliRunner().invoke(app, ["probe", str(path)])
    assert "variable" in done.stdout
    assert "64 × 48" in done.stdout


@pytest.mark.parametrize("clip_len", ["0", "-1", "nan", "two", "1/0", "1e9"])
def test_a_wrong_clip_len_is_refused(tmp_path: Path, clip_len: str) -> None:
    path = make_video(tmp_path / "video.mp4", constant(25, 5))
    assert CliRunner().invoke(app, ["probe", str(path), "--rows", f"--clip-len={clip_len}"]).exit_code == 2


def test_a_missing_video_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No video file"):
        CliRunner().invoke(app, ["probe", str(tmp_path / "none.mp4")], catch_exceptions=False)
