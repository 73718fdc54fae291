"""``mesm locate`` on video files, with zero-shot and with a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from mesm_core.extraction.pipeline import extract
from tests.cli.own_model import train_model
from tests.conftest import Result
from tests.extraction.made import make_videos
from tests.extraction.made import run as extract_videos
from tests.video.made import film

QUERY = "a person opens the door"


def error_text(result: Result) -> str:
    assert result.code == 2, (result.out, result.err)
    return " ".join(result.err.replace("│", " ").split())


def answered(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_a_video_and_a_sentence_give_moments(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "my.mp4")
    shown = mesm("locate", "my.mp4", QUERY, *zero)
    assert shown.code == 0, shown.err
    assert f"{QUERY}  in my.mp4" in shown.out
    assert "saliency" in shown.out
    assert "never trained on moments" in " ".join(shown.err.split())
    found = answered(mesm("locate", "my.mp4", QUERY, *zero, "--json", "--top", 2))
    assert (found["method"], found["model"], found["backbones"], found["clip_len"]) == (
        "zero-shot",
        None,
        ["clip-b32"],
        1,
    )
    (answer,) = found["answers"]
    assert (answer["video"], answer["query"], answer["cached"]) == ("my.mp4", QUERY, True)
    assert answer["duration"] == pytest.approx(8.0)
    assert 0 < len(answer["moments"]) <= 2
    assert all(0 <= m["start"] < m["end"] <= 8 for m in answer["moments"])
    assert len(answer["saliency"]) == 8


def test_cached_answers_need_no_decoding_or_torch(
    mesm: Any, here: Path, zero: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    film(here / "my.mp4")
    first = answered(mesm("locate", "my.mp4", QUERY, *zero, "--json"))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("this was known already")

    monkeypatch.setattr("mesm_core.extraction.cached.extract", never)
    monkeypatch.setattr("mesm_core.extraction.cached.build_backbone", never)
    monkeypatch.setattr("mesm_core.caches.hash_file", never)
    monkeypatch.setattr("mesm_core.build.build_sentences", never)
    (here / "other name.mp4").write_bytes((here / "my.mp4").read_bytes())
    again = answered(mesm("locate", "my.mp4", QUERY, *zero, "--json"))
    assert first["answers"][0]["moments"] == again["answers"][0]["moments"]
    assert not first["answers"][0]["cached"]
    monkeypatch.undo()
    monkeypatch.setenv("MESM_CACHE", str(here.parent / "cache"))
    monkeypatch.setattr("mesm_core.extraction.cached.extract", never)
    copied = answered(mesm("locate", here / "other name.mp4", QUERY, *zero, "--json"))
    assert copied["answers"][0]["moments"] == again["answers"][0]["moments"]


def test_a_replaced_video_is_extracted_again(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "my.mp4", 8)
    answered(mesm("locate", "my.mp4", QUERY, *zero, "--json"))
    film(here / "my.mp4", 4)
    found = answered(mesm("locate", "my.mp4", QUERY, *zero, "--json"))
    assert found["answers"][0]["duration"] == pytest.approx(4.0)
    coarse = answered(mesm("locate", "my.mp4", QUERY, *zero, "--json", "--clip-len", "1/2"))
    assert len(coarse["answers"][0]["saliency"]) == 8


def test_missing_videos_are_not_taken_for_queries(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "my.mp4")
    assert "No video at mine.mp4. Did you mean 'my.mp4'?" in error_text(mesm("locate", "mine.mp4", QUERY, *zero))
    assert "No video at videos/my" in error_text(mesm("locate", "my.mp4", "videos/my", QUERY, *zero))
    assert "give a video" in error_text(mesm("locate", QUERY, *zero))
    assert "give a query" in error_text(mesm("locate", "my.mp4", *zero))
    assert "The query is empty" in error_text(mesm("locate", "my.mp4", " ", *zero))
    (here / "q.txt").write_text("the dog barks\n")
    assert "--queries q.txt" in error_text(mesm("locate", "my.mp4", "q.txt", *zero))
    found = answered(mesm("locate", "--video", "my.mp4", "--query", "say it.mp4", *zero, "--json"))
    assert found["answers"][0]["query"] == "say it.mp4"
    assert not list((here.parent / "cache" / "features").glob("*.npz")) or found["answers"]


def test_several_videos_and_a_file_of_queries(mesm: Any, here: Path, zero: list[object]) -> None:
    (here / "videos").mkdir()
    film(here / "videos" / "a.mp4", 4)
    film(here / "videos" / "b.mkv", 6)
    Path("q.txt").write_text('the dog barks\n{"query": "he sits", "vid": "b"}\n')
    found = answered(mesm("locate", "videos", "--queries", "q.txt", *zero, "--json"))
    assert [(Path(a["video"]).name, a["query"]) for a in found["answers"]] == [
        ("a.mp4", "the dog barks"),
        ("b.mkv", "the dog barks"),
        ("b.mkv", "he sits"),
    ]
    Path("q.txt").write_text('{"query": "he sits", "vid": "c"}\n')
    assert "the vid 'c', which is not one of the videos" in error_text(
        mesm("locate", "videos", "--queries", "q.txt", *zero)
    )


def test_an_unreadable_video_does_not_stop_the_others(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "good.mp4")
    whole = film(here / "cut.mkv", 8).read_bytes()
    (here / "cut.mkv").write_bytes(whole[: len(whole) * 3 // 4])
    (here / "bad.mp4").write_text("no video")
    (here / "empty.mp4").write_bytes(b"")
    done = mesm("locate", "bad.mp4", "cut.mkv", "empty.mp4", "good.mp4", QUERY, *zero, "--json")
    assert "2 of 4 videos" in error_text(done)
    found = json.loads(done.out)
    assert [a["video"] for a in found["answers"]] == ["cut.mkv", "good.mp4"]
    assert [f["video"] for f in found["failed"]] == ["bad.mp4", "empty.mp4"]
    assert "frames were recovered" in " ".join(done.err.split())
    again = mesm("locate", "cut.mkv", QUERY, *zero)
    assert again.code == 0
    assert "frames were recovered" in " ".join(again.err.split())
    assert "bad.mp4 is not a video" in error_text(mesm("locate", "bad.mp4", QUERY, *zero))


def test_missing_weights_are_named_and_not_downloaded(mesm: Any, here: Path) -> None:
    film(here / "my.mp4")
    text = error_text(mesm("locate", "my.mp4", QUERY))
    assert "mesm weights pull clip-b32" in text
    assert "ViT-B-32.pt" in text
    assert "--yes" in text


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model trained on the ``pixels`` features of videos, and the videos."""
    root = tmp_path_factory.mktemp("own")
    videos = make_videos(root / "videos", 1, frames=20)
    extract_videos(videos, root / "out")
    with h5py.File(root / "out" / "pixels.hdf5") as source:
        about = dict(source["v0000"].attrs)
    model = train_model(root, backbone="pixels", width=256, attributes=about, clip_len=0.5)
    return {"model": model, "video": next(videos.iterdir())}


def test_the_model_determines_backbone_and_row_length(mesm: Any, here: Path, own: dict[str, Path]) -> None:
    words = ["locate", own["video"], "The man cuts a pan.", "--model", own["model"]]
    found = answered(mesm(*words, "--json"))
    assert (found["method"], found["backbones"], found["clip_len"]) == ("trained", ["pixels"], 0.5)
    (answer,) = found["answers"]
    assert answer["duration"] == pytest.approx(0.8)
    assert len(answer["saliency"]) == 2
    assert "for demonstrations and tests" in " ".join(mesm(*words).err.split())
    extract_videos(own["video"].parent, here / "out")
    features = ["--features", here / "out" / "pixels.hdf5", "--video", own["video"].stem]
    (predicted,) = json.loads(mesm("predict", own["model"], *features, "The man cuts a pan.", "--json").out)
    assert predicted["moments"] == answer["moments"]
    assert predicted["saliency"] == answer["saliency"]
    assert "trained on rows of 0.5 s, not of 1 s" in error_text(mesm(*words, "--clip-len", 1))
    assert "is not used here" in error_text(mesm(*words, "--weights", "clip-b32=x.pt"))


def test_extract_finds_pulled_weights(mesm: Any, here: Path, archive: Path) -> None:
    make_videos(here / "videos", 1)
    (here / "data" / "weights").mkdir(parents=True)
    (here / "data" / "weights" / "ViT-B-32.pt").write_bytes(archive.read_bytes())
    done = mesm("extract", "videos", "out", "--backbone", "clip-b32", "--clip-len", "1/10")
    assert done.code == 0, done.err


def test_locate_uses_the_pipeline_of_extract() -> None:
    from mesm_core.extraction import cached

    assert cached.extract is extract
