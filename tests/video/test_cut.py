"""Cutting clips: exactly by encoding, at keyframes by copying packets, with audio."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from mesm_core.errors import DataError, OutputError
from mesm_core.video.cut import container_of, cut
from mesm_core.video.probe import probe
from mesm_core.video.rows import read_rows
from tests.video.made import constant, make_video, rotate


def _level(path: Path) -> int:
    first = next(read_rows(path, [Fraction(1, 25)], size=16))
    return round(float(first.pixels.mean())) - 40


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_an_exact_cut_has_the_requested_frames(tmp_path: Path, ending: str) -> None:
    source = make_video(tmp_path / f"source{ending}", constant(25, 100), sound=True)
    target = tmp_path / f"clip{ending}"
    clip = cut(source, target, 1.2, 2.8, container=container_of(target))
    found = probe(target)
    assert (clip.start, clip.end, clip.frames) == (pytest.approx(1.2), pytest.approx(2.8), 40)
    assert (found.frames, found.duration_s) == (40, pytest.approx(1.6, abs=0.01))
    assert {stream["type"] for stream in found.streams} == {"video", "audio"}
    assert abs(_level(target) - 30) <= 2


def test_a_fast_cut_starts_at_a_keyframe(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", constant(25, 100), sound=True, gop=10)
    target = tmp_path / "clip.mp4"
    clip = cut(source, target, 1.3, 2.0, container="mp4", fast=True)
    assert clip.start == pytest.approx(1.2)
    assert clip.end >= 2.0
    found = probe(target)
    assert found.frames == clip.frames
    assert not found.variable
    assert abs(_level(target) - 30) <= 2


def test_a_rotated_video_without_audio_is_cut_upright(tmp_path: Path) -> None:
    source = make_video(tmp_path / "phone.mp4", constant(25, 30))
    rotate(source, 90)
    target = tmp_path / "clip.mp4"
    clip = cut(source, target, 0.0, 0.5, container="mp4")
    found = probe(target)
    assert (found.width, found.height, found.rotation) == (48, 64, 0)
    assert clip.audio_frames == 0


@pytest.mark.parametrize(
    ("size", "shown"), [((1000, 1500), (720, 1080)), ((65, 49), (64, 48)), ((2160, 722), (2154, 720))]
)
def test_a_preview_of_a_large_video_is_smaller(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    source = make_video(tmp_path / "large.mkv", constant(5, 2), size=size, codec="ffv1")
    clip = cut(source, tmp_path / "clip.mp4", 0.0, 0.4, container="mp4", preview=True)
    found = probe(tmp_path / "clip.mp4")
    assert (clip.frames, found.width, found.height) == (2, *shown)


@pytest.mark.parametrize(("place", "fast"), [(131, True), (137, True), (137, False)])
def test_a_cut_of_damaged_timestamps_is_refused(tmp_path: Path, place: int, fast: bool) -> None:
    source = make_video(tmp_path / "source.avi", constant(25, 5), codec="mpeg4")
    content = bytearray(source.read_bytes())
    content[place] = 255  # the stream's rate, its first frame
    source.write_bytes(content)
    with pytest.raises(DataError, match="cannot be stored as mp4"):
        cut(source, tmp_path / "clip.mp4", 0, 0.2, container="mp4", fast=fast)


def test_a_cut_after_the_end_is_refused(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", constant(25, 25))
    with pytest.raises(DataError, match="no frame between"):
        cut(source, tmp_path / "clip.mp4", 5.0, 6.0, container="mp4")


def test_unknown_suffixes_are_refused() -> None:
    with pytest.raises(OutputError, match=r"\.mp4"):
        container_of(Path("clip.gif"))
