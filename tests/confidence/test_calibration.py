"""Calibrations of invented answers: monotone, invariant, exact after saving, and honest about what they need."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mesm_core.confidence.calibration import Confidence, calibration_from, fit_calibration, windows_confidence
from mesm_core.confidence.logistic import Logistic, fit_logistic
from mesm_core.confidence.quantities import NAMES, answer_quantities
from mesm_core.confidence.report import auroc, kept_answers, rejected, reliability
from mesm_core.confidence.samples import Samples
from mesm_core.errors import CheckpointError, DataError
from mesm_core.types import Query
from tests.confidence.made import made_calibration, made_samples

WINDOWS = np.array([[2.0, 8.0, 0.9], [3.0, 9.0, 0.6], [12.0, 14.0, 0.1]])
SALIENCY = np.linspace(-3, 1, 20)


def test_confidence_rises_with_every_quantity() -> None:
    calibration = made_calibration()
    base = np.zeros((1, len(NAMES)))
    before = calibration.confidence(base)
    for column in range(len(NAMES)):
        more = base.copy()
        more[0, column] += 1
        after = calibration.confidence(more)
        assert after.answer >= before.answer
        assert after.moments[0] >= before.moments[0]
    assert calibration.confidence(base + 1).answer > before.answer


def test_the_confidence_of_a_moment_never_exceeds_that_of_the_answer() -> None:
    calibration = made_calibration()
    for sample in made_samples(5, real=20, negatives=20).samples:
        found = calibration.confidence(sample.quantities)
        assert (found.moments <= found.answer).all()
        assert 0 < found.answer < 1


def test_fit_does_not_depend_on_the_order_and_its_figures_not_on_the_batch() -> None:
    samples, calibration = made_samples(0), made_calibration()
    shuffled = Samples([samples.samples[n] for n in np.random.default_rng(1).permutation(len(samples.samples))])
    again = fit_calibration(shuffled, made_samples(1), model="abc", data="invented val")
    for a, b in ((again.answer, calibration.answer), (again.moment, calibration.moment)):
        np.testing.assert_allclose([a.intercept, *a.slopes], [b.intercept, *b.slopes], atol=1e-4)
    together = calibration.answer.probabilities(samples.first)
    alone = [calibration.answer.probabilities(row[None])[0] for row in samples.first]
    assert together.tolist() == alone


def test_a_calibration_is_the_same_after_json() -> None:
    calibration = made_calibration()
    stored = json.loads(json.dumps(calibration.as_dict()))
    assert calibration_from(stored, model="abc") == calibration
    assert calibration_from({}, model="abc") is None


def test_probabilities_hold_on_answers_that_were_not_fitted() -> None:
    report = made_calibration().report
    assert report["answers"]["ece"] < 0.06
    assert report["moments"]["ece"] < 0.06
    assert report["out_of_domain"]["auroc"] > report["in_domain"]["auroc"] > 0.6
    right = [row["R1"] for row in report["kept"] if row["kept"] > 0.1]
    assert right[-1] > right[0]


def test_the_fit_finds_the_chances_of_a_logistic_world() -> None:
    rng = np.random.default_rng(0)
    quantities = rng.normal(size=(20_000, 2)) * (1, 3)
    world = Logistic(-0.5, (1.5, 0.3))
    hits = rng.random(20_000) < world.probabilities(quantities)
    found = fit_logistic(quantities, hits, np.ones(20_000))
    np.testing.assert_allclose([found.intercept, *found.slopes], [-0.5, 1.5, 0.3], atol=0.06)


def test_slopes_are_never_negative_and_zero_for_a_constant() -> None:
    rng = np.random.default_rng(0)
    quantities = np.stack([rng.normal(size=500), np.full(500, 7.0), rng.normal(size=500)], axis=1)
    found = fit_logistic(quantities, quantities[:, 0] - quantities[:, 2] > 0, np.ones(500))
    assert found.slopes[0] > 1
    assert found.slopes[1:] == (0, 0)


@pytest.mark.parametrize("real, negatives, says", [(29, 200, "30 queries with an answer"), (200, 29, "30 negatives")])
def test_too_few_questions_are_refused_with_the_number_needed(real: int, negatives: int, says: str) -> None:
    few = made_samples(0, real=real, negatives=negatives)
    for halves in ((few, made_samples(1)), (made_samples(1), few)):
        with pytest.raises(DataError, match=f"needs {says}.*29"):
            fit_calibration(*halves, model="abc", data="invented val")


@pytest.mark.parametrize("fitted", [["abc_60_210"], ["abc"], ["abc_60_210", "abc"]])
def test_a_calibration_knows_its_videos_whether_or_not_they_are_grouped_by_source(fitted: list[str]) -> None:
    """A dataset groups the parts of a video by their source; lines of one's own do not."""
    calibration = fit_calibration(made_samples(0), made_samples(1), model="abc", data="x", videos=fitted)
    grouped = Query(1, "abc_60_210", "a door opens", 150.0, ((1.0, 5.0),), source="abc")
    assert calibration.may_know(grouped)
    assert calibration.may_know(replace(grouped, source=None)) == ("abc_60_210" in fitted)
    assert not calibration.may_know(replace(grouped, vid="other_60_210", source="other"))


def test_a_calibration_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="belongs to another model"):
        calibration_from(made_calibration().as_dict(), model="other")


@pytest.mark.parametrize(
    "change",
    [
        {"answer": [1.0] * 6},
        {"answer": [0.0, -1.0, *[0.0] * 5]},
        {"moment": [float("nan"), *[0.0] * 6]},
        {"moment": "x"},
        {"report": 3},
        {"seed": None},
        {"data": 1},
        {"quantities": ["score"]},
        {"videos": "x"},
        {"videos": [1]},
    ],
)
def test_damaged_calibrations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="checkpoint"):
        calibration_from(made_calibration().as_dict() | change, model="abc")


def test_quantities_rise_with_score_agreement_and_saliency() -> None:
    def of(windows: np.ndarray, saliency: np.ndarray) -> dict[str, float]:
        rows = answer_quantities(windows, saliency, start=0, seconds=20)
        return dict(zip(NAMES, rows[0].tolist(), strict=True))

    base = of(WINDOWS, SALIENCY)
    surer, agreeing = WINDOWS.copy(), WINDOWS.copy()
    surer[0, 2], agreeing[1, :2] = 0.95, WINDOWS[0, :2]
    assert of(surer, SALIENCY)["score"] > base["score"]
    assert of(surer, SALIENCY)["margin"] > base["margin"]
    assert of(agreeing, SALIENCY)["agreement"] > base["agreement"]
    inside = SALIENCY + np.where((np.arange(20) >= 2) & (np.arange(20) < 8), 5, 0)
    assert of(WINDOWS, inside)["contrast"] > base["contrast"]
    assert of(WINDOWS, SALIENCY + 1)["saliency"] > base["saliency"]


@pytest.mark.parametrize(
    "windows, saliency",
    [
        (WINDOWS[:1], SALIENCY),
        (WINDOWS, SALIENCY[:1]),
        (np.array([[5.0, 5.0, 1.0]]), SALIENCY),
        (np.array([[0.0, 20.0, 0.0]]), SALIENCY),
        (WINDOWS, np.full(4, np.nan)),
        (WINDOWS, np.full(4, -np.inf)),
        (np.array([[0.01, 0.02, 0.5]]), SALIENCY),
    ],
    ids=["one slot", "one frame", "a point", "the whole video", "NaN", "minus infinity", "between frames"],
)
def test_quantities_are_finite(windows: np.ndarray, saliency: np.ndarray) -> None:
    rows = answer_quantities(windows, saliency, start=0, seconds=20)
    assert rows.shape == (len(windows), len(NAMES))
    assert np.isfinite(rows).all()


def test_an_answer_without_moments_has_no_confidence() -> None:
    rows = answer_quantities(np.zeros((0, 3)), SALIENCY, start=0, seconds=20)
    found = made_calibration().confidence(rows)
    assert (rows.shape, found.answer, found.moments.shape) == ((0, len(NAMES)), 0.0, (0,))


def test_quantities_of_a_window_are_those_of_the_same_frames_elsewhere() -> None:
    later = WINDOWS + np.array([100.0, 100.0, 0])
    here = answer_quantities(WINDOWS, SALIENCY, start=0, seconds=20)
    np.testing.assert_allclose(answer_quantities(later, SALIENCY, start=100, seconds=20), here)


def test_windows_share_the_confidence_of_their_video() -> None:
    parts = [Confidence(chance, np.zeros(1)) for chance in (0.9, 0.2, 0.2)]
    whole, each = windows_confidence(parts)
    shares = [part.answer for part in each]
    assert whole == pytest.approx(sum(shares))
    assert shares[0] > shares[1] == shares[2]
    assert windows_confidence(parts[:1])[0] == pytest.approx(0.9)
    assert windows_confidence([Confidence(0.5, np.zeros(1))] * 60)[0] == pytest.approx(0.5)
    assert windows_confidence([replace(parts[0], answer=1.0)])[0] == pytest.approx(1)


def test_measures_of_separation() -> None:
    assert auroc(np.array([1.0, 2, 3]), np.array([0.0])) == 1
    assert auroc(np.ones(5), np.ones(3)) == 0.5
    positive = np.linspace(0, 1, 101)
    assert rejected(positive, np.array([0.01, 0.04, 0.05, 0.9])) == 0.5
    assert rejected(np.ones(5), np.ones(3)) == 0


def test_reliability_weighs_the_distance_of_each_bin() -> None:
    found = reliability(np.array([0.05, 0.95, 0.95]), np.array([False, True, False]), np.array([2.0, 1, 1]))
    assert found["ece"] == pytest.approx(0.5 * 0.05 + 0.5 * 0.45)
    assert [row[:2] for row in found["bins"]] == [[0.0, 0.1], [0.9, 1.0]]
    assert found["bins"][1][2:] == pytest.approx([0.95, 0.5, 0.5, 2])


def test_thresholds_that_keep_nothing_are_left_out() -> None:
    rows = kept_answers(np.array([0.32, 0.12]), np.array([0.9, 0.1]))
    assert rows[0] == {"threshold": 0.0, "kept": 1.0, "R1": 0.5, "mIoU": 0.5}
    assert rows[-1] == {"threshold": 0.3, "kept": 0.5, "R1": 1.0, "mIoU": 0.9}
