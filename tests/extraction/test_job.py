"""Extraction of feature files: their content, resuming, and interruptions."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.backbones.clip_image import ClipImageTransformer
from mesm_core.errors import FeatureError, OutputError
from mesm_core.extraction import work
from mesm_core.extraction.job import Extraction
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.setup import Options
from mesm_core.extraction.sources import content_hash, find_videos
from tests.extraction.made import SETTINGS, content, make_videos, run, same
from tests.limits import files_of_at_most
from tests.video.made import constant, make_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("made") / "videos", 4, frames=30)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny image tower for pictures of 224 pixels, in OpenAI's names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    model = ClipImageTransformer(side=224, patch=32, width=64, layers=1, heads=1, out=16)
    torch.save({f"visual.{name}": torch.randn_like(value) * 0.1 for name, value in model.state_dict().items()}, path)
    return path


def test_each_backbone_has_a_file_with_metadata(videos: Path, clip: Path, tmp_path: Path) -> None:
    report = run(videos, tmp_path / "out", names=("pixels", "clip-b32"), weights={"clip-b32": clip})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip_image.hdf5", "pixels.hdf5"]
    assert report.videos == 4
    assert not report.bad
    features, attributes = content(tmp_path / "out" / "clip_image.hdf5")["v0001"]
    assert features.dtype == np.float16
    assert features.shape == (2, 16)
    assert len(attributes.pop("weights")) == 32
    assert attributes == {
        "frames": 2,
        "fps": 2.0,
        "duration": 1.2,
        "backbone": "clip-b32",
        "clip_len": 0.5,
        "interpolation": "bilinear",
        "precision": "fp32",
        "dtype": "float16",
        "version": 1,
        "source": "v0001.avi",
        "source_hash": content_hash(videos / "v0001.avi"),
        "decoded_frames": 30,
        "skipped_packets": 0,
    }


def test_existing_outputs_are_refused_resumed_or_overwritten(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(videos, out)
    first = content(out / "pixels.hdf5")
    with pytest.raises(OutputError, match="already exists") as refused:
        run(videos, out)
    assert "--resume" in str(refused.value.hint)
    before = (out / "pixels.hdf5").stat()
    report = run(videos, out, resume=True)
    assert (report.videos, report.already, report.frames) == (0, 4, 0)
    assert (out / "pixels.hdf5").stat().st_mtime_ns == before.st_mtime_ns
    report = run(videos, out, overwrite=True)
    assert (report.videos, report.already) == (4, 0)
    assert same(first, content(out / "pixels.hdf5"))


def test_resume_identifies_videos_by_content_and_settings(tmp_path: Path) -> None:
    videos, out = make_videos(tmp_path / "videos", 3), tmp_path / "out"
    run(videos, out)
    (videos / "v0000.avi").write_bytes((videos / "v0001.avi").read_bytes())
    report = run(videos, out, resume=True)
    assert (report.videos, report.already) == (1, 2)
    found = content(out / "pixels.hdf5")
    assert np.array_equal(found["v0000"][0], found["v0001"][0])
    report = run(videos, out, resume=True, settings=Settings(Fraction(1, 10)))
    assert (report.videos, report.already) == (3, 0)
    assert {node[1]["clip_len"] for node in content(out / "pixels.hdf5").values()} == {0.1}


def test_resume_does_not_mix_settings(tmp_path: Path) -> None:
    videos, out = make_videos(tmp_path / "videos", 3), tmp_path / "out"
    run(videos, out)
    before = (out / "pixels.hdf5").read_bytes()
    (videos / "v0002.avi").unlink()
    with pytest.raises(FeatureError, match=r"1 video that are? not among the sources"):
        run(videos, out, resume=True, settings=Settings(Fraction(1)))
    assert (out / "pixels.hdf5").read_bytes() == before
    make_videos(tmp_path / "more", 5)
    report = run(tmp_path / "more", out, resume=True)
    assert (report.videos, report.already) == (2, 3)
    assert len(content(out / "pixels.hdf5")) == 5


def test_an_unreadable_video_is_reported_and_the_others_are_extracted(tmp_path: Path) -> None:
    videos, out = make_videos(tmp_path / "videos", 4), tmp_path / "out"
    (videos / "v0001.avi").write_bytes(b"no video at all")
    (videos / "v0002.avi").write_bytes(b"")
    report = run(videos, out)
    assert sorted(content(out / "pixels.hdf5")) == ["v0000", "v0003"]
    reasons = {video.name: reason for video, reason in report.bad}
    assert sorted(reasons) == ["v0001", "v0002"]
    assert "not a video" in reasons["v0001"]
    assert "empty (0 bytes)" in reasons["v0002"]


def test_features_are_removed_if_the_replaced_video_is_unreadable(tmp_path: Path) -> None:
    videos, out = make_videos(tmp_path / "videos", 2), tmp_path / "out"
    run(videos, out)
    (videos / "v0001.avi").write_bytes(b"no video at all")
    report = run(videos, out, resume=True)
    assert len(report.bad) == 1
    assert sorted(content(out / "pixels.hdf5")) == ["v0000"]


def test_no_files_remain_if_all_videos_are_unreadable(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "v.mp4").write_bytes(b"")
    assert len(run(videos, tmp_path / "out").bad) == 1
    assert not (tmp_path / "out").exists()


def test_recovery_of_a_truncated_video_is_reported(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    path = make_video(videos / "v.mkv", constant(25, 200), pictures=_noise(200), size=(64, 48))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = run(videos, tmp_path / "out")
    assert not report.bad
    assert "frames were recovered" in report.warnings[0][1]
    assert "of the 8.0 s in its header" in report.warnings[0][1]


def _noise(frames: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(frames)]


def test_features_out_of_the_range_of_float16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"up to 1e\+05, beyond the range of float16"):
        SETTINGS.stored(np.array([[1.0, 1e5]], np.float32))
    with pytest.raises(FeatureError, match="NaN"):
        SETTINGS.stored(np.array([[1.0, np.nan]], np.float32))


def test_an_interrupted_extraction_keeps_finished_videos(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = Extraction(find_videos([videos]), out, ["pixels"], settings=SETTINGS, options=Options(decoders=1))
    events = job.run()
    for event in events:
        if isinstance(event, work.Done):
            break
    events.close()  # as Ctrl-C does
    assert [path.name for path in out.iterdir()] == ["extract.parts"]
    with pytest.raises(OutputError, match="remains from an earlier extraction"):
        run(videos, out)
    report = run(videos, out, resume=True)
    assert report.already >= 1
    assert report.videos + report.already == 4
    run(videos, tmp_path / "whole")
    assert same(content(out / "pixels.hdf5"), content(tmp_path / "whole" / "pixels.hdf5"))
    assert [path.name for path in out.iterdir()] == ["pixels.hdf5"]


def test_a_full_disk_keeps_finished_parts(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files_of_at_most(4000), pytest.raises(OutputError, match=r"pixels\.hdf5") as raised:
        run(videos, out)
    assert "--resume continues" in str(raised.value.hint)
    assert [path.name for path in out.iterdir()] == ["extract.parts"]
    assert len(list((out / "extract.parts").glob("*.npz"))) == 4
    assert run(videos, out, resume=True).already == 4
    with files_of_at_most(0), pytest.raises(OutputError):
        run(videos, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_locked_or_invalid_outdir_is_refused(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a folder"):
        run(videos, tmp_path / "file" / "out")
    folder = work.WorkFolder(tmp_path / "out" / "extract.parts")
    with folder.locked(), pytest.raises(OutputError, match="Another process is extracting"):
        run(videos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unsupported_row_lengths_are_refused_before_any_work(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="i3d features: their exact weights"):
        run(videos, tmp_path / "out", names=("i3d",))
    with pytest.raises(FeatureError, match=r"The weights .clip-b32. .* were not found"):
        run(videos, tmp_path / "out", names=("clip-b32",))
    assert not (tmp_path / "out").exists()


def test_several_processes_extract_the_same_features(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 5)
    (videos / "v0003.avi").write_bytes(b"")
    run(videos, tmp_path / "one")
    report = run(videos, tmp_path / "two", options=Options(processes=2, device="cpu"))
    assert same(content(tmp_path / "one" / "pixels.hdf5"), content(tmp_path / "two" / "pixels.hdf5"))
    assert (report.videos, report.frames) == (4, 20)
    assert "empty (0 bytes)" in report.bad[0][1]


def test_a_killed_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_videos(tmp_path / "videos", 3)
    (tmp_path / "dies.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr("mesm_core.extraction.processes.WORKER", "dies")
    report = run(videos, tmp_path / "out", options=Options(processes=2, device="cpu"))
    assert len(report.bad) == 3
    assert all("ended with signal 9 (SIGKILL)" in reason for _, reason in report.bad)


def test_the_command_prints_json(videos: Path, tmp_path: Path, mesm: Any) -> None:
    done = mesm("extract", videos, tmp_path / "out", "--backbone", "pixels", "--clip-len", "1/2", "--json")
    assert done.code == 0
    assert json.loads(done.out)["rows"] == {"pixels": 8}
    assert "for demonstrations and tests" in done.err
