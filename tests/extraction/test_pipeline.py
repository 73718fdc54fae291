"""The extraction pipeline: one decoding pass per video, batches of several videos, and unreadable videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mesm_core.backbones.pixels import Pixels
from mesm_core.backbones.protocol import Backbone
from mesm_core.errors import DataError
from mesm_core.extraction.pipeline import Extracted, Failed, extract
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.sources import VideoFile, find_videos
from tests.video.made import constant, make_video

SETTINGS = Settings(Fraction(1, 2))


class Halves(Pixels):
    """A second backbone, with rows of half the length."""

    name = "halves"

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        return clip_len / 2


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoFile]:
    for number, frames in enumerate((30, 55, 80)):
        make_video(tmp_path / f"v{number}.mp4", constant(25, frames), size=(64, 36))
    return find_videos([tmp_path])


def _run(videos: list[VideoFile], backbones: list[Backbone], **options: int) -> dict[str, Extracted | Failed]:
    events = extract(videos, [backbones] * len(videos), settings=SETTINGS, **options)
    return {event.video.name: event for event in events if isinstance(event, Extracted | Failed)}


@pytest.mark.parametrize(("batch_size", "decoders"), [(1, 1), (3, 2), (100, 3)])
def test_features_do_not_depend_on_batches_and_threads(videos: list[VideoFile], batch_size: int, decoders: int) -> None:
    found = _run(videos, [Pixels(), Halves()], batch_size=batch_size, decoders=decoders)
    alone = {video.name: _run([video], [Pixels()])[video.name] for video in videos}
    assert sorted(found) == ["v0", "v1", "v2"]
    for name, result in found.items():
        expected = alone[name]
        assert isinstance(result, Extracted)
        assert isinstance(expected, Extracted)
        assert np.array_equal(result.features["pixels"], expected.features["pixels"])
        assert abs(len(result.features["halves"]) - 2 * len(result.features["pixels"])) <= 1


def test_an_unreadable_video_does_not_stop_the_others(videos: list[VideoFile]) -> None:
    videos[1].path.write_bytes(b"no video")
    found = _run(videos, [Pixels()])
    bad = found["v1"]
    assert isinstance(bad, Failed)
    assert "not a video" in bad.reason
    assert isinstance(found["v2"], Extracted)


def test_two_videos_with_the_same_name_are_refused(videos: list[VideoFile], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "v1.mkv").write_bytes(b"")
    with pytest.raises(DataError, match="Two videos have the same name 'v1'"):
        find_videos([tmp_path])


def test_shards_partition_the_videos(videos: list[VideoFile], tmp_path: Path) -> None:
    shards = [find_videos([tmp_path], shard=(number, 2)) for number in (1, 2)]
    assert sorted(video.name for shard in shards for video in shard) == ["v0", "v1", "v2"]
