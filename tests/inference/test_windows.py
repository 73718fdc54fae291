"""Long videos in overlapping windows: division, merged answers, and warnings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.load import load_config
from mesm_core.data.readers.tacos import Tacos
from mesm_core.errors import CheckpointError, ConfigError, FeatureError
from mesm_core.inference.answers import Answer, VideoQueries
from mesm_core.inference.predictor import MOST_PAIRS, MomentRetriever
from mesm_core.inference.scoring import load_for_scoring, score_checkpoint
from mesm_core.inference.windows import (
    FEWEST_FRAMES,
    MERGE_NMS,
    MOST_MOMENTS,
    Lengths,
    bounded,
    check_window,
    cut_video,
    join_predictions,
    join_saliency,
    merge_moments,
    relevance,
    training_lengths,
    window_frames,
    window_ranges,
)
from mesm_core.metrics.nms import temporal_nms
from mesm_core.types import Inputs, ModelOutput, Prediction
from tests.changed_checkpoints import changed, setting
from tests.conftest import Trained
from tests.inference.answers import always

QUERY = "The man cuts a pan."
RATE = 0.5
"""Frames a second of the invented features."""


def long_video(seconds: float, seed: int = 0) -> np.ndarray:
    frames: np.ndarray = np.random.default_rng(seed).normal(size=(round(seconds * RATE), 12)).astype(np.float32)
    return frames


def same(one: Answer, other: Answer) -> None:
    ours, others = ([[m.start, m.end, m.score] for m in answer.moments] for answer in (one, other))
    assert np.array(ours) == pytest.approx(np.array(others), abs=2e-3)
    assert one.saliency == pytest.approx(other.saliency, abs=2e-3)
    assert (one.seen, one.warnings, one.window) == (other.seen, other.warnings, other.window)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
def test_windows_cover_the_video(overlap: float) -> None:
    for frames in range(1, 80):
        for length in (1, 2, 3, 7, 10, 40, 100):
            ranges = window_ranges(frames, length, overlap=overlap)
            covered = {frame for start, stop in ranges for frame in range(start, stop)}
            assert covered == set(range(frames))
            assert {stop - start for start, stop in ranges} == {min(length, frames)}
            assert ranges[-1][1] == frames
            assert len(set(ranges)) == len(ranges)
            shared = [first[1] - second[0] for first, second in pairwise(ranges)]
            assert all(count == min(round(overlap * length), length - 1) for count in shared[:-1])
            assert all(count >= min(round(overlap * length), length - 1) for count in shared)


def test_window_frames_depend_on_duration_and_setting() -> None:
    usual = {"frames": 600, "duration": 300.0, "lengths": Lengths(200.0, 50.0), "max_frames": 194}
    assert window_frames("auto", **usual) == 100  # type: ignore[arg-type]
    assert window_frames("off", **usual) is None  # type: ignore[arg-type]
    assert window_frames(30.0, **usual) == 60  # type: ignore[arg-type]
    assert window_frames(0.01, **usual) == FEWEST_FRAMES  # type: ignore[arg-type]
    assert window_frames(250.0, **usual) == 194  # type: ignore[arg-type]
    assert window_frames(300.0, **usual) is None  # type: ignore[arg-type]
    assert window_frames(1e308, **usual) is None  # type: ignore[arg-type]
    short = usual | {"duration": 200.0}
    assert window_frames("auto", **short) is None  # type: ignore[arg-type]
    assert window_frames(50.0, **short) == 150  # type: ignore[arg-type]
    assert window_frames("auto", **usual | {"frames": 3}) is None  # type: ignore[arg-type]
    assert window_frames("auto", **usual | {"frames": 0}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("window", ["", "x", "Auto", "nan", "inf", "-3", "0", 0, -1.5, float("nan"), True, None, "1,5"])
def test_invalid_window_settings_are_refused(window: object) -> None:
    with pytest.raises(ConfigError, match="auto, off, or a positive number of seconds"):
        check_window(window)  # type: ignore[arg-type]


def test_pieces_are_views_of_the_frames() -> None:
    parts = [np.random.default_rng(0).normal(size=(n, 2)) for n in (101, 103)]
    pieces = cut_video(parts, window=20.0, duration=202.0, lengths=Lengths(9, 9), max_frames=50)
    assert [piece.first for piece in pieces] == [*range(0, 91, 5), 91]
    for piece in pieces:
        assert all(np.shares_memory(mine, whole) for mine, whole in zip(piece.parts, parts, strict=True))
        assert [len(part) for part in piece.parts] == [10, 10]
        assert (piece.start, piece.seconds) == (piece.first * 2.0, 20.0)
    assert pieces[-1].start + pieces[-1].seconds == 202


def test_merged_moments_match_nms_of_all_moments() -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 90, (7, 20))
    parts = [np.stack([s, s + rng.uniform(0, 10, 20), rng.uniform(size=20)], axis=1) for s in starts]
    merged, places = merge_moments(parts, np.ones(7))
    assert (np.diff(merged[:, 2]) <= 0).all()
    expected = temporal_nms(np.concatenate(parts), threshold=MERGE_NMS)[:MOST_MOMENTS]
    assert merged == pytest.approx(expected, abs=1e-4)
    assert np.concatenate(parts)[places] == pytest.approx(expected)
    many = np.stack([np.arange(900) * 2.0, np.arange(900) * 2.0 + 1, np.ones(900)], axis=1)
    assert len(merge_moments([many, many], np.ones(2))[0]) == MOST_MOMENTS


def test_moments_of_the_most_relevant_window_rank_first() -> None:
    wrong, right = np.array([[5.0, 9.0, 0.9]]), np.array([[45.0, 49.0, 0.6], [50.0, 55.0, 0.1]])
    saliency = [np.array([-9.0, -8.0]), np.array([-9.0, -2.0])]
    merged, _ = merge_moments([wrong, right], relevance(saliency))
    assert merged[:2].tolist() == right.tolist()  # in the likeliest window scores are what they were
    assert merged[2].tolist() == [5, 9, pytest.approx(0.9 * 0.0028, abs=1e-4)]
    assert wrong[0, 2] == 0.9
    extreme = relevance([np.array([-1e4]), np.array([-2e4]), np.array([1e4])])
    assert extreme.tolist() == [0, 0, 1]


def test_saliency_of_windows_is_averaged() -> None:
    ranges = window_ranges(23, 8)
    scores = np.linspace(-3, 5, 23).astype(np.float32)
    joined = join_saliency([scores[start:stop] for start, stop in ranges], ranges)
    assert joined.dtype == np.float32
    assert joined == pytest.approx(scores)  # where windows agree, nothing changes
    apart = join_saliency([np.full(8, number, float) for number in range(len(ranges))], ranges)
    assert apart.min() == 0
    assert apart.max() == len(ranges) - 1
    assert (np.diff(apart) >= 0).all()
    one = Prediction(1, "q", "v", np.ones((2, 3)), scores)
    assert join_predictions([one], [])[0] is one


def test_batches_of_windows_are_limited() -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 100).tolist()
    slices = list(bounded(sizes, most=5, total=20))
    assert [size for part in slices for size in sizes[part]] == sizes
    assert all(len(sizes[part]) <= 5 and sum(sizes[part]) <= 20 for part in slices)
    assert list(bounded([], most=5, total=20)) == []


def test_a_checkpoint_stores_the_durations_of_training_videos(trained: Trained, tmp_path: Path) -> None:
    queries = Tacos().read(trained.paths.annotations, "train").queries
    durations = list({query.vid: query.duration for query in queries}.values())
    found = load_checkpoint(trained.best).data_statistics
    assert (found["longest"], found["median"]) == (max(durations), np.median(durations))
    assert MomentRetriever.load(trained.best, device="cpu").lengths == Lengths(found["longest"], found["median"])

    def older(content: dict) -> None:
        del content["data_statistics"]["longest"], content["data_statistics"]["median"]

    path = changed(trained, tmp_path / "old.pt", older)
    assert MomentRetriever.load(path, device="cpu").lengths == Lengths(1000.0, 159.0)
    shorter = MomentRetriever.load(path, device="cpu", overrides=["eval.max_time=5"])
    assert shorter.lengths == Lengths(1000.0, 159.0)  # the checkpoint's own settings, not the user's


@pytest.mark.parametrize("name", ["longest", "median"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, "x", True, None, [3.0]])
def test_invalid_durations_in_a_checkpoint_are_refused(
    trained: Trained, tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(CheckpointError, match=f"data_statistics.{name}"):
        load_checkpoint(changed(trained, tmp_path / "odd.pt", setting(f"data_statistics.{name}", value)))


def test_training_lengths_of_presets() -> None:
    assert training_lengths({}, load_config("qvhighlights")) == Lengths(150.0, 150.0)
    assert training_lengths({}, load_config("charades-vgg-glove")).longest == pytest.approx(102)
    assert training_lengths({}, load_config("tacos")) == Lengths(1000.0, 159.0)
    own = load_config("jsonl", overrides=["model.video_dim=4", "dataset.clip_len=2"])
    assert training_lengths({}, own) == Lengths(600.0, 300.0)


def test_only_videos_longer_than_training_are_divided(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    longest, median = retriever.lengths.longest, retriever.lengths.median
    frames = long_video(longest)
    auto, off, whole = (
        retriever.locate(frames, [QUERY], duration=longest, window=window)[0] for window in ("auto", "off", longest)
    )
    for answer in (auto, off, whole):
        assert answer.window is None
        assert answer.moments == off.moments
        assert np.array_equal(answer.saliency, off.saliency)
    cut = retriever.locate(long_video(longest + 10), [QUERY], duration=longest + 10)[0]
    most = retriever.config.dataset.max_frames / RATE
    assert cut.window == pytest.approx(min(median, most), abs=1 / RATE)


def test_windows_cover_a_long_video_without_averaging(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu", overrides=["eval.batch_size=4"])
    seen: list[tuple[int, ...]] = []
    forward = retriever.model.forward

    def spied(inputs: Inputs) -> ModelOutput:
        seen.append(tuple(inputs.video.shape))
        return forward(inputs)

    monkeypatch.setattr(retriever.model, "forward", spied)
    encoded: list[str] = []
    features = retriever.text.features
    monkeypatch.setattr(retriever.text, "features", lambda sentence: encoded.append(sentence) or features(sentence))
    queries = [QUERY, "The woman washes the bowl."]
    answers = retriever.locate(long_video(900), queries, duration=900.0, window=40.0)
    assert encoded == queries
    assert len(seen) > 5
    assert {shape[1] for shape in seen} == {20}  # no window is longer than it should be, none averaged
    assert all(shape[0] <= 4 for shape in seen)
    for answer in answers:
        assert (answer.window, answer.seen, answer.warnings) == (40.0, 900.0, ())
        assert answer.saliency.shape == (450,)
        assert all(0 <= m.start <= m.end <= 900 for m in answer.moments)
        assert [m.score for m in answer.moments] == sorted((m.score for m in answer.moments), reverse=True)
    many = [QUERY] * (MOST_PAIRS - 1)
    seen.clear()
    retriever.locate(long_video(100), many, duration=100.0, window=40.0)
    assert {shape[0] for shape in seen} == {1}  # many queries, so one window at a time


def test_moments_are_shifted_by_the_start_of_their_window(trained: Trained) -> None:
    retriever = always(MomentRetriever.load(trained.best, device="cpu"), (0.25, 0.1))
    (answer,) = retriever.locate(long_video(200), [QUERY], duration=200.0, window=40.0, nms=-1)
    assert sorted(m.start for m in answer.moments) == pytest.approx([8 + start for start in range(0, 161, 20)])
    assert all(m.end - m.start == pytest.approx(4) for m in answer.moments)
    dataset = retriever.config.dataset.model_copy(update={"clip_len": 3.0})
    retriever.config = retriever.config.model_copy(update={"dataset": dataset})
    (answer,) = retriever.locate(long_video(200), [QUERY], duration=200.0, window=40.0, nms=-1)
    assert all(m.start % 3 == 0 and m.end % 3 == 0 for m in answer.moments)  # clips of the video, not of the window


def test_windows_match_a_video_divided_by_hand(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    frames = long_video(120)
    (answer,) = retriever.locate(frames, [QUERY], duration=120.0, window=60.0)
    rows, saliency = [], []
    for first in (0, 15, 30):
        (part,) = retriever.locate(frames[first : first + 30], [QUERY], duration=60.0, window="off", nms=-1)
        rows.append(np.array([[m.start + first / RATE, m.end + first / RATE, m.score] for m in part.moments]))
        saliency.append(part.saliency)
    expected, _ = merge_moments(rows, relevance(saliency))
    got = np.array([[m.start, m.end, m.score] for m in answer.moments])
    assert sorted(got[:, 2]) == pytest.approx(sorted(expected[:, 2]), abs=1e-3)
    assert answer.moments[0].start == pytest.approx(expected[0, 0], abs=1e-2)


def test_answers_do_not_depend_on_other_videos_in_the_batch(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    asked = [VideoQueries(long_video(s, s), [QUERY, "He opens a drawer."], float(s)) for s in (70, 500, 90, 333)]
    together = retriever.locate_many(asked, window=50.0)
    for one, answers in zip(asked, together, strict=True):
        alone = retriever.locate(one.features, one.queries, duration=one.duration, window=50.0)
        for got, expected in zip(answers, alone, strict=True):
            same(got, expected)
    alone = retriever.locate(asked[1].features, asked[1].queries, duration=500.0, window=50.0, independent=True)
    assert [answer.query for answer in alone] == asked[1].queries


def test_windows_of_another_length_than_requested_give_a_warning(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    (answer,) = retriever.locate(long_video(900), [QUERY], duration=900.0, window=300.0)
    assert answer.window == 80  # 40 frames
    assert answer.warnings == ("its windows have 80.0 seconds, not 300: a window has 4 to 40 frames "
                               "(dataset.max_frames)",)  # fmt: skip
    (answer,) = retriever.locate(long_video(900), [QUERY], duration=900.0, window=0.5)
    assert "its windows have 8.0 seconds, not 0.5" in answer.warnings[0]


def test_unusable_features_are_refused(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    frames = long_video(900)
    frames[333, 3] = np.nan
    with pytest.raises(FeatureError, match="first in frame 333"):
        retriever.locate(frames, [QUERY], duration=900.0, window=40.0)
    for odd in (np.array(3.0), np.ones(900), np.ones((0, 12)), np.ones((900, 11)), np.ones((9, 12, 2))):
        with pytest.raises(FeatureError):
            retriever.locate(odd, [QUERY], duration=900.0)  # type: ignore[arg-type]


def test_evaluation_uses_windows_only_if_requested(trained: Trained) -> None:
    usual = score_checkpoint(load_for_scoring(trained.best, split="test"))
    off = load_for_scoring(trained.best, split="test")
    assert (off.window, off.windowed) == ("off", ())
    job = load_for_scoring(trained.best, split="test", window=50, overrides=["dataset.max_frames=30"])
    durations = [query.duration for query in job.dataset.queries]
    assert list(job.windowed) == [index for index, seconds in enumerate(durations) if seconds > 50]
    assert not [warning for warning in job.warnings if "averaged" in warning]
    done = []
    found = score_checkpoint(job, progress=done.append)
    assert sum(done) == len(job.dataset) == len(found.predictions)
    for query, ours, other in zip(job.dataset.queries, found.predictions, usual.predictions, strict=True):
        assert (ours.qid, ours.query, ours.vid) == (other.qid, other.query, other.vid)
        assert len(ours.saliency) == job.dataset.features.stored_length(query.vid)
        assert (ours.windows[:, 1] <= query.duration + 1e-6).all()
    auto = load_for_scoring(trained.best, split="test", window="auto")
    longest = auto.retriever.lengths.longest
    assert list(auto.windowed) == [index for index, seconds in enumerate(durations) if seconds > longest]


def test_nms_of_thousands_of_moments() -> None:
    rng = np.random.default_rng(0)
    windows = np.stack([starts := rng.uniform(0, 9e3, 3000), starts + 5, rng.uniform(size=3000)], axis=1)
    kept = temporal_nms(windows, threshold=0.3)
    assert 1000 < len(kept) < 3000
    assert len(temporal_nms(windows, threshold=0.3, max_after=0)) == 0


def test_too_many_windows_are_refused() -> None:
    frames = np.zeros((200_000, 2), np.float32)
    with pytest.raises(FeatureError, match="would have 9,999 windows"):
        cut_video([frames], window=20, duration=60.0, lengths=Lengths(100.0, 30.0), max_frames=40)
