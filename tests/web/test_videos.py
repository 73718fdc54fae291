"""Video files without an index: prepared in a child process, asked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesm_core.errors import TextError
from mesm_core.extraction.cache import FeatureCache
from mesm_core.inference.locate import Locator, locate
from mesm_core.web.collection import Progress
from mesm_core.web.videos import VideoCollection
from mesm_core.web.workers import Cancel, StoppedError
from tests.tiny_clip import write_clip
from tests.video.made import aged, film

QUERY = "a person opens the door"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The weights of a tiny CLIP, and a cache that has the features of films of 4, 6 and 8 seconds."""
    folder = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESM_CACHE", str(folder / "cache"))
        files = {"clip-b32": aged(write_clip(folder / "ViT-B-32.pt"))}
        films = {film(folder / f"{seconds}.mp4", seconds): [QUERY] for seconds in (4, 6, 8)}
        assert len(list(Locator.load(weights=files, device="cpu").locate_many(films))) == 3
        yield files


@pytest.fixture
def collection(weights: dict[str, Path], tmp_path: Path) -> Iterator[VideoCollection]:
    """Two videos, and zero-shot."""
    film(tmp_path / "a.mp4", 8)
    film(tmp_path / "b.mp4", 6)
    made = VideoCollection([tmp_path], Locator.load(weights=weights, device="cpu"), device="cpu")
    yield made
    made.close()


def prepare(collection: VideoCollection, *, cancel: Cancel | None = None) -> tuple[dict[str, str], list[Progress]]:
    """Prepare all videos; return the reasons of those that failed by name, and the progress."""
    seen: list[Progress] = []
    videos = collection.videos()
    failed = collection.prepare(list(videos), progress=seen.append, cancel=cancel or Cancel())
    return {videos[key].name: reason for key, reason in failed.items()}, seen


def test_prepared_videos_are_answered_as_locate_does(
    collection: VideoCollection, weights: dict[str, Path], tmp_path: Path
) -> None:
    by_name = {video.name: key for key, video in collection.videos().items()}
    assert list(by_name) == ["a.mp4", "b.mp4"]
    assert collection.locate(by_name["a.mp4"], QUERY) is None
    assert collection.search(QUERY, top=5).searched == 0
    failed, progress = prepare(collection)
    assert failed == {}
    assert progress[-1] == Progress(1.0, 2)
    answer = collection.locate(by_name["a.mp4"], QUERY)
    expected = locate(tmp_path / "a.mp4", QUERY, weights=weights, device="cpu")
    assert answer is not None
    assert answer.answers[0].moments == expected.answers[0].moments
    found = collection.search(QUERY, top=3)
    assert found.searched == 2
    assert [hit.moment.score for hit in found.hits] == sorted((hit.moment.score for hit in found.hits), reverse=True)
    assert found.hits[0].moment.score == max(
        located.answers[0].moments[0].score
        for name in ("a.mp4", "b.mp4")
        if (located := collection.locate(by_name[name], QUERY)) is not None
    )
    with pytest.raises(TextError):
        collection.search(" ", top=1)


def test_new_videos_are_extracted_and_those_that_cannot_be_read_are_named(
    collection: VideoCollection, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    collection.add(tmp_path / "bad.mp4", "bad.mp4")
    collection.add(film(tmp_path / "new.mp4", 3), "new.mp4")
    failed, progress = prepare(collection)
    assert list(failed) == ["bad.mp4"]
    assert failed["bad.mp4"].startswith("bad.mp4 is not a video")
    assert str(tmp_path) not in failed["bad.mp4"]
    assert [step.share for step in progress] == sorted(step.share for step in progress)
    assert progress[-1] == Progress(1.0, 4)
    assert collection.search(QUERY, top=1).searched == 3


def test_a_new_start_finds_the_features_in_the_cache(collection: VideoCollection, weights: Any, tmp_path: Path) -> None:
    prepare(collection)
    again = VideoCollection([tmp_path], Locator.load(weights=weights, device="cpu"), device="cpu")
    assert [again.prepared(key) for key in again.videos()] == [True, True]
    assert list(again.videos()) == list(collection.videos())
    again.close()


def test_a_replaced_video_is_prepared_again(collection: VideoCollection, tmp_path: Path) -> None:
    prepare(collection)
    key = next(iter(collection.videos()))
    film(tmp_path / "new.mp4", 4).replace(tmp_path / "a.mp4")
    assert not collection.prepared(key)
    assert collection.locate(key, QUERY) is None
    prepare(collection)
    located = collection.locate(key, QUERY)
    assert located is not None
    assert located.duration == pytest.approx(4)


def test_features_that_the_cache_has_dropped_are_extracted_again(
    collection: VideoCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(collection)
    (key, *_) = collection.videos()
    assert collection.prepared(key)
    for state in collection._states.values():
        state.features = None
    with monkeypatch.context() as patch:
        patch.setattr(FeatureCache, "read", lambda cache, name: None)
        assert collection.locate(key, QUERY) is None
        assert not collection.prepared(key)
    prepare(collection)
    assert collection.locate(key, QUERY) is not None


def test_cancelled_videos_are_not_prepared_and_can_be_later(collection: VideoCollection) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(StoppedError):
        prepare(collection, cancel=cancel)
    assert not any(collection.prepared(key) for key in collection.videos())
    prepare(collection)
    assert collection.search(QUERY, top=1).searched == 2


def test_damaged_features_in_the_cache_are_extracted_again(collection: VideoCollection, weights: Any) -> None:
    prepare(collection)
    (key, *_) = collection.videos()
    for path in (weights["clip-b32"].parent / "cache" / "features").glob("*.npz"):
        path.write_bytes(b"damaged")
    assert collection.prepared(key)  # as far as is known
    assert collection.locate(key, QUERY) is None
    assert not collection.prepared(key)
    prepare(collection)
    assert collection.locate(key, QUERY) is not None
