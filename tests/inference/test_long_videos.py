"""Videos longer than max_time or max_frames: ends and scale of moments, and warnings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mesm_core.build import build_features, build_split, evaluation_settings
from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.load import Layer, resolve, set_layer
from mesm_core.data.shortening import Shortening
from mesm_core.decode import Decoding, decode
from mesm_core.errors import CheckpointError
from mesm_core.inference.evaluate import evaluate
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.scoring import load_for_scoring
from mesm_core.types import Batch, Inputs, Query
from tests.conftest import Trained
from tests.inference.answers import always, answering


def decoded(decoding: Decoding, duration: float, *spans: tuple[float, float]) -> list[list[float]]:
    inputs = replace(Inputs(*[torch.zeros(1, 4)] * 10), frames_mask=torch.ones(1, 4, dtype=torch.bool))
    batch = Batch((Query(1, "v", "he cuts", duration),), inputs)
    (prediction,) = decode(answering(spans, 1), batch, decoding)
    return prediction.windows[:, :2].tolist()


def retriever_with(trained: Trained, *changes: str) -> MomentRetriever:
    """Return the trained model with changes to settings that users cannot change."""
    checkpoint = load_checkpoint(trained.best)
    config = resolve([Layer("checkpoint", checkpoint.config), set_layer(changes)])
    return MomentRetriever.from_checkpoint(checkpoint, config=config, device="cpu")


def test_moments_end_at_the_end_of_the_video_not_at_max_time(trained: Trained) -> None:
    retriever = always(MomentRetriever.load(trained.best, device="cpu"), (0.9, 0.2), (0.5, 1.4))
    assert retriever.config.eval.max_time == 1000
    (answer,) = retriever.locate(np.ones((30, 12), np.float32), ["He cuts."], duration=3600.0, window="off")
    assert [m.start for m in answer.moments] == pytest.approx([2880, 0], abs=1e-2)
    assert [m.end for m in answer.moments] == pytest.approx([3600, 3600], abs=1e-2)


@pytest.mark.parametrize(
    ("decoding", "duration", "expected"),
    [
        (Decoding(max_time=150), 100.0, [50, 130]),  # as published: not cut to the duration
        (Decoding(max_time=150), 140.0, [70, 150]),
        (Decoding(max_time=150), 600.0, [300, 600]),
        (Decoding(max_time=None), 100.0, [50, 100]),
        (Decoding(max_time=150, clip_len=2), 9.5, [4, 12]),
        (Decoding(max_time=None, clip_len=2), 9.5, [4, 9.5]),
        (Decoding(max_time=5, clip_len=2), 9.5, [4, 9.5]),
        (Decoding(max_time=151, clip_len=2), 150.5, [76, 152]),
    ],
)
def test_decoded_windows_are_clamped(decoding: Decoding, duration: float, expected: list[float]) -> None:
    assert decoded(decoding, duration, (0.9, 0.8))[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("span", [(float("nan"), 0.8), (0.5, float("inf"))])
def test_outputs_that_are_not_finite_are_refused(span: tuple[float, float]) -> None:
    with pytest.raises(CheckpointError, match="outputs contain NaN or infinity"):
        decoded(Decoding(max_time=None), 10.0, (0.5, 0.8), span)


def test_first_frames_are_not_stretched_over_the_video(trained: Trained) -> None:
    retriever = retriever_with(trained, "dataset.shorten=first", "dataset.clip_len=2", "dataset.span_unit=frames")
    retriever = always(retriever, (0.75, 0.5))
    cut, whole = np.ones((300, 12), np.float32), np.ones((40, 12), np.float32)
    (answer,) = retriever.locate(cut, ["He cuts."], duration=600.0, window="off")
    assert (answer.moments[0].start, answer.moments[0].end, answer.seen) == (40, 80, 80)
    assert len(answer.saliency) == 40
    assert "only the first 80.0 of 600.0 seconds are seen" in answer.warnings[0]
    (answer,) = retriever.locate(whole, ["He cuts."], duration=79.0)
    assert (answer.moments[0].end, answer.seen, answer.warnings) == (79, 79, ())
    spread = always(retriever_with(trained, "dataset.shorten=first"), (0.5, 1.0))
    (answer,) = spread.locate(cut, ["He cuts."], duration=600.0, window="off")
    assert answer.moments[0].end == pytest.approx(80)  # 40 of 300 frames


@pytest.mark.parametrize(("frames", "duration"), [(75, 150.0), (76, 150.0), (60, 126.0), (75, 149.3), (77, 150.0)])
def test_videos_of_qvhighlights_are_not_shortened(frames: int, duration: float) -> None:
    shortening = Shortening(max_frames=75, shorten="first", clip_len=2)
    assert shortening.seen(frames, duration) == duration
    assert shortening.warnings(frames, duration) == ()


def test_frames_with_another_rate_than_clip_len_cover_their_share() -> None:
    assert Shortening(75, "first", 2).seen(300, 300.0) == 75


def test_evaluation_scales_by_the_seconds_of_the_used_frames(trained: Trained) -> None:
    retriever = retriever_with(trained, "dataset.shorten=first", "dataset.max_frames=10", "dataset.clip_len=2")
    always(retriever, (0.5, 1.0))
    config = retriever.config
    features = build_features(config, trained.paths)
    built = build_split(config, trained.paths, "test", retriever.text, features)
    done = evaluate(retriever.model, built.dataset, device=retriever.device, **evaluation_settings(config))
    assert all(features.stored_length(query.vid) > 10 for query in built.dataset.queries)
    assert {prediction.windows[0, 1] for prediction in done.predictions} == {20}


def test_averaged_frames_give_a_warning(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    (answer,) = retriever.locate(np.ones((200, 12), np.float32), ["The man cuts a pan."], duration=3600.0, window="off")
    assert len(answer.warnings) == 1
    assert "its 200 frames are averaged into 40" in answer.warnings[0]
    assert "each stands for 90.0 seconds" in answer.warnings[0]
    (answer,) = retriever.locate(np.ones((200, 12), np.float32), ["The man cuts a pan."], duration=159.0)
    assert answer.warnings == ()  # 4 seconds a frame at most
    (answer,) = retriever.locate(np.ones((40, 12), np.float32), ["The man cuts a pan."], duration=3600.0, window="off")
    assert answer.warnings == ()  # nothing was averaged


def test_an_hour_in_the_charades_preset_gives_a_warning() -> None:
    assert "each stands for 18.6 seconds" in Shortening(194, "mean", 1).warnings(3600, 3600.0)[0]
    assert Shortening(194, "mean", 1).warnings(388, 388.0) == ()


def test_evaluation_warns_of_long_videos(trained: Trained) -> None:
    job = load_for_scoring(trained.best, split="test", overrides=["dataset.max_frames=5"])
    (warning,) = [line for line in job.warnings if "averaged" in line]
    assert "videos have more than 5 frames" in warning
    assert not [w for w in load_for_scoring(trained.best, split="test").warnings if "averaged" in w]
