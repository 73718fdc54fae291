"""Search in planted videos: both stages, order, filters, minimum confidence, and moments like another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import ConfigError, DataError, MesmError, TextError
from mesm_core.search import Found, Searcher
from mesm_core.search.results import Example
from mesm_core.search.searcher import MomentModel
from tests.search.made import WIDTH
from tests.search.planted import LENGTHS, MOMENTS, Halves, Sentences, index_of, planted_index, planted_rows, vector_of


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return Searcher(planted_index(tmp_path_factory.mktemp("index") / "i"), Sentences())


def iou(found: Found, start: float, end: float) -> float:
    together = max(min(found.end, end) - max(found.start, start), 0.0)
    return together / (max(found.end, end) - min(found.start, start))


@pytest.mark.parametrize("sentence", list(MOMENTS))
def test_both_stages_find_the_planted_moment_first(searcher: Searcher, sentence: str) -> None:
    video, start, end = MOMENTS[sentence]
    (one,) = searcher.search([sentence], stage=1)
    (two,) = searcher.search([sentence])
    assert one.found[0].video.name == two.found[0].video.name == video
    assert iou(one.found[0], start, end) > 0.3
    assert iou(two.found[0], start, end) > 0.8
    assert one.found[0].score is None
    assert [found.similarity for found in one.found] == sorted((f.similarity for f in one.found), reverse=True)
    for found in two.found:
        assert 0 <= found.start < found.end <= LENGTHS[found.video.name]
        assert found.confidence is None


def test_several_queries_are_answered_as_one_by_one(searcher: Searcher) -> None:
    seen: list[int] = []
    together = searcher.search(list(MOMENTS), top=3, progress=seen.append)
    assert together == [searcher.search([sentence], top=3)[0] for sentence in MOMENTS]
    assert seen == [1, 1, 1]
    assert all(len(result.found) == 3 for result in together)


def test_a_calibrated_model_orders_moments_by_confidence(searcher: Searcher) -> None:
    halves = Halves()
    model = MomentModel(halves, ("clip-b32",), longest=60.0, part=24.0)
    calibrated = Searcher(searcher.index, Sentences(), model)
    (result,) = calibrated.search(["a dog jumps"], top=5)
    sure = [found.confidence for found in result.found]
    assert sure == sorted(sure, reverse=True)
    best = result.found[0]
    assert best.video.name == "beach"
    assert best.start <= 46
    assert best.end >= 40
    # The beach is longer than the model's videos, so the model sees parts of it, and the others completely.
    assert {duration for _, duration in halves.seen} == {24.0, 31.0, 25.0, 40.0}
    (kept,) = calibrated.search(["a dog jumps"], min_confidence=sure[0])
    assert [found.confidence for found in kept.found] == [sure[0]]
    (none,) = calibrated.search(["a dog jumps"], min_confidence=1.0)
    assert none.found == ()
    assert none.rejected == best


def test_moments_of_a_calibrated_model_can_be_ordered_by_similarity(searcher: Searcher) -> None:
    model = MomentModel(Halves(), ("clip-b32",), longest=60.0, part=24.0)
    calibrated = Searcher(searcher.index, Sentences(), model)
    (ordered,) = calibrated.search(["a dog jumps"], top=100)
    (result,) = calibrated.search(["a dog jumps"], top=100, order="similarity")
    videos = {found.video.name for found in result.found}
    assert videos == {found.video.name for found in ordered.found}
    first = [found.similarity for found in result.found[: len(videos)]]
    assert first == sorted(first, reverse=True)
    (none,) = calibrated.search(["a dog jumps"], order="similarity", min_confidence=1.0)
    assert none.rejected == ordered.found[0]
    with pytest.raises(ConfigError, match="confidence or similarity"):
        calibrated.search(["a dog jumps"], order="date")


def still(length: int) -> np.ndarray:
    """Return the rows of a video that always looks like "a door opens"."""
    return np.tile(vector_of("a door opens"), (length, 1))


def test_a_long_video_that_always_fits_does_not_hide_the_others(tmp_path: Path) -> None:
    others = {video: planted_rows(video, length) for video, length in LENGTHS.items()}
    searcher = Searcher(index_of(tmp_path / "i", {"lecture": still(1200), **others}), Sentences())
    for stage in (1, 2):
        (result,) = searcher.search(["a door opens"], top=10, stage=stage)
        assert result.found[0].video.id == "lecture"
        assert {found.video.id for found in result.found} == {"lecture", *LENGTHS}
    like = searcher.search_like(Example("lecture", 0.0, 1199.0), top=4)
    assert {found.video.id for found in like.found} == set(LENGTHS)


def test_spans_of_one_video_do_not_leave_the_model_with_too_few_videos(tmp_path: Path) -> None:
    noisy = 1.2 * still(590) + np.random.default_rng(1).normal(size=(590, WIDTH)) * 0.25
    others = {video: planted_rows(video, length) for video, length in LENGTHS.items() if video != "kitchen"}
    index = index_of(tmp_path / "i", {"lecture": noisy.astype(np.float32), **others})
    halves = Halves()
    trained = MomentModel(halves, ("clip-b32",), longest=600.0, part=24.0)
    for searcher in (Searcher(index, Sentences()), Searcher(index, Sentences(), trained)):
        spans = searcher.search(["a door opens"], top=25, stage=1)[0].found
        assert {found.video.id for found in spans[:20]} == {"lecture"}
        (result,) = searcher.search(["a door opens"], top=8)
        assert len(result.found) == 8
        assert len({found.video.id for found in result.found}) > 2
    example = Searcher(index, Sentences()).find_example("lecture@0-20")
    assert len(searcher.search_like(example, top=8).found) == 8
    # The model sees the long video once more only if it sees others beside it.
    assert sum(rows == 590 for rows, _ in halves.seen) == 2


def test_filters_choose_videos_by_name_path_and_date(searcher: Searcher) -> None:
    assert searcher.choose() is None
    assert searcher.choose(videos="*e*") == {"kitchen", "beach", "street", "office"}
    assert searcher.choose(videos="/videos/*ch.mp4") == {"beach"}
    assert searcher.choose(since="1970-01-01T00:00:31+00:00") == {"kitchen", "beach", "office"}
    assert searcher.choose(since="1970-01-01T00:00:31+00:00", videos="[a-k]*") == {"kitchen", "beach"}
    (result,) = searcher.search(["a door opens"], videos={"beach", "street"})
    assert {found.video.name for found in result.found} <= {"beach", "street"}
    with pytest.raises(ConfigError, match="'yesterday' is not a date"):
        searcher.choose(since="yesterday")
    with pytest.raises(DataError, match="No video of the index is 'x'"):
        searcher.choose(videos="x")
    with pytest.raises(DataError, match="Of 1 video, none was changed since 2100-01-01"):
        searcher.choose(videos="beach", since="2100-01-01")


def test_moments_like_another_are_found_without_it(tmp_path: Path) -> None:
    index = planted_index(tmp_path / "i", lengths=LENGTHS | {"garage": 31})
    searcher = Searcher(index, None)
    example = searcher.find_example("kitchen.mp4@12-20")
    assert example == Example("kitchen", 12.0, 20.0) == searcher.find_example("/videos/kitchen.mp4@12-20")
    result = searcher.search_like(example, top=4)
    assert result.query == "kitchen@12-20"
    assert result.found[0].video.id == "garage"
    assert iou(result.found[0], 4.0, 12.0) > 0.8
    assert not [f for f in result.found if f.video.id == "kitchen" and f.start < 20 and f.end > 12]
    assert searcher.search_like(example, stage=1).found[0].video.id == "garage"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("kitchen", "does not name a moment"),
        ("kitchen@x-3", "does not name a moment"),
        ("kitchn@1-3", r"No video of the index is 'kitchn'\. Did you mean 'kitchen'"),
    ],
)
def test_wrong_examples_are_refused(searcher: Searcher, text: str, error: str) -> None:
    with pytest.raises(MesmError, match=error):
        searcher.find_example(text)


@pytest.mark.parametrize(("start", "end"), [(20.0, 12.0), (31.0, 40.0), (-1.0, 4.0)])
def test_examples_outside_of_their_video_are_refused(searcher: Searcher, start: float, end: float) -> None:
    with pytest.raises(DataError, match=r"is not a part of the video, which lasts 31\.0 s"):
        searcher.search_like(Example("kitchen", start, end))


def test_wrong_questions_are_refused(searcher: Searcher) -> None:
    with pytest.raises(TextError):
        searcher.search([])
    with pytest.raises(TextError):
        searcher.search([" "])
    with pytest.raises(ConfigError, match="from 1 to 1000"):
        searcher.search(["a door opens"], top=0)
    with pytest.raises(ConfigError, match="stages 1 and 2"):
        searcher.search(["a door opens"], stage=3)
    with pytest.raises(ConfigError, match="no calibration"):
        searcher.search(["a door opens"], min_confidence=0.5)


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    searcher = Searcher(planted_index(tmp_path / "i", lengths={}), Sentences())
    assert searcher.search(["a door opens"])[0].found == ()
    assert searcher.search(["a door opens"], stage=1)[0].found == ()
