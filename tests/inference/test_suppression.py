"""Near-duplicate moments are suppressed when shown to users, and kept in submissions and evaluation."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import ConfigError
from mesm_core.inference.answers import Answer, Moment
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.metrics.nms import temporal_nms
from tests.conftest import Trained
from tests.inference.answers import always

# Slots 1 and 2 are the same moment but for a hair, slot 4 is slot 3 again.
SPANS = ((0.5, 0.4), (0.51, 0.4), (0.2, 0.1), (0.2, 0.1))
FRAMES = np.ones((20, 12), np.float32)


def overlap(a: Moment, b: Moment) -> float:
    inner = min(a.end, b.end) - max(a.start, b.start)
    return max(inner, 0) / max(max(a.end, b.end) - min(a.start, b.start), 1e-9)


def test_locate_suppresses_near_duplicates(trained: Trained) -> None:
    retriever = always(MomentRetriever.load(trained.best, device="cpu"), *SPANS)
    (answer,) = retriever.locate(FRAMES, ["He cuts."], duration=100.0)
    assert [round(moment.start) for moment in answer.moments] == [30, 15]
    assert all(overlap(a, b) <= 0.7 for a, b in combinations(answer.moments, 2))
    for independent in (False, True):
        (whole,) = retriever.locate(FRAMES, ["He cuts."], duration=100.0, nms=-1, independent=independent)
        assert len(whole.moments) == 4
    assert len(retriever.locate(FRAMES, ["He cuts."], duration=100.0, nms=0.99)[0].moments) == 3


def test_equal_moments_of_zero_length_are_merged() -> None:
    windows = np.array([[4, 4, 0.9], [0, 2, 0.8], [4, 4, 0.7]])
    answer = Answer("he cuts", windows, np.zeros(3, np.float32), seen=9.0)
    assert answer.suppressed(0.7).moments == (Moment(4, 4, 0.9), Moment(0, 2, 0.8))
    assert answer.suppressed(-1).windows is windows
    assert Answer("he cuts", np.empty((0, 3)), np.zeros(3, np.float32), seen=9.0).suppressed(0.7).moments == ()


def test_nms_keeps_all_moments_without_overlap() -> None:
    windows = np.array([[2.0 * n, 2.0 * n + 1, 1 - n / 1000] for n in range(500)])
    assert np.array_equal(temporal_nms(windows, threshold=0.7), windows)


@pytest.mark.parametrize("nms", [0, -0.5, 1.5, float("nan"), -2])
def test_invalid_nms_thresholds_are_refused(mesm, trained: Trained, nms: float) -> None:
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        MomentRetriever.load(trained.best, device="cpu").locate(FRAMES, ["He cuts."], duration=9.0, nms=nms)
    for words in (["predict", trained.best, "--video", "test-000", "He cuts."], ["eval", trained.best]):
        result = mesm(*words, "--nms", nms)
        assert result.code == 2
        assert "(0, 1]" in " ".join(result.err.split())


def test_shown_moments_are_suppressed_and_submissions_are_not(
    mesm, trained: Trained, tmp_path: Path, monkeypatch
) -> None:
    load = MomentRetriever.from_checkpoint
    monkeypatch.setattr(MomentRetriever, "from_checkpoint", lambda *a, **k: always(load(*a, **k), *SPANS))
    words = ["predict", trained.best, "--video", "test-000", "The man cuts a pan."]
    (shown,) = json.loads(mesm(*words, "--json").out)
    assert len(shown["moments"]) == 2
    assert mesm(*words).out.count("–") == 2
    assert len(json.loads(mesm(*words, "--json", "--nms", "-1").out)[0]["moments"]) == 4
    assert len(json.loads(mesm(*words, "--output", "-").out)["pred_relevant_windows"]) == 4
    assert len(json.loads(mesm(*words, "--output", "-", "--nms", "0.7").out)["pred_relevant_windows"]) < 4
    both = mesm(*words, "--output", tmp_path / "out.jsonl", "--json")
    assert len(json.loads(both.out)[0]["moments"]) == 2
    assert len(json.loads((tmp_path / "out.jsonl").read_text())["pred_relevant_windows"]) == 4
    done = mesm("eval", trained.best, "--split", "test", "--output", tmp_path / "eval.jsonl")
    assert done.code == 0
    lines = map(json.loads, (tmp_path / "eval.jsonl").read_text().splitlines())
    assert {len(line["pred_relevant_windows"]) for line in lines} == {4}
