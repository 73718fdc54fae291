"""Decoding, probing and scaling of real and damaged videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mesm_core.errors import DataError
from mesm_core.video.probe import probe
from mesm_core.video.rows import Pass, read_rows
from mesm_core.video.scale import Scaler, geometry
from mesm_core.video.source import Video
from mesm_core.video.times import choose_rows
from tests.video.golden import GOLDEN, MEDIA, golden_json, needs_shared
from tests.video.made import constant, make_video, rotate

SECOND = Fraction(1)


@needs_shared
@pytest.mark.parametrize("name", ["3MSZA.mp4", "charades.mp4"])
@pytest.mark.parametrize("rate", ["1/2", "1", "2", "30"])
def test_rows_of_real_videos_match_the_worked_examples(name: str, rate: str) -> None:
    about = golden_json("frame_times.json")["videos"][name]
    expected = about["sampling"][rate]
    found = probe(MEDIA / name, clip_len=1 / Fraction(rate))
    assert [row.frame for row in found.rows] == expected["frame_index"]
    if "time_s" in expected:
        assert [round(row.time_s, 6) for row in found.rows] == expected["time_s"]
    assert (found.frames, found.width, found.height) == (about["frames"], about["width"], about["height"])
    assert found.duration_s == pytest.approx(about["t_end"], abs=1e-9)
    assert found.frame_rate == pytest.approx(float(Fraction(about["average_rate"])))
    assert not found.variable
    assert found.skipped_packets == 0


@needs_shared
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_match_ffmpeg(interpolation: Any) -> None:
    golden = np.load(GOLDEN / "clip_preprocess_ffmpeg.npz")
    pictures = list(read_rows(MEDIA / "3MSZA.mp4", [2 * SECOND], interpolation=interpolation))
    chosen = [pictures[row] for row in golden["row"]]
    assert [picture.frame for picture in chosen] == golden["frame_index"].tolist()
    assert np.array_equal(np.stack([picture.pixels for picture in chosen]), golden[f"u8_{interpolation}"])


@needs_shared
def test_geometry_matches_the_published_extractor() -> None:
    for case in golden_json("resize_dims.json")["cases"]:
        found, expected = geometry(case["width"], case["height"]), case["extractor"]
        assert (found.width, found.height, found.x, found.y) == tuple(
            expected[k] for k in ("width", "height", "x", "y")
        )


def _levels(path: Path, clip_len: Fraction) -> list[int]:
    """Return the number that each row's frame shows."""
    return [round(float(picture.pixels.mean())) - 40 for picture in read_rows(path, [clip_len], size=16)]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi", ".ts"])
def test_containers_give_the_same_rows(tmp_path: Path, ending: str) -> None:
    times = constant(25, 60)
    codec = "libvpx" if ending == ".webm" else "libx264"
    path = make_video(tmp_path / f"video{ending}", times, codec=codec)
    expected = choose_rows(times, last_duration=Fraction(1, 25), clip_len=SECOND / 2)
    found = probe(path, clip_len=SECOND / 2)
    assert [row.frame for row in found.rows] == expected
    assert found.frames == 60
    assert not found.variable
    assert found.duration_s == pytest.approx(2.4, abs=0.002)
    levels = _levels(path, SECOND / 2)
    assert np.abs(np.array(levels) - expected).max() <= 2


def test_a_variable_rate_is_detected_and_sampled_by_time(tmp_path: Path) -> None:
    times = [*constant(25, 25), *constant(5, 10, start=Fraction(1)), *constant(25, 25, start=Fraction(3))]
    path = make_video(tmp_path / "vfr.mp4", times)
    found = probe(path, clip_len=SECOND)
    assert found.variable
    assert [row.frame for row in found.rows] == choose_rows(times, last_duration=Fraction(1, 25), clip_len=SECOND)


def test_ntsc_rates_rounded_to_milliseconds_are_constant(tmp_path: Path) -> None:
    path = make_video(tmp_path / "ntsc.mkv", constant(Fraction(30_000, 1001), 90))
    assert not probe(path).variable


def test_a_video_that_starts_after_its_audio_keeps_its_times(tmp_path: Path) -> None:
    times = constant(25, 50, start=Fraction(17, 10))
    path = make_video(tmp_path / "late.mkv", times, sound=True)
    found = probe(path, clip_len=SECOND)
    assert found.rows[0].time_s == pytest.approx(1.7, abs=0.8)
    assert [row.frame for row in found.rows] == choose_rows(times, last_duration=Fraction(1, 25), clip_len=SECOND)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_frames_are_turned_upright(tmp_path: Path, degrees: int) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :16] = (250, 20, 20)  # a red bar at the left of the stored frame
    path = make_video(tmp_path / "phone.mp4", constant(25, 4), pictures=[picture] * 4)
    rotate(path, degrees)
    (shown,) = list(read_rows(path, [SECOND], size=48))
    upright = np.rot90(picture, -degrees // 90)
    expected = geometry(upright.shape[1], upright.shape[0], size=48)
    assert (expected.width, expected.height) == ((48, 64) if degrees % 180 else (64, 48))
    # Of the bar, the crop keeps what lies within the middle square.
    middle = upright[8:56] if degrees % 180 else upright[:, 8:56]
    assert np.abs(shown.pixels.astype(int) - middle).mean() < 12
    assert probe(path).rotation % 360 == -degrees % 360


def test_attached_pictures_are_not_video_streams(tmp_path: Path) -> None:
    still = make_video(tmp_path / "cover.png", [Fraction(0)], codec="png", pixel_format="rgb24")
    path = tmp_path / "song.mka"
    with av.open(str(path), "w", format="matroska") as output:
        output.add_attachment("cover.png", "image/png", still.read_bytes())
        stream = output.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    with pytest.raises(DataError, match="no video stream"):
        probe(path)


def test_frames_of_a_truncated_file_are_recovered(tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.ts", constant(25, 100))
    content = path.read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(content[: len(content) // 2])
    found = probe(cut, clip_len=SECOND / 5)
    assert 10 < found.frames < 100
    assert found.duration_s < 4
    assert len(found.rows) == round(found.duration_s * 5 + 1e-9)


def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.mp4", constant(25, 100), gop=5)
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 3
    content[middle : middle + 200] = bytes(np.random.default_rng(0).integers(0, 256, 200, np.uint8))
    path.write_bytes(content)
    report = Pass()
    rows = list(read_rows(path, [SECOND], report=report))
    assert report.complete
    assert report.frames > 60
    assert len(rows) == 4


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 20, bytes(1000), b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_files_that_are_not_videos_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd 'name'\n: 1.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        probe(path)
    assert str(path) in caught.value.message


def test_playlists_are_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "other.ts", constant(25, 5))
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError, match="not a video"):
        probe(path)


def test_a_missing_index_is_named_in_the_error(tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.mp4", constant(25, 50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not a video that mesm can read") as caught:
        probe(path)
    assert "index" in str(caught.value.hint)


@pytest.mark.parametrize("size", [(2, 2), (16, 200), (64, 36)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le", "yuva420p"])
def test_unusual_sizes_and_pixel_formats_are_scaled(tmp_path: Path, size: tuple[int, int], pixel_format: str) -> None:
    codec = "ffv1" if pixel_format != "yuv420p" else "libx264"
    path = make_video(tmp_path / "odd.mkv", constant(25, 3), size=size, codec=codec, pixel_format=pixel_format)
    (picture,) = list(read_rows(path, [SECOND]))
    assert picture.pixels.shape == (224, 224, 3)


def test_a_scaler_accepts_frames_of_several_sizes() -> None:
    scaler = Scaler(size=32)
    for height, width in ((48, 64), (64, 48), (48, 64)):
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="rgb24")
        frame.time_base = Fraction(1, 25)
        assert np.abs(scaler(frame).astype(int) - 90).max() <= 1


def test_two_clocks_share_one_decoding_pass(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", constant(25, 60))
    both = list(read_rows(path, [SECOND, SECOND / 5], size=16))
    for number, clip_len in enumerate((SECOND, SECOND / 5)):
        alone = list(read_rows(path, [clip_len], size=16))
        mine = [picture for picture in both if picture.clock == number]
        assert [(p.row, p.frame) for p in mine] == [(p.row, p.frame) for p in alone]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(mine, alone, strict=True))


def test_a_short_video_has_one_row(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", constant(25, 5))
    assert [(p.row, p.frame) for p in read_rows(path, [2 * SECOND], size=16)] == [(0, 4)]


def test_rows_do_not_depend_on_decoder_threads(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", constant(25, 60))
    one, two = (list(read_rows(path, [SECOND / 5], size=16, threads=n)) for n in (1, 2))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, two, strict=True))


def test_a_timestamp_far_in_the_future_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "far.mkv", [*constant(25, 5), Fraction(40_000)])
    with Video(path) as video, pytest.raises(DataError, match="over an hour"):
        list(video.frames())


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mkv", constant(25, 5))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_XXXX4/ISO/AVC"))
    with pytest.raises(DataError, match="unknown codec"):
        probe(path)


def test_metadata_that_is_not_utf8_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "A" * 8
        stream = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"A" * 8 in content
    path.write_bytes(content.replace(b"A" * 8, b"\xff\xfe" * 4))
    assert probe(path).frames == 1


@pytest.mark.parametrize(("start", "shown"), [(Fraction(0), 50), (Fraction(-2, 5), 40), (Fraction(1), 50)])
def test_edit_lists_are_applied(tmp_path: Path, start: Fraction, shown: int) -> None:
    """An edit list hides frames before the first shown one, or shifts a late start."""
    path = make_video(tmp_path / "edited.mp4", constant(25, 50, start=start))
    assert b"elst" in path.read_bytes()
    with Video(path) as video:
        times = [frame.time for frame in video.frames()]
    assert times == [Fraction(number, 25) for number in range(shown)]


def test_ten_bit_frames_of_high_dynamic_range_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.options = {"x264-params": "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
        for level in (100, 200):
            picture = np.full((48, 64, 3), level, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    with Video(path) as video:
        assert video.stream.codec_context.color_trc == 16  # PQ
    dark, bright = (picture.pixels for picture in read_rows(path, [Fraction(1, 5)]))
    assert dark.shape == bright.shape == (224, 224, 3)
    assert bright.mean() - dark.mean() > 50
